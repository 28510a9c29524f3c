"""What the null models share: a graph taken from a ``Data``, checked, and put back with another wiring."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

_OF_THE_WIRING = ("shape", "edge_attr", "edge_type", "edge_types")  # mean nothing once an edge joins other nodes


class Graph(NamedTuple):
    """A graph on the CPU: edge_index [2, E] int64, weight [E] without gradient or None, and its other fields of edges."""

    edge_index: Tensor
    num_nodes: int
    weight: Tensor | None
    fields: dict[str, Tensor]
    name: str

    @property
    def num_edges(self) -> int:
        return self.edge_index.size(1)

    @property
    def loops(self) -> Tensor:
        return self.edge_index[0] == self.edge_index[1]

    def alike(self, edges: Tensor, others: Tensor) -> bool:
        """Whether every field that a rewired graph keeps is the same for each of the edges and its other."""
        return all(torch.equal(value[edges], value[others]) for value in self.fields.values())


def graph_of(data: Any, *, simple: bool = False) -> Graph:
    """The graph of a ``Data``.

    Raises:
        ValueError: no single graph with ``edge_index``, node ids out of range, weights that are not finite or not [E]; with
            ``simple``, parallel edges.
    """
    if not isinstance(data, Data) or isinstance(data, Batch):
        raise ValueError(f"data must be one torch_geometric.data.Data, got {type(data).__name__}")
    if not isinstance(data.get("edge_index"), Tensor) or data.get("adj_t") is not None:
        raise ValueError(f"data must have its edges in edge_index and nowhere else, got the fields {data.keys()}")
    given = data.edge_index.as_tensor() if isinstance(data.edge_index, EdgeIndex) else data.edge_index
    if given.dim() != 2 or given.size(0) != 2 or given.is_floating_point() or given.dtype == torch.bool:
        raise ValueError(f"data.edge_index must be an integer tensor [2, E], got {given.dtype} {tuple(given.shape)}")
    edge_index, num_nodes = given.cpu().long(), data.num_nodes or 0
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise ValueError(f"data.edge_index must hold node ids in [0, {num_nodes}), got {int(edge_index.min())} to {int(edge_index.max())}")
    if simple and len(edge_index.T) != len((edge_index[1] * num_nodes + edge_index[0]).unique()):
        raise ValueError(
            "data must have no parallel edges: an edge of a simple graph joins two nodes once; merge them first, by "
            'read_edge_table(type=None), from_networkx(parallel="sum") or torch_geometric.utils.coalesce'
        )
    fields = {key: value.detach().cpu() for key, value in data.to_dict().items() if _is_edge_field(data, key, value)}
    name = data.get("name")
    return Graph(edge_index, num_nodes, _weight_of(data, edge_index.size(1)), fields, name if isinstance(name, str) else "graph")


def _is_edge_field(data: Data, key: str, value: Any) -> bool:
    """Fields that an edge takes with it; what has "index" in its name numbers nodes, however long it is."""
    return isinstance(value, Tensor) and "index" not in key and key not in _OF_THE_WIRING and bool(data.is_edge_attr(key))


def _weight_of(data: Data, num_edges: int) -> Tensor | None:
    weight = data.get("edge_weight")
    if weight is None:
        return None
    if not isinstance(weight, Tensor) or weight.shape != (num_edges,):
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"data.edge_weight must be a tensor [{num_edges}], got {got}")
    if not bool(weight.isfinite().all()):
        raise ValueError("data.edge_weight must be finite, got NaN or infinity")
    return weight.detach().cpu()


def sign_of_sources(graph: Graph) -> Tensor | None:
    """The sign [N] of the weights that leave a node, 0 where none does but zeros, or None where some node has both or none has a weight."""
    if graph.weight is None:
        return None
    source, positive, negative = graph.edge_index[0], graph.weight > 0, graph.weight < 0
    has_positive, has_negative = (torch.bincount(source[which], minlength=graph.num_nodes) > 0 for which in (positive, negative))
    return None if bool((has_positive & has_negative).any()) else has_positive.long() - has_negative.long()


def rewired(data: Data, graph: Graph, edge_index: Tensor, carried: Tensor, suffix: str, sign: Tensor | None = None) -> Data:
    """``data`` with other edges by target, then source: edge e has the fields that edge carried[e] had, and its source's sign if given."""
    order = (edge_index[1] * graph.num_nodes + edge_index[0]).argsort()
    edge_index, carried = edge_index[:, order].contiguous(), carried[order]
    num_nodes, device, found = data.num_nodes, data.edge_index.device, copy.copy(data)
    for field in _OF_THE_WIRING:
        if field in found:
            del found[field]
    for field in graph.fields:
        found[field] = data[field][carried.to(device)]
    if sign is not None:
        found.edge_weight = found.edge_weight.abs() * sign[edge_index[0]].to(device, found.edge_weight.dtype)
    found.edge_index = edge_index.to(device)
    found.num_nodes, found.name = num_nodes, f"{graph.name}, {suffix}"
    return found
