"""The sum of any message over neighbours."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _compiled, _kernels
from lmn_graph.ops._calls import KIND, SOURCE, TARGET, Call, Message, Signature, values_of
from lmn_graph.ops._messages import summed
from lmn_graph.ops._slots import slots_of
from topologies import _checks

Features = Tensor | Sequence[Tensor]


def message_sum(
    connectivity: Connectivity,
    message: Message,
    target: Features,
    source: Features,
    edge: Features = (),
    kind: Features = (),
    *,
    compile: _compiled.Compile = "auto",
) -> Any:
    r"""The sum of a message over incoming edges, :math:`y_i = \sum_{j \to i} m(t_i, s_j, e_{ij}, k_{ij})`.

    ``message(*targets, *sources, *edges, *kinds)`` gets the tensors of one or many edges along leading axes of any number, followed by
    the axes of a cell, [B] or [B, C]; it must work entry by entry along the leading axes, be made of differentiable tensor operations, and
    depend on nothing else. It returns one tensor or several; so do this function. An attention is two sums,
    :math:`\sum e^{q_i k_j} v_j` over :math:`\sum e^{q_i k_j}`.

    Messages are made a block at a time and added up at once, forward and in the derivatives of every order, which are sums of the same
    kind over incoming or outgoing edges or over the edges of a type: memory is that of the arguments and results. Where a C++ compiler
    is present and the sum is large, each is one compiled loop. A module-level function is compiled once; a lambda or closure made anew at
    every call would be compiled anew.

    Args:
        connectivity: the graph, N nodes and E edges.
        message: m.
        target, source: tensors [N, B] or [N, B, C] held by nodes; what all nodes share may have 1 in front, or be a scalar.
        edge: tensors [E], [E, B], [E, 1, C] or [E, B, C], in the order of ``connectivity.edge_index``.
        kind: tensors [K], [K, B], [K, 1, C] or [K, B, C] held by the types 0 … K − 1 of edges, ``connectivity.edge_type``: what all edges
            of a type share, as the weights of one kernel on a lattice. They are never spread over the edges, nor are their gradients.
        compile: "auto" compiles sums of at least 2²¹ numbers, "always" all of them, "never" none.

    Returns:
        [N, B] or [N, B, C], or a tuple of such.

    Raises:
        ValueError: if a tensor does not fit the graph or is not of floating point, the graph has no types of edges or more than K, or the
            message does not return such tensors.
    """
    _checks.choice("compile", compile, _compiled.MODES)
    if not callable(message) or not isinstance(message, Hashable):
        raise ValueError(f"message must be a hashable function of tensors, got {message!r}")
    parts = {"target": _listed(target), "source": _listed(source), "edge": _listed(edge), "kind": _listed(kind)}
    rank = max((tensor.dim() for name in ("target", "source") for tensor in parts[name] if isinstance(tensor, Tensor)), default=0)
    tail = 2 if rank > 2 else 1
    counts = {"target": connectivity.num_nodes, "source": connectivity.num_nodes, "edge": connectivity.num_edges}
    tensors = [
        _shaped(f"{name}[{number}]", tensor, counts[name], tail, name == "edge")
        for name in counts
        for number, tensor in enumerate(parts[name])
    ]
    if parts["kind"]:
        kinds = num_kinds(connectivity)
        tensors += [_of_kinds(f"kind[{number}]", tensor, kinds, tail) for number, tensor in enumerate(parts["kind"])]
    if not parts["target"] and not parts["source"]:
        raise ValueError("target and source must hold at least one tensor between them, got none")
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    signature = Signature._make([*map(len, parts.values()), tail])
    call = Call(message, signature, connectivity, TARGET, compile)
    tensors = [tensor.to(wide) for tensor in tensors]
    _check_values(message, tensors, tail)
    with torch.autocast(tensors[0].device.type, enabled=False):
        values = _direct(call, tensors) if _kernels.is_watched(*tensors) else summed(call, tensors)
    values = tuple(value.to(dtype) for value in values)
    several = len(values) > 1
    return values if several else values[0]


def _listed(features: Features) -> list[Tensor]:
    return [features] if isinstance(features, Tensor) else list(features)


def _shaped(name: str, tensor: Any, count: int, tail: int, of_edge: bool) -> Tensor:
    """The tensor with one leading axis of ``count`` and ``tail`` others."""
    expected = f"[{count}]" if of_edge else f"[{count}, B]"
    expected += f", [{count}, {'B' if of_edge else '1'}]" if tail == 1 else f" or [{count}, B, C]"
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{name} must be a floating-point tensor {expected}, got {got}")
    shape = tuple(tensor.shape)
    if not shape:
        return tensor.expand(count, *[1] * tail)
    if len(shape) > tail + 1 or (len(shape) == 1 and not of_edge) or shape[0] not in ((count,) if of_edge else (count, 1)):
        raise ValueError(f"{name} must have shape {expected}, got {shape}")
    tensor = tensor.view(*shape, *[1] * (tail + 1 - len(shape)))
    return tensor if tensor.size(0) == count else tensor.expand(count, *tensor.shape[1:])


def num_kinds(connectivity: Connectivity) -> int | None:
    """How many types of edges a graph has, by the largest; None where the sum is traced, which must not depend on it."""
    if connectivity.edge_type is None:
        raise ValueError(f"kind needs a graph with edge_type, got {connectivity}")
    return None if torch.compiler.is_compiling() else slots_of(connectivity).side(KIND).count


def _of_kinds(name: str, tensor: Any, kinds: int | None, tail: int) -> Tensor:
    """The tensor with one leading axis of as many types as the graph has, and ``tail`` others."""
    expected = "[K], [K, B]" if tail == 1 else "[K], [K, B], [K, 1, C] or [K, B, C]"
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{name} must be a floating-point tensor {expected}, got {got}")
    shape = tuple(tensor.shape)
    if not 1 <= len(shape) <= tail + 1 or (kinds is not None and shape[0] < kinds):
        least = "" if kinds is None else f" with K >= {kinds}"
        raise ValueError(f"{name} must have shape {expected}{least}, got {shape}")
    tensor = tensor.view(*shape, *[1] * (tail + 1 - len(shape)))
    return tensor if kinds is None or kinds == shape[0] else tensor[:kinds]


def _check_values(message: Message, tensors: list[Tensor], tail: int) -> None:
    """What is wrong with a message shows on no edges, in the words of torch; it is tried once."""
    if not torch.compiler.is_compiling():
        _tried(message, tuple((tuple(tensor.shape[1:]), tensor.dtype, tensor.device) for tensor in tensors), tail)


@functools.lru_cache(maxsize=1024)
def _tried(message: Message, like: tuple[tuple[tuple[int, ...], torch.dtype, torch.device], ...], tail: int) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        empty = [torch.empty(0, *shape, dtype=dtype, device=device) for shape, dtype, device in like]
        try:
            values = values_of(message, empty)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"message must take tensors of shapes {[tuple(t.shape) for t in empty]}: {error}") from error
    if not values:
        raise ValueError("message must return at least one tensor, got none")
    for value in values:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != tail + 1:
            got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"message must return floating-point tensors with {tail + 1} axes, got {got}")
        if value.requires_grad:
            raise ValueError("message must depend on its arguments alone, got one that holds tensors with gradients: hand them over")
    _tried_on_edges(message, [(shape, dtype, device) for shape, dtype, device in like])


@torch.no_grad()
def _tried_on_edges(message: Message, like: list[tuple[tuple[int, ...], torch.dtype, torch.device]]) -> None:
    """On three edges at once, under two leading axes, and one by one: what mixes edges, draws numbers or writes is found out."""
    generator = torch.Generator().manual_seed(0)
    three = [torch.rand(3, *shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape, dtype, device in like]
    before = [tensor.clone() for tensor in three]
    together = values_of(message, three)
    if not all(torch.equal(tensor, kept) for tensor, kept in zip(three, before)):
        raise ValueError("message must not change its arguments, got one that writes into them")
    if not all(_alike(*pair) for pair in zip(together, values_of(message, three))):
        raise ValueError("message must give the same values for the same tensors, got one that draws random numbers: draw them outside")
    try:
        wide = [value.squeeze(0) for value in values_of(message, [tensor.unsqueeze(0) for tensor in three])]
        alone = [values_of(message, [tensor[k : k + 1] for tensor in three]) for k in range(3)]
        found = [torch.cat(values) for values in zip(*alone)]
        same = all(_alike(value.expand(3, *value.shape[1:]), *pair) for value, *pair in zip(together, wide, found))
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"message must take any number of leading axes: {error}") from error
    if not same:
        raise ValueError("message must work on every edge by itself, got one whose values depend on which edges come together")


def _alike(value: Tensor, *others: Tensor) -> bool:
    """Equal up to the rounding of another order of operations."""
    loose = 100 * torch.finfo(value.dtype).eps
    return all(value.shape == other.shape and torch.allclose(value, other, rtol=loose, atol=loose, equal_nan=True) for other in others)


def _direct(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The sum by its definition: one message per edge, all at once."""
    source, target = call.connectivity.edge_index
    index = {TARGET: target, SOURCE: source, KIND: call.connectivity.edge_type}
    args = [tensor[index[holder]] if holder in index else tensor for tensor, holder in zip(tensors, call.signature.holders)]
    nodes, edges = call.connectivity.num_nodes, target.size(0)
    return tuple(
        value.new_zeros(nodes, *value.shape[1:]).index_add(0, target, value.expand(edges, *value.shape[1:]))
        for value in values_of(call.message, args)
    )
