"""The two sparse products behind every linear sum over neighbours, as operators that can be traced and differentiated twice.

``spmm``: y = A x or Aᵀ x for a sparse A given by its rows, its columns and its values; ``sddmm``: the entries of g xᵀ on the
pattern of A. Each is the gradient of the other, so both are registered and every derivative is again one of the two:

    y = A(w) x       ∂/∂x = A(w)ᵀ g      ∂/∂w_e = <g[target e], x[source e]>

torch's own derivative of a sparse matrix built from values allocates a dense N×N buffer; none of these does.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lmn_graph.connectivity import Connectivity

with warnings.catch_warnings():
    # torch says once per process that CSR tensors are in beta state. We know, and test them.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.long), torch.tensor([]), (1, 1), check_invariants=False)


class Pattern(NamedTuple):
    """The index tensors of a Connectivity: rows of the adjacency, rows of its transpose, and the permutation between."""

    rowptr: Tensor
    col: Tensor
    rowptr_t: Tensor
    col_t: Tensor
    perm_t: Tensor

    @classmethod
    def of(cls, connectivity: Connectivity) -> Pattern:
        return cls(connectivity.rowptr, connectivity.col, connectivity.rowptr_t, connectivity.col_t, connectivity.perm_t)


_CACHED = 1 << 20  # elements of a state that stay in cache; a wider one is multiplied by blocks of columns
_BLOCK = 128  # columns


def is_dual(*tensors: Tensor) -> bool:
    """Whether a directional derivative is carried along with one of the tensors."""
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def is_watched(*tensors: Tensor) -> bool:
    """Whether somebody traces or transforms an operation on them: then it must be made of plain operations."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or is_dual(*tensors)


def has_kernel(x: Tensor) -> bool:
    """Whether CSR products exist for the dtype and device of ``x``."""
    return x.device.type in ("cpu", "cuda") and x.dtype in (torch.float32, torch.float64)


