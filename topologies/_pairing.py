"""Which two directed edges are one undirected edge."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """forward[i] and backward[i] are the two directions of an edge; chosen: one direction of each, and the self-loops, by rising index."""

    forward: Tensor
    backward: Tensor
    chosen: Tensor


def undirected_pairs(edge_index: Tensor, weight: Tensor | None, num_nodes: int) -> tuple[Pairs | None, int]:
    """The pairs of opposite edges of equal weight, or None and the number of an edge that has no other.

    Parallel edges are paired by their weights and, of equal weights, in the order in which they come. NaN equals nothing.
    """
    source, target = edge_index
    value = torch.zeros(len(source)) if weight is None else weight

    def ranked(which: Tensor, low: Tensor, high: Tensor) -> Tensor:
        edge = which.nonzero().flatten()
        edge = edge[value[edge].argsort(stable=True)]
        return edge[(low[edge] * num_nodes + high[edge]).argsort(stable=True)]

    forward, backward = ranked(source < target, source, target), ranked(source > target, target, source)
    count = min(len(forward), len(backward))
    one, other = forward[:count], backward[:count]
    differ = (source[one] != target[other]) | (target[one] != source[other]) | (value[one] != value[other])
    loops = (source == target).nonzero().flatten()
    lonely_loops = loops[value[loops] != value[loops]]
    if len(lonely_loops):
        return None, int(lonely_loops[0])
    if not bool(differ.any()) and len(forward) == len(backward):
        return Pairs(forward, backward, torch.cat([forward, loops]).sort().values), -1
    at = int(differ.nonzero()[0, 0]) if bool(differ.any()) else count
    if at >= len(forward) or at >= len(backward):
        return None, int((forward if at < len(forward) else backward)[at])
    first = [
        int(low * num_nodes + high)
        for low, high in ((source[forward[at]], target[forward[at]]), (target[backward[at]], source[backward[at]]))
    ]
    return None, int(forward[at] if first[0] <= first[1] else backward[at])
