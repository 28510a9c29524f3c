"""Ports: the nodes that a topology names as its inputs and outputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks


def ports_of(topology: Data, field: str, use: bool = True) -> Tensor | None:
    """The node ids in ``topology.input_index`` or ``topology.output_index``, int64 [P] in their order; None for all nodes.

    Args:
        topology: the graph.
        field: "input_index" or "output_index".
        use: False ignores the ports.

    Raises:
        ValueError: if the field is no 1-D tensor of distinct node ids, at least one of them.
    """
    _checks.flag("ports", use)
    found = topology.get(field) if use and isinstance(topology, Data) else None
    if found is None:
        return None
    if not isinstance(found, Tensor) or found.dim() != 1 or found.is_floating_point() or found.dtype == torch.bool or not found.numel():
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"topology.{field} must be a tensor [P] of node ids, P >= 1, got {got}")
    if int(found.min()) < 0 or int(found.max()) >= topology.num_nodes:
        raise ValueError(f"topology.{field} must hold node ids in [0, {topology.num_nodes}), got {int(found.min())} to {int(found.max())}")
    if found.unique().numel() != found.numel():
        raise ValueError(f"topology.{field} must hold distinct node ids, got {found.numel()} of which {found.unique().numel()} differ")
    return found.long().clone()
