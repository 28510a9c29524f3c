"""What every graph number reads: an edge list, its weights and its division into graphs, checked before any work."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from topologies import _checks
from topologies._graph import LIMIT

Graph: TypeAlias = Tensor | Data | Connectivity


def read_edges(edge_index: Any, num_nodes: Any) -> tuple[Tensor, int]:
    """``edge_index`` as int64 [2, E] and N: given, or that of a :class:`Connectivity` or a ``Data``, or the largest id + 1."""
    if isinstance(edge_index, Connectivity):
        return edge_index.edge_index, agreed(num_nodes, edge_index.num_nodes, "connectivity")
    if isinstance(edge_index, Data):
        edge_index, num_nodes = _of_data(edge_index, num_nodes)
    if not isinstance(edge_index, Tensor) or edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must be an integer tensor [2, E], got {described(edge_index)}")
    if edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool:
        raise ValueError(f"edge_index must hold integers, got {edge_index.dtype}")
    edges = edge_index.as_subclass(Tensor).long()
    if num_nodes is not None:
        num_nodes = _checks.integer("num_nodes", num_nodes, minimum=1, maximum=LIMIT)
    if edges.shape[1] == 0:
        if num_nodes is None:
            raise ValueError("num_nodes must be given for a graph without edges, got None")
        return edges, num_nodes
    low, high = (int(bound) for bound in torch.aminmax(edges))
    largest = LIMIT if num_nodes is None else num_nodes
    if low < 0 or high >= largest:
        raise ValueError(f"edge_index must hold node ids in [0, {largest}), got {low} to {high}")
    return edges, high + 1 if num_nodes is None else num_nodes


def agreed(num_nodes: Any, own: int, whose: str) -> int:
    """The number of nodes that a graph knows; a ValueError if another one is given."""
    if num_nodes is not None and _checks.integer("num_nodes", num_nodes) != own:
        raise ValueError(f"num_nodes must be that of the {whose}, {own}, or None, got {num_nodes}")
    return own


def _of_data(data: Data, num_nodes: Any) -> tuple[Any, Any]:
    if data.edge_index is None:
        if data.get("adj_t") is not None:
            raise ValueError("edge_index must be given, got a Data with adj_t only: pass its Connectivity, lmn_graph.Connectivity(data)")
        raise ValueError("edge_index must be an integer tensor [2, E], got a Data without one")
    if num_nodes is None:
        return data.edge_index, data.num_nodes
    return data.edge_index, agreed(num_nodes, data["num_nodes"], "Data") if "num_nodes" in data else num_nodes


def read_weight(edge_weight: Any, edges: Tensor, name: str = "edge_weight") -> Tensor | None:
    """``edge_weight`` of the edges [2, E] as [E] or [B, E] of floating point, finite; half precision is widened to float32.

    None stays None.
    """
    if edge_weight is None:
        return None
    num_edges = edges.shape[1]
    if not isinstance(edge_weight, Tensor) or edge_weight.ndim not in (1, 2) or edge_weight.shape[-1] != num_edges:
        raise ValueError(f"{name} must be a tensor [{num_edges}] or [B, {num_edges}], one weight per edge, got {described(edge_weight)}")
    if edge_weight.is_complex() or edge_weight.dtype == torch.bool:
        raise ValueError(f"{name} must hold real numbers, got {edge_weight.dtype}")
    require_device(name, edge_weight, edges)
    if not edge_weight.is_floating_point():
        return edge_weight.to(torch.get_default_dtype())
    values = edge_weight.detach()
    # one pass over the weights, and the elementwise test only where their sum is not finite (finite ones may overflow)
    if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return edge_weight.float() if edge_weight.dtype in (torch.float16, torch.bfloat16) else edge_weight


def read_dtype(dtype: Any) -> torch.dtype:
    """The dtype of a result that has no weights to take it from: torch's default unless given."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    return dtype


class Graphs(NamedTuple):
    """Which graph every node and every edge is in; ``node`` and ``edge`` are None where there is one graph only."""

    number: int
    node: Tensor | None
    edge: Tensor | None

    def sum(self, values: Tensor, of: str = "edge") -> Tensor:
        """[…, E or N] → […, G]: the sum over each graph."""
        index = self.edge if of == "edge" else self.node
        if index is None:
            return values.sum(-1, keepdim=True)
        return values.new_zeros(*values.shape[:-1], self.number).index_add(-1, index, values)

    def squeeze(self, values: Tensor) -> Tensor:
        """[…, G] as it is for a batch of graphs, […] for a single one."""
        return values.squeeze(-1) if self.node is None else values


