"""Degrees and the numbers made of them: NetworkX's."""

from __future__ import annotations

import math
import warnings

import networkx as nx
import pytest
import torch
from nx_graphs import F64, IDS, KINDS, per_node, sample, samples, symmetric
from torch_geometric.data import Batch, Data

import topologies
from lmn_graph import Connectivity, graph_metrics
from lmn_graph.graph_metrics import connected_components, degree, degree_assortativity, density, reciprocity, rich_club, strength


@pytest.mark.parametrize(("directed", "weights", "loops"), KINDS, ids=IDS)
def test_degrees_and_density_are_networkx(directed, weights, loops):
    for s in samples(directed, weights, loops):
        ways = {"total": s.graph.degree, **({"in": s.graph.in_degree, "out": s.graph.out_degree} if directed else {})}
        for direction, way in ways.items():
            assert degree(s.edge_index, direction=direction, **s.options).tolist() == [d for _, d in way()]
            found = strength(s.edge_index, s.edge_weight, direction=direction, **s.plain)
            assert (found - per_node(dict(way(weight=s.weight)), s.nodes)).abs().max() <= 1e-12
        assert abs(float(density(s.edge_index, **s.plain)) - nx.density(s.graph)) <= 1e-12


@pytest.mark.parametrize(("directed", "weights", "loops"), KINDS, ids=IDS)
def test_assortativity_is_networkx(directed, weights, loops):
    """Where the degrees at either end do not vary, NetworkX divides zero, or what rounding leaves, by zero: NaN here."""
    varied = 0
    for s in samples(directed, weights, loops):
        found = float(degree_assortativity(s.edge_index, s.edge_weight, **s.plain))
        out, into = (s.graph.out_degree, s.graph.in_degree) if directed else (s.graph.degree, s.graph.degree)
        ends = [(out(u, weight=s.weight), into(v, weight=s.weight)) for u, v in s.edge_index.t().tolist()]
        spread = [max(x) - min(x) if x else 0 for x in (list(zip(*ends)) or [[], []])]
        if min(spread) < 1e-9:
            assert math.isnan(found)
            continue
        varied += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = nx.degree_assortativity_coefficient(s.graph, weight=s.weight)
        assert abs(found - expected) <= 1e-10
    assert varied >= 130


def test_reciprocity_is_networkx():
    for loops in (False, True):
        for s in samples(True, "none", loops):
            if s.graph.number_of_edges():
                assert abs(float(reciprocity(s.edge_index, num_nodes=s.nodes, dtype=F64)) - nx.reciprocity(s.graph)) <= 1e-12


def test_rich_club_is_networkx():
    for s in samples(False, "none", False):
        expected = nx.rich_club_coefficient(s.graph, normalized=False)
        found = rich_club(s.edge_index, num_nodes=s.nodes, dtype=F64)
        assert list(expected) == list(range(len(found)))
        assert torch.allclose(found, torch.tensor(list(expected.values()), dtype=F64), rtol=0, atol=1e-12)


def test_rich_club_over_references():
    """Divided by the mean over graphs of the same degrees; the graph itself gives 1."""
    graph = symmetric([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 5)])
    other = symmetric([(0, 3), (3, 2), (2, 1), (1, 4), (4, 2), (0, 5)])
    assert torch.equal(rich_club(graph, references=[graph]), torch.ones(2))
    expected = rich_club(graph) / ((rich_club(graph) + rich_club(other)) / 2)
    assert torch.allclose(rich_club(graph, references=[Data(edge_index=graph, num_nodes=6), other]), expected)


@pytest.mark.parametrize("loops", [False, True])
def test_components_are_networkx(loops):
    for s in samples(True, "none", loops, count=100):
        for connection, parts in (("weak", nx.weakly_connected_components), ("strong", nx.strongly_connected_components)):
            labels = connected_components(s.edge_index, connection=connection, num_nodes=s.nodes)
            found = {frozenset((labels == label).nonzero()[:, 0].tolist()) for label in labels.unique()}
            assert found == {frozenset(part) for part in parts(s.graph)}
            assert labels.max() == len(found) - 1


def test_density_of_a_batch():
    graphs = [sample(seed, loops=True) for seed in range(5)]
    batch = Batch.from_data_list([Data(edge_index=g.edge_index, num_nodes=g.nodes) for g in graphs])
    found = density(batch.edge_index, num_nodes=batch.num_nodes, batch=batch.batch, dtype=F64)
    assert torch.allclose(found, torch.tensor([nx.density(g.graph) for g in graphs], dtype=F64))


def test_gradients_and_rows():
    s = sample(4, True, "positive", True, most=14)
    rows = torch.stack([s.edge_weight, s.edge_weight.square()]).requires_grad_()
    for number in (strength, degree_assortativity):
        assert torch.autograd.gradcheck(lambda w, number=number: number(s.edge_index, w, **s.options), rows)
        found = number(s.edge_index, rows, **s.options)
        assert torch.allclose(found[1], number(s.edge_index, rows[1], **s.options))


