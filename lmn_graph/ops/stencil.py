"""Sums with one kernel for all cells of a full box: as a convolution, by Fourier transform, or for one number by running sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _box
from lmn_graph.ops.weighted import _described
from topologies import _checks

StencilMethod = Literal["convolution", "fft", "separable"]
METHODS: dict[str, Callable[[Stencil, Tensor], Callable[[Tensor], Tensor]]] = {
    "convolution": _box.convolution,
    "fft": _box.fourier,
    "separable": _box.running_sums,
}


class Stencil:
    r"""The neighbourhood that all cells of a box share: cell i hears i + o for every offset o, modulo L on a periodic axis.

    Attributes:
        low, high: the least and the greatest step along each axis.
        active: the axes along which there are steps.
        has_centre: whether the zero offset is one of them.
        is_box: whether the offsets are all of a box of offsets, or all but the centre.

    Args:
        offsets: int64 [K, d] on the CPU, all different; on a periodic axis from −⌊L/2⌋ to ⌊(L − 1)/2⌋.
        shape: the sides L of the box, whose cells are numbered in C order.
        periodic: whether each axis closes; on another one what lies outside of the box is 0.
    """

    def __init__(self, offsets: Tensor, shape: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
        self.offsets, self.shape, self.periodic = offsets, shape, periodic
        self.low: list[int] = offsets.amin(0).tolist()
        self.high: list[int] = offsets.amax(0).tolist()
        self.active = [axis for axis, (low, high) in enumerate(zip(self.low, self.high)) if low or high]
        self.has_centre = bool((offsets == 0).all(1).any())
        volume = math.prod(high - low + 1 for low, high in zip(self.low, self.high))
        without = not self.has_centre and all(low <= 0 <= high for low, high in zip(self.low, self.high))
        self.is_box = len(offsets) == volume or (without and len(offsets) == volume - 1)

    @classmethod
    def of(cls, connectivity: Connectivity) -> Stencil | None:
        """The stencil of a lattice, its ports in order, or None where the graph is not exactly one.

        Every edge is checked once against ``shape``, ``edge_attr`` and ``edge_type``: it must lead where its offset says, all edges of a
        type must have one offset, and at every cell none may be missing or double. Which axes are periodic is read off the edges.
        """
        key = connectivity.rowptr
        if key not in _known:
            _known[key] = (_verified(connectivity),)
        return _known[key][0]

    @property
    def num_offsets(self) -> int:
        """K."""
        return self.offsets.size(0)

    def only(self, ports: Tensor) -> Stencil:
        """The stencil of some of the offsets, at least one: int64 [k], their numbers."""
        return Stencil(self.offsets[ports.cpu()], self.shape, self.periodic)

    def refusal(self, method: StencilMethod, *, uniform: bool) -> str | None:
        """Why a method cannot sum over this stencil, or None where it can; ``uniform``: the kernel is one number."""
        if method == "convolution" and len(self.active) > 3:
            return f"neighbours along at most 3 axes, got {len(self.active)}"
        if method == "separable" and not (uniform and self.is_box):
            got = f"{'one number' if uniform else 'a kernel of many numbers'} on {self.num_offsets} offsets"
            return f"one number on all offsets of a box, with or without its centre, got {got} from {self.low} to {self.high}"
        return None

    def __repr__(self) -> str:
        return f"Stencil(num_offsets={self.num_offsets}, shape={self.shape}, periodic={self.periodic})"


_known = WeakTensorKeyDictionary()  # row pointers → (Stencil or None,)


def _verified(connectivity: Connectivity) -> Stencil | None:
    shape, displacement, kinds = connectivity.shape, connectivity.edge_attr, connectivity.edge_type
    if (
        shape is None
        or displacement is None
        or kinds is None
        or connectivity.num_edges == 0
        or kinds.dim() != 1
        or kinds.is_floating_point()
    ):
        return None
    displacement = displacement.flatten(1) if displacement.dim() > 1 else displacement[:, None]
    source, target = connectivity.edge_index
    doubled = (source[1:] == source[:-1]) & (target[1:] == target[:-1])
    if displacement.size(1) != len(shape) or int(kinds.min()) < 0 or int(kinds.max()) >= connectivity.num_edges or bool(doubled.any()):
        return None
    count = torch.bincount(kinds)
    offsets, periodic, expected = [], [], torch.ones_like(count)
    stride = connectivity.num_nodes
    for axis, length in enumerate(shape):
        stride //= length
        step = displacement[:, axis]
        offset = torch.zeros_like(count, dtype=step.dtype).scatter_(0, kinds, step)
        if bool((offset[kinds] != step).any()) or bool((offset != offset.round()).any()):
            return None
        offset = offset.long()
        end = target // stride % length + offset[kinds]
        closes = bool(((end < 0) | (end >= length)).any())
        if bool((end % length != source // stride % length).any()):
            return None
        if closes:  # what is heard L further is the same cell
            offset = (offset + length // 2) % length - length // 2
        expected *= length if closes else length - offset.abs()
        offsets.append(offset)
        periodic.append(closes)
    table = torch.stack(offsets, 1).cpu()
    # Edges are distinct, of each offset as many as fit into the box, and offsets are distinct: none is missing.
    if bool((count != expected).any()) or bool((count == 0).any()) or len(table.unique(dim=0)) < len(table):
        return None
    return Stencil(table, shape, tuple(periodic))


class StencilKernel:
    """A kernel made ready for many sums: laid out for a convolution, transformed, or as it is.

    Args:
        stencil: the offsets.
        kernel: [K], one number per offset; [], one number for all; or [K, D, C], a matrix per offset.
        method: "convolution" (torch's, along at most 3 axes), "fft" (any number of axes) or "separable" (one number on all offsets of a
            box, with or without its centre; the cost hardly grows with the radius).

    Raises:
        ValueError: if the kernel does not fit the stencil or the method does not apply.
    """

    def __init__(self, stencil: Stencil, kernel: Tensor, method: StencilMethod) -> None:
        self.method = _checks.choice("method", method, METHODS)
        count = stencil.num_offsets
        fits = isinstance(kernel, Tensor) and kernel.is_floating_point() and kernel.dim() in (0, 1, 3)
        if not fits or (kernel.dim() > 0 and kernel.size(0) != count):
            raise ValueError(f"kernel must be a floating-point tensor [], [{count}] or [{count}, D, C], got {_described(kernel)}")
        if (reason := stencil.refusal(method, uniform=kernel.dim() == 0)) is not None:
            raise ValueError(f"method={method!r} needs {reason}")
        self.stencil, self.kernel = stencil, kernel
        self.dtype = _computed_in(kernel.dtype)
        self._sum = self._made(self.dtype)

    def _made(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        with torch.autocast(self.kernel.device.type, enabled=False):
            return METHODS[self.method](self.stencil, self.kernel.to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """The sum; see :func:`stencil_sum`."""
        nodes, mixes = math.prod(self.stencil.shape), self.kernel.dim() == 3
        if not isinstance(x, Tensor) or x.dim() not in (2, 3) or x.size(0) != nodes or not x.is_floating_point():
            raise ValueError(f"x must be a floating-point tensor [N, B] or [N, B, C] with N = {nodes}, got {_described(x)}")
        if mixes and (x.dim() != 3 or x.size(2) != self.kernel.size(2)):
            raise ValueError(f"x must be [{nodes}, B, {self.kernel.size(2)}] for a kernel that mixes channels, got {_described(x)}")
        tail = (self.kernel.size(1),) if mixes else tuple(x.shape[2:])
        if x.numel() == 0:
            return (x.sum() * self.kernel.sum()).to(x.dtype).expand(nodes, x.size(1), *tail)
        common = _computed_in(torch.promote_types(x.dtype, self.dtype))
        total = self._sum if common == self.dtype else self._made(common)
        with torch.autocast(x.device.type, enabled=False):
            y = total(x.to(common).view(nodes, x.size(1), -1) if x.dim() == 3 else x.to(common)[..., None])
        return y.reshape(nodes, x.size(1), *tail).to(x.dtype)


def stencil_sum(stencil: Stencil, x: Tensor, kernel: Tensor | StencilKernel, method: StencilMethod = "fft") -> Tensor:
    r"""The sum over the offsets of a box, :math:`y_i = \sum_o k_o\, x_{i+o}`, or :math:`\sum_o K_o\, x_{i+o}` with matrices.

    It equals :func:`lmn_graph.ops.weighted_sum` with the kernel written on every edge, in values and in derivatives of every order; the
    cost does not grow with the number of edges ("fft", "separable") and no index is read. In float16 and bfloat16 the sum is computed in
    float32 and rounded once.

    Args:
        stencil: the offsets, ``Stencil.of(connectivity)``.
        x: the state, [N, B] or [N, B, C], node-major.
        kernel: see :class:`StencilKernel`, which for many sums is made once.
        method: "convolution", "fft" or "separable".

    Returns:
        Tensor like ``x``; [N, B, D] with matrices.

    Raises:
        ValueError: if a shape or dtype does not fit or the method does not apply.
    """
    prepared = kernel if isinstance(kernel, StencilKernel) else StencilKernel(stencil, kernel, method)
    if prepared.stencil is not stencil:
        raise ValueError(f"kernel must be prepared for this very stencil, {stencil}, got one for {prepared.stencil}")
    return prepared(x)


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
