"""The sum over neighbours in which every type of edge has a matrix of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops._kernels import exact
from lmn_graph.ops.weighted import _described

_BLOCK = 1 << 18  # numbers that are gathered at once: a block of edges stays in cache between its gather and its product


class _Groups(NamedTuple):
    """Edges by type: source and target in that order, and where each type begins."""

    source: Tensor
    target: Tensor
    start: list[int]

    def blocks(self, width: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Pieces of one type: (type, targets, sources), at most about ``_BLOCK`` numbers where a node holds ``width``."""
        size = max(1, _BLOCK // max(1, width))
        for kind, (first, last) in enumerate(zip(self.start, self.start[1:])):
            for begin in range(first, last, size):
                part = slice(begin, min(begin + size, last))
                yield kind, self.target[part], self.source[part]


_known = WeakTensorKeyDictionary()  # row pointers → _Groups


def _groups(connectivity: Connectivity) -> _Groups:
    key = connectivity.rowptr
    if key not in _known:
        kinds = connectivity.edge_type
        if kinds is None or kinds.dim() != 1 or kinds.is_floating_point() or (kinds.numel() > 0 and int(kinds.min()) < 0):
            raise ValueError(f"connectivity must have edge_type, integers >= 0 [{connectivity.num_edges}], got {_described(kinds)}")
        order = kinds.argsort(stable=True)
        counts = torch.bincount(kinds)
        source, target = connectivity.edge_index[:, order]
        _known[key] = _Groups(source, target, [0, *counts.cumsum(0).tolist()])
    return _known[key]


def _apply(groups: _Groups, weight: Tensor, x: Tensor, transpose: bool) -> Tensor:
    """Σ W x at the targets, or Σ Wᵀ x at the sources."""
    inner, outer = (1, 2) if transpose else (2, 1)
    y = x.new_zeros(x.size(0), x.size(1), weight.size(outer))
    with exact(x):
        for kind, target, source in groups.blocks(x.size(1) * max(weight.size(inner), weight.size(outer))):
            there, here = (target, source) if transpose else (source, target)
            y.index_add_(0, here, x.index_select(0, there) @ (weight[kind] if transpose else weight[kind].t()))
    return y


class _Sum(torch.autograd.Function):
    """A(W) x or A(W)ᵀ x. With :class:`_Outer` it is closed under derivatives: one form, linear in W, in x and in g."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, groups: _Groups, transpose: bool) -> Tensor:
        ctx.groups, ctx.transpose = groups, transpose
        ctx.save_for_backward(weight, x)
        ctx.save_for_forward(weight, x)
        return _apply(groups, weight, x, transpose)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (weight, x), (g,) = ctx.saved_tensors, grads
        grad_weight = grad_x = None
        if ctx.needs_input_grad[0]:
            left, right = (x, g) if ctx.transpose else (g, x)
            grad_weight = _Outer.apply(left, right, ctx.groups, weight.size(0))
        if ctx.needs_input_grad[1]:
            grad_x = _Sum.apply(weight, g, ctx.groups, not ctx.transpose)
        return grad_weight, grad_x, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (weight, x), (d_weight, d_x) = ctx.saved_tensors, tangents[:2]
        parts = [] if d_weight is None else [_apply(ctx.groups, d_weight, x, ctx.transpose)]
        parts += [] if d_x is None else [_apply(ctx.groups, weight, d_x, ctx.transpose)]
        return sum(parts[1:], parts[0])


class _Outer(torch.autograd.Function):
    """Σ g xᵀ over the edges of every type, the gradient of the matrices."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, groups: _Groups, types: int) -> Tensor:
        ctx.groups = groups
        ctx.save_for_backward(g, x)
        found = g.new_zeros(types, g.size(2), x.size(2))
        with exact(g):
            for kind, target, source in groups.blocks(g.size(1) * max(g.size(2), x.size(2))):
                found[kind].addmm_(g.index_select(0, target).flatten(0, 1).t(), x.index_select(0, source).flatten(0, 1))
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (g, x), (h,) = ctx.saved_tensors, grads
        grad_g = _Sum.apply(h, x, ctx.groups, False) if ctx.needs_input_grad[0] else None
        grad_x = _Sum.apply(h, g, ctx.groups, True) if ctx.needs_input_grad[1] else None
        return grad_g, grad_x, None, None


def typed_sum(connectivity: Connectivity, x: Tensor, weight: Tensor) -> Tensor:
    r"""The sum over incoming edges with a matrix per edge type, :math:`y_i = \sum_{j \to i} W_{type(j \to i)}\, x_j`.

    On a lattice, whose edge types are the offsets of the neighbourhood, this is a convolution with C input and D output channels. Edges
    are gathered a bounded block at a time and multiplied at once: no tensor of all edges exists, forward or backward, and derivatives of
    every order are sums of the same kind. In float16 and bfloat16 the sum is computed in float32 and rounded once.

    Args:
        connectivity: the graph, N nodes and E edges, with ``edge_type``.
        x: the state [N, B, C], node-major.
        weight: W [K, D, C], for the edge types 0 … K − 1.

    Returns:
        Tensor [N, B, D] with the dtype of ``x``.

    Raises:
        ValueError: if the graph has no edge types, or more than K, or the shape or dtype of a tensor does not fit.
    """
    if not isinstance(x, Tensor) or x.dim() != 3 or x.size(0) != connectivity.num_nodes or not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor [{connectivity.num_nodes}, B, C], got {_described(x)}")
    groups = _groups(connectivity)
    types = len(groups.start) - 1
    fits = isinstance(weight, Tensor) and weight.is_floating_point() and weight.dim() == 3
    if not fits or weight.size(2) != x.size(2) or weight.size(0) < types:
        expected = f"a floating-point tensor [K, D, {x.size(2)}] with K >= {types}"
        raise ValueError(f"weight must be {expected}, got {_described(weight)}")
    common = torch.promote_types(x.dtype, weight.dtype)
    common = torch.float32 if common in (torch.float16, torch.bfloat16) else common
    with torch.autocast(x.device.type, enabled=False):
        return _Sum.apply(weight.to(common), x.to(common), groups, False).to(x.dtype)
