"""The two other regular lattices of the plane: triangular (six neighbours) and honeycomb (three).

Both are rows of sites, every second row shifted by half a cell. In steps of half a cell the site in row i at half-step h is a point of the
checkerboard i + h: the triangular lattice has its even points, the honeycomb has all of them, the even ones being sublattice 0. Neighbours
are steps on this board, and the border is crossed there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import LIMIT, assemble, refuse_too_large
from topologies._lattice import Boundary

_HALF_ROOT_3 = math.sqrt(3) / 2


class _Step(NamedTuple):
    """A neighbour's direction: half-steps to the right, rows up, the sublattice of the sites that hear it, and the way in the plane."""

    halves: int
    rows: int
    sublattice: int
    way: tuple[float, float]


# in lexicographic order of the displacement: this order is the port number
_TRIANGULAR = (
    _Step(-2, 0, 0, (-1.0, 0.0)),
    _Step(-1, -1, 0, (-0.5, -_HALF_ROOT_3)),
    _Step(-1, 1, 0, (-0.5, _HALF_ROOT_3)),
    _Step(1, -1, 0, (0.5, -_HALF_ROOT_3)),
    _Step(1, 1, 0, (0.5, _HALF_ROOT_3)),
    _Step(2, 0, 0, (1.0, 0.0)),
)
_HONEYCOMB = (
    _Step(-1, 0, 1, (-_HALF_ROOT_3, -0.5)),
    _Step(-1, 0, 0, (-_HALF_ROOT_3, 0.5)),
    _Step(0, -1, 0, (0.0, -1.0)),
    _Step(0, 1, 1, (0.0, 1.0)),
    _Step(1, 0, 1, (_HALF_ROOT_3, -0.5)),
    _Step(1, 0, 0, (_HALF_ROOT_3, 0.5)),
)


def triangular(rows: int, cols: int, *, boundary: Boundary = "periodic") -> Data:
    r"""The triangular lattice: every cell hears the six nearest ones, as cells of hexagonal shape do in cellular automata.

    .. math:: x_{ij} = \bigl(j + \tfrac12 (i \bmod 2),\; \tfrac{\sqrt3}{2}\, i\bigr), \qquad
              \mathcal{N}(i) = \{\, k : \lVert x_k - x_i \rVert = 1 \,\}

    On a periodic lattice the last row lies below the first and the last column left of the first; an odd number of rows closes with a
    shift by half a cell, so that every size is a torus on which all cells are alike. With fewer than three rows or columns several of
    the six directions meet the same source, or the cell itself: the graph stays simple, the first port is kept, and the degree is less.

    Args:
        rows: rows of cells (≥ 1).
        cols: cells per row (≥ 1).
        boundary: "periodic" or "open"; the open lattice is ``networkx.triangular_lattice_graph(rows − 1, 2·(cols − 1))``.

    Returns:
        Data with N = rows·cols nodes in C order; ``edge_index`` [2, E]; ``edge_attr`` [E, 2], the displacement source − target, a unit
        vector also across the border; ``edge_type`` [E], its rank among the six in lexicographic order, the opposite of p being 5 − p;
        ``pos`` [N, 2]; ``shape`` (rows, cols); ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> data = triangular(4, 5)
        >>> data.num_nodes, data.num_edges, data.shape
        (20, 120, (4, 5))
    """
    rows, cols, periodic = _arguments(rows, cols, boundary)
    edges = 6 * rows * cols if periodic else 2 * (rows * (cols - 1) + (rows - 1) * (2 * cols - 1))
    refuse_too_large(f"rows={rows}, cols={cols}", nodes=rows * cols, edges=edges)
    row, half = _sites(rows, cols, 1)
    pos = torch.stack([half * 0.5, row * _HALF_ROOT_3], dim=1).to(torch.get_default_dtype())
    return _build("triangular", _TRIANGULAR, (rows, cols), 1, periodic, pos=pos, shape=(rows, cols))


