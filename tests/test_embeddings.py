"""Identities of cells: which rows a cell adds up, how many there are, and that gradients reach exactly them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch_geometric.data import Batch, Data

import topologies
from lmn_graph.embeddings import CellEmbedding, FactoredCellEmbedding

LATTICES = {
    "router_cells": lambda: topologies.router_cells((2, 3, 4), 3),
    "grid": lambda: topologies.grid((5, 2), 2, boundary="open"),
    "ring": lambda: topologies.ring(6),
    "hexagonal": lambda: topologies.hexagonal(2, 3),
    "raster": lambda: topologies.raster(4, 3),
    "columns": lambda: topologies.columns(3, topologies.ring(4)),
    "one cell": lambda: topologies.grid(1, 1),
}


def test_one_row_per_cell_on_any_graph(graph):
    embedding = CellEmbedding(graph, 5)
    assert embedding().shape == embedding.weight.shape == (graph.num_nodes, 5)
    embedding().sum().backward()
    assert torch.equal(embedding.weight.grad, torch.ones(graph.num_nodes, 5))


@pytest.mark.parametrize("name", LATTICES)
def test_an_identity_is_the_sum_of_the_rows_of_its_axes(name):
    """Cell by cell, from the coordinates alone; Σ L_d rows in all."""
    lattice = LATTICES[name]()
    embedding = FactoredCellEmbedding(lattice, 3).double()
    assert embedding.weight.shape == (sum(lattice.shape), 3)
    assert sum(parameter.numel() for parameter in embedding.parameters()) == 3 * sum(lattice.shape)
    found = embedding()
    assert found.shape == (lattice.num_nodes, 3)
    tables = embedding.weight.split(list(lattice.shape))
    for cell in range(lattice.num_nodes):
        rest, expected = cell, torch.zeros(3, dtype=torch.float64)
        for side, table in zip(reversed(lattice.shape), reversed(tables)):
            expected = expected + table[rest % side]
            rest //= side
        torch.testing.assert_close(found[cell], expected)


def test_cell_factors_go_before_the_shape():
    """Copies of a column share the identities of its cells: the number of the column is no factor."""
    data = topologies.columns(5, topologies.router_cells((2, 3), 2))
    embedding = FactoredCellEmbedding(data, 4)
    assert data.shape == (5, 2, 3)
    assert embedding.sides == (2, 3)
    first, *others = embedding().view(5, 6, 4)
    assert all(torch.equal(first, other) for other in others)


def test_any_graph_may_carry_factors():
    """Two groups of three kinds, on a graph that is no lattice; a subgraph of a lattice, and a batch, keep theirs."""
    factors = torch.tensor([[0, 2], [1, 0], [1, 2]])
    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3, cell_factors=factors.int())
    embedding = FactoredCellEmbedding(data, 2)
    assert embedding.weight.shape == (5, 2)
    torch.testing.assert_close(embedding(), embedding.weight[[0, 1, 1]] + embedding.weight[[4, 2, 4]])
    cells = topologies.router_cells(3, 2)
    assert FactoredCellEmbedding(cells.subgraph(torch.tensor([0, 1, 4])), 2)().shape == (3, 2)
    assert FactoredCellEmbedding(Batch.from_data_list([cells, cells]), 2).sides == (3, 3)


def test_the_gradient_of_a_row_is_the_sum_over_its_cells():
    lattice = topologies.router_cells((2, 3), 2)
    embedding = FactoredCellEmbedding(lattice, 4).double()
    upstream = torch.randn(6, 4, dtype=torch.float64)
    embedding().backward(upstream)
    by_cell = upstream.view(2, 3, 4)
    torch.testing.assert_close(embedding.weight.grad, torch.cat([by_cell.sum(1), by_cell.sum(0)]))

    def identities(weight):
        return torch.func.functional_call(embedding, {"weight": weight}, ())

    weight = embedding.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(identities, (weight,))
    assert torch.autograd.gradgradcheck(lambda w: identities(w).square(), (weight,))


@pytest.mark.parametrize("kind", [CellEmbedding, FactoredCellEmbedding])
def test_identities_start_with_unit_variance_and_can_be_drawn_anew(kind):
    embedding = kind(topologies.router_cells(20, 3), 8)
    first = embedding().detach().clone()
    assert float(first.std()) == pytest.approx(1, rel=0.15)
    embedding.reset_parameters()
    assert not torch.equal(first, embedding())
    torch.manual_seed(5)
    embedding.reset_parameters()
    again = embedding().detach().clone()
    torch.manual_seed(5)
    assert torch.equal(kind(topologies.router_cells(20, 3), 8)(), again)


@pytest.mark.parametrize("kind", [CellEmbedding, FactoredCellEmbedding])
def test_only_the_weight_is_state(kind):
    """A state dict restores it; copies share nothing; it prints what it is."""
    one, two = (kind(topologies.grid((2, 3), 2), 4) for _ in range(2))
    assert list(one.state_dict()) == ["weight"]
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(), two())
    copied = copy.deepcopy(one)
    torch.nn.init.zeros_(copied.weight)
    assert one().any()
    assert "features=4" in repr(one)
    assert one.double()().dtype == torch.float64


def without(key):
    data = topologies.grid(3, 2)
    del data[key]
    return data


def with_factors(factors):
    return Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3, cell_factors=factors)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: FactoredCellEmbedding(without("shape"), 2),
            r"^topology must have cell_factors \[N, d\] or the shape of a lattice, got Data",
        ),
        (lambda: FactoredCellEmbedding(topologies.complete(3), 2), r"^topology must have cell_factors"),
        (lambda: FactoredCellEmbedding(Batch.from_data_list([topologies.grid(3, 2)] * 2), 2), r"^topology must have cell_factors"),
        (lambda: FactoredCellEmbedding(topologies.grid(3, 2).subgraph(torch.tensor([0, 1])), 2), r"^topology.shape must multiply to"),
        (
            lambda: FactoredCellEmbedding(with_factors(torch.zeros(3, 1)), 2),
            r"^topology.cell_factors .* \[3, d\], got torch.float32 \(3, 1\)",
        ),
        (lambda: FactoredCellEmbedding(with_factors(torch.zeros(2, 1).long()), 2), r"^topology.cell_factors must hold"),
        (lambda: FactoredCellEmbedding(with_factors(torch.zeros(3).long()), 2), r"^topology.cell_factors must hold"),
        (lambda: FactoredCellEmbedding(with_factors(torch.zeros(3, 0).long()), 2), r"^topology.cell_factors must hold"),
        (lambda: FactoredCellEmbedding(with_factors(torch.tensor([[0], [-1], [1]])), 2), r"^topology.cell_factors must hold integers >= 0"),
        (lambda: FactoredCellEmbedding(with_factors(torch.zeros(3, 1).bool()), 2), r"^topology.cell_factors must hold"),
        (lambda: FactoredCellEmbedding(with_factors([[0], [0], [0]]), 2), r"^topology.cell_factors must hold .*got list"),
    ],
)
def test_graphs_without_factors_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", [CellEmbedding, FactoredCellEmbedding])
@pytest.mark.parametrize("features", [0, -1, 2.0, True, math.nan, "3", None])
def test_bad_features(kind, features):
    with pytest.raises(ValueError, match=r"^features must be an integer >= 1, got"):
        kind(topologies.ring(3), features)


@pytest.mark.parametrize("kind", [CellEmbedding, FactoredCellEmbedding])
def test_bad_graphs(kind):
    with pytest.raises(ValueError, match=r"^topology must be a torch_geometric.data.Data, got int"):
        kind(3, 2)
    with pytest.raises(ValueError, match=r"^topology must have at least one node, got num_nodes=0"):
        kind(Data(num_nodes=0), 2)
