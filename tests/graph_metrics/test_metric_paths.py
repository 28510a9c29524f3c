"""Shortest paths and small worlds: NetworkX's numbers where it has them, samples, lengths, graphs that fall apart."""

from __future__ import annotations

import math
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nx_graphs import F64, edge_list, sample, samples, symmetric
from torch_geometric.data import Batch, Data

import topologies
from lmn_graph.graph_metrics import average_shortest_path_length, diameter, global_efficiency, ring_lattice, small_world

KARATE = nx.Graph(nx.karate_club_graph().edges)


def connected(s):
    return nx.is_strongly_connected(s.graph) if s.directed else nx.is_connected(s.graph)


def reached(s, weight=None):
    """Lengths of the paths between different nodes, by NetworkX."""
    lengths = nx.all_pairs_dijkstra_path_length(s.graph, weight=weight)
    return [d for u, row in lengths for v, d in row.items() if u != v]


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_paths_are_networkx(directed, weighted, loops):
    """200 graphs of each kind; where NetworkX refuses a graph that falls apart, the pairs that have a path."""
    whole = 0
    for s in samples(directed, "positive", loops, most=10):
        length = s.edge_weight if weighted else None
        weight = "weight" if weighted else None
        found = float(average_shortest_path_length(s.edge_index, weight=length, **s.plain))
        if connected(s):
            whole += 1
            assert abs(found - nx.average_shortest_path_length(s.graph, weight=weight)) <= 1e-10
        values = reached(s, weight or (lambda u, v, d: 1))
        if values:
            assert abs(found - np.mean(values)) <= 1e-10
            assert abs(float(diameter(s.edge_index, weight=length, **s.plain)) - max(values)) <= 1e-10
        else:
            assert math.isnan(found) == (s.nodes > 1)
        efficiency = float(global_efficiency(s.edge_index, weight=length, **s.plain))
        assert abs(efficiency - sum(1 / d for d in values) / max(1, s.nodes * (s.nodes - 1))) <= 1e-10
        if not directed and not weighted:
            assert abs(efficiency - nx.global_efficiency(s.graph)) <= 1e-10
    assert whole >= 30


def test_known_lengths():
    """A path of n nodes: (n + 1)/3; a periodic ring of 9: (1 + 2 + 3 + 4)/4; a directed cycle of n: n/2."""
    path = symmetric([(i, i + 1) for i in range(9)])
    assert float(average_shortest_path_length(path, dtype=F64)) == pytest.approx(11 / 3, rel=1e-15)
    assert float(diameter(path)) == 9
    ring = topologies.grid(9, 1).edge_index
    assert float(average_shortest_path_length(ring)) == 2.5
    cycle = torch.stack([torch.arange(8), (torch.arange(8) + 1) % 8])
    assert float(average_shortest_path_length(cycle, directed=True)) == 4
    assert float(diameter(cycle, directed=True)) == 7


def test_pairs_without_a_path_are_left_out():
    two = symmetric([(0, 1), (2, 3), (3, 4)])
    assert float(average_shortest_path_length(two, num_nodes=7, dtype=F64)) == pytest.approx((2 * 1 + 4 * 1 + 2 * 2) / 8)
    assert float(global_efficiency(two, num_nodes=7, dtype=F64)) == pytest.approx((2 + 4 + 2 / 2) / 42)
    none = torch.empty(2, 0, dtype=torch.long)
    assert average_shortest_path_length(none, num_nodes=3).isnan()
    assert float(average_shortest_path_length(none, num_nodes=1)) == 0
    assert float(global_efficiency(none, num_nodes=1)) == 0
    assert float(diameter(none, num_nodes=3)) == 0


def test_parallel_edges_take_the_shortest_and_length_zero_is_a_length():
    edges = torch.tensor([[0, 0, 1], [1, 1, 2]])
    found = average_shortest_path_length(edges, weight=torch.tensor([5.0, 2.0, 0.0]), directed=True)
    assert float(found) == pytest.approx((2 + 2 + 0) / 3)


