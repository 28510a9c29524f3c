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

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled, _kernels
from lmn_graph.ops._contracted import Adjacency, Box, Factored, Fourier, Products, Ranks, Running, Spectrum
from lmn_graph.ops.message import message_sum
from lmn_graph.ops.stencil import Stencil
from lmn_graph.ops.weighted import EdgeWeight, _described, weighted_sum
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
    needed, and its gradient collected there over the steps of a rollout; like any tensor that was made once it is for one backward pass
    (or several with ``retain_graph``): another rollout takes new weights.

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
        other._kept_left = {}
        if self.left.size(1) > 1:
            other.left = self.left.index_select(1, samples)
        if self.right.size(1) > 1:
            other.right, other._kept_right = self.right.index_select(1, samples), {}
            for key, kept in self._kept_right.items():  # a spectrum has been paid for: the samples are taken from it
                if key[0] == "spectrum" and kept.is_of([self.right]):
                    value = kept.value.index_select(0, samples)
                    other._kept_right[key] = _Kept.of([other.right], value, value.requires_grad)
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

    def _transformed(self, box: Box, dtype: torch.dtype) -> Tensor:
        """The right factor for :class:`Fourier`: as it is for the first sum, which may be the only one; then its spectrum is kept."""

        def kernel() -> Tensor:
            return _four(self.right)[: box.place.numel()].to(dtype).permute(1, 3, 2, 0).contiguous()

        if self.right.size(1) > 1 and ("used",) not in self._kept_right:
            if not _is_checkpointed():
                self._kept_right["used",] = _Kept.of([], True, False)
            return kernel()
        return _kept(self._kept_right, ("spectrum", dtype), [self.right], lambda: Spectrum.apply(kernel(), box))

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
        return found.view(left.size(0) * right.size(0), *tail)
    if v.size(1) == 1:
        found = (u @ v.squeeze(1).t()).transpose(1, 2)
    else:
        full = [factor.expand(-1, *tail, -1).flatten(1, -2).transpose(0, 1).contiguous() for factor in (left, right)]
        found = _kernels.contiguous_gradient(full[0] @ full[1].transpose(1, 2)).permute(1, 2, 0)
    return found.reshape(left.size(0) * right.size(0), *tail)


class _Kept(NamedTuple):
    """Something made of tensors, these and of which version they were, and whether it carries their gradient."""

    value: Any
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]
    wants: bool

    @classmethod
    def of(cls, sources: list[Tensor], value: Any, wants: bool) -> _Kept:
        return cls(value, tuple(sources), _versions(sources), wants)

    def is_of(self, sources: list[Tensor]) -> bool:
        """Whether it was made of these very tensors as they are now."""
        same = len(sources) == len(self.sources) and all(one is other for one, other in zip(sources, self.sources))
        return same and self.versions == _versions(sources)


def _kept(kept: dict[tuple[Any, ...], _Kept], key: tuple[Any, ...], sources: list[Tensor], make: Callable[[], Any]) -> Any:
    """What is kept, if it is of these tensors as they are now and carries a gradient where one is wanted; made anew otherwise."""
    wants = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
    key = (*key, torch.is_inference_mode_enabled())
    found = kept.get(key)
    if found is None or not found.is_of(sources) or (wants and not found.wants):
        if _is_checkpointed():
            return make()
        found = kept[key] = _Kept.of(sources, make(), wants)
    return found.value


def _is_checkpointed() -> bool:
    """Whether saved tensors go through hooks, as in activation checkpointing: what a segment makes is made again in the backward pass, so
    that nothing may be kept in one and found in the other."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _versions(sources: list[Tensor]) -> tuple[int, ...]:
    return tuple(-1 if source.is_inference() else source._version for source in sources)


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
    return _kernels.is_watched(x, weight.left, weight.right, *([] if weight.scale is None else [weight.scale]))


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
        return Ranks.apply(Factored(Running(stencil)), x, left, right)
    prepared = weight._edge_scale(x.dtype)
    return Ranks.apply(Factored(Adjacency(prepared)), x, left, right, prepared.value, prepared.token)


def _by_one(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    return weight._coefficient(x.dtype) * weighted_sum(weight.connectivity, x, weight._edge_scale(x.dtype))


def _by_products(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    prepared = weight._products(x.dtype)
    held = [part for each in prepared for part in (each.value, each.token)]
    return Ranks.apply(Products(prepared), x, weight._ranked("left", (0, 3, 1, 2), x.dtype), *held)


def _by_fourier(weight: LowRankWeight, x: Tensor, compile: str) -> Tensor:
    box = _box_of(weight)
    return Fourier.apply(box, x, _four(weight.left).to(x.dtype), weight._transformed(box, x.dtype))


def _box_of(weight: LowRankWeight) -> Box:
    stencil = Stencil.of(weight.connectivity)
    assert stencil is not None
    return _kept(weight._kept_graph, ("box",), [], lambda: Box(stencil, weight.right.device))


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


_EDGES_PER_RANK = {False: 4, True: 64}  # of a node, that take the time of a rank: weights of every sample, weights that all share
_GATED_RANKS = 4  # from which on a gated sum is faster with weights that are made
_RANKS = 12  # that take the time of one weight per edge and sample, where both are read edge by edge


def pays_to_materialise(weight: LowRankWeight, *, gated: bool = False) -> bool:
    """Whether a rollout of about ten steps is faster with the weights made once than contracted at every step.

    Weights that differ between the samples, [E, B], cost a step as much as 12 ranks where those too are contracted edge by edge. On a
    full box without ``scale`` they are not: the time of a rank does not grow with the number of neighbours, so that weights pay where the
    right factor belongs to types and a node has no more than 4 R edges. Weights that all samples share, [E], are one sparse product, which
    pays, on such a box up to 64 R edges of a node. Where all edges are of one type the weights are one number per node and nothing is to
    be made. A gated sum, which has to make the weight of every edge at every step, is faster with weights made once from 4 ranks on.
    Measured by ``benchmarks/lowrank_step.py --table``; memory is not looked at.

    Args:
        weight: the weights.
        gated: whether they are for :func:`lmn_graph.ops.gated_sum`.
    """
    if weight.per == "type" and weight._num_kinds <= 1:
        return False
    shared = math.prod(weight.left.shape[1:-1]) == 1 == math.prod(weight.right.shape[1:-1])
    if gated:
        return shared or weight.rank >= _GATED_RANKS
    if _is_box(weight):
        return (shared or weight.per == "type") and _EDGES_PER_RANK[shared] * weight.rank >= _degree(weight)
    return shared or weight.rank >= _RANKS


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
