"""A rule whose parameters are shared runs on a Batch of different graphs as on each of them alone."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

import topologies
from lmn_graph import Connectivity, rollout
from lmn_graph.rules import SpikingSOC, as_conv


def graphs() -> list[Data]:
    """Lattices of other sides, a directed graph with weights of either sign, one without edges, one of a single node."""
    return [
        topologies.grid(4, 2),
        topologies.grid((2, 5), 2, boundary="open"),
        topologies.from_edges([(3, 0, 1.5), (0, 1, -0.5), (1, 2, 2.0), (2, 3, 1.0), (2, 2, 0.5)]),
        topologies.from_edges([], num_nodes=3),
        topologies.from_edges([(0, 0)]),
        topologies.from_networkx(nx.karate_club_graph()),
    ]


def drive(n: int) -> torch.Tensor:
    return 0.8 * torch.rand(3, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def alone_and_together(shared, parts, batch):
    """Activity of every graph on its own, put side by side, and of the batch."""
    driven = drive(batch.num_nodes)
    together = rollout(shared, driven, steps=15, graph=batch).activity
    alone, start = [], 0
    for part in parts:
        stop = start + int(part.num_nodes)
        alone.append(rollout(shared, driven[:, start:stop], steps=15, graph=part).activity)
        start = stop
    assert bool(together.any())
    return torch.cat(alone, dim=2), together


def test_a_batch_equals_its_graphs(shared):
    parts = graphs()
    batch = topologies.batch(parts)
    assert batch.num_graphs == len(parts)
    alone, together = alone_and_together(shared, parts, batch)
    torch.testing.assert_close(together, alone)
    assert torch.equal(batch.ptr.diff(), torch.tensor([part.num_nodes for part in parts]))


def test_gradients_of_a_batch_are_the_sums_over_its_graphs(lattice):
    """The parameters are the same in every graph: so their gradients add up."""
    rule = SpikingSOC(lattice, threshold=1.0, decay=0.9, utilisation=0.1, recovery=30.0, weight=0.3, learn_weight=False).double()
    parts = graphs()
    batch = topologies.batch(parts)
    start, whole = drive(batch.num_nodes).requires_grad_(), 0.0
    (found,) = torch.autograd.grad(rollout(rule, start, steps=8, graph=batch).activity.sum(), start)
    for part, piece in zip(parts, start.split([part.num_nodes for part in parts], dim=1)):
        whole = whole + rollout(rule, piece, steps=8, graph=part).activity.sum()
    (expected,) = torch.autograd.grad(whole, start)
    torch.testing.assert_close(found, expected)
    assert bool(found.any())


def test_as_a_layer(shared):
    parts = graphs()
    batch = topologies.batch(parts)
    x = drive(batch.num_nodes).t().contiguous()
    layer = as_conv(shared, 9)
    together = layer(x, batch.edge_index, batch.edge_weight.double())
    pieces = x.split([part.num_nodes for part in parts])
    alone = [
        layer(piece, part.edge_index, None if part.edge_weight is None else part.edge_weight.double()) for piece, part in zip(pieces, parts)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("dims", [(2, 2), (2, 3, 1)])
def test_lattices_of_any_dimensions(shared, dims):
    """``shape`` of a batch is a list of shapes: no lattice, each part still is one; positions fit only in equal dimensions."""
    parts = [topologies.grid(3 + i, dim) for i, dim in enumerate(dims)]
    batch = topologies.batch(parts)
    assert ("pos" in batch) == (len(set(dims)) == 1)
    assert Connectivity(batch).shape is None
    assert [Connectivity(part).shape for part in batch.to_data_list()] == [part.shape for part in parts]
    alone, together = alone_and_together(shared, parts, batch)
    torch.testing.assert_close(together, alone)


def test_pygs_own_batches_of_lattices(shared):
    """Where dimensions differ PyG needs to be told what to leave out; a batch of one keeps its list of one shape."""
    parts = [topologies.grid(3, 2), topologies.grid(3, 3), topologies.grid(4, 1)]
    batch = Batch.from_data_list(parts, exclude_keys=["pos", "edge_attr"])
    alone, together = alone_and_together(shared, parts, batch)
    torch.testing.assert_close(together, alone)
    one = Batch.from_data_list([topologies.grid(4, 2)])
    alone, together = alone_and_together(shared, [topologies.grid(4, 2)], one)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("workers", [0])
def test_loaders(shared, workers):
    dataset = [topologies.grid(2 + i % 3, 1 + i % 3) for i in range(7)]
    seen = 0
    for batch in DataLoader(dataset, batch_size=3, exclude_keys=["pos", "edge_attr"], num_workers=workers):
        parts = dataset[seen : seen + batch.num_graphs]
        alone, together = alone_and_together(shared, parts, batch)
        torch.testing.assert_close(together, alone)
        seen += batch.num_graphs
    assert seen == 7


def test_names_and_directions_survive_a_batch():
    """What is a list or a flag of each graph is a list or a tensor of the batch, and comes apart again."""
    parts = [topologies.from_networkx(nx.Graph([("a", "b")])), topologies.from_networkx(nx.DiGraph([("b", "c"), ("c", "a")]))]
    again = topologies.batch(parts).to_data_list()
    assert [part.node_names for part in again] == [["a", "b"], ["b", "c", "a"]]
    assert [part.name for part in again] == ["graph", "graph"]
    assert topologies.to_networkx(again[0]).edges == nx.Graph([("a", "b")]).edges
    assert sorted(topologies.to_networkx(again[1]).edges) == [("b", "c"), ("c", "a")]
    both_ways = topologies.from_networkx(nx.DiGraph([(0, 1), (1, 0)]))
    assert topologies.to_networkx(topologies.batch([both_ways]).to_data_list()[0]).is_directed()


def test_weights_that_some_graphs_lack_are_one():
    weighted, plain = topologies.from_edges([(0, 1, 2.0)]), topologies.from_edges([(0, 1), (1, 0)])
    assert topologies.batch([weighted, plain]).edge_weight.tolist() == [2, 1, 1]
    assert topologies.batch([plain, weighted]).edge_weight.tolist() == [1, 1, 2]
    assert "edge_weight" not in plain, "the graphs stay as they were"
    assert topologies.batch([plain, plain]).edge_weight is None


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ({"x": torch.ones(2, 3)}, {"x": torch.ones(2, 4)}, False),
        ({"x": torch.ones(2, 3)}, {"x": torch.ones(3, 3)}, True),
        ({"x": torch.ones(2, 3)}, {"x": torch.ones(2, 3, 1)}, False),
        ({"far_index": torch.ones(2, 3).long()}, {"far_index": torch.ones(2, 4).long()}, True),
        ({"far_index": torch.ones(2, 3).long()}, {"far_index": torch.ones(1, 3).long()}, False),
        ({"y": torch.tensor(1)}, {"y": torch.tensor(2)}, True),
        ({"y": torch.tensor(1)}, {"y": torch.tensor([2])}, False),
        ({"y": torch.tensor([1])}, {"y": 1}, False),
        ({"y": 1}, {"y": "a"}, False),
        ({"y": "a"}, {"y": 1.5}, False),
        ({"y": 1}, {"y": 1.5}, True),
        ({"y": "a"}, {"y": "b"}, True),
        ({"y": {"a": 1}}, {"y": {"b": 1}}, False),
        ({"y": {"a": 1}}, {"y": {"a": 2}}, True),
        ({"y": {"a": 1}}, {"y": {"a": "b"}}, False),
        ({"y": [torch.ones(1)]}, {"y": [torch.ones(1), torch.ones(1)]}, False),
        ({"y": [torch.ones(1)]}, {"y": []}, False),
        ({"y": [torch.ones(1)]}, {"y": [torch.ones(2)]}, True),
        ({"y": ["a"]}, {"y": ["a", "b"]}, True),
        ({"y": None}, {"y": 3}, False),
        ({"adj": torch.eye(2).to_sparse()}, {"adj": torch.eye(3)}, False),
    ],
)
def test_what_fits_is_kept_and_what_does_not_is_left_out(one, other, fits):
    """Along the dimension in which PyG joins a field lengths may differ, in no other; words and numbers do not mix."""
    (key,) = one
    for fields in ((one, other), (other, one)):
        graphs = [topologies.from_edges([(0, 1), (1, 0)]) for _ in fields]
        for graph, extra in zip(graphs, fields):
            graph.update(extra)
        batch = topologies.batch(graphs)
        assert (key in batch) == fits
        assert all((key in part) == fits for part in batch.to_data_list())


def test_two_nodes_in_two_and_in_three_dimensions():
    """A field with two rows is no edge index: positions [2, 2] and [2, 3] do not fit."""
    batch = topologies.batch([topologies.grid((2, 1), 2), topologies.grid((2, 1, 1), 3)])
    assert batch.num_nodes == 4
    assert "pos" not in batch


def test_a_rule_with_parameters_of_its_own_refuses_a_batch(lattice):
    with pytest.raises(ValueError, match="graph must be the one that this SpikingSOC is bound to"):
        rollout(SpikingSOC(lattice), torch.rand(1, 32), steps=2, graph=topologies.batch([lattice, lattice]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"graphs must be a list of at least one Data, got \[\]"),
        (Data(edge_index=torch.tensor([[0], [1]])), "graphs must be a list of at least one Data, got Data"),
        ([3], r"data must be a torch_geometric\.data\.Data, got int"),
        ([Data(num_nodes=2)], r"data\.edge_index must be a tensor \[2, E\], got None"),
        ([Data(adj_t=torch.eye(2).to_sparse())], r"graphs\[0\] must have edge_index"),
    ],
)
def test_what_is_no_list_of_graphs(given, message):
    with pytest.raises(ValueError, match=message):
        topologies.batch(given)
