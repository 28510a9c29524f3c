"""Lattices and copies of graphs with more than edges: cells with an identity, columns, a line folded into a cube."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from topologies import _checks
from topologies._graph import LIMIT, assemble, refuse_too_large
from topologies._lattice import Boundary, Metric, _arguments, _count_edges, grid

Order = Literal["snake", "c"]
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def router_cells(
    L: int | Sequence[int],
    dim: int,
    radius: int | float = 1,
    *,
    metric: Metric = "chebyshev",
    boundary: Boundary | Sequence[Boundary] = "periodic",
    self_loops: bool = False,
) -> Data:
    r"""A lattice whose cells carry an identity, factored into one index per axis, for rules that route by who a cell is.

    .. math:: cell\_factors_i = (n_1, \dots, n_{dim}), \qquad i = n_1 L_2 \cdots L_{dim} + \dots + n_{dim}

    ``lmn_graph.embeddings.FactoredCellEmbedding`` learns one row per axis value, Σ L_d rows for Π L_d identities; ``CellEmbedding`` one
    row per cell.

    Args:
        L: cells per axis (≥ 1), one int for all or one per axis.
        dim: number of axes, 1 to 64.
        radius: as in ``grid``.
        metric: as in ``grid``.
        boundary: as in ``grid``.
        self_loops: as in ``grid``.

    Returns:
        Data as ``grid`` makes it, and ``cell_factors`` [N, dim] int64: the index of every cell along every axis.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> router_cells((2, 3), 2).cell_factors.tolist()
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    data = grid(L, dim, radius, metric=metric, boundary=boundary, self_loops=self_loops)
    data.cell_factors = torch.stack(torch.unravel_index(torch.arange(data.num_nodes), data.shape), dim=1)
    data.name = "router_cells"
    return data


def columns(count: int, column: Data) -> Data:
    r"""Disjoint copies of any topology, side by side: no edge leads from one column to another.

    .. math:: A = I_{count} \otimes A_{column}

    Args:
        count: number of copies (≥ 1).
        column: the graph to copy, n nodes and e edges.

    Returns:
        Data with N = count·n nodes, those of copy c being c·n … c·n + n − 1; ``edge_index`` [2, count·e]; ``column`` [N], the number of the
        copy; ``shape`` (count, *shape) where the column is a lattice; ``name``. Tensors of the column with one entry per node or edge are
        repeated (``pos`` too: columns are not spread out in space), ports and other fields that hold node numbers are repeated and
        shifted, ``node_names`` become pairs (copy, name), and what belongs to the whole graph is kept as it is.

    Raises:
        ValueError: a bad argument, a column without nodes, with bad edges or with a sparse adjacency, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> data = columns(2, ring(3))
        >>> data.edge_index.tolist(), data.column.tolist(), data.shape
        ([[1, 2, 0, 2, 0, 1, 4, 5, 3, 5, 3, 4], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]], [0, 0, 0, 1, 1, 1], (2, 3))
    """
    count = _checks.integer("count", count, minimum=1, maximum=LIMIT)
    edge_index, nodes = _column(column)
    refuse_too_large(f"count={count} columns of {nodes:,} nodes", nodes=count * nodes, edges=count * edge_index.size(1))
    edges: dict[str, Tensor] = {}
    fields: dict[str, Any] = {}
    for key, value in column.to_dict().items():
        if key in ("edge_index", "num_nodes", "name", "column"):
            continue
        if key == "shape" and isinstance(value, (tuple, list)):
            value = (count, *value)
        elif key == "node_names":
            value = [(copy, name) for copy in range(count) for name in value]
        elif isinstance(value, Tensor) and value.dim() and "index" in key:
            value = _shifted(value, count, nodes)
        elif isinstance(value, Tensor) and value.dim() and value.size(0) in (nodes, edge_index.size(1)):
            of_edges = value.size(0) != nodes or (nodes == edge_index.size(1) and "edge" in key)
            value = value.repeat(count, *[1] * (value.dim() - 1))
            if of_edges:
                edges[key] = value
                continue
        fields[key] = value
    number = torch.arange(count, device=edge_index.device).repeat_interleave(nodes)
    return assemble(_shifted(edge_index, count, nodes), count * nodes, "columns", edges, column=number, **fields)


