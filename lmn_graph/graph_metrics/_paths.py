"""Shortest paths: their mean length, the global efficiency and the diameter, from all nodes or from a sample of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmn_graph.graph_metrics._edges import Graph, read_batch, read_dtype, read_edges, read_weight, require_symmetric
from topologies import _checks
from topologies._graph import Seed, generator_of

_CHUNK = 1 << 22  # distances in flight


class _Paths(NamedTuple):
    """Sums over ordered pairs of different nodes (u, v) with a path u → v, u among the sources; one entry per graph."""

    pairs: list[int]
    length: list[float]
    inverse: list[float]
    longest: list[float]
    possible: list[int]  # pairs with or without a path


def average_shortest_path_length(
    edge_index: Graph,
    *,
    sources: int | None = None,
    seed: Seed = 0,
    weight: Tensor | None = None,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The mean length of the shortest paths u → v over ordered pairs of different nodes.

    Equal to ``networkx.average_shortest_path_length`` on a connected graph. Pairs without a path are left out, where NetworkX raises;
    NaN where no pair has one, and 0 for a graph of one node. Self-loops make no path shorter; of parallel edges the shortest counts.
    One breadth-first search per source, O(S·E); with lengths Dijkstra's algorithm, some sources at a time; memory O(N + E).

    Args:
        edge_index: [2, E], row 0 the source; an undirected graph with both directions of every edge.
        sources: how many nodes the paths start from, drawn without replacement (in a batch: from every graph, all of a smaller one); all
            if None. The mean over a sample of n sources has the standard error of a mean over n nodes.
        seed: of the sample, an integer or a ``torch.Generator``, which moves on.
        weight: [E], the lengths of the edges, ≥ 0; all 1 if None. No gradient.
        directed: paths follow the edges; otherwise edges and lengths must be symmetric.
        num_nodes: N; the largest id + 1 if None.
        batch: [N], the graph of every node, for a PyG ``Batch``.
        dtype: of the result where there are no lengths; torch's default if None (the sums are exact; this rounds them).

    Returns:
        A scalar, or [G] with ``batch``.

    Raises:
        ValueError: for arguments of another shape, negative lengths, more sources than nodes, or, undirected, an edge without its opposite.
    """
    found, result, device = _paths(edge_index, sources, seed, weight, directed, num_nodes, batch, dtype)
    values = [
        length / pairs if pairs else (torch.nan if most else 0.0) for length, pairs, most in zip(found.length, found.pairs, found.possible)
    ]
    return _result(values, batch, result, device)