def test_samples_of_sources():
    """All of them is everything; some are a mean over some nodes, the same for a seed; the generator moves on."""
    s = sample(11, most=40)
    whole = average_shortest_path_length(s.edge_index, **s.plain)
    assert torch.allclose(average_shortest_path_length(s.edge_index, sources=s.nodes, **s.plain), whole)
    each = [float(np.mean(list(row.values()))) * s.nodes / (s.nodes - 1) for _, row in nx.all_pairs_shortest_path_length(s.graph)]
    one = {float(average_shortest_path_length(s.edge_index, sources=1, seed=seed, **s.plain)) for seed in range(40)}
    assert all(min(abs(value - row) for row in each) < 1e-12 for value in one)
    assert len(one) > 1
    generator = torch.Generator().manual_seed(3)
    drawn = [float(average_shortest_path_length(s.edge_index, sources=2, seed=generator, **s.plain)) for _ in range(8)]
    assert len(set(drawn)) > 1
    before = torch.get_rng_state()
    assert drawn[0] == float(average_shortest_path_length(s.edge_index, sources=2, seed=3, **s.plain))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("number", [average_shortest_path_length, global_efficiency, diameter])
def test_batch_of_graphs(number):
    graphs = [sample(seed, True, "positive", most=12) for seed in range(6)]
    batch = Batch.from_data_list([Data(edge_index=g.edge_index, edge_weight=g.edge_weight, num_nodes=g.nodes) for g in graphs])
    for weighted in (False, True):
        options = {"directed": True, "num_nodes": batch.num_nodes, "batch": batch.batch, "weight": batch.edge_weight if weighted else None}
        found = number(batch.edge_index, **options)
        expected = [number(g.edge_index, directed=True, num_nodes=g.nodes, weight=g.edge_weight if weighted else None) for g in graphs]
        assert torch.allclose(found, torch.stack(expected), equal_nan=True)


