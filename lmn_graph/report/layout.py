"""Where to draw the nodes of a graph that has no positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity
from lmn_graph.graph_metrics import connected_components

_SPRINGS = 600  # nodes of a part that is laid out by springs, whose forces are between all pairs
_PIVOTS = 40  # nodes that distances are measured from, in larger parts


def layout(graph: Connectivity) -> Tensor:
    """Positions in the plane, float64 [N, 2], the same for the same graph.

    Every connected part is laid out by itself, in an area that grows with its nodes, and the parts are put in rows, the largest first. A
    part that is nearly complete is a circle; up to 600 nodes are held by springs; larger ones are placed by their distances, in
    steps, from 40 of their nodes (pivot multidimensional scaling, Brandes and Pich 2007).
    """
    edges, labels = graph.edge_index.cpu(), connected_components(graph.edge_index.cpu(), num_nodes=graph.num_nodes)
    place = torch.zeros(graph.num_nodes, 2, dtype=torch.float64)
    size = torch.bincount(labels)
    order = labels.argsort(stable=True)
    members = order.split(size.tolist())
    inner = [
        edges[:, index]
        for index in labels[edges[0]].argsort(stable=True).split(torch.bincount(labels[edges[0]], minlength=len(size)).tolist())
    ]
    number = torch.empty_like(labels)
    number[order] = torch.arange(graph.num_nodes) - (size.cumsum(0) - size).repeat_interleave(size)
    for nodes, part in zip(members, inner):
        if len(nodes) > 1:
            place[nodes] = _part(number[part], len(nodes))
    for nodes, centre in zip(members, _in_rows(size)):
        place[nodes] += centre
    return place


def _part(edges: Tensor, n: int) -> Tensor:
    """A connected graph about the origin, its mean square distance from there n."""
    pairs = torch.unique(edges.sort(0).values, dim=1)
    if pairs.size(1) > n * (n - 1) / 4:
        place = circle(n)
    elif n <= _SPRINGS:
        place = _springs(pairs, n)
    else:
        place = _pivots(pairs, n)
    place = place - place.mean(0)
    return place * (n / place.square().sum(1).mean().clamp(min=1e-12)).sqrt()


def circle(n: int) -> Tensor:
    """n nodes on the unit circle, clockwise from the top, [n, 2]."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.sin(), angle.cos()], dim=1)


def _springs(pairs: Tensor, n: int) -> Tensor:
    import networkx as nx

    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(pairs.T.tolist())
    found = nx.spring_layout(graph, seed=0, iterations=100, k=1.6 / math.sqrt(n))
    return torch.tensor([found[node].tolist() for node in range(n)], dtype=torch.float64)


def _pivots(pairs: Tensor, n: int) -> Tensor:
    """The two largest principal axes of the doubly centred squared distances from some nodes."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    generator = torch.Generator().manual_seed(0)
    source, target = pairs.numpy()
    matrix = csr_array((torch.ones(pairs.size(1)).numpy(), (source, target)), shape=(n, n))
    pivots = torch.randperm(n, generator=generator)[:_PIVOTS].numpy()
    square = torch.from_numpy(shortest_path(matrix, method="D", directed=False, unweighted=True, indices=pivots)).T.square()
    centred = -0.5 * (square - square.mean(0) - square.mean(1, keepdim=True) + square.mean())
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    place = centred @ vectors[:, -2:].flip(1)
    place = place / place.std(0).clamp(min=1e-12)  # both axes of the page are used
    return place + 0.05 * torch.randn(place.shape, generator=generator, dtype=place.dtype)  # nodes at equal distances lie apart


def _in_rows(size: Tensor) -> Tensor:
    """The centres of parts of so many nodes, in the order given, [P, 2]: squares put in rows, the largest first."""
    side = 3.2 * size.double().sqrt()
    width = max(float(side.max()), 1.25 * math.sqrt(float(side.square().sum())))
    centre = torch.zeros(len(size), 2, dtype=torch.float64)
    x = y = height = 0.0
    for part in size.argsort(descending=True, stable=True).tolist():
        length = float(side[part])
        if x > 0 and x + length > width:
            x, y, height = 0.0, y - height, 0.0
        centre[part] = torch.tensor([x + length / 2, y - length / 2])
        x, height = x + length, max(height, length)
    return centre
