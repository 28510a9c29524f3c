"""Sums over neighbours with weights of low rank, which are contracted: no weight is ever made."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _box, _compiled, _kernels
from lmn_graph.ops._kernels import exact
from lmn_graph.ops.message import message_sum
from lmn_graph.ops.stencil import Stencil
from lmn_graph.ops.weighted import _COLLECTS, EdgeWeight, _described, weighted_sum
from topologies import _checks

Form = Literal["node", "one", "fourier", "products", "messages", "definition"]
_TOGETHER = 8  # ranks in one message
_FEW = 48  # neighbours in a box up to which compiled messages are faster than transforms


class LowRankWeight:
    r"""Edge weights of low rank, made ready for many sums:

    .. math:: w_{ij} = a_{ij} \sum_r U_{ir} V_{kr} \quad\text{or}\quad w_{ij} = a_{ij} \sum_r U_{ir} V_{jr}

    with the left factor U held by the node i that hears, and the right factor V by the types k of edges (``per="type"``) or by the node j
    that is heard (``per="node"``). Both may differ between the samples of a batch. A sum with these weights is one of R contracted sums,

    .. math:: y_i = \sum_r U_{ir} \sum_j a_{ij} V_{kr} x_j \quad\text{or}\quad y_i = \sum_r U_{ir} \sum_j a_{ij} (V_{jr} x_j),

    and takes memory of the size of the factors and the state. What depends on the right factor alone is made once, when it is first
    needed, and its gradient collected there over the steps of a rollout.

    Args:
        connectivity: the graph, N nodes and E edges. Without ``edge_type`` all its edges are of one type.
        left: U [N, B, R]; with one factor per channel [N, B, C, R]. B and C may be 1 for what all samples or channels share.
        right: V [K, B, R] or [K, B, C, R] for the types 0 … K − 1, or with ``per="node"`` [N, B, R] or [N, B, C, R].
        per: what holds the right factor, "type" or "node".
        scale: a [E] in the order of ``connectivity.edge_index``, such as the graph's ``edge_weight``; 1 without.

    Raises:
        ValueError: if a shape does not fit the graph or the other factor, the rank is 0, or a tensor is not of floating point.

    Source: the canonical polyadic weights :math:`W_{bcnk} = \sum_r U_{bcnr} V_{bckr}` and the emitters and listeners,
    :math:`w_{bij} = \langle listen_i, emit_j \rangle`, of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        connectivity: Connectivity,
        left: Tensor,
        right: Tensor,
        *,
        per: Literal["type", "node"] = "type",
        scale: Tensor | None = None,
    ) -> None:
        self.connectivity = connectivity
        self.per = _checks.choice("per", per, ("type", "node"))
        self.left, self.right, self.scale = left, right, scale
        self._num_kinds = _num_kinds(connectivity) if per == "type" else 0
        self._check()
        self._kept_graph: dict[tuple[Any, ...], _Kept] = {}
        self._kept_right: dict[tuple[Any, ...], _Kept] = {}
        self._kept_left: dict[tuple[Any, ...], _Kept] = {}

    @property
    def rank(self) -> int:
        """R."""
        return self.right.size(-1)

    def with_left(self, left: Tensor) -> LowRankWeight:
        """The weights with another left factor and the same right one, whose preparation is shared."""
        other = copy.copy(self)
        other.left, other._kept_left = left, {}
        other._check()
        return other

    def select(self, samples: Tensor) -> LowRankWeight:
        """The weights of some samples of the batch, int64 [m]; factors that all samples share stay as they are."""
        if not isinstance(samples, Tensor) or samples.dtype != torch.int64 or samples.dim() != 1:
            raise ValueError(f"samples must be an int64 tensor [m], got {_described(samples)}")
        batch = max(self.left.size(1), self.right.size(1))
        if batch > 1 and samples.numel() and not 0 <= int(samples.min()) <= int(samples.max()) < batch:
            raise ValueError(f"samples must be numbers in [0, {batch}), got {int(samples.min())} to {int(samples.max())}")
        other = copy.copy(self)
        if self.left.size(1) > 1:
            other.left, other._kept_left = self.left.index_select(1, samples), {}
        if self.right.size(1) > 1:
            other.right, other._kept_right = self.right.index_select(1, samples), {}
            for key, kept in self._kept_right.items():  # a spectrum has been paid for: the samples are taken from it
                if key[0] == "spectrum":
                    value = kept.value.index_select(0, samples)
                    other._kept_right[key] = _Kept(value, _versions([other.right]), value.requires_grad)
                elif key[0] == "used":
                    other._kept_right[key] = kept
        return other

    def materialise(self) -> Tensor:
        """The weight of every edge, [E, B] or [E, B, C] in the order of ``connectivity.edge_index``; B and C are 1 where shared."""
        left, right = (factor.unsqueeze(2) if factor.dim() < self._axes else factor for factor in (self.left, self.right))
        source, target = self.connectivity.edge_index
        dtype = self._computed_in()
        with torch.autocast(left.device.type, enabled=False):
            left, right = left.to(dtype), right.to(dtype)
            if self.per == "type" and left.size(0) * right.size(0) <= 2 * target.numel():
                weight = _of_all_types(left, right)[target * right.size(0) + self._kinds()]
            else:
                held = source if self.per == "node" else self._kinds()
                ranks = zip(left.unbind(-1), right.unbind(-1))  # one at a time: [E, B] instead of [E, B, R]
                weight = functools.reduce(torch.add, (u.index_select(0, target) * v.index_select(0, held) for u, v in ranks))
            if self.scale is not None:
                weight = weight * self.scale.to(dtype).view(-1, *[1] * (weight.dim() - 1))
        return weight.to(self._promoted())

    def __repr__(self) -> str:
        shapes = f"left={tuple(self.left.shape)}, right={tuple(self.right.shape)}"
        return f"LowRankWeight({self.connectivity}, {shapes}, per={self.per!r}, scaled={self.scale is not None})"

    def _check(self) -> None:
        n, e = self.connectivity.num_nodes, self.connectivity.num_edges
        for name, factor in (("left", self.left), ("right", self.right)):
            count = "K" if name == "right" and self.per == "type" else "N"
            fits = isinstance(factor, Tensor) and factor.is_floating_point() and factor.dim() in (3, 4)
            if not fits or (count == "N" and factor.size(0) != n):
                where = "" if count == "K" else f" with N = {n}"
                expected = f"a floating-point tensor [{count}, B, R] or [{count}, B, C, R]{where}"
                raise ValueError(f"{name} must be {expected}, got {_described(factor)}")
            if factor.size(-1) == 0:
                raise ValueError(f"{name} must have rank at least 1, got shape {tuple(factor.shape)}")
        left, right = tuple(self.left.shape), tuple(self.right.shape)
        if right[-1] != left[-1]:
            raise ValueError(f"right must have the rank of left, {left[-1]}, got shape {right}")
        if self.per == "type":
            kinds = self._num_kinds
            if self.connectivity.edge_type is None and right[0] != 1:
                raise ValueError(f"right must have one shared row, shape [1, ...], on a graph without edge_type, got shape {right}")
            if right[0] < kinds:
                raise ValueError(f"right must have one row per edge type ({kinds}), got shape {right}")
        for axis, what in ((1, "samples"), (2, "channels")):
            sizes = {part[axis] for part in (left, right) if axis == 1 or len(part) == 4} - {1}
            if len(sizes) > 1:
                raise ValueError(f"right must have the {what} of left, or 1, got left {left} and right {right}")
        if self.scale is not None:
            scale = self.scale
            if not isinstance(scale, Tensor) or scale.shape != (e,) or not scale.is_floating_point():
                raise ValueError(f"scale must be a floating-point tensor [{e}], got {_described(scale)}")

    @property
    def _axes(self) -> int:
        return max(self.left.dim(), self.right.dim())

    def _promoted(self) -> torch.dtype:
        dtype = torch.promote_types(self.left.dtype, self.right.dtype)
        return dtype if self.scale is None else torch.promote_types(dtype, self.scale.dtype)

    def _computed_in(self, dtype: torch.dtype | None = None) -> torch.dtype:
        common = self._promoted() if dtype is None else torch.promote_types(self._promoted(), dtype)
        return torch.float32 if common in (torch.float16, torch.bfloat16) else common

    def _kinds(self) -> Tensor:
        kinds = self.connectivity.edge_type
        return torch.zeros_like(self.connectivity.edge_index[0]) if kinds is None else kinds

    # What is kept is made by differentiable operations and holds their graph.

    def _ranked(self, side: Literal["left", "right"], order: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A factor [N or K, B, C, R] with its axes in another order."""
        factor = self.left if side == "left" else self.right
        kept = self._kept_left if side == "left" else self._kept_right
        return _kept(kept, ("ranked", order, dtype), [factor], lambda: _four(factor).to(dtype).permute(order).contiguous())

    def _ranks_apart(self, dtype: torch.dtype) -> list[Tensor]:
        """Both factors with their ranks in front, [R, N, B, C] and [R, K or N, B, C]."""
        return [self._ranked(side, (3, 0, 1, 2), dtype) for side in ("left", "right")]

    def _transformed(self, box: _Box, dtype: torch.dtype) -> Tensor:
        """The right factor for :class:`_Fourier`: as it is for the first sum, which may be the only one; then its spectrum is kept."""

        def kernel() -> Tensor:
            return _four(self.right)[: box.place.numel()].to(dtype).permute(1, 3, 2, 0).contiguous()

        if self.right.size(1) > 1 and ("used",) not in self._kept_right:
            self._kept_right["used",] = _Kept(True, (), False)
            return kernel()
        return _kept(self._kept_right, ("spectrum", dtype), [self.right], lambda: _Spectrum.apply(kernel(), box))

    def _edge_scale(self, dtype: torch.dtype) -> EdgeWeight:
        graph, scale = self.connectivity, self.scale
        value = self.right.new_ones(graph.num_edges, dtype=dtype) if scale is None else scale
        sources = [] if scale is None else [scale]
        return _kept(self._kept_graph, ("scale", dtype), sources, lambda: EdgeWeight(graph, value.to(dtype)))

    def _products(self, dtype: torch.dtype) -> list[EdgeWeight]:
        """The weights a_ij V_kr of every rank, of a right factor that all samples and channels share."""

        def make() -> list[EdgeWeight]:
            right = _four(self.right)[:, 0, 0].to(dtype).t().contiguous()
            values = [row.index_select(0, self._kinds()) for row in right.unbind()]
            values = values if self.scale is None else [value * self.scale.to(dtype) for value in values]
            return [EdgeWeight(self.connectivity, value) for value in values]

        sources = [self.right] if self.scale is None else [self.right, self.scale]
        return _kept(self._kept_right, ("products", dtype), sources, make)

    def _coefficient(self, dtype: torch.dtype) -> Tensor:
        """Σ_r U_ir V_0r [N, B, C], the weight of every node where all edges are of one type."""

        def make() -> Tensor:
            return (_four(self.left).to(dtype) * _four(self.right)[:1].to(dtype)).sum(-1)

        return _kept(self._kept_left, ("coefficient", dtype), [self.left, self.right], make)


def _of_all_types(left: Tensor, right: Tensor) -> Tensor:
    """Σ_r left_nr right_kr of every node and type, [N·K, B] or [N·K, B, C], as matrix products."""
    u, v = left.flatten(1, -2), right.flatten(1, -2)  # [N, B·C, R], [K, B·C, R]
    tail = torch.broadcast_shapes(left.shape[1:-1], right.shape[1:-1])
    if u.size(1) == 1:
        found = u.squeeze(1) @ v.flatten(0, 1).t()  # [N, K·B·C]
        return found.view(-1, *tail)
    if v.size(1) == 1:
        found = (u @ v.squeeze(1).t()).transpose(1, 2)
    else:
        full = [factor.expand(-1, *tail, -1).flatten(1, -2).transpose(0, 1) for factor in (left, right)]
        found = (full[0] @ full[1].transpose(1, 2)).permute(1, 2, 0)
    return found.reshape(-1, *tail)


class _Kept(NamedTuple):
    """Something made of tensors, of which version they were, and whether it carries their gradient."""

    value: Any
    versions: tuple[Any, ...]
    wants: bool


def _kept(kept: dict[tuple[Any, ...], _Kept], key: tuple[Any, ...], sources: list[Tensor], make: Callable[[], Any]) -> Any:
    """What is kept, if it is of these tensors as they are now and carries a gradient where one is wanted; made anew otherwise."""
    wants = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
    key = (*key, torch.is_inference_mode_enabled())
    versions = _versions(sources)
    found = kept.get(key)
    if found is None or found.versions != versions or (wants and not found.wants):
        found = kept[key] = _Kept(make(), versions, wants)
    return found.value


def _versions(sources: list[Tensor]) -> tuple[Any, ...]:
    return tuple((id(source), -1 if source.is_inference() else source._version) for source in sources)


def _four(factor: Tensor) -> Tensor:
    """[·, B, C, R] of a factor without channels too."""
    return factor.unsqueeze(2) if factor.dim() == 3 else factor


def _with_channels(x: Tensor) -> Tensor:
    """[N, B, C] of a state without channels too."""
    return x.unsqueeze(-1) if x.dim() == 2 else x


def _num_kinds(connectivity: Connectivity) -> int:
    kinds = connectivity.edge_type
    if kinds is None:
        return 1
    if kinds.dim() != 1 or kinds.is_floating_point() or (kinds.numel() > 0 and int(kinds.min()) < 0):
        raise ValueError(f"connectivity must have edge_type, integers >= 0 [{connectivity.num_edges}], got {_described(kinds)}")
    return int(kinds.max()) + 1 if kinds.numel() else 0


_BLOCK = 1 << 17  # numbers of the sums of single ranks that are made at once: a few such blocks fit into the second cache
_COLUMNS = 128  # of a sparse product, which slows down when the state leaves the cache


class _Spectrum(torch.autograd.Function):
    """The transform of kernels [B, R, C, K]. Nothing is saved: what was made once serves several backward passes."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, box: _Box) -> Tensor:
        ctx.box = box
        with exact(kernel):
            return box.spectrum(kernel)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        box: _Box = ctx.box
        with exact(grads[0].real):
            return torch.stack([box.transposed(part / box.share(part)) for part in grads[0].unbind()]), None


class _Box:
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


class _Fourier(torch.autograd.Function):
    """A convolution per sample and rank; x [N, B, C], left [N, B, C, R], right [B, R, C, K], or its spectrum [B, R, C, *frequencies].

    Some samples are made at a time, from whatever the order of the axes is; for the derivative they are made once more.
    """

    @staticmethod
    def forward(ctx: Any, box: _Box, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
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
        box: _Box = ctx.box
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


def _on_cells(box: _Box, x: Tensor) -> Tensor:
    """[N, B, C] as [B, C, *shape]."""
    return x.permute(1, 2, 0).contiguous().unflatten(-1, box.stencil.shape)


def _on_box(box: _Box, left: Tensor, samples: slice, ranks: slice) -> Tensor:
    """Some of [N, B, C, R] as [B, R, C, *shape]."""
    return left[:, _of(samples, left.size(1)), :, ranks].permute(1, 3, 2, 0).contiguous().unflatten(-1, box.stencil.shape)


def _spectrum_of(box: _Box, right: Tensor, samples: slice, ranks: slice) -> Tensor:
    found = right[_of(samples, right.size(0)), ranks]
    return found if found.is_complex() else box.spectrum(found)


def _collect(total: Tensor, part: Tensor) -> None:
    """Add what was broadcast up."""
    total.add_(part if part.shape == total.shape else part.sum_to_size(total.shape))


def _convolved(box: _Box, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The same by differentiable operations."""
    every = slice(None)
    spectrum = right if right.is_complex() else box.spectrum(right)
    found = box.back(box.transform(_on_cells(box, x)).unsqueeze(1) * spectrum) * _on_box(box, left, every, every)
    return found.sum(1).flatten(2).permute(2, 0, 1)


class _Operator:
    """R linear maps of the state [N, B, C], x ↦ A_r x [N, R, B, C], each made of ``held`` tensors."""

    def together(self, x: Tensor) -> int:
        """How many ranks are made at once."""
        return max(1, _BLOCK // x.numel())

    def ranks(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        """A_r x for some ranks r."""
        raise NotImplementedError

    def plain(self, part: slice, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        """The same by differentiable operations."""
        return self.ranks(part, x, held)

    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        """A backward pass in which gradients to x and to what is held are wanted, or not."""
        raise NotImplementedError


class _Backward:
    """What a backward pass collects over the ranks."""

    grads: list[Tensor | None]  # to x and to what is held

    def ranks(self, part: slice) -> Tensor:
        """A_r x once more."""
        raise NotImplementedError

    def pull(self, part: slice, h: Tensor) -> None:
        """Take on the gradients h_r of A_r x."""
        raise NotImplementedError


def _product_into(total: Tensor, a: Tensor, b: Tensor) -> None:
    """a ∘ b, summed over the axes along which ``total`` is 1."""
    if torch.broadcast_shapes(a.shape, b.shape) == total.shape:
        torch.mul(a, b, out=total)
    else:
        total.copy_((a * b).sum_to_size(total.shape))


class _Adjacency:
    """A of one number per edge, many columns at a time, x [N, M]."""

    columns = _COLUMNS

    def __init__(self, prepared: EdgeWeight) -> None:
        self.prepared = prepared

    def multiply(self, x: Tensor, transpose: bool = False) -> Tensor:
        return self.prepared.multiply(x, transpose)

    def plain(self, x: Tensor, *value: Tensor) -> Tensor:
        return _kernels.spmm(*self.prepared.pattern, value[0], x, False)


class _Running(_Adjacency):
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


class _Factored(_Operator):
    """A (factor_r ∘ x); x [N, B, C], held: the factor [N, R, B, C] and, with a scale, its value and token."""

    def __init__(self, adjacency: _Adjacency) -> None:
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
    def __init__(self, operator: _Factored, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> None:
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


class _Products(_Operator):
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
    def __init__(self, operator: _Products, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> None:
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


class _Ranks(torch.autograd.Function):
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


def lowrank_sum(
    connectivity: Connectivity,
    x: Tensor,
    weight: LowRankWeight,
    *,
    compile: _compiled.Compile = "auto",
) -> Tensor:
    r"""The sum over incoming edges with weights of low rank, :math:`y_i = \sum_{j \to i} w_{ij}\, x_j`, without making the weights.

    Args:
        connectivity: the graph, N nodes and E edges.
        x: the state, [N, B] or [N, B, C], node-major.
        weight: the :class:`LowRankWeight`, prepared for this very graph.
        compile: see :func:`lmn_graph.ops.message_sum`, by which some of the sums are made.

    Returns:
        Tensor with the shape and dtype of ``x``. In float16 and bfloat16 it is computed in float32 and rounded once.

    Raises:
        ValueError: if the state does not fit the graph or the weights.
    """
    return _sum(connectivity, x, weight, None, compile)


def _sum(
    connectivity: Connectivity, x: Tensor, weight: LowRankWeight, form: Form | None = None, compile: _compiled.Compile = "auto"
) -> Tensor:
    """The sum in the form that is asked for, or in the fastest."""
    _check_state(connectivity, x, weight)
    if x.numel() == 0 or connectivity.num_edges == 0:
        form = "definition"
    form = form or _form_for(weight, x, compile)
    dtype = weight._computed_in(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        y = _FORMS[form](weight, _with_channels(x.to(dtype)), compile)
    return y.reshape(x.shape).to(x.dtype)


def _form_for(weight: LowRankWeight, x: Tensor, compile: _compiled.Compile) -> Form:
    if _is_watched(x, weight):
        return "definition"
    if weight.per == "node":
        return "node"
    if weight._num_kinds == 1:
        return "one"
    if _is_box(weight):
        compiled = _degree(weight) <= _FEW and _compiled.compiles(compile, weight.connectivity.num_edges * x.numel() // x.size(0))
        return "messages" if compiled else "fourier"
    shared = math.prod(weight.right.shape[1:-1]) == 1
    return "products" if shared and weight.connectivity.num_edges <= x.numel() else "messages"


def _is_watched(x: Tensor, weight: LowRankWeight) -> bool:
    """Whether somebody traces or transforms the sum: then it must be made of plain operations."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    parts = [x, weight.left, weight.right, *([] if weight.scale is None else [weight.scale])]
    return any(forward_ad.unpack_dual(part).tangent is not None for part in parts)


def _by_definition(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    """One weight per edge."""
    source, target = weight.connectivity.edge_index
    w = weight.materialise().to(x.dtype)
    message = (w if w.dim() == 3 else w.unsqueeze(-1)) * x.index_select(0, source)
    return torch.zeros_like(x).index_add(0, target, message)


def _by_node(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    left, right = (weight._ranked(side, (0, 3, 1, 2), x.dtype) for side in ("left", "right"))
    if _is_box(weight):
        stencil = Stencil.of(weight.connectivity)
        assert stencil is not None
        return _Ranks.apply(_Factored(_Running(stencil)), x, left, right)
    prepared = weight._edge_scale(x.dtype)
    return _Ranks.apply(_Factored(_Adjacency(prepared)), x, left, right, prepared.value, prepared.token)


def _by_one(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    return weight._coefficient(x.dtype) * weighted_sum(weight.connectivity, x, weight._edge_scale(x.dtype))


def _by_products(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    prepared = weight._products(x.dtype)
    held = [part for each in prepared for part in (each.value, each.token)]
    return _Ranks.apply(_Products(prepared), x, weight._ranked("left", (0, 3, 1, 2), x.dtype), *held)


def _by_fourier(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    box = _box_of(weight)
    return _Fourier.apply(box, x, _four(weight.left).to(x.dtype), weight._transformed(box, x.dtype))


def _box_of(weight: LowRankWeight) -> _Box:
    stencil = Stencil.of(weight.connectivity)
    assert stencil is not None
    return _kept(weight._kept_graph, ("box",), [], lambda: _Box(stencil, weight.right.device))


def _by_messages(weight: LowRankWeight, x: Tensor, compile: _compiled.Compile) -> Tensor:
    return _messages(weight, x, None, "plain", compile)


def gated_lowrank_sum(
    connectivity: Connectivity,
    x: Tensor,
    weight: LowRankWeight,
    u: Tensor,
    *,
    ratio: bool = False,
    compile: _compiled.Compile = "auto",
) -> Tensor:
    r"""The gated sum over incoming edges with weights of low rank, :math:`y_i = \sum_{j \to i} \sigma(u_i - u_j)\, w_{ij}\, x_j`.

    The gate is of single edges, so that the sum cannot be taken apart by rank: the weight of every edge is made where it is used.
    :func:`lmn_graph.ops.gated_sum` calls this with :math:`u = \alpha |x|`.

    Args:
        connectivity: the graph, N nodes and E edges.
        x: the state, [N, B] or [N, B, C].
        weight: the weights, prepared for this very graph.
        u: what the gate compares, like ``x``; with channels also [N, B, 1].
        ratio: compute the gate as a ratio of exponentials of u, which must be small enough for that.
        compile: see :func:`lmn_graph.ops.message_sum`.

    Returns:
        Tensor with the shape and dtype of ``x``.

    Raises:
        ValueError: if the state does not fit the graph or the weights.
    """
    _check_state(connectivity, x, weight)
    dtype = weight._computed_in(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        state, u = (_with_channels(part.to(dtype)) for part in (x, u))
        p = u.exp() if ratio else u
        y = _messages(weight, state, p, "ratio" if ratio else "sigmoid", compile)
        y = p * y if ratio else y
    return y.reshape(x.shape).to(x.dtype)


def _messages(weight: LowRankWeight, x: Tensor, u: Tensor | None, gate: str, compile: _compiled.Compile) -> Tensor:
    """Sums of messages, some ranks at a time; x [N, B, C]."""
    graph = weight.connectivity
    gates = () if u is None else (u,)
    edge = () if weight.scale is None else (weight.scale.to(x.dtype),)
    if weight.per == "type" and weight._num_kinds <= 1:  # one weight per node
        total: Tensor = message_sum(graph, _Message(gate, 0, bool(edge)), gates, (*gates, x), edge, compile=compile)
        return (weight._coefficient(x.dtype) * total).expand_as(x)
    parts = []
    for first in range(0, weight.rank, _TOGETHER):
        lefts, rights = (factor[first : first + _TOGETHER].unbind() for factor in weight._ranks_apart(x.dtype))
        message = _Message(gate, len(lefts), bool(edge), weight.per == "node")
        source = (*gates, *rights, x) if message.by_node else (*gates, x)
        kind = () if message.by_node else rights
        parts.append(message_sum(graph, message, (*gates, *lefts), source, edge, kind, compile=compile).expand_as(x))
    return sum(parts[1:], parts[0])


@dataclasses.dataclass(frozen=True)
class _Message:
    """gate(u_i, u_j) a_ij Σ_r left_r right_r x_j; every rank is an argument of its own, so that a loop runs along the samples."""

    gate: str
    ranks: int
    scaled: bool
    by_node: bool = False

    def __call__(self, *args: Tensor) -> Tensor:
        gates, ranks, rest = int(self.gate != "plain"), self.ranks, list(args)

        def taken(count: int) -> list[Tensor]:
            found, rest[:count] = rest[:count], []
            return found

        u_i, left, u_j = taken(gates), taken(ranks), taken(gates)
        right = taken(ranks) if self.by_node else []
        (x_j,) = taken(1)
        scale = taken(int(self.scaled))
        y = x_j
        if ranks:
            pairs = list(zip(left, right or rest))
            weight = pairs[0][0] * pairs[0][1]
            for l_r, r_r in pairs[1:]:
                weight = weight + l_r * r_r
            y = weight * x_j
        y = scale[0] * y if scale else y
        if self.gate == "sigmoid":
            return torch.sigmoid(u_i[0] - u_j[0]) * y
        return y / (u_i[0] + u_j[0]) if gates else y


_EDGES_PER_RANK = {False: 5, True: 64}  # of a node, that take the time of a rank: weights of every sample, weights that all share
_RANKS = 12  # that take the time of one weight per edge and sample, where both are read edge by edge


def pays_to_materialise(weight: LowRankWeight, *, gated: bool = False) -> bool:
    """Whether a rollout of about ten steps is faster with the weights made once than contracted at every step.

    Weights that differ between the samples, [E, B], cost a step as much as 12 ranks where those too are contracted edge by edge. On a
    full box without ``scale`` they are not: the time of a rank does not grow with the number of neighbours, so that the weights pay where
    a node has no more than 5 R edges either. Weights that all samples share, [E], are one sparse product, which pays, on such a box up to
    64 R edges of a node. Where all edges are of one type the weights are one number per node and nothing is to be made. Measured by
    ``benchmarks/lowrank_step.py --table``; memory is not looked at.

    Args:
        weight: the weights.
        gated: whether they are for :func:`lmn_graph.ops.gated_sum`.
    """
    if weight.per == "type" and weight._num_kinds <= 1:
        return False
    shared = math.prod(weight.left.shape[1:-1]) == 1 == math.prod(weight.right.shape[1:-1])
    enough = gated or not _is_box(weight) or _EDGES_PER_RANK[shared] * weight.rank >= _degree(weight)
    return enough and (shared or weight.rank >= _RANKS)


def _degree(weight: LowRankWeight) -> float:
    return weight.connectivity.num_edges / weight.connectivity.num_nodes


def _is_box(weight: LowRankWeight) -> bool:
    """Whether a sum is one over a full box, without reading an edge."""
    stencil = Stencil.of(weight.connectivity) if weight.scale is None else None
    return stencil is not None and (weight.per == "type" or stencil.refusal("separable", uniform=True) is None)


def _check_state(connectivity: Connectivity, x: Tensor, weight: LowRankWeight) -> None:
    if not isinstance(weight, LowRankWeight):
        raise ValueError(f"weight must be a LowRankWeight, got {_described(weight)}")
    if weight.connectivity.rowptr is not connectivity.rowptr:
        got = f"one for {weight.connectivity}"
        raise ValueError(f"weight must be prepared for this very connectivity, {connectivity}, got {got}")
    n = connectivity.num_nodes
    if not isinstance(x, Tensor) or x.dim() not in (2, 3) or x.size(0) != n or not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor [N, B] or [N, B, C] with N = {n}, got {_described(x)}")
    for name, factor in (("left", weight.left), ("right", weight.right)):
        tail, state = tuple(factor.shape[1:-1]), tuple(x.shape[1:])
        if len(tail) > len(state) or any(size not in (1, there) for size, there in zip(tail, state)):
            raise ValueError(
                f"x must fit the {name} factor {tuple(factor.shape)} of the weight from its second axis on, got {tuple(x.shape)}"
            )


_FORMS: dict[Form, Callable[[LowRankWeight, Tensor, Any], Tensor]] = {
    "node": _by_node,
    "one": _by_one,
    "fourier": _by_fourier,
    "products": _by_products,
    "messages": _by_messages,
    "definition": _by_definition,
}
