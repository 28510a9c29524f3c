"""Eligibility traces of filter cells: how the state of a cell depends on the parameters of those before it.

A trace P[θ, d] = ds_d/dθ belongs to a parameter θ of a cell i and a cell d that i reaches over at most k edges, or i itself. With
φ = 1 − y², within a time step and in topological order of d,

    P[θ, d] ← a_d P[θ, d] + c_d Σ_j w_dj φ_j P[θ, j]          over the sources j of d that are kept for i too; P[b, i] counts as 1
    P[w_ij, i] ← a_i P[w_ij, i] + c_i y_j,   P[v_i, i] ← a_i P[v_i, i] + c_i x_i
    P[log τ, i] ← a_i P[log τ, i] + a_i Δt/τ_i (s_i − h_i)   of the state before the step
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmn_graph.learning.perturbation import Perturbation
from lmn_graph.ops import _kernels
from lmn_graph.ops.filter_scan import Cells, Circuit


class Rank(NamedTuple):
    """Descendant traces that depend on earlier ranks only: rows ``first`` … ``last`` of all, and the sparse sum that feeds them."""

    first: int
    last: int
    rowptr: Tensor
    col: Tensor
    edge: Tensor


class TraceTable:
    """Which traces there are. Rows: those of the cells' own parameters first, then the descendants', by rank.

    Parameters are numbered: E weights, P input weights, N log time constants, N biases.

    Args:
        circuit: the cells.
        hops: k ≥ 0, or None for every cell that a parameter reaches.

    Attributes:
        parameter: int64 [R], the parameter of a trace.
        node: int64 [R], the cell whose state it is about.
        own: number of traces of a cell about itself, E + P + 2N, those of biases, always 1, included.
        kind: int64 [R], weights of edges (one kind for each edge type), input weights, time constants, biases: for noise.
        pair: int64 [R − own], which pair of cells a descendant trace belongs to; ``first_of_pair`` its first trace among those.
    """

    def __init__(self, circuit: Circuit, hops: int | None) -> None:
        graph = circuit.connectivity
        source, target = (index.cpu().numpy() for index in graph.edge_index)
        ports, n = circuit.input_index.cpu().numpy(), graph.num_nodes
        device = graph.edge_index.device
        owner = np.concatenate([target, ports, np.arange(n), np.arange(n)])
        self.sizes = (len(target), len(ports), n, n)
        self.own = len(owner)
        cell, far = _reached(source, target, n, hops)  # pairs (i, d), d not i
        rank = circuit.order.level.cpu().numpy()
        rank = rank[far] - rank[cell]
        order = np.lexsort((far, cell, rank))
        cell, far, rank = cell[order], far[order], rank[order]
        # rows: the parameters of i for every pair (i, d), together
        by_owner = np.argsort(owner, kind="stable")
        count = np.bincount(owner, minlength=n)
        begin = np.cumsum(count) - count
        copies = count[cell]
        start = self.own + np.cumsum(copies) - copies  # of each pair's rows
        parameter = by_owner[_ranges(begin[cell], copies)]
        self.parameter = torch.from_numpy(np.concatenate([np.arange(self.own), parameter])).to(device)
        self.node = torch.from_numpy(np.concatenate([owner, np.repeat(far, copies)])).to(device)
        self.kind = self._kinds(circuit)[self.parameter]
        self.pair = torch.from_numpy(np.repeat(np.arange(len(cell)), copies)).to(device)
        self.first_of_pair = torch.from_numpy(start - self.own).to(device)
        self.ranks = self._ranks(circuit, cell, far, rank, start, copies, by_owner, begin, source, target, n)

    @property
    def per_cell(self) -> float:
        """Traces that a cell holds on average: all rows but those of biases, which are 1."""
        return (self.parameter.numel() - self.sizes[3]) / self.sizes[3]

    def _kinds(self, circuit: Circuit) -> Tensor:
        types = circuit.connectivity.edge_type
        edges = torch.zeros(self.sizes[0], dtype=torch.long, device=self.parameter.device) if types is None else types.long()
        more = int(edges.max()) + 1 if edges.numel() else 1
        rest = [torch.full((size,), kind, device=edges.device) for size, kind in zip(self.sizes[1:], (0, more, more + 1))]
        return torch.cat([edges, *rest])

    def _ranks(self, circuit, cell, far, rank, start, copies, by_owner, begin, source, target, n):  # type: ignore[no-untyped-def]
        """For every pair (i, d) the kept pairs (i, j) with an edge j → d, the pair (i, i) being i's own traces."""
        keys = cell * n + far
        ordered = np.argsort(keys, kind="stable")
        sizes = np.bincount(source, minlength=n)
        first = np.cumsum(sizes) - sizes
        outgoing = np.argsort(source, kind="stable")
        # all (i, j) and the edges out of j
        i, j = np.concatenate([np.arange(n), cell]), np.concatenate([np.arange(n), far])
        before = np.concatenate([np.full(n, -1), np.arange(len(cell))])  # which pair, −1: i itself
        times = sizes[j]
        edge = outgoing[_ranges(first[j], times)]
        i, before = np.repeat(i, times), np.repeat(before, times)
        wanted = i * n + target[edge]
        place = np.searchsorted(keys[ordered], wanted)
        kept = place < len(keys)
        kept[kept] = keys[ordered][place[kept]] == wanted[kept]
        edge, before, pair = edge[kept], before[kept], ordered[place[kept]]
        # one entry for each parameter of i
        reps = copies[pair]
        row = _ranges(start[pair], reps)
        offset = _ranges(np.zeros_like(reps), reps)
        long_before, long_cell = np.repeat(before, reps), np.repeat(cell[pair], reps)
        col = np.where(long_before < 0, by_owner[begin[long_cell] + offset], start[long_before] + offset)
        edge = np.repeat(edge, reps)
        by_row = np.lexsort((col, row))
        row, col, edge = row[by_row], col[by_row], edge[by_row]
        device = self.parameter.device
        ranks = []
        for value in np.unique(rank):
            pairs = np.nonzero(rank == value)[0]
            low, high = int(start[pairs[0]]), int(start[pairs[-1]] + copies[pairs[-1]])
            here = slice(*np.searchsorted(row, (low, high)))
            pointers = np.concatenate([[0], np.cumsum(np.bincount(row[here] - low, minlength=high - low))])
            tensors = (torch.from_numpy(part).to(device) for part in (pointers.astype(np.int32), col[here].astype(np.int32), edge[here]))
            ranks.append(Rank(low, high, *tensors))
        return ranks


