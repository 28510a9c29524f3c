"""Graphs that take several blocks of work, against NetworkX: small ones with small blocks, and large ones."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from nx_graphs import F64, edge_list, per_node

from lmn_graph.graph_metrics import Triangles, _triangles, clustering, modularity, transitivity, triangles


def clustered(nodes, degree, directed, seed):
    """A power law of degrees with many triangles: hubs with more wedges than a block holds. Directed: two thirds of the directions."""
    rng = np.random.default_rng(seed)
    graph = nx.powerlaw_cluster_graph(nodes, degree, 0.6, seed=seed)
    if directed:
        both = graph.to_directed()
        graph = nx.DiGraph()
        graph.add_nodes_from(range(nodes))
        graph.add_edges_from(edge for edge in both.edges if rng.random() < 0.67)
    for u, v in graph.edges:
        graph[u][v]["weight"] = float(rng.uniform(0.05, 1))
    return graph, *edge_list(graph, rng, True), torch.from_numpy(rng.integers(0, 12, nodes))


def compare(nodes, degree, blocks):
    """Every number, undirected and directed; the work is done in at least so many blocks."""
    for directed in (False, True):
        graph, edges, weight, labels = clustered(nodes, degree, directed, seed=7)
        found = Triangles(edges, nodes)
        wedges = sum(d * (d - 1) // 2 for d in torch.bincount(found.low, minlength=nodes).tolist())
        assert min(wedges, 3 * found.count) > blocks * _triangles._CHUNK
        for values, name in ((weight, "weight"), (None, None)):
            expected = per_node(nx.clustering(graph, weight=name), nodes)
            assert (clustering(found, values, directed=directed, dtype=F64) - expected).abs().max() <= 1e-10
            sets = [set((labels == label).nonzero()[:, 0].tolist()) for label in range(12)]
            for resolution in (1, 1.7):
                expected = nx.community.modularity(graph, sets, weight=name, resolution=resolution)
                for communities in (labels, torch.nn.functional.one_hot(labels).double()):
                    options = {"resolution": resolution, "directed": directed, "num_nodes": nodes, "dtype": F64}
                    assert abs(float(modularity(edges, values, communities, **options)) - expected) <= 1e-10
        if not directed:
            assert abs(float(transitivity(found, dtype=F64)) - nx.transitivity(graph)) <= 1e-10
            assert triangles(found).tolist() == list(nx.triangles(graph).values())


def test_many_small_blocks(monkeypatch):
    monkeypatch.setattr(_triangles, "_CHUNK", 64)
    compare(nodes=150, degree=5, blocks=10)


@pytest.mark.slow
def test_ten_thousand_edges(monkeypatch):
    """Edges by the ten thousand, in blocks of some thousand wedges."""
    monkeypatch.setattr(_triangles, "_CHUNK", 1 << 12)
    compare(nodes=1500, degree=8, blocks=5)
