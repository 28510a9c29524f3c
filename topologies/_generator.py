"""A topology with its arguments as an object that makes graphs, for PyG datasets that take a ``GraphGenerator``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch_geometric.data import Data
from torch_geometric.datasets.graph_generator import GraphGenerator

from topologies._graph import Series


class TopologyGenerator(GraphGenerator):
    """A topology and its arguments; every call makes a graph.

    The graphs of a random topology differ from call to call: its ``seed`` is the seed of the whole series, which is the same for
    every object made alike. Each worker of a ``DataLoader`` has another series in every epoch, which follows from that seed and from
    torch's seed of the worker.

    Args:
        topology: a function of this package, or any function that returns ``Data``.
        arguments: for the topology.
        keywords: for the topology.

    Raises:
        ValueError: if the topology does not take these arguments; what it refuses itself, it refuses at the call.

    Example:
        >>> from torch_geometric.datasets import ExplainerDataset
        >>> rings = TopologyGenerator(topologies.small_world, 50, k=4, p=0.1, seed=3)
        >>> dataset = ExplainerDataset(rings, motif_generator="house", num_motifs=2, num_graphs=10)
    """

    def __init__(self, topology: Callable[..., Data], *arguments: Any, **keywords: Any) -> None:
        super().__init__()
        if not callable(topology):
            raise ValueError(f"topology must be a function that returns a Data, got {topology!r}")
        try:
            bound = inspect.signature(topology).bind(*arguments, **keywords)
        except TypeError as error:
            raise ValueError(f"{_name(topology)} cannot be called with these arguments: {error}") from None
        bound.apply_defaults()
        self.topology = topology
        self.arguments = arguments
        self.keywords = keywords
        self._series = Series(bound.arguments["seed"]) if "seed" in bound.arguments else None

    def __call__(self) -> Data:
        if self._series is None:
            return self.topology(*self.arguments, **self.keywords)
        bound = inspect.signature(self.topology).bind(*self.arguments, **self.keywords)
        bound.arguments["seed"] = self._series.generator()
        return self.topology(*bound.args, **bound.kwargs)

    def __repr__(self) -> str:
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.keywords.items())]
        return f"{type(self).__name__}({', '.join([_name(self.topology), *given])})"


def _name(topology: Callable[..., Data]) -> str:
    """Of a function, or of the one that a ``functools.partial`` calls."""
    return getattr(getattr(topology, "func", topology), "__name__", repr(topology))
