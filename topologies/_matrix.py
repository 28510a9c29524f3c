"""Adjacency matrices, dense and sparse, of NumPy, SciPy, torch and torch_sparse: row = source, column = target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from topologies._graph import refuse_too_large
from topologies._merging import build, floating

if TYPE_CHECKING:
    import scipy.sparse


class Entries(NamedTuple):
    """The stored entries of a matrix, duplicates as they are: row [E], column [E], value [E, …] or None where it has no values."""

    row: Tensor
    column: Tensor
    value: Tensor | None
    shape: tuple[int, ...]


def from_adjacency(matrix: Any, *, name: str = "graph", dtype: torch.dtype | None = None) -> Data:
    r"""The graph of an adjacency matrix: an edge :math:`i \to j` of weight :math:`A_{ij}` for every entry.

    **The row is the source, the column the target**, as in NetworkX and in PyG's ``to_scipy_sparse_matrix`` and ``dense_to_sparse``;
    a rule's :math:`w_{ij}`, from j into i, and PyG's ``adj_t`` are the transpose: give ``matrix.T`` or ``adj_t.t()``.

    In a dense matrix 0 is no edge, nor in the blocks of a BSR or BSC one; in other sparse ones every stored entry is an edge, a stored 0
    too, and entries stored twice are summed.
    There is an ``edge_weight`` unless every weight is 1.

    Args:
        matrix: N × N: a dense tensor, array or nested list; a torch sparse tensor (COO, CSR, CSC, BSR, BSC); a
            ``torch_sparse.SparseTensor``; a SciPy sparse matrix or array.
        name: the graph's name.
        dtype: of the weights; default: torch's.

    Returns:
        Data with ``edge_index`` sorted by target, then source, ``num_nodes``, ``name`` and ``edge_weight`` [E] where they are not all 1.

    Raises:
        ValueError: if the matrix is not square, has no row, holds anything but real numbers or one that is not finite (the edge is named).

    Example:
        >>> from_adjacency([[0, 2], [0, 1]]).edge_index.tolist()
        [[0, 1], [1, 1]]
    """
    floating(dtype)
    if not isinstance(name, str):
        raise ValueError(f"name must be a str, got {name!r}")
    row, column, value, shape = entries(matrix)
    row, column = row.cpu(), column.cpu()
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"matrix must be square with at least one row, got {shape}")
    if value is not None and value.dim() != 1:
        raise ValueError(f"matrix must have one number per entry, got values {tuple(value.shape)}")
    refuse_too_large("matrix", nodes=shape[0], edges=len(row))
    weight = None if value is None else value.double().cpu()

    def where(i: int) -> str:
        return f"matrix[{int(row[i])}, {int(column[i])}]"

    data = build(torch.stack([row, column]), shape[0], name, where=where, weight=weight, parallel="sum", dtype=dtype)
    if data.edge_weight is not None and bool((data.edge_weight == 1).all()):
        del data.edge_weight
    return data


def from_scipy(matrix: Any, *, name: str = "graph", dtype: torch.dtype | None = None) -> Data:
    """The graph of a SciPy sparse matrix or array, any format: :func:`from_adjacency`, which see (row = source, column = target)."""
    import scipy.sparse

    if not scipy.sparse.issparse(matrix):
        raise ValueError(f"matrix must be a SciPy sparse matrix or array, got {type(matrix).__name__}: use from_adjacency")
    return from_adjacency(matrix, name=name, dtype=dtype)


def to_scipy(data: Data) -> scipy.sparse.csr_array:
    """The adjacency matrix of a graph, row = source and column = target: ``from_scipy(to_scipy(data))`` is the same graph.

    Parallel edges are summed; edges without a weight count 1. Stored zeros are edges of weight 0.

    Args:
        data: a graph with ``edge_index``, or a sparse ``adj_t``, and perhaps ``edge_weight`` [E].

    Returns:
        csr_array [N, N] of the weights' dtype (bfloat16 becomes float32), its indices sorted.

    Raises:
        ValueError: if this is no graph.
    """
    from scipy.sparse import coo_array

    edge_index, weight, num_nodes = edges_of(data)
    value = torch.ones(edge_index.size(1)) if weight is None else weight
    value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    source, target = edge_index.numpy()
    found = coo_array((value.numpy(), (source, target)), shape=(num_nodes, num_nodes)).tocsr()
    found.sum_duplicates()
    return found


def edges_of(data: Any) -> tuple[Tensor, Tensor | None, int]:
    """``edge_index`` int64 [2, E], ``edge_weight`` [E] or None, and N of a graph, checked, on the CPU and without a gradient."""
    if not isinstance(data, Data):
        raise ValueError(f"data must be a torch_geometric.data.Data, got {type(data).__name__}")
    edge_index, weight = data.get("edge_index"), data.get("edge_weight")
    if edge_index is None and data.get("adj_t") is not None:
        target, source, weight, shape = entries(data["adj_t"])
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"data.adj_t must be square, got {shape}")
        edge_index, num_nodes = torch.stack([source, target]), shape[0]
    else:
        num_nodes = data.num_nodes or 0
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2:
        got = tuple(edge_index.shape) if isinstance(edge_index, Tensor) else edge_index
        raise ValueError(f"data.edge_index must be a tensor [2, E], got {got}")
    if edge_index.is_floating_point() or edge_index.dtype == torch.bool:
        raise ValueError(f"data.edge_index must hold integers, got {edge_index.dtype}")
    edge_index = (edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index).detach().cpu().long()
    if num_nodes < 1:
        raise ValueError("data must have at least one node, got num_nodes=0")
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise ValueError(f"data.edge_index must hold node ids in [0, {num_nodes}), got {int(edge_index.min())} to {int(edge_index.max())}")
    if weight is not None and (not isinstance(weight, Tensor) or weight.shape != edge_index.shape[1:]):
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"data.edge_weight must be a tensor [{edge_index.size(1)}], got {got}")
    return edge_index, None if weight is None else weight.detach().cpu(), num_nodes


def entries(matrix: Any) -> Entries:
    """The entries of a matrix of any of the kinds that :func:`from_adjacency` takes, in the order in which they are stored.

    Raises:
        ValueError: if it is none of them, or does not hold real numbers.
    """
    if isinstance(matrix, torch_geometric.typing.SparseTensor):
        row, column, value = matrix.coo()
        found = Entries(row, column, value, tuple(matrix.sizes()[:2]))
    elif isinstance(matrix, Tensor):
        found = _of_tensor(matrix.detach())
    elif hasattr(matrix, "tocoo"):
        found = _of_scipy(matrix.tocoo())
    else:
        found = _of_tensor(_dense(matrix))
    row, column, value, shape = found
    if value is not None and _in_blocks(matrix):  # what fills up a block was not stored as an entry
        kept = value != 0
        row, column, value = row[kept], column[kept], value[kept]
    if value is not None and (value.is_complex() or value.is_quantized):
        raise ValueError(f"matrix must hold real numbers, got {value.dtype}")
    value = None if value is None or value.dtype == torch.bool else value.detach()
    return Entries(row.detach().long(), column.detach().long(), value, shape)


def _in_blocks(matrix: Any) -> bool:
    if isinstance(matrix, Tensor):
        return matrix.layout in (torch.sparse_bsr, torch.sparse_bsc)
    return getattr(matrix, "format", None) == "bsr"


def _of_tensor(matrix: Tensor) -> Entries:
    shape = tuple(matrix.shape)
    if matrix.layout == torch.strided:
        if matrix.dim() != 2:
            raise ValueError(f"matrix must have two axes, got {shape}")
        row, column = matrix.nonzero().unbind(1)  # NaN is not zero: it is found, and refused as a weight
        return Entries(row, column, matrix[row, column], shape)
    if matrix.layout != torch.sparse_coo:
        matrix = matrix.to_sparse_coo()
    if matrix.sparse_dim() != 2:
        raise ValueError(f"matrix must have two sparse axes, got {matrix.sparse_dim()} of shape {shape}")
    row, column = matrix._indices()  # of an uncoalesced tensor too: parallel edges stay apart
    return Entries(row, column, matrix._values(), shape[:2])


def _of_scipy(matrix: Any) -> Entries:
    shape = tuple(map(int, matrix.shape))
    if len(shape) != 2:
        raise ValueError(f"matrix must have two axes, got {shape}")
    row, column = (torch.from_numpy(axis.astype(np.int64)) for axis in (matrix.row, matrix.col))
    return Entries(row, column, _real(matrix.data), shape)


def _dense(matrix: Any) -> Tensor:
    if isinstance(matrix, (str, bytes)) or not hasattr(matrix, "__len__"):
        raise ValueError(f"matrix must be an N × N tensor, array, nested list or sparse matrix, got {matrix!r}")
    try:
        return _real(np.asarray(matrix))
    except (TypeError, ValueError) as error:
        raise ValueError(f"matrix must be N × N real numbers: {error}") from None


def _real(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"matrix must hold real numbers, got {array.dtype}")
    return torch.from_numpy(array if array.dtype == bool else array.astype(np.float64))
