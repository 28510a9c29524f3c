"""The functional graph: how strongly the two ends of every edge are active together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _kernels


def functional_weights(connectivity: Connectivity | Data, activity: Tensor) -> Tensor:
    r"""Pearson's correlation of the activities at the two ends of every edge, over all samples and steps.

    .. math:: w_e = \langle z_{s(e)}, z_{t(e)} \rangle, \qquad z_i = \frac{a_i - \bar a_i}{\lVert a_i - \bar a_i \rVert}

    Differentiable in the activity, to any order. One sampled product of O(E·B·T); nothing larger than the activity exists at any time,
    so neither the N×N matrix of all correlations nor an [E, B·T] tensor. A node whose activity does not vary has correlation 0 with
    all, and derivative 0. A self-loop has correlation 1; the weights of the two directions of an edge are equal up to rounding.

    Args:
        connectivity: the graph, or a ``Data`` to make it of.
        activity: [B, T, N], at least two values per node; integers and booleans become floats, half precision float32.

    Returns:
        [E], in the order of ``connectivity.edge_index`` (sorted by target, then source).

    Raises:
        ValueError: for an ``activity`` of another shape or not finite.
    """
    graph = connectivity if isinstance(connectivity, Connectivity) else Connectivity(connectivity)
    columns = _read(activity, graph.num_nodes)
    deviation = columns - columns.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(deviation.detach(), dim=1)
    # What rounding alone leaves of a constant is no variance.
    rounding = 4 * torch.finfo(columns.dtype).eps * columns.detach().abs().amax(1) * columns.shape[1] ** 0.5
    constant = (norm <= rounding)[:, None]
    square = deviation.square().sum(1, keepdim=True).masked_fill(constant, 1)
    z = (deviation / square.sqrt()).masked_fill(constant, 0).contiguous()
    return _kernels.sddmm(*_kernels.Pattern.of(graph), z, z)


def _read(activity: Any, nodes: int) -> Tensor:
    """[N, B·T], contiguous."""
    expected = f"a real tensor [B, T, {nodes}] with at least two values per node"
    if not isinstance(activity, Tensor) or activity.ndim != 3 or activity.shape[2] != nodes or activity.shape[:2].numel() < 2:
        got = tuple(activity.shape) if isinstance(activity, Tensor) else type(activity).__name__
        raise ValueError(f"activity must be {expected}, got {got}")
    if activity.is_complex():
        raise ValueError(f"activity must be {expected}, got {activity.dtype}")
    if not activity.is_floating_point():
        activity = activity.to(torch.get_default_dtype())
    elif activity.dtype in (torch.float16, torch.bfloat16):
        activity = activity.float()
    if not bool(activity.detach().isfinite().all()):
        raise ValueError("activity must be finite, got NaN or infinity")
    return activity.permute(2, 0, 1).reshape(nodes, -1)
