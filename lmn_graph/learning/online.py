"""Learning while a stream comes in: one time step after the other, state and traces carried on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lmn_graph.learning._traces import Traces
from lmn_graph.learning.base import loss_for
from lmn_graph.learning.local import Local, add_gradients, gradients_to, learned_by, network_of
from lmn_graph.losses import TaskLoss
from lmn_graph.machine import LatticeMachine
from lmn_graph.ops.filter_scan import filter_scan
from lmn_graph.projectors.stream import Stream
from lmn_graph.readouts.base import Readout
from lmn_graph.rules.filter_grid import FilterState
from topologies import _checks


class Moment(NamedTuple):
    """One time step: the prediction [B, K] that the readout makes of it alone, and the loss where there was a target."""

    prediction: Tensor
    loss: Tensor | None


class Online:
    """A machine that learns from a stream without end: at every step a prediction and, with a target, a gradient.

    The gradient of a step's loss is that of the whole past by the learning rule; parameters may be changed after any step. Memory and
    time per step are constant.

    Args:
        machine: of filter cells behind a ``Stream``, whose gain and wires every sample passes; its readout must predict at every step, as
            ``Shoreline`` and ``Rate`` do.
        rule: ``SnAP(k)`` or ``RTRL()``.
        loss: (prediction [B, K], target) → mean loss; where None, cross-entropy for class numbers, the mean squared error for values.
        batch_size: streams side by side, >= 1.

    Raises:
        ValueError: if the rule is no local one or cannot train the machine.
    """

    def __init__(self, machine: LatticeMachine, rule: Local, *, loss: TaskLoss | None = None, batch_size: int = 1) -> None:
        if not isinstance(rule, Local):
            raise ValueError(f"rule must be SnAP or RTRL to learn from a stream, got {type(rule).__name__}")
        rule.check(machine)
        if not isinstance(machine.projector, Stream):
            raise ValueError(f"machine.projector must be a Stream, got {type(machine.projector).__name__}")
        if type(machine.readout).read_each is Readout.read_each:
            raise ValueError(f"machine.readout must predict at every step, as Shoreline does, got {type(machine.readout).__name__}")
        self.machine, self.rule, self.loss, self.projector = machine, rule, loss, machine.projector
        self.batch_size = _checks.integer("batch_size", batch_size, minimum=1)
        self.reset()

    def reset(self) -> None:
        """Forget the past: state and traces as at the start of a stream."""
        network = network_of(self.machine)
        self.state: FilterState = network.rule.initial_state(self.batch_size)
        self.traces = Traces(self.rule.table(network.circuit), network.circuit, network.cells, self.batch_size, self.rule.perturbation)

    def step(self, x: Tensor, y: Tensor | None = None) -> Moment:
        """One time step; with a target the gradient of its loss is added to the ``.grad`` of the parameters.

        Args:
            x: a row of the stream, [B, F].
            y: class numbers [B], or values [B, K]; None where there is nothing to learn from.

        Raises:
            ValueError: if the input does not fit.
        """
        machine, network = self.machine, network_of(self.machine)
        streams, features = self.state.s.size(1), self.projector.features
        if not isinstance(x, Tensor) or tuple(x.shape) != (streams, features):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must have shape [{streams}, {features}], streams and their features, got {got}")
        if torch.is_inference_mode_enabled():
            raise ValueError("a stream must be learned outside of torch.inference_mode")
        if not bool(x.isfinite().all()):
            raise ValueError("x must be finite, got NaN or infinity")
        if network.cells.bias.dtype != self.state.s.dtype:
            raise ValueError(
                f"machine must stay {self.state.s.dtype} while a stream goes on, got {network.cells.bias.dtype}; reset() begins anew"
            )
        self.traces.update(network.cells)
        readout = machine.readout
        with torch.no_grad():
            drive = self.projector.everywhere(self.projector.wired(x.to(self.state.s.dtype)))
            driven = drive.index_select(1, network.rule.input_index).t().unsqueeze(1).contiguous()
            s, outputs = filter_scan(network.circuit, network.cells, self.state.s, driven)
            read = slice(None) if readout.output_index is None else readout.output_index
        with torch.enable_grad():
            leaf = outputs[read].requires_grad_()
            prediction = readout.read_each(leaf.permute(2, 1, 0)).squeeze(1)
            loss = None if y is None else (self.loss or loss_for(y, None).task)(prediction, y)
            if loss is not None and not bool(loss.isfinite()):
                raise ValueError(f"loss must be finite, got {float(loss.detach())}: y has such values, or learning has diverged")
        grad = None
        if loss is not None:
            found, *others = gradients_to(loss, [leaf, *learned_by(readout)])
            add_gradients(learned_by(readout), others)
            grad = torch.zeros_like(outputs)
            grad[read] = found
        with torch.no_grad():
            nodes = torch.arange(len(outputs)) if readout.output_index is None else readout.output_index
            gradient = self.traces.over(self.state.s, driven, s, outputs, grad, nodes)
        self.state = FilterState(s[:, 0], outputs[:, 0])
        if loss is not None:
            network.rule.add_gradients(*gradient.split(list(self.traces.table.sizes)))
        return Moment(prediction.detach(), None if loss is None else loss.detach())
