"""What every way to learn shares: from a machine and a batch to the gradient of each parameter."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.losses import TaskLoss, TotalLoss
from lmn_graph.machine import LatticeMachine
from lmn_graph.registry import Registry


class Learned(NamedTuple):
    """What a gradient was taken of.

    Attributes:
        loss: the weighted loss, detached.
        terms: every term by itself, unweighted.
        prediction: [B, K], detached.
        rate: mean absolute activity of all nodes.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    prediction: Tensor
    rate: Tensor


class LearningRule(ABC):
    """A way to get gradients. It has no parameters and no state of its own, so one serves any number of machines."""

    @abstractmethod
    def gradients(
        self, machine: LatticeMachine, x: Tensor, y: Tensor, *, loss: TotalLoss | None = None, epoch: int | None = None
    ) -> Learned:
        """Add the gradient of the mean loss over the batch to the ``.grad`` of every parameter, as a backward pass does.

        Args:
            machine: what learns.
            x: inputs [B, *in_shape].
            y: targets: class numbers [B], or values [B, D].
            loss: the weighted loss; where None, cross-entropy for class numbers, the mean squared error for values.
            epoch: the current epoch, for a loss with a burn-in.

        Raises:
            ValueError: if the machine is not one that this rule can train, or the batch does not fit.
        """

    def check(self, machine: LatticeMachine, loss: TotalLoss | None = None) -> None:
        """A ValueError for a machine that this rule cannot train; this takes any."""
        return

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


LEARNING: Registry[Callable[..., LearningRule]] = Registry("learning rule", makes=LearningRule)


def loss_for(y: Tensor, loss: TotalLoss | None) -> TotalLoss:
    """The loss given, or one on the task alone that fits the targets."""
    if loss is not None:
        return loss
    if not isinstance(y, Tensor):
        raise ValueError(f"y must be a tensor of class numbers [B] or of values [B, D], got {type(y).__name__}")
    return _task_alone("regression" if y.is_floating_point() else "classification")


@functools.cache
def _task_alone(kind: Any) -> TotalLoss:
    return TotalLoss(TaskLoss(kind), {})


class BPTT(LearningRule):
    """Back-propagation through time: autograd, for any machine and any loss. The reference of the others; memory grows with T."""

    def gradients(
        self, machine: LatticeMachine, x: Tensor, y: Tensor, *, loss: TotalLoss | None = None, epoch: int | None = None
    ) -> Learned:
        with torch.enable_grad():
            output = machine(x)
            total, terms = loss_for(y, loss)(output, y, machine=machine, x=x, epoch=epoch)
            if total.requires_grad:
                total.backward()
        rate = output.trajectory.activity.detach().abs().mean()
        return Learned(total.detach(), terms, output.prediction.detach(), rate)
