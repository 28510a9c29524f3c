"""Each input drives the node of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class Identity(Projector):
    r"""Input p drives node p, :math:`drive_p = g_p x_p + b_p`: pixels onto the cells of a lattice, the values of a line onto its ports.

    Inputs are taken in C order and driven nodes in theirs (the topology's ``input_index``, or all nodes). Of P nodes more than the F
    inputs, the others get only b; where there are fewer, runs of inputs share a node, p driving node ⌊p P / F⌋, which gets their sum.

    Args:
        in_shape: shape of one sample; it is flattened.
        topology: the graph to drive.
        channels: None for scalar cells, else C; every channel has g and b of its own.
        ports: drive the topology's input ports only, where it has them.
        gain: g at the start.
        learn: whether g and b are learned, b starting normal with a standard deviation of 0.1; else b is 0.

    Raises:
        ValueError: if an argument is out of range.
    """

    gain: Tensor
    bias: Tensor
    places: Tensor | None

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        gain: float = 1.0,
        learn: bool = True,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        places = torch.arange(self.in_features) * self.num_driven // self.in_features
        self.register_buffer("places", places if self.in_features > self.num_driven else None, persistent=False)
        self.initial_gain = _checks.number("gain", gain)
        copies = () if self.channels is None else (self.channels,)
        for name, size in (("gain", self.in_features), ("bias", self.num_driven)):
            value = torch.empty(size, *copies)
            if _checks.flag("learn", learn):
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the gains back to where they start and draw biases that are learned; gains of channels alternate in sign, to differ."""
        with torch.no_grad():
            self.gain.fill_(self.initial_gain)
            if self.channels is not None:
                self.gain[:, 1::2].neg_()
            if isinstance(self.bias, nn.Parameter):
                self.bias.normal_(std=0.1)
            else:
                self.bias.zero_()

    def project(self, x: Tensor) -> Tensor:
        values = x.flatten(1) if self.channels is None else x.flatten(1).unsqueeze(-1)
        drive = values * self.gain
        rest = self.num_driven - self.in_features
        if self.places is not None:
            drive = drive.new_zeros(len(drive), self.num_driven, *drive.shape[2:]).index_add(1, self.places, drive)
        elif rest:
            drive = torch.cat([drive, drive.new_zeros(len(drive), rest, *drive.shape[2:])], 1)
        return drive + self.bias
