"""Clustering, transitivity, triangles: NetworkX's numbers, their gradients, batches, and what shuffled weights would give."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nx_graphs import F64, IDS, KINDS, per_node, sample, samples, symmetric
from torch_geometric.data import Batch, Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.graph_metrics import (
    Triangles,
    _triangles,
    average_clustering,
    clustering,
    excess_clustering,
    shuffled_clustering,
    transitivity,
    triangles,
)

HOUSE = [(0, 1), (1, 2), (2, 3), (3, 0), (2, 4), (3, 4), (0, 2)]  # pairs; three triangles


@pytest.mark.parametrize(("directed", "weights", "loops"), KINDS, ids=IDS)
def test_clustering_is_networkx(directed, weights, loops):
    """200 graphs of each kind: self-loops count for the largest weight only, signs pass through the cube root."""
    for s in samples(directed, weights, loops, most=12):
        found = clustering(s.edge_index, s.edge_weight, **s.plain)
        expected = per_node(nx.clustering(s.graph, weight=s.weight), s.nodes)
        assert found.dtype == F64
        assert (found - expected).abs().max() <= 1e-10
        mean = average_clustering(s.edge_index, s.edge_weight, **s.plain)
        assert abs(float(mean - expected.mean())) <= 1e-10


@pytest.mark.parametrize("loops", [False, True])
def test_transitivity_and_triangles_are_networkx(loops):
    for s in samples(False, "none", loops):
        assert abs(float(transitivity(s.edge_index, num_nodes=s.nodes, dtype=F64)) - nx.transitivity(s.graph)) <= 1e-10
        assert triangles(s.edge_index, num_nodes=s.nodes).tolist() == list(nx.triangles(s.graph).values())


def test_average_over_nodes_with_clustering_only():
    for s in samples(False, "signed", False, count=40):
        values = [value for value in nx.clustering(s.graph, weight="weight").values() if value != 0]
        found = float(average_clustering(s.edge_index, s.edge_weight, num_nodes=s.nodes, count_zeros=False))
        assert abs(found - (sum(values) / len(values) if values else 0)) <= 1e-10


@pytest.mark.parametrize(("pairs", "count"), [([(0, 1), (1, 2), (2, 0)], [1, 1, 1]), (HOUSE, [2, 1, 3, 2, 1])])
def test_triangles_of_graphs_known_by_hand(pairs, count):
    assert triangles(symmetric(pairs)).tolist() == count
    assert Triangles(symmetric(pairs)).count == sum(count) // 3


def test_complete_graph_and_moore_lattice():
    """K_n: every coefficient is 1. The Moore neighbourhood in the plane: 12 of 28 pairs of neighbours are linked."""
    pairs = list(itertools.combinations(range(7), 2))
    assert torch.equal(clustering(symmetric(pairs)), torch.ones(7))
    assert torch.allclose(clustering(topologies.grid(6, 2).edge_index), torch.full((36,), 12 / 28))


def test_blocks_of_wedges_make_the_same_triangles(monkeypatch):
    """A graph of many blocks: bounds between blocks, and hubs with more wedges than a block holds."""
    s = sample(5, most=60)
    whole = triangles(s.edge_index, num_nodes=s.nodes)
    weight = torch.rand(s.edge_index.shape[1], dtype=F64, requires_grad=True)
    values = clustering(s.edge_index, weight, num_nodes=s.nodes, directed=True)
    (slope,) = torch.autograd.grad(values.square().sum(), weight)
    monkeypatch.setattr(_triangles, "_CHUNK", 5)
    assert torch.equal(triangles(s.edge_index, num_nodes=s.nodes), whole)
    again = clustering(s.edge_index, weight, num_nodes=s.nodes, directed=True)
    assert torch.allclose(again, values, rtol=1e-14)
    assert torch.allclose(torch.autograd.grad(again.square().sum(), weight)[0], slope, rtol=1e-12)


@pytest.mark.parametrize("directed", [False, True])
def test_gradient(directed):
    """Against differences; the largest weight sits on a self-loop and stays. Weights of both signs, two at a time."""
    edge_index = torch.cat([symmetric(HOUSE), torch.tensor([[1], [1]])], 1)
    count = 2 * len(HOUSE) if directed else len(HOUSE)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=F64).repeat(5)[:count]
    weight = (torch.linspace(0.3, 0.9, 2 * count, dtype=F64).view(2, count) * sign).requires_grad_()
    top = torch.full((2, 1), 1.7, dtype=F64)

    def function(w):
        both = w if directed else torch.cat([w, w], 1)
        return clustering(edge_index, torch.cat([both, top], 1), directed=directed)

    def shuffled(w):
        both = w if directed else torch.cat([w, w], 1)
        return shuffled_clustering(edge_index, torch.cat([both, top], 1), directed=directed)

    assert torch.autograd.gradcheck(function, weight)
    assert torch.autograd.gradcheck(shuffled, weight)


NUMBERS = [clustering, average_clustering, shuffled_clustering, excess_clustering]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_gradient_where_the_largest_weight_is_one_of_the_edges(number, directed, batched):
    """Against differences: the scale has a gradient. It makes the value invariant, so that w·∇ is 0; two weightings, each its own."""
    edge_index = torch.cat([symmetric(HOUSE), torch.tensor([[1], [1]])], 1)
    options = {"directed": directed}
    copies = 2 if batched else 1
    if batched:  # and a third graph, without edges
        edge_index = torch.cat([edge_index, edge_index + 5], 1)
        options |= {"num_nodes": 11, "batch": torch.tensor([0] * 5 + [1] * 5 + [2])}
    free = 2 * len(HOUSE) + 1 if directed else len(HOUSE) + 1
    draw = torch.rand(2, copies * free, generator=torch.Generator().manual_seed(1), dtype=F64)
    weight = (0.2 + draw) * torch.tensor([1.0, 1.0, -1.0], dtype=F64).repeat(copies * free)[: copies * free]
    weight[:, free - 1 :: free] = 0.1  # the self-loops
    weight.requires_grad_()

    def function(w):
        parts = [part if directed else torch.cat([part[:, :-1], part], 1) for part in w.split(free, 1)]
        return number(edge_index, torch.cat(parts, 1), **options)

    assert torch.autograd.gradcheck(function, weight)
    for value in function(weight).reshape(2, -1).sum(0):
        (slope,) = torch.autograd.grad(value, weight, retain_graph=True)
        assert (weight * slope).sum(1).abs().max() <= 1e-12


def test_edges_that_share_the_largest_weight_share_its_gradient():
    """Equal weights on a complete graph: every edge the same, and by invariance then none."""
    pairs = list(itertools.combinations(range(5), 2))
    weight = torch.full((2 * len(pairs),), 0.3, dtype=F64, requires_grad=True)
    clustering(symmetric(pairs), weight).sum().backward()
    assert weight.grad.abs().max() <= 1e-12


def test_gradient_of_each_direction_is_half_that_of_the_pair():
    weight = torch.rand(2 * len(HOUSE), dtype=F64)
    weight[len(HOUSE) :] = weight[: len(HOUSE)]
    weight.requires_grad_()
    clustering(symmetric(HOUSE), weight).sum().backward()
    there, back = weight.grad.split(len(HOUSE))
    assert torch.equal(there, back)
    assert (there != 0).any()


def test_gradient_at_weight_zero_is_finite_and_the_value_exact():
    weight = torch.ones(2 * len(HOUSE), dtype=F64)
    weight[[0, len(HOUSE)]] = 0
    weight.requires_grad_()
    found = clustering(symmetric(HOUSE), weight)
    graph = nx.Graph()
    graph.add_weighted_edges_from((u, v, float(i > 0)) for i, (u, v) in enumerate(HOUSE))
    assert (found.detach() - per_node(nx.clustering(graph, weight="weight"), 5)).abs().max() <= 1e-12
    found.sum().backward()
    assert weight.grad.isfinite().all()
    assert weight.grad[0] > weight.grad[1:7].max()


@pytest.mark.parametrize("directed", [False, True])
def test_triangles_found_once_serve_all_weights_and_a_connectivity_too(directed):
    s = sample(3, directed, "positive", True, most=30)
    found = Triangles(s.edge_index, s.nodes)
    expected = clustering(s.edge_index, s.edge_weight, **s.options)
    assert torch.equal(clustering(found, s.edge_weight, directed=directed), expected)
    graph = Connectivity(Data(edge_index=s.edge_index, edge_weight=s.edge_weight, num_nodes=s.nodes))
    assert torch.allclose(clustering(graph, graph.edge_weight, directed=directed), expected, rtol=1e-13)
    with pytest.raises(ValueError, match="num_nodes must be that of the triangles"):
        clustering(found, s.edge_weight, directed=directed, num_nodes=s.nodes + 1)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("directed", [False, True])
def test_many_weightings_at_once(number, directed):
    """A row each, its scale included."""
    s = sample(8, directed, "positive", True, most=30)
    factors = torch.tensor([[1.0], [2.0], [0.1]], dtype=F64)
    rows = s.edge_weight**factors
    found = number(s.edge_index, rows, **s.options)
    for row, value in zip(rows, found):
        assert torch.allclose(number(s.edge_index, row, **s.options), value, rtol=1e-13)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("directed", [False, True])
def test_batch_of_graphs(number, directed):
    """Every graph has its own largest weight and its own null; two weightings at once; one graph has no edge."""
    graphs = [sample(seed, directed, "signed", True, most=12) for seed in (1, 4, 6)]
    graphs.append(sample(2, directed, "signed", most=2))
    batch = Batch.from_data_list([Data(edge_index=g.edge_index, edge_weight=g.edge_weight, num_nodes=g.nodes) for g in graphs])
    rows = torch.stack([batch.edge_weight, 2 * batch.edge_weight])
    found = number(batch.edge_index, rows, directed=directed, num_nodes=batch.num_nodes, batch=batch.batch)
    each = [number(g.edge_index, g.edge_weight, **g.options) for g in graphs]
    expected = torch.stack(each) if number is average_clustering else torch.cat(each)
    assert torch.allclose(found, expected.expand(2, -1), rtol=1e-12, atol=1e-14)


def test_transitivity_of_a_batch():
    graphs = [sample(seed) for seed in range(5)]
    batch = Batch.from_data_list([Data(edge_index=g.edge_index, num_nodes=g.nodes) for g in graphs])
    found = transitivity(batch.edge_index, num_nodes=batch.num_nodes, batch=batch.batch, dtype=F64)
    assert torch.allclose(found, torch.tensor([nx.transitivity(g.graph) for g in graphs], dtype=F64), atol=1e-12)


@given(st.integers(0, 10**6), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_names_of_nodes_do_not_matter(seed, directed, random):
    s = sample(seed, directed, "signed", True)
    names = list(range(s.nodes))
    random.shuffle(names)
    names = torch.tensor(names)
    found = clustering(names[s.edge_index], s.edge_weight, **s.options)
    assert torch.allclose(found[names], clustering(s.edge_index, s.edge_weight, **s.options), atol=1e-13)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_mean_over_all_permutations_of_the_weights(directed, signed):
    """All 120 (undirected) or 720 (directed) of them; the self-loop keeps its weight and sets the scale."""
    pairs = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 0)]
    edge_index = torch.tensor([*pairs, (0, 2)]).t() if directed else symmetric(pairs)
    edge_index = torch.cat([edge_index, torch.tensor([[3], [3]])], 1)
    values = torch.linspace(0.2, 1.1, 6 if directed else 5, dtype=F64)
    if signed:
        values[1] = -values[1]
    rows = torch.stack([values[list(order)] for order in itertools.permutations(range(len(values)))])
    if not directed:
        rows = torch.cat([rows, rows], 1)
    rows = torch.cat([rows, rows.new_full((rows.shape[0], 1), 2.0)], 1)
    expected = clustering(edge_index, rows, directed=directed).mean(0)
    found = shuffled_clustering(edge_index, rows[0], directed=directed)
    assert (found - expected).abs().max() <= 1e-12
    assert (expected != 0).any()


def test_equal_weights_have_no_excess():
    edge_index = topologies.grid(5, 2).edge_index
    weight = torch.full((edge_index.shape[1],), 0.3, dtype=F64)
    assert torch.allclose(clustering(edge_index, weight), shuffled_clustering(edge_index, weight), rtol=1e-12)
    assert excess_clustering(edge_index, weight).abs().max() <= 1e-12


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("loops", [False, True])
def test_excess_is_the_difference(directed, loops):
    """And its gradient that of the difference; the triangles serve repeatedly."""
    for s in samples(directed, "signed", loops, count=40):
        found = Triangles(s.edge_index, s.nodes)
        for rows in (s.edge_weight, torch.stack([s.edge_weight, s.edge_weight.abs()])):
            rows = rows.clone().requires_grad_()
            if rows.shape[-1] == 0:
                continue
            excess = excess_clustering(found, rows, directed=directed)
            expected = clustering(s.edge_index, rows, **s.options) - shuffled_clustering(s.edge_index, rows, **s.options)
            assert (excess - expected).abs().max() <= 1e-14
            slopes = [torch.autograd.grad(value.square().sum(), rows)[0] for value in (excess, expected)]
            assert torch.allclose(*slopes, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("directed", [False, True])
def test_triangles_of_an_evaluation_serve_a_training(directed):
    """What is kept is no inference tensor, and nobody's result is what is kept."""
    s = sample(8, False, "positive", True, most=30)
    with torch.inference_mode():
        found = Triangles(s.edge_index.clone(), s.nodes)
        expected = excess_clustering(found, s.edge_weight, directed=directed)
        clustering(found, directed=directed, dtype=F64).zero_()
    weight = s.edge_weight.clone().requires_grad_()
    value = excess_clustering(found, weight, directed=directed)
    value.square().sum().backward()
    assert torch.equal(value.detach(), expected)
    assert (weight.grad != 0).any()


