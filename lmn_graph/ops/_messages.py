"""Sums of any message over neighbours, with exact derivatives of every order and no tensor of all messages.

A message is a function of what both ends of an edge and the edge itself hold. Two operations are enough:

    node_sum    y_n = Σ_e message(own n, other end of e, e)      over the edges e of every node n, incoming or outgoing
    edge_value  v_e = message(target of e, source of e, e)       summed to the shape of what it is the gradient of

The derivative of a message is a message again, one that also holds the incoming gradient. So the gradient of a ``node_sum`` to what the
node itself holds is a ``node_sum`` on the same side, to what the other ends hold one on the other side (a gather, never a scatter), and
to what the edges hold an ``edge_value``; and the same holds for their gradients in turn. Messages are made block by block in cache, or
by one compiled loop, and added up at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled
from lmn_graph.ops._kernels import exact
from lmn_graph.ops._slots import TILE, Bucket, Slots, slots_of

Message = Callable[..., Any]  # tensors → a tensor or several
_BLOCK = 1 << 17  # numbers in the messages that are made at once: a few such blocks fit into the second cache
_SMALL = 1 << 14  # messages of a bucket below which it is not worth a compiled call


class Signature(NamedTuple):
    """How many tensors of a message are the node's own, the other end's and the edge's, and the rank of each without its leading axes."""

    own: int
    other: int
    edge: int
    tail: int

    @property
    def total(self) -> int:
        return self.own + self.other + self.edge


class Call(NamedTuple):
    """What an operation does, apart from its tensors.

    Attributes:
        message: the function.
        signature: its arguments.
        connectivity: the graph.
        outgoing: whether the edges of a node are those that leave it.
        compile: see :mod:`lmn_graph.ops._compiled`.
    """

    message: Message
    signature: Signature
    connectivity: Connectivity
    outgoing: bool
    compile: _compiled.Compile


@dataclass(frozen=True)
class Derivative:
    """The message v · ∂message/∂argument, for some of its arguments.

    Args:
        message: what is differentiated.
        wanted: the arguments to which.
        arguments: where its arguments are among those of this one.
        cotangents: where the incoming gradient of each of its values is; None for no gradient.
        tail: rank of a value without its leading axes.
    """

    message: Message
    wanted: tuple[int, ...]
    arguments: tuple[int, ...]
    cotangents: tuple[int | None, ...]
    tail: int

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        args = [given[place] for place in self.arguments]
        lead = _leading(given, self.tail)

        pull_back = PULL_BACKS.get(self.message)
        if pull_back is not None:
            (place,) = self.cotangents
            assert place is not None
            found = pull_back(args, given[place], self.wanted)
            # The sum over what an argument shares within a message, as torch's own derivative would have it.
            return tuple(value.sum_to_size(*lead, *args[at].shape[len(lead) :]) for at, value in zip(self.wanted, found))

        def only(*values: Tensor) -> tuple[Tensor, ...]:
            full = list(args)
            for place, value in zip(self.wanted, values):
                full[place] = value
            return values_of(self.message, full)

        # With leading axes of its own for every message, none of them is summed over here: only what an argument shares within a message.
        at = tuple(args[place].expand(*lead, *args[place].shape[len(lead) :]) for place in self.wanted)
        values, pull = torch.func.vjp(only, *at)[:2]
        incoming = tuple(
            torch.zeros_like(value) if place is None else given[place].expand(value.shape) for value, place in zip(values, self.cotangents)
        )
        return pull(incoming)


# A message of one value may have its derivative by hand, fewer operations than torch finds: (args, incoming gradient, wanted) → a tensor
# for each wanted argument, of the leading axes of all messages.
PULL_BACKS: dict[Message, Callable[[Sequence[Tensor], Tensor, tuple[int, ...]], list[Tensor]]] = {}


