"""Cells with an identity, copies of any graph, and a line folded into a cube: against products, disjoint unions and walks."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from graph_checks import as_networkx, check, check_batch, check_registered
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from topologies import columns, complete, grid, hexagonal, line_to_cube, raster, ring, router_cells, tree


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(["periodic", "open"]), st.booleans())
def test_router_cells_are_a_grid_whose_cells_know_their_indices(sides, boundary, self_loops):
    """The factors are the index along every axis, in whole numbers: together they name a cell, and only one."""
    arguments = {"metric": "manhattan", "boundary": boundary, "self_loops": self_loops}
    data, expected = router_cells(sides, len(sides), 2, **arguments), grid(sides, len(sides), 2, **arguments)
    check(data, "router_cells", self_loops=self_loops)
    assert set(data.keys()) == {*expected.keys(), "cell_factors"}
    assert all(torch.equal(data[key], value) for key, value in expected.to_dict().items() if isinstance(value, Tensor))
    assert data.cell_factors.dtype == torch.long
    assert np.array_equal(np.ravel_multi_index(data.cell_factors.t().numpy(), data.shape), np.arange(data.num_nodes))


COLUMNS = {
    "grid": lambda: grid((2, 3), 2, boundary="open"),
    "self_loops": lambda: grid(3, 1, self_loops=True),
    "router_cells": lambda: router_cells(2, 3),
    "raster": lambda: raster(3, 2),
    "tree": lambda: tree(2, 3),
    "complete": lambda: complete(4),
    "hexagonal": lambda: hexagonal(2, 2),
    "as many edges as nodes": lambda: raster(2, 2),
    "one cell": lambda: ring(1),
    "columns": lambda: columns(2, ring(3)),
}


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_the_batch_of_equal_graphs(name, count):
    """PyG's own collation of ``count`` copies: edges and ports shifted, edge and node fields repeated."""
    column = COLUMNS[name]()
    data = columns(count, column)
    batch = Batch.from_data_list([column] * count)
    feed_forward = name in ("raster", "tree", "as many edges as nodes")
    check(data, "columns", self_loops=column.has_self_loops(), undirected=not feed_forward, acyclic=feed_forward)
    assert data.num_nodes == count * column.num_nodes
    for key, value in column.to_dict().items():
        if isinstance(value, Tensor) and key != "column":
            assert torch.equal(data[key], batch[key]), key
    assert torch.equal(data.column, batch.batch)
    assert data.get("shape") == (None if "shape" not in column else (count, *column.shape))
    assert set(data.keys()) == {*column.keys(), "column"}


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31))
def test_columns_are_a_disjoint_union(count, n, seed):
    """Of any graph, directed and unsorted: networkx's disjoint union, with every weight at its edge."""
    draw = torch.Generator().manual_seed(seed)
    pair = torch.randperm(n * n, generator=draw)[: int(torch.randint(n * n + 1, (), generator=draw))]
    column = Data(edge_index=torch.stack([pair // n, pair % n]), num_nodes=n, edge_weight=torch.rand(len(pair), generator=draw))
    data = columns(count, column)
    assert nx.utils.graphs_equal(as_networkx(data), nx.disjoint_union_all([as_networkx(column)] * count))
    dense = torch.zeros(n, n).index_put((column.edge_index[1], column.edge_index[0]), column.edge_weight)
    found = torch.zeros(count * n, count * n).index_put((data.edge_index[1], data.edge_index[0]), data.edge_weight)
    assert torch.equal(found, torch.block_diag(*[dense] * count))
    key = data.edge_index[1] * data.num_nodes + data.edge_index[0]
    assert (key[1:] > key[:-1]).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_columns_of_edges_in_fewer_bytes(dtype):
    """Numbered in int64 like all others, also where the copies have more nodes than the type can number."""
    column = Data(edge_index=ring(300).edge_index.to(dtype), num_nodes=300)
    assert torch.equal(columns(150, column).edge_index, columns(150, ring(300)).edge_index)


def test_what_columns_do_with_other_fields():
    """Names stay unique, what belongs to the graph is kept, node numbers are shifted whatever they are called."""
    column = Data(
        edge_index=EdgeIndex(torch.tensor([[1, 2], [0, 1]])),
        num_nodes=3,
        x=torch.arange(6.0).view(3, 2),
        y=torch.tensor([7]),
        scale=torch.tensor(2.0),
        hub_index=torch.tensor([1]),
        triangle_index=torch.tensor([[0, 1], [1, 2], [2, 0]]),
        node_names=["a", "b", "c"],
        source="somewhere",
    )
    data = columns(2, column)
    assert type(data.edge_index) is Tensor
    assert data.node_names == [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b"), (1, "c")]
    assert torch.equal(data.x, torch.cat([column.x, column.x]))
    assert (data.y.tolist(), float(data.scale), data.source) == ([7], 2.0, "somewhere")
    assert data.hub_index.tolist() == [1, 4]
    assert data.triangle_index.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [2, 0, 5, 3]]
    assert column.num_nodes == 3
    assert column.hub_index.tolist() == [1]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.integers(1, 5), st.sampled_from(["snake", "c"]), st.sampled_from(["open", "periodic"]))
def test_a_line_fills_the_smallest_cube(length, dim, order, boundary):
    """Every position has a cell of its own, in a lattice that is otherwise the grid."""
    data = line_to_cube(length, dim, order=order, boundary=boundary, metric="manhattan")
    check(data, "line_to_cube")
    side = data.shape[0]
    assert data.shape == (side,) * dim
    assert side**dim >= length
    assert (side - 1) ** dim < length
    assert len(data.input_index) == length == len(data.input_index.unique())
    assert 0 <= int(data.input_index.min()) <= int(data.input_index.max()) < data.num_nodes
    expected = grid(side, dim, metric="manhattan", boundary=boundary)
    assert all(torch.equal(data[key], value) for key, value in expected.to_dict().items() if isinstance(value, Tensor))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 5))
