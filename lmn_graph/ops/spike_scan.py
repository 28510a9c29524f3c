"""Leaky spiking neurons with resources over many steps at once, in C++."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _native
from lmn_graph.ops._native import NAMES, Strided, differentiable

RESETS = ("none", "zero", "subtract")
BLOCK = 16  # steps whose states are held at once: made again from the first of them where gradients need them


class Spikes(NamedTuple):
    """What of a run of spiking neurons is no tensor with a gradient.

    Attributes:
        connectivity: the graph.
        reset: one of ``RESETS``.
        detach_reset: whether the reset is left out of the gradient.
        resources: whether spikes use resources.
        slope: the derivative of the spike function, of v − θ.
        steps: T, a multiple of the number of frames of the drive.
        every: whether a frame drives all its steps, or the first of them only.
        record: whether the states after all steps are returned.
        step_by_step: the same from operations of torch, for a gradient that is to be differentiated itself.
    """

    connectivity: Connectivity
    reset: str
    detach_reset: bool
    resources: bool
    slope: Callable[[Tensor], Tensor]
    steps: int
    every: bool
    record: bool
    step_by_step: Callable[..., tuple[Tensor, ...]]


def is_compiled(like: Tensor) -> bool:
    """Whether there are compiled loops for tensors of this kind."""
    return _native.loops_for("spike_scan", like) is not None


def spike_scan(spikes: Spikes, weight: Tensor, neuron: Tensor, drive: Tensor | None, v: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    r"""Spikes, membranes and resources of T steps of

    .. math::
        s = H(v - \theta), \qquad v \leftarrow \mathrm{reset}(v, s)\, d + \textstyle\sum_j w_{ij} s_j r_j + \mathrm{drive}, \qquad
        r \leftarrow \max(r - u s + (1 - r)\, \rho,\ 0)

    Samples do not meet: some at a time run through all steps by themselves, so that their states stay in a processor's cache. For
    back-propagation every sixteenth state is kept; those in between are computed again, which takes less time than to write them down.

    Args:
        spikes: what kind of neurons.
        weight: [E].
        neuron: θ, d, u and ρ, [4, N].
        drive: frames [F, N, B], each for T / F steps, or None.
        v, r: the state before the first step, [N, B] each.

    Returns:
        s [T, N, B]; v and r after the last step, [N, B] each; with ``record`` v and r after every step, [T, N, B] each. All have gradients
        of every order.
    """
    keep = spikes.record or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (weight, neuron, drive, v, r)))
    found: tuple[Tensor, ...] = _Scan.apply(spikes, keep, weight, neuron, drive, v, r)
    return found


def _shared(spikes: Spikes, weight: Tensor, neuron: Tensor, drive: Tensor | None, batch_size: int) -> tuple[Any, ...]:
    """The arguments that both loops begin with."""
    graph, frames = spikes.connectivity, 1 if drive is None else drive.size(0)
    return (
        *(graph.num_nodes, graph.num_edges, batch_size, torch.get_num_threads(), RESETS.index(spikes.reset), int(spikes.resources)),
        *(graph.rowptr, graph.col, weight, *neuron.unbind(), spikes.steps // frames, int(spikes.every)),
    )


def _loop(name: str, like: Tensor) -> Any:
    return getattr(_native.library("spike_scan"), f"{name}_{NAMES[like.dtype]}")


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, spikes: Spikes, keep: bool, weight: Tensor, neuron: Tensor, drive: Tensor | None, v: Tensor, r: Tensor
    ) -> tuple[Tensor, ...]:
        state = [v.clone(), r.clone()]
        s = v.new_empty(v.size(1), spikes.steps, len(v)).permute(1, 2, 0)  # read by samples
        shared = _shared(spikes, weight.contiguous(), neuron.contiguous(), drive, v.size(1))
        recorded = [v.new_empty(spikes.steps, *v.shape) if spikes.record else None for _ in range(2)]
        starts = []
        for first in range(0, spikes.steps, BLOCK):
            if keep:
                starts.append([field.clone() for field in state])
            part = slice(first, min(first + BLOCK, spikes.steps))
            written = (s[part], *(None if found is None else found[part] for found in recorded))
            _native.call(_loop("forward", v), *shared, first, part.stop - first, *map(Strided.of, (drive, *state, *written)))
        ctx.spikes, ctx.starts = spikes, starts
        ctx.save_for_backward(weight, neuron, drive, v, r)
        ctx.set_materialize_grads(False)
        return (s, *state, *recorded) if spikes.record else (s, *state)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            pairs = [(output, grad) for output, grad in zip(ctx.spikes.step_by_step(*inputs), grads) if grad is not None]
            gradients = iter(differentiable(pairs, [tensor for tensor, want in zip(inputs, wanted) if want]))
            return None, None, *(next(gradients) if want else None for want in wanted)
        found = _pull_back(ctx.spikes, inputs, ctx.starts, [*grads, None, None][:5], wanted)
        return None, None, *(gradient if want else None for gradient, want in zip(found, wanted))


def _pull_back(
    spikes: Spikes, inputs: Sequence[Any], starts: list[list[Tensor]], grads: list[Tensor | None], wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients to the five inputs, for those to what the scan returned."""
    weight, neuron, drive, v, r = inputs
    weight, neuron = weight.contiguous(), neuron.contiguous()
    g_s, g_v, g_r, *g_recorded = grads
    to_v, to_r = (torch.zeros_like(like) if grad is None else grad.clone() for grad, like in ((g_v, v), (g_r, r)))
    threads, graph = torch.get_num_threads(), spikes.connectivity
    to_weight = weight.new_zeros(threads, weight.numel()) if wanted[0] else None
    to_neuron = neuron.new_zeros(threads, *neuron.shape)
    to_drive = torch.zeros_like(drive) if wanted[2] else None
    shared = _shared(spikes, weight, neuron, drive, v.size(1))
    transposed = (graph.rowptr_t, graph.col_t, weight.index_select(0, graph.perm_t))
    states = [v.new_empty(BLOCK + 1, *v.shape) for _ in range(2)]  # before the first step and after each
    for number, first in reversed(list(enumerate(range(0, spikes.steps, BLOCK)))):
        count = min(BLOCK, spikes.steps - first)
        for field, start in zip(states, starts[number]):
            field[0] = start
        after = [field[1 : count + 1] for field in states]
        state = [start.clone() for start in starts[number]]
        _native.call(_loop("forward", v), *shared, first, count, *map(Strided.of, (drive, *state, None, *after)))
        slope = spikes.slope(states[0][:count] - neuron[0, :, None])
        given = [None if grad is None else grad[first : first + count] for grad in (g_s, *g_recorded)]
        arrays = map(Strided.of, (*(field[:count] for field in states), after[1], slope, *given, to_v, to_r, to_drive))
        _native.call(_loop("backward", v), *shared, first, count, int(spikes.detach_reset), *transposed, *arrays, to_weight, to_neuron)
    return None if to_weight is None else to_weight.sum(0), to_neuron.sum(0), to_drive, to_v, to_r
