"""A list of edges as a graph."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import LIMIT, refuse_too_large
from topologies._merging import PARALLEL, Parallel, build, floating


def from_edges(
    edges: Any,
    *,
    num_nodes: int | None = None,
    weight: Any = None,
    undirected: bool = False,
    parallel: Parallel = "error",
    name: str = "graph",
    dtype: torch.dtype | None = None,
) -> Data:
    """The graph with the edges source → target that are listed.

    Self-loops are kept (once, also where ``undirected``), nodes without an edge are there if ``num_nodes`` counts them.

    Args:
        edges: a list of pairs (source, target) or of triples (source, target, weight); or a tensor or array of integers [2, E]
            (row 0 the source) or [E, 2], a 2 × 2 one being read as [2, E].
        num_nodes: N; default: the largest node number and one.
        weight: numbers [E] that become ``edge_weight``; default: the triples' own, or none.
        undirected: every edge also runs the other way; one given both ways is the same edge given twice.
        parallel: what becomes of an edge that is given twice. "error": given with one weight it counts once, with two it is an
            error; "sum": the weights are added up, 1 each where there are none; "keep": both stay, as parallel edges.
        name: the graph's name.
        dtype: of the weights; default: torch's.

    Returns:
        Data with ``edge_index`` [2, E] sorted by target, then source, ``num_nodes``, ``name`` and, where there are weights,
        ``edge_weight`` [E].

    Raises:
        ValueError: naming the edge by its place in the list, if a node is no integer within [0, num_nodes), a weight is not finite or
            parallel edges disagree; if there is no node; or if an argument is not one of those above.

    Example:
        >>> from_edges([(0, 1, 0.5), (1, 2, -1.0)], undirected=True).edge_index.tolist()
        [[1, 0, 2, 1], [0, 1, 1, 2]]
    """
    _checks.flag("undirected", undirected)
    _checks.choice("parallel", parallel, PARALLEL)
    floating(dtype)
    if not isinstance(name, str):
        raise ValueError(f"name must be a str, got {name!r}")
    if num_nodes is not None:
        num_nodes = _checks.integer("num_nodes", num_nodes, minimum=1, maximum=LIMIT)
    if isinstance(edges, Mapping):
        raise ValueError("edges must be a list, got a mapping, whose values would be lost: give list(edges), weight=list(edges.values())")
    source, target, given = _array(edges) if hasattr(edges, "dtype") else _pairs(edges)
    if given is not None and weight is not None:
        raise ValueError("weight must be None where the edges are triples that bring their own")

    def where(i: int) -> str:
        return f"edge {i} ({int(source[i])} → {int(target[i])})"

    largest = max(int(source.max()), int(target.max())) if len(source) else -1
    count = largest + 1 if num_nodes is None else num_nodes
    if count == 0:
        raise ValueError("edges must have at least one node, got none: say num_nodes for a graph without edges")
    outside = ((source < 0) | (target < 0) | (source >= count) | (target >= count)).nonzero()
    if len(outside):
        expected = f"in [0, {num_nodes})" if num_nodes is not None else ">= 0"
        raise ValueError(f"{where(int(outside[0, 0]))}: nodes must be integers {expected}")
    refuse_too_large("edges", nodes=count, edges=len(source) * (2 if undirected else 1))
    values = given if weight is None else _weights(weight, len(source))
    return build(
        torch.stack([source, target]), count, name, where=where, weight=values, undirected=undirected, parallel=parallel, dtype=dtype
    )


def _array(edges: Any) -> tuple[Tensor, Tensor, None]:
    """Source and target of a tensor or array of integers [2, E] or [E, 2]."""
    if isinstance(edges, Tensor) and edges.layout != torch.strided:
        raise ValueError(f"edges must be a list of edges, got a sparse tensor {tuple(edges.shape)}: use from_adjacency")
    if isinstance(edges, Tensor):
        plain = (edges.as_tensor() if isinstance(edges, EdgeIndex) else edges).detach().cpu()
        array = (plain.double() if plain.is_floating_point() else plain).numpy()
    else:
        array = np.asarray(edges)
    if array.ndim != 2 or 2 not in array.shape:
        raise ValueError(f"edges must be a tensor or array [2, E] or [E, 2], got {tuple(array.shape)}; weights are given apart, as weight")
    rows = array if array.shape[0] == 2 else array.T
    if array.dtype.kind not in "iu":
        raise ValueError(f"edges must hold integers, got {edges.dtype}{_first_fraction(rows)}")
    if array.dtype == np.uint64 and array.size and array.max() > LIMIT:
        raise ValueError(f"edges must hold node numbers below 2**31, got {array.max()}")
    source, target = torch.from_numpy(rows.astype(np.int64))
    return source, target, None


def _first_fraction(rows: np.ndarray) -> str:
    """Which edge of a floating-point array has an end that is no whole number."""
    if rows.dtype.kind != "f" or not len(bad := (rows % 1 != 0).any(0).nonzero()[0]):
        return ""
    return f": edge {bad[0]} is ({rows[0, bad[0]]:g}, {rows[1, bad[0]]:g})"


def _pairs(edges: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Source, target and weight of pairs or triples, or of the two rows of a nested list."""
    try:
        rows = [tuple(edge) for edge in edges]
    except TypeError:
        raise ValueError(f"edges must be a list of pairs or triples, or a tensor [2, E], got {_short(edges)}") from None
    lengths = {len(row) for row in rows}
    if len(rows) == 2 and len(lengths) == 1 and isinstance(edges, (list, tuple)) and isinstance(edges[0], list):
        if lengths == {3}:
            raise ValueError(
                "edges must not be two lists of three, which could be two triples or three pairs: give tuples, or a tensor [2, 3]"
            )
        if min(lengths) > 3:
            rows = list(zip(*rows))
            lengths = {2}
    if not rows:
        empty = torch.empty(0, dtype=torch.long)
        return empty, empty, None
    if lengths not in ({2}, {3}):
        i = next(i for i, row in enumerate(rows) if len(row) not in (2, 3) or len(row) != len(rows[0]))
        raise ValueError(
            f"edges must be pairs (source, target) or triples (source, target, weight), all alike, got edge {i}: {_short(rows[i])}"
        )
    source, target = (_integers([row[end] for row in rows], rows) for end in (0, 1))
    return source, target, _weights([row[2] for row in rows], len(rows)) if lengths == {3} else None


