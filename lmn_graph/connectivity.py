"""A graph, validated once, as the sorted index buffers that every rule and every sum over neighbours shares."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from lmn_graph.ports import ports_of
from topologies._matrix import entries

_LIMIT = 2**31 - 1
_EDGE_FIELDS = ("edge_weight", "edge_attr", "edge_type")


class Connectivity(nn.Module):
    r"""Compressed rows of the adjacency :math:`A_{ij}` (edge :math:`j \to i`) and of its transpose.

    Edges are sorted by target, then by source; input in another order is permuted once, and ``edge_weight``, ``edge_attr``
    and ``edge_type`` with it. Every ``[E]`` tensor of the library is in that order. Parallel edges stay parallel: each keeps
    a weight of its own and their contributions add up. Self-loops, isolated nodes and graphs without edges are valid.

    Attributes:
        edge_index: int64 ``[2, E]``, row 0 the source, row 1 the target.
        rowptr, col: int32 ``[N + 1]``, ``[E]``: the incoming edges of every node and their sources.
        rowptr_t, col_t, perm_t: the same for outgoing edges; ``values_t = values[perm_t]``.
        permutation: int64 ``[E]`` that sorted the input, or None where it was sorted; ``inverse`` undoes it.
        edge_weight, edge_attr, edge_type, pos: the graph's fields in this order, or None.
        column: int64 [N], the column of every node where the graph has columns, or None.
        input_index, output_index: int64 [P], the ports, or None.
        shape: the sides of a lattice, or None.

    Args:
        data: a PyG ``Data`` with at least one node and ``edge_index`` (an ``EdgeIndex`` too), or a sparse ``adj_t`` (row = target) as
            ``ToSparseTensor`` makes it, a torch sparse tensor or a ``torch_sparse.SparseTensor``: its values become ``edge_weight``
            unless all are 1, or ``edge_attr`` if they are vectors; other fields of the edges are in the order of its entries.

    Raises:
        ValueError: if the graph has no node, indices are out of range or not integers, or a field has another length.
    """

    edge_index: Tensor
    rowptr: Tensor
    col: Tensor
    rowptr_t: Tensor
    col_t: Tensor
    perm_t: Tensor
    permutation: Tensor | None
    inverse: Tensor | None
    edge_weight: Tensor | None
    edge_attr: Tensor | None
    edge_type: Tensor | None
    pos: Tensor | None
    column: Tensor | None
    input_index: Tensor | None
    output_index: Tensor | None

    def __init__(self, data: Data) -> None:
        super().__init__()
        with torch.inference_mode(False):  # a graph first met in an evaluation may be trained on later
            self._build(data)

    def _build(self, data: Data) -> None:
        if not isinstance(data, Data):
            raise ValueError(f"topology must be a torch_geometric.data.Data, got {type(data).__name__}")
        if data.get("edge_index") is None and data.get("adj_t") is not None:
            data = _from_transposed_adjacency(data)
        edge_index, num_nodes = _validated(data)
        self.num_nodes = num_nodes
        self.num_edges = edge_index.size(1)
        name = data.get("name")
        self.name = name if isinstance(name, str) else "graph"
        self.shape = lattice_shape(data)

        key = edge_index[1] * num_nodes + edge_index[0]
        order = None if bool((key[1:] >= key[:-1]).all()) else torch.argsort(key, stable=True)
        del key
        if order is not None:
            edge_index = edge_index[:, order]
        source, target = edge_index
        perm_t = torch.argsort(source, stable=True)
        buffers: dict[str, Tensor | None] = {
            "edge_index": edge_index.clone(memory_format=torch.contiguous_format),
            "permutation": order,
            "inverse": None if order is None else torch.argsort(order),
            "rowptr": _pointers(target, num_nodes),
            "col": source.int(),
            "rowptr_t": _pointers(source, num_nodes),
            "col_t": target[perm_t].int(),
            "perm_t": perm_t.int(),
            "pos": data.get("pos"),
            "column": _columns_of(data, num_nodes),
            "input_index": ports_of(data, "input_index"),
            "output_index": ports_of(data, "output_index"),
        }
        for field in _EDGE_FIELDS:
            value = _edge_field(data, field, self.num_edges)
            buffers[field] = value if value is None or order is None else value[order]
        for field, value in buffers.items():
            self.register_buffer(field, value, persistent=False)

    def in_degree(self) -> Tensor:
        """Number of incoming edges of every node, int32 ``[N]``."""
        return self.rowptr.diff()

    def out_degree(self) -> Tensor:
        """Number of outgoing edges of every node, int32 ``[N]``."""
        return self.rowptr_t.diff()

    def is_acyclic(self) -> bool:
        """True where no directed cycle (a self-loop is one) exists."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        if bool((self.edge_index[0] == self.edge_index[1]).any()):
            return False
        ones = torch.ones(self.num_edges, dtype=torch.int8).numpy()
        matrix = csr_array((ones, self.col.cpu().numpy(), self.rowptr.cpu().numpy()), shape=(self.num_nodes, self.num_nodes))
        components, _ = connected_components(matrix, directed=True, connection="strong")
        return int(components) == self.num_nodes

    def same_graph(self, other: Connectivity) -> bool:
        """Whether both have the same nodes and the same edges, in whatever order these were given."""
        same = self.num_nodes == other.num_nodes and self.edge_index.shape == other.edge_index.shape
        return same and torch.equal(self.edge_index, other.edge_index)

    def in_order_of(self, other: Connectivity) -> Connectivity:
        """This graph, its indices shared, as if its edges had been given in the order in which those of ``other`` were."""
        found = copy.copy(self)
        found._buffers = {**self._buffers, "permutation": other.permutation, "inverse": other.inverse}
        return found

    def reweighted(self, edge_weight: Tensor) -> Connectivity:
        """The same graph with other weights, given in the order of the input; they keep their gradient, the indices are shared."""
        if edge_weight.shape != (self.num_edges,) or not edge_weight.is_floating_point():
            got = f"{edge_weight.dtype} {tuple(edge_weight.shape)}"
            raise ValueError(f"edge_weight must be a floating-point tensor [{self.num_edges}], got {got}")
        other = copy.copy(self)
        value = edge_weight if self.permutation is None else edge_weight[self.permutation]
        other._buffers = {**self._buffers, "edge_weight": value}
        return other

    def extra_repr(self) -> str:
        return f"{self.name}, num_nodes={self.num_nodes}, num_edges={self.num_edges}"


