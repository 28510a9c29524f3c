"""Adjacency matrices of every library: row = source, column = target, and the same graph out as in."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.utils import to_scipy_sparse_matrix

from topologies import from_adjacency, from_scipy, to_networkx, to_scipy

FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
ENTRY = st.sampled_from([0.0, 0.0, 1.0, -2.5, 3.25])


@st.composite
def matrices(draw):
    n = draw(st.integers(1, 6))
    return np.array(draw(st.lists(ENTRY, min_size=n * n, max_size=n * n))).reshape(n, n)


@pytest.fixture(autouse=True)
def _invariants():
    """torch warns where this is left open."""
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        yield


def dense(data):
    """The matrix read off the fields by hand."""
    found = np.zeros((data.num_nodes, data.num_nodes))
    weight = np.ones(data.num_edges) if data.edge_weight is None else data.edge_weight.numpy()
    np.add.at(found, tuple(data.edge_index.numpy()), weight)
    return found


@hypothesis.given(matrices())
@hypothesis.example(np.array([[0.0, 1.0], [1.0, 1.0]]))  # one block in BSR, which stores the zero
def test_every_kind_of_matrix_is_the_same_graph(matrix):
    kinds = [matrix, matrix.tolist(), matrix.astype(np.float32), torch.tensor(matrix)]
    kinds += [scipy.sparse.coo_array(matrix).asformat(kind) for kind in FORMATS]
    kinds += [scipy.sparse.csr_matrix(matrix)]
    kinds += [torch.tensor(matrix).to_sparse(layout=layout) for layout in LAYOUTS]
    for kind in kinds:
        data = from_adjacency(kind)
        np.testing.assert_array_equal(dense(data), matrix)
        key = data.edge_index[1] * data.num_nodes + data.edge_index[0]
        assert bool((key.diff() > 0).all())
        assert ("edge_weight" in data) == bool((matrix[matrix != 0] != 1).any())


@hypothesis.given(matrices())
def test_scipy_comes_back_and_networkx_and_pyg_agree(matrix):
    """The same convention as theirs, so that a matrix may take either way."""
    data = from_scipy(scipy.sparse.csr_array(matrix), dtype=torch.float64)
    np.testing.assert_array_equal(to_scipy(data).toarray(), matrix)
    again = from_scipy(to_scipy(data), dtype=torch.float64)
    assert torch.equal(again.edge_index, data.edge_index)
    assert (
        to_networkx(data, directed=True).edges == nx.from_scipy_sparse_array(scipy.sparse.csr_array(matrix), create_using=nx.DiGraph).edges
    )
    theirs = to_scipy_sparse_matrix(data.edge_index, data.edge_weight, data.num_nodes)
    np.testing.assert_array_equal(theirs.toarray(), matrix)


def test_row_is_source_and_column_target():
    for matrix in ([[0, 2], [0, 0]], scipy.sparse.csr_array([[0, 2], [0, 0]]), torch.tensor([[0, 2], [0, 0]]).to_sparse()):
        data = from_adjacency(matrix)
        assert data.edge_index.tolist() == [[0], [1]]
        assert data.edge_weight.tolist() == [2.0]
        assert to_scipy(data)[0, 1] == 2


def test_duplicates_are_summed_and_stored_zeros_kept():
    twice = scipy.sparse.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    uncoalesced = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [1, 1, 0]]), torch.tensor([1.0, 2.0, 0.0]), (2, 2))
    for matrix in (twice, uncoalesced):
        data = from_adjacency(matrix)
        assert data.edge_index.tolist() == [[1, 0], [0, 1]]
        assert data.edge_weight.tolist() == [0.0, 3.0]
        assert to_scipy(data).nnz == 2
    assert not uncoalesced.is_coalesced(), "the caller's tensor stays as it was"


def test_parallel_edges_are_summed_on_the_way_out():
    data = Data(edge_index=torch.tensor([[0, 0, 1], [1, 1, 1]]), num_nodes=3, edge_weight=torch.tensor([1.0, 2.0, 4.0], requires_grad=True))
    np.testing.assert_array_equal(to_scipy(data).toarray(), [[0, 3, 0], [0, 4, 0], [0, 0, 0]])
    del data.edge_weight
    np.testing.assert_array_equal(to_scipy(data).toarray(), [[0, 2, 0], [0, 1, 0], [0, 0, 0]])


def test_dtypes():
    assert from_adjacency([[0.1]]).edge_weight.dtype == torch.get_default_dtype()
    assert from_adjacency([[0.1]], dtype=torch.float64).edge_weight.item() == 0.1
    assert "edge_weight" not in from_adjacency([[True, False], [True, True]])
    assert from_adjacency(np.array([[0, 3]] * 2, dtype=np.uint8)).edge_weight.tolist() == [3, 3]
    half = Data(edge_index=torch.tensor([[0], [0]]), num_nodes=1, edge_weight=torch.tensor([0.5], dtype=torch.bfloat16))
    assert to_scipy(half).dtype == np.float32
    assert to_scipy(Data(edge_index=EdgeIndex([[0], [1]], sparse_size=(2, 2)), num_nodes=2)).nnz == 1


def test_a_graph_without_edges():
    data = from_adjacency(torch.zeros(3, 3))
    assert data.num_nodes == 3
    assert data.num_edges == 0
    assert to_scipy(data).shape == (3, 3)


BAD = {
    "not square": (np.ones((2, 3)), r"matrix must be square with at least one row, got \(2, 3\)"),
    "sparse, not square": (scipy.sparse.csr_array((2, 3)), r"matrix must be square .* got \(2, 3\)"),
    "torch, not square": (torch.ones(2, 3).to_sparse(), r"matrix must be square .* got \(2, 3\)"),
    "no node": (np.ones((0, 0)), r"matrix must be square with at least one row, got \(0, 0\)"),
    "no node, sparse": (scipy.sparse.coo_array((0, 0)), r"at least one row"),
    "one axis": ([1, 2], r"matrix must have two axes, got \(2,\)"),
    "three axes": (torch.ones(2, 2, 2), r"matrix must have two axes, got \(2, 2, 2\)"),
    "three sparse axes": (torch.ones(2, 2, 2).to_sparse(), "matrix must have two sparse axes, got 3"),
    "vectors": (torch.ones(2, 2, 2).to_sparse(2), r"matrix must have one number per entry, got values \(4, 2\)"),
    "ragged": ([[1], [1, 2]], "matrix must be N × N real numbers"),
    "words": ([["a"]], "matrix must hold real numbers, got <U1"),
    "complex": ([[1j]], "matrix must hold real numbers, got complex128"),
    "complex tensor": (torch.tensor([[1j]]), "matrix must hold real numbers, got torch.complex64"),
    "nan": ([[0.0, 1.0], [float("nan"), 0.0]], r"^matrix\[1, 0\]: weight must be a finite number, got nan"),
    "infinite": (scipy.sparse.csr_array([[0.0, np.inf], [0.0, 0.0]]), r"^matrix\[0, 1\]: weight must be a finite number, got inf"),
    "too large": ([[1e300]], r"^matrix\[0, 0\]: weight must be a finite number in torch.float32, got inf"),
    "text": ("matrix", "matrix must be an N × N tensor"),
    "number": (3, "matrix must be an N × N tensor"),
    "none": (None, "matrix must be an N × N tensor"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_is_no_adjacency_matrix(case):
    matrix, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        from_adjacency(matrix)


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="matrix must be a SciPy sparse matrix or array, got list: use from_adjacency"):
        from_scipy([[1]])
    with pytest.raises(ValueError, match="name must be a str, got 3"):
        from_adjacency([[1]], name=3)
    with pytest.raises(ValueError, match="dtype must be a floating-point"):
        from_scipy(scipy.sparse.eye_array(2), dtype=torch.int32)
    with pytest.raises(ValueError, match=r"data must be a torch_geometric\.data\.Data, got ndarray"):
        to_scipy(np.eye(2))


@pytest.mark.parametrize("layout", [torch.sparse_bsr, torch.sparse_bsc])
def test_zeros_that_fill_up_a_block_are_no_edges(layout):
    matrix = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    with torch.sparse.check_sparse_tensor_invariants(True):
        blocks = matrix.to_sparse(layout=layout, blocksize=(2, 2))
    found = from_adjacency(blocks)
    assert found.edge_index.tolist() == [[1, 0, 1, 3], [0, 1, 1, 3]]
    assert found.edge_weight.tolist() == [1, 1, 1, 2]
