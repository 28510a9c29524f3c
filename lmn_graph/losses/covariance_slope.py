"""The covariance slope of the population activity, held to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.criticality import covariance_slope
from lmn_graph.criticality._activity import check_raster
from lmn_graph.losses.base import LOSSES, PhysicsLoss
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class CovarianceSlope(PhysicsLoss):
    r"""(r_k − r*)², r_k = Cov(A_t, A_{t+k}) / Var(A_t) within each sample.

    r_k = m^k for a stationary branching process seen over a long window. Over T of a few tens it is biased low by about
    (1 + 3m)/T, and the transient from the initial state adds to it: leave that out with ``discard``.

    A sample whose population activity does not vary (silent, saturated) gives r*² with gradient 0: this term cannot wake a dead
    lattice, combine it with ``Activity``.

    Args:
        target: r*.
        lag: k ≥ 1.
        discard: steps left out at the start, ≥ 0.
        unbias: first-order correction of the small-window bias; for lag 1.

    Raises:
        ValueError: if an argument is out of range; in the forward pass, if fewer than lag + 2 steps (lag + 5 with ``unbias``)
            are left.
    """

    def __init__(self, target: float = 1.0, *, lag: int = 1, discard: int = 0, unbias: bool = False) -> None:
        super().__init__()
        self.target = _checks.number("target", target)
        self.lag = _checks.integer("lag", lag, minimum=1)
        self.discard = _checks.integer("discard", discard, minimum=0)
        self.unbias = _checks.flag("unbias", unbias)
        if self.unbias and self.lag != 1:
            raise ValueError(f"unbias is known for lag 1 only, got lag={lag}")

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        needed = self.discard + self.lag + (5 if self.unbias else 2)
        raster = check_raster("activity", output.trajectory.activity, steps=needed)[:, self.discard :]
        return (covariance_slope(raster, lag=self.lag, unbias=self.unbias) - self.target).square()

    def extra_repr(self) -> str:
        return f"target={self.target:g}, lag={self.lag}, discard={self.discard}, unbias={self.unbias}"