def _validated(data: Any) -> tuple[Tensor, int]:
    edge_index = data.get("edge_index")
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2:
        got = tuple(edge_index.shape) if isinstance(edge_index, Tensor) else edge_index
        raise ValueError(f"topology.edge_index must be a tensor [2, E], got {got}")
    if edge_index.is_floating_point() or edge_index.dtype == torch.bool:
        raise ValueError(f"topology.edge_index must hold integers, got {edge_index.dtype}")
    edge_index = _trainable(edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index).long()
    num_nodes = data.num_nodes
    if not num_nodes or num_nodes < 1:
        raise ValueError(f"topology must have at least one node, got num_nodes={num_nodes}")
    if num_nodes > _LIMIT or edge_index.size(1) > _LIMIT:
        raise ValueError(f"topology must have fewer than 2**31 nodes and edges, got {num_nodes} and {edge_index.size(1)}")
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise ValueError(
            f"topology.edge_index must hold node ids in [0, {num_nodes}), got {int(edge_index.min())} to {int(edge_index.max())}"
        )
    return edge_index, int(num_nodes)


def _edge_field(data: Data, field: str, num_edges: int) -> Tensor | None:
    value = data.get(field)
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.dim() < 1 or value.size(0) != num_edges:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"topology.{field} must be a tensor with one entry per edge ({num_edges}), got {got}")
    if field == "edge_weight":
        if value.dim() != 1:
            raise ValueError(f"topology.edge_weight must have shape [{num_edges}], got {tuple(value.shape)}")
        value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
        if not bool(value.isfinite().all()):
            raise ValueError("topology.edge_weight must be finite, got NaN or infinity")
        value = value.clone() if value.data_ptr() == data[field].data_ptr() else value  # weights are changed in place; ours are not
    return _trainable(value).detach()


def _columns_of(data: Data, num_nodes: int) -> Tensor | None:
    column = data.get("column")
    if column is None:
        return None
    if not isinstance(column, Tensor) or tuple(column.shape) != (num_nodes,) or column.is_floating_point() or column.dtype == torch.bool:
        got = f"{column.dtype} {tuple(column.shape)}" if isinstance(column, Tensor) else type(column).__name__
        raise ValueError(f"topology.column must hold an integer per node [{num_nodes}], got {got}")
    return _trainable(column).long()


def _trainable(tensor: Tensor) -> Tensor:
    """A copy of a tensor made in inference mode, which autograd could not save; any other as it is."""
    return tensor.clone() if tensor.is_inference() else tensor


def _from_transposed_adjacency(data: Data) -> Data:
    """The same graph with ``edge_index``; entries that are stored twice are parallel edges."""
    target, source, value, shape = entries(data["adj_t"])
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"topology.adj_t must be square, got {shape}")
    found = copy.copy(data)
    del found["adj_t"]
    found.edge_index, found.num_nodes = torch.stack([source, target]), shape[0]
    if value is not None and value.dim() > 1:
        found.edge_attr = value
    elif value is not None and not bool((value == 1).all()):
        found.edge_weight = value
    return found


def lattice_shape(data: Data) -> tuple[int, ...] | None:
    """The sides of a lattice, or None where the graph is none (a batch of lattices is not).

    Raises:
        ValueError: if the sides do not multiply to the number of nodes, as in a subgraph of a lattice.
    """
    shape = data.get("shape")
    if not isinstance(shape, (tuple, list)) or not shape or not all(isinstance(side, int) for side in shape):
        return None
    if math.prod(shape) != data.num_nodes:
        raise ValueError(f"topology.shape must multiply to num_nodes={data.num_nodes}, got {tuple(shape)}; delete it if this is no lattice")
    return tuple(shape)


def _pointers(index: Tensor, num_nodes: int) -> Tensor:
    counts = torch.bincount(index, minlength=num_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
