"""Graphs that this library had no hand in: whatever form the edges come in, a rule does on them what it does on plain edges."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import ExplainerDataset, FakeDataset, KarateClub, StochasticBlockModelDataset
from torch_geometric.datasets.graph_generator import BAGraph, ERGraph
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import AddSelfLoops, ToSparseTensor, ToUndirected
from torch_geometric.utils import coalesce
from torch_geometric.utils import from_networkx as pyg_from_networkx
from torch_geometric.utils import to_networkx as pyg_to_networkx

import topologies
from lmn_graph import Connectivity
from lmn_graph.rules import SpikingSOC, as_conv


def _multigraph() -> Data:
    edges = torch.tensor([[4, 0, 0, 2, 2, 1, 0, 3, 2], [0, 1, 1, 2, 2, 0, 1, 4, 3]])
    return Data(edge_index=edges, num_nodes=6, edge_weight=torch.linspace(0.1, 1, 9))


def _sbm(tmp_path) -> Data:
    data = StochasticBlockModelDataset(str(tmp_path), [10, 15], [[0.5, 0.1], [0.1, 0.5]])[0]
    data.num_nodes = 25  # PyG warns where it has to guess
    return data


def _fake(tmp_path) -> Data:
    return FakeDataset(num_graphs=1, avg_num_nodes=30, avg_degree=5, edge_dim=3)[0]


def _pyg_networkx(tmp_path) -> Data:
    G = nx.les_miserables_graph()
    return pyg_from_networkx(G, group_edge_attrs=None)


GRAPHS = {
    "karate club": lambda tmp_path: KarateClub()[0],
    "fake": _fake,
    "stochastic block model": _sbm,
    "barabasi-albert": lambda tmp_path: BAGraph(30, 3)(),
    "explainer": lambda tmp_path: ExplainerDataset(ERGraph(40, 0.1), motif_generator="house", num_motifs=2)[0],
    "networkx through pyg": _pyg_networkx,
    "multigraph": lambda tmp_path: _multigraph(),
    "lattice": lambda tmp_path: topologies.grid(4, 2),
    "transformed": lambda tmp_path: AddSelfLoops(attr="edge_attr")(ToUndirected()(_fake(tmp_path))),
}


@pytest.fixture(params=list(GRAPHS))
def dataset_graph(request, tmp_path) -> Data:
    """PyG's datasets draw from the global generators of torch, numpy and random; the graphs differ, the tests hold for each."""
    return GRAPHS[request.param](tmp_path)


@pytest.fixture(autouse=True)
def _invariants():
    """torch warns where this is left open."""
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        yield


def plain(graph: Data) -> Data:
    """Nothing but the edges and their weights."""
    found = Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes)
    if graph.get("edge_weight") is not None:
        found.edge_weight = graph.edge_weight
    return found


def simple(graph: Data) -> Data:
    """The same without parallel edges, which PyG's sparse tensors put together."""
    found = plain(graph)
    if found.edge_weight is None:
        found.edge_index = coalesce(found.edge_index)
    else:
        found.edge_index, found.edge_weight = coalesce(found.edge_index, found.edge_weight)
    return found


def test_a_dataset_is_a_topology(dataset_graph, activity):
    """All the other fields of the graph do not matter to a rule that uses none."""
    assert torch.equal(activity(dataset_graph), activity(plain(dataset_graph)))
    SpikingSOC(dataset_graph)


@pytest.mark.parametrize("layout", [None, torch.sparse_coo, torch.sparse_csr])
def test_sparse_tensors(dataset_graph, activity, layout):
    """``ToSparseTensor`` in every layout; None is torch_sparse's where it is installed. Weights and other fields of edges go along."""
    merged = simple(dataset_graph)
    if merged.edge_weight is None:
        merged.edge_weight = torch.linspace(0.5, 1.5, merged.num_edges)
    merged.edge_type = torch.arange(merged.num_edges) % 5
    expected = Connectivity(merged)
    sparse = ToSparseTensor(layout=layout)(merged.clone())
    assert "edge_index" not in sparse.keys()  # noqa: SIM118 - a method
    found = Connectivity(sparse)
    assert found.same_graph(expected)
    torch.testing.assert_close(found.edge_weight, expected.edge_weight)
    assert torch.equal(found.edge_type, expected.edge_type)
    torch.testing.assert_close(activity(sparse), activity(merged))
    del merged.edge_weight, merged.edge_type
    unweighted = ToSparseTensor(layout=layout)(merged.clone())
    assert Connectivity(unweighted).edge_weight is None
    assert torch.equal(activity(unweighted), activity(merged))


