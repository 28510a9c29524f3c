"""Growth by preferential attachment."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import Seed, assemble, both_directions, generator_of, refuse_too_large


def scale_free(n: int, m: int = 2, *, seed: Seed = 0) -> Data:
    r"""The Barabási–Albert graph: every new node joins m different nodes, each chosen in proportion to its degree.

    .. math:: P(v \to u) = \frac{k_u}{\sum_w k_w}, \qquad P(k) \to \frac{2m(m + 1)}{k(k + 1)(k + 2)}

    Growth starts from a star of m + 1 nodes, node 0 its centre; nodes m + 1 … n − 1 then come one by one. The m nodes are drawn one after
    the other, and a node that was drawn already is drawn again. The graph is simple, connected and has exactly m(n − m) undirected edges.

    A new edge copies an end of an earlier edge chosen uniformly, which is the proportion above; what is copied from edges that are
    not yet known is followed by pointer jumping, in blocks that double the graph (the first ~m^1.5 nodes come one by one).

    Args:
        n: number of nodes.
        m: edges that a new node brings, 1 … n − 1.
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with ``edge_index`` [2, 2m(n − m)], sorted by target, then source, and ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> scale_free(100, m=3).num_edges
        582

    Source: Barabási and Albert, Emergence of scaling in random networks, Science 286, 1999; Dorogovtsev, Mendes and Samukhin, Phys. Rev.
    Lett. 85, 2000 (P(k)); Batagelj and Brandes, Phys. Rev. E 71, 036113, 2005 (copied ends).
    """
    n = _checks.integer("n", n, minimum=2)
    m = _checks.integer("m", m, minimum=1, maximum=n - 1)
    generator = generator_of(seed)
    refuse_too_large(f"n={n}, m={m}", nodes=n, edges=2 * m * (n - m))
    source = torch.cat([torch.arange(1, m + 1), torch.arange(m + 1, n).repeat_interleave(m)])
    target = torch.zeros_like(source)
    first = _one_by_one(target, n, m, generator)
    while first < n:
        begin = m * (first - m)
        first = min(first + _block(first, m), n)
        end = m * (first - m)
        target[begin:end] = _attach(source[:end], target[:begin], m, generator)
    return assemble(both_directions(torch.stack([source, target])), n, "scale_free")


def _block(node: int, m: int) -> int:
    """How many nodes come together: a share m³b/2v² of b nodes after node v copies one of the block that has to draw again."""
    return min(node, max(1, 2 * node**2 // m**3))


def _one_by_one(target: Tensor, n: int, m: int, generator: torch.Generator) -> int:
    """Fills in the targets of the first nodes, which copy each other too often to come together, and returns the node that is next."""
    degree = torch.zeros(n, dtype=torch.float64)
    degree[0], degree[1 : m + 1] = m, 1
    for node in range(m + 1, n):
        if _block(node, m) > 1:
            return node
        chosen = torch.multinomial(degree[:node], m, generator=generator)
        target[m * (node - m) : m * (node - m + 1)] = chosen
        degree[chosen] += 1
        degree[node] = m
    return n


def _attach(source: Tensor, known: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """The targets of the edges that follow those whose targets are known, exactly as if they had come one by one."""
    begin, size = len(known), len(source) - len(known)
    slot = torch.arange(size)
    ends = 2 * (slot // m * m + begin)  # of all edges of earlier nodes: 2e is the source of edge e, 2e + 1 its target
    drawn = (torch.rand(size, dtype=torch.float64, generator=generator) * ends).long()
    while True:
        edge, at_target = drawn // 2, drawn % 2 == 1
        linked = at_target & (edge >= begin)
        link = torch.where(linked, edge - begin, slot)
        value = torch.where(at_target, known[edge.clamp(max=begin - 1)], source[edge])[_roots(link)]
        repeated = _repeated(value.view(-1, m))
        wrong = repeated.any(1)
        if not bool(wrong.any()):
            return value
        # A node draws again only when all that it copies is final: what a draw that is itself replaced pointed at must not decide.
        waiting = wrong
        while True:
            held = (linked & waiting.repeat_interleave(m)[link]).view(-1, m).any(1)
            if torch.equal(grown := waiting | held, waiting):
                break
            waiting = grown
        again = (repeated & ~held[:, None]).flatten().nonzero().flatten()
        drawn[again] = (torch.rand(len(again), dtype=torch.float64, generator=generator) * ends[again]).long()


def _roots(link: Tensor) -> Tensor:
    """Where following the links from every slot ends."""
    while not torch.equal(onward := link[link], link):
        link = onward
    return link


def _repeated(rows: Tensor) -> Tensor:
    """Which entries [R, m] equal an earlier one of their row."""
    value, order = rows.sort(dim=1, stable=True)
    same = torch.zeros_like(rows, dtype=torch.bool)
    same[:, 1:] = value[:, 1:] == value[:, :-1]
    return torch.zeros_like(same).scatter_(1, order, same)
