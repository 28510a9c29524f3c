"""How many descendants one more spike has after k steps, as a differentiable number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmn_graph.criticality._run import check_state, drive_at, usable
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.rules import UpdateRule


def branching_response(
    rule: UpdateRule, state: Any, drive: Tensor | None, *, steps: int = 10, silence: float = 1e-6, context: Any = None
) -> Tensor:
    r"""σ = (c + ε)^{1/k}, c = (1/N) Σ_j |Σ_i ∂s_i(k) / ∂s_j(0)|: the branching ratio over k = ``steps`` generations.

    Σ_i ∂s_i(k)/∂s_j(0) is what one more spike of neuron j at step 0 adds to the activity of the whole network k steps later; one
    backward pass with ones gives it for every j. It is the linear response of :func:`damage_spreading`, in which a spike is
    flipped in a twin run: only what travels through spikes counts, not what a membrane remembers of itself. A spiking rule enters
    with its surrogate derivative φ, normalised so that its mean over neurons estimates the density of membranes at threshold,
    which is the probability that a small input flips a spike; a surrogate of unit area makes c a number of spikes. Where
    excitation and inhibition cancel inside a column, c is smaller than the damage.

    Works for any rule whose step returns the very activity that the rest of the step uses. ε = ``silence`` bounds σ from below
    and keeps the gradient finite where nothing spreads.

    Args:
        rule: an update rule whose step can be differentiated twice.
        state: its state, node-major, [N, B(, C)] each field; detached.
        drive: [B, N(, C)], or [B, T, N(, C)] with T ≥ steps + 1, or None.
        steps: k ≥ 1; below about 10 it counts attempts before they meet on the same site.
        silence: ε > 0.
        context: handed to ``rule.prepare``.

    Returns:
        [B]: σ of each sample; differentiable in the rule's parameters and the drive unless called without gradient.

    Raises:
        ValueError: for a state or drive that does not fit the rule.
    """
    steps = _checks.integer("steps", steps, minimum=1)
    silence = _checks.number("silence", silence, above=0)
    batch_size = check_state(rule, state)
    wanted = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        drives = drive_at(rule, usable(drive) if isinstance(drive, Tensor) else drive, batch_size, steps + 1)
        # Every field requires a gradient, so that the first activity is on the graph whatever it is made of.
        state = type(state)(*(field.detach().clone().requires_grad_() for field in state))
        prepared = rule.prepare(context=context)
        state, first = rule.step(prepared, state, drives(0))
        last = first
        for step in range(1, steps + 1):
            state, last = rule.step(prepared, state, drives(step))
        (columns,) = torch.autograd.grad(last.sum(), first, create_graph=wanted, allow_unused=True)
        columns = torch.zeros_like(first) if columns is None else columns
        count = columns.abs().transpose(0, 1).flatten(1).mean(1)
        ratio = (count + silence).pow(1 / steps)
    return ratio if wanted else ratio.detach()
