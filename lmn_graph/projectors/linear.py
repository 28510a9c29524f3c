"""One linear map to the drive."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class Linear(Projector):
    r"""drive = W x + b, one row of W per driven node and channel.

    Args:
        in_shape: shape of one sample; it is flattened.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        bias: whether b is there.
        gain: scale of the initial W and b, > 0; at 1 they are torch's, uniform within 1/√F for F inputs.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.gain = _checks.number("gain", gain, above=0)
        self.linear = nn.Linear(self.in_features, self.num_driven * (self.channels or 1), bias=bias)
        self._scale()

    def reset_parameters(self) -> None:
        """Draw W and b anew."""
        self.linear.reset_parameters()
        self._scale()

    @torch.no_grad()
    def _scale(self) -> None:
        if self.gain != 1:
            for parameter in self.linear.parameters():
                parameter.mul_(self.gain)

    def project(self, x: Tensor) -> Tensor:
        drive = self.linear(x.flatten(1))
        return drive if self.channels is None else drive.unflatten(1, (self.num_driven, self.channels))
