"""What every estimator reads: the population activity of each sample, [B, T], out of a raster [B, T, N(, C)]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmn_graph.ops._kernels import is_watched


def check_raster(name: str, raster: Any, *, steps: int) -> Tensor:
    """``raster`` as a tensor [B, T, N(, C)] with at least one sample and ``steps`` steps, in a dtype that can hold its sums.

    Half precision is widened to float32 (a bfloat16 sum stops counting at 256); booleans and integers become floats.
    """
    if not isinstance(raster, Tensor):
        raise ValueError(f"{name} must be a tensor [B, T, N(, C)], got {type(raster).__name__}")
    if raster.ndim not in (3, 4) or raster.shape[0] == 0:
        raise ValueError(f"{name} must be [B, T, N(, C)] with at least one sample, got shape {tuple(raster.shape)}")
    if raster.shape[1] < steps:
        raise ValueError(f"{name} must cover at least {steps} steps, got {raster.shape[1]} (shape {tuple(raster.shape)})")
    if raster.is_complex():
        raise ValueError(f"{name} must be real, got {raster.dtype}")
    if not raster.is_floating_point():
        return raster.to(torch.get_default_dtype())
    return raster.float() if raster.dtype in (torch.float16, torch.bfloat16) else raster


def population(raster: Tensor) -> Tensor:
    """A_t = Σ_i s_i(t): [B, T, N(, C)] → [B, T]."""
    return raster.flatten(2).sum(2)


def magnitude(raster: Tensor) -> Tensor:
    """|s|, elementwise, with derivative +1 at s = 0.

    ``torch.abs`` has derivative 0 there, which would take the surrogate gradient away from every neuron that is silent. A raster of
    spikes is its own magnitude, which is seen at once: it may be large.
    """
    if not is_watched(raster) and raster.numel() and bool(raster.detach().amin() >= 0):
        return raster
    return torch.where(raster < 0, -raster, raster)