def test_regular_graphs_have_no_assortativity():
    assert degree_assortativity(topologies.grid(5, 2).edge_index).isnan()
    assert degree_assortativity(torch.empty(2, 0, dtype=torch.long), num_nodes=2).isnan()
    assert degree_assortativity(torch.empty(2, 0, dtype=torch.long), torch.empty(3, 0), num_nodes=2).shape == (3,)


ONE_WAY = torch.tensor([[0, 1, 2], [1, 0, 1]])
NONE = torch.empty(2, 0, dtype=torch.long)
BAD = {
    "degree": (degree, (ONE_WAY,), {}, r"got 2 → 1 without 1 → 2"),
    "direction": (degree, (ONE_WAY,), {"direction": "up"}, r"direction must be one of 'total', 'in', 'out', got 'up'"),
    "strength": (strength, (symmetric([(0, 1)]), torch.tensor([1.0, 3.0])), {}, r"got 1 for 0 → 1 and 3 for 1 → 0"),
    "density": (density, (ONE_WAY,), {}, r"both directions"),
    "assortativity": (degree_assortativity, (ONE_WAY,), {}, r"both directions"),
    "reciprocity": (reciprocity, (NONE,), {"num_nodes": 3}, r"at least one edge"),
    "components": (connected_components, (ONE_WAY,), {"connection": "any"}, r"connection must be one of 'weak', 'strong'"),
    "rich loops": (rich_club, (torch.tensor([[0, 1, 1], [1, 0, 1]]),), {}, r"must not hold self-loops, got one at node 1"),
    "rich one way": (rich_club, (ONE_WAY,), {}, r"both directions"),
    "rich references": (rich_club, (symmetric([(0, 1)]),), {"references": []}, r"references must hold at least one graph"),
    "rich degrees": (rich_club, (symmetric([(0, 1)]),), {"references": [NONE]}, r"references must have the degrees of the graph"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(case):
    function, arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


LABELS = torch.arange(9) % 3
OF_A_GRAPH = {
    **dict.fromkeys(("average_clustering", "average_shortest_path_length", "clustering", "connected_components", "degree"), ()),
    **dict.fromkeys(("degree_assortativity", "density", "diameter", "global_efficiency", "louvain", "reciprocity", "rich_club"), ()),
    **dict.fromkeys(("strength", "transitivity", "triangles", "small_world"), ()),
    "modularity": (None, LABELS),
    "shuffled_clustering": (torch.ones(30),),
    "excess_clustering": (torch.ones(30),),
}


@pytest.mark.parametrize("name", list(OF_A_GRAPH))
def test_a_data_is_taken_for_its_edges_and_nodes(name):
    """Node 8 has no edge: only the Data knows of it. The same numbers as of the edges, and of a Connectivity."""
    pairs = [(i, (i + d) % 8) for i in range(8) for d in (1, 2)][:15]
    edges = symmetric(pairs)
    data = Data(edge_index=edges, num_nodes=9)
    function, rest = getattr(graph_metrics, name), OF_A_GRAPH[name]
    expected = function(edges, *rest, num_nodes=9)
    for graph in (data, Connectivity(data)):
        for found in (function(graph, *rest), function(graph, *rest, num_nodes=9)):
            for value, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected))):
                assert torch.allclose(value, other, equal_nan=True)
        with pytest.raises(ValueError, match=r"num_nodes must be that of the (Data|connectivity), 9, or None, got 8"):
            function(graph, *rest, num_nodes=8)
    only = Data(adj_t=torch.sparse_coo_tensor(edges, torch.ones(30), (9, 9), check_invariants=True), num_nodes=9)
    with pytest.raises(ValueError, match=r"got a Data with adj_t only: pass its Connectivity"):
        function(only, *rest)


def test_weights_beside_a_data_are_in_its_order():
    """Not in the sorted order of a Connectivity, and those that it has itself are left alone."""
    edges, weight = torch.tensor([[1, 0, 2], [0, 2, 1]]), torch.tensor([1.0, 2.0, 4.0])
    data = Data(edge_index=edges, edge_weight=10 * weight, num_nodes=3)
    assert strength(data, weight, directed=True, direction="out").tolist() == [2, 1, 4]
    assert strength(data, directed=True, direction="out").tolist() == [1, 1, 1]
    assert degree(Data(edge_index=edges), directed=True, num_nodes=5).tolist() == [2, 2, 2, 0, 0]


@pytest.mark.parametrize("what", [[torch.zeros(1000)] * 2, {"edges": "x" * 1000}, "x" * 1000, None, 3, Data()])
def test_errors_are_short(what):
    """They say what came, and do not print it."""
    with pytest.raises(ValueError, match="edge_index must be an integer tensor") as error:
        degree(what)
    assert len(str(error.value)) < 100
