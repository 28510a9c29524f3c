"""What every loss on the dynamics shares."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lmn_graph._precision import full_precision
from lmn_graph.machine import evaluating
from lmn_graph.projectors.base import Projection
from lmn_graph.registry import Registry

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


class PhysicsLoss(nn.Module):
    """A loss on what a machine does rather than on what it predicts: one number from its trajectory.

    A subclass defines :meth:`per_sample`. Terms are reduced per sample first and averaged over the batch then, so that a dead
    sample cannot hide behind a saturated one.
    """

    def forward(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """The mean of :meth:`per_sample`, in full precision also under ``torch.autocast``.

        Args:
            output: what ``machine(x)`` returned; its trajectory's activity is [B, T, N(, C)].
            machine: the machine that was run.
            x: the input batch, [B, ...].

        Raises:
            ValueError: if the trajectory is too short for the term, or of another kind than it measures.
        """
        with full_precision(getattr(x, "device", None)):
            return self.per_sample(output, machine=machine, x=x).mean()

    def prepare(self, machine: LatticeMachine) -> None:
        """Make what depends on the machine, parameters of the term included: called before an optimiser is built."""

    @abstractmethod
    def per_sample(self, output: Output, *, machine: LatticeMachine, x: Tensor) -> Tensor:
        """The loss of each sample, [B]."""


LOSSES: Registry[type[PhysicsLoss]] = Registry("loss", PhysicsLoss)


def inputs_of(machine: LatticeMachine, x: Tensor) -> Projection:
    """The drive and the context of ``x``, with the projector in evaluation mode.

    A second pass over part of a batch must not move running statistics, and should not draw another dropout mask.
    """
    with evaluating(machine.projector):
        return machine.inputs(x)


class Continued(NamedTuple):
    """From where and under what a run goes on: the state, the drive (batch-first) or None, the context of the rule or None."""

    state: Any
    drive: Tensor | None
    context: Tensor | None


def continued(output: Output, *, machine: LatticeMachine, x: Tensor, samples: int, steps: int) -> Continued:
    """The final state of the first ``samples`` samples, and what drives the machine for ``steps`` more steps from there.

    That is nothing where the input entered once; else the drive again, one that changes from step to step from its beginning.
    """
    state: Any = type(output.state)(*(field[:, :samples].detach() for field in output.state))
    if machine.inject != "every" and not machine.rule.context_dim:
        return Continued(state, None, None)
    inputs = inputs_of(machine, x[:samples])
    drive = inputs.drive if machine.inject == "every" else None
    if drive is not None and drive.ndim == 3 + (machine.rule.channels is not None):
        drive = drive[:, torch.arange(steps, device=drive.device) % drive.shape[1]]
    return Continued(state, drive, inputs.context if machine.rule.context_dim else None)
