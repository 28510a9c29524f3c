"""With torch-scatter and torch-sparse: their tensors are graphs, their sums the library's, and that PyG uses them changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import ToSparseTensor

import topologies
from lmn_graph import Connectivity, ops, rollout
from lmn_graph.rules import SpikingSOC, as_conv

pytestmark = pytest.mark.sparse


def random_weighted(seed: int, n: int = 20, edges: int = 90) -> Data:
    """No parallel edges, self-loops, unsorted."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randperm(n * n, generator=generator)[:edges]
    weight = torch.randn(edges, generator=generator, dtype=torch.float64)
    return Data(edge_index=torch.stack([key // n, key % n]), num_nodes=n, edge_weight=weight)


def sparse_tensor(data: Data):
    """The adjacency matrix, row = source."""
    from torch_sparse import SparseTensor

    return SparseTensor(
        row=data.edge_index[0], col=data.edge_index[1], value=data.edge_weight, sparse_sizes=(data.num_nodes, data.num_nodes)
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_sparse_tensor_is_an_adjacency_matrix(seed):
    data = random_weighted(seed)
    found = topologies.from_adjacency(sparse_tensor(data), dtype=torch.float64)
    expected = Connectivity(data)
    assert torch.equal(found.edge_index, expected.edge_index)
    assert torch.equal(found.edge_weight, expected.edge_weight)
    turned = topologies.from_adjacency(sparse_tensor(data).t(), dtype=torch.float64)
    assert torch.equal(topologies.from_scipy(topologies.to_scipy(found).T, dtype=torch.float64).edge_index, turned.edge_index)


def test_a_sparse_tensor_without_values_or_not_square():
    from torch_sparse import SparseTensor

    row, col = torch.tensor([0, 1, 1]), torch.tensor([1, 2, 2])
    plain = topologies.from_adjacency(SparseTensor(row=row[:2], col=col[:2], sparse_sizes=(3, 3)))
    assert "edge_weight" not in plain
    assert plain.edge_index.tolist() == [[0, 1], [1, 2]]
    twice = topologies.from_adjacency(SparseTensor(row=row, col=col, sparse_sizes=(3, 3)))
    assert twice.edge_weight.tolist() == [1, 2]
    for build in (topologies.from_adjacency, lambda matrix: Connectivity(Data(adj_t=matrix))):
        with pytest.raises(ValueError, match=r"must be square.* got \(2, 3\)"):
            build(SparseTensor(row=row[:2], col=col[:2], sparse_sizes=(2, 3)))


@pytest.mark.parametrize("seed", range(3))
def test_to_sparse_tensor_makes_theirs_and_it_is_the_same_graph(seed, activity):
    from torch_sparse import SparseTensor

    data = random_weighted(seed)
    data.edge_type = torch.arange(90)
    data.edge_attr = torch.rand(90, 2)
    sparse = ToSparseTensor()(data.clone())
    assert isinstance(sparse.adj_t, SparseTensor)
    found, expected = Connectivity(sparse), Connectivity(data)
    assert found.same_graph(expected)
    for field in ("edge_weight", "edge_type", "edge_attr"):
        assert torch.equal(getattr(found, field), getattr(expected, field))
    assert torch.equal(activity(sparse), activity(data))
    assert topologies.to_networkx(sparse).edges == topologies.to_networkx(data).edges
    assert (topologies.to_scipy(sparse) != topologies.to_scipy(data)).nnz == 0
    vectors = ToSparseTensor(attr="edge_attr")(data.clone())
    assert torch.equal(Connectivity(vectors).edge_attr, expected.edge_attr)


def test_a_batch_of_their_tensors(activity):
    parts = [random_weighted(0), random_weighted(1, n=12, edges=30)]
    batch = Batch.from_data_list([ToSparseTensor()(part.clone()) for part in parts])
    torch.testing.assert_close(activity(batch), activity(Batch.from_data_list(parts)))


@pytest.mark.parametrize("seed", range(3))
def test_the_weighted_sum_is_their_product(seed, normal):
    """Values and both gradients, against torch_sparse.matmul and against torch_scatter."""
    from torch_scatter import scatter
    from torch_sparse import SparseTensor, matmul

    graph = Connectivity(random_weighted(seed))
    x, weight = normal(20, 5).requires_grad_(), graph.edge_weight.clone().requires_grad_()
    source, target = graph.edge_index
    ours = ops.weighted_sum(graph, x, ops.EdgeWeight(graph, weight))
    adj_t = SparseTensor(row=target, col=source, value=weight, sparse_sizes=(20, 20))
    scattered = scatter(weight[:, None] * x[source], target, dim=0, dim_size=20, reduce="sum")
    g = normal(20, 5)
    expected = torch.autograd.grad(ours, (x, weight), g)
    for theirs in (matmul(adj_t, x), scattered):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        for one, other in zip(torch.autograd.grad(theirs, (x, weight), g), expected):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_rollout_is_the_same_through_pyg_with_them_installed(seed):
    """``propagate`` may use torch-scatter now; the sparse product does not: they agree, gradients too."""
    rule = SpikingSOC(random_weighted(seed), weight=0.5, threshold=0.5).double()
    drive = torch.rand(3, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = []
    for rule.reference in (False, True):
        activity = rollout(rule, drive, steps=15).activity
        found.append((activity, *torch.autograd.grad(activity.sum(), list(rule.parameters()))))
    assert 0 < found[0][0].detach().mean() < 1
    for fast, reference in zip(*found):
        torch.testing.assert_close(fast, reference, rtol=1e-9, atol=1e-12)


def test_a_layer_takes_their_adjacency():
    data = random_weighted(4)
    data.edge_weight = data.edge_weight.float()
    rule = SpikingSOC(data, decay=0.9, utilisation=0.1, recovery=30.0, weight=1.0, learn_weight=False)
    x = torch.rand(data.num_nodes, 3)
    expected = as_conv(rule, 4)(x, data.edge_index, data.edge_weight)
    torch.testing.assert_close(as_conv(rule, 4)(x, sparse_tensor(data).t()), expected)
