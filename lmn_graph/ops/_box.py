"""Three ways to sum over a stencil. Each takes the stencil and the kernel once and gives the function x [N, B, C] ↦ y [N, B, D]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from lmn_graph.ops.stencil import Stencil

Sum = Callable[[Tensor], Tensor]


def convolution(stencil: Stencil, kernel: Tensor) -> Sum:
    """torch's convolution; axes without neighbours and, where channels do not mix, the channels are part of the batch."""
    active, sides = stencil.active, len(stencil.shape)
    if not active:
        return _pointwise(stencil, kernel)
    low = [min(stencil.low[axis], 0) for axis in active]
    high = [max(stencil.high[axis], 0) for axis in active]
    window = [last - first + 1 for first, last in zip(low, high)]
    weight = _scattered(kernel, stencil.offsets[:, active] - stencil.offsets.new_tensor(low), window)
    weight = weight.movedim((-2, -1), (0, 1)) if kernel.dim() == 3 else weight[None, None]
    weight = weight.contiguous()
    closed, opened = [0] * (2 * len(active)), [0] * (2 * len(active))
    for place, axis in enumerate(active):
        last = 2 * (len(active) - 1 - place)  # pads are given from the last axis on
        (closed if stencil.periodic[axis] else opened)[last : last + 2] = -low[place], high[place]
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(active) - 1]
    mixes = kernel.dim() == 3
    idle = [axis for axis in range(sides) if axis not in active]
    order = [*idle, sides, sides + 1, *active]
    back = [order.index(axis) for axis in range(sides + 2)]

    def total(x: Tensor) -> Tensor:
        box = x.view(*stencil.shape, *x.shape[1:]).permute(order)
        lead, channels = box.shape[: len(idle) + 1], x.size(2) if mixes else 1
        flat = box.reshape(-1, channels, *(stencil.shape[axis] for axis in active))
        if any(closed):
            flat = functional.pad(flat, closed, mode="circular")
        if any(opened):
            flat = functional.pad(flat, opened)
        y = convolve(flat, weight)
        y = y.view(*lead, -1, *y.shape[2:]).permute(back)
        return y.reshape(x.size(0), x.size(1), -1)

    return total


def fourier(stencil: Stencil, kernel: Tensor) -> Sum:
    """Products of spectra: circular along periodic axes; open ones are filled up with zeros until nothing comes round."""
    active, sides = stencil.active, len(stencil.shape)
    if not active:
        return _pointwise(stencil, kernel)
    lengths = []
    for axis in active:
        reach = max(stencil.high[axis], -stencil.low[axis])
        lengths.append(stencil.shape[axis] if stencil.periodic[axis] else _smooth(stencil.shape[axis] + reach))
    dims = list(range(len(active)))
    spectrum = _transform(_scattered(kernel, -stencil.offsets[:, active] % stencil.offsets.new_tensor(lengths), lengths), lengths, dims)
    broadcast = [1] * sides
    for place, axis in enumerate(active):
        broadcast[axis] = spectrum.size(place)
    tail = spectrum.shape[len(active) :]
    spectrum = spectrum.reshape(*broadcast, *tail) if tail else spectrum.reshape(*broadcast, 1, 1)
    cut = [(axis, stencil.shape[axis]) for axis, length in zip(active, lengths) if length != stencil.shape[axis]]

    def total(x: Tensor) -> Tensor:
        transformed = _transform(x.view(*stencil.shape, *x.shape[1:]), lengths, active)
        product = transformed @ spectrum.mT if tail else transformed * spectrum
        y = _transform_back(product, lengths, active)
        for axis, length in cut:
            y = y.narrow(axis, 0, length)
        return y.reshape(x.size(0), x.size(1), -1)

    return total


_AT_ONCE = 3  # axes that a transform takes on every device


def _transform(x: Tensor, lengths: list[int], axes: list[int]) -> Tensor:
    """The spectrum of real numbers along some axes, the last of them halved."""
    x = torch.fft.rfftn(x, s=lengths[-_AT_ONCE:], dim=axes[-_AT_ONCE:])
    for first in range(0, len(axes) - _AT_ONCE, _AT_ONCE):
        part = slice(first, min(first + _AT_ONCE, len(axes) - _AT_ONCE))
        x = torch.fft.fftn(x, s=lengths[part], dim=axes[part])
    return x


