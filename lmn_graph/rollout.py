"""The only time loop of the library."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from lmn_graph._columns import Columns, ScatteredColumns
from lmn_graph._frames import frame_at, frames_of
from lmn_graph._precision import full_precision, is_autocast, widened
from lmn_graph.halting import Halting, HaltingUnit, Tally, over_samples, select_samples
from lmn_graph.rules.base import State, UpdateRule
from topologies import _checks

Inject = Literal["every", "first", "state"]

# Share of the samples held that must have stopped before a halting rollout drops them, as measured in docs/halting.md.
_DROP_FROM = 0.25


class Trajectory(NamedTuple):
    """What a rollout returns.

    Attributes:
        activity: ``[B, T, N]`` or ``[B, T, N, C]``, a transposed view of node-major memory.
        state: the state after the last step, node-major, to be passed to the next rollout.
        recorded: the state fields asked for, each ``[B, T, N(, C)]``, as they are after each step.
        halting: when each sample stopped, or None where none could. With it ``state`` is the mean Σ p s over the steps of a sample, and
            ``activity`` and ``recorded`` are zero after its last step.
    """

    activity: Tensor
    state: State
    recorded: dict[str, Tensor]
    halting: Halting | None = None


def rollout(
    rule: UpdateRule,
    drive: Tensor | None,
    *,
    steps: int,
    state: State | None = None,
    context: Tensor | None = None,
    graph: Any = None,
    record: Sequence[str] = (),
    truncate: int | None = None,
    checkpoint: int | None = None,
    inject: Literal["every", "first"] = "every",
    halting: HaltingUnit | None = None,
) -> Trajectory:
    """Apply a rule ``steps`` times, or with ``halting`` to each sample until it stops.

    Memory grows by the activity, by the fields in ``record`` and, where gradients are asked for, by what back-propagation
    keeps; nothing else depends on ``steps``. Under ``torch.autocast`` a rollout runs in float32 all the same, whatever comes in.

    Args:
        rule: the update rule.
        drive: constant ``[B, N]``, per step ``[B, T, N]`` with T = steps, or ``[B, F, N]``, each of F frames for T / F steps (all with
            a last axis C where the rule has channels); None for an undriven run from a given ``state``.
        steps: number of steps T >= 1.
        state: initial state (node-major, as a rollout returns it); default: the rule's own.
        context: passed to :meth:`UpdateRule.prepare`.
        graph: another graph, for rules whose parameters are all shared.
        record: names of state fields to return for every step.
        truncate: cut the gradient every so many steps (truncated back-propagation through time).
        checkpoint: keep activations only every so many steps and recompute the rest in the backward pass.
        inject: "every" step gets its frame of the drive, or only the "first" of those that it is for.
        halting: lets every sample stop by itself, ``steps`` being the budget. Samples that stopped are no longer computed. Gradients are
            cut and recomputed as without; a rule's own ``run`` is not used.

    Raises:
        ValueError: if the drive, the state or an option does not fit the rule.
    """
    if not isinstance(rule, UpdateRule):
        raise ValueError(f"rule must be an UpdateRule, got {type(rule).__name__}")
    if halting is not None and not isinstance(halting, HaltingUnit):
        raise ValueError(f"halting must be a HaltingUnit or None, got {type(halting).__name__}")
    if is_autocast(device := rule.connectivity.rowptr.device):
        drive, state, context = widened(drive), widened(state), widened(context)
        options: dict[str, Any] = {
            "graph": graph,
            "record": record,
            "truncate": truncate,
            "checkpoint": checkpoint,
            "inject": inject,
            "halting": halting,
        }
        with full_precision(device):
            return rollout(rule, drive, steps=steps, state=state, context=context, **options)
    steps = _checks.integer("steps" if halting is None else "steps, the budget of halting,", steps, minimum=1)
    _checks.choice("inject", inject, ("every", "first"))
    for name, value in (("truncate", truncate), ("checkpoint", checkpoint)):
        if value is not None:
            _checks.integer(name, value, minimum=1)
    connectivity = rule.resolve(graph)
    drives, batch_size = _node_major(rule, connectivity.num_nodes, drive, steps, state)
    if state is None:
        state = rule.initial_state(batch_size, graph=connectivity)
    if drive is not None:  # one dtype from the first step on
        state = type(state)(*(field.to(torch.promote_types(field.dtype, drive.dtype)) for field in state))
    fields = _recorded_fields(state, record)
    if halting is not None:
        halting.check(rule, connectivity.num_nodes)
    p = rule.prepare(context, graph if graph is None else connectivity)
    if halting is not None:
        may_drop = context is None or type(rule).select is not UpdateRule.select
        loop = _HaltingLoop(rule, halting, _each(drives), steps, fields, inject, _DROP_FROM if may_drop else math.inf)
        return loop.run(p, state, _boundaries(steps, truncate, checkpoint or 1), truncate, checkpoint)
    run = partial(rule.run, inject=inject, record=fields)
    if (found := _in_segments(run, p, state, drives, steps, truncate, checkpoint, inject)) is not None:
        activity, state, recorded = found
        return Trajectory(activity, state, dict(zip(fields, recorded)))
    each = _each(drives)

    def segment(state: State, start: int, stop: int) -> tuple[State, list[tuple[Tensor, ...]]]:
        outputs = []
        for t in range(start, stop):
            state, activity = rule.step(p, state, frame_at(each, t, steps, inject))
            outputs.append((activity, *(getattr(state, field) for field in fields)))
        return state, outputs

    columns = Columns(steps, 1 + len(fields))
    for start, stop in pairwise(_boundaries(steps, truncate, checkpoint)):
        state = _cut(state, start, truncate)
        if checkpoint is not None and torch.is_grad_enabled():
            state, outputs = activation_checkpoint(segment, state, start, stop, use_reentrant=False)
        else:
            state, outputs = segment(state, start, stop)
        columns.extend(outputs)
    activity, *recorded = columns.batch_first()
    return Trajectory(activity, state, dict(zip(fields, recorded)))


def _in_segments(
    run: Callable[..., Any],
    p: Any,
    state: State,
    drives: Tensor | None,
    steps: int,
    truncate: int | None,
    checkpoint: int | None,
    inject: str,
) -> tuple[Tensor, State, list[Tensor]] | None:
    """A rollout by the rule's own ``run``, from one place to the next where a gradient is cut or recomputed; None where it has none."""
    parts = []
    grad = torch.is_grad_enabled()
    for start, stop in pairwise(_boundaries(steps, truncate, checkpoint) if grad else (0, steps)):
        state = _cut(state, start, truncate)
        frames = frames_of(drives, start, stop, steps, inject)
        if checkpoint is not None and grad:
            found = activation_checkpoint(run, p, state, frames, steps=stop - start, use_reentrant=False)
        else:
            found = run(p, state, frames, steps=stop - start)
        if found is None:
            return None
        activity, state, recorded = found
        parts.append((activity, *recorded))
    activity, *recorded = parts[0] if len(parts) == 1 else (torch.cat(found, 1) for found in zip(*parts))
    return activity, state, recorded