@given(st.integers(0, 10**6), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_names_of_nodes_do_not_matter(seed, directed, random):
    s = sample(seed, directed, "positive")
    names = list(range(s.nodes))
    random.shuffle(names)
    moved = torch.tensor(names)[s.edge_index]
    for weight in (None, s.edge_weight):
        found, again = (average_shortest_path_length(e, weight=weight, **s.plain) for e in (s.edge_index, moved))
        assert torch.allclose(found, again, equal_nan=True)


RING = topologies.grid(9, 1).edge_index
BAD = {
    "one way": (average_shortest_path_length, (torch.tensor([[0], [1]]),), {}, r"both directions"),
    "sources": (average_shortest_path_length, (RING,), {"sources": 10}, r"sources must be an integer in \[1, 9\], got 10"),
    "seed": (diameter, (RING,), {"sources": 2, "seed": -1}, r"seed must be"),
    "negative": (global_efficiency, (RING,), {"weight": -torch.ones(18)}, r"weight must be lengths >= 0, got -1"),
    "rows": (diameter, (RING,), {"weight": torch.ones(2, 18)}, r"weight must have shape \[18\]"),
    "zero": (global_efficiency, (RING,), {"weight": torch.zeros(18)}, r"weight must be > 0 .* distance 0"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(case):
    function, arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


def as_edges(graph):
    return edge_list(graph, np.random.default_rng(0), False)[0]


def test_small_world_is_networkx_on_the_same_references(monkeypatch):
    """The references that NetworkX makes, given to both."""
    from networkx.algorithms import smallworld

    random = [nx.random_reference(KARATE, niter=2, seed=seed) for seed in range(3)]
    regular = [nx.lattice_reference(KARATE, niter=1, seed=seed) for seed in range(2)]
    again = {"random": iter(random * 2), "lattice": iter(regular + regular[:1])}
    monkeypatch.setattr(smallworld, "random_reference", lambda *_, **__: next(again["random"]))
    monkeypatch.setattr(smallworld, "lattice_reference", lambda *_, **__: next(again["lattice"]))
    sigma, omega = nx.sigma(KARATE, nrand=3), nx.omega(KARATE, nrand=3)
    given_ = [Data(edge_index=as_edges(graph), num_nodes=34) for graph in random]
    found = small_world(as_edges(KARATE), references=given_, lattices=[as_edges(graph) for graph in regular], dtype=F64)
    assert abs(float(found.sigma) - sigma) <= 1e-10
    assert abs(float(found.omega) - omega) <= 1e-10
    assert abs(float(found.clustering) - nx.average_clustering(KARATE)) <= 1e-10
    assert abs(float(found.path_length) - nx.average_shortest_path_length(KARATE)) <= 1e-10


def test_references_are_made_with_the_seed(monkeypatch):
    """As many rewired graphs as asked for, from one generator, and the ring lattice beside them."""
    made = []

    class Rewire:
        def __init__(self, *, seed):
            self.generator = seed

        def __call__(self, data):
            made.append(int(torch.randint(1000, (1,), generator=self.generator)))
            return ring_lattice(data.num_nodes, data.num_edges // 2)

    monkeypatch.setitem(__import__("sys").modules, "topologies.nulls", SimpleNamespace(DegreePreservingRewire=Rewire))
    found = small_world(as_edges(KARATE), references=4, seed=5)
    assert found.omega < 1
    assert len(set(made)) > 1
    assert len(made) == 4
    assert small_world(as_edges(KARATE), references=4, seed=5) == found
    assert made[4:] == made[:4]
    lattice = ring_lattice(40, 120)
    own = small_world(lattice.edge_index, references=1)
    assert float(own.sigma) == pytest.approx(1)
    assert float(own.omega) == pytest.approx(0, abs=1e-6)


@given(st.integers(1, 30), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_ring_lattice_has_the_edges_asked_for(nodes, part):
    pairs = round(part * nodes * (nodes - 1) // 2)
    edges = ring_lattice(nodes, pairs).edge_index
    assert edges.shape[1] == 2 * pairs == torch.unique(edges, dim=1).shape[1]
    assert (edges[0] != edges[1]).all()
    degrees = torch.bincount(edges[0], minlength=nodes)
    assert degrees.max() - degrees.min() <= 2
    if pairs % nodes == 0:
        assert degrees.max() == degrees.min()


@pytest.mark.cuda
def test_small_world_of_a_graph_on_a_gpu():
    """With references made here, and given ones from either side."""
    edges = as_edges(KARATE)
    for options in ({"references": 2}, {"references": [edges, edges.cuda()], "lattices": [edges]}):
        found, expected = small_world(edges.cuda(), **options), small_world(edges, **options)
        assert all(value.is_cuda for value in found)
        assert torch.stack(found).tolist() == torch.stack(expected).tolist()


def test_small_world_without_triangles():
    """σ is 0 where only the references have triangles, infinite where only the graph has, NaN where none has."""
    ring, clustered = RING, ring_lattice(9, 18).edge_index
    sigma = [float(small_world(own, references=[other]).sigma) for own, other in ((ring, clustered), (clustered, ring), (ring, ring))]
    assert sigma[:2] == [0, float("inf")]
    assert sigma[2] != sigma[2]
    assert float(small_world(ring, references=[ring], lattices=[clustered]).omega) == 1
    assert small_world(ring, references=[ring], lattices=[ring]).omega.isnan()


def test_small_world_refuses():
    with pytest.raises(ValueError, match="both directions"):
        small_world(torch.tensor([[0], [1]]), references=[RING])
    with pytest.raises(ValueError, match="references must hold at least one graph"):
        small_world(RING, references=[])
    with pytest.raises(ValueError, match="references must be an integer >= 1"):
        small_world(RING, references=0)
    with pytest.raises(ValueError, match=r"num_pairs must be an integer in \[0, 3\]"):
        ring_lattice(3, 4)
