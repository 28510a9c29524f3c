"""Random graphs that know nothing but a number: an edge probability, a degree."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._draw import (
    hits,
    occurs_once,
    ordered_pair,
    ordered_slots,
    unordered_key,
    unordered_pair,
    unordered_slots,
)
from topologies._graph import Seed, assemble, both_directions, generator_of, refuse_too_large

_PATIENCE = 20  # rounds of repair without an exchange before a pairing is given up


def erdos_renyi(n: int, p: float, *, directed: bool = False, self_loops: bool = False, seed: Seed = 0) -> Data:
    r"""The random graph G(n, p): every pair of nodes is an edge with probability p, independently of all others.

    .. math:: P(G) = p^{M} (1 - p)^{\binom{n}{2} - M}

    Edges are found by geometric skips over the pairs, so the work grows with the edges and not with n².

    Args:
        n: number of nodes (≥ 1).
        p: probability of an edge, in [0, 1].
        directed: draw j → i and i → j independently, n(n − 1) trials; else one draw is both.
        self_loops: let i → i be one of the trials, once per node.
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with ``edge_index`` [2, E], sorted by target, then source, and ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges expected.

    Example:
        >>> erdos_renyi(50, 1.0).num_edges, erdos_renyi(1000, 0.0).num_edges
        (2450, 0)

    Source: Gilbert, Random graphs, Ann. Math. Stat. 1959; Batagelj and Brandes, Phys. Rev. E 71, 036113, 2005 (skips).
    """
    n = _checks.integer("n", n, minimum=1)
    p = _checks.number("p", p, minimum=0, maximum=1)
    directed, loops = _checks.flag("directed", directed), _checks.flag("self_loops", self_loops)
    generator = generator_of(seed)
    trials = ordered_slots(n, loops=loops) if directed else unordered_slots(n, loops=loops)
    expected = trials * p + 6 * math.sqrt(trials * p * (1 - p))  # the number itself is not known before the edges are
    refuse_too_large(f"n={n}, p={p}", nodes=n, edges=round(expected * (1 if directed else 2)))
    slot = hits(trials, p, generator)
    edge_index = ordered_pair(slot, n, loops=loops) if directed else both_directions(unordered_pair(slot, n, loops=loops))
    return assemble(edge_index, n, "erdos_renyi")


def random_regular(n: int, degree: int, *, seed: Seed = 0) -> Data:
    r"""A random graph in which every node has the same number of neighbours.

    .. math:: |\mathcal{N}(i)| = degree \quad \text{for all } i

    Undirected and simple. ``degree`` stubs per node are paired at random; edges that came out as a self-loop or as a copy of another are
    exchanged with random edges, (a, b), (c, d) → (a, d), (c, b), until none is left. As n grows at fixed degree the result tends to
    the uniform distribution over all such graphs; on a handful of nodes it is close to it and not equal. Above half of all
    possible neighbours the complement is drawn, so degree = n − 1 is the complete graph.

    Args:
        n: number of nodes (≥ 1).
        degree: neighbours of every node, 0 … n − 1; n · degree must be even.
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with ``edge_index`` [2, n·degree], sorted by target, then source, and ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> random_regular(10, 3).num_edges
        30

    Source: Bollobás, A probabilistic proof of an asymptotic formula for the number of labelled regular graphs, Eur. J. Comb. 1980
    (the pairing); McKay and Wormald, J. Algorithms 1990 (exchanges that repair it).
    """
    n = _checks.integer("n", n, minimum=1)
    degree = _checks.integer("degree", degree, minimum=0, maximum=n - 1)
    if n * degree % 2:
        raise ValueError(f"degree must be even where n is odd (n · degree ends of edges are paired), got n={n}, degree={degree}")
    generator = generator_of(seed)
    refuse_too_large(f"n={n}, degree={degree}", nodes=n, edges=n * degree)
    fewer = min(degree, n - 1 - degree)
    while (pairs := _pairing(n, fewer, generator)) is None:
        pass
    if fewer < degree:
        absent = torch.ones(n, n, dtype=torch.bool).triu_(1)
        absent[pairs.amin(0), pairs.amax(0)] = False
        pairs = absent.nonzero().T
    return assemble(both_directions(pairs), n, "random_regular")


def _pairing(n: int, degree: int, generator: torch.Generator) -> Tensor | None:
    """Pairs [2, n·degree/2] without self-loops and copies, or None where exchanges have not led there."""
    pairs = (torch.randperm(n * degree, generator=generator) // max(1, degree)).view(2, -1)
    idle = 0
    while idle < _PATIENCE:
        key = unordered_key(pairs[0], pairs[1], n)
        wrong = ~occurs_once(key) | (pairs[0] == pairs[1])
        mend, good = wrong.nonzero().flatten(), (~wrong).nonzero().flatten()
        if not len(mend):
            return pairs
        mend = mend[torch.randperm(len(mend), generator=generator)[: len(good)]]
        partner = good[torch.randperm(len(good), generator=generator)[: len(mend)]]
        turned = torch.randint(2, (len(mend),), generator=generator).bool()
        (a, b), (c, d) = pairs[:, mend], torch.where(turned, pairs[:, partner].flip(0), pairs[:, partner])
        new = torch.cat([unordered_key(a, d, n), unordered_key(c, b, n)])
        fresh = occurs_once(torch.cat([key, new]))[len(key) :].view(2, -1).all(0)
        done = (fresh & (a != d) & (c != b)).nonzero().flatten()
        idle = 0 if len(done) else idle + 1
        pairs[:, mend[done]] = torch.stack([a, d])[:, done]
        pairs[:, partner[done]] = torch.stack([c, b])[:, done]
    return None
