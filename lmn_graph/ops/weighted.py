"""The linear sum over neighbours, with one gradient product per rollout for the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled, _kernels
from lmn_graph.ops._kernels import Pattern
from lmn_graph.ops._messages import PULL_BACKS
from lmn_graph.ops.message import message_sum

# Collecting over a backward pass needs to know which pass is running; where torch no longer says so, every step has its own product.
_COLLECTS = hasattr(torch._C, "_current_graph_task_id") and hasattr(torch.autograd.Variable._execution_engine, "queue_callback")
_FLUSH_COLUMNS = 256  # columns collected before one sampled product: wide enough to amortise it, small enough to stay in cache


class EdgeWeight:
    """Edge weights made ready for many sums: the transposed copy, and one place where their gradient is collected.

    A rollout multiplies by the same weights T times. Prepared once, the transposed values are gathered once, and in the
    backward pass the factors (g, x) of the weight gradient are collected over the steps and multiplied a few hundred columns at
    a time, instead of once a step. Values and gradients, second ones included, are those of :func:`weighted_sum` on the tensor.

    Args:
        connectivity: the graph.
        weight: ``[E]``, fixed or requiring a gradient.
    """

    def __init__(self, connectivity: Connectivity, weight: Tensor) -> None:
        _check_weight(connectivity, weight)
        self.value = weight
        self.pattern = Pattern.of(connectivity)
        self._transposed: tuple[int, Tensor] | None = None
        self.tape = _Tape(self.pattern)
        collects = weight.requires_grad and not torch.compiler.is_compiling()
        self.token: Tensor = _Token.apply(weight, self.tape) if collects else weight.new_zeros(())

    def multiply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """A x or Aᵀ x without a graph; x ``[N, B]``."""
        pattern, values = self.pattern, self.value.detach()
        if not transpose:
            return _kernels.multiply(pattern.rowptr, pattern.col, values, x)
        # An optimiser may change the weights in place between two sums.
        version = -1 if self.value.is_inference() else self.value._version
        if self._transposed is None or self._transposed[0] != version:
            self._transposed = version, values.index_select(0, pattern.perm_t)
        return _kernels.multiply(pattern.rowptr_t, pattern.col_t, self._transposed[1], x)


class _Tape:
    """The factors of the weight gradient, apart for every backward pass under way."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.passes: dict[int, _Factors] = {}

    def add(self, g: Tensor, x: Tensor) -> None:
        task = torch._C._current_graph_task_id()
        if task not in self.passes:
            self.passes[task] = _Factors(self.pattern)
            # A pass that asked for other gradients only never fetches its factors: they end with it.
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self.drop(task))
        self.passes[task].add(g, x)

    def drop(self, task: int) -> None:
        self.passes.pop(task, None)

    def gradient(self) -> Tensor | None:
        factors = self.passes.pop(torch._C._current_graph_task_id(), None)
        return None if factors is None else factors.gradient()


class _Factors:
    """What one backward pass has produced so far: pairs (g, x), and the products of earlier ones."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.columns = 0
        self.total: Tensor | None = None

    def add(self, g: Tensor, x: Tensor) -> None:
        self.pending.append((g, x))
        self.columns += g.size(1)
        if self.columns >= _FLUSH_COLUMNS and not torch.is_grad_enabled():
            self.flush()

    def flush(self) -> None:
        gs, xs = zip(*self.pending)
        g, x = (gs[0], xs[0]) if len(gs) == 1 else (torch.cat(gs, 1), torch.cat(xs, 1))
        self.total = _kernels.sample(self.pattern.rowptr, self.pattern.col, g, x, self.total)
        self.pending, self.columns = [], 0

    def gradient(self) -> Tensor | None:
        if torch.is_grad_enabled():  # the gradient itself will be differentiated: registered products, step by step
            return torch.stack([_kernels.sddmm(*self.pattern, g.contiguous(), x) for g, x in self.pending]).sum(0)
        if self.pending:
            self.flush()
        return self.total


class _Token(torch.autograd.Function):
    """A zero that stands for the weights: autograd calls its backward after that of every step that used it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, tape: _Tape) -> Tensor:
        ctx.tape = tape
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Any, ...]:
        return ctx.tape.gradient(), None


