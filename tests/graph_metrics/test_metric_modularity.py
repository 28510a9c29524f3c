"""Modularity: NetworkX's numbers for hard communities, the same for soft ones, gradients, batches, refusals."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nx_graphs import F64, IDS, KINDS, sample, samples, symmetric
from torch_geometric.data import Batch, Data

from lmn_graph import Connectivity
from lmn_graph.graph_metrics import modularity

BARBELL = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)]


def divided(s, count=4):
    """Random labels, and the sets that NetworkX takes."""
    labels = torch.from_numpy(s.rng.integers(0, count, s.nodes))
    return labels, [{i for i in range(s.nodes) if labels[i] == c} for c in range(count)]


@pytest.mark.parametrize(("directed", "weights", "loops"), KINDS, ids=IDS)
def test_modularity_is_networkx(directed, weights, loops):
    """200 graphs of each kind, three resolutions, hard and one-hot communities; to 1e-10 of Q, which is large where m is near 0."""
    seen = 0
    for s in samples(directed, weights, loops, count=260, most=12):
        labels, sets = divided(s)
        if s.graph.number_of_edges() == 0:
            continue
        seen += 1
        for resolution in (0.5, 1, 2.3):
            expected = nx.community.modularity(s.graph, sets, weight=s.weight, resolution=resolution)
            found = modularity(s.edge_index, s.edge_weight, labels, resolution=resolution, **s.plain)
            assert abs(float(found) - expected) <= 1e-10 * max(1, abs(expected))
        found = modularity(s.edge_index, s.edge_weight, torch.nn.functional.one_hot(labels, 4).double(), resolution=2.3, **s.plain)
        assert abs(float(found) - expected) <= 1e-10 * max(1, abs(expected))
    assert seen >= 200


def test_two_cliques_and_one_community():
    """Two triangles and a bridge: 5/14. Everything in one community: 0. Any integers are labels."""
    for labels in ([0, 0, 0, 1, 1, 1], [-7, -7, -7, 10**12, 10**12, 10**12]):
        assert abs(float(modularity(symmetric(BARBELL), None, torch.tensor(labels), dtype=F64)) - 5 / 14) <= 1e-15
    assert float(modularity(symmetric(BARBELL), None, torch.zeros(6, dtype=torch.long))) == 0


def test_soft_memberships_interpolate():
    """Bilinear in S: half in each of two communities has (Q of one + Q of both ways apart) as the formula says, by hand."""
    s = sample(12, True, "positive", True, most=30)
    memberships = torch.rand(s.nodes, 3, dtype=F64)
    memberships /= memberships.sum(1, keepdim=True)
    dense = torch.zeros(s.nodes, s.nodes, dtype=F64)
    dense[s.edge_index[0], s.edge_index[1]] = s.edge_weight
    total = dense.sum()
    null = torch.outer(dense.sum(1), dense.sum(0)) / total
    expected = torch.trace(memberships.T @ (dense - 1.3 * null) @ memberships) / total
    found = modularity(s.edge_index, s.edge_weight, memberships, resolution=1.3, **s.options)
    assert abs(float(found - expected)) <= 1e-13
    graph = Connectivity(Data(edge_index=s.edge_index, edge_weight=s.edge_weight, num_nodes=s.nodes))
    bound = modularity(graph, graph.edge_weight, memberships, resolution=1.3, directed=True)
    assert abs(float(bound - expected)) <= 1e-13


@pytest.mark.parametrize("directed", [False, True])
def test_gradients_in_weights_and_memberships(directed):
    """First and second derivatives against differences; two weightings at once; a self-loop."""
    edge_index = torch.cat([symmetric(BARBELL), torch.tensor([[1], [1]])], 1)
    weight = torch.linspace(-0.2, 1, 2 * 8, dtype=F64).view(2, 8).requires_grad_()
    logits = torch.randn(6, 2, dtype=F64).requires_grad_()

    def both(w):
        return torch.cat([w[:, :7], w[:, :7] if not directed else w[:, :7].flip(1), w[:, 7:]], 1)

    def soft(w, x):
        return modularity(edge_index, both(w), x.softmax(1), directed=directed)

    def hard(w):
        return modularity(edge_index, both(w), torch.tensor([0, 0, 0, 1, 1, 1]), directed=directed)

    assert torch.autograd.gradcheck(soft, (weight, logits))
    assert torch.autograd.gradgradcheck(soft, (weight, logits))
    assert torch.autograd.gradcheck(hard, weight)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_batch_of_graphs_and_of_weightings(soft, directed):
    """One value per graph and weighting; the same label in two graphs is two communities."""
    graphs = [s for s in (sample(seed, directed, "positive", True) for seed in range(12)) if s.edge_index.shape[1]]
    communities = [divided(s)[0] for s in graphs]
    if soft:
        communities = [torch.nn.functional.one_hot(labels, 4) * 0.7 + 0.075 for labels in communities]
    batch = Batch.from_data_list([Data(edge_index=s.edge_index, edge_weight=s.edge_weight, num_nodes=s.nodes) for s in graphs])
    rows = torch.stack([batch.edge_weight, batch.edge_weight.square()])
    options = {"directed": directed, "num_nodes": batch.num_nodes}
    found = modularity(batch.edge_index, rows, torch.cat(communities), batch=batch.batch, **options)
    expected = [
        [modularity(s.edge_index, s.edge_weight**power, c, directed=directed, num_nodes=s.nodes) for s, c in zip(graphs, communities)]
        for power in (1, 2)
    ]
    assert found.shape == (2, len(graphs))
    assert torch.allclose(found, torch.tensor(expected, dtype=F64), atol=1e-7 if soft else 1e-13)


@given(st.integers(0, 10**6), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_names_of_nodes_and_communities_do_not_matter(seed, directed, random):
    s = sample(seed, directed, "positive", True)
    if s.edge_index.shape[1] == 0:
        return
    labels, _ = divided(s)
    names = list(range(s.nodes))
    random.shuffle(names)
    names = torch.tensor(names)
    renamed = torch.empty_like(labels)
    renamed[names] = 3 - labels
    found = modularity(names[s.edge_index], s.edge_weight, renamed, **s.options)
    assert torch.allclose(found, modularity(s.edge_index, s.edge_weight, labels, **s.options), atol=1e-13)


def test_parallel_edges_add_up():
    """Weights 1 + 2 against 3, the two directions in another order."""
    labels = torch.tensor([0, 0, 1])
    apart = torch.tensor([[0, 1, 1, 0, 1, 2], [1, 0, 0, 1, 2, 1]])
    once = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    found = modularity(apart, torch.tensor([1.0, 1.0, 2.0, 2.0, 1.0, 1.0]), labels)
    mixed = modularity(apart, torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 1.0]), labels)
    assert found == mixed == modularity(once, torch.tensor([3.0, 3.0, 1.0, 1.0]), labels)


def test_float32_is_summed_in_float64():
    s = sample(9, False, "positive", True, most=40)
    labels, _ = divided(s)
    found = modularity(s.edge_index, s.edge_weight.float(), labels, num_nodes=s.nodes)
    assert found.dtype == torch.float32
    assert abs(float(found) - float(modularity(s.edge_index, s.edge_weight.float().double(), labels, num_nodes=s.nodes))) <= 1e-7


HALVES = torch.tensor([0, 0, 0, 1, 1, 1])
EDGES = symmetric(BARBELL)
BAD = {
    "total": ((EDGES, -torch.ones(14), HALVES), {}, r"edge_weight must have a positive total .* got -14"),
    "total 0": ((EDGES, torch.zeros(14), HALVES), {}, r"edge_weight must have a positive total .* got 0"),
    "no edges": ((torch.empty(2, 0, dtype=torch.long), None, HALVES), {"num_nodes": 6}, r"positive total"),
    "one way": ((torch.tensor([[0], [5]]), None, HALVES), {}, r"got 0 → 5 without 5 → 0: add it, or pass directed=True"),
    "disagree": ((EDGES, torch.arange(1.0, 15), HALVES), {}, r"got 1 for 0 → 1 and 8 for 1 → 0: opposite edges that disagree"),
    "second row": ((EDGES, torch.stack([torch.ones(14), torch.arange(1.0, 15)]), HALVES), {}, r"opposite edges that disagree"),
    "labels": ((EDGES, None, HALVES[:5]), {}, r"communities must be integer labels \[6\] .* got torch.int64 \(5,\)"),
    "float labels": ((EDGES, None, HALVES.float()), {}, r"communities must be integer labels \[6\] or memberships \[6, C\]"),
    "integer memberships": ((EDGES, None, torch.eye(6, dtype=torch.long)), {}, r"communities must be"),
    "no community": ((EDGES, None, torch.ones(6, 0)), {}, r"communities must be"),
    "negative": ((EDGES, None, torch.tensor([[1.5, -0.5]] * 6)), {}, r"communities must be memberships >= 0, got -0.5"),
    "NaN": ((EDGES, None, torch.full((6, 2), torch.nan)), {}, r"communities must be memberships >= 0"),
    "sum": ((EDGES, None, torch.cat([torch.eye(5), torch.full((1, 5), 0.3)])), {}, r"rows that sum to 1, got 1.5 in row 5"),
    "resolution": ((EDGES, None, HALVES), {"resolution": -1}, r"resolution must be a finite number >= 0"),
    "directed": ((EDGES, None, HALVES), {"directed": "no"}, r"directed must be True or False"),
    "batch": ((EDGES, None, HALVES), {"batch": HALVES}, r"batch must not separate the ends of an edge, got 2 → 3"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(case):
    arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        modularity(*arguments, **options)


def test_what_is_elsewhere_is_named():
    with pytest.raises(ValueError, match="communities must be on the device of the graph, cpu, got meta"):
        modularity(EDGES, None, HALVES.to("meta"))
    with pytest.raises(ValueError, match="edge_weight must be on the device of the graph, cpu, got meta"):
        modularity(EDGES, torch.ones(14, device="meta"), HALVES)


@pytest.mark.parametrize("size", [3, 40])
def test_every_single_asymmetry_is_found(size):
    """The quick test of symmetry is a random one: no lost or changed edge of a graph passes it."""
    pairs = [(i, j) for i in range(size) for j in range(i) if (i * j) % 3 != 1]
    edges, labels = symmetric(pairs), torch.zeros(size, dtype=torch.long)
    for lost in range(0, edges.shape[1], max(1, edges.shape[1] // 50)):
        kept = torch.arange(edges.shape[1]) != lost
        with pytest.raises(ValueError, match="both directions"):
            modularity(edges[:, kept], None, labels, num_nodes=size)
        weight = torch.ones(edges.shape[1], dtype=F64)
        weight[lost] += 1e-6
        with pytest.raises(ValueError, match="disagree"):
            modularity(edges, weight, labels, num_nodes=size)
