"""The triangular lattice and the honeycomb against NetworkX, against the distances of their points, and closed forms."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import pytest
import torch
from graph_checks import as_networkx, check, check_batch, check_registered, in_degree
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import hexagonal, triangular

LATTICES = pytest.mark.parametrize("lattice", [triangular, hexagonal])
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
WIDTH = {triangular: 1.0, hexagonal: math.sqrt(3)}  # of a cell
HEIGHT = {triangular: math.sqrt(3) / 2, hexagonal: 1.5}


def undirected(data):
    return as_networkx(data).to_undirected()


@LATTICES
@settings(deadline=None, max_examples=30)
@given(SIZES)
def test_open_neighbours_are_the_points_at_distance_one(lattice, size):
    """No closer pair of points exists, and the displacement is that of the points."""
    data = lattice(*size, boundary="open")
    check(data, lattice.__name__)
    distance = torch.cdist(data.pos.double(), data.pos.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert data.num_nodes == 1 or distance[~torch.eye(data.num_nodes, dtype=torch.bool)].min() > 1 - 1e-5
    near = ((distance - 1).abs() < 1e-5).nonzero().t()
    assert torch.equal(data.edge_index.flip(0), near)
    source, target = data.edge_index
    torch.testing.assert_close(data.pos[source] - data.pos[target], data.edge_attr)


@LATTICES
@settings(deadline=None, max_examples=30)
@given(SIZES)
def test_periodic_neighbours_are_the_points_at_distance_one_on_the_torus(lattice, size):
    """The torus is spanned by a row and by ``rows`` rows (half a cell aside where they are odd): who is a unit apart on it is joined, and
    the displacement is one of the unit vectors between the two."""
    rows, cols = size
    data = lattice(rows, cols)
    check(data, lattice.__name__)
    round_a_row = torch.tensor([cols * WIDTH[lattice], 0.0], dtype=torch.float64)
    over_the_top = torch.tensor([rows % 2 * WIDTH[lattice] / 2, rows * HEIGHT[lattice]], dtype=torch.float64)
    pos = data.pos.double()
    expected = {}
    for a, b in itertools.product(range(-4, 5), repeat=2):  # with one row of one cell even the fourth copy is near
        away = pos[:, None] + a * round_a_row + b * over_the_top - pos[None]
        for source, target in ((away.norm(dim=2) - 1).abs().lt(1e-5) & ~torch.eye(len(pos), dtype=torch.bool)).nonzero().tolist():
            expected.setdefault((target, source), []).append(away[source, target].tolist())
    assert list(zip(data.edge_index[1].tolist(), data.edge_index[0].tolist())) == sorted(expected)
    for key, way in zip(sorted(expected), data.edge_attr.tolist()):
        first = min(expected[key], key=lambda found: [round(x, 4) for x in found])  # of several, the lexicographically first
        assert way == pytest.approx(first, abs=1e-5)


@LATTICES
@settings(deadline=None, max_examples=40)
@given(SIZES, st.sampled_from(["periodic", "open"]))
def test_a_port_is_a_direction(lattice, size, boundary):
    """The same unit vector at every cell, numbered in lexicographic order; the way back is the opposite port unless both alias."""
    data = lattice(*size, boundary=boundary)
    ways = {}
    for port, way in zip(data.edge_type.tolist(), data.edge_attr.tolist()):
        assert ways.setdefault(port, way) == way
        assert math.hypot(*way) == pytest.approx(1)
    assert [ways[port] for port in sorted(ways)] == sorted(ways.values())
    ports = dict(zip(map(tuple, data.edge_index.t().tolist()), data.edge_type.tolist()))
    if boundary == "open" or min(size) > 2:
        assert all(ports[i, j] == 5 - port for (j, i), port in ports.items())


def test_directions():
    """Angles from the target to the source, in the order of the ports."""
    degrees = {}
    for lattice in (triangular, hexagonal):
        data = lattice(4, 4)
        angle = torch.rad2deg(torch.atan2(data.edge_attr[:, 1], data.edge_attr[:, 0])).round().long() % 360
        degrees[lattice] = [int(angle[data.edge_type == port].unique()) for port in range(6)]
        if lattice is hexagonal:
            for sublattice, ports in enumerate([[1, 2, 5], [0, 3, 4]]):
                assert data.edge_type[data.edge_index[1] % 2 == sublattice].unique().tolist() == ports
    assert degrees == {triangular: [180, 240, 120, 300, 60, 0], hexagonal: [210, 150, 270, 90, 330, 30]}


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 4), (2, 3), (3, 2), (4, 5)])
def test_open_ones_are_those_of_networkx(m, n):
    """Triangular: the same points, too. NetworkX's honeycomb has no site of degree 1, and rows and columns exchanged."""
    graph = nx.triangular_lattice_graph(m, 2 * n)
    data = triangular(m + 1, n + 1, boundary="open")
    number = {cell: cell[1] * (n + 1) + cell[0] for cell in graph}
    assert nx.utils.graphs_equal(undirected(data), nx.Graph(nx.relabel_nodes(graph, number).edges))
    pos = {number[cell]: xy for cell, xy in nx.get_node_attributes(graph, "pos").items()}
    torch.testing.assert_close(data.pos, torch.tensor([pos[node] for node in range(data.num_nodes)]))

    honeycomb = undirected(hexagonal(n + 1, m + 1, boundary="open"))
    ends = [node for node, degree in honeycomb.degree if degree == 1]
    assert len(ends) == 2
    honeycomb.remove_nodes_from(ends)
    assert nx.is_isomorphic(honeycomb, nx.hexagonal_lattice_graph(m, n))


