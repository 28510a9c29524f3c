"""A rule as a layer for plain PyG models: any graph where nothing belongs to a node, gradients to everything that came in."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch_geometric.nn import GCNConv, Sequential

from lmn_graph import rollout
from lmn_graph.rules import SpikingSOC, as_conv
from lmn_graph.surrogates import Gaussian

SHARED = {"decay": 0.9, "utilisation": 0.1, "recovery": 30.0, "weight": 1.0, "learn_weight": False, "surrogate": Gaussian(1.0)}


def test_every_column_of_a_scalar_rule_is_an_independent_run(lattice):
    rule = SpikingSOC(lattice)
    x = torch.rand(16, 3)
    activity = rollout(rule, x.t(), steps=5).activity
    torch.testing.assert_close(as_conv(rule, 5)(x, lattice.edge_index), activity.mean(1).t())
    torch.testing.assert_close(as_conv(rule, 5, "last")(x, lattice.edge_index), activity[:, -1].t())


def test_a_bound_rule_takes_its_graph_in_the_given_and_in_its_own_order_only(random_graph, lattice):
    rule = SpikingSOC(random_graph)
    layer, x = as_conv(rule, 3), torch.rand(13, 2)
    assert torch.equal(layer(x, random_graph.edge_index), layer(x, rule.connectivity.edge_index))
    for other in (lattice.edge_index, random_graph.edge_index.flip(0)):
        with pytest.raises(ValueError, match="graph must be the one that this SpikingSOC is bound to"):
            layer(torch.rand(int(other.max()) + 1, 2), other)


def test_a_shared_rule_takes_any_graph_and_its_weights(lattice, random_graph, normal):
    """Weights follow unsorted edges, change from call to call in place or not, and get their gradient."""
    layer = as_conv(SpikingSOC(lattice, **SHARED).double(), 4)
    x, weight = normal(13, 2).abs(), normal(50).requires_grad_()
    edge_index = random_graph.edge_index
    order = (edge_index[1] * 13 + edge_index[0]).argsort()
    own = SpikingSOC(random_graph, **(SHARED | {"weight": weight.detach(), "learn_weight": True})).double()
    for _ in range(2):
        found, expected = layer(x, edge_index, weight), as_conv(own, 4)(x, edge_index)
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found.square().sum(), weight)
        (wanted,) = torch.autograd.grad(expected.square().sum(), own.weight)
        torch.testing.assert_close(gradient[order], wanted)
        assert bool(gradient.any())
        with torch.no_grad():  # as an optimiser does: the same tensor, other numbers
            weight += 0.1
            own.weight += 0.1
    assert not torch.equal(layer(x, edge_index), found)


def test_the_same_edges_with_more_nodes_are_another_graph(lattice):
    layer = as_conv(SpikingSOC(lattice, **SHARED), 3)
    edge_index = torch.tensor([[0, 1], [1, 2]])
    assert layer(torch.ones(3, 2), edge_index).shape == (3, 2)
    assert layer(torch.ones(5, 2), edge_index).shape == (5, 2)


def test_it_sits_in_a_pyg_model_and_trains(random_graph):
    rule = SpikingSOC(random_graph, threshold=0.3, surrogate=Gaussian(1.0))
    layers = [(GCNConv(4, 6), "x, edge_index -> x"), (as_conv(rule, 4), "x, edge_index -> x"), torch.nn.Linear(6, 2)]
    model = Sequential("x, edge_index", layers)
    model(torch.rand(13, 4), random_graph.edge_index).square().sum().backward()
    assert bool(rule.weight.grad.isfinite().all())
    assert bool(rule.weight.grad.any())
    copy.deepcopy(model)


def test_a_graph_edited_in_place_is_another_graph(lattice, random_graph):
    layer = as_conv(SpikingSOC(lattice, **SHARED), 4)
    x, edge_index = torch.rand(13, 2), random_graph.edge_index.clone()
    before = layer(x, edge_index)
    edge_index.copy_(edge_index.flip(0))
    after = layer(x, edge_index)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, as_conv(SpikingSOC(lattice, **SHARED), 4)(x, edge_index.clone()))


def test_weights_of_the_bound_graph_do_not_leak_into_calls_without_weights(lattice):
    """Without ``edge_weight`` every edge counts 1, whether or not these happen to be the edges that the rule was made with."""
    weighted = lattice.clone()
    weighted.edge_weight = torch.full((128,), 0.01)
    layer, x, edge_index = as_conv(SpikingSOC(weighted, **SHARED), 5), torch.rand(16, 2), lattice.edge_index
    torch.testing.assert_close(layer(x, edge_index), layer(x, edge_index[:, torch.randperm(128)]))


def test_evaluated_in_inference_mode_first_it_still_trains(random_graph):
    layer = as_conv(SpikingSOC(random_graph, surrogate=Gaussian(1.0)), 4)
    with torch.inference_mode():
        layer(torch.rand(13, 2), random_graph.edge_index)
    layer(torch.rand(13, 2), random_graph.edge_index).sum().backward()
    assert layer.rule.weight.grad is not None


def test_the_last_graph_is_not_pickled(lattice):
    layer = as_conv(SpikingSOC(lattice, **SHARED), 3)
    size = len(pickle.dumps(layer))
    layer(torch.rand(500, 1), torch.randint(500, (2, 5000)))
    assert len(pickle.dumps(layer)) == size


def test_an_empty_feature_matrix_passes(lattice):
    assert as_conv(SpikingSOC(lattice), 3)(torch.rand(16, 0), lattice.edge_index).shape == (16, 0)


def test_bad_arguments_are_named(lattice):
    rule = SpikingSOC(lattice, **SHARED)
    layer, edge_index = as_conv(rule, 3), lattice.edge_index
    assert "steps=3" in repr(layer)
    with pytest.raises(ValueError, match=r"x must have shape \[N, F\], got \(16,\)"):
        layer(torch.rand(16), edge_index)
    with pytest.raises(ValueError, match=r"node ids in \[0, 10\), got 0 to 15"):
        layer(torch.rand(10, 1), edge_index)
    with pytest.raises(ValueError, match=r"x must be of floating point, got torch\.int64"):
        layer(torch.ones(16, 1, dtype=torch.long), edge_index)
    with pytest.raises(ValueError, match=r"x must have shape \[N, F\], got tuple"):
        layer((torch.rand(16, 1), None), edge_index)
    with pytest.raises(ValueError, match="edge_weight must be None: this SpikingSOC has edge weights of its own"):
        as_conv(SpikingSOC(lattice), 3)(torch.rand(16, 1), edge_index, torch.ones(128))
    with pytest.raises(ValueError, match=r"edge_weight must be a floating-point tensor \[128\], got .*\(3,\)"):
        layer(torch.rand(16, 1), edge_index, torch.ones(3))
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
        as_conv(rule, 0)
    with pytest.raises(ValueError, match="output must be one of 'mean', 'last', got 'sum'"):
        as_conv(rule, 1, "sum")
    with pytest.raises(ValueError, match="rule must be an UpdateRule, got Linear"):
        as_conv(torch.nn.Linear(1, 1), 1)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_adjacency_is_the_graph_with_its_weights(layout, lattice):
    """As PyG's own layers take ``adj_t``: rows are targets, values are weights."""
    weight = torch.rand(lattice.num_edges)
    source, target = lattice.edge_index
    with torch.sparse.check_sparse_tensor_invariants(True):
        adjacency = torch.sparse_coo_tensor(torch.stack([target, source]), weight, (16, 16)).to_sparse(layout=layout)
    layer, x = as_conv(SpikingSOC(lattice, **SHARED), 4), torch.rand(16, 3)
    assert torch.equal(layer(x, adjacency), layer(x, lattice.edge_index, weight))
    with pytest.raises(ValueError, match="edge_weight must be None with a sparse adjacency"):
        layer(x, adjacency, weight)
