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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmn_graph.ops._calls import Call, Message, Signature, values_of
from lmn_graph.ops._evaluate import sums, values_at_edges
from lmn_graph.ops._kernels import exact


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
            return sums(call, [tensor.detach() for tensor in tensors])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return None, *_gradients(ctx, _OWN, grads)


class _EdgeValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        with exact(tensors[0]):
            return values_at_edges(call, [tensor.detach() for tensor in tensors])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return None, *_gradients(ctx, _EDGE, grads)


_OWN, _OTHER, _EDGE = range(3)  # who holds a tensor: the node that has the sum (of an edge value the target), the other end, the edge


def _gradients(ctx: Any, held: int, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients to all tensors of an operation; the incoming ones are ``held`` by the nodes that had the sum, or by the edges."""
    call: Call = ctx.call
    s = call.signature
    given = [g.contiguous() for g in grads if g is not None]
    found: list[Tensor | None] = [None] * s.total
    if not given:
        return found
    tensors = [*ctx.saved_tensors, *given]
    holders = [_OWN] * s.own + [_OTHER] * s.other + [_EDGE] * s.edge + [held] * len(given)
    for holder in (_OWN, _OTHER, _EDGE):
        wanted = [k for k in range(s.total) if ctx.needs_input_grad[1 + k] and holders[k] == holder]
        if not wanted:
            continue
        # Summed up at the other end, that end is the node of its own; an edge value has the target for its own end.
        swapped = holder == _OTHER or (holder == _EDGE and call.outgoing)
        order = [_OTHER, _OWN, _EDGE] if swapped else [_OWN, _OTHER, _EDGE]
        arranged = [k for one in order for k in range(len(tensors)) if holders[k] == one]
        place = {k: at for at, k in enumerate(arranged)}
        numbers = iter(range(s.total, len(tensors)))
        cotangents = tuple(None if g is None else place[next(numbers)] for g in grads)
        message = Derivative(call.message, tuple(wanted), tuple(place[k] for k in range(s.total)), cotangents, s.tail)
        outgoing = holder != _EDGE and call.outgoing != swapped
        own, other, edge = (holders.count(one) for one in order)
        derived = call._replace(message=message, signature=Signature(own, other, edge, s.tail), outgoing=outgoing)
        values = (edge_value if holder == _EDGE else node_sum)(derived, [tensors[k] for k in arranged])
        for k, value in zip(wanted, values):
            found[k] = value
    return found


def _leading(tensors: Sequence[Tensor], tail: int) -> tuple[int, ...]:
    """The leading axes that the arguments of a message have between them; torch.broadcast_shapes, but called for every block."""
    sizes = [tensor.shape[: tensor.dim() - tail] for tensor in tensors]
    return tuple(next((size for size in axis if size != 1), 1) for axis in zip(*sizes))
