"""How sums of messages are made: block by block in cache, or by one compiled loop over the slots of a graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.ops import _compiled
from lmn_graph.ops._calls import Call, Message, Signature, values_of
from lmn_graph.ops._slots import TILE, Bucket, Slots, slots_of

_BLOCK = 1 << 17  # numbers in the messages that are made at once: a few such blocks fit into the second cache
_SMALL = 1 << 14  # messages of a bucket below which it is not worth a compiled call


class Template(NamedTuple):
    """One value of a message: its shape without the leading axis, and its dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def templates(message: Message, tensors: Sequence[Tensor]) -> tuple[Template, ...]:
    """What the values of a message on these tensors look like: those on no edges, asked for once."""
    return _templates(message, tuple((tuple(t.shape[1:]), t.dtype, t.device) for t in tensors))


@functools.lru_cache(maxsize=1024)
def _templates(message: Message, like: tuple[tuple[tuple[int, ...], torch.dtype, torch.device], ...]) -> tuple[Template, ...]:
    empty = [torch.empty(0, *shape, dtype=dtype, device=device) for shape, dtype, device in like]
    return tuple(Template(tuple(value.shape[1:]), value.dtype) for value in values_of(message, empty))


def sums(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Σ over the edges of every node, [N, …] for each value of the message; no gradient."""
    n = call.connectivity.num_nodes
    expected = templates(call.message, tensors)
    width = max(*(math.prod(part.shape[1:]) for part in tensors), *(math.prod(value.shape) for value in expected))
    slots = slots_of(call.connectivity)
    side = (slots.outgoing if call.outgoing else slots.incoming) if call.connectivity.num_edges and width else None
    compiled = side is not None and _compiled.compiles(call.compile, call.connectivity.num_edges * width)
    ordered = _ordered(call, slots, tensors) if compiled else []
    if side is not None and compiled and len(side.buckets) == 1 and side.buckets[0].rows is None:
        found = _whole(call, side.buckets[0], tensors, ordered)
        if found is not None:
            return found
    totals = tuple(tensors[0].new_zeros(n, *value.shape, dtype=value.dtype) for value in expected)
    for bucket in [] if side is None else side.buckets:
        if compiled and bucket.rows is not None and (call.compile == "always" or _is_worth_it(bucket, width)):
            found = _whole(call, bucket, tensors, ordered)
            if found is not None:
                for total, part in zip(totals, found):
                    total.index_add_(0, bucket.rows, part)
                continue
        _in_blocks(call, bucket, tensors, totals, max(1, _BLOCK // width))
    return totals


def _is_worth_it(bucket: Bucket, width: int) -> bool:
    """Whether a bucket has work enough for a compiled call, and rows enough: a few hubs would be filled up to a whole tile."""
    return bucket.count * bucket.width * width >= _SMALL and 8 * bucket.count > TILE


def _in_blocks(call: Call, bucket: Bucket, tensors: list[Tensor], totals: tuple[Tensor, ...], slots: int) -> None:
    s = call.signature
    for rows, part, other, edges in bucket.blocks(slots):
        args = [tensor[part if rows is None else rows].unsqueeze(0) for tensor in tensors[: s.own]]
        args += [_gathered(tensor, other) for tensor in tensors[s.own : s.own + s.other]]
        args += [_gathered(tensor, edges) for tensor in tensors[s.own + s.other :]]
        for total, value in zip(totals, values_of(call.message, args)):
            summed = value.expand(*other.shape, *value.shape[2:])
            summed = summed.squeeze(0) if len(other) == 1 else summed.sum(0)
            if rows is None:
                total[part] += summed
            else:
                total.index_add_(0, rows, summed)


def _gathered(tensor: Tensor, index: Tensor) -> Tensor:
    return tensor.index_select(0, index.flatten()).view(*index.shape, *tensor.shape[1:])


def _ordered(call: Call, slots: Slots, tensors: list[Tensor]) -> list[dict[Bucket, Tensor] | None]:
    """For every tensor of edges that holds one number per edge, that number in the order of slots; None for the others."""
    return [
        slots.ordered(tensor) if math.prod(tensor.shape[1:]) == 1 else None
        for tensor in tensors[call.signature.total - call.signature.edge :]
    ]


def _whole(call: Call, bucket: Bucket, tensors: list[Tensor], ordered: list[dict[Bucket, Tensor] | None]) -> tuple[Tensor, ...] | None:
    """One compiled loop over a bucket; None where that could not be compiled."""
    s = call.signature
    other, edges = bucket.tiles()
    args = [bucket.fill(tensor) for tensor in tensors[: s.own]] + tensors[s.own : s.own + s.other]
    for tensor, known in zip(tensors[s.own + s.other :], ordered):
        if known is None:  # several numbers per edge are gathered where they are used
            args.append(tensor)
            continue
        if bucket not in known:
            with torch.inference_mode(False):
                known[bucket] = bucket.ordered(tensor)
        args.append(known[bucket].view(*edges.shape, *tensor.shape[1:]))
    flat = tuple(known is not None for known in ordered)
    key = ("sum", call.message, s, flat, tensors[0].dtype)
    found = _compiled.run(key, lambda: _summing(call.message, s, flat), other, edges, *args)
    return None if found is None else tuple(value.flatten(0, 1)[: bucket.count] for value in found)


def _summing(message: Message, s: Signature, flat: tuple[bool, ...]) -> Callable[..., Any]:
    def kernel(other: Tensor, edges: Tensor, *args: Tensor) -> tuple[Tensor, ...]:
        parts = [*args[: s.own], *(arg[other] for arg in args[s.own : s.own + s.other])]
        parts += [arg if ordered else arg[edges] for arg, ordered in zip(args[s.own + s.other :], flat)]
        values = values_of(message, parts)
        return tuple(value.expand(*other.shape, *value.shape[3:]).sum(1) for value in values)

    return kernel


def values_at_edges(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The message of every edge, [E, …] for each of its values; no gradient."""
    s, graph = call.signature, call.connectivity
    expected = templates(call.message, tensors)
    width = max(*(math.prod(part.shape[1:]) for part in tensors), *(math.prod(value.shape) for value in expected))
    source, target = graph.edge_index
    if width and _compiled.compiles(call.compile, graph.num_edges * width):
        key = ("each", call.message, s, tensors[0].dtype)
        found = _compiled.run(key, lambda: _at_edges(call.message, s), target, source, *tensors)
        if found is not None:
            return found
    values = tuple(tensors[0].new_empty(graph.num_edges, *value.shape, dtype=value.dtype) for value in expected)
    size = max(1, _BLOCK // max(1, width))
    for first in range(0, graph.num_edges, size):
        part = slice(first, first + size)
        args = [tensor.index_select(0, target[part]) for tensor in tensors[: s.own]]
        args += [tensor.index_select(0, source[part]) for tensor in tensors[s.own : s.own + s.other]]
        args += [tensor[part] for tensor in tensors[s.own + s.other :]]
        for whole, value in zip(values, values_of(call.message, args)):
            whole[part] = value
    return values


def _at_edges(message: Message, s: Signature) -> Callable[..., Any]:
    def kernel(target: Tensor, source: Tensor, *args: Tensor) -> tuple[Tensor, ...]:
        parts = [*(arg[target] for arg in args[: s.own]), *(arg[source] for arg in args[s.own : s.own + s.other]), *args[s.own + s.other :]]
        values = values_of(message, parts)
        return tuple(value.expand(target.size(0), *value.shape[1:]).contiguous() for value in values)

    return kernel
