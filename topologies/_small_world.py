"""The ring with shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._draw import first_of_each, hits, occurs_once, unordered_key
from topologies._graph import Seed, assemble, both_directions, generator_of, refuse_too_large

_CROWDED = 0.97  # share of nodes that are neighbours above which a random node is too rarely free


def small_world(n: int, k: int = 4, p: float = 0.1, *, seed: Seed = 0) -> Data:
    r"""The ring in which every node knows its k nearest, each of its edges then rewired with probability p.

    .. math:: C(0) = \frac{3(k - 2)}{4(k - 1)}, \qquad C(p) \approx C(0)\,(1 - p)^3

    (the clustering, for k < 2n/3). The ring joins i to i + 1 … i + k/2. An edge that is rewired keeps its end i; the other goes to a node
    drawn uniformly from those that i is not joined to, so the graph stays simple and has exactly n·k/2 undirected edges. A node that is
    joined to all others keeps its edges. Many edges are rewired at once and those that collide draw again, where Watts and Strogatz
    go round the ring: p = 0 is the ring, and at p = 1 no edge stays unless its node is full.

    Args:
        n: number of nodes (≥ 1).
        k: neighbours of every node on the ring, even, 0 … n − 1.
        p: probability of rewiring, in [0, 1].
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with ``edge_index`` [2, n·k], sorted by target, then source, and ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> small_world(20, k=4, p=0.3).num_edges
        80

    Source: Watts and Strogatz, Collective dynamics of 'small-world' networks, Nature 393, 1998; Barrat and Weigt, Eur. Phys. J. B 13, 2000
    (C(0), C(p)).
    """
    n = _checks.integer("n", n, minimum=1)
    k = _checks.integer("k", k, minimum=0, maximum=n - 1)
    if k % 2:
        raise ValueError(f"k must be even (k/2 neighbours on either side), got {k}")
    p = _checks.number("p", p, minimum=0, maximum=1)
    generator = generator_of(seed)
    refuse_too_large(f"n={n}, k={k}", nodes=n, edges=n * k)
    source = torch.arange(n).repeat(k // 2)
    target = (source + torch.arange(1, k // 2 + 1).repeat_interleave(n)) % n
    degree = torch.full((n,), k)
    pending = hits(len(source), p, generator)
    propose = _free_node if k > _CROWDED * n else _any_node
    while True:
        pending = pending[degree[source[pending]] < n - 1]
        if not len(pending):
            return assemble(both_directions(torch.stack([source, target])), n, "small_world")
        free, end = propose(source, target, pending, n, generator)
        moved = pending[free]
        degree += torch.bincount(end, minlength=n) - torch.bincount(target[moved], minlength=n)
        target[moved] = end
        pending = pending[~free]


def _any_node(source: Tensor, target: Tensor, pending: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random node for every pending edge: which edges [P] may have theirs, and the nodes of those."""
    start, end = source[pending], torch.randint(n, pending.shape, generator=generator)
    key = torch.cat([unordered_key(source, target, n), unordered_key(start, end, n)])
    free = occurs_once(key)[len(source) :] & (start != end)
    return free, end[free]


def _free_node(source: Tensor, target: Tensor, pending: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same for one pending edge of every node, with the node drawn from those that are free: for graphs that leave few."""
    taken = torch.eye(n, dtype=torch.bool)
    taken[source, target] = taken[target, source] = True
    turn = first_of_each(source[pending])
    turn = turn[torch.randperm(len(turn), generator=generator)]  # two nodes may choose the same edge: either is as likely to have it
    start = source[pending[turn]]
    end = torch.rand(len(turn), n, dtype=torch.float64, generator=generator).masked_fill_(taken[start], -1.0).argmax(1)
    won = first_of_each(unordered_key(start, end, n))
    free = torch.zeros(len(pending), dtype=torch.bool)
    free[turn[won]] = True
    return free, torch.zeros_like(pending).index_copy_(0, turn, end)[free]
