"""Two ways to learn beside each other: how far their gradients agree, parameter by parameter."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lmn_graph.learning.base import BPTT, LearningRule
from lmn_graph.losses import TotalLoss
from lmn_graph.machine import LatticeMachine


class Agreement(NamedTuple):
    """How a gradient g compares with a reference r.

    Attributes:
        name: of the parameter, or "all".
        size: its numbers.
        cosine: ⟨g, r⟩ / (‖g‖ ‖r‖); 1 where both are zero, NaN where only one is.
        error: ‖g − r‖ / ‖r‖; NaN where only r is zero.
        largest: the largest |g − r|.
        reference: the largest |r|.
    """

    name: str
    size: int
    cosine: float
    error: float
    largest: float
    reference: float


def compare(
    machine: LatticeMachine,
    x: Tensor,
    y: Tensor,
    rule: LearningRule,
    reference: LearningRule | None = None,
    *,
    loss: TotalLoss | None = None,
) -> list[Agreement]:
    """The gradient of one batch by a rule and by a reference: a line for every parameter, and one for all together.

    The ``.grad`` of the parameters is left as it was.

    Args:
        machine, x, y, loss: as for :meth:`lmn_graph.learning.LearningRule.gradients`.
        rule: what is judged.
        reference: what it is judged by; back-propagation through time where None.

    Raises:
        ValueError: if nothing learns, or a rule is none.
    """
    named = [(name, parameter) for name, parameter in machine.named_parameters() if parameter.requires_grad]
    if not named:
        raise ValueError("machine must have a parameter that learns, got none")
    for name, given in (("rule", rule), ("reference", reference or BPTT())):
        if not isinstance(given, LearningRule):
            raise ValueError(f"{name} must be a LearningRule such as SnAP(1), got {given!r}")
    kept = [parameter.grad for _, parameter in named]
    found = []
    try:
        for learner in (rule, reference or BPTT()):
            for _, parameter in named:
                parameter.grad = None
            with torch.random.fork_rng(devices=[]):  # the same dropout for both, on the CPU
                learner.gradients(machine, x, y, loss=loss)
            gradients = (parameter.grad for _, parameter in named)
            found.append([torch.zeros_like(p) if g is None else g for (_, p), g in zip(named, gradients)])
    finally:
        for (_, parameter), grad in zip(named, kept):
            parameter.grad = grad
    rows = [_agreement(name, g, r) for (name, _), g, r in zip(named, *found)]
    return [*rows, _agreement("all", *(torch.cat([part.flatten() for part in parts]) for parts in found))]


def _agreement(name: str, g: Tensor, r: Tensor) -> Agreement:
    g, r = g.double().flatten(), r.double().flatten()
    norms, distance = (float(g.norm()), float(r.norm())), float((g - r).norm())
    cosine = float(g @ r) / (norms[0] * norms[1]) if min(norms) > 0 else math.nan if max(norms) > 0 else 1.0
    error = distance / norms[1] if norms[1] > 0 else 0.0 if distance == 0 else math.nan
    largest = float((g - r).abs().max()) if g.numel() else 0.0
    return Agreement(name, g.numel(), cosine, error, largest, float(r.abs().max()) if r.numel() else 0.0)
