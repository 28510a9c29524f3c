"""A projector, a rule on a graph, a number of steps and a readout, as one module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._precision import is_autocast, widened
from lmn_graph.connectivity import Connectivity
from lmn_graph.halting import HaltingUnit
from lmn_graph.memory import MemoryToken
from lmn_graph.projectors.base import Projection, Projector
from lmn_graph.readouts.base import Readout
from lmn_graph.rollout import Trajectory, rollout
from lmn_graph.rules.base import State, UpdateRule
from lmn_graph.streaming import run_stream
from topologies import _checks


class Output(NamedTuple):
    """What a machine returns: the prediction [B, out_features], the trajectory, and the final state (node-major)."""

    prediction: Tensor
    trajectory: Trajectory
    state: State


class LatticeMachine(nn.Module):
    r"""prediction = readout(rollout(rule on topology, drive = projector(x), T steps)).

    With a halting unit every sample stops by itself and T is the budget. The readout then gets :math:`T\, p_t\, activity_t`, zero after a
    sample's last step: its mean over time is the weighted mean :math:`\sum_t p_t\, activity_t`.

    Args:
        topology: the graph; the rule must be bound to it, the projector and the readout made for as many nodes.
        projector: input to drive, and to the context and the initial state where it makes them.
        rule: the update rule.
        readout: history to prediction.
        steps: T >= 1.
        inject: the drive enters at "every" step, at the "first" only, or is the initial "state" (the first field of the state).
        truncate, checkpoint: see :func:`lmn_graph.rollout.rollout`.
        halting: decides when a sample stops; None for T steps of every sample.
        memory: what passes from one window of a stream to the next; None for the state of all cells.

    Raises:
        ValueError: if the parts do not fit together.
    """

    def __init__(
        self,
        topology: Data,
        projector: Projector,
        rule: UpdateRule,
        readout: Readout,
        *,
        steps: int,
        inject: Literal["every", "first", "state"] = "every",
        truncate: int | None = None,
        checkpoint: int | None = None,
        halting: HaltingUnit | None = None,
        memory: MemoryToken | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(topology, Data):
            raise ValueError(f"topology must be a torch_geometric.data.Data, got {type(topology).__name__}")
        if not isinstance(rule, UpdateRule):
            raise ValueError(f"rule must be an UpdateRule, got {type(rule).__name__}")
        self.topology = topology
        self.projector = projector
        self.rule = rule
        self.readout = readout
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.inject = _checks.choice("inject", inject, ("every", "first", "state"))
        self.truncate = None if truncate is None else _checks.integer("truncate", truncate, minimum=1)
        self.checkpoint = None if checkpoint is None else _checks.integer("checkpoint", checkpoint, minimum=1)
        for name, part in (("projector", projector), ("rule", rule), ("readout", readout), ("memory", memory or rule)):
            if getattr(part, "num_nodes", topology.num_nodes) != topology.num_nodes:
                raise ValueError(f"{name} must be made for the topology's {topology.num_nodes} nodes, got {part.num_nodes}")
            if getattr(part, "channels", rule.channels) != rule.channels:
                raise ValueError(f"{name}.channels must be the rule's {rule.channels}, got {part.channels}")
        if rule.context_dim not in (0, getattr(projector, "context_dim", 0)):
            given = getattr(projector, "context_dim", 0)
            raise ValueError(
                f"projector must give the context of {rule.context_dim} numbers that {type(rule).__name__} makes its weights from, as "
                f"Hypernetwork(…, context_dim={rule.context_dim}) does; got {type(projector).__name__} with context_dim={given}"
            )
        if not _same_edges(topology, rule):
            raise ValueError(f"rule must be bound to the topology of the machine, got one bound to {rule.connectivity}")
        if getattr(readout, "steps", self.steps) != self.steps:
            raise ValueError(f"readout.steps must be the machine's {self.steps}, got {readout.steps}")
        self.memory = memory
        self.halting = halting
        if halting is not None:
            _check_halting(halting, rule, readout)
        _check_reach(rule, getattr(projector, "input_index", None), getattr(readout, "output_index", None), self.steps)

    def drive(self, x: Tensor) -> Tensor:
        """The drive of an input batch, batch-first."""
        return self.projector(x)

    def inputs(self, x: Tensor) -> Projection:
        """The drive of an input batch and what else the projector makes of it: a context, an initial state."""
        inputs = getattr(self.projector, "inputs", None)
        return Projection(self.projector(x)) if inputs is None else inputs(x)

    def forward(self, x: Tensor, state: State | None = None, *, record: tuple[str, ...] = ()) -> Output:
        """Predict for a batch; pass the returned state back in to carry a stream on."""
        trajectory = self.run(self.inputs(x), state, record=record)
        return Output(self.readout(self.seen(trajectory)), trajectory, trajectory.state)

    def stream(self, x: Tensor, state: Any = None, *, starts: Tensor | None = None) -> Output:
        """Predict after every item of sequences, T steps an item, each going on from the state in which the one before it ended.

        Args:
            x: [B, W, *in_shape], W items of B streams.
            state: as an earlier call returned it, for the same streams in the same order; None begins anew. The returned one carries
                gradients; :func:`lmn_graph.streaming.detached` cuts them.
            starts: bool [B, W], the items that begin a document: nothing of the past reaches them. None for no such items.

        Returns:
            prediction [B, W, K], the trajectory of all W·T steps, whose ``state`` is that of the rule, and the state to pass on.

        Raises:
            ValueError: if a shape does not fit, or the input is the initial state (inject="state").
        """
        return Output(*run_stream(self, x, state, starts))

    def seen(self, trajectory: Trajectory) -> Tensor:
        """What the readout gets: the activity or, with halting, T p_t times it."""
        activity, halting = trajectory.activity, trajectory.halting
        if halting is None:
            return activity
        return activity * (self.steps * halting.weights).to(activity.dtype).view(*halting.weights.shape, *[1] * (activity.dim() - 2))

    def run(
        self, inputs: Tensor | Projection, state: State | None = None, *, record: tuple[str, ...] = (), steps: int | None = None
    ) -> Trajectory:
        """The rollout of a given drive, or of all that a projector makes of an input; of another number of ``steps`` without halting."""
        drive, context, start = inputs if isinstance(inputs, Projection) else Projection(inputs)
        options: dict[str, Any] = {"record": record, "truncate": self.truncate, "checkpoint": self.checkpoint}
        options |= {"steps": self.steps, "halting": self.halting} if steps is None else {"steps": steps}
        options["context"] = context if self.rule.context_dim else None
        if self.inject == "state":
            if state is not None:
                raise ValueError("state must be None where the input is the initial state (inject='state'), got one")
            return rollout(self.rule, None, state=self.starting_at(drive), **options)
        if state is None and start is not None:
            state = self.starting_at(start)
        return rollout(self.rule, drive, state=state, inject=self.inject, **options)

    def starting_at(self, cells: Tensor) -> State:
        """The initial state with the first field given, batch-first."""
        initial = self.rule.initial_state(cells.size(0))
        cells = widened(cells) if is_autocast(cells.device) else cells
        return type(initial)(cells.transpose(0, 1).contiguous(), *(field.to(cells.dtype) for field in initial[1:]))

    @torch.no_grad()
    def predict(self, x: Tensor, batch_size: int = 256) -> Tensor:
        """Predictions of any number of samples, in evaluation mode, ``batch_size`` at a time."""
        _checks.integer("batch_size", batch_size, minimum=1)
        with evaluating(self):
            return torch.cat([self(part).prediction for part in x.split(batch_size)])

    def reset_parameters(self) -> None:
        """Put the parameters of all parts back to where new ones have them; random ones are drawn anew."""
        for part in self.children():
            for module in [part] if hasattr(part, "reset_parameters") else part.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()

    def extra_repr(self) -> str:
        return f"topology={self.topology.get('name', 'graph')}, steps={self.steps}, inject={self.inject!r}"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode inside the block, every part of it as it was before after it."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _check_halting(halting: HaltingUnit, rule: UpdateRule, readout: nn.Module) -> None:
    if not isinstance(halting, HaltingUnit):
        raise ValueError(f"halting must be a HaltingUnit or None, got {type(halting).__name__}")
    halting.check(rule, rule.num_nodes)
    if getattr(readout, "skip", 0):
        raise ValueError(f"readout.skip must be 0 with halting, whose samples may stop before, got {readout.skip}")
    if getattr(readout, "pool", "mean") == "last":
        raise ValueError("readout.pool must be 'mean' with halting, whose samples may stop before the last step, got 'last'")


def _check_reach(rule: UpdateRule, inputs: Tensor | None, outputs: Tensor | None, steps: int) -> None:
    """A ValueError where nothing can get from the input ports to the output ports in time: every prediction would be the same."""
    if inputs is None or outputs is None:
        return
    graph = rule.connectivity
    (source, target), reached = graph.edge_index, torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.edge_index.device)
    reached[inputs] = True
    hops = 0
    while not bool(reached[outputs].any()):
        before = int(reached.sum())
        reached[target[reached[source]]] = True
        hops += 1
        if int(reached.sum()) == before:
            raise ValueError("topology must have a path from an input port to an output port, got none")
    needed = 1 if rule.instantaneous else hops + 1 + rule.spiking  # spikes are read before the drive is integrated
    if steps < needed:
        raise ValueError(
            f"steps must be at least {needed} for anything to get from an input port of the topology to an output port, got {steps}"
        )


def _same_edges(topology: Data, rule: UpdateRule) -> bool:
    edge_index, graph = topology.get("edge_index"), rule.connectivity
    if edge_index is None:  # a sparse adjacency
        return graph.same_graph(Connectivity(topology))
    if edge_index.shape != graph.edge_index.shape:
        return False
    given = edge_index if graph.permutation is None else edge_index[:, graph.permutation.to(edge_index.device)]
    return bool((given == graph.edge_index.to(given.device)).all()) or graph.same_graph(Connectivity(topology))
