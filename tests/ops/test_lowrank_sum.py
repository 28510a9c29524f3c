"""Sums with weights of low rank: those with the weights written on every edge, in values and derivatives, however they are made."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import LowRankWeight, Stencil, lowrank, lowrank_sum


def _network() -> Data:
    """Weighted, undirected, without types."""
    graph = nx.karate_club_graph()
    return topologies.from_networkx(graph, dtype=torch.float64)


def _typed() -> Data:
    """Directed, with parallel edges, self-loops, an isolated node, unsorted, a type that no edge has, and weights."""
    edges = torch.tensor([[4, 0, 0, 2, 2, 1, 0, 3, 2, 5], [0, 1, 1, 2, 2, 0, 1, 4, 3, 4]])
    kinds = torch.tensor([0, 0, 3, 1, 1, 4, 0, 3, 0, 1])
    weight = torch.linspace(-1, 1, 10, dtype=torch.float64)
    return Data(edge_index=edges, num_nodes=7, edge_type=kinds, edge_weight=weight, name="typed")


GRAPHS = {
    "periodic": lambda: topologies.grid((4, 5), 2),
    "open": lambda: topologies.grid((3, 2, 3), 3, metric="manhattan", boundary="open"),
    "mixed": lambda: topologies.grid((3, 6), 2, 2, boundary=("open", "periodic"), self_loops=True),
    "aliased": lambda: topologies.grid((4, 3), 2, 2),
    "one wide": lambda: topologies.grid((1, 6, 1), 3, 2),
    "hexagonal": lambda: topologies.hexagonal(3, 4),
    "triangular": lambda: topologies.triangular(3, 4),
    "directed": _typed,
    "network": _network,
    "isolated": lambda: Data(edge_index=torch.tensor([[5, 2, 4, 5, 2], [4, 1, 1, 2, 4]]), num_nodes=7, name="isolated"),
    "one node": lambda: Data(edge_index=torch.tensor([[0], [0]]), num_nodes=1, name="one node"),
    "no edges": lambda: Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=4, name="no edges"),
}
FORMS = ("node", "one", "fourier", "products", "messages", "definition", None)
every_graph = pytest.mark.parametrize("name", GRAPHS)


def kinds_of(graph):
    return 1 if graph.edge_type is None else int(graph.edge_type.max()) + 1


def written(graph, left, right, per, scale):
    """The weights on the edges: gathered factors, multiplied and added over the rank."""
    source, target = graph.edge_index
    kinds = torch.zeros_like(source) if graph.edge_type is None else graph.edge_type
    heard = right[source if per == "node" else kinds]
    axes = max(left.dim(), right.dim())
    left, right = (part.unsqueeze(2) if part.dim() < axes else part for part in (left[target], heard))
    weight = torch.einsum("ebr,ebr->eb" if axes == 3 else "ebcr,ebcr->ebc", *torch.broadcast_tensors(left, right))
    return weight if scale is None else weight * scale.view(-1, *[1] * (weight.dim() - 1))


def summed(graph, x, left, right, per, scale):
    """The truth: one message per edge, added up at its target."""
    source, target = graph.edge_index
    weight = written(graph, left, right, per, scale)
    weight = weight.unsqueeze(-1) if weight.dim() < x.dim() else weight
    return torch.zeros_like(x).index_add(0, target, weight * x[source])


def shapes(n, k, per, channels):
    """Factors of every sample or shared, with and without channels: (x, left, right)."""
    rows, b, c, r = (k if per == "type" else n), 3, 2, 3
    if not channels:
        return [((n, b), (n, left, r), (rows, right, r)) for left in (1, b) for right in (1, b)]
    return [
        ((n, b, c), (n, b, r), (rows, b, r)),
        ((n, b, c), (n, b, c, r), (rows, b, c, r)),
        ((n, b, c), (n, 1, c, r), (rows, b, r)),
        ((n, b, c), (n, b, 1, r), (rows, 1, c, r)),
        ((n, b, c), (n, b, r), (rows, 1, 1, r)),
        ((n, b, c), (n, 1, r), (rows, b, c, r)),
    ]


def cases(graph, normal, *, channels=(False, True)):
    """Every kind of weight on a graph: (x, left, right, per, scale), all wanting gradients."""
    k = kinds_of(graph)
    for per in ("type", "node"):
        for with_channels in channels:
            for x, left, right in shapes(graph.num_nodes, k, per, with_channels):
                for scale in (None, normal(graph.num_edges).requires_grad_()):
                    yield *(normal(*shape).requires_grad_() for shape in (x, left, right)), per, scale


def forms_of(graph, weight, x):
    """The forms that can make this sum."""
    shared = math.prod(weight.right.shape[1:-1]) == 1
    if weight.per == "node":
        return ["node", "messages", "definition", None]
    can = ["messages", "definition", None]
    can += ["one"] if kinds_of(graph) == 1 else []
    can += ["fourier"] if weight.scale is None and Stencil.of(graph) is not None else []
    return can + (["products"] if shared else [])


def derived(y, inputs, order):
    """The values and the gradients of a mixture of them, and with order 2 those of the gradients."""
    inputs = [tensor for tensor in inputs if tensor is not None]
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)).sum()
    first = torch.autograd.grad(loss, inputs, create_graph=order > 1, materialize_grads=True)
    if order == 1:
        return [y, *first]
    return [y, *first, *torch.autograd.grad(sum(g.sin().sum() for g in first), inputs, materialize_grads=True)]


def assert_same(found, expected, **tolerance):
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, **({"rtol": 1e-10, "atol": 1e-11} | tolerance))


@every_graph
@pytest.mark.parametrize("order", [1, 2])
def test_every_form_equals_the_weights_on_the_edges(name, order, normal):
    """Values, all gradients and second derivatives; shared and per sample, with channels, scaled."""
    graph = Connectivity(GRAPHS[name]())
    for x, left, right, per, scale in cases(graph, normal):
        if order == 2 and x.dim() == 3 and left.dim() == 3 == right.dim():
            continue  # one of the cases with channels is enough
        inputs = (x, left, right, scale)
        expected = derived(summed(graph, x, left, right, per, scale), inputs, order)
        for form in forms_of(graph, LowRankWeight(graph, left, right, per=per, scale=scale), x):
            weight = LowRankWeight(graph, left, right, per=per, scale=scale)
            assert_same(derived(lowrank._sum(graph, x, weight, form), inputs, order), expected)


@every_graph
def test_materialised_weights_are_the_products_of_the_factors(name, normal):
    graph = Connectivity(GRAPHS[name]())
    for _, left, right, per, scale in cases(graph, normal):
        weight = LowRankWeight(graph, left, right, per=per, scale=scale)
        assert_same([weight.materialise()], [written(graph, left, right, per, scale)])
        assert weight.rank == 3