def test_dtypes():
    """Results follow the weights; half precision is measured in float32; without weights the default."""
    edge_index = symmetric(HOUSE)
    ones = torch.ones(edge_index.shape[1])
    assert clustering(edge_index).dtype == torch.float32
    assert clustering(edge_index, dtype=F64).dtype == F64
    for given_, expected in ((torch.float16, torch.float32), (torch.float64, F64), (torch.int64, torch.float32)):
        assert clustering(edge_index, ones.to(given_)).dtype == expected


def test_graphs_with_nothing_in_them():
    """No edge, self-loops only, one node: zeros, and no error."""
    none = torch.empty(2, 0, dtype=torch.long)
    loops = torch.tensor([[0, 2], [0, 2]])
    assert clustering(none, num_nodes=3).tolist() == [0, 0, 0]
    assert clustering(none, torch.empty(0), num_nodes=3).tolist() == [0, 0, 0]
    assert clustering(none, torch.empty(2, 0), num_nodes=3).shape == (2, 3)
    assert clustering(loops, torch.ones(2)).tolist() == [0, 0, 0]
    assert shuffled_clustering(loops, torch.ones(2)).tolist() == [0, 0, 0]
    assert shuffled_clustering(symmetric([(0, 1)]), torch.ones(2)).tolist() == [0, 0]
    assert float(transitivity(none, num_nodes=1)) == 0


