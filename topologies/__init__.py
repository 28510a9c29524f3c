"""Graphs as PyTorch Geometric ``Data``: lattices and any other graph that a rule can run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch_geometric.data import Data

from topologies._cells import columns, line_to_cube, router_cells
from topologies._edges import from_edges
from topologies._feedforward import raster, tree
from topologies._lattice import grid
from topologies._matrix import from_adjacency, from_scipy, to_scipy
from topologies._networkx import from_networkx, to_networkx
from topologies._planar import hexagonal, triangular
from topologies._regular import complete, ring
from topologies._table import read_edge_table

if TYPE_CHECKING:
    from topologies._generator import TopologyGenerator

# every topology by name: one line each
GENERATORS: dict[str, Callable[..., Data]] = {
    "columns": columns,
    "complete": complete,
    "grid": grid,
    "hexagonal": hexagonal,
    "line_to_cube": line_to_cube,
    "raster": raster,
    "read_edge_table": read_edge_table,
    "ring": ring,
    "router_cells": router_cells,
    "tree": tree,
    "triangular": triangular,
}

__all__ = [
    "GENERATORS",
    "TopologyGenerator",
    "columns",
    "complete",
    "from_adjacency",
    "from_edges",
    "from_networkx",
    "from_scipy",
    "grid",
    "hexagonal",
    "line_to_cube",
    "raster",
    "read_edge_table",
    "ring",
    "router_cells",
    "to_networkx",
    "to_scipy",
    "tree",
    "triangular",
]


def __getattr__(name: str) -> Any:
    """``TopologyGenerator`` on first use: its base class imports all of PyG's datasets, a second's work."""
    if name != "TopologyGenerator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from topologies._generator import TopologyGenerator

    return TopologyGenerator