def _transform_back(x: Tensor, lengths: list[int], axes: list[int]) -> Tensor:
    for first in range(0, len(axes) - _AT_ONCE, _AT_ONCE):
        part = slice(first, min(first + _AT_ONCE, len(axes) - _AT_ONCE))
        x = torch.fft.ifftn(x, s=lengths[part], dim=axes[part])
    found: Tensor = torch.fft.irfftn(x, s=lengths[-_AT_ONCE:], dim=axes[-_AT_ONCE:])
    return found


def running_sums(stencil: Stencil, kernel: Tensor) -> Sum:
    """One number times the sum over a box of offsets, axis after axis; a missing centre is taken off again."""
    # Lists, not generators, which torch.compile does not trace.
    windows = tuple([_Window(axis, stencil.low[axis], stencil.high[axis], stencil.periodic[axis]) for axis in stencil.active])
    back = tuple([window.reversed() for window in windows])
    centre = stencil.has_centre or stencil.num_offsets == math.prod([w.high - w.low + 1 for w in windows])

    def total(x: Tensor) -> Tensor:
        box = x.view(*stencil.shape, *x.shape[1:])
        # A compiler traces no function of autograd with a forward derivative, and finds this one's backward form itself.
        y = (_summed(box, windows) if torch.compiler.is_compiling() else _BoxSum.apply(box, windows, back)).view(x.shape)
        return kernel * (y if centre else y - x)

    return total


class _Window(NamedTuple):
    """The steps low … high along an axis."""

    axis: int
    low: int
    high: int
    periodic: bool

    def reversed(self) -> _Window:
        return _Window(self.axis, -self.high, -self.low, self.periodic)

    def sums(self, x: Tensor) -> Tensor:
        """y_i = x_{i+low} + … + x_{i+high}: sums of 2, 4, 8, … terms, each twice the last, of which the window is put together.

        No sum is taken off another, as a difference of prefix sums would be: float32 loses nothing on a long axis.
        """
        axis, length = self.axis, x.size(self.axis)
        if self.periodic and self.low <= 0 <= self.high:
            rest = torch.cat([x.narrow(axis, length + self.low, -self.low), x, x.narrow(axis, 0, self.high)], axis)
        elif self.periodic:
            rest = x.index_select(axis, torch.arange(self.low, length + self.high, device=x.device) % length)
        else:
            rest = functional.pad(x, [0, 0] * (x.dim() - 1 - axis) + [-self.low, self.high])
        width, size, begin, total = self.high - self.low + 1, 1, 0, None
        while True:
            if width & size:
                part = rest.narrow(axis, begin, length)
                total = part.clone() if total is None else total.add_(part)
                begin += size
            if 2 * size > width:
                assert total is not None
                return total
            longer = rest.size(axis) - size
            rest = rest.narrow(axis, 0, longer) + rest.narrow(axis, size, longer)
            size *= 2


def _summed(x: Tensor, windows: tuple[_Window, ...]) -> Tensor:
    for window in windows:
        x = window.sums(x)
    return x


class _BoxSum(torch.autograd.Function):
    """Running sums along some axes; the derivative is the same with every window reversed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: tuple[_Window, ...], back: tuple[_Window, ...]) -> Tensor:
        ctx.windows, ctx.back = windows, back
        return _summed(x, windows) if windows else x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _BoxSum.apply(grads[0], ctx.back, ctx.windows), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        found: Tensor = _BoxSum.apply(tangents[0], ctx.windows, ctx.back)
        return found


def _pointwise(stencil: Stencil, kernel: Tensor) -> Sum:
    """The centre alone."""
    return lambda x: x @ kernel[0].t() if kernel.dim() == 3 else kernel.expand(stencil.num_offsets) * x


def _scattered(kernel: Tensor, place: Tensor, sides: list[int]) -> Tensor:
    """The kernel [K(, D, C)] at places [K, a] of a box of zeros, [*sides(, D, C)]; one number goes to every place."""
    index = place.new_zeros(place.size(0))
    for axis, side in enumerate(sides):
        index = index * side + place[:, axis]
    values = kernel.expand(place.size(0)) if kernel.dim() == 0 else kernel
    empty = kernel.new_zeros(math.prod(sides), *values.shape[1:])
    return empty.index_add(0, index.to(kernel.device), values).view(*sides, *values.shape[1:])


def _smooth(length: int) -> int:
    """The next number without a prime factor above 5, whose transform is fast."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
