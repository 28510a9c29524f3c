"""Small-world coefficients: clustering and path length beside those of random graphs and of a lattice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.graph_metrics._clustering import average_clustering, transitivity
from lmn_graph.graph_metrics._edges import Graph, read_dtype, read_edges, require_symmetric
from lmn_graph.graph_metrics._paths import average_shortest_path_length
from lmn_graph.graph_metrics._triangles import Triangles
from topologies import _checks
from topologies._graph import Seed, both_directions, generator_of


class SmallWorld(NamedTuple):
    """Scalars: mean clustering C, mean path length L, sigma and omega."""

    clustering: Tensor
    path_length: Tensor
    sigma: Tensor
    omega: Tensor


def small_world(
    edge_index: Graph,
    *,
    references: int | Sequence[Graph] = 5,
    lattices: Sequence[Graph] | None = None,
    sources: int | None = None,
    seed: Seed = 0,
    num_nodes: int | None = None,
    dtype: torch.dtype | None = None,
) -> SmallWorld:
    r"""Whether a graph is clustered like a lattice and yet as short-pathed as a random graph.

    .. math:: \sigma = \frac{T / \langle T_r \rangle}{L / \langle L_r \rangle}, \qquad
              \omega = \frac{\langle L_r \rangle}{L} - \frac{C}{C_l}, \qquad C_l = \max(C, \max_l C_l)

    with T the transitivity, C the mean clustering and L the mean path length; r runs over random references, l over lattice references.
    Given the same references, the formulas are those of ``networkx.sigma`` and ``networkx.omega``. σ > 1 and ω near 0 mean a small world;
    ω near 1 a random graph, near −1 a lattice. Where the graph has no triangles σ is 0, where only the random references have none it is
    infinite, and where neither has any it is NaN; ω is NaN where neither the graph nor a lattice has any.

    The references made here differ from NetworkX's: random ones are ``topologies.nulls.DegreePreservingRewire`` and may come apart
    (pairs without a path are left out of L); the lattice is :func:`ring_lattice`, of as many nodes and edges but with equal degrees,
    where NetworkX rewires towards the diagonal of the adjacency and keeps each degree.

    Args:
        edge_index: [2, E], an undirected graph, both directions of every edge; weights do not enter.
        references: how many random references to make, or the graphs themselves.
        lattices: lattice references; the ring lattice of equal size if None.
        sources: how many nodes the paths start from, in every graph; all if None (see :func:`average_shortest_path_length`).
        seed: of the references and the sources.
        num_nodes: N; the largest id + 1 if None.
        dtype: of the results; torch's default if None.

    Raises:
        ValueError: for an edge without its opposite, parallel edges, or no reference.

    Source: M. D. Humphries and K. Gurney, PLoS ONE 3, e0002051 (2008); Q. K. Telesford et al., Brain Connect. 1, 367 (2011).
    """
    result = read_dtype(dtype)
    given, nodes = read_edges(edge_index, num_nodes)
    edges = given.cpu()  # references are made there, and may come from anywhere
    require_symmetric(edges, None, nodes)
    generator = generator_of(seed)
    graph = Data(edge_index=edges, num_nodes=nodes)
    random = _random_references(graph, references, generator)
    regular = [ring_lattice(nodes, _pairs(edges))] if lattices is None else list(lattices)
    own = _measure(graph, sources, generator)
    found = torch.stack([_measure(reference, sources, generator) for reference in random]).mean(0)
    best = torch.stack([own[0], *(_mean_clustering(lattice) for lattice in regular)]).max()
    sigma = (own[1] / found[1]) / (own[2] / found[2])
    omega = found[2] / own[2] - own[0] / best
    return SmallWorld(*(value.to(given.device, result) for value in (own[0], own[2], sigma, omega)))


def ring_lattice(num_nodes: int, num_pairs: int) -> Data:
    """A ring in which every node is joined to its nearest: ``num_pairs`` undirected edges, the shortest first, spread evenly.

    The lattice reference of :func:`small_world`. All degrees are equal where num_pairs is a multiple of num_nodes; otherwise the links
    of the last, incomplete distance start at evenly spaced nodes.

    Raises:
        ValueError: if there are not so many pairs of nodes.
    """
    nodes = _checks.integer("num_nodes", num_nodes, minimum=1)
    most = nodes * (nodes - 1) // 2
    pairs = _checks.integer("num_pairs", num_pairs, minimum=0, maximum=most)
    blocks = []
    for distance in range(1, nodes // 2 + 1):
        here = min(pairs, nodes // 2 if 2 * distance == nodes else nodes)
        if here == 0:
            break
        span = nodes // 2 if 2 * distance == nodes else nodes
        start = torch.arange(here) * span // here
        blocks.append(torch.stack([start, (start + distance) % nodes]))
        pairs -= here
    joined = torch.cat(blocks, 1) if blocks else torch.empty(2, 0, dtype=torch.long)
    return Data(edge_index=both_directions(joined), num_nodes=nodes)


def _pairs(edges: Tensor) -> int:
    return int((edges[0] < edges[1]).sum())


def _random_references(graph: Data, references: Any, generator: torch.Generator) -> list[Any]:
    if isinstance(references, Iterable) and not isinstance(references, (str, bytes)):
        given = list(references)
        if not given:
            raise ValueError("references must hold at least one graph, got none")
        return given
    count = _checks.integer("references", references, minimum=1)
    from topologies.nulls import DegreePreservingRewire

    rewire = DegreePreservingRewire(seed=generator)
    return [rewire(graph) for _ in range(count)]


def _measure(graph: Any, sources: int | None, generator: torch.Generator) -> Tensor:
    """Mean clustering, transitivity and mean path length, float64 [3]."""
    edges, nodes = _read(graph)
    found = Triangles(edges, nodes)
    length = average_shortest_path_length(edges, sources=sources, seed=generator, num_nodes=nodes, dtype=torch.float64)
    return torch.stack([average_clustering(found, dtype=torch.float64), transitivity(found, dtype=torch.float64), length])


def _mean_clustering(graph: Any) -> Tensor:
    edges, nodes = _read(graph)
    return average_clustering(edges, num_nodes=nodes, dtype=torch.float64)


def _read(graph: Any) -> tuple[Tensor, int]:
    edges, nodes = read_edges(graph, None)
    return edges.cpu(), nodes
