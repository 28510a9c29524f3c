"""Distance of the mean activity to a target rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.criticality._activity import check_raster, magnitude
from lmn_graph.losses.base import LOSSES, PhysicsLoss
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class Activity(PhysicsLoss):
    r"""(a − a*)², a = mean over steps, neurons and channels of |s|; for spikes, the rate per neuron and step.

    The derivative with respect to every |s_i(t)| is 2 (a − a*) / (T N C): a silent sample is pushed up (at s = 0 the derivative
    of |s| is taken as +1), a saturated one down, each through the surrogate where the rule spikes.

    Args:
        target: a*, in activity per neuron and step; ≥ 0.

    Raises:
        ValueError: if ``target`` is not a finite number ≥ 0.
    """

    def __init__(self, target: float = 0.1) -> None:
        super().__init__()
        self.target = _checks.number("target", target, minimum=0)

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        raster = check_raster("activity", output.trajectory.activity, steps=1)
        return (magnitude(raster).mean(tuple(range(1, raster.dim()))) - self.target).square()

    def extra_repr(self) -> str:
        return f"target={self.target:g}"
