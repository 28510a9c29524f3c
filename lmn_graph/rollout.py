"""The only time loop of the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from lmn_graph.rules.base import State, UpdateRule
from topologies import _checks

Inject = Literal["every", "first", "state"]


class Trajectory(NamedTuple):
    """What a rollout returns.

    Attributes:
        activity: ``[B, T, N]`` or ``[B, T, N, C]``, a transposed view of node-major memory.
        state: the state after the last step, node-major, to be passed to the next rollout.
        recorded: the state fields asked for, each ``[B, T, N(, C)]``, as they are after each step.
    """

    activity: Tensor
    state: State
    recorded: dict[str, Tensor]


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
) -> Trajectory:
    """Apply a rule ``steps`` times.

    Memory grows by the activity, by the fields in ``record`` and, where gradients are asked for, by what back-propagation
    keeps; nothing else depends on ``steps``.

    Args:
        rule: the update rule.
        drive: constant ``[B, N]``, per step ``[B, T, N]`` with T = steps (each with a last axis C where the rule has
            channels), or None for an undriven run from a given ``state``.
        steps: number of steps T >= 1.
        state: initial state (node-major, as a rollout returns it); default: the rule's own.
        context: passed to :meth:`UpdateRule.prepare`.
        graph: another graph, for rules whose parameters are all shared.
        record: names of state fields to return for every step.
        truncate: cut the gradient every so many steps (truncated back-propagation through time).
        checkpoint: keep activations only every so many steps and recompute the rest in the backward pass.
        inject: "every" step gets a constant drive, or only the "first".

    Raises:
        ValueError: if the drive, the state or an option does not fit the rule.
    """
    if not isinstance(rule, UpdateRule):
        raise ValueError(f"rule must be an UpdateRule, got {type(rule).__name__}")
    steps = _checks.integer("steps", steps, minimum=1)
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
    p = rule.prepare(context, graph if graph is None else connectivity)
    if hasattr(rule, "run"):
        return rule.run(p, state, drives, steps=steps, record=fields, truncate=truncate, checkpoint=checkpoint, inject=inject)

    def segment(state: State, start: int, stop: int) -> tuple[State, list[tuple[Tensor, ...]]]:
        outputs = []
        for t in range(start, stop):
            state, activity = rule.step(p, state, _drive_at(drives, t, inject))
            outputs.append((activity, *(getattr(state, field) for field in fields)))
        return state, outputs

    columns = _Columns(steps, 1 + len(fields))
    for start, stop in pairwise(_boundaries(steps, truncate, checkpoint)):
        if truncate is not None and start > 0 and start % truncate == 0:
            state = type(state)(*(field.detach() for field in state))
        if checkpoint is not None and torch.is_grad_enabled():
            state, outputs = activation_checkpoint(segment, state, start, stop, use_reentrant=False)
        else:
            state, outputs = segment(state, start, stop)
        columns.extend(outputs)
    activity, *recorded = columns.batch_first()
    return Trajectory(activity, state, dict(zip(fields, recorded)))


def _boundaries(steps: int, *periods: int | None) -> list[int]:
    """Where segments begin and end: at the multiples of every period. Without gradients every step is one, so that nothing waits
    beside the buffers."""
    marks = {0, steps}
    for period in periods if torch.is_grad_enabled() else (1,):
        marks.update(range(0, steps, period or steps))
    return sorted(marks)


class _Columns:
    """Per-step tensors on their way to [B, T, N(, C)]; without gradients they are written in place, never held twice."""

    def __init__(self, steps: int, width: int) -> None:
        self.steps = steps
        self.lists: list[list[Tensor]] = [[] for _ in range(width)]
        self.buffers: list[Tensor] = []
        self.filled = 0

    def extend(self, outputs: list[tuple[Tensor, ...]]) -> None:
        if torch.is_grad_enabled():
            for output in outputs:
                for values, column in zip(output, self.lists):
                    column.append(values)
            return
        if not self.buffers:
            self.buffers = [values.new_empty(self.steps, *values.shape) for values in outputs[0]]
        for output in outputs:
            for values, buffer in zip(output, self.buffers):
                buffer[self.filled] = values
            self.filled += 1

    def batch_first(self) -> list[Tensor]:
        stacked = self.buffers or [torch.stack(column) for column in self.lists]
        return [values.movedim(2, 0) for values in stacked]


def _drive_at(drives: Tensor | None, t: int, inject: str) -> Tensor | None:
    """``drives`` is constant, [1, N, B(, C)], or per step, [T, N, B(, C)]."""
    if drives is None or (inject == "first" and t > 0):
        return None
    return drives[0] if drives.size(0) == 1 else drives[t]


def _node_major(rule: UpdateRule, nodes: int, drive: Tensor | None, steps: int, state: State | None) -> tuple[Tensor | None, int]:
    tail = () if rule.channels is None else (rule.channels,)
    if drive is None:
        if state is None:
            raise ValueError("drive must be a tensor where no state is given, got None")
        return None, _batch_size(rule, nodes, state)
    expected = f"[B, {', '.join(map(str, (nodes, *tail)))}] or [B, {', '.join(map(str, (steps, nodes, *tail)))}]"
    if not isinstance(drive, Tensor) or not drive.is_floating_point():
        got = drive.dtype if isinstance(drive, Tensor) else type(drive).__name__
        raise ValueError(f"drive must be a floating-point tensor {expected}, got {got}")
    if not torch.compiler.is_compiling() and not bool(drive.detach().isfinite().all()):
        raise ValueError("drive must be finite, got NaN or infinity")  # a threshold would hide it
    shape = tuple(drive.shape)
    if shape[1:] == (nodes, *tail):
        drives = drive.transpose(0, 1).unsqueeze(0)
    elif shape[1:] == (steps, nodes, *tail):
        drives = drive.movedim(0, 2)
    else:
        raise ValueError(f"drive must have shape {expected}, got {shape}")
    if state is not None and (given := _batch_size(rule, nodes, state)) != shape[0]:
        raise ValueError(f"state must hold the batch of the drive, {shape[0]} samples, got {given}")
    return drives.contiguous(), shape[0]


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
