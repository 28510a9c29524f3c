"""Graphs as PyTorch Geometric ``Data``: lattices and any other graph that a rule can run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch_geometric.data import Data

from topologies._lattice import grid

if TYPE_CHECKING:
    from topologies._generator import TopologyGenerator

# every topology by name: one line each
GENERATORS: dict[str, Callable[..., Data]] = {
    "grid": grid,
}

__all__ = ["GENERATORS", "TopologyGenerator", "grid"]


def __getattr__(name: str) -> Any:
    """``TopologyGenerator`` on first use: its base class imports all of PyG's datasets, a second's work."""
    if name != "TopologyGenerator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from topologies._generator import TopologyGenerator

    return TopologyGenerator