def test_what_is_elsewhere_is_named():
    """Weights, batch and triangles on another device than the graph, before anything is computed."""
    edges, weight = symmetric(HOUSE), torch.ones(2 * len(HOUSE))
    with pytest.raises(ValueError, match="edge_weight must be on the device of the graph, cpu, got meta"):
        clustering(edges, weight.to("meta"))
    with pytest.raises(ValueError, match="batch must be on the device of the graph, cpu, got meta"):
        clustering(edges, weight, batch=torch.zeros(5, dtype=torch.long, device="meta"))
    found = Triangles(edges)
    assert found.to("cpu") is found
    found.wedges(False)
    moved = found.to("meta")
    assert found.device.type == "cpu"
    assert moved.device.type == moved.index.device.type == moved.low.device.type == moved.wedges(False).device.type == "meta"
    with pytest.raises(ValueError, match="edge_weight must be on the device of the graph, meta, got cpu"):
        clustering(moved, weight, directed=True)


@pytest.mark.cuda
@pytest.mark.parametrize("directed", [False, True])
def test_triangles_move_to_a_gpu(directed):
    s = sample(8, directed, "positive", True, most=30)
    found = Triangles(s.edge_index, s.nodes)
    expected = excess_clustering(found, s.edge_weight, directed=directed)
    moved = found.to("cuda")
    assert moved.to("cuda") is moved
    for graph in (moved, Triangles(s.edge_index.cuda(), s.nodes)):
        assert torch.allclose(excess_clustering(graph, s.edge_weight.cuda(), directed=directed).cpu(), expected, atol=1e-12)


