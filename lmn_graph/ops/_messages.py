"""Sums of any message over edges, with exact derivatives of every order and no tensor of all messages.

A message is a function of what both ends of an edge, the edge itself and its type hold. One operation is enough:

    y_h = Σ message(target of e, source of e, e, type of e)      over the edges e of every h

where h are the targets, the sources, the edges themselves (a sum of one message) or the types of edges.

The derivative of a message is a message again, one that also holds the incoming gradient, wherever that is held. So the gradient of such
a sum to what one of the four holds is such a sum to that holder: a gather, never a scatter; and the same holds for its gradients in turn.
Messages are made block by block in cache, or by one compiled loop, and added up at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmn_graph.ops._calls import HOLDERS, Call, Message, Signature, values_of
from lmn_graph.ops._evaluate import sums
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


def summed(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Σ over the edges of every holder ``call.to``, [N, …], [E, …] or [K, …] for each value; with a gradient of any order."""
    return _Sum.apply(call, *tensors)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        with exact(tensors[0]):
            return sums(call, [tensor.detach() for tensor in tensors])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return None, *_gradients(ctx.call, ctx.saved_tensors, grads, ctx.needs_input_grad[1:])


def _gradients(call: Call, tensors: Sequence[Tensor], grads: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor | None]:
    """The gradients to all tensors of an operation; the incoming ones are held by what its messages were summed to."""
    found: list[Tensor | None] = [None] * len(tensors)
    given = [g.contiguous() for g in grads if g is not None]
    if not given:
        return found
    everything = [*tensors, *given]
    holders = call.signature.holders + [call.to] * len(given)
    arranged = sorted(range(len(everything)), key=holders.__getitem__)
    place = {k: at for at, k in enumerate(arranged)}
    numbers = iter(range(len(tensors), len(everything)))
    cotangents = tuple(None if g is None else place[next(numbers)] for g in grads)
    arguments = tuple(place[k] for k in range(len(tensors)))
    signature = Signature._make([*map(holders.count, HOLDERS), call.signature.tail])
    for holder in HOLDERS:
        wanted = tuple(k for k in range(len(tensors)) if needed[k] and holders[k] == holder)
        if not wanted:
            continue
        message = Derivative(call.message, wanted, arguments, cotangents, signature.tail)
        derived = call._replace(message=message, signature=signature, to=holder)
        for k, value in zip(wanted, summed(derived, [everything[k] for k in arranged])):
            found[k] = value
    return found


def _leading(tensors: Sequence[Tensor], tail: int) -> tuple[int, ...]:
    """The leading axes that the arguments of a message have between them; torch.broadcast_shapes, but called for every block."""
    sizes = [tensor.shape[: tensor.dim() - tail] for tensor in tensors]
    return tuple(next((size for size in axis if size != 1), 1) for axis in zip(*sizes))
