"""Twin runs of a spiking rule that differ by one spike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.criticality._run import check_state, drive_at
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.rules import UpdateRule

_EPSILON = 1e-3  # damage added to both ends of a ratio, so that the k-th root has a bounded slope where damage dies out


@torch.no_grad()
def damage_spreading(
    rule: UpdateRule,
    state: Any,
    drive: Tensor | None,
    *,
    steps: int = 10,
    flips: Tensor | None = None,
    generator: torch.Generator | None = None,
    context: Any = None,
) -> Tensor:
    """D_k = number of sites whose activity differs k steps after one spike of each sample was flipped, k = 0 … ``steps``.

    Both copies get the same drive. D_0 is the flipped spike itself. At criticality the mean of D_k stays near 1 over ≥ 10 steps;
    below it, and in an over-active excitatory lattice, it dies out; in a chaotic one it grows. After a single step it is no
    measure: it counts attempts before they meet on the same site.

    Args:
        rule: a spiking rule, with ``flip``.
        state: node-major, [N, B(, C)] each field.
        drive: [B, N(, C)], or [B, T, N(, C)] with T ≥ steps + 1, or None.
        steps: how long the damage is followed, ≥ 1.
        flips: [B] integers, the neuron flipped in each sample; drawn uniformly where None.
        generator: for that draw.
        context: handed to ``rule.prepare``.

    Returns:
        [steps + 1, B] counts, in the dtype of the activity. No gradient.

    Raises:
        ValueError: for a rule that does not spike, a state or drive that does not fit it, or ``flips`` out of range.
    """
    runs = _twin_runs(rule, state, drive, steps, flips, generator, context)
    return torch.stack([_count(twins) for twins in runs])


def soft_damage(
    rule: UpdateRule,
    state: Any,
    drive: Tensor | None,
    *,
    steps: int = 10,
    width: float = 0.5,
    flips: Tensor | None = None,
    generator: torch.Generator | None = None,
    context: Any = None,
) -> Tensor:
    r"""D̃_k = Σ_i |σ((v'_i − θ_i)/w) − σ((v_i − θ_i)/w)|, D̃_0 = 1: :func:`damage_spreading` with a gradient.

    The twins run on true spikes, as there; only the count is smoothed, over a width w in the membrane, so that a neuron that the
    flip brought near to a different decision counts in part. D̃_k → D_k for w → 0; a flip moves a membrane by a finite amount, so
    for larger w it is below. The derivative goes through both runs by the rule's surrogate; the start of both is detached.

    In a silent or a saturated lattice D̃_k is small, its derivative finite and directed at the threshold: up from silence, down
    from saturation. Where the twins' membranes agree exactly (no edges, all weights 0) it is 0, with derivative 0.

    Args:
        rule: a spiking rule whose first state field is the membrane v and whose prepared parameters have its ``threshold``.
        width: w > 0, in units of the membrane.
        state, drive, steps, flips, generator, context: as for :func:`damage_spreading`.

    Returns:
        [steps + 1, B]; the first row is 1.

    Raises:
        ValueError: as :func:`damage_spreading`; for a ``width`` ≤ 0, or a rule without a threshold.
    """
    width = _checks.number("width", width, above=0)
    return torch.stack([_soft_count(rule, twins, width) for twins in _twin_runs(rule, state, drive, steps, flips, generator, context)])


def damage_growth(
    rule: UpdateRule,
    state: Any,
    drive: Tensor | None,
    *,
    steps: int = 10,
    width: float = 0.5,
    flips: Tensor | None = None,
    generator: torch.Generator | None = None,
    context: Any = None,
) -> Tensor:
    """ρ = ((⟨D_k⟩ + ε) / (1 + ε))^{1/k}, k = ``steps``, ε = 0.001: the branching ratio of damage, with a gradient.

    The value is that of the counted damage, up to ε the number that :func:`branching_ratio` gives; the derivative of ln ρ is that of
    the smoothed damage of the same twins, (1/k) ∂ ln(⟨D̃_k⟩ + ε): the value has no bias of smoothing and the gradient no gaps. ⟨⟩ is
    the mean over samples, before the root: damage is an expectation and one flip says little. No dead sample hides behind a
    saturated one in it, since damage dies out in both.

    Args:
        rule, state, drive, steps, width, flips, generator, context: as for :func:`soft_damage`.

    Returns:
        a scalar, at least ε^{1/k}.

    Raises:
        ValueError: as :func:`soft_damage`.
    """
    width = _checks.number("width", width, above=0)
    for twins in _twin_runs(rule, state, drive, steps, flips, generator, context):
        last = twins
    log_soft = (_soft_count(rule, last, width).mean() + _EPSILON).log() / steps
    counted = ((_count(last).mean() + _EPSILON) / (1 + _EPSILON)) ** (1 / steps)
    return counted.detach() * (log_soft - log_soft.detach()).exp()


def branching_ratio(damage: Tensor, *, start: int = 0) -> float:
    """(⟨D_k⟩ / ⟨D_j⟩)^{1/(k−j)}, k the last step of ``damage``, j = ``start``, ⟨⟩ the mean over samples; 0 where all damage has died.

    Leaky neurons spread the effect of one spike over the time their membranes remember it, so D falls in the first step, to about
    (1 − decay) where each spike has one descendant in all. From ``start=0`` that first fall counts; from ``start=1`` only what
    follows it does, the growth per step.

    Args:
        damage: [k + 1, B] as from :func:`damage_spreading`; batches may be joined along dimension 1 before.
        start: the step compared with the last, 0 ≤ start < k.

    Raises:
        ValueError: for another shape, k < 1, or no damage at step 0. With ``start`` > 0, damage that has died by then gives 0.
    """
    if not isinstance(damage, Tensor) or damage.ndim != 2 or damage.shape[0] < 2 or damage.shape[1] == 0:
        came = f"shape {tuple(damage.shape)}" if isinstance(damage, Tensor) else type(damage).__name__
        raise ValueError(f"damage must be [steps + 1, B] with steps ≥ 1 and B ≥ 1, got {came}")
    start = _checks.integer("start", start, minimum=0, maximum=damage.shape[0] - 2)
    zeroth, first, last = (damage[step].double().mean().item() for step in (0, start, -1))
    if not zeroth > 0:
        raise ValueError(f"damage must start with at least one differing site, got a mean of {zeroth} at step 0")
    return float((last / first) ** (1 / (damage.shape[0] - 1 - start))) if first > 0 else 0.0


class _Twins(NamedTuple):
    """Both states before step k and the activity of both in it."""

    step: int
    prepared: Any
    state: Any
    twin: Any
    activity: Tensor
    other: Tensor


def _twin_runs(
    rule: UpdateRule,
    state: Any,
    drive: Tensor | None,
    steps: int,
    flips: Tensor | None,
    generator: torch.Generator | None,
    context: Any,
) -> Iterator[_Twins]:
    """The two runs, steps 0 … ``steps``, from checked arguments; the start of both is detached."""
    steps = _checks.integer("steps", steps, minimum=1)
    if not rule.spiking:
        raise ValueError(
            f"damage is the spread of a flipped spike, but {type(rule).__name__} does not spike; use lyapunov or tangent_growth"
        )
    batch_size = check_state(rule, state)
    node = _flipped(flips, rule.num_nodes, batch_size, state[0].device, generator)
    drives = drive_at(rule, drive, batch_size, steps + 1)
    prepared = rule.prepare(context=context)
    state = type(state)(*(field.detach() for field in state))
    twin = type(state)(*(field.detach() for field in rule.flip(prepared, state, node)))
    for step in range(steps + 1):
        following, activity = rule.step(prepared, state, drives(step))
        following_twin, other = rule.step(prepared, twin, drives(step))
        yield _Twins(step, prepared, state, twin, activity, other)
        state, twin = following, following_twin


def _count(twins: _Twins) -> Tensor:
    """D_k, [B]."""
    return (twins.activity != twins.other).transpose(0, 1).flatten(1).sum(1).to(twins.activity.dtype)


def _soft_count(rule: UpdateRule, twins: _Twins, width: float) -> Tensor:
    """D̃_k, [B]."""
    threshold = getattr(twins.prepared, "threshold", None)
    if threshold is None:
        raise ValueError(f"soft_damage needs the threshold of {type(rule).__name__}, which its prepared parameters do not have")
    if twins.step == 0:
        return torch.ones_like(_count(twins))
    difference = torch.sigmoid((twins.twin[0] - threshold) / width) - torch.sigmoid((twins.state[0] - threshold) / width)
    return difference.abs().transpose(0, 1).flatten(1).sum(1)


def _flipped(flips: Tensor | None, num_nodes: int, batch_size: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    if flips is None:
        drawn = torch.randint(num_nodes, (batch_size,), generator=generator, device=device if generator is None else generator.device)
        return drawn.to(device)
    if not isinstance(flips, Tensor) or flips.shape != (batch_size,) or flips.dtype not in (torch.int32, torch.int64):
        came = f"{flips.dtype} of shape {tuple(flips.shape)}" if isinstance(flips, Tensor) else type(flips).__name__
        raise ValueError(f"flips must be integers of shape ({batch_size},), one neuron for each sample, got {came}")
    if bool((flips < 0).any()) or bool((flips >= num_nodes).any()):
        raise ValueError(f"flips must name neurons 0 … {num_nodes - 1}, got {int(flips.min())} … {int(flips.max())}")
    return flips.to(device)
