"""A machine on a sequence: some steps for every item, a prediction after each, the state carried from one to the next."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmn_graph.memory import Memory
from lmn_graph.projectors.base import Projection
from lmn_graph.rollout import Trajectory, rollout
from lmn_graph.rules.base import State

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine

CACHED = 1 << 21  # numbers of activity in one rollout: longer ones leave the processor's cache and take more time, not less


def run_stream(machine: LatticeMachine, x: Tensor, state: State | None, starts: Tensor | None) -> tuple[Tensor, Trajectory, State]:
    """What :meth:`LatticeMachine.stream` returns.

    The steps of many items are one rollout where nothing but the state goes from one item to the next, as many as stay in a processor's
    cache; a rule that makes weights of every item, or a machine that halts, is run item by item.
    """
    if machine.inject == "state":
        raise ValueError("inject must be 'every' or 'first' for a stream, whose state is carried on, got 'state'")
    if not isinstance(x, Tensor) or x.dim() < 3 or x.size(0) == 0 or x.size(1) == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must have shape [B, W, *in_shape] with at least one item, got {got}")
    if not x.is_floating_point() and not machine.projector.takes_tokens:
        raise ValueError(f"projector must take tokens for a stream of them, as TokenEmbedding does, got {type(machine.projector).__name__}")
    batch, items = x.shape[:2]
    if starts is not None and (starts.dtype != torch.bool or starts.shape != (batch, items)):
        raise ValueError(f"starts must be bool [{batch}, {items}], got {starts.dtype} {list(starts.shape)}")
    inputs = machine.inputs(x.flatten(0, 1))
    memory = None
    if machine.memory is not None:
        memory = _renewed(machine.memory.initial(batch) if state is None else state, machine.memory.initial(batch), _column(starts, 0))
        if not isinstance(memory, Memory):
            raise ValueError(f"state must be the Memory that the machine passes on, got {type(memory).__name__}")
        state = machine.run(machine.memory.read(memory)).state
    together = not (machine.rule.context_dim or machine.halting) and inputs.state is None
    size = batch * machine.steps * machine.rule.num_nodes * (machine.rule.channels or 1)  # numbers of activity an item
    marks = {items, *range(0, items, max(1, CACHED // size) if together else 1)}
    if starts is not None:
        marks |= set(starts.any(0).nonzero().flatten().tolist())
    spans, predictions = [], []
    for first, stop in pairwise(sorted(marks)):
        part = Projection(*(None if value is None else _items(value, batch, first, stop) for value in inputs))  # type: ignore[arg-type]
        begins = _column(starts, first)
        if begins is not None and bool(begins.any()) and state is not None:
            fresh = machine.rule.initial_state(batch) if part.state is None else machine.starting_at(part.state[:, 0])
            state = _renewed(state, fresh, begins)
        spans.append(_together(machine, part.drive, state) if together else machine.run(_single(part), state))
        state = spans[-1].state
        seen = machine.seen(spans[-1]).unflatten(1, (stop - first, machine.steps))
        predictions.append(machine.readout(seen.flatten(0, 1)).unflatten(0, (batch, stop - first)))
    trajectory = Trajectory(_joined([machine.seen(span) for span in spans]), spans[-1].state, {})
    prediction = _joined(predictions)
    if machine.memory is None or memory is None:
        return prediction, trajectory, trajectory.state
    for column in () if starts is None else range(1, items):  # what was remembered belongs to a document that has ended
        memory = _renewed(memory, machine.memory.initial(batch), _column(starts, column))
    return prediction, trajectory, machine.memory.write(memory, seen[:, -1])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _column(starts: Tensor | None, item: int) -> Tensor | None:
    return None if starts is None else starts[:, item]


def _renewed(state: Any, initial: Any, begins: Tensor | None) -> Any:
    """A state, node-major, in which the samples that begin have the initial one."""
    if begins is None or not bool(begins.any()):
        return state
    renewed = []
    for field, fresh in zip(state, initial):
        where = begins.to(field.device).view(1, -1, *[1] * (field.dim() - 2))
        renewed.append(torch.where(where, fresh.to(field), field))
    return type(state)(*renewed)


def _items(value: Tensor, batch: int, first: int, stop: int) -> Tensor:
    """Items ``first`` … ``stop`` − 1 of what a projector made of all of them: [B·W, …] → [B, w, …]."""
    return value.unflatten(0, (batch, -1))[:, first:stop]


def _single(part: Projection) -> Projection:
    return Projection(*(None if value is None else value.squeeze(1) for value in part))  # type: ignore[arg-type]


def _together(machine: LatticeMachine, drive: Tensor, state: State | None) -> Trajectory:
    """The rollout of all steps of some items, drive [B, w, N(, C)] or per step [B, w, T, N(, C)]."""
    per_step = drive.dim() == 4 + (machine.rule.channels is not None)
    frames, steps = drive.flatten(1, 2) if per_step else drive, drive.size(1) * machine.steps
    options: Any = {"truncate": machine.truncate, "checkpoint": machine.checkpoint, "inject": machine.inject}
    return rollout(machine.rule, frames, steps=steps, state=state, **options)


def detached(state: Any) -> Any:
    """A state through which no gradient goes back."""
    return None if state is None else type(state)(*(field.detach() for field in state))
