"""The magnitude-gated sum over neighbours of relativistic automata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled
from lmn_graph.ops._messages import PULL_BACKS
from lmn_graph.ops.lowrank import LowRankWeight, gated_lowrank_sum
from lmn_graph.ops.message import message_sum, num_kinds
from topologies import _checks

Gate = Literal["norm", "channel"]
_RANGE = 20.0  # of |α x| up to which the gate is a ratio of exponentials: the cubes of these stay within float32


def magnitude(x: Tensor, gate: Gate = "norm") -> Tensor:
    """|x| of scalar cells [N, B] or per channel; for cells with channels [N, B, C] their Euclidean norm [N, B, 1] with ``gate="norm"``.

    The derivative at 0 is 0, for the norm as for the modulus, and so is the second.
    """
    if x.dim() == 2 or gate == "channel":
        return x.abs()
    square = x.square().sum(-1, keepdim=True)
    silent = square == 0
    return torch.where(silent, 0.0, torch.where(silent, 1.0, square).sqrt())


def sigmoid_message(u_i: Tensor, u_j: Tensor, x_j: Tensor, weight: Tensor) -> Tensor:
    """σ(u_i − u_j) w_ij x_j."""
    return torch.sigmoid(u_i - u_j) * weight * x_j


def ratio_message(p_i: Tensor, p_j: Tensor, x_j: Tensor, weight: Tensor) -> Tensor:
    """w_ij x_j / (p_i + p_j)."""
    return weight * x_j / (p_i + p_j)


def _pull_back(args: Sequence[Tensor], g: Tensor, wanted: tuple[int, ...]) -> list[Tensor]:
    """The gradients of :func:`ratio_message` to its arguments 0 … 3."""
    p_i, p_j, x_j, weight = args
    both = p_i + p_j
    share = g / both
    found = {}
    if 0 in wanted or 1 in wanted:
        found[0] = found[1] = -share * (weight * x_j) / both
    if 2 in wanted:
        found[2] = share * weight
    if 3 in wanted:
        found[3] = share * x_j
    return [found[at] for at in wanted]


PULL_BACKS[ratio_message] = _pull_back


def gated_sum(
    connectivity: Connectivity,
    x: Tensor,
    weight: Tensor | LowRankWeight,
    alpha: Tensor | float,
    *,
    gate: Gate = "norm",
    per: Literal["edge", "type"] = "edge",
    compile: _compiled.Compile = "auto",
) -> Tensor:
    r"""The gated sum over incoming edges, :math:`y_i = \sum_{j \to i} \sigma(\alpha(|x_i| - |x_j|))\, w_{ij}\, x_j`.

    With :math:`p = e^{\alpha|x|}` the gate is :math:`p_i / (p_i + p_j)`: one exponential per node instead of one per edge. Where
    |αx| exceeds 20, which would leave the range of float32, the sigmoid itself is computed. Gradients of every order to ``x``,
    ``weight`` and ``alpha``; memory as of :func:`lmn_graph.ops.message_sum`.

    Args:
        connectivity: the graph, N nodes and E edges.
        x: the state, [N, B] or [N, B, C].
        weight: one per edge [E] in the order of ``connectivity.edge_index``; per sample [E, B]; with channels also [E, 1, C] or
            [E, B, C]. With ``per="type"`` the first axis is the edge type, [K] and so on, and edges of one type share it: it is not
            spread over them, nor is its gradient. Or a :class:`lmn_graph.ops.LowRankWeight`, of which no weight is kept either.
        alpha: steepness α, a finite number or a tensor of one; [N, 1] for one per node; with channels also [C].
        gate: with channels, whether |·| is the norm of a cell or each channel has a gate of its own.
        per: what the first axis of ``weight`` counts.
        compile: see :func:`lmn_graph.ops.message_sum`.

    Returns:
        Tensor with the shape and dtype of ``x``.

    Raises:
        ValueError: if a shape does not fit the graph or the state, or α is not finite.

    Source: the update of Block and BlockSparse in the Lattice Machine Networks repository.
    """
    _check_state(connectivity, x)
    _checks.choice("gate", gate, ("norm", "channel"))
    if isinstance(weight, LowRankWeight):
        u = _steepness(alpha, x) * magnitude(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, gate)
        return gated_lowrank_sum(connectivity, x, weight, u, ratio=_is_small(u), compile=compile)
    _check_weight(connectivity, weight, per)
    if weight.dim() > x.dim() or (weight.dim() > 1 and any(w not in (1, n) for w, n in zip(weight.shape[1:], x.shape[1:]))):
        raise ValueError(f"weight must fit a state of shape {tuple(x.shape)} from its second axis on, got {tuple(weight.shape)}")
    edge, kind = (weight, ()) if per == "edge" else ((), weight)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    u = _steepness(alpha, x) * magnitude(wide, gate)
    if not _is_small(u):
        return message_sum(connectivity, sigmoid_message, u, (u, wide), edge, kind, compile=compile).to(x.dtype)
    p = u.exp()
    y = p * message_sum(connectivity, ratio_message, p, (p, wide), edge, kind, compile=compile)
    return y.to(x.dtype)


def _is_small(u: Tensor) -> bool:
    """Whether the exponentials stay in range; a traced step must not depend on it and computes the sigmoid."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return not u.numel() or bool(u.detach().abs().amax() <= _RANGE)  # not if one is NaN


def _steepness(alpha: Tensor | float, x: Tensor) -> Tensor:
    if not isinstance(alpha, Tensor):
        return x.new_tensor(_checks.number("alpha", alpha))
    shapes = {(), (1,), (x.size(0), 1), (1, 1)} | ({(x.size(2),), (x.size(0), 1, 1), (1, 1, x.size(2))} if x.dim() == 3 else set())
    if tuple(alpha.shape) not in shapes or not alpha.is_floating_point():
        raise ValueError(
            f"alpha must be a number or a floating-point tensor of shape [], [N, 1] or [C], got {alpha.dtype} {tuple(alpha.shape)}"
        )
    if not torch.compiler.is_compiling() and not bool(alpha.detach().isfinite().all()):
        raise ValueError("alpha must be finite, got NaN or infinity")
    return alpha.unsqueeze(-1) if x.dim() == 3 and tuple(alpha.shape) == (x.size(0), 1) else alpha


def _check_weight(connectivity: Connectivity, weight: Tensor, per: str) -> None:
    _checks.choice("per", per, ("edge", "type"))
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.dim() < 1:
        got = f"{weight.dtype} {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight must be a floating-point tensor, one entry per {per}, got {got}")
    if per == "edge":
        if weight.size(0) != connectivity.num_edges:
            raise ValueError(f"weight must have one entry per edge ({connectivity.num_edges}), got shape {tuple(weight.shape)}")
        return
    kind = connectivity.edge_type
    if kind is None:
        raise ValueError(f"weight per type needs a graph with edge_type, got {connectivity}")
    kinds = num_kinds(connectivity)
    if kinds is not None and weight.size(0) < kinds:
        raise ValueError(f"weight must have one entry per edge type ({kinds}), got shape {tuple(weight.shape)}")


def _check_state(connectivity: Connectivity, x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dim() not in (2, 3) or x.size(0) != connectivity.num_nodes or not x.is_floating_point():
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else f"{type(x).__name__} {x!r}"
        raise ValueError(f"x must be a floating-point tensor [N, B] or [N, B, C] with N = {connectivity.num_nodes}, got {got}")