@pytest.mark.parametrize(("rows", "cols"), [(4, 3), (4, 5), (6, 4)])
def test_periodic_triangular_is_that_of_networkx(rows, cols):
    assert nx.is_isomorphic(undirected(triangular(rows, cols)), nx.triangular_lattice_graph(rows, 2 * cols, periodic=True))


@pytest.mark.parametrize(("rows", "cols"), [(2, 2), (2, 3), (4, 3), (6, 5)])
def test_periodic_honeycomb_is_that_of_networkx(rows, cols):
    assert nx.is_isomorphic(undirected(hexagonal(rows, cols)), nx.hexagonal_lattice_graph(cols, rows, periodic=True))


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (5, 4), (6, 5), (7, 7)])
def test_closed_forms_of_the_periodic_lattices(rows, cols):
    """Six neighbours of which six pairs of fifteen are joined: clustering 2/5, two triangles per cell. The honeycomb: three neighbours, two
    colours, no ring shorter than a hexagon, one hexagon per cell."""
    data = triangular(rows, cols)
    graph = undirected(data)
    assert (in_degree(data) == 6).all()
    assert set(nx.clustering(graph).values()) == {0.4}
    assert sum(nx.triangles(graph).values()) / 3 == 2 * rows * cols
    data = hexagonal(rows, cols)
    graph = undirected(data)
    assert (in_degree(data) == 3).all()
    assert nx.girth(graph) == 6
    assert nx.is_bipartite(graph)
    assert (data.edge_index.sum(0) % 2 == 1).all()
    assert nx.average_clustering(graph) == 0
    hexagons = sum(1 for _ in nx.simple_cycles(graph, length_bound=6))
    assert hexagons == rows * cols


@LATTICES
@pytest.mark.parametrize(("rows", "cols"), [(3, 4), (4, 3), (5, 6), (1, 4), (2, 2)])
def test_all_cells_of_a_torus_are_alike(lattice, rows, cols):
    """Moving along a row, and up a row with a step to the side, maps edges to edges, ports to ports: also where the torus is twisted."""
    data = lattice(rows, cols)
    w, h = WIDTH[lattice], HEIGHT[lattice]
    edges = set(zip(*data.edge_index.tolist(), data.edge_type.tolist()))

    def node_at(x, y):
        if y > (rows - 0.25) * h:
            x, y = x - rows % 2 * w / 2, y - rows * h
        round_the_torus = torch.tensor([[x - cols * w, y], [x, y], [x + cols * w, y]])
        (found,) = ((round_the_torus[:, None] - data.pos).norm(dim=2).amin(0) < 1e-3).nonzero()
        return int(found)

    for dx, dy in ((w, 0.0), (w / 2, h)):
        moved = [node_at(x + dx, y + dy) for x, y in data.pos.tolist()]
        assert sorted(moved) == list(range(data.num_nodes))
        assert {(moved[j], moved[i], port) for j, i, port in edges} == edges


