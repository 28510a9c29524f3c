"""The growth of a tangent vector, held to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.criticality import tangent_growth
from lmn_graph.losses.base import LOSSES, PhysicsLoss, continued
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class TangentGrowth(PhysicsLoss):
    r"""(g − g*)², g = ‖(J_k ⋯ J_1)ᵀ u‖^{1/k}, the growth per step of a random tangent vector through k steps of the rule.

    The run goes on from the final state of the first ``samples`` samples, under the machine's own drive (a per-step drive starts
    again), so one batch costs k more steps on a few samples, differentiated twice. g sees both sides: below 1 what the lattice
    carries dies out, above 1 it explodes. See :func:`lmn_graph.criticality.tangent_growth` for ``align`` and for what a spiking
    rule's surrogate makes of it.

    A silent or saturated spiking lattice still has the tails of the surrogate and the decay of its membranes: the gradient is
    finite and points to stronger coupling and slower decay while g < g*. Where no derivative survives the value is g*², the
    gradient 0. A slow membrane alone gives g near its decay without any spike passing on: for spiking rules this term says how
    long a gradient lives; for how far spikes spread use :class:`Perturbation`.

    Args:
        target: g*, ≥ 0.
        steps: k ≥ 1; below about 10 it counts attempts before they meet on the same site.
        samples: how many samples of the batch are followed, ≥ 1.
        align: further steps that align the vector, ≥ 0.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, target: float = 1.0, *, steps: int = 10, samples: int = 8, align: int = 0) -> None:
        super().__init__()
        self.target = _checks.number("target", target, minimum=0)
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.samples = _checks.integer("samples", samples, minimum=1)
        self.align = _checks.integer("align", align, minimum=0)

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """The loss of each sample that is followed, [min(B, samples)]."""
        growth = self.growth(output, machine=machine, x=x)
        return (growth - self.target).square()

    def growth(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """g of each sample that is followed, [min(B, samples)]."""
        state, drive, context = continued(output, machine=machine, x=x, samples=self.samples, steps=self.steps + self.align)
        return tangent_growth(machine.rule, state, drive, context=context, steps=self.steps, align=self.align)

    def extra_repr(self) -> str:
        return f"target={self.target:g}, steps={self.steps}, samples={self.samples}, align={self.align}"
