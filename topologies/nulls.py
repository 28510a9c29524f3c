"""Null models: what a topology is compared with, as PyG transforms.

Each keeps some of a graph and randomises the rest: the degrees (:class:`DegreePreservingRewire`), the wiring
(:class:`WeightShuffle`) or the density alone (:class:`EqualDensity`); :class:`SpectralRadius` then gives all of them the same gain.
Transforms compose: ``Compose([DegreePreservingRewire(), SpectralRadius(0.95)])``.

None changes its input. A ``seed`` is that of a series: every call draws anew, and two transforms made alike give the same series. Each
worker of a ``DataLoader`` has another one in every epoch, which follows from ``seed`` and from torch's seed of the worker.
A graph without edges is returned as it is. Wherever a graph is called undirected, every edge is there in both directions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from topologies import _checks
from topologies._draw import distinct, ordered_pair, ordered_slots, unordered_pair, unordered_slots
from topologies._graph import Seed, Series
from topologies._null import Graph, graph_of, rewired, sign_of_sources
from topologies._pairing import undirected_pairs
from topologies._spectrum import spectral_radius
from topologies._swap import Wires, swap

__all__ = ["DegreePreservingRewire", "EqualDensity", "SpectralRadius", "WeightShuffle"]


class _Random(BaseTransform):
    """A transform with ``keep_signs`` and a series of random numbers of its own."""

    def __init__(self, keep_signs: bool, seed: Seed) -> None:
        self.keep_signs = _checks.flag("keep_signs", keep_signs)
        self.seed = seed
        self._series = Series(seed)

    @property
    def _random(self) -> torch.Generator:
        return self._series.generator()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(keep_signs={self.keep_signs}, seed={self.seed!r})"


@functional_transform("degree_preserving_rewire")
class DegreePreservingRewire(_Random):
    r"""Random wiring with the same degrees: double edge swaps

    .. math:: (a \to b),\; (c \to d) \;\longmapsto\; (a \to d),\; (c \to b)

    that make no self-loop and no parallel edge. Every node keeps its in- and its out-degree. Undirected graphs are rewired as such and stay
    undirected. Self-loops stay where they are. In the limit of many swaps every simple graph with these degrees (and loops) is equally
    likely; directed graphs also exchange the ends of three edges, without which some could not be reached.

    The weight of an edge, and any other field of edges, stays with its source, so every node keeps its outgoing weights. Equal weights of
    both directions of an undirected edge stay equal; where they differ, each stays with its own source. ``edge_attr``, ``shape``,
    ``edge_type`` and the names ``edge_types`` describe the old wiring and are dropped, always: copy types that belong to the edge itself
    (a synapse's) to a field of another name, which moves with the edge. Fields of nodes are kept, and the name gets ", rewired". A
    feed-forward graph (``tree``, ``raster``) does not stay feed-forward; its ports are kept.

    Args:
        swaps: successful swaps per edge, about (≥ 1); at most ten times as many are tried where most fail, as in dense graphs.
        keep_signs: swap only edges whose weights have the same sign: each node keeps its degrees of either sign too. (Not every graph with
            these signed degrees need be within reach.)
        seed: an integer, or a ``torch.Generator`` that moves on.

    Raises:
        ValueError: a bad argument; data that is no single graph with ``edge_index``, has parallel edges, or weights that are not finite.

    Source: Maslov and Sneppen, Science 296, 2002; Rao, Jana and Bandyopadhyay, Sankhya A 58, 1996 (three edges).
    """

    def __init__(self, swaps: int = 10, *, keep_signs: bool = False, seed: Seed = 0) -> None:
        self.swaps = _checks.integer("swaps", swaps, minimum=1)
        super().__init__(keep_signs, seed)

    def forward(self, data: Any) -> Data:
        graph = graph_of(data, simple=True)
        if not graph.num_edges:
            return copy.copy(data)
        sign = graph.weight.sign() if self.keep_signs and graph.weight is not None else None
        pairs, _ = undirected_pairs(graph.edge_index, None, graph.num_nodes)
        loops = graph.loops.nonzero().flatten()
        if pairs is None:
            edges = (~graph.loops).nonzero().flatten()
            wires = Wires(graph.edge_index[:, edges], torch.stack([edges, edges]), graph.num_nodes, True, False, sign)
        else:
            split = not graph.alike(pairs.forward, pairs.backward)
            carried = torch.stack([pairs.forward, pairs.backward])
            wires = Wires(graph.edge_index[:, pairs.forward], carried, graph.num_nodes, False, split, sign)
        wires = swap(wires, self.swaps, self._random)
        back = slice(0, 0 if wires.directed else None)
        edge_index = torch.cat([wires.ends, wires.ends.flip(0)[:, back], graph.edge_index[:, loops]], dim=1)
        carried = torch.cat([wires.carried[0], wires.carried[1, back], loops])
        return rewired(data, graph, edge_index, carried, "rewired")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(swaps={self.swaps}, keep_signs={self.keep_signs}, seed={self.seed!r})"


@functional_transform("weight_shuffle")
class WeightShuffle(_Random):
    r"""The same wiring with its weights dealt out anew.

    .. math:: w_e \longmapsto w_{\pi(e)}, \qquad \pi \text{ a uniformly random permutation of the edges}

    Where an undirected graph has equal weights in both directions it keeps that: pairs are permuted among pairs and self-loops among
    self-loops. Without ``edge_weight`` nothing changes. All other fields are kept, and the name gets ", weights shuffled".

    Args:
        keep_signs: permute within the positive, the negative and the zero weights, so that every edge keeps its sign.
        seed: an integer, or a ``torch.Generator`` that moves on.

    Raises:
        ValueError: a bad argument; data that is no single graph with ``edge_index``, or has weights that are not finite.
    """

    def __init__(self, *, keep_signs: bool = False, seed: Seed = 0) -> None:
        super().__init__(keep_signs, seed)

    def forward(self, data: Any) -> Data:
        graph, data = graph_of(data), copy.copy(data)
        if graph.weight is None or not graph.num_edges:
            return data
        pairs, _ = undirected_pairs(graph.edge_index, graph.weight, graph.num_nodes)
        kind = graph.weight.sign().long() + 1 if self.keep_signs else torch.zeros(graph.num_edges, dtype=torch.long)
        if pairs is None:
            taken = self._permuted(torch.arange(graph.num_edges), kind)
        else:
            taken = torch.arange(graph.num_edges)
            loops = graph.loops.nonzero().flatten()
            taken[loops] = self._permuted(loops, kind)
            taken[pairs.forward] = taken[pairs.backward] = self._permuted(pairs.forward, kind)
        data.edge_weight = data.edge_weight[taken.to(data.edge_weight.device)]
        data.name = f"{graph.name}, weights shuffled"
        return data

    def _permuted(self, edges: Tensor, kind: Tensor) -> Tensor:
        """The edges in random order, each of the same kind as the one whose place it takes."""
        mixed = edges[torch.randperm(len(edges), generator=self._random)]
        found = torch.empty_like(edges)
        found[kind[edges].argsort(stable=True)] = mixed[kind[mixed].argsort(stable=True)]
        return found


@functional_transform("equal_density")
class EqualDensity(_Random):
    r"""The Erdős–Rényi graph G(N, M) with as many nodes and edges, its weights those of the graph, dealt out at random.

    .. math:: P(G') = \binom{N(N - 1)}{M}^{-1} \qquad \text{(undirected: } \tbinom{N(N - 1)/2}{M/2}^{-1} \text{)}

    for the M edges that are no self-loops; self-loops stay as many, at random nodes, and keep their weights among themselves. An undirected
    graph gives an undirected one, with equal weights in both directions if it had them. Other fields of edges are dealt out with the
    weights; ``edge_attr``, ``shape``, ``edge_type`` and the names ``edge_types`` describe the old wiring and are dropped. Fields of nodes
    are kept, and the name gets ", random".

    Args:
        keep_signs: weights that are dealt out as they are keep the number of edges of each sign, whatever this says. With ``keep_signs``
            the sign belongs to the source instead (Dale's principle) if no node has outgoing weights of both signs: the magnitudes are
            dealt out, each with the sign of the node that it leaves. A node that had no outgoing weight other than 0 takes the sign of
            a random node that had. How many edges are negative then varies. Undirected graphs with equal weights in both
            directions have no source: there nothing changes.
        seed: an integer, or a ``torch.Generator`` that moves on.

    Raises:
        ValueError: a bad argument; data that is no single graph with ``edge_index``, has parallel edges, or weights that are not finite.

    Source: Erdős and Rényi, On random graphs I, 1959.
    """

    def __init__(self, *, keep_signs: bool = False, seed: Seed = 0) -> None:
        super().__init__(keep_signs, seed)

    def forward(self, data: Any) -> Data:
        graph = graph_of(data, simple=True)
        if not graph.num_edges:
            return copy.copy(data)
        n, loops = graph.num_nodes, graph.loops.nonzero().flatten()
        at = distinct(n, len(loops), self._random)
        pairs, _ = undirected_pairs(graph.edge_index, None, n)
        mirrored = pairs is not None and graph.alike(pairs.forward, pairs.backward)
        if pairs is None:
            carried = self._mixed((~graph.loops).nonzero().flatten())
            ends = ordered_pair(distinct(ordered_slots(n, loops=False), len(carried), self._random), n, loops=False)
        else:
            ends = unordered_pair(distinct(unordered_slots(n, loops=False), len(pairs.forward), self._random), n, loops=False)
            ends = torch.cat([ends, ends.flip(0)], dim=1)
            both = torch.stack([pairs.forward, pairs.backward])
            carried = self._mixed(both.T).T.flatten() if mirrored else self._mixed(both.flatten())
        edge_index = torch.cat([ends, at.expand(2, -1)], dim=1)
        carried = torch.cat([carried, self._mixed(loops)])
        sign = None if mirrored or not self.keep_signs else self._dale(graph)
        return rewired(data, graph, edge_index, carried, "random", sign)

    def _mixed(self, edges: Tensor) -> Tensor:
        return edges[torch.randperm(len(edges), generator=self._random)]

    def _dale(self, graph: Graph) -> Tensor | None:
        """The sign [N] of every node's outgoing weights, or None where some node has both."""
        sign = sign_of_sources(graph)
        if sign is None or not bool(sign.any()):
            return None
        unknown, known = (sign == 0).nonzero().flatten(), sign[sign != 0]
        sign[unknown] = known[torch.randint(len(known), unknown.shape, generator=self._random)]
        return sign


@functional_transform("spectral_radius")
class SpectralRadius(BaseTransform):
    r"""The same graph with all weights scaled by one factor, so that the spectral radius is ``radius``.

    .. math:: w \longmapsto w \cdot \frac{radius}{\max_k |\lambda_k(A)|}, \qquad A_{ij} = w_{ij} \text{ for } j \to i

    Weights are 1 where the graph has none, and keep their signs and their gradient (the factor is a constant). Up to 400
    nodes on cycles all eigenvalues are computed, beyond that the largest by Lanczos or Arnoldi iteration from a fixed start.

    Args:
        radius: > 0.

    Raises:
        ValueError: a bad argument; data that is no single graph with ``edge_index``, has weights that are not finite, or a spectral radius
            of 0 (a graph that has edges and no cycle, or weights that cancel along all cycles up to rounding).
    """

    def __init__(self, radius: float = 0.95) -> None:
        self.radius = _checks.number("radius", radius, above=0)

    def forward(self, data: Any) -> Data:
        graph, data = graph_of(data), copy.copy(data)
        if not graph.num_edges:
            return data
        weight = torch.ones(graph.num_edges) if graph.weight is None else graph.weight
        found = spectral_radius(graph.edge_index, weight, graph.num_nodes)
        if not found:
            raise ValueError("data must have a spectral radius above 0 to be scaled, got 0: no cycle of edges, or weights that cancel")
        if graph.weight is None:
            data.edge_weight = torch.full((graph.num_edges,), self.radius / found, device=data.edge_index.device)
        else:
            value = data.edge_weight if data.edge_weight.is_floating_point() else data.edge_weight.to(torch.get_default_dtype())
            data.edge_weight = value * (self.radius / found)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(radius={self.radius})"
