"""What an operation on messages is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled

Message = Callable[..., Any]  # tensors → a tensor or several

# Who may hold a tensor, and what messages may be summed to: the two ends of an edge, the edge itself, its type.
TARGET, SOURCE, EDGE, KIND = HOLDERS = range(4)


class Signature(NamedTuple):
    """How many tensors of a message each holder has, in the order of the arguments, and the rank of each without its leading axes."""

    target: int
    source: int
    edge: int
    kind: int
    tail: int

    @property
    def holders(self) -> list[int]:
        """Who holds each argument."""
        return [holder for holder in HOLDERS for _ in range(self[holder])]


class Call(NamedTuple):
    """What an operation does, apart from its tensors.

    Attributes:
        message: the function.
        signature: its arguments.
        connectivity: the graph.
        to: the holder to which messages are summed: TARGET, SOURCE, EDGE (which has but one) or KIND.
        compile: see :mod:`lmn_graph.ops._compiled`.
    """

    message: Message
    signature: Signature
    connectivity: Connectivity
    to: int
    compile: _compiled.Compile


def values_of(message: Message, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The values of a message, a tuple also where it is one."""
    found = message(*args)
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)
