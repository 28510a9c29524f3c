"""Parameters drawn anew."""

from __future__ import annotations

from torch import nn


def reset_parts(module: nn.Module) -> None:
    """Draw the parameters of all parts of a module anew, inner parts first: torch's attention then zeroes its biases as in a new one."""
    for part in reversed(list(module.modules())):
        reset = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))  # torch's attention has the latter
        if part is not module and callable(reset):
            reset()
