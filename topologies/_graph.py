"""What every generator shares: the size limit, the seed, and edges put in order as a ``Data``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks

LIMIT = 2**31 - 1  # nodes and edges are numbered in int32 by everything that runs on a topology

Seed = int | torch.Generator


def refuse_too_large(arguments: str, *, nodes: int = 0, edges: int = 0) -> None:
    """A ValueError where a graph would have more nodes or edges than int32 can number; to be called before anything is built."""
    for count, what in ((nodes, "nodes"), (edges, "edges")):
        if count > LIMIT:
            raise ValueError(f"{arguments} must give at most {LIMIT:,} {what}, got {count:,}: choose smaller ones")


def generator_of(seed: Any) -> torch.Generator:
    """A source of random numbers of its own: a new one for an integer, the caller's, which moves on, for a ``torch.Generator``."""
    if isinstance(seed, torch.Generator):
        return seed
    try:
        return torch.Generator().manual_seed(_checks.integer("seed", seed, minimum=0, maximum=2**63 - 1))
    except ValueError:
        raise ValueError(f"seed must be an integer in [0, 2**63) or a torch.Generator, got {seed!r}") from None


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