@pytest.mark.parametrize(
    ("lattice", "size", "degree"),
    [
        (triangular, (1, 1), 0),
        (triangular, (1, 9), 2),
        (triangular, (2, 2), 3),
        (triangular, (3, 2), 5),
        (triangular, (3, 3), 6),
        (hexagonal, (1, 1), 1),
        (hexagonal, (1, 9), 2),
        (hexagonal, (9, 1), 2),
        (hexagonal, (2, 2), 3),
    ],
)
def test_small_tori_stay_simple(lattice, size, degree):
    assert (in_degree(lattice(*size)) == degree).all()


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 5), (4, 1), (3, 4), (6, 5)])
def test_edges_of_the_open_lattices(rows, cols):
    """Euler: cells less the faces that the border costs."""
    assert triangular(rows, cols, boundary="open").num_edges == 2 * (rows * (cols - 1) + (rows - 1) * (2 * cols - 1))
    honeycomb = hexagonal(rows, cols, boundary="open")
    assert honeycomb.num_edges == 2 * (rows * (2 * cols - 1) + (rows - 1) * cols)
    assert honeycomb.num_edges // 2 - honeycomb.num_nodes + 1 == (rows - 1) * (cols - 1)  # hexagons


def test_fields():
    data = hexagonal(2, 3)
    assert sorted(data.keys()) == ["edge_attr", "edge_index", "edge_type", "name", "num_nodes", "pos", "shape"]
    assert data.shape == (2, 3, 2)
    assert triangular(2, 3).shape == (2, 3)
    rows = data.pos[:, 1].view(2, 6)
    assert rows.tolist() == [[0, 0.5, 0, 0.5, 0, 0.5], [1.5, 2, 1.5, 2, 1.5, 2]]


@LATTICES
def test_floats_follow_the_default_dtype(lattice):
    torch.set_default_dtype(torch.float64)
    try:
        data = lattice(3, 3)
        check(data, lattice.__name__)
    finally:
        torch.set_default_dtype(torch.float32)
    assert data.pos.dtype == data.edge_attr.dtype == torch.float64
    assert (data.edge_attr.norm(dim=1) - 1).abs().max() < 1e-15


@LATTICES
def test_batches(lattice):
    check_batch(lattice(3, 4), lattice(2, 5, boundary="open"))


def test_registered():
    check_registered("triangular", "hexagonal")


@LATTICES
@pytest.mark.parametrize("value", [0, -1, 2.0, True, math.nan, "3", None, [3], 2**31, 10**400])
def test_bad_sizes(lattice, value):
    with pytest.raises(ValueError, match=r"^rows must be an integer in "):
        lattice(value, 3)
    with pytest.raises(ValueError, match=r"^cols must be an integer in "):
        lattice(3, value)


@LATTICES
def test_bad_boundary_and_absurd_sizes(lattice):
    with pytest.raises(ValueError, match=r"^boundary must be one of 'periodic', 'open', got 'closed'"):
        lattice(3, 3, boundary="closed")
    with pytest.raises(ValueError, match=r"^boundary must be one of "):
        lattice(3, 3, boundary=["open", "open"])
    with pytest.raises(ValueError, match=r"^rows=50000, cols=50000 must give at most 2,147,483,647 nodes"):
        lattice(50_000, 50_000)
    with pytest.raises(ValueError, match=r"^rows=30000, cols=30000 must give at most 2,147,483,647 edges"):
        lattice(30_000, 30_000)
