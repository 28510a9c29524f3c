"""Arguments of the estimators that run a rule themselves: a state, a drive, a source of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lmn_graph.rules import UpdateRule


def check_state(rule: UpdateRule, state: Any) -> int:
    """The batch size of a rule's state: a NamedTuple whose first field is [N, B(, C)]."""
    if not (isinstance(state, tuple) and hasattr(state, "_fields") and len(state) and isinstance(state[0], Tensor)):
        raise ValueError(f"state must be the rule's NamedTuple of tensors, got {type(state).__name__}")
    first = state[0]
    channels = () if rule.channels is None else (rule.channels,)
    if first.ndim != 2 + len(channels) or first.shape[0] != rule.num_nodes or tuple(first.shape[2:]) != channels or not first.shape[1]:
        expected = ", ".join(map(str, (rule.num_nodes, "B", *channels)))
        raise ValueError(f"state.{state._fields[0]} must be node-major [{expected}] with B ≥ 1, got shape {tuple(first.shape)}")
    if not first.is_floating_point():
        raise ValueError(f"state.{state._fields[0]} must be floating point, got {first.dtype}")
    return first.shape[1]


def drive_at(rule: UpdateRule, drive: Any, batch_size: int, steps: int) -> Callable[[int], Tensor | None]:
    """Step number → drive of that step, node-major; from batch-first [B, N(, C)], [B, T, N(, C)] with T ≥ ``steps``, or None."""
    if drive is None:
        return lambda step: None
    channels = () if rule.channels is None else (rule.channels,)
    if not isinstance(drive, Tensor) or drive.ndim not in (2 + len(channels), 3 + len(channels)):
        came = f"shape {tuple(drive.shape)}" if isinstance(drive, Tensor) else type(drive).__name__
        raise ValueError(f"drive must be [B, N{', C' if channels else ''}] or [B, T, N{', C' if channels else ''}], got {came}")
    per_step = drive.ndim == 3 + len(channels)
    expected = (batch_size, *((drive.shape[1],) if per_step else ()), rule.num_nodes, *channels)
    if tuple(drive.shape) != expected:
        raise ValueError(f"drive must have shape {expected} to fit the state and the rule, got {tuple(drive.shape)}")
    if not per_step:
        constant = drive.transpose(0, 1)
        return lambda step: constant
    if drive.shape[1] < steps:
        raise ValueError(f"drive must cover {steps} steps, got {drive.shape[1]}")
    return lambda step: drive[:, step].transpose(0, 1)


def gaussian(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in the shape, dtype and device of ``like``, drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def norms(fields: list[Tensor]) -> Tensor:
    """The Euclidean norm of each sample over all fields [N, B(, C)]: [B]."""
    return torch.linalg.vector_norm(torch.cat([field.transpose(0, 1).flatten(1) for field in fields], 1), dim=1)


def per_sample(scale: Tensor, field: Tensor) -> Tensor:
    """[B] → [1, B(, 1)], to scale a field [N, B(, C)]."""
    return scale.view(1, -1, *(1,) * (field.ndim - 2))


def usable(tensor: Tensor) -> Tensor:
    """``tensor``, copied where it was made in inference mode, which autograd refuses; to be called outside that mode."""
    return tensor.clone() if tensor.is_inference() else tensor