def global_efficiency(
    edge_index: Graph,
    *,
    sources: int | None = None,
    seed: Seed = 0,
    weight: Tensor | None = None,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The mean of 1/d(u, v) over ordered pairs of different nodes, 0 where there is no path; as ``networkx.global_efficiency``.

    Arguments, result and errors as in :func:`average_shortest_path_length`; lengths must here be positive where they join nodes.
    """
    found, result, device = _paths(edge_index, sources, seed, weight, directed, num_nodes, batch, dtype)
    values = [inverse / possible if possible else 0.0 for inverse, possible in zip(found.inverse, found.possible)]
    if not np.isfinite(values).all():
        raise ValueError("weight must be > 0 on every path between different nodes, got two nodes at distance 0")
    return _result(values, batch, result, device)


def diameter(
    edge_index: Graph,
    *,
    sources: int | None = None,
    seed: Seed = 0,
    weight: Tensor | None = None,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The longest of the shortest paths: as ``networkx.diameter`` on a connected graph; pairs without a path are left out.

    From a sample of sources it is a lower bound. Arguments, result and errors as in :func:`average_shortest_path_length`.
    """
    found, result, device = _paths(edge_index, sources, seed, weight, directed, num_nodes, batch, dtype)
    return _result(found.longest, batch, result, device)


def _result(values: list[float], batch: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    found = torch.tensor(values, dtype=dtype, device=device)
    return found[0] if batch is None else found


def _paths(
    edge_index: Any, sources: Any, seed: Any, weight: Any, directed: Any, num_nodes: Any, batch: Any, dtype: Any
) -> tuple[_Paths, torch.dtype, torch.device]:
    """The checked arguments at work, graph by graph; and of which dtype and where the result is to be."""
    edges, nodes = read_edges(edge_index, num_nodes)
    sources = None if sources is None else _checks.integer("sources", sources, minimum=1, maximum=nodes)
    generator = generator_of(seed)
    lengths = read_weight(weight, edges, "weight")
    result = read_dtype(dtype) if lengths is None else lengths.dtype
    if lengths is not None:
        if lengths.ndim != 1:
            raise ValueError(f"weight must have shape [{edges.shape[1]}], got {tuple(lengths.shape)}")
        lengths = lengths.detach()
        if bool((lengths < 0).any()):
            raise ValueError(f"weight must be lengths >= 0, got {float(lengths.min()):g}")
    if not _checks.flag("directed", directed):
        require_symmetric(edges, lengths, nodes)
    graphs = read_batch(batch, edges, nodes)
    rows = []
    of_node = edges.new_zeros(nodes) if graphs.node is None else graphs.node
    by_graph, start = of_node.argsort(stable=True), 0
    local = torch.empty_like(by_graph)
    of_edge = of_node.index_select(0, edges[0])
    edge_order, edge_start = of_edge.argsort(stable=True), 0
    per_edge = torch.bincount(of_edge, minlength=graphs.number).tolist()
    for size, links in zip(torch.bincount(of_node, minlength=graphs.number).tolist(), per_edge):
        local[by_graph[start : start + size]] = torch.arange(size, device=local.device)
        own = edge_order[edge_start : edge_start + links]
        start, edge_start = start + size, edge_start + links
        chosen = torch.arange(size) if sources is None or sources >= size else torch.randperm(size, generator=generator)[:sources]
        own_lengths = None if lengths is None else lengths[own].double().cpu().numpy()
        sums = _search(local[edges[:, own]].cpu().numpy(), own_lengths, size, chosen.tolist())
        rows.append((*sums, len(chosen) * (size - 1)))
    return _Paths(*map(list, zip(*rows))), result, edges.device


def _search(edges: np.ndarray, lengths: np.ndarray | None, nodes: int, sources: list[int]) -> tuple[int, float, float, float]:
    """Pairs, Σ d, Σ 1/d and max d over the pairs with a path; edges [2, E]."""
    from scipy.sparse import csr_array

    if lengths is None:
        ones = np.ones(edges.shape[1])
        return _breadth_first(csr_array((ones, (edges[0], edges[1])), shape=(nodes, nodes)), sources)
    # of parallel edges the shortest counts: a sparse matrix would add them up
    order = np.lexsort((lengths, edges[1], edges[0]))
    edges, lengths = edges[:, order], lengths[order]
    first = np.ones(len(lengths), dtype=bool)
    first[1:] = (edges[:, 1:] != edges[:, :-1]).any(0)
    return _dijkstra(csr_array((lengths[first], tuple(edges[:, first])), shape=(nodes, nodes)), sources)


def _breadth_first(matrix: Any, sources: list[int]) -> tuple[int, float, float, float]:
    """Nodes come in the order of their distance, and their predecessors with them: the bounds of the levels follow from counts."""
    from scipy.sparse.csgraph import breadth_first_order

    at_distance: dict[int, int] = {}
    position = np.empty(matrix.shape[0], dtype=np.int64)
    for source in sources:
        order, predecessor = breadth_first_order(matrix, source)
        position[order] = np.arange(len(order))
        children = np.bincount(position[predecessor[order[1:]]], minlength=len(order))
        below = np.cumsum(children)  # nodes found by the time each node is done, the source aside
        start, stop, distance = 0, 1, 0
        while stop < len(order):
            start, stop, distance = stop, int(below[stop - 1]) + 1, distance + 1
            at_distance[distance] = at_distance.get(distance, 0) + stop - start
    pairs = sum(at_distance.values())
    length = sum(distance * count for distance, count in at_distance.items())
    inverse = sum(count / distance for distance, count in at_distance.items())
    return pairs, float(length), inverse, float(max(at_distance, default=0))


def _dijkstra(matrix: Any, sources: list[int]) -> tuple[int, float, float, float]:
    from scipy.sparse.csgraph import dijkstra

    pairs, length, inverse, longest = 0, 0.0, 0.0, 0.0
    size = max(1, _CHUNK // matrix.shape[0])
    for start in range(0, len(sources), size):
        part = sources[start : start + size]
        distance = dijkstra(matrix, indices=part)
        reached = np.isfinite(distance)
        reached[np.arange(len(part)), part] = False
        values = distance[reached]
        pairs += values.size
        length += float(values.sum())
        inverse += float(np.divide(1.0, values, out=np.full_like(values, np.inf), where=values > 0).sum())
        longest = max(longest, float(values.max(initial=0.0)))
    return pairs, length, inverse, longest
