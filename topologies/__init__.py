"""Graphs as PyTorch Geometric ``Data``: lattices and any other graph that a rule can run on."""

from __future__ import annotations

from collections.abc import Callable

from torch_geometric.data import Data

from topologies._batch import batch
from topologies._cells import columns, line_to_cube, router_cells
from topologies._edges import from_edges
from topologies._feedforward import raster, tree
from topologies._generator import TopologyGenerator
from topologies._lattice import grid
from topologies._liquid import liquid
from topologies._matrix import from_adjacency, from_scipy, to_scipy
from topologies._networkx import from_networkx, to_networkx
from topologies._planar import hexagonal, triangular
from topologies._preferential import scale_free
from topologies._random import erdos_renyi, random_regular
from topologies._regular import complete, ring
from topologies._small_world import small_world
from topologies._spatial import delaunay, geometric
from topologies._table import read_edge_table
from topologies.nulls import DegreePreservingRewire, EqualDensity, SpectralRadius, WeightShuffle

# every topology by name: one line each
GENERATORS: dict[str, Callable[..., Data]] = {
    "columns": columns,
    "complete": complete,
    "delaunay": delaunay,
    "erdos_renyi": erdos_renyi,
    "geometric": geometric,
    "grid": grid,
    "hexagonal": hexagonal,
    "line_to_cube": line_to_cube,
    "liquid": liquid,
    "random_regular": random_regular,
    "raster": raster,
    "read_edge_table": read_edge_table,
    "ring": ring,
    "router_cells": router_cells,
    "scale_free": scale_free,
    "small_world": small_world,
    "tree": tree,
    "triangular": triangular,
}

__all__ = [
    "GENERATORS",
    "DegreePreservingRewire",
    "EqualDensity",
    "SpectralRadius",
    "TopologyGenerator",
    "WeightShuffle",
    "batch",
    "columns",
    "complete",
    "delaunay",
    "erdos_renyi",
    "from_adjacency",
    "from_edges",
    "from_networkx",
    "from_scipy",
    "geometric",
    "grid",
    "hexagonal",
    "line_to_cube",
    "liquid",
    "random_regular",
    "raster",
    "read_edge_table",
    "ring",
    "router_cells",
    "scale_free",
    "small_world",
    "to_networkx",
    "to_scipy",
    "tree",
    "triangular",
]