LOOP = [(0, 0)]
BAD = {
    "one way": ((torch.tensor([[0, 1, 2], [1, 0, 0]]),), {}, r"both directions .* got 2 → 0 without 0 → 2"),
    "disagree": ((symmetric([(0, 1)]), torch.tensor([1.0, 2.0])), {}, r"got 1 for 0 → 1 and 2 for 1 → 0: opposite edges that disagree"),
    "parallel": ((torch.tensor([[0, 1, 0], [1, 0, 1]]),), {}, r"parallel edges, got 0 → 1 more than once"),
    "parallel loops": ((torch.tensor([[0, 1, 1], [0, 1, 1]]),), {}, r"parallel edges, got 1 → 1 more than once"),
    "maximum": ((symmetric(HOUSE), -torch.ones(14)), {}, r"edge_weight must have a positive maximum .* got -1"),
    "maximum 0": ((symmetric(HOUSE), torch.zeros(14)), {"directed": True}, r"positive maximum"),
    "NaN": ((symmetric(HOUSE), torch.full((14,), torch.nan)), {}, r"edge_weight must be finite"),
    "length": ((symmetric(HOUSE), torch.ones(13)), {}, r"edge_weight must be a tensor \[14\] or \[B, 14\].* got torch.float32 \(13,\)"),
    "complex": ((symmetric(HOUSE), torch.ones(14, dtype=torch.complex64)), {}, r"real numbers"),
    "floats": ((symmetric(HOUSE).float(),), {}, r"edge_index must hold integers"),
    "shape": ((torch.zeros(3, 4, dtype=torch.long),), {}, r"edge_index must be an integer tensor \[2, E\]"),
    "list": (([[0], [1]],), {}, r"edge_index must be an integer tensor"),
    "negative": ((torch.tensor([[0], [-1]]),), {}, r"node ids in \[0, .*got -1 to 0"),
    "range": ((symmetric(HOUSE),), {"num_nodes": 4}, r"node ids in \[0, 4\), got 0 to 4"),
    "zero nodes": ((symmetric(HOUSE),), {"num_nodes": 0}, r"num_nodes must be an integer in \[1"),
    "no edges": ((torch.empty(2, 0, dtype=torch.long),), {}, r"num_nodes must be given"),
    "flag": ((symmetric(HOUSE),), {"directed": 1}, r"directed must be True or False"),
    "batch": ((symmetric(HOUSE),), {"batch": torch.zeros(4, dtype=torch.long)}, r"batch must be an integer tensor \[5\]"),
    "batch cut": ((symmetric(HOUSE),), {"batch": torch.tensor([0, 0, 0, 0, 1])}, r"batch must not separate the ends of an edge, got 2 → 4"),
    "batch negative": ((symmetric(HOUSE),), {"batch": torch.full((5,), -1)}, r"batch must hold graph numbers >= 0"),
    "dtype": ((symmetric(HOUSE),), {"dtype": torch.int64}, r"dtype must be a floating-point"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(case):
    arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        clustering(*arguments, **options)


def test_bad_input_of_the_others():
    with pytest.raises(ValueError, match="both directions"):
        transitivity(torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match="both directions"):
        triangles(torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match="edge_weight must be a tensor"):
        shuffled_clustering(symmetric(HOUSE), None)
    with pytest.raises(ValueError, match="edge_weight must be a tensor"):
        excess_clustering(symmetric(HOUSE), None)
    with pytest.raises(ValueError, match="count_zeros must be True or False"):
        average_clustering(symmetric(HOUSE), count_zeros=0)


def test_opposite_edges_may_differ_by_rounding():
    weight = torch.tensor(np.linspace(0.1, 1, len(HOUSE)), dtype=torch.float32)
    other = torch.nextafter(weight, torch.tensor(2.0))
    assert torch.allclose(
        clustering(symmetric(HOUSE), torch.cat([weight, other])), clustering(symmetric(HOUSE), torch.cat([weight, weight]))
    )