def read_batch(batch: Any, edges: Tensor, num_nodes: int) -> Graphs:
    """``batch`` as PyG gives it: the number of the graph of every node; no edge may join two graphs."""
    if batch is None:
        return Graphs(1, None, None)
    if not isinstance(batch, Tensor) or batch.shape != (num_nodes,) or batch.is_floating_point() or batch.dtype == torch.bool:
        raise ValueError(f"batch must be an integer tensor [{num_nodes}], the graph of every node, got {described(batch)}")
    require_device("batch", batch, edges)
    node = batch.long()
    if int(node.min()) < 0 or int(node.max()) >= LIMIT:
        raise ValueError(f"batch must hold graph numbers >= 0, got {int(node.min())} to {int(node.max())}")
    of_source = node.index_select(0, edges[0])
    across = of_source != node.index_select(0, edges[1])
    if bool(across.any()):
        first = int(across.nonzero()[0])
        raise ValueError(f"batch must not separate the ends of an edge, got {int(edges[0, first])} → {int(edges[1, first])}")
    return Graphs(int(node.max()) + 1, node, of_source)


def require_device(name: str, value: Tensor, edges: Tensor) -> None:
    """A ValueError unless a tensor is where the graph is."""
    if value.device != edges.device:
        raise ValueError(f"{name} must be on the device of the graph, {edges.device}, got {value.device}: move one of them")


def require_symmetric(edges: Tensor, weight: Tensor | None, num_nodes: int) -> None:
    """A ValueError unless every edge u → v has its v → u, with the same weight up to rounding; parallel edges add up.

    Sorting to find the partners costs more than most of the numbers here. So first a test that takes one pass: with a random x per
    node, Σ_e w_e x_s x_t (x_s − x_t) vanishes for symmetric weights and, but for an accident of the random numbers, for no others: as a
    polynomial it has the coefficient w_st − w_ts at x_s² x_t. Only where it does not vanish are the partners looked up, and the first
    pair that disagrees is named.
    """
    x = torch.rand(num_nodes, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(edges.device)
    of_source, of_target = x.index_select(0, edges[0]), x.index_select(0, edges[1])
    contrast = (of_source - of_target).mul_(of_source).mul_(of_target)
    rounding = 8 * torch.finfo(torch.float64).eps
    fine = bool(contrast.sum().abs() <= rounding * edges.shape[1])
    if fine and weight is not None:
        values = weight.detach().double()
        fine = bool(((values @ contrast).abs() <= rounding * values.abs().sum(-1)).all())
    if not fine:
        _name_asymmetry(edges, weight, num_nodes)


def _name_asymmetry(edges: Tensor, weight: Tensor | None, num_nodes: int) -> None:
    source, target = edges
    key, reverse = source * num_nodes + target, target * num_nodes + source
    present, slot = torch.unique(key, return_inverse=True)
    partner = torch.searchsorted(present, reverse).clamp(max=present.numel() - 1)
    missing = present[partner] != reverse
    if bool(missing.any()):
        raise_one_way(edges, missing)
    if weight is None:
        return
    for values in torch.atleast_2d(weight.detach()):
        total = values.new_zeros(present.numel()).index_add_(0, slot, values)
        require_agreement(edges, total[slot], total[partner])


def raise_one_way(edges: Tensor, missing: Tensor) -> None:
    """A ValueError for the first edge without a partner."""
    u, v = edges[:, int(missing.nonzero()[0])].tolist()
    raise ValueError(f"edge_index must hold both directions of every edge, got {u} → {v} without {v} → {u}: add it, or pass directed=True")


def require_agreement(edges: Tensor, there: Tensor, back: Tensor) -> None:
    """A ValueError where the weights of the two directions differ by more than rounding; edges [2, P], weights [P]."""
    if there.numel() == 0:
        return
    rounding = 16 * torch.finfo(there.dtype).eps * there.abs().max()
    differ = (there - back).abs() > rounding
    if bool(differ.any()):
        first = int(differ.nonzero()[0])
        u, v = edges[:, first].tolist()
        raise ValueError(
            f"edge_weight must be the same in both directions of an edge, got {float(there[first]):g} for {u} → {v} and "
            f"{float(back[first]):g} for {v} → {u}: opposite edges that disagree need directed=True"
        )


def described(value: Any) -> str:
    """What came, for an error message, in a few words."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, (bool, int, float)) else type(value).__name__
