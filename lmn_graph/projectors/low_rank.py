"""A linear map to the drive through a few features."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class LowRank(Projector):
    r"""drive = U V x + b, with V [R, F] and U [P, R]: R (F + P) weights instead of F P for F inputs and P driven nodes.

    Args:
        in_shape: shape of one sample; it is flattened.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        rank: R >= 1.
        gain: standard deviation of the initial drive for independent inputs of unit variance, > 0.

    Raises:
        ValueError: if an argument is out of range.

    Source: the low-rank linear projector of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        rank: int = 16,
        gain: float = 0.5,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.rank = _checks.integer("rank", rank, minimum=1)
        self.gain = _checks.number("gain", gain, above=0)
        self.inner = nn.Linear(self.in_features, self.rank, bias=False)
        self.outer = nn.Linear(self.rank, self.num_driven * (self.channels or 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw U and V anew; b is zero."""
        nn.init.normal_(self.inner.weight, std=1 / math.sqrt(self.in_features))
        nn.init.normal_(self.outer.weight, std=self.gain / math.sqrt(self.rank))
        nn.init.zeros_(self.outer.bias)

    def project(self, x: Tensor) -> Tensor:
        drive = self.outer(self.inner(x.flatten(1)))
        return drive if self.channels is None else drive.unflatten(1, (self.num_driven, self.channels))

    def extra_repr(self) -> str:
        return f"rank={self.rank}"
