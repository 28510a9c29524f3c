"""Random graphs of every kind as NetworkX has them and as edge lists: sparse to dense, disconnected, with isolated nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor

F64 = torch.float64
KINDS = [(directed, weights, loops) for directed in (False, True) for weights in ("none", "positive", "signed") for loops in (False, True)]
IDS = [f"{'directed' if d else 'undirected'}-{w}-{'loops' if s else 'simple'}" for d, w, s in KINDS]


class Sample(NamedTuple):
    graph: nx.Graph
    edge_index: Tensor
    edge_weight: Tensor | None
    nodes: int
    directed: bool
    rng: np.random.Generator

    @property
    def weight(self) -> str | None:
        """What NetworkX is to read."""
        return None if self.edge_weight is None else "weight"

    @property
    def options(self) -> dict[str, object]:
        return {"directed": self.directed, "num_nodes": self.nodes}

    @property
    def plain(self) -> dict[str, object]:
        """Options of numbers without weights, in the digits of NetworkX."""
        return {**self.options, "dtype": F64}


def sample(seed: int, directed: bool = False, weights: str = "none", loops: bool = False, *, most: int = 16) -> Sample:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(1, most))
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(range(nodes))
    density = rng.random()
    for u in range(nodes):
        for v in range(nodes if directed else u + 1):
            if rng.random() < (0.3 * loops if u == v else density):
                graph.add_edge(u, v)
    values = rng.uniform(-1 if weights == "signed" else 0.05, 1, graph.number_of_edges())
    if weights == "signed" and values.size:
        values[rng.integers(values.size)] = 1.5  # there must be a positive weight
        values[rng.integers(values.size)] *= rng.random() > 0.2  # and an edge of weight zero is an edge
        if values.max() <= 0 or values.sum() <= 0:
            values = np.abs(values) + 0.1
    for (u, v), value in zip(graph.edges, values):
        graph[u][v]["weight"] = float(value)
    return Sample(graph, *edge_list(graph, rng, weights != "none"), nodes, directed, rng)


def edge_list(graph: nx.Graph, rng: np.random.Generator, weighted: bool) -> tuple[Tensor, Tensor | None]:
    """The edges in a random order, an undirected one in both directions, a self-loop once."""
    edges = [(u, v, w) for u, v, w in graph.edges(data="weight", default=1.0)]
    if not graph.is_directed():
        edges += [(v, u, w) for u, v, w in edges if u != v]
    edges = [edges[i] for i in rng.permutation(len(edges))]
    edge_index = torch.tensor([edge[:2] for edge in edges], dtype=torch.long).reshape(-1, 2).t().contiguous()
    return edge_index, torch.tensor([edge[2] for edge in edges], dtype=F64) if weighted else None


def samples(directed: bool, weights: str, loops: bool, *, count: int = 200, most: int = 16) -> Iterator[Sample]:
    return (sample(seed, directed, weights, loops, most=most) for seed in range(count))


def per_node(values: dict[int, float], nodes: int) -> Tensor:
    return torch.tensor([values[node] for node in range(nodes)], dtype=F64)


def symmetric(pairs: list[tuple[int, int]]) -> Tensor:
    """Pairs as edges: all of them one way, then all of them back, so that weights are ``cat([w, w])``; no self-loops."""
    there = torch.tensor(pairs).t()
    return torch.cat([there, there.flip(0)], 1)
