"""Lattices: cells of an N-dimensional box, each hearing every cell within a radius.

The neighbourhood is a list of offsets, enumerated axis by axis as a tree (``_ports``). Targets walk that tree together (``_walk``), on
every axis by rising coordinate, so the sources come out in order and nothing is sorted. Cells that meet the faces of the box alike have
the same neighbours relative to themselves: one of each kind walks, the others copy (``_edges``). Edges are counted before any of this, so
absurd sizes are refused at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import LIMIT, refuse_without_memory

Metric = Literal["chebyshev", "manhattan", "euclidean"]
Boundary = Literal["periodic", "open"]

_CHUNK = 2**18  # edges built at once: what is in flight stays small beside the result

# What the step along one axis adds to the cost of an offset: it is in the neighbourhood if its cost is within the budget of `_arguments`.
_COST: dict[str, Callable[[Any], Any]] = {
    "chebyshev": lambda step: 0 * step,  # each axis is bounded by itself
    "manhattan": abs,
    "euclidean": lambda step: step * step,
}

_T = TypeVar("_T")


class _Axis(NamedTuple):
    """One axis: its steps low … high are the displacements target → source that are left once aliases are gone."""

    length: int
    stride: int  # in node numbers
    periodic: bool
    low: int
    high: int

    def pairs(self, step: int) -> int:
        """How many (target, source) pairs of coordinates are ``step`` apart."""
        return self.length if self.periodic else self.length - abs(step)

    def all_pairs(self) -> int:
        """Σ pairs(step) over all steps, in closed form."""
        return self.length * (self.high - self.low + 1) - (0 if self.periodic else self.high * (self.high + 1))

    def coordinate(self, node: Tensor) -> Tensor:
        return node // self.stride % self.length

    def representative(self, x: Tensor) -> Tensor:
        """A coordinate that meets the faces of the box exactly as x does: x itself near a face, else the first one away from both."""
        return torch.where((x < -self.low) | (x >= self.length - self.high), x, -self.low)

    def ranked_steps(self, x: Tensor) -> Tensor:
        """[n, w]: the steps, counted from low, of target coordinates x [n] by rising source coordinate; high − low + 1 fills short rows."""
        count = self.high - self.low + 1
        rank = torch.arange(min(count, self.length))
        if self.periodic:  # the window is cut where it wraps: it starts at the step that lands on 0, if there is one
            start = (-x - self.low) % self.length
            return (torch.where(start < count, start, 0)[:, None] + rank) % count
        step = (-x - self.low).clamp(min=0)[:, None] + rank
        return torch.where((x[:, None] + self.low + step < self.length) & (step < count), step, count)


def grid(
    L: int | Sequence[int],
    dim: int,
    radius: int | float = 1,
    *,
    metric: Metric = "chebyshev",
    boundary: Boundary | Sequence[Boundary] = "periodic",
    self_loops: bool = False,
) -> Data:
    r"""The N-dimensional lattice in which every cell hears the cells within ``radius``.

    .. math:: \mathcal{N}(i) = \{\, j : x_j = x_i + o,\; o \in \mathcal{B} \,\}, \qquad
              \mathcal{B} = \{\, o \in \mathbb{Z}^{dim} \setminus 0 : \lVert o \rVert \le radius \,\}

    with :math:`x_i + o` taken modulo L on a periodic axis; on an open axis what leaves the box is left out. The graph is simple: where
    L ≤ 2·radius wraps several offsets onto one source, the shortest displacement (Euclidean) is kept, and of equals the lexicographically
    first, so that an offset of exactly L/2 is −L/2 in both directions; on an open axis offsets of L or more reach nothing and are no port.

    Args:
        L: cells per axis (≥ 1), one int for all or one per axis.
        dim: number of axes, 1 to 64.
        radius: an integer ≥ 1; with the Euclidean metric any finite number ≥ 1 (``math.sqrt(2)`` takes the diagonals in).
        metric: ‖o‖ is max |o_d| ("chebyshev": the Moore neighbourhood), Σ |o_d| ("manhattan": von Neumann) or √(Σ o_d²) ("euclidean").
        boundary: "periodic" or "open", one for all or one per axis.
        self_loops: let the zero offset be part of 𝓑.

    Returns:
        Data with N = Π L_d nodes, numbered in C order (last axis fastest), and E edges sorted by target, then source:
        ``edge_index`` [2, E] int64 (row 0 the source, row 1 the target); ``edge_attr`` [E, dim], the displacement o from the target to the
        source; ``edge_type`` [E] int64, the rank of o in the lexicographically ordered 𝓑, zero offset included if asked for: a port number
        that means the same direction at every cell; ``pos`` [N, dim], the integer coordinates; ``shape``, the side lengths; ``name``.
        Floats have torch's default dtype.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> cylinder = grid((3, 4), 2, metric="manhattan", boundary=("open", "periodic"))
        >>> cylinder.shape, cylinder.num_nodes, cylinder.num_edges, cylinder.num_edge_types
        ((3, 4), 12, 40, 4)
    """
    axes, budget = _arguments(L, dim, radius, metric, boundary)
    loops = _checks.flag("self_loops", self_loops)
    num_nodes, num_edges = math.prod(axis.length for axis in axes), _count_edges(axes, metric, budget, loops)
    for count, what in ((num_nodes, "nodes"), (num_edges, "edges")):
        if count > LIMIT:
            raise ValueError(f"L={L!r}, dim={dim}, radius={radius!r} must give at most {LIMIT:,} {what}, got more: choose smaller ones")
    width = torch.get_default_dtype().itemsize * len(axes)
    refuse_without_memory(f"L={L!r}, dim={dim}, radius={radius!r}", num_nodes * width + num_edges * (24 + width))
    return _build(axes, num_nodes, num_edges, *_ports(axes, metric, budget, loops))


def _arguments(L: Any, dim: Any, radius: Any, metric: Any, boundary: Any) -> tuple[list[_Axis], int]:
    """The checked arguments as axes and the budget that the cost of an offset may not exceed."""
    dim = _checks.integer("dim", dim, minimum=1, maximum=64)
    lengths = _per_axis("L", L, dim, lambda name, value: _checks.integer(name, value, minimum=1, maximum=LIMIT))
    boundaries = _per_axis("boundary", boundary, dim, lambda name, value: _checks.choice(name, value, get_args(Boundary)))
    _checks.choice("metric", metric, get_args(Metric))
    check = _checks.number if metric == "euclidean" else _checks.integer
    radius = min(check("radius", radius, minimum=1), sum(lengths))  # no offset is longer
    axes = []
    stride = math.prod(lengths)
    for length, periodic in zip(lengths, (kind == "periodic" for kind in boundaries)):
        stride //= length
        reach = min(math.floor(radius), length - 1)
        low, high = (max(-reach, -(length // 2)), min(reach, (length - 1) // 2)) if periodic else (-reach, reach)
        axes.append(_Axis(length, stride, periodic, low, high))
    if metric != "euclidean":
        return axes, radius if metric == "manhattan" else 0
    budget = math.floor(math.nextafter(radius, math.inf) ** 2)  # the largest n with √n ≤ radius in floats: √3 squares to less than 3
    return axes, budget if math.sqrt(budget) <= radius else budget - 1


def _per_axis(name: str, value: Any, dim: int, check: Callable[[str, Any], _T]) -> tuple[_T, ...]:
    """``value`` checked and given to every axis or, if it is a sequence (or array), its entries, one per axis."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return (check(name, value),) * dim
    if len(value) != dim:
        raise ValueError(f"{name} must be one value or one per axis (dim={dim}), got {len(value)} values: {value!r}")
    return tuple(check(f"{name}[{axis}]", entry) for axis, entry in enumerate(value))


