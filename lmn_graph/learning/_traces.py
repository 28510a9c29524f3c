"""Eligibility traces of filter cells: how the state of a cell depends on the parameters of those before it.

A trace P[θ, d] = ds_d/dθ belongs to a parameter θ of a cell i and a cell d that i reaches over at most k edges, or i itself. With
φ = 1 − y², within a time step and in topological order of d,

    P[θ, d] ← a_d P[θ, d] + c_d Σ_j w_dj φ_j P[θ, j]          over the sources j of d that are kept for i too; P[b, i] counts as 1
    P[w_ij, i] ← a_i P[w_ij, i] + c_i y_j,   P[v_i, i] ← a_i P[v_i, i] + c_i x_i
    P[log τ, i] ← a_i P[log τ, i] + a_i Δt/τ_i (s_i − h_i)   of the state before the step
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmn_graph.learning._table import TraceTable
from lmn_graph.learning.perturbation import Perturbation
from lmn_graph.ops import _kernels, _native
from lmn_graph.ops._native import NAMES
from lmn_graph.ops.filter_scan import Cells, Circuit, call_on, compiled


class Traces:
    """The traces of a batch as they are carried through time, and the gradient that they give.

    Args:
        table: which there are.
        circuit, cells: the network; its parameters must not change as long as the traces are carried on with the same object.
        batch_size: B.
        perturbation: errors of what is measured.
    """

    def __init__(self, table: TraceTable, circuit: Circuit, cells: Cells, batch_size: int, perturbation: Perturbation) -> None:
        self.table, self.circuit, self.perturbation = table, circuit, perturbation
        self.value = cells.bias.new_zeros(len(table.parameter), batch_size)
        self.value[table.own - table.sizes[3] : table.own] = 1
        self.update(cells)

    def update(self, cells: Cells) -> None:
        """Go on with other parameters, as after an online step."""
        table, graph = self.table, self.circuit.connectivity
        self.cells = cells = Cells.of((part.detach() for part in cells[:4]), cells.time_step)
        a, c = cells.coefficients()
        self.c = c
        self.keep = a[table.node]
        self.sensitivity = a * cells.ratio()
        self.feed = (c[graph.edge_index[1]] * cells.weight)[table.edge]

    def over(self, start: Tensor, x: Tensor, s: Tensor, y: Tensor, grad: Tensor | None, read: Tensor) -> Tensor:
        """Some time steps: the traces after them, and the gradient [E + P + 2N] of their loss.

        Args:
            start: states before, [N, B].
            x: inputs, [P, T, B].
            s, y: states and outputs, [N, T, B].
            grad: ∂loss/∂y as the loss sees it, [N, T, B], or None where there is no loss.
            read: int64, the nodes where it enters.
        """
        circuit, cells = self.circuit, self.cells
        graph = circuit.connectivity
        heard = _kernels.multiply(graph.rowptr, graph.col, cells.weight, y.flatten(1)).view(y.shape)
        heard.index_add_(0, circuit.input_index, cells.input_weight[:, None, None] * x)
        messages = None if grad is None else messages_of(circuit, cells, x, y, grad, read, self.perturbation)
        total = y.new_zeros(sum(self.table.sizes))
        for t in range(y.size(1)):
            before = start if t == 0 else s[:, t - 1]
            self.advance(before, y[:, t], x[:, t], heard[:, t], None if messages is None else messages[t], total)
        return total

    def advance(self, before: Tensor, y: Tensor, x: Tensor, heard: Tensor, messages: Messages | None, gradient: Tensor) -> None:
        """One time step: the traces after it; where messages are given the gradient of this step's loss is added to ``gradient``.

        Args:
            before: states before the step, [N, B].
            y: outputs, [N, B].
            x: inputs, [P, B].
            heard: what cells hear, [N, B].
            messages: of this step.
            gradient: [E + P + 2N].
        """
        native = self._compiled()
        (self._advance if native is None else partial(self._advance_compiled, native))(before, y, x, heard, messages, gradient)

    def _compiled(self) -> Any | None:
        fits = self.value.device.type == "cpu" and self.value.dtype in NAMES and self.value.numel()
        return _native.library("trace_step") if fits else None

    def _advance_compiled(
        self, native: Any, before: Tensor, y: Tensor, x: Tensor, heard: Tensor, messages: Messages | None, gradient: Tensor
    ) -> None:
        table, error, value = self.table, self.perturbation, self.value
        graph, none = self.circuit.connectivity, value.new_empty(0)
        noise = torch.randn_like(value[table.own :]) if error.trace_noise else none
        sent, read = (none, none) if messages is None else (messages.sent, messages.of_pairs(table))
        _native.call(
            getattr(native, f"step_{NAMES[value.dtype]}"),
            *(*table.sizes[:3], *value.shape, len(table.bounds) - 1, table.kinds),
            *(*graph.edge_index, self.circuit.input_index, table.node, table.parameter, table.pair, table.kind, table.bounds),
            *(table.rowptr, table.col, self.feed, self.keep, self.c, self.sensitivity),
            *(float(error.leak), float(error.subtraction), float(error.trace_noise), noise),
            *(part.contiguous() for part in (before, y, x, heard, sent, read)),
            *(value, torch.empty_like(value), none if messages is None else gradient),
        )

    def _advance(self, before: Tensor, y: Tensor, x: Tensor, heard: Tensor, messages: Messages | None, gradient: Tensor) -> None:
        table, value = self.table, self.value
        edges, ports, nodes, _ = table.sizes
        graph, own = self.circuit.connectivity, slice(0, table.own - nodes)
        value[own] *= self.keep[own, None]
        value[:edges].addcmul_(self.c[graph.edge_index[1], None], y[graph.edge_index[0]])
        value[edges : edges + ports].addcmul_(self.c[self.circuit.input_index, None], x)
        value[edges + ports : edges + ports + nodes].addcmul_(self.sensitivity[:, None], before - heard)
        slope = (1 - y * y)[table.node]
        passed = torch.empty_like(value)  # (1 − y²) P, what a trace gives to the next rank
        torch.mul(value[: table.own], slope[: table.own], out=passed[: table.own])
        past = torch.empty_like(value[table.own :])
        for first, last in pairwise(table.bounds.tolist()):
            rowptr = table.rowptr[first - table.own : last - table.own + 1]
            entries = slice(int(rowptr[0]), int(rowptr[-1]))
            now = _kernels.multiply(rowptr - rowptr[0], table.col[entries], self.feed[entries], passed[:first])
            past[first - table.own : last - table.own] = self._moved(slice(first, last), now)
            torch.mul(value[first:last], slope[first:last], out=passed[first:last])
        if messages is None:
            return
        gradient[: table.own] += (messages.sent[table.node[: table.own]] * passed[: table.own]).sum(1)
        if len(past):
            read = messages.of_pairs(table)[table.pair]
            gradient.index_add_(0, table.parameter[table.own :], (read * slope[table.own :] * past).sum(1))

    def _moved(self, rows: slice, now: Tensor) -> Tensor:
        """Move descendant traces on, with ``now`` coming in, and return the part of them that is of the past."""
        error, value = self.perturbation, self.value
        kept = value[rows] * (self.keep[rows, None] * (1 - error.leak))
        value[rows] = kept + now
        if error.trace_noise:
            kind, square = self.table.kind[rows], value[rows].square()
            sums = square.new_zeros(int(kind.max()) + 1, square.size(1)).index_add(0, kind, square)
            level = (sums / torch.bincount(kind)[:, None].clamp(min=1)).sqrt()
            value[rows] += error.trace_noise * level[kind] * torch.randn_like(square)
        if not error.trace_noise and not error.subtraction:
            return kept
        return (1 + error.subtraction) * value[rows] - now


class Messages(NamedTuple):
    """∂loss/∂y of one time step along paths within it.

    Attributes:
        raw: as they arrive at the cells, [N, B].
        sent: as each cell reads its own, [N, B]; what it passes on carries the same error.
        noise: standard deviation of the error of a reading, [B].
        perturbation: the errors.
    """

    raw: Tensor
    sent: Tensor
    noise: Tensor | None
    perturbation: Perturbation

    def of_pairs(self, table: TraceTable) -> Tensor:
        """The messages of cells as other cells with traces about them read those, each pair for itself; [pairs, B]."""
        arrived = self.raw[table.node[table.own :][table.first_of_pair]]
        return arrived if self.perturbation.is_none else misread(arrived, self.noise, self.perturbation)


def messages_of(
    circuit: Circuit, cells: Cells, x: Tensor, y: Tensor, grad: Tensor, read: Tensor, perturbation: Perturbation
) -> list[Messages]:
    """The messages of some time steps, that travel from the outputs against the edges within each step.

    Args:
        circuit, cells: the network.
        x: inputs, [P, T, B].
        y: outputs, [N, T, B].
        grad: ∂loss/∂y as the loss sees it, [N, T, B].
        read: int64, the nodes where it enters.
        perturbation: errors of their reading.
    """
    noise = perturbation.message_noise * grad[read].square().mean(0).sqrt() if perturbation.message_noise else None
    if compiled(x) is None:
        raw, sent = _level_by_level(circuit, cells, y, grad, noise, perturbation)
    else:
        raw, sent = torch.empty_like(y), torch.empty_like(y)
        z = None if noise is None else torch.randn_like(y)
        more = (y, grad.contiguous(), z, noise, float(perturbation.gain_positive), float(perturbation.gain_negative), raw, sent)
        call_on("messages", circuit, cells, cells.bias, x.contiguous(), *more)
    return [Messages(raw[:, t], sent[:, t], None if noise is None else noise[t], perturbation) for t in range(y.size(1))]


def _level_by_level(
    circuit: Circuit, cells: Cells, y: Tensor, grad: Tensor, noise: Tensor | None, perturbation: Perturbation
) -> tuple[Tensor, Tensor]:
    """Messages as they arrive at the cells and as these send them, from operations of torch alone."""
    _, c = cells.coefficients()
    raw, slope = grad.clone(), 1 - y * y
    sent = raw if perturbation.is_none else torch.empty_like(raw)
    for level in reversed(circuit.levels):
        here = raw[level.nodes]
        if sent is not raw:
            here = sent[level.nodes] = misread(here, noise, perturbation)
        if level.before:
            going = (c[level.nodes, None, None] * slope[level.nodes] * here).flatten(1)
            weight = cells.weight[level.edges][level.pattern.perm_t.long()]
            back = _kernels.multiply(level.pattern.rowptr_t, level.pattern.col_t, weight, going)
            sources = torch.cat([circuit.levels[number].nodes for number in level.before])
            raw[sources] += back.view(-1, *raw.shape[1:])
    return raw, sent


def misread(message: Tensor, noise: Tensor | None, perturbation: Perturbation) -> Tensor:
    """Messages [n, …, B] with the errors of a reading: noise, then a gain that depends on the sign."""
    if noise is not None:
        message = message + noise * torch.randn_like(message)
    return torch.where(message > 0, message * perturbation.gain_positive, message * perturbation.gain_negative)
