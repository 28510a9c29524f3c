"""Filter cells on an acyclic graph over a whole sequence, each hearing the others within the same time step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import _kernels, _native
from lmn_graph.ops._native import NAMES, differentiable, is_transformed
from lmn_graph.ops._order import Level, Order
from lmn_graph.ops.weighted import sparse_product

BLOCK = 64  # time steps that a level filters in one matrix product: linear in T, where one product for all would be quadratic


class Circuit:
    """An acyclic graph with input ports, in the order in which its cells are computed.

    Args:
        connectivity: the graph.
        input_index: int64 [P], the nodes that input p drives.

    Raises:
        ValueError: if the graph has a cycle, which is named.
    """

    def __init__(self, connectivity: Connectivity, input_index: Tensor) -> None:
        self.connectivity = connectivity
        self.input_index = input_index
        self._kept: dict[Any, Any] = {}
        with torch.inference_mode(False):  # a circuit first run in an evaluation may be trained later
            self.order = Order.of(connectivity)
            self.sequence = self.order.nodes.int()
            self.port = torch.full((connectivity.num_nodes,), -1, dtype=torch.int32, device=input_index.device)
            self.port[input_index] = torch.arange(len(input_index), dtype=torch.int32, device=input_index.device)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What depends on the circuit alone, made when first asked for; inside a transform of functions it is made for that alone."""
        if key in self._kept:
            return self._kept[key]
        with torch.inference_mode(False):
            made = make()
        if not is_transformed(self.port):
            self._kept[key] = made
        return made

    @property
    def levels(self) -> list[Level]:
        """The longest-path levels with the edges into them."""
        return self.kept("levels", lambda: self.order.levels(self.connectivity))


class Cells(NamedTuple):
    """The parameters of all cells.

    Attributes:
        weight: [E], of edges, in the order of the connectivity.
        input_weight: [P].
        log_tau: [N], log of the time constants.
        bias: [N].
        time_step: Δt, in the unit of τ.
    """

    weight: Tensor
    input_weight: Tensor
    log_tau: Tensor
    bias: Tensor
    time_step: float

    @classmethod
    def of(cls, tensors: Iterable[Tensor], time_step: float) -> Cells:
        """The four tensors in order, and the time step."""
        weight, input_weight, log_tau, bias = tensors
        return cls(weight, input_weight, log_tau, bias, time_step)

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """a = exp(−Δt/τ), which a cell keeps of its state in a step, and c = 1 − a, which it takes in; [N] each."""
        ratio = self.ratio()
        return torch.exp(-ratio), -torch.expm1(-ratio)

    def ratio(self) -> Tensor:
        """Δt/τ [N], at most 10⁴: more makes no difference, but an overflow would."""
        return self.time_step * torch.exp(-self.log_tau.clamp(min=math.log(self.time_step / 1e4)))

    def to(self, dtype: torch.dtype) -> Cells:
        """The same in another precision."""
        if all(part.dtype == dtype for part in self[:4]):
            return self
        return self._replace(**{name: getattr(self, name).to(dtype) for name in self._fields[:-1]})


