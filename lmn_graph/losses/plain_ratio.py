"""The source's criticality loss, for reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.criticality import plain_ratio
from lmn_graph.losses.base import LOSSES, PhysicsLoss
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class PlainRatio(PhysicsLoss):
    r"""mean_t (|s_t| / |s_{t−1}| − m*)², the source's per-step term. For reference: not a measure of criticality.

    Every steady raster is a minimum for m* = 1, subcritical or saturated alike; what the term penalises is fluctuation, which is
    largest near the critical point. After silence the ratio is defined as in :func:`lmn_graph.criticality.plain_ratio`: a silent
    sample gives m*² and a gradient upwards, −2 m* / (B floor (T − 1)) for each spike; a saturated one gives (1 − m*)², at m* = 1
    with gradient 0.

    Args:
        target: m*, ≥ 0.
        floor: activity below which a step counts as silent, > 0.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, target: float = 1.0, *, floor: float = 1.0) -> None:
        super().__init__()
        self.target = _checks.number("target", target, minimum=0)
        self.floor = _checks.number("floor", floor, above=0)

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        return (plain_ratio(output.trajectory.activity, floor=self.floor) - self.target).square().mean(1)

    def extra_repr(self) -> str:
        return f"target={self.target:g}, floor={self.floor:g}"