def _count_edges(axes: list[_Axis], metric: str, budget: int, self_loops: bool) -> int:
    """The number of edges; beyond the limit only a lower bound of it, found early."""
    rest = math.prod(axis.length for axis in axes)
    loops = 0 if self_loops else rest
    along = max(rest // axis.length * axis.all_pairs() for axis in axes) - loops  # the edges of one axis alone
    if along > LIMIT:
        return along
    pairs = {0: 1}  # cost so far -> number of (target, source) pairs, all later steps 0
    for axis in axes:
        rest //= axis.length
        grown: dict[int, int] = defaultdict(int)
        for cost, count in pairs.items():
            for step in range(axis.low, axis.high + 1):
                total = cost + _COST[metric](step)
                if total <= budget:
                    grown[total] += count * axis.pairs(step)
        pairs = grown
        if (found := sum(pairs.values()) * rest - loops) > LIMIT:
            break
    return found


def _ports(axes: list[_Axis], metric: str, budget: int, self_loops: bool) -> tuple[Tensor, list[Tensor]]:
    """The offsets [K, dim] in lexicographic order and their tree.

    ``children[d][p, s]`` is the number, among the prefixes of d + 1 entries, of prefix p followed by step s of axis d, or −1 where
    no offset begins so. The last column is −1: the step that pads short rows.
    """
    prefixes, costs, children = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, dtype=torch.long), []
    for axis in axes:
        steps = torch.arange(axis.low, axis.high + 1)
        totals = costs[:, None] + _COST[metric](steps)
        inside = totals <= budget
        if axis is axes[-1] and not self_loops:
            inside &= prefixes.any(1)[:, None] | (steps != 0)
        prefix, step = inside.nonzero(as_tuple=True)
        child = torch.full((len(costs), len(steps) + 1), -1)
        child[prefix, step] = torch.arange(len(prefix))
        children.append(child)
        prefixes, costs = torch.cat([prefixes[prefix], steps[step, None]], dim=1), totals[inside]
    return prefixes.to(torch.get_default_dtype()), children


