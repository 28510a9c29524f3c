"""What an operation on messages is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled

Message = Callable[..., Any]  # tensors → a tensor or several


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


def values_of(message: Message, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The values of a message, a tuple also where it is one."""
    found = message(*args)
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)
