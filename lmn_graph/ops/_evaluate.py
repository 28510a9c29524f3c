"""How sums of messages are made: block by block in cache, or by one compiled loop over the slots of a graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.ops import _compiled
from lmn_graph.ops._calls import EDGE, KIND, SOURCE, TARGET, Call, Message, values_of
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
    """Σ over the edges of every holder ``call.to``, [N, …], [E, …] or [K, …] for each value of the message; no gradient."""
    expected = templates(call.message, tensors)
    width = max(*(math.prod(part.shape[1:]) for part in tensors), *(math.prod(value.shape) for value in expected))
    compiled = bool(width) and _compiled.compiles(call.compile, call.connectivity.num_edges * width)
    if call.to == EDGE:
        return _at_edges(call, tensors, expected, width, compiled)
    slots = slots_of(call.connectivity)
    side = slots.side(call.to)
    buckets = side.buckets if width else []
    ordered = _ordered(call, slots, tensors) if compiled else []
    if compiled and len(buckets) == 1 and buckets[0].rows is None:
        found = _whole(call, buckets[0], tensors, ordered)
        if found is not None:
            return found
    totals = tuple(tensors[0].new_zeros(side.count, *value.shape, dtype=value.dtype) for value in expected)
    for bucket in buckets:
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
    holders = call.signature.holders
    for rows, part, place in bucket.blocks(slots):
        at = {holder: bucket.side.at(holder, place) for holder in {*holders} - {call.to}}
        args = [
            tensor[part if rows is None else rows].unsqueeze(0) if holder == call.to else _gathered(tensor, at[holder])
            for tensor, holder in zip(tensors, holders)
        ]
        for total, value in zip(totals, values_of(call.message, args)):
            summed = value.expand(*place.shape, *value.shape[2:])
            summed = summed.squeeze(0) if len(place) == 1 else summed.sum(0)
            if rows is None:
                total[part] += summed
            else:
                total.index_add_(0, rows, summed)


def _gathered(tensor: Tensor, index: Tensor) -> Tensor:
    return tensor.index_select(0, index.flatten()).view(*index.shape, *tensor.shape[1:])


def _ordered(call: Call, slots: Slots, tensors: list[Tensor]) -> list[dict[Bucket, Tensor] | None]:
    """For every tensor of edges that holds one number per edge, that number in the order of slots; None for all others."""
    return [
        slots.ordered(tensor) if holder == EDGE and math.prod(tensor.shape[1:]) == 1 else None
        for tensor, holder in zip(tensors, call.signature.holders)
    ]


def _whole(call: Call, bucket: Bucket, tensors: list[Tensor], ordered: list[dict[Bucket, Tensor] | None]) -> tuple[Tensor, ...] | None:
    """One compiled loop over a bucket; None where that could not be compiled."""
    args, ways = [], []
    for tensor, holder, known in zip(tensors, call.signature.holders, ordered):
        if holder == call.to:
            args.append(bucket.fill(tensor))
        elif known is None:  # gathered where it is used
            args.append(tensor)
        else:
            if bucket not in known:
                with torch.inference_mode(False):
                    known[bucket] = bucket.ordered(tensor)
            args.append(known[bucket].view(*known[bucket].shape, *tensor.shape[1:]))
        ways.append(None if holder == call.to or known is not None else holder)
    # The first one also for its shape, which is that of the slots.
    indexed = sorted({SOURCE if call.to == TARGET else TARGET, *(way for way in ways if way is not None)})
    key = ("sum", call.message, call.signature, call.to, tuple(ways), tensors[0].dtype)
    found = _compiled.run(key, lambda: _summing(call.message, indexed, ways), *(bucket.tiles(holder) for holder in indexed), *args)
    return None if found is None else tuple(value.flatten(0, 1)[: bucket.count] for value in found)


def _summing(message: Message, indexed: list[int], ways: list[int | None]) -> Callable[..., Any]:
    """The sum over the middle axis of slots; ``ways``: by which of the ``indexed`` holders each argument is gathered."""
    places = [None if way is None else indexed.index(way) for way in ways]

    def kernel(*given: Tensor) -> tuple[Tensor, ...]:
        index, args = given[: len(indexed)], given[len(indexed) :]
        values = values_of(message, [arg if place is None else arg[index[place]] for arg, place in zip(args, places)])
        return tuple(value.expand(*index[0].shape, *value.shape[3:]).sum(1) for value in values)

    return kernel


def _at_edges(call: Call, tensors: list[Tensor], expected: tuple[Template, ...], width: int, compiled: bool) -> tuple[Tensor, ...]:
    """The message of every edge."""
    graph, holders = call.connectivity, call.signature.holders
    index = {TARGET: graph.edge_index[1], SOURCE: graph.edge_index[0]}
    if graph.edge_type is not None:
        index[KIND] = graph.edge_type
    if compiled:
        indexed = sorted({TARGET, *holders} - {EDGE})
        ways = [None if holder == EDGE else holder for holder in holders]
        key = ("each", call.message, call.signature, tensors[0].dtype)
        found = _compiled.run(key, lambda: _each(call.message, indexed, ways), *(index[holder] for holder in indexed), *tensors)
        if found is not None:
            return found
    values = tuple(tensors[0].new_empty(graph.num_edges, *value.shape, dtype=value.dtype) for value in expected)
    size = max(1, _BLOCK // max(1, width))
    for first in range(0, graph.num_edges, size):
        part = slice(first, first + size)
        args = [tensor[part] if holder == EDGE else tensor.index_select(0, index[holder][part]) for tensor, holder in zip(tensors, holders)]
        for whole, value in zip(values, values_of(call.message, args)):
            whole[part] = value
    return values


def _each(message: Message, indexed: list[int], ways: list[int | None]) -> Callable[..., Any]:
    places = [None if way is None else indexed.index(way) for way in ways]

    def kernel(*given: Tensor) -> tuple[Tensor, ...]:
        index, args = given[: len(indexed)], given[len(indexed) :]
        values = values_of(message, [arg if place is None else arg[index[place]] for arg, place in zip(args, places)])
        return tuple(value.expand(index[0].size(0), *value.shape[1:]).contiguous() for value in values)

    return kernel