def _cut(state: State, start: int, truncate: int | None) -> State:
    """The state at the beginning of a segment, without a gradient where the rollout is to be truncated."""
    if truncate is None or start == 0 or start % truncate:
        return state
    return type(state)(*(field.detach() for field in state))


class _HaltingLoop:
    """The loop in which samples stop: at the ends of segments those that did are dropped, once enough have."""

    def __init__(
        self,
        rule: UpdateRule,
        unit: HaltingUnit,
        drives: tuple[Tensor, ...] | None,
        steps: int,
        fields: tuple[str, ...],
        inject: str,
        drop_from: float,
    ) -> None:
        self.rule, self.unit, self.drives, self.steps = rule, unit, drives, steps
        self.fields, self.inject, self.drop_from = fields, inject, drop_from

    def run(self, p: Any, state: State, boundaries: list[int], truncate: int | None, checkpoint: int | None) -> Trajectory:
        batch_size, drives = state[0].size(1), self.drives
        samples = torch.arange(batch_size, device=state[0].device)  # the places in the batch of those that are held
        tally = Tally.start(state)
        finished: list[tuple[Tensor, Tally]] = []
        columns = ScatteredColumns(self.steps, batch_size)
        some_stopped = False
        for start, stop in pairwise(boundaries):
            if truncate is not None and start > 0 and start % truncate == 0:
                state = type(state)(*(field.detach() for field in state))
            segment: tuple[Any, ...] = (p, drives, samples, state, tally, some_stopped, start, stop)
            if checkpoint is not None and torch.is_grad_enabled():
                state, tally, outputs = activation_checkpoint(self.segment, *segment, use_reentrant=False)
            else:
                state, tally, outputs = self.segment(*segment)
            columns.extend(outputs, samples)
            going = int(tally.going.sum())
            if going == 0:
                break
            some_stopped = going < samples.numel()
            if samples.numel() - going >= max(1, self.drop_from * samples.numel()):
                stopped, kept = (~tally.going).nonzero().flatten(), tally.going.nonzero().flatten()
                finished.append((samples.index_select(0, stopped), tally.select(stopped)))
                samples, state, tally = samples.index_select(0, kept), select_samples(state, kept), tally.select(kept)
                p, some_stopped = self.rule.select(p, kept), False
                if drives is not None and len(drives) == 1:
                    drives = (drives[0].index_select(1, kept),)
        whole = Tally.joined([*finished, (samples, tally)])
        activity, *recorded, weights = columns.batch_first()
        halting = Halting(weights.squeeze(2), whole.steps, whole.steps + (1 - whole.total))
        return Trajectory(activity, whole.mean, dict(zip(self.fields, recorded)), halting)

    def segment(
        self,
        p: Any,
        drives: tuple[Tensor, ...] | None,
        samples: Tensor,
        state: State,
        tally: Tally,
        some_stopped: bool,
        start: int,
        stop: int,
    ) -> tuple[State, Tally, list[tuple[Tensor, ...]]]:
        outputs = []
        for t in range(start, stop):
            drive = frame_at(drives, t, self.steps, self.inject)
            if drive is not None and drive.size(1) != samples.numel():  # one of many steps: only this one is selected
                drive = drive.index_select(1, samples)
            going, before = tally.going, state
            state, activity = self.rule.step(p, state, drive)
            if some_stopped or t > start:  # a stopped sample stays where it is
                state = type(state)(*(torch.where(over_samples(going, s), s, old) for s, old in zip(state, before)))
            h = self.unit(state[0]).to(tally.total.dtype)
            tally, weight = tally.add(h, state, -math.inf if t + 1 == self.steps else 1 - self.unit.epsilon)
            values = (activity, *(getattr(state, field) for field in self.fields))
            if some_stopped or t > start:
                values = tuple(value.masked_fill(~over_samples(going, value), 0) for value in values)
            outputs.append((*values, weight.unsqueeze(0)))
        return state, tally, outputs


