"""The displacements that the edges of a lattice stand for, one for every type."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity

SAME = 1e-5  # relative: displacements of one offset, and distances beside the radius, are equal up to the rounding of float32


def displacements(connectivity: Connectivity) -> Tensor:
    """The displacement source − target of every edge type, float64 [K, D] on the CPU; NaN for types that no edge has.

    Raises:
        ValueError: if the lattice has no displacements or types, or several displacements for a type.
    """
    for field, what in (("edge_attr", "the displacement of every edge"), ("edge_type", "which offset each edge belongs to")):
        if getattr(connectivity, field) is None:
            raise ValueError(
                f"topology must have edge_attr and edge_type, as lattices of topologies have: {connectivity} lacks {field}, {what}"
            )
    attr, kind = cast(Tensor, connectivity.edge_attr).detach().cpu().double(), cast(Tensor, connectivity.edge_type).cpu()
    attr = attr[:, None] if attr.dim() == 1 else attr
    edges = connectivity.num_edges
    whole = kind.dim() == 1 and not kind.is_floating_point() and kind.dtype != torch.bool
    if not whole or (edges and (int(kind.min()) < 0 or int(kind.max()) >= edges)):
        raise ValueError(f"topology.edge_type must be integers [E] that count the offsets from 0, got {kind.dtype} {tuple(kind.shape)}")
    if attr.dim() != 2 or not bool(attr.isfinite().all()):
        got = f"{tuple(attr.shape)}" + ("" if bool(attr.isfinite().all()) else " with NaN or infinity")
        raise ValueError(f"topology.edge_attr must be finite displacements [E, D], got {got}")
    table = attr.new_full((int(kind.max()) + 1 if edges else 0, attr.size(1)), torch.nan)
    table[kind] = attr
    differs = (table[kind] - attr).abs().amax(1) > SAME * longest(table) if edges else torch.zeros(0, dtype=torch.bool)
    if bool(differs.any()):
        port = int(kind[differs][0])
        raise ValueError(f"topology.edge_attr must be one displacement for every edge_type, got several for type {port} of {connectivity}")
    return table


def longest(displacement: Tensor) -> float:
    """The length of the longest displacement; 0 where there is none."""
    length = displacement.norm(dim=1)
    length = length[length.isfinite()]
    return float(length.max()) if length.numel() else 0.0
