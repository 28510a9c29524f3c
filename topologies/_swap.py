"""Swaps of the ends of edges, many at a time, that lead to every simple graph of the same degrees equally often.

In one batch random disjoint groups of edges each propose to permute their far ends. A group goes ahead if its old and its new edges occur
nowhere else among all old and all proposed edges. Undoing a batch poses exactly the same question to every group, so the batch is as
likely as its reverse, and the walk over graphs has the uniform distribution as its limit. How long to walk is not decided by
how many swaps succeed on the way, which would favour graphs from which many do. In dense graphs most new edges are there already, and
groups block each other: there fewer propose at a time, and more often, as the density says, which rewiring does not change.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from topologies._draw import occurs_once, unordered_key

_ORDERS = {2: torch.tensor([[0, 1], [1, 0]]), 3: torch.cartesian_prod(*[torch.arange(3)] * 3)[[5, 7, 11, 15, 19, 21]]}
_SMALL = 1000  # edges below which the share of swaps that succeed is too noisy to plan with
_MOST = 10  # times as many batches, at most, where most swaps fail; ten times that in small dense graphs
_DENSE = 0.5  # of all pairs free: below it a graph is dense


class Wires(NamedTuple):
    """Edges as they are rewired.

    ends [2, M]: source and target; undirected: in either order. carried [2, M]: the edge whose fields go from source to target and,
    undirected, the one whose fields go back. split: undirected, the two directions are different and the fields of each stay with its
    source. sign [E]: swap only where these agree, or None.
    """

    ends: Tensor
    carried: Tensor
    num_nodes: int
    directed: bool
    split: bool
    sign: Tensor | None

    def key(self, source: Tensor, target: Tensor) -> Tensor:
        return source * self.num_nodes + target if self.directed else unordered_key(source, target, self.num_nodes)


def swap(wires: Wires, swaps: int, generator: torch.Generator) -> Wires:
    """The wires after about ``swaps`` successful swaps of every edge; their tensors are new."""
    wires = wires._replace(ends=wires.ends.clone(), carried=wires.carried.clone())
    edges = wires.ends.size(1)
    if edges < 2:
        return wires
    pairs = wires.num_nodes * (wires.num_nodes - 1) / (1 if wires.directed else 2)
    free = 1 - int((wires.ends[0] != wires.ends[1]).sum()) / max(pairs, 1)
    if free <= 0:  # all to all: no other graph has these degrees
        return wires
    active = 1.0 if free > _DENSE else free
    moved = _round(wires, active, generator) / edges
    if edges < _SMALL:
        rounds = _MOST * swaps if free > _DENSE else math.ceil(_MOST * swaps * min(10.0, 1 / free**2))
    else:
        rounds = min(_MOST * swaps, math.ceil(swaps / max(moved, 1e-9)))
    for _ in range(rounds - 1):
        _round(wires, active, generator)
    return wires


def _round(wires: Wires, active: float, generator: torch.Generator) -> int:
    """One batch, of groups of two; for directed edges another one of three. Returns how many ends moved."""
    if wires.directed:  # some graphs are reached only by turning a directed triangle round, which is a swap of three (Rao et al. 1996)
        return _batch(wires, 3, active, generator) + _batch(wires, 2, active, generator)
    turned = torch.randint(2, (wires.ends.size(1),), generator=generator).bool()
    for pair in (wires.ends, wires.carried):
        pair.copy_(torch.where(turned, pair.flip(0), pair))
    return _batch(wires, 2, active, generator)


def _batch(wires: Wires, size: int, active: float, generator: torch.Generator) -> int:
    group = _groups(wires, size, generator)
    if active < 1:
        group = group[torch.randperm(len(group), generator=generator)[: math.ceil(active * len(group))]]
    if wires.directed:  # with a chance of no change: two edges that always swapped would only alternate
        choice = torch.randint(len(_ORDERS[size]), (len(group),), generator=generator)
        take = group.gather(1, _ORDERS[size][choice])
    else:
        take = group.flip(1)
    place, take, rank = _changing(group, take)
    source, target = wires.ends
    old = wires.key(source, target)
    new = wires.key(source[place], target[take])
    once = occurs_once(torch.cat([old, new]))
    refused = ~(once[place] & once[len(old) :] & (source[place] != target[take]))
    stays = torch.zeros(len(group), dtype=torch.bool)
    stays[rank[refused]] = True
    goes = ~stays[rank]
    place, take = place[goes], take[goes]
    target[place] = target[take]
    if wires.split:
        wires.carried[1, place] = wires.carried[1, take]
    return len(place)


def _changing(group: Tensor, take: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The edges that get another end, the edges whose end they get, and the number of their group."""
    changes = (group != take).nonzero(as_tuple=True)
    return group[changes], take[changes], changes[0]


def _groups(wires: Wires, size: int, generator: torch.Generator) -> Tensor:
    """Disjoint random groups [G, size] of edges of one sign; what is left over sits out."""
    edges = wires.ends.size(1)
    order = torch.randperm(edges, generator=generator)
    if wires.sign is None:
        return order[: edges // size * size].view(-1, size)
    there, back = wires.sign[wires.carried].long() + 1
    kind = there if wires.directed else 3 * there + back
    order = order[kind[order].argsort(stable=True)]
    count = torch.bincount(kind, minlength=9)
    rank = torch.arange(edges) - (count.cumsum(0) - count)[kind[order]]
    return order[rank < (count // size * size)[kind[order]]].view(-1, size)
