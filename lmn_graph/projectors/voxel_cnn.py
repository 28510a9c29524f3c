"""A convolutional network whose feature maps are the layers of a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from lmn_graph._precision import widened
from lmn_graph.connectivity import lattice_shape
from lmn_graph.projectors.base import PROJECTORS, Projector
from lmn_graph.projectors.low_rank import LowRank
from topologies import _checks

POOLED = 4  # rows and columns of a feature map that drives a graph without lattice shape


@PROJECTORS.register
class VoxelCNN(Projector):
    r"""The feature maps of a convolutional network fill a lattice: height and width its first two axes, maps the others.

    Each layer is a 3 × 3 convolution, group normalisation and GELU; every layer but the first halves height and width. A 1 × 1 convolution
    then makes :math:`L_3 \cdots L_d` maps, which are resized (bilinear) to :math:`L_1 \times L_2`; a bias per cell is added. A graph
    without lattice shape, or one that is driven at its input ports, gets learned node factors instead: a map of rank R from the maps,
    resized to 4 × 4, as in :class:`LowRank`.

    Args:
        in_shape: (height, width), grey, or (C, height, width).
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        width: maps of the first layer; each further layer has twice as many, up to four times that.
        layers: >= 1.
        rank: R, where nodes have factors.
        gain: scale of the initial 1 × 1 convolution, > 0.

    Raises:
        ValueError: if ``in_shape`` is not that of pictures or an argument is out of range.

    Source: the CNN voxel projector of the Lattice Machine Networks repository; Y. Wu, K. He, "Group normalization", 2018.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        width: int = 16,
        layers: int = 2,
        rank: int = 16,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        if len(self.in_shape) not in (2, 3):
            raise ValueError(f"in_shape must be (height, width) or (C, height, width), got {self.in_shape}")
        width, layers = _checks.integer("width", width, minimum=1), _checks.integer("layers", layers, minimum=1)
        rank, self.gain = _checks.integer("rank", rank, minimum=1), _checks.number("gain", gain, above=0)
        maps = [1 if len(self.in_shape) == 2 else self.in_shape[0], *(width * min(2**layer, 4) for layer in range(layers))]
        blocks: list[nn.Module] = []
        for layer, (before, after) in enumerate(pairwise(maps)):
            blocks += [nn.Conv2d(before, after, 3, stride=2 if layer else 1, padding=1), nn.GroupNorm(math.gcd(8, after), after), nn.GELU()]
        self.network = nn.Sequential(*blocks)
        shape = lattice_shape(topology) if self.input_index is None else None
        self.head: LowRank | None = None
        if shape is None:
            self.head = LowRank((maps[-1] * POOLED**2,), topology, rank=rank, channels=channels, ports=ports)
            return
        self.plane = (shape[0], shape[1] if len(shape) > 1 else 1)
        self.mix = nn.Conv2d(maps[-1], math.prod(shape[2:]) * (self.channels or 1), 1, bias=False)
        self.bias = nn.Parameter(torch.empty(self.num_nodes, *([] if self.channels is None else [self.channels])))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew; the cells' biases are zero."""
        for part in self.network:
            if not isinstance(part, nn.GELU):
                part.reset_parameters()  # type: ignore[operator]
        if self.head is not None:
            self.head.reset_parameters()
        else:
            nn.init.normal_(self.mix.weight, std=self.gain / math.sqrt(self.mix.in_channels))
            nn.init.zeros_(self.bias)

    def project(self, x: Tensor) -> Tensor:
        maps = self.network(x.unsqueeze(1) if len(self.in_shape) == 2 else x)
        if self.head is not None:
            return self.head.project(_resized(maps, (POOLED, POOLED)).flatten(1))
        volume = _resized(self.mix(maps), self.plane)  # [B, depth·C, L1, L2]
        cells = volume.unflatten(1, (-1, self.channels or 1)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return (cells.squeeze(2) if self.channels is None else cells) + self.bias


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``maps`` stretched to a size; in float32 at least: half precision is not everywhere."""
    return maps if maps.shape[2:] == size else functional.interpolate(widened(maps), size, mode="bilinear", antialias=True)
