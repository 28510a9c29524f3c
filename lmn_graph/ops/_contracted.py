"""The sums Σ_r left_r ∘ A_r x of which weights of low rank are made, some ranks at a time: convolutions on a box, or sparse products.

What is kept for a derivative is the state and the factors; the sums of single ranks are made once more.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmn_graph.ops import _box, _kernels
from lmn_graph.ops._kernels import exact
from lmn_graph.ops.stencil import Stencil
from lmn_graph.ops.weighted import _COLLECTS, EdgeWeight

_BLOCK = 1 << 17  # numbers of the sums of single ranks that are made at once: a few such blocks fit into the second cache
_COLUMNS = 128  # of a sparse product, which slows down when the state leaves the cache


class Spectrum(torch.autograd.Function):
    """The transform of kernels [B, R, C, K]. Nothing is saved: what was made once serves several backward passes."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, box: Box) -> Tensor:
        ctx.box = box
        with exact(kernel):
            return box.spectrum(kernel)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        box: Box = ctx.box
        with exact(grads[0].real):
            return torch.stack([box.transposed(part / box.share(part)) for part in grads[0].unbind()]), None


class Box:
    """The transforms of a full box along its active axes, as in :func:`lmn_graph.ops._box.fourier`, with the cells last."""

    def __init__(self, stencil: Stencil, device: torch.device) -> None:
        self.stencil = stencil
        self.lengths = list(stencil.shape)
        for axis in stencil.active:
            if not stencil.periodic[axis]:  # nothing may come round
                self.lengths[axis] = _box._smooth(stencil.shape[axis] + max(stencil.high[axis], -stencil.low[axis]))
        place = torch.zeros(stencil.num_offsets, dtype=torch.int64)
        for offsets, length in zip(stencil.offsets.t(), self.lengths):
            place = place * length + -offsets % length
        self.place = place.to(device)
        self.axes = [axis - len(self.lengths) for axis in stencil.active]
        self.sides = [self.lengths[axis] for axis in stencil.active]
        last, length = self.axes[-1], self.sides[-1]
        count = torch.full((length // 2 + 1,), 2.0, device=device)  # a frequency of the halved axis stands for both signs
        count[0] = 1
        if length % 2 == 0:
            count[-1] = 1
        self.count = count.view(-1, *[1] * (-last - 1))

    def transform(self, x: Tensor) -> Tensor:
        """The spectrum of [..., *shape], filled up with zeros."""
        return _box._transform(x, self.sides, self.axes)

    def back(self, spectrum: Tensor) -> Tensor:
        """The cells [..., *shape] of a spectrum."""
        y = _box._transform_back(spectrum, self.sides, self.axes)
        for axis, length in zip(self.stencil.active, self.sides):
            if length != self.stencil.shape[axis]:
                y = y.narrow(axis - len(self.lengths), 0, self.stencil.shape[axis])
        return y

    def spectrum(self, kernel: Tensor) -> Tensor:
        """The spectrum of kernels [..., K]."""
        placed = kernel.new_zeros(*kernel.shape[:-1], math.prod(self.lengths)).index_copy(-1, self.place, kernel)
        return self.transform(placed.unflatten(-1, self.lengths))

    def transposed(self, spectrum: Tensor) -> Tensor:
        """Numbers of a kernel: the gradient of :meth:`spectrum`, if what comes is one over :meth:`share`."""
        cells = _box._transform_back(spectrum, self.sides, self.axes)
        return cells.flatten(-len(self.lengths)).index_select(-1, self.place)

    def share(self, like: Tensor) -> Tensor:
        """The gradient of :meth:`back` is :meth:`transform` times this."""
        return self.count.to(like.real.dtype) / math.prod(self.sides)


class Fourier(torch.autograd.Function):
    """A convolution per sample and rank; x [N, B, C], left [N, B, C, R], right [B, R, C, K], or its spectrum [B, R, C, *frequencies].

    Some samples are made at a time, from whatever the order of the axes is; for the derivative they are made once more.
    """

    @staticmethod
    def forward(ctx: Any, box: Box, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.box = box
        ctx.save_for_backward(x, left, right)
        y = torch.empty_like(x)
        with exact(x):
            for samples, ranks in _blocks(x, left.size(-1)):
                transformed = box.transform(_on_cells(box, x[:, samples]))
                total = x.new_zeros(())
                for part in ranks:
                    found = box.back(transformed.unsqueeze(1) * _spectrum_of(box, right, samples, part))
                    total = total + found.mul_(_on_box(box, left, samples, part)).sum(1)
                y[:, samples] = total.flatten(2).permute(2, 0, 1)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        box: Box = ctx.box
        x, left, right = ctx.saved_tensors
        g, needs = grads[0], ctx.needs_input_grad[1:]
        with exact(x):
            if torch.is_grad_enabled():
                return None, *_differentiable(functools.partial(_convolved, box), (x, left, right), needs, g)
            to_x = torch.empty_like(x) if needs[0] else None
            to_left, to_right = (torch.zeros_like(factor) if need else None for factor, need in zip((left, right), needs[1:]))
            for samples, ranks in _blocks(x, left.size(-1)):
                transformed, coming = box.transform(_on_cells(box, x[:, samples])), _on_cells(box, g[:, samples]).unsqueeze(1)
                total = x.new_zeros(())
                for part in ranks:
                    spectrum = _spectrum_of(box, right, samples, part)
                    if to_left is not None:
                        found = box.back(transformed.unsqueeze(1) * spectrum).mul_(coming).flatten(3).permute(3, 0, 2, 1)
                        _collect(to_left[:, _of(samples, left.size(1)), :, part], found)
                    if to_right is not None or to_x is not None:
                        pulled = box.transform(_on_box(box, left, samples, part) * coming)
                        if to_right is not None:
                            found = pulled * transformed.conj().unsqueeze(1)
                            found = found.mul_(box.share(found)) if right.is_complex() else box.transposed(found)
                            _collect(to_right[_of(samples, right.size(0)), part], found)
                        if to_x is not None:
                            total = total + pulled.mul_(spectrum.conj()).sum(1)
                if to_x is not None:
                    to_x[:, samples] = box.back(total).flatten(2).permute(2, 0, 1)
        return None, to_x, to_left, to_right


def _blocks(x: Tensor, ranks: int) -> list[tuple[slice, list[slice]]]:
    """Samples that are made at once, and ranks that are."""
    one = max(1, x.size(0) * x.size(2))
    together = max(1, min(ranks, _BLOCK // one))
    samples = max(1, _BLOCK // (one * together))
    parts = [slice(first, min(first + together, ranks)) for first in range(0, ranks, together)]
    return [(slice(first, min(first + samples, x.size(1))), parts) for first in range(0, x.size(1), samples)]


def _of(samples: slice, size: int) -> slice:
    return samples if size > 1 else slice(0, 1)


def _on_cells(box: Box, x: Tensor) -> Tensor:
    """[N, B, C] as [B, C, *shape]."""
    return x.permute(1, 2, 0).contiguous().unflatten(-1, box.stencil.shape)


def _on_box(box: Box, left: Tensor, samples: slice, ranks: slice) -> Tensor:
    """Some of [N, B, C, R] as [B, R, C, *shape]."""
    return left[:, _of(samples, left.size(1)), :, ranks].permute(1, 3, 2, 0).contiguous().unflatten(-1, box.stencil.shape)


def _spectrum_of(box: Box, right: Tensor, samples: slice, ranks: slice) -> Tensor:
    found = right[_of(samples, right.size(0)), ranks]
    return found if found.is_complex() else box.spectrum(found)


def _collect(total: Tensor, part: Tensor) -> None:
    """Add what was broadcast up."""
    total.add_(part if part.shape == total.shape else part.sum_to_size(total.shape))


def _convolved(box: Box, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The same by differentiable operations."""
    every = slice(None)
    spectrum = right if right.is_complex() else box.spectrum(right)
    found = box.back(box.transform(_on_cells(box, x)).unsqueeze(1) * spectrum) * _on_box(box, left, every, every)
    return found.sum(1).flatten(2).permute(2, 0, 1)


class _Operator(ABC):
    """R linear maps of the state [N, B, C], x ↦ A_r x [N, R, B, C], each made of ``held`` tensors."""

    def together(self, x: Tensor) -> int:
        """How many ranks are made at once."""
        return max(1, _BLOCK // x.numel())

    @abstractmethod
    def ranks(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        """A_r x for some ranks r."""

    def plain(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        """The same by differentiable operations."""
        return self.ranks(part, x, held)

    @abstractmethod
    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        """A backward pass in which gradients to x and to what is held are wanted, or not."""


class _Backward(ABC):
    """What a backward pass collects over the ranks."""

    grads: list[Tensor | None]  # to x and to what is held

    @abstractmethod
    def ranks(self, part: slice) -> Tensor:
        """A_r x once more."""

    @abstractmethod
    def pull(self, part: slice, h: Tensor) -> None:
        """Take on the gradients h_r of A_r x."""


def _product_into(total: Tensor, a: Tensor, b: Tensor) -> None:
    """a ∘ b, summed over the axes along which ``total`` is 1."""
    if torch.broadcast_shapes(a.shape, b.shape) == total.shape:
        torch.mul(a, b, out=total)
    else:
        total.copy_((a * b).sum_to_size(total.shape))


class Adjacency:
    """A of one number per edge, many columns at a time, x [N, M]."""

    columns = _COLUMNS

    def __init__(self, prepared: EdgeWeight) -> None:
        self.prepared = prepared

    def multiply(self, x: Tensor, transpose: bool = False) -> Tensor:
        return self.prepared.multiply(x, transpose)

    def plain(self, x: Tensor, *value: Tensor) -> Tensor:
        return _kernels.spmm(*self.prepared.pattern, value[0], x, False)


class Running(Adjacency):
    """A of ones on a box of offsets: running sums."""

    columns = _BLOCK

    def __init__(self, stencil: Stencil) -> None:
        self.shape = stencil.shape
        self.windows = tuple([_box._Window(axis, stencil.low[axis], stencil.high[axis], stencil.periodic[axis]) for axis in stencil.active])
        self.turned = tuple([window.reversed() for window in self.windows])
        self.whole = stencil.has_centre or stencil.num_offsets == math.prod([w.high - w.low + 1 for w in self.windows])

    def multiply(self, x: Tensor, transpose: bool = False) -> Tensor:
        y = _box._summed(x.view(*self.shape, -1), self.turned if transpose else self.windows).view(x.shape)
        return y if self.whole else y.sub_(x)

    def plain(self, x: Tensor, *value: Tensor) -> Tensor:
        y = _box._BoxSum.apply(x.view(*self.shape, -1), self.windows, self.turned).view(x.shape)
        return y if self.whole else y - x


class Factored(_Operator):
    """A (factor_r ∘ x); x [N, B, C], held: the factor [N, R, B, C] and, with a scale, its value and token."""

    def __init__(self, adjacency: Adjacency) -> None:
        self.adjacency = adjacency

    def together(self, x: Tensor) -> int:
        return max(1, min(self.adjacency.columns * x.size(0), _BLOCK) // x.numel())

    def heard(self, part: slice, x: Tensor, factor: Tensor) -> Tensor:
        return factor[:, part] * x.unsqueeze(1)

    def ranks(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        heard = self.heard(part, x, held[0])
        return self.adjacency.multiply(heard.flatten(1)).view(heard.shape)

    def plain(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        heard = self.heard(part, x, held[0])
        return self.adjacency.plain(heard.flatten(1), *held[1:]).view(heard.shape)

    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        return _FactoredBackward(self, x, held, wanted)


class _FactoredBackward(_Backward):
    def __init__(self, operator: Factored, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> None:
        self.operator, self.x, self.held, self.wanted = operator, x, held, wanted
        self.grads = [None, torch.empty_like(held[0]) if wanted[1] else None, *[None] * (len(held) - 1)]

    def ranks(self, part: slice) -> Tensor:
        return self.operator.ranks(part, self.x, self.held)

    def pull(self, part: slice, h: Tensor) -> None:
        factor, adjacency = self.held[0], self.operator.adjacency
        if self.wanted[0] or self.wanted[1]:
            back = adjacency.multiply(h.flatten(1), transpose=True).view(h.shape)
            if (found := self.grads[1]) is not None:
                _product_into(found[:, part], back, self.x.unsqueeze(1))
            if self.wanted[0]:
                heard = back.mul_(factor[:, part]).sum(1)
                self.grads[0] = heard if self.grads[0] is None else self.grads[0].add_(heard)
        if any(self.wanted[2:]):
            prepared = adjacency.prepared
            prepared.tape.add(h.flatten(1), self.operator.heard(part, self.x, factor).flatten(1))
            self.grads[3] = prepared.token.new_zeros(())


class Products(_Operator):
    """A sparse product per rank; x [N, B, C], held: value and token of every prepared weight."""

    def __init__(self, prepared: list[EdgeWeight]) -> None:
        self.prepared = prepared

    def together(self, x: Tensor) -> int:
        return 1

    def ranks(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        return self.prepared[part.start].multiply(x.flatten(1)).view(x.shape).unsqueeze(1)

    def plain(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        pattern = self.prepared[part.start].pattern
        return _kernels.spmm(*pattern, held[2 * part.start], x.flatten(1), False).view(x.shape).unsqueeze(1)

    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        return _ProductsBackward(self, x, held, wanted)


class _ProductsBackward(_Backward):
    def __init__(self, operator: Products, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> None:
        self.operator, self.x, self.held, self.wanted = operator, x, held, wanted
        self.grads = [None] * (1 + len(held))

    def ranks(self, part: slice) -> Tensor:
        return self.operator.ranks(part, self.x, self.held)

    def pull(self, part: slice, h: Tensor) -> None:
        prepared, flat = self.operator.prepared[part.start], h.flatten(1)
        if self.wanted[0]:
            heard = prepared.multiply(flat, transpose=True).view(self.x.shape)
            self.grads[0] = heard if self.grads[0] is None else self.grads[0].add_(heard)
        if self.wanted[1 + 2 * part.start]:
            prepared.tape.add(flat, self.x.flatten(1))
            self.grads[2 + 2 * part.start] = prepared.token.new_zeros(())


class Ranks(torch.autograd.Function):
    """Σ_r left_r ∘ A_r x, left [N, R, B, C]. Kept for the derivative: x, left and what A holds; single ranks are made once more."""

    @staticmethod
    def forward(ctx: Any, operator: _Operator, x: Tensor, left: Tensor, *held: Tensor) -> Tensor:
        ctx.operator = operator
        ctx.save_for_backward(x, left, *held)
        y = torch.zeros_like(x)
        with exact(x):
            for part in _parts(operator, x, left):
                found = operator.ranks(part, x, held)
                if found.size(1) == 1:
                    y.addcmul_(left[:, part.start], found.squeeze(1))
                else:
                    y.add_((found * left[:, part]).sum(1))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        operator: _Operator = ctx.operator
        x, left, *rest = ctx.saved_tensors
        held, g, needs = tuple(rest), grads[0].contiguous(), ctx.needs_input_grad[1:]
        with exact(x):
            if torch.is_grad_enabled() or not _COLLECTS:
                return None, *_differentiable(functools.partial(_by_ranks, operator), (x, left, *held), needs, g)
            wanted = (needs[0], *needs[2:])
            under_way = operator.backward(x, held, wanted)
            grad_left = torch.empty_like(left) if needs[1] else None
            for part in _parts(operator, x, left):
                if grad_left is not None:
                    _product_into(grad_left[:, part], g.unsqueeze(1), under_way.ranks(part))
                if any(wanted):
                    under_way.pull(part, left[:, part] * g.unsqueeze(1))
        return None, under_way.grads[0], grad_left, *under_way.grads[1:]


def _parts(operator: _Operator, x: Tensor, left: Tensor) -> list[slice]:
    ranks, size = left.size(1), operator.together(x)
    return [slice(first, min(first + size, ranks)) for first in range(0, ranks, size)]


def _by_ranks(operator: _Operator, x: Tensor, left: Tensor, *held: Tensor) -> Tensor:
    """The same by differentiable operations."""
    terms = [(left[:, part] * operator.plain(part, x, held)).sum(1) for part in _parts(operator, x, left)]
    return sum(terms[1:], terms[0])


def _differentiable(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], needs: tuple[bool, ...], g: Tensor
) -> list[Tensor | None]:
    """The gradients of a function by differentiable operations, for who differentiates them again."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        apart = [tensor.view_as(tensor) for tensor in tensors]  # should two of them be one tensor
        wanted = [tensor for tensor, need in zip(apart, needs) if need]
        found = iter(torch.autograd.grad(function(*apart), wanted, g, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]
