"""Local learning of filter cells: the gradient from traces that cells carry forward, never back through time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph._precision import full_precision
from lmn_graph.learning._table import TraceTable
from lmn_graph.learning._traces import Traces
from lmn_graph.learning.base import Learned, LearningRule, loss_for
from lmn_graph.learning.perturbation import Perturbation
from lmn_graph.losses import TotalLoss, every_step
from lmn_graph.machine import LatticeMachine
from lmn_graph.ops.filter_scan import Cells, Circuit, compiled, filter_scan, pull_back, scan
from lmn_graph.readouts.base import Readout
from lmn_graph.rules.filter_grid import FilterGrid
from topologies import _checks


class Network(NamedTuple):
    """What a local rule needs of a machine: its filter cells, and these in order with their parameters, detached."""

    rule: FilterGrid
    circuit: Circuit
    cells: Cells


class Local(LearningRule):
    """Gradients of filter cells from forward traces over at most ``hops`` edges; see :class:`SnAP` and :class:`RTRL`.

    Args:
        hops: k ≥ 0, or None for all.
        perturbation: errors of the quantities that the rule measures.
        chunk: time steps whose states are held at once, >= 1: memory does not grow with longer sequences.
    """

    def __init__(self, hops: int | None, perturbation: Perturbation, chunk: int) -> None:
        if not isinstance(perturbation, Perturbation):
            raise ValueError(f"perturbation must be a Perturbation, got {type(perturbation).__name__}")
        self.hops = hops
        self.perturbation = perturbation
        self.chunk = _checks.integer("chunk", chunk, minimum=1)

    def check(self, machine: LatticeMachine, loss: TotalLoss | None = None) -> None:
        """A ValueError for a machine without filter cells in topological order, with a projector that learns, or with other loss terms."""
        if not isinstance(machine, LatticeMachine):
            raise ValueError(f"machine must be a LatticeMachine, got {type(machine).__name__}")
        name, rule = type(self).__name__, machine.rule
        if not isinstance(rule, FilterGrid) or not rule.instantaneous:
            got = f"FilterGrid(order={rule.order!r})" if isinstance(rule, FilterGrid) else type(rule).__name__
            raise ValueError(f"machine.rule must be a FilterGrid in topological order for {name}, got {got}; BPTT trains any rule")
        if any(parameter.requires_grad for parameter in machine.projector.parameters()):
            got = type(machine.projector).__name__
            raise ValueError(f"machine.projector must have no parameters that learn for {name}, as Stream has none, got {got}")
        for option, given, wanted in (
            ("inject", machine.inject, "every"),
            ("halting", machine.halting, None),
            ("truncate", machine.truncate, None),
        ):
            if given != wanted:
                raise ValueError(f"machine.{option} must be {wanted!r} for {name}, got {given!r}")
        if loss is not None and any(loss.weights[term] > 0 for term in loss.terms):
            raise ValueError(f"loss must be on the task alone for {name}, got the terms {', '.join(loss.terms)}")

    def gradients(
        self, machine: LatticeMachine, x: Tensor, y: Tensor, *, loss: TotalLoss | None = None, epoch: int | None = None
    ) -> Learned:
        loss = loss_for(y, loss)
        self.check(machine, loss)
        if torch.is_inference_mode_enabled():
            raise ValueError("gradients must be asked for outside of torch.inference_mode")
        network = network_of(machine)
        run = _Run(self, machine, network, inputs_of(machine, x), loss, y, epoch)
        with torch.no_grad(), full_precision(x.device):
            short = run.steps <= self.chunk
            graded = network.circuit.order.is_graded and self.perturbation.is_none and self.hops is not None
            found, learned = run.at_once() if short and graded and compiled(run.x) is not None else run.in_chunks()
        network.rule.add_gradients(*found)
        return learned

    def table(self, circuit: Circuit) -> TraceTable:
        """The traces of a circuit under this rule; kept with the circuit."""
        return circuit.kept(("traces", self.hops), lambda: TraceTable(circuit, self.hops))


class _Run:
    """One gradient: the forward pass, the messages and what becomes of them."""

    def __init__(
        self, learner: Local, machine: LatticeMachine, network: Network, x: Tensor, loss: TotalLoss, y: Tensor, epoch: int | None
    ) -> None:
        self.learner, self.network, self.x, self.y = learner, network, x, y
        self.readout, self.loss, self.weight = machine.readout, loss, loss.task_weight(epoch)
        self.steps = x.size(1)
        nodes = network.cells.bias
        self.start = nodes.new_zeros(len(nodes), x.size(2))
        read = machine.readout.output_index
        self.read = torch.arange(len(nodes), device=nodes.device) if read is None else read

    def at_once(self) -> tuple[list[Tensor], Learned]:
        """Without traces: the same gradient by a sweep against the edges, each cell for all times, exact on a graded graph."""
        circuit, cells = self.network.circuit, self.network.cells
        s, y = scan(circuit, cells, self.start, self.x)
        learned, grad = self.judged(y[self.read], y.abs().mean())
        given = self.rows_read()
        hops = self.learner.hops
        gradients = pull_back(circuit, cells, self.start, self.x, s, y, grad.contiguous(), given=given, hops=hops, inputs=False)
        return list(gradients[:4]), learned

    def rows_read(self) -> Tensor:
        """Which of the nodes that are read each node is, −1 where it is not."""
        rows = torch.full((len(self.start),), -1, dtype=torch.int32)
        rows[self.read] = torch.arange(len(self.read), dtype=torch.int32)
        return rows

    def in_chunks(self) -> tuple[list[Tensor], Learned]:
        """With traces, ``chunk`` steps at a time. Where these are several, all runs once before for the loss of the whole history."""
        learned, grad = self.judged_in_passing()
        network = self.network
        traces = Traces(self.learner.table(network.circuit), network.circuit, network.cells, self.x.size(2), self.learner.perturbation)
        total = self.x.new_zeros(sum(traces.table.sizes))
        start = self.start
        for first, x, s, y in self.chunks():
            total += traces.over(start, x, s, y, self.everywhere(grad(first, y[self.read])), self.read)
            start = s[:, -1]
        return list(total.split(list(traces.table.sizes))), learned

    def chunks(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """First step, inputs, states and outputs of every chunk, one after the other."""
        start = self.start
        for first in range(0, self.steps, self.learner.chunk):
            x = self.x[:, first : first + self.learner.chunk].contiguous()
            s, y = filter_scan(self.network.circuit, self.network.cells, start, x)
            yield first, x, s, y
            start = s[:, -1]

    def everywhere(self, grad: Tensor) -> Tensor:
        """A gradient to the nodes that are read as one to all nodes."""
        return grad.new_zeros(len(self.start), *grad.shape[1:]).index_copy_(0, self.read, grad)

    def judged(self, outputs: Tensor, rate: Tensor) -> tuple[Learned, Tensor]:
        """The loss for the outputs [P, T, B] of all times, and its gradient to them; the readout gets that of its parameters."""
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            activity = leaf.permute(2, 1, 0)
            prediction = self.readout.read(activity)
            task = every_step(self.loss.task, self.readout.read_each(activity), self.y) if self.loss.every_step else self.task(prediction)
            grad, *others = gradients_to(self.weight * task, [leaf, *learned_by(self.readout)])
        add_gradients(learned_by(self.readout), others)
        return self.learned(task, prediction, rate), grad

    def judged_in_passing(self) -> tuple[Learned, Callable[[int, Tensor], Tensor]]:
        """The loss, and a function (first step, outputs [P, t, B]) → its gradient to these outputs, called once for every chunk.

        Nothing is held for every step where the prediction is a sum over time; else the outputs are, which the readout needs.
        """
        if self.steps <= self.learner.chunk or not self.readout.additive or learned_by(self.readout):
            parts = [(y[self.read], y.abs().mean() * (y.size(1) / self.steps)) for _, _, _, y in self.chunks()]
            learned, grad = self.judged(torch.cat([part for part, _ in parts], 1), torch.stack([rate for _, rate in parts]).sum())
            return learned, lambda first, outputs: grad[:, first : first + outputs.size(1)]
        prediction, task, rate = (self.x.new_zeros(()) for _ in range(3))
        for _, _, _, y in self.chunks():
            activity, share = y[self.read].permute(2, 1, 0), y.size(1) / self.steps
            prediction = prediction + self.readout.read(activity)
            rate = rate + share * y.abs().mean()
            if self.loss.every_step:
                task = task + share * every_step(self.loss.task, self.readout.read_each(activity), self.y)
        if self.loss.every_step:
            return self.learned(task, prediction, rate), self.grad_of_steps
        with torch.enable_grad():
            task = self.task(prediction.requires_grad_())
            (grad,) = gradients_to(self.weight * task, [prediction])
        return self.learned(task, prediction, rate), lambda first, outputs: self.pulled(outputs, grad)

    def grad_of_steps(self, first: int, outputs: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            task = every_step(self.loss.task, self.readout.read_each(leaf.permute(2, 1, 0)), self.y)
            return gradients_to(self.weight * task * (outputs.size(1) / self.steps), [leaf])[0]

    def pulled(self, outputs: Tensor, grad: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            return torch.autograd.grad(self.readout.read(leaf.permute(2, 1, 0)), leaf, grad)[0]

    def task(self, prediction: Tensor) -> Tensor:
        return self.loss.task(prediction, self.y)

    def learned(self, task: Tensor, prediction: Tensor, rate: Tensor) -> Learned:
        task = task.detach()
        if not bool(task.isfinite()):
            raise ValueError(f"loss must be finite, got {float(task)}: y has such values, or learning has diverged")
        return Learned(self.weight * task, {"task": task}, prediction.detach(), rate.detach())


def network_of(machine: LatticeMachine) -> Network:
    """The filter cells of a machine, in order."""
    rule: Any = machine.rule
    with torch.no_grad():
        cells = rule.cells()
    return Network(rule, rule.circuit(), Cells.of((part.detach().contiguous() for part in cells[:4]), cells.time_step))


def inputs_of(machine: LatticeMachine, x: Tensor) -> Tensor:
    """What enters the input ports of a machine's filter cells at every step, [P, T, B]."""
    projector: Any = machine.projector
    rule: Any = machine.rule
    with torch.no_grad():
        projector.check(x)
        drive = projector.project(x)
        if projector.input_index is None or not torch.equal(projector.input_index, rule.input_index):
            drive = projector.everywhere(drive).index_select(-1, rule.input_index)
    if drive.dim() == 2:
        drive = drive.unsqueeze(1).expand(-1, machine.steps, -1)
    if drive.size(1) != machine.steps:
        raise ValueError(f"x must give a drive for each of the machine's {machine.steps} steps, got {drive.size(1)}")
    if not drive.numel():
        raise ValueError(f"x must hold a sample at least, got shape {tuple(x.shape)}")
    if not bool(drive.isfinite().all()):
        raise ValueError("x must be finite, got NaN or infinity")
    return drive.permute(2, 1, 0).to(rule.bias.dtype).contiguous()


def learned_by(readout: Readout) -> list[Tensor]:
    """The parameters of a readout that learn."""
    return [parameter for parameter in readout.parameters() if parameter.requires_grad]


def gradients_to(total: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients, zero where nothing depends."""
    return torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)


def add_gradients(parameters: list[Tensor], gradients: list[Tensor]) -> None:
    """Add to ``.grad``."""
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
