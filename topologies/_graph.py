"""What every generator shares: the size limit, the seed, and edges put in order as a ``Data``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torch_geometric.data import Data

from topologies import _checks

LIMIT = 2**31 - 1  # nodes and edges are numbered in int32 by everything that runs on a topology

Seed = int | torch.Generator


def refuse_too_large(arguments: str, *, nodes: int = 0, edges: int = 0) -> None:
    """A ValueError where a graph would have more nodes or edges than int32 can number, or not fit into the memory that is free.

    To be called before anything is built.
    """
    for count, what in ((nodes, "nodes"), (edges, "edges")):
        if count > LIMIT:
            raise ValueError(f"{arguments} must give at most {LIMIT:,} {what}, got {count:,}: choose smaller ones")
    refuse_without_memory(arguments, 8 * nodes + 24 * edges)


def refuse_without_memory(arguments: str, size: int) -> None:
    """A ValueError where ``size`` bytes are more than the memory that is free: a system that runs out of it kills the process."""
    if size < 2**28:
        return
    import psutil  # comes with torch_geometric

    if size > (free := psutil.virtual_memory().available):
        needed = f"{size / 2**30:.1f} GiB of memory, of which {free / 2**30:.1f} GiB are free"
        raise ValueError(f"{arguments} would take {needed}: choose smaller ones")


def generator_of(seed: Any) -> torch.Generator:
    """A source of random numbers of its own: a new one for an integer, the caller's, which moves on, for a ``torch.Generator``."""
    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise ValueError(f"seed must be an integer or a torch.Generator of the CPU, where graphs are made, got one of {seed.device}")
        return seed
    try:
        return torch.Generator().manual_seed(_checks.integer("seed", seed, minimum=0, maximum=2**63 - 1))
    except ValueError:
        raise ValueError(f"seed must be an integer in [0, 2**63) or a torch.Generator, got {seed!r}") from None


class Series:
    """The random numbers of an object that is called again and again: its generator moves on from call to call.

    The workers of a ``DataLoader`` are copies of it, which would all give the same numbers, and the same again in the next epoch. There the
    generator follows from the seed and the worker's own, which differs from worker to worker and from epoch to epoch.
    """

    def __init__(self, seed: Any) -> None:
        self._generator = generator_of(seed)
        self._of_worker: tuple[int, torch.Generator] | None = None

    def generator(self) -> torch.Generator:
        """The generator of this process; the same one as long as the worker is."""
        worker = get_worker_info()
        if worker is None:
            return self._generator
        if self._of_worker is None or self._of_worker[0] != worker.seed:
            mixed = np.random.SeedSequence([self._generator.initial_seed(), worker.seed]).generate_state(1, np.uint64)
            self._of_worker = worker.seed, torch.Generator().manual_seed(int(mixed[0]))
        return self._of_worker[1]


def both_directions(pairs: Tensor) -> Tensor:
    """Undirected pairs [2, M] as edges in both directions, self-loops once: the first M columns are ``pairs``."""
    back = pairs.flip(0)[:, pairs[0] != pairs[1]]
    return torch.cat([pairs, back], dim=1)


def assemble(edge_index: Tensor, num_nodes: int, name: str, edges: Mapping[str, Tensor] | None = None, **fields: Any) -> Data:
    """A ``Data`` with its edges sorted by target, then source, and the tensors [E, …] in ``edges`` with them; ``fields`` as they are.

    The sort is stable: parallel edges stay in the order in which they came.
    """
    key = edge_index[1] * num_nodes + edge_index[0]
    values = dict(edges or {})
    if bool((key[1:] < key[:-1]).any()):
        order = key.argsort(stable=True)
        edge_index = edge_index[:, order]
        values = {field: value[order] for field, value in values.items()}
    return Data(edge_index=edge_index.contiguous(), num_nodes=num_nodes, name=name, **values, **fields)