def exact(like: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Outside of autocast, which may also be on where a backward pass is started; it would round what a sum is made of."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else contextlib.nullcontext()


def _exact(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The kernel outside of autocast, which would round its input to a dtype that has no sparse products."""

    @functools.wraps(kernel)
    def run(*args: Any) -> Tensor:
        with exact(args[0]):
            return kernel(*args)

    return run


@_exact
def multiply(rowptr: Tensor, col: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """A x for the rows ``rowptr``, ``col``, ``values``; x [N, B], A with N columns. No gradient: the raw kernel."""
    n = rowptr.numel() - 1
    if x.size(1) == 0 or col.numel() == 0:
        return x.new_zeros(n, x.size(1))
    if not has_kernel(x):
        return _gathered_product(rowptr, col, values, x)
    matrix = torch.sparse_csr_tensor(rowptr, col, values, (n, x.size(0)), device=values.device, check_invariants=False)
    if x.numel() <= _CACHED or x.size(1) < 2 * _BLOCK:
        return _product(matrix, x)
    return torch.cat([_product(matrix, block) for block in x.split(_BLOCK, 1)], 1)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    y = x.new_empty(matrix.size(0), x.size(1))
    return torch.addmm(y, matrix, x.contiguous(), beta=0, out=y)  # ``matrix @ x`` would fill and copy a result first


@_exact
def sample(rowptr: Tensor, col: Tensor, g: Tensor, x: Tensor, accumulate: Tensor | None = None) -> Tensor:
    """<g[target e], x[source e]> for every edge, plus ``accumulate``; g, x [N, B]. No gradient: the raw kernel."""
    columns = g.size(1)
    if columns == 0 or col.numel() == 0:
        return g.new_zeros(col.numel()) if accumulate is None else accumulate
    if not has_kernel(g) or col.numel() > g.size(0) * x.size(0):  # the kernel refuses more entries than a matrix has
        values = _gathered_sample(rowptr, col, g, x)
        return values if accumulate is None else values + accumulate
    if columns % 8 and columns > 1:  # the kernel is an order of magnitude slower at other inner lengths
        padding = (0, 8 - columns % 8)
        g, x = torch.nn.functional.pad(g, padding), torch.nn.functional.pad(x, padding)
    start = g.new_zeros(col.numel()) if accumulate is None else accumulate
    matrix = torch.sparse_csr_tensor(rowptr, col, start, (g.size(0), x.size(0)), device=start.device, check_invariants=False)
    return torch.sparse.sampled_addmm(matrix, g.contiguous(), x.contiguous().t(), beta=0.0 if accumulate is None else 1.0).values()


_CHUNK = 1 << 20  # elements of a gathered block: bounds the memory of the fallback


def _chunks(rowptr: Tensor, col: Tensor, columns: int) -> list[tuple[Tensor, Tensor, slice]]:
    target = torch.repeat_interleave(torch.arange(rowptr.numel() - 1, device=col.device), rowptr.diff().long())
    size = max(1, _CHUNK // columns)
    return [(target[i : i + size], col[i : i + size].long(), slice(i, i + size)) for i in range(0, col.numel(), size)]


def _gathered_product(rowptr: Tensor, col: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """The fallback of :func:`multiply`: gather and add, a bounded block of edges at a time."""
    y = x.new_zeros(rowptr.numel() - 1, x.size(1))
    for target, source, part in _chunks(rowptr, col, x.size(1)):
        y.index_add_(0, target, x[source] * values[part, None])
    return y


def _gathered_sample(rowptr: Tensor, col: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """The fallback of :func:`sample`."""
    return torch.cat([(g[target] * x[source]).sum(1) for target, source, _ in _chunks(rowptr, col, g.size(1))])


@torch.library.custom_op("lmn_graph::spmm", mutates_args=())
def spmm(
    rowptr: Tensor,
    col: Tensor,
    rowptr_t: Tensor,
    col_t: Tensor,
    perm_t: Tensor,
    weight: Tensor,
    x: Tensor,
    transpose: bool,
) -> Tensor:
    """A(weight) x, or its transpose times x."""
    if transpose:
        return multiply(rowptr_t, col_t, weight.index_select(0, perm_t), x)
    return multiply(rowptr, col, weight, x)


@spmm.register_fake
def _(rowptr, col, rowptr_t, col_t, perm_t, weight, x, transpose):  # type: ignore[no-untyped-def]
    return x.new_empty((rowptr_t if transpose else rowptr).numel() - 1, x.size(1))


@torch.library.custom_op("lmn_graph::sddmm", mutates_args=())
def sddmm(rowptr: Tensor, col: Tensor, rowptr_t: Tensor, col_t: Tensor, perm_t: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """The entries of g xᵀ on the pattern of A."""
    return sample(rowptr, col, g, x)


@sddmm.register_fake
def _(rowptr, col, rowptr_t, col_t, perm_t, g, x):  # type: ignore[no-untyped-def]
    return g.new_empty(col.shape)


def _spmm_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *pattern, weight, x, ctx.transpose = inputs
    ctx.save_for_backward(*pattern, weight, x)


def _spmm_backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    *pattern, weight, x = ctx.saved_tensors
    grad_weight = grad_x = None
    if ctx.needs_input_grad[5]:
        left, right = (x, g) if ctx.transpose else (g, x)
        grad_weight = sddmm(*pattern, left.contiguous(), right.contiguous())
    if ctx.needs_input_grad[6]:
        grad_x = spmm(*pattern, weight, g.contiguous(), not ctx.transpose)
    return None, None, None, None, None, grad_weight, grad_x, None


def _sddmm_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _sddmm_backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
    *pattern, g, x = ctx.saved_tensors
    h = h.contiguous()
    grad_g = spmm(*pattern, h, x, False) if ctx.needs_input_grad[5] else None
    grad_x = spmm(*pattern, h, g, True) if ctx.needs_input_grad[6] else None
    return None, None, None, None, None, grad_g, grad_x


spmm.register_autograd(_spmm_backward, setup_context=_spmm_context)
sddmm.register_autograd(_sddmm_backward, setup_context=_sddmm_context)


def contiguous_gradient(product: Tensor) -> Tensor:
    """A batch of matrix products whose gradient is laid out like itself: torch multiplies others one matrix after the other."""
    if product.requires_grad:
        product.register_hook(lambda gradient: None if gradient is None else gradient.contiguous())
    return product
