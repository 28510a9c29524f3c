"""Descendants per spike, held to a target: the default criticality term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.criticality.response import branching_response
from lmn_graph.losses.base import LOSSES, PhysicsLoss, continued
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class BranchingResponse(PhysicsLoss):
    r"""(σ − σ*)², σ = (c + ε)^{1/k}, c the mean number of spikes that one more spike adds k steps later, in linear response.

    The run goes on from the final state of the first ``samples`` samples under the machine's own drive; one backward pass gives c
    for every neuron at once (:func:`lmn_graph.criticality.branching_response`). A silent lattice keeps the tails of its surrogate:
    the gradient is finite and points to stronger coupling while σ < σ*.

    Args:
        target: σ*, ≥ 0.
        steps: k ≥ 1; below about 10 it counts attempts before they meet on the same site.
        samples: how many samples of the batch are followed, ≥ 1.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, target: float = 1.0, *, steps: int = 10, samples: int = 16) -> None:
        super().__init__()
        self.target = _checks.number("target", target, minimum=0)
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.samples = _checks.integer("samples", samples, minimum=1)

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """The loss of each sample that is followed, [min(B, samples)]."""
        return (self.growth(output, machine=machine, x=x) - self.target).square()

    def growth(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """σ of each sample that is followed, [min(B, samples)]."""
        state, drive, context = continued(output, machine=machine, x=x, samples=self.samples, steps=self.steps + 1)
        return branching_response(machine.rule, state, drive, context=context, steps=self.steps)

    def extra_repr(self) -> str:
        return f"target={self.target:g}, steps={self.steps}, samples={self.samples}"
