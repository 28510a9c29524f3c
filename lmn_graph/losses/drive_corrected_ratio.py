"""The drive-corrected branching ratio, held to a target within a band of rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmn_graph.criticality import drive_corrected_ratio
from lmn_graph.criticality._activity import check_raster
from lmn_graph.losses.base import LOSSES, PhysicsLoss, inputs_of
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class DriveCorrectedRatio(PhysicsLoss):
    r"""(m − m*)² + ((a_low − a)₊ / a_low)² + ((a − a_high)₊ / (1 − a_high))², m = Σ (A_{t+1} − H_{t+1}) / Σ A_t, a the mean rate.

    For spike-valued drive: H are the spikes forced from outside. A neuron that a drive spike reaches at step t and that fires at
    t + ``delay`` counts as forced then (its activity is read before the drive is integrated); one that stays silent does not. So
    the drive must be strong enough to force: with weights of both signs a drive of 1 on a threshold of 1 may not be, and the
    ratio then takes the drive's part for the network's.

    m tends to 1 from below in the over-active phase as well: the ratio alone cannot tell it from the critical one, hence the
    band, inside which its two terms are 0; they are 1 at silence and at saturation. In a stationary run m = 1 − ⟨H⟩/⟨A⟩, so with
    a drive of mean h per neuron and a rate a the target to name is 1 − h/a, not 1.

    A silent sample gives m*² + 1 with a gradient upwards from both terms; a saturated one (m − m*)² + 1 with one downwards.

    Args:
        target: m*, in [0, 1].
        rate_band: (a_low, a_high), 0 ≤ a_low < a_high ≤ 1, spikes per neuron and step.
        delay: steps from a drive spike to the activity that it forces, ≥ 0.

    Raises:
        ValueError: if an argument is out of range; in the forward pass, if the rule does not spike, the drive has other values
            than 0 and 1, or there are fewer than two steps.
    """

    def __init__(self, target: float = 0.95, *, rate_band: Sequence[float] = (0.01, 0.3), delay: int = 1) -> None:
        super().__init__()
        self.target = _checks.number("target", target, minimum=0, maximum=1)
        if isinstance(rate_band, (str, bytes)) or not isinstance(rate_band, Sequence) or len(rate_band) != 2:
            raise ValueError(f"rate_band must be two numbers (low, high), got {rate_band!r}")
        low, high = (_checks.number(f"rate_band[{i}]", rate, minimum=0, maximum=1) for i, rate in enumerate(rate_band))
        if not low < high:
            raise ValueError(f"rate_band must be (low, high) with low < high, got {rate_band!r}")
        self.rate_band = (low, high)
        self.delay = _checks.integer("delay", delay, minimum=0)

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        if not machine.rule.spiking:
            raise ValueError(f"DriveCorrectedRatio counts spikes, but {type(machine.rule).__name__} does not spike; use TangentGrowth")
        spikes = check_raster("activity", output.trajectory.activity, steps=2)
        forced = spikes * forced_sites(inputs_of(machine, x).drive, spikes, inject=machine.inject, delay=self.delay)
        ratio = drive_corrected_ratio(spikes, forced)
        return (ratio - self.target).square() + self._outside(spikes.flatten(1).mean(1))

    def _outside(self, rate: Tensor) -> Tensor:
        low, high = self.rate_band
        below = ((low - rate).clamp(min=0) / low).square() if low > 0 else torch.zeros_like(rate)
        above = ((rate - high).clamp(min=0) / (1 - high)).square() if high < 1 else torch.zeros_like(rate)
        return below + above

    def extra_repr(self) -> str:
        return f"target={self.target:g}, rate_band={self.rate_band}, delay={self.delay}"


def forced_sites(drive: Tensor, spikes: Tensor, *, inject: str, delay: int) -> Tensor:
    """1 where a drive spike arrives: the drive, [B, N(, C)] or [B, T, N(, C)], moved to the steps of ``spikes`` [B, T, N(, C)].

    A drive that is the initial state forces at step 0 alone, which has no step before it to be compared with.

    Raises:
        ValueError: if the drive is not made of 0 and 1, or does not fit ``spikes``.
    """
    drive = drive.detach()
    if not bool(((drive == 0) | (drive == 1)).all()):
        raise ValueError(
            "DriveCorrectedRatio needs a drive made of spikes, 0 or 1, since an injected current is no forced spike; "
            f"got values in [{float(drive.min()):g}, {float(drive.max()):g}]. Use TangentGrowth or CovarianceSlope, or a spiking encoder"
        )
    constant = drive.ndim == spikes.ndim - 1
    if drive.shape != (spikes[:, 0].shape if constant else spikes.shape):
        raise ValueError(f"drive must be [B, N(, C)] or have the activity's shape {tuple(spikes.shape)}, got {tuple(drive.shape)}")
    sites = torch.zeros_like(spikes)
    if inject == "state":
        return sites
    steps = spikes.shape[1]
    if inject == "first":
        if delay < steps:
            sites[:, delay] = (drive if constant else drive[:, 0]).to(sites)
        return sites
    arriving = (drive.unsqueeze(1).expand_as(spikes) if constant else drive)[:, : max(steps - delay, 0)]
    sites[:, steps - arriving.shape[1] :] = arriving.to(sites)
    return sites
