"""The neighbours of every node as slots: rectangles of nodes with equally many edges, so that a sum over neighbours is one over an axis.

Nodes of one degree form one bucket, a rectangle [K, n]. Where degrees are many (hubs, Delaunay), every degree is written in binary and a
node is part of one bucket for each bit: at most 31 buckets, and not one padded slot either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lmn_graph.connectivity import Connectivity

TILE = 32  # nodes whose slots lie together in the compiled form: their K·32 indices stay in the first cache
_DEPTH = 16  # slots of a node that are made at once where there are so many: as many messages are added up before the sum is touched
_KEPT = 4  # tensors of one number per edge whose order by slots is kept
_EXACT = 8  # distinct degrees up to which every degree has a bucket of its own


class Bucket:
    """n rows with K edges each.

    Args:
        rows: int64 [n], the nodes, or None where they are all nodes in their order.
        start: int64 [n], where the edges of each begin.
        width: K.
        side: what the edges are edges of.
    """

    def __init__(self, rows: Tensor | None, start: Tensor, width: int, side: Side) -> None:
        self.rows, self.start, self.width, self.side = rows, start, width, side
        self.count = start.numel()
        self._tiles: tuple[Tensor, Tensor] | None = None

    def blocks(self, slots: int) -> Iterator[tuple[Tensor | None, slice, Tensor, Tensor]]:
        """Pieces of at most about ``slots`` slots: (rows [m], their place in the bucket, other nodes [k, m], edges [k, m])."""
        depth = min(self.width, max(_DEPTH, slots // self.count), slots)
        height = min(self.count, max(1, slots // depth))
        for first in range(0, self.count, height):
            part = slice(first, min(first + height, self.count))
            start = self.start[part]
            for begin in range(0, self.width, depth):
                place = start + torch.arange(begin, min(begin + depth, self.width), device=start.device)[:, None]
                yield None if self.rows is None else self.rows[part], part, self.side.other[place].long(), self.side.edges(place)

    def tiles(self) -> tuple[Tensor, Tensor]:
        """Other nodes and edges as int32 [⌈n / 32⌉, K, 32]; the last tile is filled up with what belongs to the first row."""
        if self._tiles is None:
            filled = -(-self.count // TILE) * TILE
            with torch.inference_mode(False):  # first asked for in an evaluation, they may serve a training later
                start = torch.cat([self.start, self.start[:1].expand(filled - self.count)]).view(-1, 1, TILE)
                place = start + torch.arange(self.width, device=start.device)[:, None]
                self._tiles = self.side.other[place], self.side.edges(place).int()
        return self._tiles

    def ordered(self, values: Tensor) -> Tensor:
        """One number per edge, in the order of :meth:`tiles`."""
        edges = self.tiles()[1]
        return values.flatten().index_select(0, edges.flatten()).view(edges.shape)

    def fill(self, feature: Tensor) -> Tensor:
        """The rows of a node feature [N, …] as [⌈n / 32⌉, 1, 32, …]."""
        if self.rows is not None:
            feature = feature.index_select(0, self.rows)
        short = -self.count % TILE
        if short:
            feature = torch.cat([feature, feature[:1].expand(short, *feature.shape[1:])])
        return feature.reshape(-1, 1, TILE, *feature.shape[1:])


class Side:
    """Edges grouped by one of their ends: row pointers, the node at the other end, and which edge it is.

    Args:
        rowptr: int32 [N + 1].
        other: int32 [E].
        perm: int32 [E], the edge in the order of the connectivity; None where it is that order.
    """

    def __init__(self, rowptr: Tensor, other: Tensor, perm: Tensor | None) -> None:
        self.other, self.perm = other, perm
        self.num_nodes = rowptr.numel() - 1
        self.buckets = _buckets(rowptr.long(), self)

    def edges(self, place: Tensor) -> Tensor:
        """The edges at places of the grouping."""
        return place if self.perm is None else self.perm[place].long()


class Slots:
    """Both sides of a graph: edges by target, the other end being the source, and edges by source.

    Args:
        connectivity: the graph.
    """

    def __init__(self, connectivity: Connectivity) -> None:
        self.incoming = Side(connectivity.rowptr, connectivity.col, None)
        self.outgoing = Side(connectivity.rowptr_t, connectivity.col_t, connectivity.perm_t)
        self._kept: dict[tuple[Any, ...], tuple[Tensor, dict[Bucket, Tensor]]] = {}

    def ordered(self, values: Tensor) -> dict[Bucket, Tensor]:
        """One number per edge in the order of every bucket, filled as they are asked for: a rollout needs the same weights many times.

        They are kept for the last few tensors, together with what was in these: a version counter would not see a change through .data,
        by which averages of weights are swapped in.
        """
        key = (values.data_ptr(), values.shape, values.stride(), values.dtype)
        seen = self._kept.pop(key, None)
        if seen is None or not torch.equal(seen[0], values):
            with torch.inference_mode(False):
                seen = values.clone(), {}
        self._kept[key] = seen
        if len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept), None), None)  # type: ignore[arg-type]
        return seen[1]


_known = WeakTensorKeyDictionary()  # row pointers → Slots


def slots_of(connectivity: Connectivity) -> Slots:
    """The slots of a graph, made when they are first asked for and kept as long as its indices."""
    key = connectivity.rowptr
    if key not in _known:
        with torch.inference_mode(False):
            _known[key] = Slots(connectivity)
    return _known[key]


def _buckets(rowptr: Tensor, side: Side) -> list[Bucket]:
    degree, start = rowptr.diff(), rowptr[:-1]
    widths = degree.unique().tolist()
    if len(widths) == 1 and widths[0] > 0:
        return [Bucket(None, start, widths[0], side)]
    found = []
    if len(widths) <= _EXACT:
        for width in filter(None, widths):
            rows = (degree == width).nonzero().flatten()
            found.append(Bucket(rows, start[rows], width, side))
        return found
    taken = torch.zeros_like(degree)
    for bit in reversed(range(int(max(widths)).bit_length())):
        rows = ((degree >> bit) & 1).nonzero().flatten()
        if rows.numel():
            found.append(Bucket(rows, (start + taken)[rows], 1 << bit, side))
            taken[rows] += 1 << bit
    return found
