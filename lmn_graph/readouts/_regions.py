"""Features of regions: windows of a lattice, or groups of nodes where there is none."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """Torch's convolution for any number of axes: [B, C, sides] with [F, C, windows] → [B, F, places]."""
    if len(stride) in _CONVOLUTIONS:
        return _CONVOLUTIONS[len(stride)](x, weight, stride=tuple(stride))
    places = (x.size(2) - weight.size(2)) // stride[0] + 1
    starts = slice(0, stride[0] * (places - 1) + 1, stride[0])
    seen = (x[:, :, offset:][:, :, starts].transpose(1, 2).flatten(0, 1) for offset in range(weight.size(2)))
    parts = (convolve(part, weight[:, :, offset], stride[1:]) for offset, part in enumerate(seen))
    return functools.reduce(torch.add, parts).unflatten(0, (x.size(0), places)).transpose(1, 2)


def halved(sides: Sequence[int], most: int) -> tuple[int, ...]:
    """Sides of boxes that tile a lattice with at most ``most`` of them: the longest side is halved for as long as this holds."""
    window = list(sides)
    while True:
        for axis in sorted(range(len(sides)), key=lambda a: -window[a]):
            half = (window[axis] + 1) // 2
            boxes = math.prod(-(-side // (half if a == axis else window[a])) for a, side in enumerate(sides))
            if half < window[axis] and boxes <= most:
                window[axis] = half
                break
        else:
            return tuple(window)


class Windows(nn.Module):
    r"""Features of boxes on a lattice of any dimension, with one map for all of them, a convolution:

    .. math:: h_{jf} = \sum_{o,c} W_{fco}\, x_{s j + o,\, c} + b_f, \qquad 0 \le o_a < k_a,

    from place j · s on. Cells after the last of an axis count as zero, so that every cell is in a window.

    Shapes: [B, P] or [B, P, C] → [B, G, F], G = Π_a ⌈(L_a − k_a) / s_a⌉ + 1 windows in the order of the cells.

    Args:
        sides: L_1 … L_d, whose product is P.
        window: k_1 … k_d, k_a <= L_a.
        stride: s_1 … s_d >= 1.
        features: F.
        channels: None for scalar cells, else C.
    """

    def __init__(
        self, sides: Sequence[int], window: Sequence[int], stride: Sequence[int], features: int, *, channels: int | None = None
    ) -> None:
        super().__init__()
        self.sides, self.window, self.stride, self.channels = tuple(sides), tuple(window), tuple(stride), channels
        self.places = tuple(-(-(side - k) // s) + 1 for side, k, s in zip(sides, window, stride, strict=True))
        self.count = math.prod(self.places)
        beyond = [(count - 1) * s + k - side for side, k, s, count in zip(sides, window, stride, self.places, strict=True)]
        self.padding = [pad for after in reversed(beyond) for pad in (0, after)]
        self.weight = nn.Parameter(torch.empty(features, channels or 1, *window))
        self.bias = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the map as that of a linear layer."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if self.channels is None else x.transpose(1, 2)
        x = functional.pad(x.unflatten(2, self.sides), self.padding)
        return convolve(x, self.weight, self.stride).flatten(2).transpose(1, 2) + self.bias

    def extra_repr(self) -> str:
        return f"sides={self.sides}, window={self.window}, stride={self.stride}, features={self.weight.size(0)}"


class Groups(nn.Module):
    r"""Features of groups of nodes, to which every node belongs as far as its learned factors say:

    .. math:: h_{gf} = \sum_n factor_{n,gf} \sum_c U_{cf}\, x_{nc} + b_{gf},

    without U for scalar cells.

    Shapes: [B, P] or [B, P, C] → [B, G, F].

    Args:
        cells: P.
        count: G.
        features: F.
        channels: None for scalar cells, else C.
    """

    def __init__(self, cells: int, count: int, features: int, *, channels: int | None = None) -> None:
        super().__init__()
        self.count = count
        self.factors = nn.Parameter(torch.empty(cells, count, features))
        self.of_channel = None if channels is None else nn.Parameter(torch.empty(channels, features))
        self.bias = nn.Parameter(torch.empty(count, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the factors as the map of a linear layer, and channels that keep their variance."""
        bound = 1 / math.sqrt(self.factors.size(0))
        for parameter in (self.factors, self.bias):
            nn.init.uniform_(parameter, -bound, bound)
        if self.of_channel is not None:
            nn.init.normal_(self.of_channel, std=1 / math.sqrt(self.of_channel.size(0)))

    def forward(self, x: Tensor) -> Tensor:
        if self.of_channel is None:
            return (x @ self.factors.flatten(1)).unflatten(1, self.bias.shape) + self.bias
        seen = torch.einsum("bpc,pgf->bgfc", x, self.factors)
        return (seen * self.of_channel.t()).sum(-1) + self.bias

    def extra_repr(self) -> str:
        cells, count, features = self.factors.shape
        return f"{cells}, count={count}, features={features}"
