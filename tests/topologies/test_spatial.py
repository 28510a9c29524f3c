"""Graphs in space against brute force, known densities and the formula of the liquid."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import pytest
import torch
from graph_checks import as_networkx, check, in_degree
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch_geometric.utils import coalesce

from topologies import delaunay, geometric, liquid

# --- geometric


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.floats(1e-3, 3), st.integers(1, 4), st.sampled_from(["open", "periodic"]), st.integers(0, 1000))
def test_geometric_is_brute_force(n, radius, dim, boundary, seed):
    """Who is within the radius, of the nearest image on a torus, and the displacement to it, by comparing all pairs."""
    data = geometric(n, radius, dim, boundary=boundary, seed=seed)
    displacement = data.pos[:, None].double() - data.pos[None].double()  # source − target
    images = torch.tensor(list(itertools.product([-1, 0, 1] if boundary == "periodic" else [0], repeat=dim))).double()
    shifted = displacement[None] + images[:, None, None]
    distance, image = shifted.norm(dim=-1).min(0)
    near = (distance <= radius) & ~torch.eye(n, dtype=torch.bool)
    assert torch.equal(data.edge_index, near.T.nonzero().flip(1).T)
    source, target = data.edge_index
    torch.testing.assert_close(data.edge_attr, shifted[image[source, target], source, target].float(), atol=1e-6, rtol=0)
    assert "shape" not in data
    if data.num_edges:
        check(data, "geometric")


def test_geometric_density():
    """On a torus every pair is an edge with the probability of the ball, independently in pairs."""
    n, radius = 3000, 0.05
    for dim, volume in ((2, math.pi * radius**2), (3, 4 / 3 * math.pi * radius**3)):
        pairs = n * (n - 1) / 2
        found = geometric(n, radius, dim, boundary="periodic", seed=dim).num_edges / 2
        assert abs(found - pairs * volume) < 4 * math.sqrt(pairs * volume)


def test_positions_are_uniform():
    pos = geometric(4000, 1e-6, 2, seed=4).pos
    assert all(stats.kstest(axis.numpy(), "uniform").pvalue > 0.01 for axis in pos.T)


def test_floats_have_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        graphs = [geometric(20, 0.3), delaunay(20), liquid()]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {value.dtype for data in graphs for value in data.to_dict().values() if torch.is_tensor(value)} == {torch.int64, torch.float64}


# --- Delaunay


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 7, 12])
def test_few_points(dim, n):
    """Up to dim + 1 points all are joined; beyond, the graph is connected and every node of it has at least dim neighbours."""
    data = delaunay(n, dim)
    assert torch.equal(data.edge_index, coalesce(data.edge_index, num_nodes=n, sort_by_row=False))
    if n <= dim + 1:
        assert data.num_edges == n * (n - 1)
    else:
        check(data, "delaunay")
        assert nx.is_weakly_connected(as_networkx(data))
        assert in_degree(data).min() >= dim
    source, target = data.edge_index
    assert torch.equal(data.edge_attr, data.pos[source] - data.pos[target])


def test_on_a_line_each_is_joined_to_the_next():
    data = delaunay(50, 1, seed=2)
    rank = data.pos[:, 0].argsort().argsort()
    assert torch.equal((rank[data.edge_index[0]] - rank[data.edge_index[1]]).abs(), torch.ones(98, dtype=torch.long))


def test_triangles_have_empty_circles():
    """The definition: three nodes are mutually joined around an empty circle exactly if no fourth point lies inside it."""
    data = delaunay(25, seed=3)
    graph, pos = as_networkx(data).to_undirected(), data.pos.double()
    sides = set()
    for corners in itertools.combinations(range(25), 3):
        a, b, c = pos[list(corners)]
        centre = torch.linalg.solve(2 * torch.stack([b - a, c - a]), torch.stack([b @ b - a @ a, c @ c - a @ a]))
        others = [node for node in range(25) if node not in corners]
        if (pos[others] - centre).norm(dim=1).min() > (a - centre).norm():
            sides |= set(itertools.combinations(corners, 2))
    assert {tuple(sorted(edge)) for edge in graph.edges} == sides


@pytest.mark.parametrize("seed", range(3))
def test_delaunay_is_a_planar_triangulation(seed):
    """Euler: 3n − 3 − h edges, h the corners of the convex hull."""
    from scipy.spatial import ConvexHull

    data = delaunay(300, seed=seed)
    assert nx.check_planarity(as_networkx(data).to_undirected())[0]
    assert data.num_edges / 2 == 3 * 300 - 3 - len(ConvexHull(data.pos.double().numpy()).vertices)


# --- the liquid


def z_scores(data, scale, length):
    """(pair, squared distance) -> how many standard deviations the number of edges is off Σ C·exp(−(D/λ)²), where ≥ 10 are expected."""
    n = data.num_nodes
    squared = (data.pos[:, None] - data.pos[None]).square().sum(-1).long()
    pair = 2 * data.node_type[:, None] + data.node_type[None]  # [source, target]
    joined = torch.zeros(n, n, dtype=torch.bool)
    joined[tuple(data.edge_index)] = True
    assert torch.equal(pair[tuple(data.edge_index)], data.edge_type)
    found = {}
    furthest = int(squared.max()) + 1
    for kind in range(4):
        among = pair == kind
        trials, edges = (torch.bincount(squared[pairs], minlength=furthest).tolist() for pairs in (among, among & joined))
        for distance in range(1, furthest):
            p = scale[kind] * math.exp(-distance / length**2)
            if trials[distance] * p >= 10:
                found[kind, distance] = (edges[distance] - trials[distance] * p) / math.sqrt(trials[distance] * p * (1 - p))
    return found


@pytest.mark.parametrize(
    ("sides", "scale", "length"),
    [((15, 10, 8), (0.3, 0.2, 0.4, 0.1), 2.0), ((40, 30), (1.0, 0.05, 0.6, 0.9), 3.5), ((9, 9, 9), (1.0, 1.0, 0.0, 0.5), 50.0)],
)
def test_liquid_rates(sides, scale, length):
    """Edges of every pair of types at every distance: each rate within 4.5 standard deviations, and all together as spread as chance."""
    data = liquid(sides, scale=scale, length=length, seed=1)
    z = torch.tensor(list(z_scores(data, scale, length).values()), dtype=torch.float64)
    assert len(z) > 20
    assert z.abs().max() < 4.5
    assert stats.chi2(len(z)).sf(float(z.square().sum())) > 0.01
    if 0.0 in scale:
        assert not (data.edge_type == scale.index(0.0)).any()


def test_directions_are_independent():
    """Two neurons are joined both ways as often as two independent draws allow."""
    data = liquid((500, 2), scale=0.5, length=1e6, excitatory=1.0, seed=2)
    matrix = torch.zeros(1000, 1000, dtype=torch.bool)
    matrix[tuple(data.edge_index)] = True
    pairs = 1000 * 999 / 2
    both = int((matrix & matrix.T).sum()) / 2
    assert abs(both - pairs / 4) < 4 * math.sqrt(pairs * 3 / 16)


def test_the_column_of_the_paper():
    """135 neurons, 20 % inhibitory, open box: the mean number of edges over 50 columns is the sum of the formula."""
    columns = [liquid(seed=seed) for seed in range(50)]
    exact = 0.0
    points = list(itertools.product(range(15), range(3), range(3)))
    rate = (108 * 107 * 0.3 + 108 * 27 * (0.2 + 0.4) + 27 * 26 * 0.1) / (135 * 134)
    for a, b in itertools.permutations(points, 2):
        exact += rate * math.exp(-(math.dist(a, b) ** 2) / 4)
    mean = sum(data.num_edges for data in columns) / 50
    assert abs(mean - exact) < 4 * math.sqrt(exact / 50) * 1.5  # where the types fall adds to the spread
    for data in columns:
        check(data, "liquid", undirected=False)
        assert int((data.node_type == 0).sum()) == 108
        assert torch.equal(data.pos, torch.tensor(points).float())


@pytest.mark.parametrize(("excitatory", "expected"), [(0.0, 0), (1.0, 60), (0.5, 30), (0.33, 20)])
def test_exactly_so_many_are_excitatory(excitatory, expected):
    assert int((liquid((5, 4, 3), excitatory=excitatory).node_type == 0).sum()) == expected


def test_types_fall_anywhere():
    """Every place is inhibitory equally often."""
    counts = sum(liquid((10,), scale=0.0, excitatory=0.7, seed=seed).node_type for seed in range(400))
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_arriving_magnitudes_sum_to_one():
    """And the weight of each edge has its pair's sign, or is the pair's own weight over the in-degree."""
    data = liquid((8, 4, 3), seed=3)
    total = torch.zeros(data.num_nodes).index_add_(0, data.edge_index[1], data.edge_weight.abs())
    heard = in_degree(data) > 0
    torch.testing.assert_close(total[heard], torch.ones(int(heard.sum())))
    assert torch.equal(data.edge_weight < 0, data.edge_type >= 2)
    own = liquid((8, 4, 3), weight=(30, 60, -19, -19), seed=3)
    expected = torch.tensor([30.0, 60, -19, -19])[own.edge_type] / in_degree(own)[own.edge_index[1]]
    torch.testing.assert_close(own.edge_weight, expected)


@pytest.mark.parametrize("sides", [(1,), (1, 1, 1), (6,), (2, 1, 3, 2)])
def test_any_box(sides):
    """One neuron has no edge; certain edges (C = 1 and λ beyond the box) make the graph complete."""
    data = liquid(sides, scale=1, length=1e12)
    n = math.prod(sides)
    assert data.num_edges == n * (n - 1)
    assert data.validate(raise_on_error=True)
    assert liquid(sides, scale=0).num_edges == 0
    assert liquid(sides, scale=1, length=1e-300).num_edges == 0
    assert liquid(sides, scale=1, length=1e300).num_edges == n * (n - 1)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: geometric(0, 0.1), "n"),
        (lambda: geometric(10, 0.0), "radius"),
        (lambda: geometric(10, -1), "radius"),
        (lambda: geometric(10, math.nan), "radius"),
        (lambda: geometric(10, math.inf), "radius"),
        (lambda: geometric(10, 0.1, 0), "dim"),
        (lambda: geometric(10, 0.1, boundary="torus"), "boundary"),
        (lambda: geometric(60_000, 2.0), "n"),
        (lambda: delaunay(0), "n"),
        (lambda: delaunay(10, 0), "dim"),
        (lambda: delaunay(10, 10), "dim"),
        (lambda: liquid(()), "L"),
        (lambda: liquid(15), "L"),
        (lambda: liquid((3, 0)), r"L\[1\]"),
        (lambda: liquid((3, 2.5)), r"L\[1\]"),
        (lambda: liquid((2**20, 2**20)), "L"),
        (lambda: liquid((300, 300, 300), length=100), "L"),
        (lambda: liquid((2,) * 30, scale=1e-12, length=100), "L"),
        (lambda: liquid(scale=1.1), "scale"),
        (lambda: liquid(scale=(0.1, 0.1, 0.1)), "scale"),
        (lambda: liquid(scale=(0.1, 0.1, -0.1, 0.1)), r"scale\[2\]"),
        (lambda: liquid(length=0), "length"),
        (lambda: liquid(length=math.nan), "length"),
        (lambda: liquid(excitatory=1.2), "excitatory"),
        (lambda: liquid(weight=(1, math.nan, 1, 1)), r"weight\[1\]"),
        (lambda: liquid(weight="1"), "weight"),
    ],
)
def test_bad_arguments(build, name):
    with pytest.raises(ValueError, match=rf"^{name}[=, ].*must "):
        build()