def _reached(source: np.ndarray, target: np.ndarray, n: int, hops: int | None) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, d), d ≠ i, with a path of at most ``hops`` edges from i to d."""
    from scipy.sparse import csr_array, eye_array

    step = csr_array((np.ones(len(source), dtype=np.int8), (source, target)), shape=(n, n)).astype(bool)
    reach = frontier = eye_array(n, format="csr", dtype=bool)
    done = 0
    while frontier.nnz and (hops is None or done < hops):
        frontier = (frontier @ step).astype(bool)
        frontier = (frontier > reach).tocsr()  # those that are new
        reach = (reach + frontier).astype(bool).tocsr()
        done += 1
    pairs = reach.tocoo()
    other = pairs.row != pairs.col
    return pairs.row[other].astype(np.int64), pairs.col[other].astype(np.int64)


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start₀, start₀ + 1, … (count₀ numbers), start₁, …"""
    total = int(count.sum())
    return np.repeat(start - (np.cumsum(count) - count), count) + np.arange(total)


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
        self.cells = cells = Cells(*(part.detach() for part in cells[:4]), cells.time_step)
        a, c = cells.coefficients()
        self.c = c
        self.keep = a[table.node, None]
        self.sensitivity = a * cells.time_step * torch.exp(-cells.log_tau)
        feed = c[graph.edge_index[1]] * cells.weight
        self.feeds = [feed[rank.edge] for rank in table.ranks]

    def over(self, start: Tensor, x: Tensor, s: Tensor, y: Tensor, grad: Tensor | None) -> Tensor:
        """Some time steps: the traces after them, and the gradient [E + P + 2N] of their loss.

        Args:
            start: states before, [N, B].
            x: inputs, [P, T, B].
            s, y: states and outputs, [N, T, B].
            grad: ∂loss/∂y as the loss sees it, [N, T, B], or None where there is no loss.
        """
        circuit, cells = self.circuit, self.cells
        graph = circuit.connectivity
        heard = _kernels.multiply(graph.rowptr, graph.col, cells.weight, y.flatten(1)).view(y.shape)
        heard.index_add_(0, circuit.input_index, cells.input_weight[:, None, None] * x)
        messages = None if grad is None else messages_of(circuit, cells, y, grad, self.perturbation)
        total = y.new_zeros(sum(self.table.sizes))
        for t in range(y.size(1)):
            before = start if t == 0 else s[:, t - 1]
            found = self.advance(before, y[:, t], x[:, t], heard[:, t], None if messages is None else messages[t])
            if found is not None:
                total += found
        return total

    def advance(self, before: Tensor, y: Tensor, x: Tensor, heard: Tensor, messages: Messages | None) -> Tensor | None:
        """One time step: the traces after it, and where messages are given the gradient of this step's loss, [E + P + 2N].

        Args:
            before: states before the step, [N, B].
            y: outputs, [N, B].
            x: inputs, [P, B].
            heard: what cells hear, [N, B].
            messages: of this step.
        """
        table, value = self.table, self.value
        edges, ports, nodes, _ = table.sizes
        graph, own = self.circuit.connectivity, slice(0, table.own - nodes)
        value[own] *= self.keep[own]
        value[:edges].addcmul_(self.c[graph.edge_index[1], None], y[graph.edge_index[0]])
        value[edges : edges + ports].addcmul_(self.c[self.circuit.input_index, None], x)
        value[edges + ports : edges + ports + nodes].addcmul_(self.sensitivity[:, None], before - heard)
        slope = (1 - y * y)[table.node]
        passed = torch.empty_like(value)  # (1 − y²) P, what a trace gives to the next rank
        torch.mul(value[: table.own], slope[: table.own], out=passed[: table.own])
        past = torch.empty_like(value[table.own :])
        for rank, feed in zip(table.ranks, self.feeds):
            rows = slice(rank.first, rank.last)
            now = _kernels.multiply(rank.rowptr, rank.col, feed, passed[: rank.first])
            past[rank.first - table.own : rank.last - table.own] = self._moved(rows, now)
            torch.mul(value[rows], slope[rows], out=passed[rows])
        if messages is None:
            return None
        gradient = value.new_zeros(sum(table.sizes))
        gradient += (messages.sent[table.node[: table.own]] * passed[: table.own]).sum(1)
        if len(past):
            rows = slice(table.own, None)
            gradient.index_add_(0, table.parameter[rows], (messages.read(table) * slope[rows] * past).sum(1))
        return gradient

    def _moved(self, rows: slice, now: Tensor) -> Tensor:
        """Move descendant traces on, with ``now`` coming in, and return the part of them that is of the past."""
        error, value = self.perturbation, self.value
        kept = value[rows] * (self.keep[rows] * (1 - error.leak))
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

    def read(self, table: TraceTable) -> Tensor:
        """The messages of cells as the traces about them read those, each pair of cells once; [R − own, B]."""
        node = table.node[table.own :]
        if self.perturbation.is_none:
            return self.raw[node]
        first = table.first_of_pair
        return misread(self.raw[node[first]], self.noise, self.perturbation)[table.pair]


def messages_of(circuit: Circuit, cells: Cells, y: Tensor, grad: Tensor, perturbation: Perturbation) -> list[Messages]:
    """The messages of some time steps, that travel from the outputs against the edges, level by level, within each step.

    Args:
        circuit, cells: the network.
        y: outputs, [N, T, B].
        grad: ∂loss/∂y as the loss sees it, [N, T, B].
        perturbation: errors of their reading.
    """
    _, c = cells.coefficients()
    raw, slope = grad.clone(), 1 - y * y
    sent = torch.empty_like(raw) if not perturbation.is_none else raw
    noise = None
    if perturbation.message_noise:
        ports = circuit.connectivity.output_index
        noise = perturbation.message_noise * grad[ports].square().mean(0).sqrt()
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
    return [Messages(raw[:, t], sent[:, t], None if noise is None else noise[t], perturbation) for t in range(y.size(1))]


def misread(message: Tensor, noise: Tensor | None, perturbation: Perturbation) -> Tensor:
    """Messages [n, …, B] with the errors of a reading: noise, then a gain that depends on the sign."""
    if noise is not None:
        message = message + noise * torch.randn_like(message)
    return torch.where(message > 0, message * perturbation.gain_positive, message * perturbation.gain_negative)
