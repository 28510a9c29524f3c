"""From a list of edges to a ``Data``: weights checked, parallel edges merged, reverse edges added. Every converter ends here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import assemble, both_directions

Parallel = Literal["error", "sum", "keep"]
PARALLEL = ("error", "sum", "keep")
Where = Callable[[int], str]  # how to name edge i in a message


def floating(dtype: torch.dtype | None) -> torch.dtype:
    """``dtype``, or torch's default where it is None; only floating point passes."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    return dtype


def build(
    ends: Tensor,
    num_nodes: int,
    name: str,
    *,
    where: Where,
    weight: Tensor | None = None,
    kind: Tensor | None = None,
    undirected: bool = False,
    parallel: str = "error",
    dtype: torch.dtype | None = None,
    edges: Mapping[str, Tensor] | None = None,
) -> Data:
    """The graph of a list of edges.

    Args:
        ends: source and target of every edge, [2, M], within range.
        num_nodes: N >= 1.
        name: the graph's name.
        where: how to name edge i in a message.
        weight: float64 [M], or None where every edge counts 1.
        kind: integer codes [M] that become ``edge_type``: edges of different kinds are never parallel.
        undirected: an edge stands for both directions; u-v and v-u are the same one.
        parallel: as in :func:`topologies.from_edges`.
        dtype: of the weights.
        edges: further tensors [M, …]; they are left out where edges were merged.
    """
    _checks.choice("parallel", parallel, PARALLEL)
    values = dict(edges or {})
    source, target = ends
    if weight is not None:
        _refuse_not_finite(weight, torch.float64, where)
    if undirected:
        source, target = torch.minimum(source, target), torch.maximum(source, target)
    if parallel != "keep":
        merged = _merged(source, target, num_nodes, weight, kind, parallel, where)
        if merged is not None:
            first, weight = merged
            source, target, kind, values = source[first], target[first], None if kind is None else kind[first], {}
            kept, of_all = first.tolist(), where
            where = lambda i: of_all(kept[i])  # noqa: E731
    if weight is not None:
        values["edge_weight"] = weight.to(floating(dtype))
        _refuse_not_finite(values["edge_weight"], floating(dtype), where)
    if kind is not None:
        values["edge_type"] = kind
    edge_index = torch.stack([source, target])
    if undirected:
        back = source != target
        edge_index = both_directions(edge_index)
        values = {field: torch.cat([value, value[back]]) for field, value in values.items()}
    return assemble(edge_index, num_nodes, name, values)


def _refuse_not_finite(weight: Tensor, dtype: torch.dtype, where: Where) -> None:
    bad = (~weight.isfinite()).nonzero()
    if len(bad):
        value, i = weight[bad[0, 0]].item(), int(bad[0, 0])
        raise ValueError(
            f"{where(i)}: weight must be a finite number" + (f" in {dtype}" if dtype != torch.float64 else "") + f", got {value}"
        )


def _merged(
    source: Tensor, target: Tensor, num_nodes: int, weight: Tensor | None, kind: Tensor | None, parallel: str, where: Where
) -> tuple[Tensor, Tensor | None] | None:
    """The first edge of every group of parallel ones and the group's weight, or None where no two edges are parallel."""
    key = target * num_nodes + source
    order = key.argsort(stable=True) if kind is None else kind.argsort(stable=True)
    if kind is not None:
        order = order[key[order].argsort(stable=True)]
    ranked = key[order]
    new = torch.ones(len(order), dtype=torch.bool)
    new[1:] = ranked[1:] != ranked[:-1]
    if kind is not None:
        new[1:] |= kind[order].diff() != 0
    if bool(new.all()):
        return None
    first, group = order[new], new.cumsum(0) - 1
    if parallel == "sum":
        ones = torch.ones(len(order), dtype=torch.float64)
        return first, torch.zeros(len(first), dtype=torch.float64).index_add_(0, group, ones if weight is None else weight[order])
    if weight is None:
        return first, None
    differs = (weight[order] != weight[first][group]).nonzero().flatten()
    if len(differs):
        i = int(order[differs].min())
        at = int((order == i).nonzero())
        one = int(first[group[at]])
        raise ValueError(
            f"{where(i)}: weight {weight[i].item():g} where {where(one)} has {weight[one].item():g} between the same nodes; "
            "parallel='sum' adds them up, parallel='keep' keeps both"
        )
    return first, weight[first]
