"""Connectivity: the sorted index buffers are the graph that was given, and what is no graph is refused."""

from __future__ import annotations

import copy
import pickle

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import ToSparseTensor

import topologies
from lmn_graph import Connectivity

INTS = torch.tensor([[0, 1], [1, 0]])


@st.composite
def edge_lists(draw):
    """Any directed multigraph of up to eight nodes, in any order."""
    nodes = draw(st.integers(1, 8))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=20))
    return nodes, torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()


def built(nodes, edge_index, **fields):
    return Connectivity(Data(edge_index=edge_index, num_nodes=nodes, **fields))


@hypothesis.given(edge_lists())
def test_the_edges_are_the_given_ones_sorted_by_target_then_source(graph):
    nodes, edge_index = graph
    found = built(nodes, edge_index)
    expected = sorted(zip(edge_index[1].tolist(), edge_index[0].tolist()))
    assert list(zip(found.edge_index[1].tolist(), found.edge_index[0].tolist())) == expected
    assert (found.num_nodes, found.num_edges) == (nodes, edge_index.size(1))
    assert found.edge_index.dtype == torch.long
    assert found.edge_index.is_contiguous()


@hypothesis.given(edge_lists())
def test_rows_and_transpose_equal_scipys(graph):
    """The five int32 buffers are the compressed rows of A (row = target) and of its transpose, and perm_t links their values."""
    nodes, edge_index = graph
    found = built(nodes, edge_index)
    for name in ("rowptr", "col", "rowptr_t", "col_t", "perm_t"):
        assert getattr(found, name).dtype == torch.int32, name
    values = np.arange(1.0, found.num_edges + 1)
    dense = np.zeros((nodes, nodes))
    np.add.at(dense, (found.edge_index[1].numpy(), found.edge_index[0].numpy()), values)
    rows = csr_array((values, found.col.numpy(), found.rowptr.numpy()), shape=(nodes, nodes))
    rows_t = csr_array((values[found.perm_t.numpy()], found.col_t.numpy(), found.rowptr_t.numpy()), shape=(nodes, nodes))
    np.testing.assert_array_equal(rows.toarray(), dense)
    np.testing.assert_array_equal(rows_t.toarray(), dense.T)
    assert torch.equal(found.in_degree(), torch.bincount(edge_index[1], minlength=nodes).int())
    assert torch.equal(found.out_degree(), torch.bincount(edge_index[0], minlength=nodes).int())


@hypothesis.given(edge_lists())
def test_fields_of_the_edges_follow_their_edges(graph):
    """Weights, displacements and types are permuted with unsorted input; parallel edges keep their order."""
    nodes, edge_index = graph
    ids = torch.arange(edge_index.size(1))
    found = built(nodes, edge_index, edge_weight=ids.double(), edge_attr=torch.stack([ids, -ids], 1), edge_type=ids)
    order = found.edge_type
    assert torch.equal(edge_index[:, order], found.edge_index)
    assert torch.equal(found.edge_weight, order.double())
    assert torch.equal(found.edge_attr, torch.stack([order, -order], 1))
    assert sorted(order.tolist()) == ids.tolist()
    if found.permutation is None:
        assert torch.equal(order, ids)
    else:
        assert torch.equal(order, found.permutation)
    parallel = (found.edge_index[:, 1:] == found.edge_index[:, :-1]).all(0)
    assert bool((order.diff()[parallel] > 0).all())


@hypothesis.given(edge_lists())
def test_acyclic_is_what_networkx_says(graph):
    nodes, edge_index = graph
    reference = nx.DiGraph()
    reference.add_nodes_from(range(nodes))
    reference.add_edges_from(edge_index.t().tolist())
    assert built(nodes, edge_index).is_acyclic() == nx.is_directed_acyclic_graph(reference)


def test_every_small_graph_is_taken(graph):
    found = Connectivity(graph)
    assert found.num_nodes == graph.num_nodes
    assert found.num_edges == graph.num_edges
    assert found.rowptr[-1] == found.rowptr_t[-1] == graph.num_edges
    assert f"num_nodes={graph.num_nodes}" in repr(found)


def test_a_sorted_graph_is_not_permuted(lattice):
    found = Connectivity(lattice)
    assert found.permutation is None
    assert torch.equal(found.edge_index, lattice.edge_index)
    assert torch.equal(found.edge_type, lattice.edge_type)
    assert found.shape == (4, 4)
    assert torch.equal(found.pos, lattice.pos)


def test_an_edge_index_of_pyg_is_taken():
    """PyG's tensor subclass becomes a plain tensor: nothing downstream dispatches on it."""
    plain = torch.tensor([[2, 0, 1], [0, 1, 1]])
    subclass = EdgeIndex(plain, sparse_size=(3, 3))
    found, expected = built(3, subclass), built(3, plain)
    assert type(found.edge_index) is torch.Tensor
    assert torch.equal(found.edge_index, expected.edge_index)
    assert torch.equal(found.col_t, expected.col_t)


def test_int32_edges_are_taken():
    assert torch.equal(built(2, INTS.int()).edge_index, built(2, INTS).edge_index)


def test_integer_weights_become_floating_point():
    assert built(2, INTS, edge_weight=torch.tensor([3, 4])).edge_weight.dtype == torch.get_default_dtype()