def _boundaries(steps: int, *periods: int | None) -> list[int]:
    """Where segments begin and end: at the multiples of every period. Without gradients every step is one, so that nothing waits
    beside the buffers."""
    marks = {0, steps}
    for period in periods if torch.is_grad_enabled() else (1,):
        marks.update(range(0, steps, period or steps))
    return sorted(marks)


def _each(drives: Tensor | None) -> tuple[Tensor, ...] | None:
    """The drives one by one, at once: the gradient of ``drives[t]`` would be as large as all of them, at every step."""
    return None if drives is None else drives.contiguous().unbind(0)


def _node_major(rule: UpdateRule, nodes: int, drive: Tensor | None, steps: int, state: State | None) -> tuple[Tensor | None, int]:
    tail = () if rule.channels is None else (rule.channels,)
    if drive is None:
        if state is None:
            raise ValueError("drive must be a tensor where no state is given, got None")
        return None, _batch_size(rule, nodes, state)
    end = ", ".join(map(str, (nodes, *tail)))
    expected = f"[B, {end}] or [B, F, {end}] with F a divisor of {steps}"
    if not isinstance(drive, Tensor) or not drive.is_floating_point():
        got = drive.dtype if isinstance(drive, Tensor) else type(drive).__name__
        raise ValueError(f"drive must be a floating-point tensor {expected}, got {got}")
    if not torch.compiler.is_compiling() and not _is_finite(drive.detach()):
        raise ValueError("drive must be finite, got NaN or infinity")  # a threshold would hide it
    shape = tuple(drive.shape)
    if shape[1:] == (nodes, *tail):
        drives = drive.transpose(0, 1).unsqueeze(0)
    elif shape[2:] == (nodes, *tail) and shape[1] > 0 and steps % shape[1] == 0:
        drives = drive.movedim(0, 2)
    else:
        raise ValueError(f"drive must have shape {expected}, got {shape}")
    if state is not None and (given := _batch_size(rule, nodes, state)) != shape[0]:
        raise ValueError(f"state must hold the batch of the drive, {shape[0]} samples, got {given}")
    return drives, shape[0]


def _is_finite(values: Tensor) -> bool:
    """Whether all are: their sum says so in one pass, unless it overflows."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _batch_size(rule: UpdateRule, nodes: int, state: Any) -> int:
    if not isinstance(state, tuple) or not hasattr(state, "_fields"):
        raise ValueError(f"state must be a state of {type(rule).__name__} as a rollout returns it, got {type(state).__name__}")
    own = rule.initial_state(0)
    if state._fields != own._fields:
        raise ValueError(
            f"state must hold {', '.join(own._fields)}, the state of {type(rule).__name__}, got {type(state).__name__} of "
            f"{', '.join(state._fields)}"
        )
    for name, field, like in zip(state._fields, state, own):
        if field.dim() < 2 or field.size(0) != nodes:
            raise ValueError(f"state.{name} must be node-major with {nodes} nodes in front, got shape {tuple(field.shape)}")
        if field.shape[2:] != like.shape[2:]:
            expected = ", ".join(map(str, (nodes, "B", *like.shape[2:])))
            raise ValueError(f"state.{name} must have shape [{expected}], got {tuple(field.shape)}")
        if field.size(1) != state[0].size(1):
            raise ValueError(f"state.{name} must hold as many samples as its other fields, {state[0].size(1)}, got {field.size(1)}")
    return state[0].size(1)


def _recorded_fields(state: State, record: Sequence[str]) -> tuple[str, ...]:
    if isinstance(record, str):
        raise ValueError(f"record must be a sequence of names of state fields, got the string {record!r}")
    for name in record:
        _checks.choice("record", name, state._fields)
    return tuple(record)


class _CallableModule(ModuleType):
    """``lmn_graph.rollout`` is both this module and, called, the function in it: an import of the module sets the attribute."""

    __call__ = staticmethod(rollout)


sys.modules[__name__].__class__ = _CallableModule
