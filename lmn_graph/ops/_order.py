"""The longest-path levels of an acyclic graph: what a value passes one after the other within one time step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops._kernels import Pattern


class Level(NamedTuple):
    """The nodes of a level, and the edges into it as a rectangular pattern.

    Attributes:
        nodes: int64 [n].
        edges: int64 [e], ids of the incoming edges, sorted by target, then source.
        before: the earlier levels that edges come from, ascending; columns of the pattern are their nodes, one level after the other.
        pattern: [n, sum of the sizes of ``before``].
    """

    nodes: Tensor
    edges: Tensor
    before: tuple[int, ...]
    pattern: Pattern


@dataclass(frozen=True)
class Order:
    """A topological order.

    Attributes:
        level: int64 [N], the number of edges of the longest path to a node.
        nodes: int64 [N], nodes by level, by id within one.
        place: int64 [N], where each node is in ``nodes``.
        sizes: nodes of every level.
        is_graded: whether every edge leads to the very next level, so that all paths between two nodes are equally long.
    """

    level: Tensor
    nodes: Tensor
    place: Tensor
    sizes: tuple[int, ...]
    is_graded: bool

    @classmethod
    def of(cls, connectivity: Connectivity) -> Order:
        """The levels of an acyclic graph.

        Raises:
            ValueError: if there is a cycle, which is named.
        """
        source, target = connectivity.edge_index
        level = torch.full((connectivity.num_nodes,), -1, dtype=torch.long, device=source.device)
        waiting = connectivity.in_degree().long()
        now, depth = (waiting == 0).nonzero().flatten(), 0
        while now.numel():
            level[now] = depth
            edges = _outgoing(connectivity, now)
            heard, count = target[edges].unique(return_counts=True)
            waiting[heard] -= count
            now, depth = heard[waiting[heard] == 0], depth + 1
        if bool((level < 0).any()):
            raise ValueError(f"topology must have no cycle, got {' -> '.join(map(str, find_cycle(connectivity, level < 0)))}")
        nodes = torch.argsort(level, stable=True)
        place = torch.empty_like(nodes)
        place[nodes] = torch.arange(len(nodes), device=nodes.device)
        graded = bool((level[target] == level[source] + 1).all())
        return cls(level, nodes, place, tuple(torch.bincount(level, minlength=depth).tolist()), graded)

    def levels(self, connectivity: Connectivity) -> list[Level]:
        """Every level with the edges into it."""
        source, target = connectivity.edge_index
        by_level = torch.argsort(self.level[target], stable=True)
        counts = torch.bincount(self.level[target], minlength=len(self.sizes)).tolist()
        size = torch.tensor(self.sizes, device=source.device)
        start = size.cumsum(0) - size
        found = []
        for number, (nodes, edges) in enumerate(zip(self.nodes.split(self.sizes), by_level.split(counts))):
            heard = self.level[source[edges]]
            before, among = heard.unique(return_inverse=True)
            offset = size[before].cumsum(0) - size[before]  # where the nodes of each earlier level begin among the columns
            column = offset[among] + self.place[source[edges]] - start[heard]
            row = self.place[target[edges]] - start[number]
            found.append(Level(nodes, edges, tuple(before.tolist()), _pattern(row, column, nodes.numel(), int(size[before].sum()))))
        return found


def find_cycle(connectivity: Connectivity, among: Tensor) -> list[int]:
    """The nodes of one directed cycle of the nodes where ``among`` is true, its first node again at the end."""
    import networkx

    edges = connectivity.edge_index[:, among[connectivity.edge_index].all(0)]
    cycle = networkx.find_cycle(networkx.DiGraph(edges.t().tolist()))
    return [cycle[0][0], *(edge[1] for edge in cycle)]


def _outgoing(connectivity: Connectivity, nodes: Tensor) -> Tensor:
    """The ids of all edges that start at some nodes."""
    first, last = connectivity.rowptr_t[nodes].long(), connectivity.rowptr_t[nodes + 1].long()
    count = last - first
    within = torch.arange(int(count.sum()), device=nodes.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return connectivity.perm_t[torch.repeat_interleave(first, count) + within].long()


def _pattern(row: Tensor, column: Tensor, rows: int, columns: int) -> Pattern:
    """The pattern of entries that are sorted by row."""
    perm = torch.argsort(column, stable=True)
    pointers = [torch.bincount(index, minlength=size).cumsum(0) for index, size in ((row, rows), (column, columns))]
    rowptr, rowptr_t = (torch.cat([pointer.new_zeros(1), pointer]).int() for pointer in pointers)
    return Pattern(rowptr, column.int(), rowptr_t, row[perm].int(), perm.int())