def test_buffers_move_but_are_no_part_of_the_state(random_graph):
    """A checkpoint holds no graph; ``double`` converts weights and leaves indices; copies and pickles are the same graph."""
    found = Connectivity(random_graph)
    assert found.state_dict() == {}
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert torch.equal(other.edge_index, found.edge_index)
        assert torch.equal(other.perm_t, found.perm_t)
    single = found.float()
    assert single.edge_weight.dtype == torch.float32
    assert single.rowptr.dtype == torch.int32


def test_reweighted_shares_the_graph_and_keeps_the_gradient(random_graph):
    """Weights that come with a call replace the graph's own without another sort, and without losing their gradient."""
    found = Connectivity(random_graph)
    weight = torch.randn(50, requires_grad=True)
    other = found.reweighted(weight)
    assert other.rowptr is found.rowptr
    assert torch.equal(other.edge_weight, weight[found.permutation])
    other.edge_weight[7].backward()
    assert weight.grad.nonzero().item() == found.permutation[7]
    assert torch.equal(found.edge_weight, random_graph.edge_weight[found.permutation])
    with pytest.raises(ValueError, match=r"edge_weight must be a floating-point tensor \[50\], got .*\(49,\)"):
        found.reweighted(weight[1:])


BAD = {
    "no Data": ([[0], [1]], "topology must be a torch_geometric.data.Data, got list"),
    "no edges": (Data(num_nodes=3), r"topology.edge_index must be a tensor \[2, E\], got None"),
    "three rows": (Data(edge_index=torch.zeros(3, 4, dtype=torch.long), num_nodes=3), r"must be a tensor \[2, E\], got \(3, 4\)"),
    "floats": (Data(edge_index=torch.zeros(2, 4), num_nodes=3), "must hold integers, got torch.float32"),
    "booleans": (Data(edge_index=torch.zeros(2, 4, dtype=torch.bool), num_nodes=3), "must hold integers, got torch.bool"),
    "no nodes": (Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=0), "at least one node, got num_nodes=0"),
    "negative": (Data(edge_index=torch.tensor([[-1], [0]]), num_nodes=2), r"node ids in \[0, 2\), got -1 to 0"),
    "too large": (Data(edge_index=torch.tensor([[2], [0]]), num_nodes=2), r"node ids in \[0, 2\), got 0 to 2"),
    "too many nodes": (Data(edge_index=INTS, num_nodes=2**31), r"fewer than 2\*\*31 nodes and edges"),
    "short weights": (Data(edge_index=INTS, num_nodes=2, edge_weight=torch.ones(3)), r"edge_weight must .* per edge \(2\), got \(3,\)"),
    "weight matrix": (Data(edge_index=INTS, num_nodes=2, edge_weight=torch.ones(2, 1)), r"edge_weight must have shape \[2\], got \(2, 1\)"),
    "weight list": (Data(edge_index=INTS, num_nodes=2, edge_weight=[1.0, 2.0]), "edge_weight must be a tensor .* got list"),
    "nan weights": (Data(edge_index=INTS, num_nodes=2, edge_weight=torch.tensor([1.0, torch.nan])), "edge_weight must be finite"),
    "short types": (Data(edge_index=INTS, num_nodes=2, edge_type=torch.ones(1)), r"edge_type must .* per edge \(2\), got \(1,\)"),
    "scalar attr": (Data(edge_index=INTS, num_nodes=2, edge_attr=torch.tensor(1.0)), "edge_attr must be a tensor with one entry per edge"),
    "wrong shape": (Data(edge_index=INTS, num_nodes=2, shape=(3, 1)), r"shape must multiply to num_nodes=2, got \(3, 1\)"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_is_no_graph_is_refused(case):
    data, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        Connectivity(data)


def test_a_sparse_transposed_adjacency_is_the_same_graph(random_graph):
    """As ToSparseTensor makes it: rows are targets, values are weights."""
    plain = random_graph.clone()
    plain.edge_weight = torch.rand(plain.num_edges) + 0.5
    plain = plain.coalesce()
    expected = Connectivity(plain)
    with torch.sparse.check_sparse_tensor_invariants(enable=False):  # PyG leaves it open, and torch warns
        weighted = ToSparseTensor(attr="edge_weight")(plain.clone())
        del plain.edge_weight
        unweighted = ToSparseTensor()(plain)
    found = Connectivity(weighted)
    assert found.same_graph(expected)
    torch.testing.assert_close(found.edge_weight, expected.edge_weight)
    assert Connectivity(unweighted).edge_weight is None


def test_a_batch_of_lattices_is_a_graph_and_a_subgraph_of_one_is_told_apart():
    batch = Batch.from_data_list([topologies.grid(4, 2), topologies.grid(3, 2)])
    found = Connectivity(batch)
    assert found.num_nodes == 25
    assert found.shape is None
    part = topologies.grid(4, 2).subgraph(torch.arange(10))
    with pytest.raises(ValueError, match=r"topology\.shape must multiply to num_nodes=10"):
        Connectivity(part)


def test_later_edits_of_the_data_do_not_reach_the_connectivity(lattice):
    found = Connectivity(lattice)
    before = found.edge_index.clone()
    lattice.edge_index.zero_()
    assert torch.equal(found.edge_index, before)


def test_later_changes_of_the_data_do_not_reach_the_connectivity(lattice):
    """Neither edges nor weights: what was validated stays."""
    lattice.edge_weight = torch.ones(lattice.num_edges)
    graph = Connectivity(lattice)
    lattice.edge_weight.zero_()
    lattice.edge_index.zero_()
    assert graph.edge_weight.min() == 1
    assert graph.edge_index.max() == 15