def hexagonal(rows: int, cols: int, *, boundary: Boundary = "periodic") -> Data:
    r"""The honeycomb, NetworkX's hexagonal lattice: every site hears its three nearest ones; the rings are hexagons.

    .. math:: x_{ijs} = \bigl(\tfrac{\sqrt3}{2} (2 j + (i + s) \bmod 2),\; \tfrac32 i + \tfrac12 s\bigr), \qquad
              \mathcal{N}(a) = \{\, b : \lVert x_b - x_a \rVert = 1 \,\}

    A cell is a pair of sites, one of each sublattice s; a site hears sites of the other sublattice only. Rows are zigzag lines of 2·cols
    sites. On a periodic lattice the last row lies below the first and the last column left of the first; an odd number of rows closes
    with a shift by half a cell, so that every size is a torus on which all cells are alike. With fewer than two rows or columns several
    directions meet the same source: the graph stays simple, the first port is kept, and the degree is less. (Cells of hexagonal shape
    have six neighbours: for these take ``triangular``.)

    Args:
        rows: rows of cells (≥ 1).
        cols: cells per row (≥ 1).
        boundary: "periodic" or "open". ``networkx.hexagonal_lattice_graph(m, n)`` is the open one with n + 1 rows and m + 1 columns
            without its two sites of degree 1 and, periodic, the one with n rows and m columns.

    Returns:
        Data with N = 2·rows·cols nodes, numbered in C order of (row, column, sublattice); ``edge_index`` [2, E]; ``edge_attr`` [E, 2], the
        displacement source − target, a unit vector also across the border; ``edge_type`` [E], its rank among the six (three for each
        sublattice: 1, 2, 5 into sublattice 0 and 0, 3, 4 into 1) in lexicographic order, the opposite of p being 5 − p; ``pos`` [N, 2];
        ``shape`` (rows, cols, 2); ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> data = hexagonal(4, 5)
        >>> data.num_nodes, data.num_edges, data.shape
        (40, 120, (4, 5, 2))
    """
    rows, cols, periodic = _arguments(rows, cols, boundary)
    edges = 6 * rows * cols if periodic else 2 * (rows * (2 * cols - 1) + (rows - 1) * cols)
    refuse_too_large(f"rows={rows}, cols={cols}", nodes=2 * rows * cols, edges=edges)
    row, half = _sites(rows, cols, 2)
    pos = torch.stack([half * _HALF_ROOT_3, row * 1.5 + (row + half) % 2 * 0.5], dim=1).to(torch.get_default_dtype())
    return _build("hexagonal", _HONEYCOMB, (rows, cols), 2, periodic, pos=pos, shape=(rows, cols, 2))


def _arguments(rows: Any, cols: Any, boundary: Any) -> tuple[int, int, bool]:
    rows = _checks.integer("rows", rows, minimum=1, maximum=LIMIT)
    cols = _checks.integer("cols", cols, minimum=1, maximum=LIMIT)
    return rows, cols, _checks.choice("boundary", boundary, ("periodic", "open")) == "periodic"


def _sites(rows: int, cols: int, per_cell: int) -> tuple[Tensor, Tensor]:
    """(row, half-step) of every node."""
    node = torch.arange(rows * cols * per_cell)
    row = node // (cols * per_cell)
    return row, 2 * (node // per_cell % cols) + (row + node % per_cell) % 2


def _build(name: str, steps: tuple[_Step, ...], size: tuple[int, int], per_cell: int, periodic: bool, **fields: Any) -> Data:
    rows, cols = size
    row, half = _sites(rows, cols, per_cell)
    num_nodes = len(row)
    sources, targets, ports = [], [], []
    for port, step in enumerate(steps):
        target = torch.arange(step.sublattice, num_nodes, per_cell)
        i, h = row[target] + step.rows, half[target] + step.halves
        if periodic:
            h = (h - i.div(rows, rounding_mode="floor") * (rows % 2)) % (2 * cols)  # the checkerboard goes on across the border
            i = i % rows
        source = (i * cols + h // 2) * per_cell + (i + h) % 2
        kept = source != target if periodic else (i >= 0) & (i < rows) & (h >= 0) & (h < 2 * cols)
        sources.append(source[kept])
        targets.append(target[kept])
        ports.append(torch.full((len(sources[-1]),), port))
    edge_index, edge_type = torch.stack([torch.cat(sources), torch.cat(targets)]), torch.cat(ports)

    key = edge_index[1] * num_nodes + edge_index[0]
    order = key.argsort(stable=True)
    key = key[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    order = order[first]  # ports came by rising number: of several onto one source, the first stays
    way = torch.tensor([step.way for step in steps], dtype=torch.get_default_dtype())
    edge_type = edge_type[order]
    return assemble(edge_index[:, order], num_nodes, name, {"edge_type": edge_type, "edge_attr": way[edge_type]}, **fields)
