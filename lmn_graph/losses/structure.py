"""What the losses on the structure of a graph share: which graph it is, learned weights or co-activity, and target or maximum."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from lmn_graph.graph_metrics import functional_weights
from lmn_graph.losses.base import PhysicsLoss
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output

On = Literal["weights", "activity"]


class StructuralLoss(PhysicsLoss):
    """A loss on a number of a weighted graph: −value, so that it grows, or (value − target)².

    The graph has the edges of the machine's topology and the magnitudes of the learned weights, or, of its functional graph, the
    positive part of the correlation of the activities at both ends over the steps and samples of the batch. Both are graphs of
    the whole batch: every sample has the same loss.

    Args:
        on: "weights" or "activity".
        target: a value to reach; None asks for as much as possible.

    Raises:
        ValueError: if an argument is not one of these; in the forward pass, if the rule learns no edge weights or the graph has none.
    """

    def __init__(self, on: On = "weights", target: float | None = None) -> None:
        super().__init__()
        self.on: On = _checks.choice("on", on, ("weights", "activity"))
        self.target = None if target is None else _checks.number("target", target)

    @abstractmethod
    def value(self, weight: Tensor, machine: LatticeMachine) -> Tensor:
        """The number, for non-negative edge weights [E] in the order of the rule's connectivity."""

    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        value = self.value(self.edge_weight(output, machine), machine)
        loss = -value if self.target is None else (value - self.target).square()
        return loss.expand(output.prediction.size(0))

    def edge_weight(self, output: Output, machine: LatticeMachine) -> Tensor:
        """The weights of the graph that is measured, [E], with their gradient."""
        name = type(self).__name__
        if not machine.rule.connectivity.num_edges:
            raise ValueError(f"machine must have a topology with edges for {name}, got {machine.rule.connectivity}")
        if self.on == "activity":
            activity = output.trajectory.activity
            if machine.rule.channels is not None:  # channels are more samples of the same cell
                activity = activity.movedim(3, 1).flatten(0, 1)
            return functional_weights(machine.rule.connectivity, activity).relu()
        weight = machine.rule.learned_weight()
        if weight is None:
            raise ValueError(f"machine.rule must learn a weight per edge for {name} on 'weights', got {machine.rule}; use on='activity'")
        return weight.abs()

    def extra_repr(self) -> str:
        return f"on={self.on!r}" + ("" if self.target is None else f", target={self.target:g}")
