"""The drive of a rollout: F frames, each for T / F steps, of which it enters at every one or at the first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def frame_at(frames: Sequence[Tensor] | Tensor | None, t: int, steps: int, inject: str) -> Tensor | None:
    """What drives step ``t`` of ``steps``: a frame [N, B(, C)] or nothing."""
    if frames is None:
        return None
    hold = steps // len(frames)
    return None if inject == "first" and t % hold else frames[t // hold]


def frames_of(frames: Tensor | None, start: int, stop: int, steps: int, inject: str) -> Tensor | None:
    """The frames of the steps ``start`` … ``stop`` − 1 of ``steps`` as those of a run of its own, or None where nothing drives it."""
    if frames is None or (start, stop) == (0, steps):
        return frames
    hold = steps // len(frames)
    if len(frames) == 1:
        return frames if start == 0 or inject == "every" else None
    if start % hold == stop % hold == 0:
        return frames[start // hold : stop // hold]
    each = [frame_at(frames, t, steps, inject) for t in range(start, stop)]
    return torch.stack([torch.zeros_like(frames[0]) if frame is None else frame for frame in each])


def frame_of_each(frames: Tensor, steps: int, inject: str) -> Tensor:
    """One frame a step, zero where nothing enters."""
    hold = steps // len(frames)
    if hold == 1:
        return frames
    if inject == "every":
        return frames.repeat_interleave(hold, 0)
    return torch.cat([frames.unsqueeze(1), frames.new_zeros(len(frames), hold - 1, *frames.shape[1:])], 1).flatten(0, 1)