def values_of(message: Message, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The values of a message, a tuple also where it is one."""
    found = message(*args)
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def node_sum(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Σ over the edges of every node, [N, …] for each value of the message; with a gradient of any order."""
    return _NodeSum.apply(call, *tensors)


def edge_value(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The message of every edge, [E, …] for each value, own being the target; with a gradient of any order."""
    return _EdgeValue.apply(call, *tensors)


class _NodeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        with exact(tensors[0]):
            return _sum(call, [tensor.detach() for tensor in tensors])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        call, tensors = ctx.call, list(ctx.saved_tensors)
        s = call.signature
        given = [g.contiguous() for g in grads if g is not None]
        found: list[Tensor | None] = [None] * s.total
        wanted = [k for k in range(s.total) if ctx.needs_input_grad[1 + k]]
        if not given:
            return None, *found
        own, other, edge = tensors[: s.own], tensors[s.own : s.own + s.other], tensors[s.own + s.other :]

        def derive(ks: list[int], operation: Any, outgoing: bool, swapped: bool) -> None:
            """One operation for the gradients to arguments ``ks``; the incoming gradients are held by the node that had the sum."""
            if not ks:
                return
            n_own, n_g = len(own), len(given)
            if swapped:  # own: the other end; other: the node with its gradients
                parts = [*other, *own, *given, *edge]
                places = [*range(s.other, s.other + n_own), *range(s.other)]
                g_at, e_at = s.other + n_own, s.other + n_own + n_g
                signature = Signature(s.other, n_own + n_g, s.edge, s.tail)
            else:
                parts = [*own, *given, *other, *edge]
                places = [*range(n_own), *range(n_own + n_g, n_own + n_g + s.other)]
                g_at, e_at = n_own, n_own + n_g + s.other
                signature = Signature(n_own + n_g, s.other, s.edge, s.tail)
            places += range(e_at, e_at + s.edge)
            message = Derivative(call.message, tuple(ks), tuple(places), _places(grads, g_at), s.tail)
            values = operation(Call(message, signature, call.connectivity, outgoing, call.compile), parts)
            for k, value in zip(ks, values):
                found[k] = value

        derive([k for k in wanted if k < s.own], node_sum, call.outgoing, False)
        derive([k for k in wanted if s.own <= k < s.own + s.other], node_sum, not call.outgoing, True)
        # An edge value has the target for its own end: the node that had the sum, unless that was a sum over outgoing edges.
        derive([k for k in wanted if k >= s.own + s.other], edge_value, False, call.outgoing)
        return None, *found


class _EdgeValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        with exact(tensors[0]):
            return _each(call, [tensor.detach() for tensor in tensors])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        call, tensors = ctx.call, list(ctx.saved_tensors)
        s = call.signature
        given = [g for g in grads if g is not None]
        found: list[Tensor | None] = [None] * s.total
        wanted = [k for k in range(s.total) if ctx.needs_input_grad[1 + k]]
        if not given:
            return None, *found
        own, other, edge = tensors[: s.own], tensors[s.own : s.own + s.other], tensors[s.own + s.other :]

        def derive(ks: list[int], operation: Any, swapped: bool) -> None:
            """The incoming gradients are held by the edges."""
            if not ks:
                return
            first, second = (other, own) if swapped else (own, other)
            places = [*range(s.other, s.other + s.own), *range(s.other)] if swapped else [*range(s.own + s.other)]
            places += range(s.own + s.other, s.total)
            message = Derivative(call.message, tuple(ks), tuple(places), _places(grads, s.total), s.tail)
            signature = Signature(len(first), len(second), s.edge + len(given), s.tail)
            values = operation(Call(message, signature, call.connectivity, swapped, call.compile), [*first, *second, *edge, *given])
            for k, value in zip(ks, values):
                found[k] = value

        derive([k for k in wanted if k < s.own], node_sum, False)
        derive([k for k in wanted if s.own <= k < s.own + s.other], node_sum, True)
        derive([k for k in wanted if k >= s.own + s.other], edge_value, False)
        return None, *found


def _places(grads: Sequence[Tensor | None], first: int) -> tuple[int | None, ...]:
    """Where the gradients that exist stand, from ``first`` on."""
    places, place = [], first
    for g in grads:
        places.append(None if g is None else place)
        place += g is not None
    return tuple(places)


def _leading(tensors: Sequence[Tensor], tail: int) -> tuple[int, ...]:
    """The leading axes that the arguments of a message have between them; torch.broadcast_shapes, but called for every block."""
    sizes = [tensor.shape[: tensor.dim() - tail] for tensor in tensors]
    return tuple(next((size for size in axis if size != 1), 1) for axis in zip(*sizes))


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


def _sum(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
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
    sums = tuple(tensors[0].new_zeros(n, *value.shape, dtype=value.dtype) for value in expected)
    for bucket in [] if side is None else side.buckets:
        if compiled and bucket.rows is not None and (call.compile == "always" or _is_worth_it(bucket, width)):
            found = _whole(call, bucket, tensors, ordered)
            if found is not None:
                for total, part in zip(sums, found):
                    total.index_add_(0, bucket.rows, part)
                continue
        _in_blocks(call, bucket, tensors, sums, max(1, _BLOCK // width))
    return sums


def _is_worth_it(bucket: Bucket, width: int) -> bool:
    """Whether a bucket has work enough for a compiled call, and rows enough: a few hubs would be filled up to a whole tile."""
    return bucket.count * bucket.width * width >= _SMALL and 8 * bucket.count > TILE


def _in_blocks(call: Call, bucket: Bucket, tensors: list[Tensor], sums: tuple[Tensor, ...], slots: int) -> None:
    s = call.signature
    for rows, part, other, edges in bucket.blocks(slots):
        args = [tensor[part if rows is None else rows].unsqueeze(0) for tensor in tensors[: s.own]]
        args += [_gathered(tensor, other) for tensor in tensors[s.own : s.own + s.other]]
        args += [_gathered(tensor, edges) for tensor in tensors[s.own + s.other :]]
        for total, value in zip(sums, values_of(call.message, args)):
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


def _each(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
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
