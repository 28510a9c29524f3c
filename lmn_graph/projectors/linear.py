"""One linear map to the drive."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.projectors.base import PROJECTORS, Projector


@PROJECTORS.register
class Linear(Projector):
    r"""drive = W x + b, one row of W per driven node and channel.

    Args:
        in_shape: shape of one sample; it is flattened.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        bias: whether b is there.
    """

    def __init__(
        self, in_shape: Sequence[int], topology: Data, *, channels: int | None = None, ports: bool = True, bias: bool = True
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.linear = nn.Linear(self.in_features, self.num_driven * (self.channels or 1), bias=bias)

    def project(self, x: Tensor) -> Tensor:
        drive = self.linear(x.flatten(1))
        return drive if self.channels is None else drive.unflatten(1, (self.num_driven, self.channels))
