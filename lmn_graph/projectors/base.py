"""What every projector shares: from an input batch to the drive of a graph."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.registry import Registry
from topologies import _checks


class Projector(nn.Module):
    """Maps an input ``[B, *in_shape]`` to a drive ``[B, N]``, or ``[B, N, C]`` for a rule with C channels.

    Args:
        in_shape: shape of one sample.
        topology: the graph to drive.
        channels: None for scalar cells, else C.

    Raises:
        ValueError: if a size is not a positive integer.
    """

    def __init__(self, in_shape: Sequence[int], topology: Data, *, channels: int | None = None) -> None:
        super().__init__()
        if not isinstance(in_shape, Sequence) or isinstance(in_shape, (str, bytes)) or not in_shape:
            raise ValueError(f"in_shape must be a non-empty sequence of integers, got {in_shape!r}")
        self.in_shape = tuple(_checks.integer("in_shape", side, minimum=1) for side in in_shape)
        self.in_features = math.prod(self.in_shape)
        self.num_nodes = _checks.integer("topology.num_nodes", getattr(topology, "num_nodes", None), minimum=1)
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)

    def forward(self, x: Tensor) -> Tensor:
        """Check the input and :meth:`project` it."""
        if not isinstance(x, Tensor) or x.dim() < 1 or tuple(x.shape[1:]) != self.in_shape:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must have shape [B, {', '.join(map(str, self.in_shape))}], got {got}")
        return self.project(x)

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The drive of a checked input."""


PROJECTORS: Registry[type[Projector]] = Registry("projector", Projector)
