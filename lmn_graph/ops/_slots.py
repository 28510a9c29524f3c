"""The edges of every node, or of every type, as slots: rectangles of rows with equally many edges, so that a sum is one over an axis.

Nodes of one degree form one bucket, a rectangle [K, n]. Where degrees are many (hubs, Delaunay), every degree is written in binary and a
node is part of one bucket for each bit: at most 31 buckets, and not one padded slot either way. The edges of a type are many: they are
cut into pieces of one length, rows of one bucket, and the number of those that are left over is written in binary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops._calls import EDGE, KIND, SOURCE, TARGET

TILE = 32  # nodes whose slots lie together in the compiled form: their K·32 indices stay in the first cache
_DEPTH = 16  # slots of a node that are made at once where there are so many: as many messages are added up before the sum is touched
_KEPT = 4  # tensors of one number per edge whose order by slots is kept
_EXACT = 8  # distinct degrees up to which every degree has a bucket of its own
_PIECE = 128  # edges of a type that are added up at once, where nodes have no more: the sums of all pieces are no more than nodes


class Bucket:
    """n rows with K edges each.

    Args:
        rows: int64 [n], the nodes or types, or None where they are all nodes in their order.
        start: int64 [n], where the edges of each begin.
        width: K.
        side: what the edges are edges of.
    """

    def __init__(self, rows: Tensor | None, start: Tensor, width: int, side: Side) -> None:
        self.rows, self.start, self.width, self.side = rows, start, width, side
        self.count = start.numel()
        self._tiles: dict[int, Tensor] = {}

    def blocks(self, slots: int) -> Iterator[tuple[Tensor | None, slice, Tensor]]:
        """Pieces of at most about ``slots`` slots: (rows [m], their place in the bucket, places in the grouping [k, m])."""
        depth = min(self.width, max(_DEPTH, slots // self.count), slots)
        height = min(self.count, max(1, slots // depth))
        for first in range(0, self.count, height):
            part = slice(first, min(first + height, self.count))
            start = self.start[part]
            for begin in range(0, self.width, depth):
                place = start + torch.arange(begin, min(begin + depth, self.width), device=start.device)[:, None]
                yield None if self.rows is None else self.rows[part], part, place

    def tiles(self, holder: int) -> Tensor:
        """Nodes, edges or types of all slots as int32 [⌈n / 32⌉, K, 32]; the last tile is filled up with what belongs to the first row."""
        if holder not in self._tiles:
            filled = -(-self.count // TILE) * TILE
            with torch.inference_mode(False):  # first asked for in an evaluation, they may serve a training later
                start = torch.cat([self.start, self.start[:1].expand(filled - self.count)]).view(-1, 1, TILE)
                self._tiles[holder] = self.side.at(holder, start + torch.arange(self.width, device=start.device)[:, None]).int()
        return self._tiles[holder]

    def ordered(self, values: Tensor) -> Tensor:
        """One number per edge, in the order of :meth:`tiles`."""
        edges = self.tiles(EDGE)
        return values.flatten().index_select(0, edges.flatten()).view(edges.shape)

    def fill(self, feature: Tensor) -> Tensor:
        """The rows of a feature of nodes or types as [⌈n / 32⌉, 1, 32, …]."""
        if self.rows is not None:
            feature = feature.index_select(0, self.rows)
        short = -self.count % TILE
        if short:
            feature = torch.cat([feature, feature[:1].expand(short, *feature.shape[1:])])
        return feature.reshape(-1, 1, TILE, *feature.shape[1:])


class Side:
    """Edges grouped by what one holder of them is.

    Args:
        count: how many nodes or types there are.
        perm: int32 [E], the edge in the order of the connectivity; None where it is that order.
        index: what the holders of every edge are, in the order of the connectivity: int [E] each.
        columns: the same in the order of this grouping, as far as it is known: int32 [E] each.
    """

    def __init__(self, count: int, perm: Tensor | None, index: dict[int, Tensor], columns: dict[int, Tensor]) -> None:
        self.count, self.perm, self.index, self.columns = count, perm, index, columns
        self.buckets: list[Bucket] = []

    def at(self, holder: int, place: Tensor) -> Tensor:
        """The edges, or what holds them, at places of the grouping."""
        if holder == EDGE:
            return place if self.perm is None else self.perm[place].long()
        if holder not in self.columns:
            with torch.inference_mode(False):
                whole = self.index[holder]
                self.columns[holder] = (whole if self.perm is None else whole[self.perm.long()]).int()
        return self.columns[holder][place].long()


class Slots:
    """All sides of a graph: edges by target, by source, and by type where they have types.

    Args:
        connectivity: the graph.
    """

    def __init__(self, connectivity: Connectivity) -> None:
        graph, self.kind = connectivity, connectivity.edge_type
        source, target = graph.edge_index
        self.index = {SOURCE: source, TARGET: target} | ({} if self.kind is None else {KIND: self.kind})
        incoming = Side(graph.num_nodes, None, self.index, {SOURCE: graph.col})
        outgoing = Side(graph.num_nodes, graph.perm_t, self.index, {TARGET: graph.col_t})
        incoming.buckets = _buckets(graph.rowptr.long(), incoming)
        outgoing.buckets = _buckets(graph.rowptr_t.long(), outgoing)
        self._sides = {TARGET: incoming, SOURCE: outgoing}
        self._kept: dict[tuple[Any, ...], tuple[Tensor, dict[Bucket, Tensor]]] = {}

    def side(self, holder: int) -> Side:
        """The edges grouped by target, source or type; types are ordered when they are first asked for."""
        if holder not in self._sides:
            with torch.inference_mode(False):
                self._sides[holder] = self._of_kinds()
        return self._sides[holder]

    def _of_kinds(self) -> Side:
        kind = self.index[KIND]
        if kind.dim() != 1 or kind.is_floating_point() or kind.dtype == torch.bool or (kind.numel() and int(kind.min()) < 0):
            raise ValueError(f"connectivity.edge_type must be integers >= 0 [{kind.size(0)}], got {kind}")
        nodes, edges = self._sides[TARGET].count, kind.numel()
        size = torch.bincount(kind) if edges else kind.new_zeros(0)
        side = Side(size.numel(), kind.argsort(stable=True).int(), self.index, {})
        piece = max(_PIECE, 1 << (max(1, edges // nodes) - 1).bit_length())
        start, pieces = size.cumsum(0) - size, size // piece
        if bool(pieces.any()):
            # Pieces that begin near each other come together: they have nodes in common.
            rows = torch.arange(side.count, device=kind.device).repeat_interleave(pieces)
            number = torch.arange(rows.numel(), device=kind.device) - (pieces.cumsum(0) - pieces)[rows]
            order = number.argsort(stable=True)
            side.buckets.append(Bucket(rows[order], (start[rows] + number * piece)[order], piece, side))
        side.buckets += _in_binary(size % piece, start + pieces * piece, side)
        return side

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
    if key not in _known or _known[key].kind is not connectivity.edge_type:
        with torch.inference_mode(False):
            _known[key] = Slots(connectivity)
    return _known[key]


def _buckets(rowptr: Tensor, side: Side) -> list[Bucket]:
    degree, start = rowptr.diff(), rowptr[:-1]
    widths = degree.unique().tolist()
    if len(widths) == 1 and widths[0] > 0:
        return [Bucket(None, start, widths[0], side)]
    if len(widths) > _EXACT:
        return _in_binary(degree, start, side)
    found = []
    for width in filter(None, widths):
        rows = (degree == width).nonzero().flatten()
        found.append(Bucket(rows, start[rows], width, side))
    return found


def _in_binary(degree: Tensor, start: Tensor, side: Side) -> list[Bucket]:
    """A bucket for every bit of the degrees."""
    found = []
    taken = torch.zeros_like(degree)
    for bit in reversed(range(int(degree.max()).bit_length() if degree.numel() else 0)):
        rows = ((degree >> bit) & 1).nonzero().flatten()
        if rows.numel():
            found.append(Bucket(rows, (start + taken)[rows], 1 << bit, side))
            taken[rows] += 1 << bit
    return found