def _column(column: Any) -> tuple[Tensor, int]:
    """The edges and the number of nodes of a graph that can be copied."""
    if not isinstance(column, Data) or isinstance(column, Batch):
        raise ValueError(f"column must be a torch_geometric.data.Data, got {type(column).__name__}")
    edge_index, nodes = column.get("edge_index"), column.num_nodes
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype not in _INTEGERS:
        got = f"{edge_index.dtype} {tuple(edge_index.shape)}" if isinstance(edge_index, Tensor) else edge_index
        raise ValueError(f"column.edge_index must be an integer tensor [2, E], got {got}")
    sparse = [
        key for key, value in column.to_dict().items() if "adj" in key or (isinstance(value, Tensor) and value.layout != torch.strided)
    ]
    if sparse:
        raise ValueError(f"column must be without a sparse adjacency beside its edge_index, got {', '.join(sparse)}")
    if not nodes:
        raise ValueError(f"column must have at least one node, got num_nodes={nodes}")
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes):
        raise ValueError(f"column.edge_index must hold node ids in [0, {nodes}), got {int(edge_index.min())} to {int(edge_index.max())}")
    return (edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index).long(), nodes


def _shifted(index: Tensor, count: int, nodes: int) -> Tensor:
    """``index`` [..., P] once per copy, [..., count·P], with the node numbers of that copy."""
    copies = index.unsqueeze(-2) + (torch.arange(count, device=index.device) * nodes)[:, None]
    return copies.flatten(-2)


def line_to_cube(
    length: int,
    dim: int,
    radius: int | float = 1,
    *,
    order: Order = "snake",
    metric: Metric = "chebyshev",
    boundary: Boundary | Sequence[Boundary] = "open",
) -> Data:
    r"""A line of inputs folded into the smallest cube that holds it: input p drives cell ``input_index[p]``.

    .. math:: L = \min \{\, L : L^{dim} \ge length \,\}, \qquad p = \sum_d p_d L^{dim - d} \;\mapsto\; x_d = \begin{cases} p_d &
              \lfloor p / L^{dim - d + 1} \rfloor \text{ even} \\ L - 1 - p_d & \text{odd} \end{cases}

    Args:
        length: positions on the line (≥ 1).
        dim: axes of the cube, 1 to 64.
        radius: as in ``grid``.
        order: "snake", the equation above, turns round at the end of every row, plane …, so that neighbours on the line are neighbours in
            the cube; "c" is C order, x_d = p_d, which jumps there.
        metric: as in ``grid``.
        boundary: as in ``grid``.

    Returns:
        Data as ``grid(L, dim, radius)`` makes it, and ``input_index`` [length] int64, distinct cells in the order of the line.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Source: the reflected L-ary Gray code (Knuth, The Art of Computer Programming 4A, 7.2.1.1).

    Example:
        >>> data = line_to_cube(8, 2)
        >>> data.shape, data.input_index.tolist()
        ((3, 3), [0, 1, 2, 5, 4, 3, 6, 7])
    """
    length = _checks.integer("length", length, minimum=1, maximum=LIMIT)
    dim = _checks.integer("dim", dim, minimum=1, maximum=64)
    _checks.choice("order", order, get_args(Order))
    side = max(1, math.floor(length ** (1 / dim)))
    while side**dim < length:  # at most once or twice: the root above is rounded
        side += 1
    while side > 1 and (side - 1) ** dim >= length:
        side -= 1
    axes, budget = _arguments(side, dim, radius, metric, boundary)
    if side**dim > LIMIT or _count_edges(axes, metric, budget, False) > LIMIT:
        raise ValueError(
            f"length={length}, dim={dim}, radius={radius!r} must give at most {LIMIT:,} nodes and edges, got more: choose smaller ones"
        )
    data = grid(side, dim, radius, metric=metric, boundary=boundary)
    data.input_index = _snake(length, side, dim) if order == "snake" else torch.arange(length)
    data.name = "line_to_cube"
    return data


def _snake(length: int, side: int, dim: int) -> Tensor:
    """The cells, in C order numbers, that a line visits which runs back and forth along every axis."""
    position = torch.arange(length)
    cell = torch.zeros_like(position)
    for axis in range(dim):
        stride = side ** (dim - 1 - axis)
        digit, turned = position // stride % side, position // (stride * side) % 2 == 1
        cell += torch.where(turned, side - 1 - digit, digit) * stride
    return cell
