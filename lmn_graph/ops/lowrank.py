"""Sums over neighbours with weights of low rank, which are contracted: no weight is ever made."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Hashable
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
        self._kept_right: dict[Hashable, _Kept] = {}
        self._kept_left: dict[Hashable, _Kept] = {}

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
            other.right = self.right.index_select(1, samples)
            # A spectrum has been paid for: the samples are taken from it.
            other._kept_right = {key: kept for key, kept in self._kept_right.items() if key[0] == "scale"}  # type: ignore[index]
            for key, kept in self._kept_right.items():
                if key[0] in ("spectrum", "ranks") and isinstance(kept.value, Tensor):  # type: ignore[index]
                    place = 1 if key[0] == "spectrum" else 2  # type: ignore[index]
                    value = kept.value.index_select(place, samples)
                    other._kept_right[key] = _Kept(value, _versions([other.right]), value.requires_grad)
        return other

    def materialise(self) -> Tensor:
        """The weight of every edge, [E, B] or [E, B, C] in the order of ``connectivity.edge_index``; B and C are 1 where shared."""
        left, right = (factor.unsqueeze(2) if factor.dim() < self._axes else factor for factor in (self.left, self.right))
        source, target = self.connectivity.edge_index
        dtype = self._computed_in()
        with torch.autocast(left.device.type, enabled=False):
            weight = left.to(dtype)[target].mul(right.to(dtype)[source if self.per == "node" else self._kinds()]).sum(-1)
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

    def _ranks(self, side: Literal["left", "right"], dtype: torch.dtype) -> Tensor:
        """A factor with its ranks in front, [R, N or K, B, C]."""
        factor = self.left if side == "left" else self.right
        kept = self._kept_left if side == "left" else self._kept_right
        return _kept(kept, ("ranks", dtype), [factor], lambda: _four(factor).to(dtype).movedim(-1, 0).contiguous())

    def _ranks_on_box(self, dtype: torch.dtype) -> Tensor:
        """The left factor [R, B, C, N]."""
        return _kept(self._kept_left, ("box", dtype), [self.left], lambda: _four(self.left).to(dtype).permute(3, 1, 2, 0).contiguous())

    def _spectrum(self, box: _Box, dtype: torch.dtype) -> Tensor:
        """The right factor, placed on the box and transformed, [R, B, C, *frequencies]."""

        def make() -> Tensor:
            flat = _four(self.right)[: box.place.numel()].to(dtype).permute(3, 1, 2, 0)
            return box.transform(_Placed.apply(flat, box.place, math.prod(box.lengths)).unflatten(-1, box.lengths))

        return _kept(self._kept_right, ("spectrum", dtype), [self.right], make)

    def _edge_scale(self, dtype: torch.dtype) -> EdgeWeight:
        graph, scale = self.connectivity, self.scale
        value = self.right.new_ones(graph.num_edges, dtype=dtype) if scale is None else scale
        sources = [] if scale is None else [scale]
        return _kept(self._kept_right, ("scale", dtype), sources, lambda: EdgeWeight(graph, value.to(dtype)))

    def _products(self, dtype: torch.dtype) -> list[EdgeWeight]:
        """The weights a_ij V_kr of every rank, of a right factor that all samples and channels share."""

        def make() -> list[EdgeWeight]:
            values = self._ranks("right", dtype)[:, :, 0, 0].index_select(1, self._kinds())
            values = values if self.scale is None else values * self.scale.to(dtype)
            return [EdgeWeight(self.connectivity, value) for value in values.unbind()]

        sources = [self.right] if self.scale is None else [self.right, self.scale]
        return _kept(self._kept_right, ("products", dtype), sources, make)

    def _coefficient(self, dtype: torch.dtype) -> Tensor:
        """Σ_r U_ir V_0r [N, B, C], the weight of every node where all edges are of one type."""

        def make() -> Tensor:
            return (_four(self.left).to(dtype) * _four(self.right)[:1].to(dtype)).sum(-1)

        return _kept(self._kept_left, ("coefficient", dtype), [self.left, self.right], make)


class _Kept(NamedTuple):
    """Something made of tensors, of which version they were, and whether it carries their gradient."""

    value: Any
    versions: tuple[Any, ...]
    wants: bool


def _kept(kept: dict[Hashable, _Kept], key: tuple[Any, ...], sources: list[Tensor], make: Callable[[], Any]) -> Any:
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


def _num_kinds(connectivity: Connectivity) -> int:
    kinds = connectivity.edge_type
    if kinds is None:
        return 1
    if kinds.dim() != 1 or kinds.is_floating_point() or (kinds.numel() > 0 and int(kinds.min()) < 0):
        raise ValueError(f"connectivity must have edge_type, integers >= 0 [{connectivity.num_edges}], got {_described(kinds)}")
    return int(kinds.max()) + 1 if kinds.numel() else 0


class _Placed(torch.autograd.Function):
    """Entries [..., K] at places of zeros [..., M]; nothing is saved, so that what was made once serves several backward passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, place: Tensor, size: int) -> Tensor:
        ctx.place, ctx.size = place, size
        return values.new_zeros(*values.shape[:-1], size).index_copy_(-1, place, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _Taken.apply(grads[0], ctx.place, ctx.size), None, None


class _Taken(torch.autograd.Function):
    """The transpose of :class:`_Placed`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, place: Tensor, size: int) -> Tensor:
        ctx.place, ctx.size = place, size
        return values.index_select(-1, place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _Placed.apply(grads[0], ctx.place, ctx.size), None, None


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
        weight = torch.full((length // 2 + 1,), 2.0, device=device)  # the halved axis stands for both signs of a frequency
        weight[0] = 1
        if length % 2 == 0:
            weight[-1] = 1
        self.both = weight.view(-1, *[1] * (-last - 1))

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

    def on_cells(self, x: Tensor) -> Tensor:
        """[..., N] as [..., *shape]."""
        return x.unflatten(-1, self.stencil.shape)


class _Operator:
    """R linear maps of the state, x ↦ A_r x, each made of ``held`` tensors.

    ``begin(x, held)`` makes what all ranks share; ``rank(r, ...)`` is A_r x; ``pull(r, ...)`` takes the gradient h of A_r x on to x and to
    what is held.
    """

    def begin(self, x: Tensor, held: tuple[Tensor, ...]) -> Any:
        return x

    def rank(self, r: int, begun: Any, held: tuple[Tensor, ...]) -> Tensor:
        raise NotImplementedError

    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        raise NotImplementedError

    def plain(self, r: int, begun: Any, held: tuple[Tensor, ...]) -> Tensor:
        """:meth:`rank` by differentiable operations."""
        return self.rank(r, begun, held)


class _Backward:
    """What a backward pass collects over the ranks."""

    def rank(self, r: int) -> Tensor:
        """A_r x once more."""
        raise NotImplementedError

    def pull(self, r: int, h: Tensor) -> None:
        """Take on the gradient of A_r x."""
        raise NotImplementedError

    def gradients(self) -> list[Tensor | None]:
        """To x and to what is held."""
        raise NotImplementedError


def _reduced(value: Tensor, like: Tensor) -> Tensor:
    """Summed over the axes that were broadcast."""
    return value if value.shape == like.shape else value.sum_to_size(like.shape)


class _Fourier(_Operator):
    """A convolution per rank and sample; x [B, C, *shape], held: the spectrum."""

    def __init__(self, box: _Box) -> None:
        self.box = box

    def begin(self, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        return self.box.transform(x)

    def rank(self, r: int, begun: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        return self.box.back(begun * held[0][r])

    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        return _FourierBackward(self.box, x, held[0], wanted)


class _FourierBackward(_Backward):
    def __init__(self, box: _Box, x: Tensor, spectrum: Tensor, wanted: tuple[bool, ...]) -> None:
        self.box, self.spectrum, self.wanted = box, spectrum, wanted
        self.x = box.transform(x)
        # The derivative of the way back: a spectrum over the number of cells, twice where a frequency stands for two.
        self.factor = self.x.conj() * (box.both.to(x.dtype) / math.prod(box.sides)) if wanted[1] else None
        self.total: Tensor | None = None
        self.found = torch.empty_like(spectrum) if wanted[1] else None

    def rank(self, r: int) -> Tensor:
        return self.box.back(self.x * self.spectrum[r])

    def pull(self, r: int, h: Tensor) -> None:
        transformed = self.box.transform(h)
        if self.found is not None:
            self.found[r] = _reduced(transformed * self.factor, self.spectrum[r])
        if self.wanted[0]:
            part = transformed.mul_(self.spectrum[r].conj())
            self.total = part if self.total is None else self.total.add_(part)

    def gradients(self) -> list[Tensor | None]:
        return [None if self.total is None else self.box.back(self.total), self.found]


class _Sparse(_Operator):
    """Sparse products: of all ranks with one matrix, the state times a factor held by nodes first; or of each rank with its own.

    x [N, B, C]; held: [the factor [R, N, B, C],] then value and token of every prepared weight.
    """

    def __init__(self, prepared: list[EdgeWeight], factored: bool) -> None:
        self.prepared, self.factored = prepared, factored

    def heard(self, r: int, x: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        return held[0][r] * x if self.factored else x

    def rank(self, r: int, begun: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        x = self.heard(r, begun, held)
        return self.weight(r).multiply(x.flatten(1)).view(x.shape)

    def plain(self, r: int, begun: Tensor, held: tuple[Tensor, ...]) -> Tensor:
        x, weight = self.heard(r, begun, held), self.weight(r)
        value = held[1] if self.factored else held[2 * r]
        return _kernels.spmm(*weight.pattern, value, x.flatten(1), False).view(x.shape)

    def weight(self, r: int) -> EdgeWeight:
        return self.prepared[0 if self.factored else r]

    def backward(self, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> _Backward:
        return _SparseBackward(self, x, held, wanted)


class _SparseBackward(_Backward):
    def __init__(self, operator: _Sparse, x: Tensor, held: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> None:
        self.operator, self.x, self.held, self.wanted = operator, x, held, wanted
        self.grads: list[Tensor | None] = [None] * (1 + len(held))
        if operator.factored and wanted[1]:
            self.grads[1] = torch.empty_like(held[0])

    def rank(self, r: int) -> Tensor:
        return self.operator.rank(r, self.x, self.held)

    def pull(self, r: int, h: Tensor) -> None:
        operator = self.operator
        weight, flat = operator.weight(r), h.flatten(1)
        if self.wanted[0] or (operator.factored and self.wanted[1]):
            heard = weight.multiply(flat, transpose=True).view(h.shape)
            if operator.factored:
                factor = self.held[0][r]
                if (found := self.grads[1]) is not None:
                    found[r] = _reduced(self.x * heard, factor)
                heard = factor * heard
            if self.wanted[0]:
                total = self.grads[0]
                self.grads[0] = heard if total is None else total.add_(heard)
        at = 2 if operator.factored else 1 + 2 * r
        if self.wanted[at + 1]:
            weight.tape.add(flat, operator.heard(r, self.x, self.held).flatten(1).contiguous())
            self.grads[at + 1] = weight.token.new_zeros(())
        elif self.wanted[at] and not _COLLECTS:
            pattern, before = weight.pattern, self.grads[at]
            heard = operator.heard(r, self.x, self.held).flatten(1)
            found = _kernels.sample(pattern.rowptr, pattern.col, flat, heard)
            self.grads[at] = found if before is None else before + found

    def gradients(self) -> list[Tensor | None]:
        return self.grads


class _Ranks(torch.autograd.Function):
    """Σ_r left_r ∘ A_r x. Kept for the derivative: x, left and what A holds; the sums of single ranks are made once more."""

    @staticmethod
    def forward(ctx: Any, operator: _Operator, x: Tensor, left: Tensor, *held: Tensor) -> Tensor:
        ctx.operator = operator
        ctx.save_for_backward(x, left, *held)
        with exact(x):
            begun = operator.begin(x, held)
            y = torch.zeros_like(x)
            for r in range(left.size(0)):
                y.addcmul_(left[r], operator.rank(r, begun, held))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, left, *rest = ctx.saved_tensors
        held, g = tuple(rest), grads[0]
        needs = ctx.needs_input_grad[1:]
        with exact(x):
            if torch.is_grad_enabled():
                return None, *_again(ctx.operator, (x, left, *held), needs, g)
            under_way = ctx.operator.backward(x, held, (needs[0], *needs[2:]))
            found = torch.empty_like(left) if needs[1] else None
            others = needs[0] or any(needs[2:])
            for r in range(left.size(0)):
                if found is not None:
                    found[r] = _reduced(g * under_way.rank(r), left[r])
                if others:
                    under_way.pull(r, left[r] * g)
            to_x, *to_held = under_way.gradients()
        return None, to_x, found, *to_held


def _again(operator: _Operator, tensors: tuple[Tensor, ...], needs: tuple[bool, ...], g: Tensor) -> list[Tensor | None]:
    """The gradients by differentiable operations, for who differentiates them again."""
    with torch.enable_grad():
        x, left, *rest = (tensor.view_as(tensor) for tensor in tensors)  # apart, should two of them be one tensor
        held = tuple(rest)
        begun = operator.begin(x, held)
        y = sum((left[r] * operator.plain(r, begun, held) for r in range(1, left.size(0))), left[0] * operator.plain(0, begun, held))
        wanted = [tensor for tensor, need in zip((x, left, *held), needs) if need]
        found = iter(torch.autograd.grad(y, wanted, g, create_graph=True, allow_unused=True))
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
    form = form or _form_for(weight, x)
    dtype = weight._computed_in(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        y = _FORMS[form](weight, x.to(dtype).view(x.size(0), x.size(1), -1), compile)
    return y.reshape(x.shape).to(x.dtype)


def _form_for(weight: LowRankWeight, x: Tensor) -> Form:
    if _is_watched(x, weight):
        return "definition"
    if weight.per == "node":
        return "node"
    if weight._num_kinds == 1:
        return "one"
    if weight.scale is None and Stencil.of(weight.connectivity) is not None:
        return "fourier"
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
    prepared = weight._edge_scale(x.dtype)
    left, right = weight._ranks("left", x.dtype), weight._ranks("right", x.dtype)
    return _Ranks.apply(_Sparse([prepared], True), x, left, right, prepared.value, prepared.token)


def _by_one(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    return weight._coefficient(x.dtype) * weighted_sum(weight.connectivity, x, weight._edge_scale(x.dtype))


def _by_products(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    prepared = weight._products(x.dtype)
    held = [part for each in prepared for part in (each.value, each.token)]
    return _Ranks.apply(_Sparse(prepared, False), x, weight._ranks("left", x.dtype), *held)


def _by_fourier(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    box = _box_of(weight)
    on_cells = box.on_cells(x.permute(1, 2, 0)).contiguous()
    y = _Ranks.apply(_Fourier(box), on_cells, box.on_cells(weight._ranks_on_box(x.dtype)), weight._spectrum(box, x.dtype))
    return y.flatten(2).permute(2, 0, 1)


def _box_of(weight: LowRankWeight) -> _Box:
    stencil = Stencil.of(weight.connectivity)
    assert stencil is not None
    return _kept(weight._kept_right, ("scale", "box"), [], lambda: _Box(stencil, weight.right.device))


def _by_messages(weight: LowRankWeight, x: Tensor, compile: _compiled.Compile) -> Tensor:
    return _messages(weight, x, (), (), "plain", compile)


def gated_lowrank_sum(
    connectivity: Connectivity,
    x: Tensor,
    u: Tensor,
    weight: LowRankWeight,
    *,
    ratio: bool = False,
    compile: _compiled.Compile = "auto",
) -> Tensor:
    r"""The gated sum :math:`y_i = \sum_{j \to i} \sigma(u_i - u_j)\, w_{ij}\, x_j` with weights of low rank.

    Args:
        connectivity: the graph, N nodes and E edges.
        x: the state, [N, B] or [N, B, C].
        u: what is compared, [N, B] or, with channels, [N, B, 1] or [N, B, C].
        weight: the weights.
        ratio: whether |u| is small enough for its exponential.
        compile: see :func:`lmn_graph.ops.message_sum`.

    Returns:
        Tensor with the shape and dtype of ``x``.
    """
    _check_state(connectivity, x, weight)
    dtype = weight._computed_in(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        state = x.to(dtype).view(x.size(0), x.size(1), -1)
        u = u.to(dtype).view(x.size(0), x.size(1), -1)
        if ratio:
            p = u.exp()
            y = p * _messages(weight, state, (p,), (p,), "ratio", compile)
        else:
            y = _messages(weight, state, (u,), (u,), "sigmoid", compile)
    return y.reshape(x.shape).to(x.dtype)


def _messages(
    weight: LowRankWeight,
    x: Tensor,
    own: tuple[Tensor, ...],
    other: tuple[Tensor, ...],
    gate: str,
    compile: _compiled.Compile,
) -> Tensor:
    """Sums of messages, some ranks at a time; x [N, B, C]."""
    graph = weight.connectivity
    left, right = weight._ranks("left", x.dtype), weight._ranks("right", x.dtype)
    scale = () if weight.scale is None else (weight.scale.to(x.dtype),)
    total: Tensor | None = None
    for first in range(0, weight.rank, _TOGETHER):
        lefts, rights = left[first : first + _TOGETHER].unbind(), right[first : first + _TOGETHER].unbind()
        at_sources, at_edges = [*other, x], [*scale]
        if weight.per == "node":
            at_sources += rights
        else:
            at_edges += [part.index_select(0, weight._kinds()) for part in rights]
        message = _message(gate, weight.per, len(lefts), bool(scale))
        part = message_sum(graph, message, (*own, *lefts), at_sources, at_edges, compile=compile)
        part = part.expand_as(x)
        total = part if total is None else total + part
    assert total is not None
    return total


@functools.lru_cache(maxsize=256)
def _message(gate: str, per: str, ranks: int, scaled: bool) -> Callable[..., Tensor]:
    """gate(u_i, u_j) a_ij Σ_r left_ir right_r x_j; every rank is an argument of its own, so that a loop runs along the samples."""
    gates = 0 if gate == "plain" else 1

    def message(*args: Tensor) -> Tensor:
        own, rest = args[: gates + ranks], args[gates + ranks :]
        u_j, x_j, rest = rest[:gates], rest[gates], rest[gates + 1 :]
        if per == "node":
            rights, scale = rest[:ranks], rest[ranks:]
        else:
            scale, rights = rest[: int(scaled)], rest[int(scaled) :]
        weight = own[gates] * rights[0]
        for left, right in zip(own[gates + 1 :], rights[1:]):
            weight = weight + left * right
        y = weight * x_j
        if scaled:
            y = scale[0] * y
        if gate == "sigmoid":
            return torch.sigmoid(own[0] - u_j[0]) * y
        return y / (own[0] + u_j[0]) if gate == "ratio" else y

    return message


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
