"""Dynamics in full precision where ``torch.autocast`` is on: a rounded state would be another trajectory, and other spikes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def is_autocast(device: torch.device | None) -> bool:
    """Whether ``torch.autocast`` is on for a device."""
    return device is not None and torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def full_precision(device: torch.device | None) -> AbstractContextManager[Any]:
    """A block without autocast on a device."""
    return torch.autocast(device.type, enabled=False) if device is not None and is_autocast(device) else nullcontext()


def widened(value: Any) -> Any:
    """A tensor in float32 at least, and a state whose fields are; anything else is left as it is."""
    if isinstance(value, Tensor):
        return value.to(torch.promote_types(value.dtype, torch.float32)) if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(widened, value))
    return value