def test_neighbours_on_a_snake_are_neighbours_in_the_cube(length, dim):
    """One step along one axis, so that an edge joins them in every metric and at every boundary."""
    data = line_to_cube(length, dim, metric="manhattan")
    steps = data.pos[data.input_index].diff(dim=0).abs()
    assert (steps.sum(1) == 1).all()
    edges = set(map(tuple, data.edge_index.t().tolist()))
    line = data.input_index.tolist()
    assert edges.issuperset(itertools.pairwise(line))
    assert edges.issuperset(itertools.pairwise(line[::-1]))


def test_the_two_orders():
    assert line_to_cube(9, 2).input_index.tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]
    assert line_to_cube(7, 2, order="c").input_index.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert line_to_cube(8, 3).input_index.tolist() == [0, 1, 3, 2, 6, 7, 5, 4]  # the binary reflected Gray code
    assert line_to_cube(4, 1).input_index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("length", "dim", "side"), [(1, 1, 1), (1, 64, 1), (64, 3, 4), (65, 3, 5), (10**5, 5, 10), (10**5 + 1, 5, 11)])
def test_the_side_is_exact_where_roots_are_rounded(length, dim, side):
    assert line_to_cube(length, dim, metric="manhattan").shape == (side,) * dim


def test_batches():
    check_batch(router_cells((2, 3), 2), router_cells(3, 2, boundary="open"))
    check_batch(line_to_cube(5, 2), line_to_cube(7, 2, order="c"))
    check_batch(columns(2, raster(2, 3)), columns(3, raster(3, 2)))


def test_registered():
    check_registered("router_cells", "columns", "line_to_cube")


BAD_INTEGERS = pytest.mark.parametrize("value", [0, -1, 2.0, True, math.nan, "3", None, 10**400])


@BAD_INTEGERS
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("L", lambda value: router_cells(value, 2)),
        ("dim", lambda value: router_cells(3, value)),
        ("count", lambda value: columns(value, ring(3))),
        ("length", lambda value: line_to_cube(value, 2)),
        ("dim", lambda value: line_to_cube(9, value)),
    ],
)
def test_bad_sizes(name, call, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer in "):
        call(value)


def with_adjacency():
    data = ring(3)
    data.adj_t = torch.eye(3).to_sparse()
    return data


NO_ADJACENCY = r"^column must be without a sparse adjacency beside its edge_index, got adj_t"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: router_cells(3, 2, 0), r"^radius must be an integer >= 1, got 0"),
        (lambda: router_cells(3, 2, metric="moore"), r"^metric must be one of"),
        (lambda: router_cells(3, 2, boundary="shut"), r"^boundary must be one of"),
        (lambda: router_cells(3, 2, self_loops=1), r"^self_loops must be True or False"),
        (lambda: router_cells(10**6, 3), r"must give at most 2,147,483,647 nodes"),
        (lambda: line_to_cube(9, 2, 0), r"^radius must be an integer >= 1, got 0"),
        (lambda: line_to_cube(9, 2, order="hilbert"), r"^order must be one of 'snake', 'c', got 'hilbert'"),
        (lambda: line_to_cube(9, 2, metric="moore"), r"^metric must be one of"),
        (lambda: line_to_cube(9, 2, boundary=["open"]), r"^boundary must be .*one per axis"),
        (lambda: line_to_cube(2**31 - 1, 1), r"^length=2147483647, dim=1, radius=1 must give at most 2,147,483,647 nodes and edges"),
        (lambda: line_to_cube(2, 64), r"^length=2, dim=64, radius=1 must give at most"),
        (lambda: columns(2, "ring"), r"^column must be a torch_geometric.data.Data, got str"),
        (lambda: columns(2, None), r"^column must be .*got NoneType"),
        (lambda: columns(2, Batch.from_data_list([ring(3)])), r"^column must be "),
        (lambda: columns(2, Data(num_nodes=3)), r"^column.edge_index must be an integer tensor \[2, E\], got None"),
        (lambda: columns(2, Data(edge_index=torch.zeros(2, 1), num_nodes=3)), r"^column.edge_index must be .*got torch.float32 \(2, 1\)"),
        (
            lambda: columns(2, Data(edge_index=torch.tensor([[3], [0]]), num_nodes=3)),
            r"^column.edge_index must hold .*\[0, 3\), got 0 to 3",
        ),
        (lambda: columns(2, Data(edge_index=torch.tensor([[-1], [0]]), num_nodes=3)), r"^column.edge_index must hold .*got -1 to 0"),
        (lambda: columns(2, Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=0)), r"^column must have at least one node"),
        (lambda: columns(2, with_adjacency()), NO_ADJACENCY),
        (lambda: columns(2**31 - 1, ring(2)), r"^count=2147483647 columns of 2 nodes must give at most .* nodes, got 4,294,967,294"),
        (lambda: columns(10**7, complete(200)), r"^count=10000000 columns of 200 nodes must give at most .* edges"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
