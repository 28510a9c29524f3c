"""The largest Lyapunov exponent of a rule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmn_graph.criticality._run import check_state, drive_at, gaussian, norms, per_sample
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.rules import UpdateRule


@torch.no_grad()
def lyapunov(
    rule: UpdateRule,
    state: Any,
    drive: Tensor | None,
    *,
    steps: int = 100,
    discard: int = 10,
    generator: torch.Generator | None = None,
    context: Any = None,
) -> Tensor:
    """λ = (1/k) Σ_t ln(‖δ_{t+1}‖ / ‖δ_t‖), ‖δ_t‖ brought back to the same small size before every step (Benettin 1980).

    δ is the difference of two runs with the same drive, over all floating-point fields of the state; its size is √ε of the dtype
    (3.5e-4 in float32, 1.5e-8 in float64) for each entry, where truncation and rounding balance for states of order 1. λ < 0: the
    rule forgets; λ > 0: chaos; 0 between. For rules whose state jumps (spiking) use damage_spreading: a small difference says
    nothing of a threshold.

    A difference that vanishes under rounding is taken as a shrinkage by √ε and drawn anew: λ ≥ ½ ln ε always
    (−8.0 in float32, −18 in float64), and finite.

    Args:
        rule: any update rule.
        state: node-major, [N, B(, C)] each field.
        drive: [B, N(, C)], or [B, T, N(, C)] with T ≥ discard + steps, or None.
        steps: k ≥ 1, the steps averaged over.
        discard: steps before them, ≥ 0, in which δ turns to the direction that grows.
        generator: for the first direction.
        context: handed to ``rule.prepare``.

    Returns:
        [B]: nats per step. No gradient.

    Raises:
        ValueError: for a state or drive that does not fit the rule, or a run that leaves the range of its dtype.

    Source: G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, Meccanica 15, 9 and 21 (1980).
    """
    steps = _checks.integer("steps", steps, minimum=1)
    discard = _checks.integer("discard", discard, minimum=0)
    batch_size = check_state(rule, state)
    drives = drive_at(rule, drive, batch_size, discard + steps)
    prepared = rule.prepare(context=context)
    size = math.sqrt(torch.finfo(state[0].dtype).eps) * math.sqrt(sum(field[:, 0].numel() for field in state if field.is_floating_point()))
    twin = _displaced(state, None, size, generator)
    total = state[0].new_zeros(batch_size)
    for step in range(discard + steps):
        state, _ = rule.step(prepared, state, drives(step))
        twin, _ = rule.step(prepared, twin, drives(step))
        difference = [other - field for field, other in zip(state, twin, strict=True) if field.is_floating_point()]
        growth = norms(difference) / size
        if not bool(torch.isfinite(growth).all()):
            raise ValueError(f"the run left the range of {state[0].dtype} at step {step + 1}: its exponent cannot be measured")
        if step >= discard:
            total += growth.clamp(min=math.sqrt(torch.finfo(state[0].dtype).eps)).log()
        twin = _displaced(state, difference, size, generator)
    return total / steps


def _displaced(state: Any, direction: list[Tensor] | None, size: float, generator: torch.Generator | None) -> Any:
    """``state`` plus a difference of norm ``size`` along ``direction``; along a random one where that is None or zero."""
    drawn = [gaussian(field, generator) for field in state if field.is_floating_point()] if direction is None else direction
    length = norms(drawn)
    if direction is not None and bool((length == 0).any()):
        fresh = [gaussian(field, generator) for field in drawn]
        drawn = [torch.where(per_sample(length == 0, field), new, field) for field, new in zip(drawn, fresh, strict=True)]
        length = norms(drawn)
    moved = iter([field * per_sample(size / length, field) for field in drawn])
    return type(state)(*(field + next(moved) if field.is_floating_point() else field for field in state))
