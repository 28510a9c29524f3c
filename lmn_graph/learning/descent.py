"""Plain gradient descent with step sizes by group."""

from __future__ import annotations

import torch
from torch import nn

from lmn_graph.rules.base import UpdateRule
from topologies import _checks


def sgd(module: nn.Module, lr: float) -> torch.optim.SGD:
    r"""Stochastic gradient descent, θ ← θ − η_θ ∂L/∂θ, without any state: no momentum, nothing kept per parameter.

    Step sizes are η, times ``lr_scales`` of the rule that a parameter belongs to: biases of :class:`lmn_graph.rules.FilterGrid` move by
    η / 20, its time constants by 4η.

    Args:
        module: a machine, a rule, or what contains some.
        lr: η > 0.

    Raises:
        ValueError: if η is out of range or nothing learns.

    Source: the hardware-realistic setting of grid-neurons (github.com/ThomasPluck/grid-neurons).
    """
    lr = _checks.number("lr", lr, above=0)
    scales: dict[nn.Parameter, float] = {}
    for part in module.modules():
        if isinstance(part, UpdateRule):
            scales |= {
                getattr(part, name): scale for name, scale in part.lr_scales.items() if isinstance(getattr(part, name), nn.Parameter)
            }
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault(scales.get(parameter, 1.0), []).append(parameter)
    if not any(groups.values()):
        raise ValueError("module must have a parameter that learns, got none")
    return torch.optim.SGD([{"params": params, "lr": lr * scale} for scale, params in groups.items() if params], lr=lr)