class _Sum(torch.autograd.Function):
    """y = A(w) x with w prepared."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, token: Tensor, prepared: EdgeWeight) -> Tensor:
        ctx.prepared = prepared
        ctx.save_for_backward(x, weight)
        return prepared.multiply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        prepared: EdgeWeight = ctx.prepared
        g = grads[0].contiguous()
        grad_x = None
        if ctx.needs_input_grad[0]:
            again = torch.is_grad_enabled()
            grad_x = _kernels.spmm(*prepared.pattern, weight, g, True) if again else prepared.multiply(g, transpose=True)
        if not ctx.needs_input_grad[2]:
            return grad_x, None, None, None
        prepared.tape.add(g, x)
        return grad_x, None, prepared.token.new_zeros(()), None


def product_message(x_j: Tensor, weight: Tensor) -> Tensor:
    """w_ij x_j."""
    return weight * x_j


def _pull_back(args: Sequence[Tensor], g: Tensor, wanted: tuple[int, ...]) -> list[Tensor]:
    x_j, weight = args
    return [g * (weight if at == 0 else x_j) for at in wanted]


PULL_BACKS[product_message] = _pull_back


def weighted_sum(connectivity: Connectivity, x: Tensor, weight: Tensor | EdgeWeight, *, compile: _compiled.Compile = "auto") -> Tensor:
    r"""The weighted sum over incoming edges :math:`y_i = \sum_{j \to i} w_{ij}\, x_j`.

    Cost per step: one sparse product of E·B multiply-adds; memory O(N·B + E). Neither a dense N×N matrix nor an ``[E, B]``
    tensor exists at any time, forward or backward; gradients of every order are again sparse products. In float16 and bfloat16,
    which have no sparse kernels, the product is computed in float32 and rounded once. Weights that differ between the samples are no
    sparse matrix: theirs is a :func:`lmn_graph.ops.message_sum`, which makes no tensor of all products either.

    Args:
        connectivity: the graph, N nodes and E edges.
        x: the state, ``[N, B]`` or ``[N, B, C]``, node-major.
        weight: ``[E]`` in the order of ``connectivity.edge_index``, or the :class:`EdgeWeight` made of it for many steps; per sample
            ``[E, B]``, with channels also ``[E, 1, C]`` or ``[E, B, C]``.
        compile: see :func:`lmn_graph.ops.message_sum`; for weights per sample.

    Returns:
        Tensor with the shape and dtype of ``x``.

    Raises:
        ValueError: if the shape of ``x`` or ``weight`` does not fit the graph, or one is not of floating point.
    """
    _check_state(connectivity, x)
    if isinstance(weight, Tensor) and weight.dim() > 1 and weight.size(0) == connectivity.num_edges:
        if weight.dim() == 2 and weight.size(1) != x.size(1):
            e, b = weight.size(0), x.size(1)
            raise ValueError(f"weight must be a floating-point tensor [{e}, {b}] or [{e}], got {_described(weight)}")
        if weight.dim() > x.dim() or any(w not in (1, n) for w, n in zip(weight.shape[1:], x.shape[1:])):
            raise ValueError(f"weight must fit a state of shape {tuple(x.shape)} from its second axis on, got {tuple(weight.shape)}")
        return message_sum(connectivity, product_message, (), x, weight, compile=compile).to(x.dtype)
    value = weight.value if isinstance(weight, EdgeWeight) else weight
    _check_weight(connectivity, value)
    if isinstance(weight, EdgeWeight) and weight.pattern.col is not connectivity.col:
        nodes, edges = weight.pattern.rowptr.numel() - 1, weight.pattern.col.numel()
        raise ValueError(f"weight must be prepared for this very connectivity, got one for a graph of {nodes} nodes and {edges} edges")
    flat = x.flatten(1)
    common = torch.promote_types(x.dtype, value.dtype)
    if common in (torch.float16, torch.bfloat16):
        common = torch.float32
    flat, value = flat.to(common), value if value.dtype == common else value.to(common)
    pattern = Pattern.of(connectivity)
    eager = not torch.compiler.is_compiling()
    if eager and _kernels.is_dual(value, flat):
        y = _forward_mode(pattern, value, flat)
    elif eager and _COLLECTS and isinstance(weight, EdgeWeight) and value is weight.value:
        y = _Sum.apply(flat, value, weight.token, weight)
    else:
        y = _kernels.spmm(*pattern, value, flat, False)
    return y.to(x.dtype).view(x.shape)


def sparse_product(pattern: Pattern, weight: Tensor, x: Tensor) -> Tensor:
    """A(weight) x for any sparse pattern, with derivatives of every order, in forward mode too."""
    if not torch.compiler.is_compiling() and _kernels.is_dual(weight, x):
        return _forward_mode(pattern, weight, x)
    return _kernels.spmm(*pattern, weight, x, False)


def _forward_mode(pattern: Pattern, weight: Tensor, x: Tensor) -> Tensor:
    """The sum and its directional derivative A(ẇ) x + A(w) ẋ, as a dual number: the sum is linear in each argument."""
    (weight, d_weight), (x, d_x) = forward_ad.unpack_dual(weight), forward_ad.unpack_dual(x)
    parts = [] if d_weight is None else [_kernels.spmm(*pattern, d_weight, x, False)]
    parts += [] if d_x is None else [_kernels.spmm(*pattern, weight, d_x, False)]
    return forward_ad.make_dual(_kernels.spmm(*pattern, weight, x, False), sum(parts[1:], parts[0]))


def _check_state(connectivity: Connectivity, x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dim() not in (2, 3) or x.size(0) != connectivity.num_nodes or not x.is_floating_point():
        expected = f"a floating-point tensor [N, B] or [N, B, C] with N = {connectivity.num_nodes}"
        raise ValueError(f"x must be {expected}, got {_described(x)}")


def _check_weight(connectivity: Connectivity, weight: Tensor) -> None:
    if not isinstance(weight, Tensor) or weight.shape != (connectivity.num_edges,) or not weight.is_floating_point():
        raise ValueError(f"weight must be a floating-point tensor [{connectivity.num_edges}], got {_described(weight)}")


def _described(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__} {value!r}"
