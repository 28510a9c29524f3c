"""Trees against NetworkX, rasters against their definition cell by cell; both without cycles, with ports in order."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from graph_checks import as_networkx, check, check_batch, check_registered, in_degree
from hypothesis import given, settings
from hypothesis import strategies as st

from lmn_graph import Connectivity
from topologies import raster, tree


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4))
def test_a_tree_is_networkx_balanced_tree_towards_the_root(depth, branching):
    """Node for node; the leaves are the input, the root is the output, and children are told apart by their port."""
    data = tree(depth, branching)
    check(data, "tree", undirected=False, acyclic=True)
    expected = nx.balanced_tree(branching, depth, create_using=nx.DiGraph).reverse()
    graph = as_networkx(data)
    assert nx.utils.graphs_equal(graph, expected)
    assert data.output_index.tolist() == [node for node in graph if graph.out_degree(node) == 0] == [0]
    assert data.input_index.tolist() == [node for node in graph if graph.in_degree(node) == 0]
    assert len(data.input_index) == branching**depth
    inner = data.num_nodes - len(data.input_index)
    assert data.edge_type.view(inner, branching).tolist() == [list(range(branching))] * inner
    assert set(in_degree(data).tolist()) == {0, branching}
    assert dict(nx.single_source_shortest_path_length(expected.reverse(), 0)) == dict(enumerate((depth - data.pos[:, 1]).tolist()))


def test_positions_of_a_tree():
    """Leaves a unit apart from left to right, parents over the middle of their children."""
    data = tree(3, 3)
    assert data.pos[data.input_index].tolist() == [[x, 0] for x in range(27)]
    source, target = data.edge_index
    middle = torch.zeros(data.num_nodes).index_add(0, target, data.pos[source, 0])[:13] / 3
    torch.testing.assert_close(middle, data.pos[:13, 0])
    assert data.pos[0].tolist() == [13, 3]


def test_a_tree_without_branches_is_a_chain():
    data = tree(4, 1)
    assert data.edge_index.tolist() == [[1, 2, 3, 4], [0, 1, 2, 3]]
    assert data.pos.tolist() == [[0, 4], [0, 3], [0, 2], [0, 1], [0, 0]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9))
def test_a_raster_cell_hears_left_and_above(rows, cols):
    """Edges in order with port and displacement, one cell at a time; ports along the left and the bottom shore."""
    data = raster(rows, cols)
    check(data, "raster", undirected=False, acyclic=True)
    found = [
        (*edge, port, tuple(way)) for edge, port, way in zip(data.edge_index.t().tolist(), data.edge_type.tolist(), data.edge_attr.tolist())
    ]
    expected = []
    for i in range(rows):
        for j in range(cols):
            above = [((i - 1) * cols + j, i * cols + j, 1, (-1, 0))] if i else []
            left = [(i * cols + j - 1, i * cols + j, 0, (0, -1))] if j else []
            expected += above + left
    assert found == expected
    assert data.num_edges == 2 * rows * cols - rows - cols
    source, target = data.edge_index
    assert torch.equal(data.pos[source] - data.pos[target], data.edge_attr)
    assert data.pos[data.input_index].tolist() == [[i, 0] for i in range(rows)]
    assert data.pos[data.output_index].tolist() == [[rows - 1, j] for j in range(cols)]
    assert data.shape == (rows, cols)


def test_a_raster_is_networkx_grid_without_its_direction():
    data = raster(4, 6)
    expected = nx.relabel_nodes(nx.grid_2d_graph(4, 6), lambda cell: cell[0] * 6 + cell[1])
    assert nx.utils.graphs_equal(as_networkx(data).to_undirected(), expected)


def test_the_raster_of_the_source():
    """28 rows of ten cells: an image enters row by row at the left, ten classes leave at the bottom."""
    data = raster(28, 10)
    assert (data.num_nodes, data.num_edges) == (280, 522)
    assert Connectivity(data).is_acyclic()
    assert (len(data.input_index), len(data.output_index)) == (28, 10)
    levels = list(nx.topological_generations(as_networkx(data)))
    assert len(levels) == 28 + 10 - 1  # the steps that a signal takes from the first cell to the last


def test_several_rows_of_output_ports():
    """The cells of the last rows, row by row; nothing else of the graph changes, and the number may be that of all rows."""
    plain = raster(5, 3)
    for count in range(1, 6):
        data = raster(5, 3, output_rows=count)
        assert [data.pos[node].tolist() for node in data.output_index] == [[i, j] for i in range(5 - count, 5) for j in range(3)]
        assert torch.equal(data.edge_index, plain.edge_index)
        assert torch.equal(data.input_index, plain.input_index)
    assert raster(5, 3).output_index.tolist() == [12, 13, 14]
    with pytest.raises(ValueError, match=r"output_rows must be an integer in \[1, 5\], got 6"):
        raster(5, 3, output_rows=6)
    with pytest.raises(ValueError, match=r"output_rows must be an integer in \[1, 5\], got 0"):
        raster(5, 3, output_rows=0)


def test_batches():
    check_batch(tree(2), tree(3, 3))
    check_batch(raster(2, 3), raster(4, 2, output_rows=3))


def test_registered():
    check_registered("tree", "raster")


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None, [3], 2**31, 10**400])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("depth", tree),
        ("branching", lambda value: tree(2, value)),
        ("rows", lambda value: raster(value, 3)),
        ("cols", lambda value: raster(3, value)),
    ],
)
def test_bad_sizes(name, call, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer in "):
        call(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tree(31), r"^depth=31, branching=2 must give at most 2,147,483,647 nodes"),
        (lambda: tree(2**31 - 1), r"^depth=2147483647, branching=2 must give at most .* nodes"),
        (lambda: tree(2**31 - 1, 1), r"^depth=2147483647, branching=1 must give at most .* nodes"),
        (lambda: tree(2, 2**31 - 1), r"^depth=2, branching=2147483647 must give at most .* nodes"),
        (lambda: tree(2, 46_341), r"nodes"),
        (lambda: raster(46_341, 46_341), r"^rows=46341, cols=46341 must give at most .* nodes, got 2,147,488,281"),
        (lambda: raster(2**31 - 1, 2**31 - 1), r"nodes"),
        (lambda: raster(40_000, 40_000), r"edges"),
    ],
)
def test_absurd_sizes_are_refused_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()