def test_torchs_own_sparse_layouts(activity):
    """Also as no transform makes them: CSC, uncoalesced COO, which keeps its parallel edges and is left as it was."""
    graph = _multigraph()
    flipped = graph.edge_index.flip(0)
    coo = torch.sparse_coo_tensor(flipped, graph.edge_weight, (6, 6))
    for adj_t in (coo, coo.to_sparse_csc(), coo.to_sparse_csr(), coo.coalesce()):
        torch.testing.assert_close(activity(Data(adj_t=adj_t)), activity(graph))
    assert not coo.is_coalesced()
    assert Connectivity(Data(adj_t=coo)).num_edges == 9
    assert Connectivity(Data(adj_t=coo.coalesce())).num_edges == 6


def test_vectors_as_values_are_edge_attributes():
    graph = simple(_multigraph())
    graph.edge_attr = torch.rand(graph.num_edges, 3)
    found = Connectivity(ToSparseTensor(attr="edge_attr", layout=torch.sparse_coo)(graph.clone()))
    assert torch.equal(found.edge_attr, Connectivity(graph).edge_attr)


def test_edge_index_of_pyg(dataset_graph, activity):
    """In any order it was declared to have, with its caches filled."""
    graph = plain(dataset_graph)
    n = graph.num_nodes
    for order in (None, "row", "col"):
        index = EdgeIndex(graph.edge_index.contiguous(), sparse_size=(n, n))
        if order is not None:
            index, permutation = index.sort_by(order)
            index = index.fill_cache_()
        other = Data(edge_index=index, num_nodes=n)
        if graph.edge_weight is not None:
            other.edge_weight = graph.edge_weight if order is None else graph.edge_weight[permutation]
        torch.testing.assert_close(activity(other), activity(graph))


def test_networkx_by_either_way(activity):
    """PyG's converter and this one give the same graph; PyG calls the weights ``weight``."""
    G = nx.les_miserables_graph()
    theirs, ours = pyg_from_networkx(G), topologies.from_networkx(G)
    theirs.edge_weight = theirs.weight.to(torch.get_default_dtype())
    torch.testing.assert_close(activity(theirs), activity(ours))
    back = pyg_to_networkx(ours, edge_attrs=["edge_weight"])
    assert {(u, v): w for u, v, w in back.edges(data="edge_weight")} == {
        (u, v): w
        for u, v, w in topologies.to_networkx(topologies.from_networkx(nx.convert_node_labels_to_integers(G)), directed=True).edges(
            data="weight"
        )
    }


def test_an_in_memory_dataset_of_graphs_goes_through_the_rule(activity, shared):
    """Every graph of a loader's batch runs as it does alone."""
    dataset = FakeDataset(num_graphs=5, avg_num_nodes=12, avg_degree=4, num_channels=3)
    layer = as_conv(shared, 6)
    for batch in DataLoader(dataset, batch_size=3):
        x = batch.x.double()
        found = layer(x, batch.edge_index)
        for i, graph in enumerate(batch.to_data_list()):
            part = x[batch.ptr[i] : batch.ptr[i + 1]]
            torch.testing.assert_close(found[batch.batch == i], layer(part, graph.edge_index))


def test_a_batch_of_sparse_graphs(activity):
    graphs = [ToSparseTensor()(simple(_multigraph())), ToSparseTensor()(plain(topologies.grid(3, 2)))]
    graphs[1].adj_t = graphs[1].adj_t * 0.5 if isinstance(graphs[1].adj_t, torch.Tensor) else graphs[1].adj_t.fill_value(0.5)
    batch = Batch.from_data_list(graphs)
    found = Connectivity(batch)
    assert found.num_nodes == 15
    assert found.num_edges == sum(Connectivity(graph).num_edges for graph in graphs)
    torch.testing.assert_close(found.edge_weight, torch.cat([Connectivity(graph).edge_weight for graph in graphs]))


BAD = {
    "not square": (Data(adj_t=torch.ones(2, 3).to_sparse()), r"topology.adj_t must be square, got \(2, 3\)"),
    "dense": (Data(adj_t=torch.ones(2, 3), num_nodes=2), r"topology.adj_t must be square, got \(2, 3\)"),
    "three axes": (Data(adj_t=torch.ones(2, 2, 2).to_sparse(), num_nodes=2), "matrix must have two sparse axes, got 3"),
    "nan": (Data(adj_t=torch.tensor([[torch.nan, 1.0], [0.0, 1.0]]).to_sparse(), num_nodes=2), "edge_weight must be finite"),
    "complex": (Data(adj_t=torch.tensor([[1j]]).to_sparse(), num_nodes=1), "matrix must hold real numbers, got torch.complex64"),
    "no node": (Data(adj_t=torch.ones(0, 0).to_sparse()), "topology must have at least one node, got num_nodes=0"),
    "types of other edges": (
        Data(adj_t=torch.eye(3).to_sparse(), edge_type=torch.arange(5)),
        r"topology.edge_type must be a tensor with one entry per edge \(3\), got \(5,\)",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_is_no_sparse_adjacency(case):
    data, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        Connectivity(data)
