"""Analog filter cells: a first-order low-pass, a hyperbolic tangent and four scalars a cell."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import topologies
from lmn_graph import ops
from lmn_graph._frames import frame_of_each
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops.filter_scan import Cells, Circuit, filter_scan
from lmn_graph.rules.base import RULES, UpdateRule
from topologies import _checks

CellOrder = Literal["topological", "synchronous"]
ORDERS = ("topological", "synchronous")


class FilterState(NamedTuple):
    """The filters ``s``, [N, B], and the outputs ``y``, [N, B], that others hear a step later where the order is synchronous."""

    s: Tensor
    y: Tensor


class FilterParameters(NamedTuple):
    """What a step needs: the graph and the parameters of all cells."""

    connectivity: Connectivity
    cells: Cells


@RULES.register
class FilterGrid(UpdateRule):
    r"""First-order filters with a hyperbolic tangent, exact for inputs that are held over a time step Δt,

    .. math:: h_i = \sum_j w_{ij}\, y_j + v_i x_i, \qquad s_i \leftarrow a_i s_i + (1 - a_i)\, h_i, \qquad y_i = \tanh(s_i + b_i),
        \qquad a_i = e^{-\Delta t / \tau_i}.

    In the default order, "topological", a cell hears what its sources give **in the same step**: a step passes through the whole
    graph, which must have no cycle. In "synchronous" order it hears their last step, on any graph, one hop a step. The drive enters at
    the input ports only, x_i of a port i; elsewhere it is not heard. The activity is y.

    On ``topologies.raster`` the parameters are those of a grid of analog cells, per cell ``log_tau``, ``w_left`` (that of the input in
    the first column), ``w_top`` (of no use in the first row) and ``bias``: 1,120 on 28 × 10. On any other graph they are ``weight`` [E],
    ``input_weight`` [P], ``log_tau`` and ``bias`` [N].

    Shapes: drive and activity [N, B]; state ``FilterState(s, y)``, starting at 0.

    Args:
        topology: the graph, with ``input_index`` and ``output_index``.
        order: "topological" or "synchronous".
        time_step: Δt in seconds, > 0.
        tau: interval in seconds, from which the time constants are drawn, log-uniform; (τ, τ) starts all at τ.
        gain: standard deviation of the weights at the start, times the root of the number of inputs of a cell (2 on a raster). A graph's
            ``edge_weight``, times the gain, takes the place of drawn weights.
        bias: standard deviation of the biases at the start, >= 0.

    Raises:
        ValueError: if an argument is out of range, the graph has no ports, or a cycle, which is named, in topological order.

    Source: T. Pluck, grid-neurons.
    """

    requires = frozenset({"acyclic", "ports"})
    lr_scales = MappingProxyType({"bias": 1 / 20, "log_tau": 4.0})

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        order: CellOrder = "topological",
        time_step: float = 1e-3,
        tau: tuple[float, float] = (1e-3, 20e-3),
        gain: float = 1.0,
        bias: float = 0.05,
    ) -> None:
        _checks.choice("order", order, ORDERS)
        if order == "synchronous":
            self.requires = self.requires - {"acyclic"}
        super().__init__(topology)
        self.order = order
        self.time_step = _checks.number("time_step", time_step, above=0)
        if not isinstance(tau, (tuple, list)) or len(tau) != 2:
            raise ValueError(f"tau must be two numbers (low, high), got {tau!r}")
        low, high = (_checks.number("tau", value, above=0) for value in tau)
        if low > high:
            raise ValueError(f"tau must be an interval (low, high) with low <= high, got {tau!r}")
        self.tau = (low, high)
        self.gain = _checks.number("gain", gain, above=0)
        self.bias_spread = _checks.number("bias", bias, minimum=0)
        graph = self.connectivity
        self.is_raster = _is_raster(graph)
        self.log_tau, self.bias = (nn.Parameter(torch.empty(self.num_nodes)) for _ in range(2))
        if self.is_raster:
            self.w_left, self.w_top = (nn.Parameter(torch.empty(self.num_nodes)) for _ in range(2))
        else:
            self.weight = nn.Parameter(torch.empty(graph.num_edges))
            self.input_weight = nn.Parameter(torch.empty(self.input_index.numel()))
        self._circuit: Circuit | None = None
        if self.instantaneous:
            self._circuit = self.circuit()
        self.reset_parameters()

    @property
    def instantaneous(self) -> bool:  # type: ignore[override]
        return self.order == "topological"

    @property
    def input_index(self) -> Tensor:
        """int64 [P], the nodes that the drive enters."""
        assert self.connectivity.input_index is not None
        return self.connectivity.input_index

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        graph = self.connectivity
        with torch.no_grad():
            self.log_tau.uniform_(*map(math.log, self.tau))
            self.bias.normal_(std=self.bias_spread) if self.bias_spread else self.bias.zero_()
            if self.is_raster:
                for weight in (self.w_left, self.w_top):
                    weight.normal_(std=self.gain / math.sqrt(2))
                if graph.edge_weight is not None:
                    left = graph.edge_type == 0
                    target, given = graph.edge_index[1], self.gain * graph.edge_weight.to(self.bias.dtype)
                    self.w_left[target[left]], self.w_top[target[~left]] = given[left], given[~left]
                return
            inputs = graph.in_degree().to(self.bias.dtype)
            inputs[self.input_index] += 1
            self.input_weight.copy_(self.gain * torch.randn_like(self.input_weight) / inputs[self.input_index].sqrt())
            if graph.edge_weight is None:
                self.weight.copy_(self.gain * torch.randn_like(self.weight) / inputs[graph.edge_index[1]].sqrt())
            else:
                self.weight.copy_(self.gain * graph.edge_weight)

    def initial_state(self, batch_size: int, *, graph: Connectivity | None = None) -> FilterState:
        shape = (self.num_nodes, _checks.integer("batch_size", batch_size, minimum=0))
        return FilterState(self.bias.new_zeros(shape), self.bias.new_zeros(shape))

    def learned_weight(self) -> Tensor:
        return self.cells().weight

    def cells(self) -> Cells:
        """The parameters by edges, ports and nodes, with their gradient to the parameters of the rule."""
        if not self.is_raster:
            return Cells(self.weight, self.input_weight, self.log_tau, self.bias, self.time_step)
        weight = torch.cat([self.w_left, self.w_top]).index_select(0, self._of_edges())
        input_weight = self.w_left.index_select(0, self.input_index)
        return Cells(weight, input_weight, self.log_tau, self.bias, self.time_step)

    def add_gradients(self, weight: Tensor, input_weight: Tensor, log_tau: Tensor, bias: Tensor) -> None:
        """Add gradients to what :meth:`cells` gives to the ``.grad`` of the parameters that learn."""
        if self.is_raster:
            both = torch.zeros(2 * self.num_nodes, dtype=weight.dtype, device=weight.device).index_copy_(0, self._of_edges(), weight)
            both.index_copy_(0, self.input_index, input_weight)  # the first column has no left neighbour but the input
            pairs = [(self.w_left, both[: self.num_nodes]), (self.w_top, both[self.num_nodes :])]
        else:
            pairs = [(self.weight, weight), (self.input_weight, input_weight)]
        for parameter, gradient in (*pairs, (self.log_tau, log_tau), (self.bias, bias)):
            if parameter.requires_grad:
                _hand_over(parameter, gradient)

    def _of_edges(self) -> Tensor:
        """Where among w_left and w_top, one after the other, the weight of every edge is."""
        graph = self.connectivity
        assert graph.edge_type is not None
        return graph.edge_type * self.num_nodes + graph.edge_index[1]

    def circuit(self) -> Circuit:
        """The order of the cells, on the device of the parameters."""
        if self._circuit is None or self._circuit.port.device != self.input_index.device:
            self._circuit = Circuit(self.connectivity, self.input_index)
        return self._circuit

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> FilterParameters:
        return FilterParameters(self.resolve(graph), self.cells())

    def step(self, p: FilterParameters, state: FilterState, drive: Tensor | None) -> tuple[FilterState, Tensor]:
        cells, ports = p.cells.to(state.s.dtype), self.input_index
        x = state.s.new_zeros(ports.numel(), state.s.size(1)) if drive is None else drive.index_select(0, ports).to(state.s.dtype)
        if self.instantaneous and not self._is_propagated():
            s, y = (part.squeeze(1) for part in filter_scan(self.circuit(), cells, state.s, x.unsqueeze(1)))
            return FilterState(s, y), y
        driven = torch.zeros_like(state.s).index_add(0, ports, cells.input_weight[:, None] * x)
        if self.instantaneous:
            s, y = self._level_by_level(p.connectivity, cells, state.s, driven)
        else:
            a, c = (part[:, None] for part in cells.coefficients())
            s = a * state.s + c * (self.weighted_sum(p.connectivity, state.y, ops.EdgeWeight(p.connectivity, cells.weight)) + driven)
            y = torch.tanh(s + cells.bias[:, None])
        return FilterState(s, y), y

    def _level_by_level(self, connectivity: Connectivity, cells: Cells, s: Tensor, driven: Tensor) -> tuple[Tensor, Tensor]:
        """The reference: PyG's ``propagate`` over the whole graph for every level, each keeping what is its own."""
        a, c = (part[:, None] for part in cells.coefficients())
        y, after = torch.zeros_like(s), torch.zeros_like(s)
        for level in range(len(self.circuit().order.sizes)):
            heard = self.propagated(connectivity, x=y, weight=cells.weight) + driven
            here = (self.circuit().order.level == level)[:, None]
            after = torch.where(here, a * s + c * heard, after)
            y = torch.where(here, torch.tanh(after + cells.bias[:, None]), y)
        return after, y

    def run(
        self, p: FilterParameters, state: FilterState, drives: Tensor | None, *, steps: int, inject: str, record: tuple[str, ...]
    ) -> tuple[Tensor, FilterState, list[Tensor]] | None:
        """All steps at once, cell by cell: each is linear in time, given what it hears."""
        if not self.instantaneous or self._is_propagated():
            return None
        if drives is None:
            drives = torch.zeros_like(state.s).unsqueeze(0)
        x = frame_of_each(drives.index_select(1, self.input_index), steps, inject).transpose(0, 1)
        s, y = filter_scan(self.circuit(), p.cells.to(state.s.dtype), state.s, x.to(state.s.dtype).contiguous())
        fields = {"s": s, "y": y}
        last = FilterState(s[:, -1].clone(), y[:, -1].clone())  # a view would hold the whole history
        return y.permute(2, 1, 0), last, [fields[name].permute(2, 1, 0) for name in record]

    def extra_repr(self) -> str:
        return f"order={self.order!r}, time_step={self.time_step:g}, tau=({self.tau[0]:g}, {self.tau[1]:g})"


def _hand_over(parameter: Tensor, gradient: Tensor) -> None:
    """Add a gradient as a backward pass does: through hooks, and through what a parametrised tensor is made of."""
    if parameter.is_leaf and not parameter._backward_hooks and not getattr(parameter, "_post_accumulate_grad_hooks", None):
        parameter.grad = gradient.detach().clone() if parameter.grad is None else parameter.grad + gradient
    else:
        torch.autograd.backward([parameter], [gradient])


def _is_raster(graph: Connectivity) -> bool:
    """Whether a graph is the one of ``topologies.raster``, its input ports the first column."""
    if graph.shape is None or len(graph.shape) != 2 or graph.edge_type is None or graph.input_index is None:
        return False
    like = Connectivity(topologies.raster(*graph.shape))
    fields = ("edge_index", "edge_type", "input_index")
    return all(torch.equal(getattr(graph, field), getattr(like, field).to(graph.edge_index.device)) for field in fields)