def filter_scan(circuit: Circuit, cells: Cells, start: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""All states and outputs of filter cells over T steps; within one step node i hears what its sources give in that very step.

    .. math::

        h_i(t) = \sum_j w_{ij}\, y_j(t) + v_p x_p(t), \qquad s_i(t) = a_i s_i(t - 1) + (1 - a_i) h_i(t), \qquad
        y_i(t) = \tanh(s_i(t) + b_i), \qquad a_i = e^{-\Delta t / \tau_i},

    :math:`v_p x_p` being the input of a node that is port p. Given what it hears a cell is linear in time, so the work goes node by
    node, each for all times: in C++ where there is a compiler, else level by level of longest paths. Time and memory are linear in T.

    Args:
        circuit: the graph in order.
        cells: the parameters.
        start: s before the first step, [N, B].
        x: the input, [P, T, B].

    Returns:
        s and y, [N, T, B] each, with gradients of every order.

    Raises:
        ValueError: if a tensor has another shape, or another dtype than x.
    """
    tensors = (cells.weight, cells.input_weight, cells.log_tau, cells.bias, start, x)
    _check(circuit, tensors)
    with _kernels.exact(x):
        if compiled(x) is None or _kernels.is_dual(*tensors):
            return by_level(circuit, cells, start, x)
        s, y = _Scan.apply(circuit, cells.time_step, *tensors)
        return s, y


def _check(circuit: Circuit, tensors: tuple[Tensor, ...]) -> None:
    graph, (nodes, ports) = circuit.connectivity, (circuit.connectivity.num_nodes, len(circuit.input_index))
    x = tensors[-1]
    if x.dim() != 3 or x.size(0) != ports or x.size(1) < 1:
        raise ValueError(f"x must have shape [{ports}, T, B] with T >= 1, got {tuple(x.shape)}")
    shapes = ((graph.num_edges,), (ports,), (nodes,), (nodes,), (nodes, x.size(2)))
    for name, tensor, shape in zip((*Cells._fields[:4], "start"), tensors, shapes):
        if tuple(tensor.shape) != shape or tensor.dtype != x.dtype:
            raise ValueError(f"{name} must be {x.dtype} {list(shape)} for this circuit, got {tensor.dtype} {list(tensor.shape)}")


def by_level(circuit: Circuit, cells: Cells, start: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`filter_scan` from operations of torch alone."""
    parts = []
    for block in x.split(BLOCK, 1):
        parts.append(_block(circuit, cells, start, block))
        start = parts[-1][0][:, -1]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([s for s, _ in parts], 1), torch.cat([y for _, y in parts], 1)


def _block(circuit: Circuit, cells: Cells, start: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    nodes, (_, steps, batch_size) = circuit.connectivity.num_nodes, x.shape
    _, c = cells.coefficients()
    time = torch.arange(steps, device=x.device, dtype=x.dtype)
    lag = (time[:, None] - time).clamp(min=0)
    ratio = cells.ratio()[:, None, None]
    decayed = torch.exp(-ratio * (time[:, None] + 1)) * start[:, None]
    driven = x.new_zeros(nodes, steps, batch_size).index_add(0, circuit.input_index, cells.input_weight[:, None, None] * x)
    states: list[Tensor] = []
    outputs: list[Tensor] = []
    for level in circuit.levels:
        heard = driven[level.nodes]
        if level.before:
            sources = torch.cat([outputs[number] for number in level.before]) if len(level.before) > 1 else outputs[level.before[0]]
            summed = sparse_product(level.pattern, cells.weight[level.edges], sources.flatten(1))
            heard = heard + summed.view(heard.shape)
        kernel = (c[level.nodes, None, None] * torch.exp(-ratio[level.nodes] * lag)).tril()  # what was heard at u counts a^(t − u) at t
        states.append(torch.baddbmm(decayed[level.nodes], kernel, heard))
        outputs.append(torch.tanh(states[-1] + cells.bias[level.nodes, None, None]))
    s, y = (torch.cat(found).index_select(0, circuit.order.place) for found in (states, outputs))
    return s, y


def compiled(like: Tensor) -> Any | None:
    """The compiled loops for tensors of this kind, or None."""
    return _native.loops_for("filter_scan", like) if like.numel() else None


def call_on(name: str, circuit: Circuit, cells: Cells, start: Tensor, x: Tensor, *more: int | float | Tensor | None) -> None:
    """A compiled loop on a circuit, and what else it takes; all tensors contiguous."""
    graph = circuit.connectivity
    _native.call(
        getattr(compiled(x), f"{name}_{NAMES[x.dtype]}"),
        *(graph.num_nodes, x.size(1), x.size(2), float(cells.time_step)),
        *(circuit.sequence, graph.rowptr, graph.col, graph.rowptr_t, graph.col_t, graph.perm_t, circuit.port),
        *(cells.weight, cells.input_weight, cells.log_tau, cells.bias, start, x, *more),
    )


def scan(circuit: Circuit, cells: Cells, start: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """s and y by the compiled loop, without a graph; all tensors contiguous."""
    s, y = (x.new_empty(circuit.connectivity.num_nodes, x.size(1), x.size(2)) for _ in range(2))
    call_on("forward", circuit, cells, start, x, s, y)
    return s, y


class Gradients(NamedTuple):
    """What :func:`pull_back` returns, each in the shape of what it is the gradient of; None where it was not asked for."""

    weight: Tensor
    input_weight: Tensor
    log_tau: Tensor
    bias: Tensor
    start: Tensor | None
    x: Tensor | None


def pull_back(
    circuit: Circuit,
    cells: Cells,
    start: Tensor,
    x: Tensor,
    s: Tensor,
    y: Tensor,
    grad_y: Tensor,
    grad_s: Tensor | None = None,
    *,
    given: Tensor | None = None,
    hops: int | None = None,
    inputs: bool = True,
) -> Gradients:
    r"""Gradients of :func:`filter_scan` by the compiled loop, exact or without the memory of cells far from a parameter.

    .. math:: g_i = (1 - y_i^2) \big(\partial_i + \textstyle\sum_{i \to d} w_{di} c_d\, F_d\big), \qquad
        \bar g(t) = \sum_{u \ge t} a^{u - t} g(u),

    with :math:`F = \bar g` is back-propagation through time. With ``hops`` = k it starts from g for F = g, where no cell remembers
    anything and messages only travel within a step, and is applied k times: then the first k cells after a parameter remember. On
    a graded graph that is the gradient of SnAP-k.

    Args:
        circuit, cells, start, x: as for the scan; s, y: what it returned. All tensors contiguous.
        grad_y: gradient to y, [N, T, B], or of some nodes only, [P, T, B].
        grad_s: gradient to s, [N, T, B], or None.
        given: int32 [N], the row of each node in ``grad_y``, −1 where it has none; None where all have theirs.
        hops: k ≥ 0, or None for all.
        inputs: whether gradients to the start and the input are wanted.
    """
    g, h = torch.empty_like(y), torch.empty_like(y)
    parameters = [torch.empty_like(like, memory_format=torch.contiguous_format) for like in cells[:4]]
    others = [torch.empty_like(like) if inputs else None for like in (start, x)]
    if given is None:
        given = torch.arange(len(y), dtype=torch.int32)
    call_on("backward", circuit, cells, start, x, -1 if hops is None else hops, s, y, grad_y, given, grad_s, g, h, *parameters, *others)
    return Gradients(*parameters, *others)


class _Scan(torch.autograd.Function):
    """The compiled scan; a gradient that is to be differentiated itself comes from :func:`by_level`."""

    @staticmethod
    def forward(ctx: Any, circuit: Circuit, time_step: float, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        *parameters, start, x = (tensor.contiguous() for tensor in tensors)
        s, y = scan(circuit, Cells.of(parameters, time_step), start, x)
        ctx.circuit, ctx.time_step = circuit, time_step
        ctx.save_for_backward(*tensors, s, y)
        ctx.set_materialize_grads(False)
        return s, y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        grad_s, grad_y = grads
        *tensors, s, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            outputs = by_level(ctx.circuit, Cells.of(tensors[:4], ctx.time_step), *tensors[4:])
            pairs = [(output, grad) for output, grad in zip(outputs, grads) if grad is not None]
            inputs = [tensor for tensor, want in zip(tensors, wanted) if want]
            gradients = iter(differentiable(pairs, inputs))
            return None, None, *(next(gradients) if want else None for want in wanted)
        *parameters, start, x = (tensor.contiguous() for tensor in tensors)
        given = torch.zeros_like(y) if grad_y is None else grad_y.contiguous()
        found = pull_back(
            ctx.circuit,
            Cells.of(parameters, ctx.time_step),
            start,
            x,
            s,
            y,
            given,
            None if grad_s is None else grad_s.contiguous(),
        )
        return None, None, *(gradient if want else None for gradient, want in zip(found, wanted))
