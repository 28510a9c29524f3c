"""Which traces of filter cells there are, and which of them feed which."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lmn_graph.ops.filter_scan import Circuit


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
        kind: int64 [R], one of ``kinds``: weights of edges (one kind for each edge type), input weights, time constants, biases: for noise.
        pair: int64 [R − own], which pair of cells a descendant trace belongs to; ``first_of_pair`` its first trace among those.
        bounds: the first row of every rank of descendant traces, each fed by those before, and R.
        rowptr, col, edge: the sparse sum that feeds descendant traces: from which rows, and over which edge.
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
        kinds = self._kinds(circuit)
        self.kind, self.kinds = kinds[self.parameter], int(kinds.max()) + 1
        self.pair = torch.from_numpy(np.repeat(np.arange(len(cell)), copies)).to(device)
        self.first_of_pair = torch.from_numpy(start - self.own).to(device)
        firsts = start[np.unique(rank, return_index=True)[1]]
        self.bounds = torch.from_numpy(np.append(firsts, len(self.parameter))).to(device)
        feeding = self._feeding(cell, far, start, copies, by_owner, begin, source, target, n)
        self.rowptr, self.col, self.edge = (torch.from_numpy(part).to(device) for part in feeding)

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

    def _feeding(
        self,
        cell: np.ndarray,
        far: np.ndarray,
        start: np.ndarray,
        copies: np.ndarray,
        by_owner: np.ndarray,
        begin: np.ndarray,
        source: np.ndarray,
        target: np.ndarray,
        n: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every pair (i, d) the kept pairs (i, j) with an edge j → d, the pair (i, i) being i's own traces; for all parameters of i."""
        keys = cell * n + far
        ordered = np.argsort(keys, kind="stable")
        sizes = np.bincount(source, minlength=n)
        outgoing = np.argsort(source, kind="stable")
        i, j = np.concatenate([np.arange(n), cell]), np.concatenate([np.arange(n), far])
        before = np.concatenate([np.full(n, -1), np.arange(len(cell))])  # which pair (i, j) is, −1 for (i, i)
        times = sizes[j]
        edge = outgoing[_ranges((np.cumsum(sizes) - sizes)[j], times)]
        before, wanted = np.repeat(before, times), np.repeat(i, times) * n + target[edge]
        place = np.searchsorted(keys[ordered], wanted)
        kept = place < len(keys)
        kept[kept] = keys[ordered][place[kept]] == wanted[kept]
        edge, before, pair = edge[kept], before[kept], ordered[place[kept]]
        reps = copies[pair]
        offset = _ranges(np.zeros_like(reps), reps)
        row, edge = _ranges(start[pair], reps) - self.own, np.repeat(edge, reps)
        before, own = np.repeat(before, reps), by_owner[np.repeat(begin[cell[pair]], reps) + offset]
        col = np.where(before < 0, own, start[before] + offset) if len(start) else own
        by_row = np.lexsort((col, row))
        pointers = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(self.parameter) - self.own))])
        return pointers.astype(np.int32), col[by_row].astype(np.int32), edge[by_row].astype(np.int64)


def _reached(source: np.ndarray, target: np.ndarray, n: int, hops: int | None) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, d), d ≠ i, with a path of at most ``hops`` edges from i to d."""
    from scipy.sparse import csr_array, eye_array

    step = csr_array((np.ones(len(source), dtype=bool), (source, target)), shape=(n, n))  # parallel edges are one
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
