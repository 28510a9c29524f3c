"""What it costs to think: the price of every step of a machine that halts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.losses.base import LOSSES, PhysicsLoss

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


@LOSSES.register
class PonderCost(PhysicsLoss):
    r"""ρ = N + R, the steps that a sample takes before it halts and the remainder of its last one.

    N is an integer: the gradient is that of R = 1 − Σ_{t<N} h_t, which raises the halting probabilities of every step but the last until
    one step less is enough. Its weight is the price of a step in units of the task loss: 0.01 is a usual start, 1 leaves one step.

    Raises:
        ValueError: in the forward pass, if the machine has no halting unit.

    Source: A. Graves, "Adaptive computation time for recurrent neural networks", arXiv:1603.08983.
    """

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        halting = output.trajectory.halting
        if halting is None:
            raise ValueError("machine must have a halting unit for PonderCost, such as AdaptiveTime, got none")
        return halting.ponder
