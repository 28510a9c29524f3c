"""Growth of a tangent vector through many steps of a rule, as a differentiable number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmn_graph.criticality._run import check_state, drive_at, gaussian, norms, per_sample, usable
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.rules import UpdateRule


def tangent_growth(
    rule: UpdateRule,
    state: Any,
    drive: Tensor | None,
    *,
    steps: int = 10,
    align: int = 0,
    covector: Tensor | None = None,
    generator: torch.Generator | None = None,
    context: Any = None,
) -> Tensor:
    r"""(‖Jᵀu‖ / ‖u‖)^{1/k}, J = J_k ⋯ J_2 J_1 the Jacobian of k = ``steps`` steps of the rule, u a random covector.

    J is taken of the first state field (a membrane, an activity) with respect to itself; whatever passes through other fields
    meanwhile counts. Spiking rules enter with their surrogate derivative. J and Jᵀ have the same singular values, so pulling a
    covector back measures the same expected growth as pushing a vector forward, E‖Jᵀu‖² / E‖u‖² = ‖J‖²_F / n, and reverse mode
    gives it: one vector-Jacobian product a step, itself differentiable, renormalised at every step so that any number of steps
    stays in range. The result has the gradient of the product of Jacobians with respect to the rule's parameters, the drive and
    the trajectory between; ``state`` is detached.

    Over a few steps a random covector has not found the direction that grows: where one mode leads (weights of one sign on a
    small lattice) k steps read n^{−1/2k} times its growth, 0.73 for 512 neurons and 10 steps. ``align`` first pulls the covector
    through as many steps that come after the measured ones, without a gradient; the measure then tends to the modulus of the
    leading multiplier, for a linear rule the spectral radius.

    Where no derivative survives (all J = 0) the growth is 0, with derivative 0. A silent or saturated spiking lattice keeps the
    tails of its surrogate and what the membrane itself remembers (its decay): the growth is that decay, its gradient finite.

    Args:
        rule: any update rule whose step can be differentiated twice.
        state: its state, node-major, [N, B(, C)] each field.
        drive: [B, N(, C)], or [B, T, N(, C)] with T ≥ steps + align, or None.
        steps: k ≥ 1.
        align: steps of alignment beyond the measured ones, ≥ 0.
        covector: u, [N, B(, C)]; drawn from a normal distribution where None.
        generator: for that draw.
        context: handed to ``rule.prepare``.

    Returns:
        [B]: growth per step; differentiable unless called without gradient.

    Raises:
        ValueError: for a state, drive or covector that does not fit the rule.
    """
    steps = _checks.integer("steps", steps, minimum=1)
    align = _checks.integer("align", align, minimum=0)
    check_state(rule, state)
    wanted = torch.is_grad_enabled()
    # The measure needs derivatives even where the caller (a validation loop) needs none; tensors made in inference mode are copied.
    with torch.inference_mode(False), torch.enable_grad():
        state = type(state)(*(usable(field.detach()) for field in state))
        drive = usable(drive) if isinstance(drive, Tensor) else drive
        trajectory = _trajectory(rule, state, drive, steps, align, context)
        cotangent = _direction(state[0], covector, generator)
        if align:
            aligned, _ = _pull_back(trajectory[steps:], cotangent, create_graph=False)
            length = norms([aligned])
            # What alignment kills altogether is measured unaligned.
            cotangent = torch.where(per_sample(length > 0, aligned), aligned / per_sample(length + (length == 0), aligned), cotangent)
        pulled, logs = _pull_back(trajectory[: steps + 1], cotangent, create_graph=wanted)
        length = norms([pulled])
        alive = length > 0
        growth = torch.exp((logs + length.masked_fill(~alive, 1).log()) / steps).masked_fill(~alive, 0)
    return growth if wanted else growth.detach()


def _direction(like: Tensor, covector: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """u / ‖u‖ for each sample."""
    if covector is None:
        covector = gaussian(like, generator)
    elif not isinstance(covector, Tensor) or covector.shape != like.shape:
        came = tuple(covector.shape) if isinstance(covector, Tensor) else type(covector).__name__
        raise ValueError(f"covector must have the shape of the first state field, {tuple(like.shape)}, got {came}")
    covector = usable(covector.detach().to(like))
    length = norms([covector])
    if not bool((length > 0).all()):
        raise ValueError("covector must not be zero in any sample")
    return covector / per_sample(length, covector)


def _trajectory(rule: UpdateRule, state: Any, drive: Tensor | None, steps: int, align: int, context: Any) -> list[Any]:
    """States 0 … steps + align, on the autograd graph from the first field of state 0 on."""
    drives = drive_at(rule, drive, state[0].shape[1], steps + align)
    prepared = rule.prepare(context=context)
    states = [type(state)(state[0].requires_grad_(), *state[1:])]
    for step in range(steps + align):
        following, _ = rule.step(prepared, states[-1], drives(step))
        states.append(following)
    return states


def _pull_back(states: Sequence[Any], cotangent: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
    """The covector of the first field of the last state as one of the first field of the first state, and log scales taken out.

    Returns:
        the covector / Π c_t, [N, B(, C)], and Σ_t log c_t, [B], where c_t are the detached norms on the way.
    """
    first = states[-1][0]
    covectors = [cotangent] + [torch.zeros_like(field) for field in states[-1][1:]]
    logs = first.new_zeros(first.shape[1])
    for step in range(len(states) - 2, -1, -1):
        covectors = _vector_jacobian(states[step], states[step + 1], covectors, create_graph=create_graph)
        if step:
            length = norms([covector.detach() for covector in covectors])
            length = length + (length == 0)
            covectors = [covector / per_sample(length, covector) for covector in covectors]
            logs = logs + length.log()
    return covectors[0], logs


def _vector_jacobian(before: Any, after: Any, covectors: list[Tensor], *, create_graph: bool) -> list[Tensor]:
    """Σ_g (∂after_g / ∂before_f)ᵀ u_g for every field f."""
    outputs = [(field, covector) for field, covector in zip(after, covectors, strict=True) if field.requires_grad]
    inputs = [field for field in before if field.requires_grad]
    if not outputs or not inputs:
        return [torch.zeros_like(field) for field in before]
    fields, given = zip(*outputs, strict=True)
    pulled = torch.autograd.grad(fields, inputs, given, create_graph=create_graph, retain_graph=True, allow_unused=True)
    found = iter(pulled)
    result = [next(found) if field.requires_grad else None for field in before]
    return [torch.zeros_like(field) if covector is None else covector for field, covector in zip(before, result, strict=True)]
