"""The triangles of a graph, found once, and sums over them.

Every edge is oriented from its end of lower (degree, id) rank to the other, so that no node has more than √(2P) outgoing edges. Each
triangle is then one pair of outgoing edges of its lowest node, its *wedge*, whose closing edge is looked up among the sorted keys.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lmn_graph.graph_metrics._edges import Graph, raise_one_way, read_edges, require_agreement

_CHUNK = 1 << 18  # wedges or triangles in flight


class Triangles:
    """The triangles of a graph, directions and self-loops aside, to be passed in place of ``edge_index`` wherever clustering is asked for.

    Found once, they serve every set of weights, as in a loss that is evaluated at every training step. Memory: 12 bytes a triangle.
    What depends on the pattern alone is kept when first asked for.

    Attributes:
        num_nodes, num_edges: of the graph.
        index: int32 [3, M], the pairs of nodes that each triangle consists of: (a, b), (a, c), (b, c).
        low, high: int64 [P], the two nodes of every linked pair.
        forward, backward: int64 [P], the edges low → high and high → low, −1 where there is none.
        neighbours: int64 [N], linked nodes, self-loops not counted.
        mutual: int64 [N], nodes linked in both directions.
        joining: int64, the edges that are no self-loops, or None where all are.

    Args:
        edge_index: [2, E], both directions of an undirected edge; or a :class:`~lmn_graph.Connectivity`.
        num_nodes: N; the largest id + 1 if None.

    Raises:
        ValueError: for ids out of range or parallel edges.
    """

    def __init__(self, edge_index: Graph, num_nodes: int | None = None) -> None:
        with torch.inference_mode(False):  # triangles first asked for in an evaluation may serve a training later
            self._build(*read_edges(edge_index, num_nodes))

    def _build(self, edge_index: Tensor, num_nodes: int) -> None:
        self.edge_index, self.num_nodes = edge_index, num_nodes
        self.num_edges = edge_index.shape[1]
        pairs = self._pair_up()
        self.index = torch.cat([pairs[0].new_empty(3, 0, dtype=torch.int32), *self._closed_wedges(*pairs)], 1)
        linked = torch.cat([self.low, self.high])
        both = (self.forward >= 0) & (self.backward >= 0)
        self.neighbours = torch.bincount(linked, minlength=self.num_nodes)
        self.mutual = torch.bincount(linked, both.repeat(2).double(), minlength=self.num_nodes).long()
        self._complete = bool((self.forward >= 0).all()), bool((self.backward >= 0).all())
        self._wedges: dict[bool, Tensor] = {}
        self._unweighted: dict[bool, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the graph is; weights must be there too."""
        return self.edge_index.device

    def to(self, device: torch.device | str) -> Triangles:
        """The same triangles on another device; these themselves if they are there."""
        if self.device == torch.empty(0, device=device).device:  # "cuda" is the current one, "cuda:0" perhaps
            return self
        found = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(found, name, value.to(device))
        found._wedges, found._unweighted = {}, {}
        return found

    @property
    def count(self) -> int:
        """M, the number of triangles."""
        return self.index.shape[1]

    def _pair_up(self) -> tuple[Tensor, Tensor, Tensor]:
        """Find the linked pairs, sorted by the ranks of their nodes: these ranks are returned, as one key and each."""
        source, target = self.edge_index
        loop = source == target
        edge = None
        if bool(loop.any()):
            self._refuse_parallel(source[loop], source[loop])
            edge = (~loop).nonzero()[:, 0]
            source, target = source.index_select(0, edge), target.index_select(0, edge)
        degree = torch.bincount(source, minlength=self.num_nodes) + torch.bincount(target, minlength=self.num_nodes)
        by_rank = degree.argsort(stable=True)
        rank = torch.empty_like(by_rank).scatter_(0, by_rank, torch.arange(self.num_nodes, device=by_rank.device))
        ranks = rank.index_select(0, source), rank.index_select(0, target)
        self.joining = edge
        backward = ranks[0] > ranks[1]
        key, order = (torch.minimum(*ranks) * self.num_nodes + torch.maximum(*ranks)).mul_(2).add_(backward).sort()
        if bool((key[1:] == key[:-1]).any()):
            self._refuse_parallel(source, target)
        key, slot = torch.unique_consecutive(key >> 1, return_inverse=True)
        backward = backward.index_select(0, order)
        order = order if edge is None else edge.index_select(0, order)
        self.forward, self.backward = (_placed(order, slot, mask, key.numel()) for mask in (~backward, backward))
        low = key // self.num_nodes
        high = key - low * self.num_nodes
        self.low, self.high = by_rank.index_select(0, low), by_rank.index_select(0, high)
        return key, low, high

    def _refuse_parallel(self, source: Tensor, target: Tensor) -> None:
        """A ValueError if an edge occurs twice; it names the first."""
        key, order = (source * self.num_nodes + target).sort(stable=True)
        again = key[1:] == key[:-1]
        if bool(again.any()):
            first = int(order[1:][again].min())
            u, v = int(source[first]), int(target[first])
            raise ValueError(f"edge_index must not hold parallel edges, got {u} → {v} more than once: coalesce them")

    def _closed_wedges(self, keys: Tensor, low: Tensor, high: Tensor) -> Iterator[Tensor]:
        """Blocks int32 [3, m] of triangles."""
        end = torch.bincount(low, minlength=self.num_nodes).cumsum(0)
        # Pair p leads to the pairs after it that leave the same node; those nodes are in order of rank, so the closing edge is oriented.
        partners = end.index_select(0, low) - torch.arange(1, keys.numel() + 1, device=keys.device)
        total = partners.cumsum(0)
        present = _Filter(keys)
        start = 0
        while start < keys.numel():
            done = int(total[start - 1]) if start else 0
            stop = max(start + 1, int(torch.searchsorted(total, done + _CHUNK, right=True)))
            count = partners[start:stop]
            # the partner of wedge number n of pair p is p + 1 + n − (wedges of the pairs before p)
            shift = torch.arange(start + 1, stop + 1, device=keys.device) - total[start:stop] + count + done
            wedges = int(total[stop - 1]) - done
            first = torch.repeat_interleave(torch.arange(start, stop, device=keys.device), count, output_size=wedges)
            second = torch.arange(wedges, device=keys.device) + torch.repeat_interleave(shift, count, output_size=wedges)
            closing = torch.repeat_interleave(high[start:stop] * self.num_nodes, count, output_size=wedges)
            closing += high.index_select(0, second)
            maybe = present.may_hold(closing).nonzero()[:, 0]
            closing = closing.index_select(0, maybe)
            third = torch.searchsorted(keys, closing).clamp(max=keys.numel() - 1)
            closed = (keys.index_select(0, third) == closing).nonzero()[:, 0]
            maybe = maybe.index_select(0, closed)
            sides = first.index_select(0, maybe), second.index_select(0, maybe), third.index_select(0, closed)
            yield torch.stack(sides).int()
            start = stop

    def require_symmetric(self, weight: Tensor | None = None) -> None:
        """A ValueError unless every edge has its opposite and, weights [E] or [B, E] given, with the same weight up to rounding."""
        forward, backward = self.forward, self.backward
        one_way = (forward < 0) | (backward < 0)
        if bool(one_way.any()):
            alone = torch.maximum(forward, backward)[one_way]
            missing = torch.zeros(self.num_edges, dtype=torch.bool, device=alone.device)
            missing[alone] = True
            raise_one_way(self.edge_index, missing)
        if weight is not None:
            pairs = torch.stack([self.low, self.high])
            for values in torch.atleast_2d(weight.detach()):
                require_agreement(pairs, values[forward], values[backward])

    def per_pair(self, values: Tensor) -> Tensor:
        """[…, E] → […, P]: the sum over the one or two edges of every pair."""
        parts = []
        for edge, complete in zip((self.forward, self.backward), self._complete):
            if complete:
                parts.append(values.index_select(-1, edge))
            else:
                parts.append(values.index_select(-1, edge.clamp(min=0)) * (edge >= 0))
        return parts[0] + parts[1]

    def sum(self, values: Tensor) -> Tensor:
        """[…, P] → […, N]: over the triangles at each node, the product of ``values`` along the three sides.

        Memory is bounded, forward and backward, by what is returned; differentiable once.
        """
        flat = torch.atleast_2d(values)
        if not flat.shape[0]:
            return values.new_zeros(*values.shape[:-1], self.num_nodes)
        rows = [_TriangleSum.apply(row, self) for row in flat]
        return torch.stack(rows).reshape(*values.shape[:-1], self.num_nodes)

    def per_node(self) -> Tensor:
        """int64 [N]: the number of triangles at each node."""
        result = torch.zeros(self.num_nodes, dtype=torch.long, device=self.low.device)
        for part in self.index.split(_CHUNK, 1):
            for corner in self._corners(part):
                result += torch.bincount(corner, minlength=self.num_nodes)
        return result

    def wedges(self, directed: bool) -> Tensor:
        """int64 [N]: the denominators of the clustering coefficient, 1 where they are 0; not to be changed in place."""
        if directed not in self._wedges:
            with torch.inference_mode(False):
                degree = self.neighbours + self.mutual if directed else self.neighbours
                pairs = degree * (degree - 1)
                self._wedges[directed] = (2 * (pairs - 2 * self.mutual) if directed else pairs).clamp(min=1)
        return self._wedges[directed]

    def unweighted(self, directed: bool) -> Tensor:
        """float64 [N]: the clustering coefficient without weights; not to be changed in place."""
        if directed not in self._unweighted:
            with torch.inference_mode(False):
                links = (self.forward >= 0).double() + (self.backward >= 0).double()
                closed = self.sum(links) if directed else self.per_node().double()
                self._unweighted[directed] = 2 * closed / self.wedges(directed)
        return self._unweighted[directed]

    def _corners(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.low.index_select(0, part[0]), self.high.index_select(0, part[0]), self.high.index_select(0, part[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, num_edges={self.num_edges}, count={self.count})"


def _placed(values: Tensor, slot: Tensor, mask: Tensor, size: int) -> Tensor:
    """[size]: the masked values in their slots, −1 in the others."""
    kept = mask.nonzero()[:, 0]
    return values.new_full((size,), -1).scatter_(0, slot.index_select(0, kept), values.index_select(0, kept))


class _Filter:
    """A table of bits that says of most absent keys at once that they are absent: most wedges are open, and searching is slow."""

    def __init__(self, keys: Tensor) -> None:
        self.bits = max(10, min(26, (16 * keys.numel()).bit_length()))
        self.table = torch.zeros(1 << self.bits, dtype=torch.bool, device=keys.device)
        self.table.index_fill_(0, self._slot(keys), True)

    def may_hold(self, keys: Tensor) -> Tensor:
        return self.table.index_select(0, self._slot(keys))

    def _slot(self, keys: Tensor) -> Tensor:
        mixed = keys * -7046029254386353131  # 2⁶⁴ / golden ratio, modulo 2⁶⁴: the upper bits are well mixed
        return mixed.bitwise_right_shift_(63 - self.bits).bitwise_and_((1 << self.bits) - 1)


class _TriangleSum(torch.autograd.Function):
    """Node sums of the products along the sides, a block of triangles at a time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, triangles: Triangles) -> Tensor:
        ctx.save_for_backward(values)
        ctx.triangles = triangles
        result = values.new_zeros(triangles.num_nodes)
        for part in triangles.index.split(_CHUNK, 1):
            a, b, c = (values.index_select(0, side) for side in part)
            product = a.mul_(b).mul_(c)
            for corner in triangles._corners(part):
                result.index_add_(0, corner, product)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        triangles: Triangles = ctx.triangles
        result = torch.zeros_like(values)
        for part in triangles.index.split(_CHUNK, 1):
            i, j, k = (grad.index_select(0, corner) for corner in triangles._corners(part))
            weight = i.add_(j).add_(k)
            a, b, c = (values.index_select(0, side) for side in part)
            for side, product in zip(part, (b * c, a * c, a * b)):
                result.index_add_(0, side, product.mul_(weight))
        return result, None
