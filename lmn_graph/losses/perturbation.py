"""How far a small change spreads, held to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.criticality import damage_growth, tangent_growth
from lmn_graph.losses.base import LOSSES, PhysicsLoss, continued
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class Perturbation(PhysicsLoss):
    r"""(ρ − ρ*)², ρ = (⟨D_k⟩ / ⟨D_0⟩)^{1/k}, D_k the sites that differ k steps after one spike of each sample was flipped.

    ρ is the branching ratio that runs report, counted on true spikes, with the gradient of a smoothed count
    (:func:`lmn_graph.criticality.damage_growth`). A rule that does not spike has no spike to flip: there ρ is the growth of a
    tangent vector of each sample, and the loss the mean of (ρ − ρ*)² over samples, as in :class:`TangentGrowth`.

    The run goes on from the final state of the first ``samples`` samples under the machine's own drive. A silent or a saturated
    lattice has ρ < 1 and a finite gradient towards the threshold: up from silence, down from saturation. With no edges, or all
    weights 0, the value is that of damage that has died (ρ = 0.001^{1/k}; 0 for a rule that does not spike), the gradient 0.

    Args:
        target: ρ*, ≥ 0.
        steps: k ≥ 1; below about 10 it counts attempts before they meet on the same site.
        samples: how many samples of the batch are followed, ≥ 1.
        width: smoothing of the count that the gradient comes from, in units of the membrane, > 0.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, target: float = 1.0, *, steps: int = 10, samples: int = 32, width: float = 0.5) -> None:
        super().__init__()
        self.target = _checks.number("target", target, minimum=0)
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.samples = _checks.integer("samples", samples, minimum=1)
        self.width = _checks.number("width", width, above=0)

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """(ρ − ρ*)²: [min(B, samples)] for a rule that does not spike, [1] for one that does."""
        return (self.growth(output, machine=machine, x=x) - self.target).square()

    def growth(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """ρ: [min(B, samples)] for a rule that does not spike, [1] for one that does."""
        state, drive, context = continued(output, machine=machine, x=x, samples=self.samples, steps=self.steps + 1)
        if not machine.rule.spiking:
            return tangent_growth(machine.rule, state, drive, context=context, steps=self.steps)
        return damage_growth(machine.rule, state, drive, context=context, steps=self.steps, width=self.width).unsqueeze(0)

    def extra_repr(self) -> str:
        return f"target={self.target:g}, steps={self.steps}, samples={self.samples}, width={self.width:g}"
