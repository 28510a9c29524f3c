"""Graphs as PyTorch Geometric ``Data``: lattices and any other graph that a rule can run on."""

from __future__ import annotations

from collections.abc import Callable

from torch_geometric.data import Data

from topologies._generator import TopologyGenerator
from topologies._lattice import grid

# every topology by name: one line each
GENERATORS: dict[str, Callable[..., Data]] = {
    "grid": grid,
}

__all__ = ["GENERATORS", "TopologyGenerator", "grid"]
