"""The weighted sum that is minimised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lmn_graph.losses.activity import Activity
from lmn_graph.losses.base import PhysicsLoss
from lmn_graph.losses.branching_response import BranchingResponse
from lmn_graph.losses.task import TaskLoss, every_step
from lmn_graph.registry import did_you_mean
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine, Output


class TotalLoss(nn.Module):
    r"""γ₀ · task + Σ_k w_k · term_k, added; during the first ``burn_in`` epochs γ₀ = 0: physics only.

    The source's sketch gives task 0.1, criticality 1, activity 0.1 (clustering joins as one more term). Here each weighs
    1 unless given; docs/criticality.md has the experiment behind it. A term of weight 0 is measured and returned but not trained.

    Args:
        task: the loss on the prediction; cross-entropy where None.
        terms: name → loss on the dynamics; where None, ``{"criticality": BranchingResponse(), "activity": Activity()}``.
        weights: name → weight ≥ 0, "task" among the names.
        burn_in: epochs at the start that leave the task out, ≥ 0.
        every_step: the task loss is that of every step's own prediction, averaged (:func:`every_step`), in place of that of the prediction;
            for readouts whose single steps predict, without halting.
        terms_every: k ≥ 1: the terms on the dynamics enter at every k-th batch only, with k times their weights: they change slowly, and
            cost a run of their own.

    Raises:
        ValueError: if an argument is out of range, a term is no ``PhysicsLoss``, its name is no identifier or taken, or a weight
            belongs to no term.
    """

    def __init__(
        self,
        task: nn.Module | None = None,
        terms: Mapping[str, PhysicsLoss] | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        burn_in: int = 0,
        every_step: bool = False,
        terms_every: int = 1,
    ) -> None:
        super().__init__()
        if task is not None and not isinstance(task, nn.Module):
            raise ValueError(f"task must be a module (prediction, target) → loss, got {task!r}")
        self.task = TaskLoss() if task is None else task
        terms = {"criticality": BranchingResponse(), "activity": Activity()} if terms is None else terms
        self.terms = nn.ModuleDict(_checked_terms(terms))
        self.weights = _checked_weights(weights or {}, ["task", *terms])
        self.burn_in = _checks.integer("burn_in", burn_in, minimum=0)
        self.every_step = _checks.flag("every_step", every_step)
        self.terms_every = _checks.integer("terms_every", terms_every, minimum=1)

    def forward(
        self, output: Output, target: Tensor, *, machine: LatticeMachine, x: Tensor, epoch: int | None = None, step: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every term that entered by itself, unweighted and detached, to be logged one by one.

        Args:
            output: what ``machine(x)`` returned.
            target: what the task loss compares the prediction with.
            machine: the machine that was run.
            x: the input batch.
            epoch: the current epoch, from 0; None for no burn-in.
            step: the number of the batch, from 0, for ``terms_every``; None for all terms, with their plain weights.

        Raises:
            ValueError: as the terms do, and as :meth:`of_task`.
        """
        task = self.of_task(output, target, machine=machine)
        # Multiplied by 0 rather than left out: every parameter keeps a gradient, as data-parallel training expects.
        total = task * self.task_weight(epoch)
        parts = {"task": task.detach()}
        if step is not None and step % self.terms_every:
            return total, parts
        for name, term in self.terms.items():
            weight = self.weights[name] * (1 if step is None else self.terms_every)
            with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
                value = term(output, machine=machine, x=x)
            if weight > 0:
                total = total + weight * value
            parts[name] = value.detach()
        return total, parts

    def of_task(self, output: Output, target: Tensor, *, machine: LatticeMachine) -> Tensor:
        """The loss on the prediction alone, or with ``every_step`` on those of all steps; unweighted.

        Raises:
            ValueError: with ``every_step``, if the machine halts or its readout has no prediction at every step.
        """
        if not self.every_step:
            return self.task(output.prediction, target)
        if output.trajectory.halting is not None:
            raise ValueError("every_step must be False for a machine that halts: stopped samples predict nothing at later steps, got True")
        return every_step(self.task, machine.readout.each(output.trajectory.activity), target)

    def prepare(self, machine: LatticeMachine) -> None:
        """Let every term make what depends on the machine, before an optimiser is built of the parameters."""
        for term in self.terms.values():
            term.prepare(machine)  # type: ignore[operator]

    def task_weight(self, epoch: int | None) -> float:
        """γ₀ in an epoch: 0 during burn-in."""
        return 0.0 if epoch is not None and epoch < self.burn_in else self.weights["task"]

    def extra_repr(self) -> str:
        options = ["every_step=True"] * self.every_step + [f"terms_every={self.terms_every}"] * (self.terms_every > 1)
        return ", ".join([f"weights={self.weights}, burn_in={self.burn_in}", *options])


def _checked_terms(terms: Mapping[str, PhysicsLoss]) -> dict[str, nn.Module]:
    if not isinstance(terms, Mapping):
        raise ValueError(f"terms must map names to losses, got {type(terms).__name__}")
    for name, term in terms.items():
        if not isinstance(name, str) or not name.isidentifier() or name in ("task", "total") or hasattr(nn.ModuleDict, name):
            raise ValueError(f"terms must have identifiers as names, other than 'task', 'total' and ModuleDict's own, got {name!r}")
        if not isinstance(term, PhysicsLoss):
            raise ValueError(f"terms[{name!r}] must be a PhysicsLoss, got {term!r}")
    return dict(terms)


def _checked_weights(weights: Mapping[str, float], names: list[str]) -> dict[str, float]:
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights must map names to numbers, got {type(weights).__name__}")
    for name in weights:
        if name not in names:
            raise ValueError(f"weights names no term: {name!r}{did_you_mean(name, names)}")
    return {name: _checks.number(f"weights[{name!r}]", weights.get(name, 1.0), minimum=0) for name in names}