def _build(axes: list[_Axis], num_nodes: int, num_edges: int, offsets: Tensor, children: list[Tensor]) -> Data:
    edge_index = torch.empty(2, num_edges, dtype=torch.long)
    edge_type = torch.empty(num_edges, dtype=torch.long)
    done = 0
    for source, target, port in _edges(axes, children, num_nodes, max(1, _CHUNK * num_nodes // max(1, num_edges))):
        part = slice(done, done := done + len(port))
        edge_index[0, part], edge_index[1, part], edge_type[part] = source, target, port
    node = torch.arange(num_nodes)
    return Data(
        edge_index=edge_index,
        edge_attr=offsets[edge_type],
        num_nodes=num_nodes,
        name="grid",
        pos=torch.stack([axis.coordinate(node).to(offsets.dtype) for axis in axes], dim=1),
        shape=tuple(axis.length for axis in axes),
        edge_type=edge_type,
    )


def _edges(axes: list[_Axis], children: list[Tensor], num_nodes: int, rows: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(source, target, port) of the edges into ``rows`` targets at a time: each distinct pattern among them is found once and copied."""
    for first in range(0, num_nodes, rows):
        node = torch.arange(first, min(first + rows, num_nodes))
        alike = torch.stack([axis.representative(axis.coordinate(node)) * axis.stride for axis in axes]).sum(0)
        like, pattern = alike.unique(return_inverse=True)
        source, row, port = _walk(axes, children, like)
        shift = source - like[row]
        degree = torch.bincount(row, minlength=len(like))
        start, count = (degree.cumsum(0) - degree)[pattern], degree[pattern]
        target = node.repeat_interleave(count)
        copied = torch.arange(len(target)) + (start - count.cumsum(0) + count).repeat_interleave(count)
        yield target + shift[copied], target, port[copied]


def _walk(axes: list[_Axis], children: list[Tensor], node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(source, row, port) of the edges into ``node[row]``, by row and then by source."""
    row = torch.arange(len(node))
    source, prefix = torch.zeros_like(row), torch.zeros_like(row)
    for axis, child in zip(axes, children):
        x = axis.coordinate(node)
        step = axis.ranked_steps(x)
        near = (x[:, None] + axis.low + step) % axis.length * axis.stride
        found = child.take(prefix[:, None] * child.size(1) + step[row]).flatten()
        kept = (found >= 0).nonzero().flatten()
        source = (source[:, None] + near[row]).flatten()[kept]
        row = row.repeat_interleave(step.size(1))[kept]
        prefix = found[kept]
    return source, row, prefix