def _integers(column: Sequence[Any], rows: Sequence[Any]) -> Tensor:
    if not all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in set(map(type, column))):
        column = [_node(value, i, rows[i]) for i, value in enumerate(column)]
    for i, value in enumerate(column) if max(map(abs, column)) > LIMIT else ():
        if abs(value) > LIMIT:
            raise ValueError(f"edge {i} {_short(rows[i])}: nodes must be integers below 2**31")
    return torch.from_numpy(np.fromiter(column, np.int64, len(column)))


def _node(value: Any, i: int, row: Any) -> int:
    try:
        return _checks.integer("node", value)
    except ValueError:
        raise ValueError(f"edge {i} {_short(row)}: nodes must be integers, got {value!r}") from None


def _weights(weight: Any, count: int) -> Tensor:
    """Numbers [count] as float64; which are finite is checked later, where an edge has a name."""
    if isinstance(weight, Tensor):
        weight = weight.detach().cpu().tolist() if weight.layout == torch.strided else [weight]
    try:
        values = list(weight)
    except TypeError:
        raise ValueError(f"weight must be one number per edge ({count}), got {weight!r}") from None
    if len(values) != count:
        raise ValueError(f"weight must be one number per edge ({count}), got {len(values)}")
    if not set(map(type, values)) <= {int, float}:
        for i, value in enumerate(values):
            values[i] = number(value, f"edge {i}")
    try:
        return torch.tensor(values, dtype=torch.float64)
    except (RuntimeError, OverflowError):
        i = next(itertools.compress(itertools.count(), (isinstance(value, int) and abs(value) > sys.float_info.max for value in values)))
        raise ValueError(f"edge {i}: weight must be a finite number, got an integer too large for a float") from None


def number(value: Any, edge: str) -> float:
    """A weight as a float, infinity and NaN included; anything but a number is refused."""
    refused = isinstance(value, (bool, str, bytes, np.bool_)) or value is None
    try:
        if not refused:
            return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several elements
        pass
    raise ValueError(f"{edge}: weight must be a finite number, got {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
