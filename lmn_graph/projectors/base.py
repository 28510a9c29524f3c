"""What every projector shares: from an input batch to the drive of a graph."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.ports import ports_of
from lmn_graph.registry import Registry
from topologies import _checks


class Projection(NamedTuple):
    """What a projector makes of an input batch.

    Attributes:
        drive: ``[B, N]`` or per step ``[B, T, N]``, with a last axis C for a rule with channels.
        context: ``[B, H]``, from which a rule with ``context_dim = H`` makes its weights; or None.
        state: the cells at the start, ``[B, N(, C)]``: the first field of the initial state; or None for the rule's own.
    """

    drive: Tensor
    context: Tensor | None = None
    state: Tensor | None = None


class Projector(nn.Module):
    """Maps an input ``[B, *in_shape]`` to a drive ``[B, N]``, or ``[B, N, C]`` for a rule with C channels.

    A topology with input ports is driven there only, in the order of its ``input_index``.

    Attributes:
        num_nodes: N.
        num_driven: P, the number of nodes that :meth:`project` gives a drive: the input ports, or all nodes.
        context_dim: H, the width of the context that :meth:`inputs` gives; 0 for none.
        paths: arguments that name files or folders; a run keeps them with their full paths.
        stored_vectors: where the state holds what the file ``vectors`` gave, so that a finished run does not need it again.
        takes_tokens: whether the input are integers.

    Args:
        in_shape: shape of one sample.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: False drives every node, ports or not.

    Raises:
        ValueError: if a size is not a positive integer, or ``input_index`` does not hold distinct node ids.
    """

    input_index: Tensor | None
    context_dim: int = 0
    paths: ClassVar[tuple[str, ...]] = ()
    stored_vectors: ClassVar[str | None] = None
    takes_tokens: ClassVar[bool] = False

    def __init__(self, in_shape: Sequence[int], topology: Data, *, channels: int | None = None, ports: bool = True) -> None:
        super().__init__()
        if not isinstance(in_shape, Sequence) or isinstance(in_shape, (str, bytes)) or not in_shape:
            raise ValueError(f"in_shape must be a non-empty sequence of integers, got {in_shape!r}")
        self.in_shape = tuple(_checks.integer("in_shape", side, minimum=1) for side in in_shape)
        self.in_features = math.prod(self.in_shape)
        self.num_nodes = _checks.integer("topology.num_nodes", getattr(topology, "num_nodes", None), minimum=1)
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)
        self.register_buffer("input_index", ports_of(topology, "input_index", ports), persistent=False)
        self.num_driven = self.num_nodes if self.input_index is None else self.input_index.numel()

    def forward(self, x: Tensor) -> Tensor:
        """The drive: check the input and :meth:`project` it."""
        self.check(x)
        return self.everywhere(self.project(x))

    def inputs(self, x: Tensor) -> Projection:
        """All that a machine is given: the drive and, from a projector that makes them, a context and an initial state."""
        return Projection(self(x))

    def check(self, x: Tensor) -> None:
        """A ValueError for an input of another shape."""
        if not isinstance(x, Tensor) or x.dim() < 1 or tuple(x.shape[1:]) != self.in_shape:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must have shape [B, {', '.join(map(str, self.in_shape))}], got {got}")

    def everywhere(self, drive: Tensor) -> Tensor:
        """A drive of the driven nodes as one of all nodes, 0 elsewhere."""
        if self.input_index is None:
            return drive
        nodes = drive.dim() - (1 if self.channels is None else 2)  # a drive per step has its time before them
        silent = drive.new_zeros(*drive.shape[:nodes], self.num_nodes, *drive.shape[nodes + 1 :])
        return silent.index_copy(nodes, self.input_index, drive)

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The drive of a checked input, [B, P(, C)] or per step [B, T, P(, C)]: one entry per driven node."""


PROJECTORS: Registry[type[Projector]] = Registry("projector", Projector)
