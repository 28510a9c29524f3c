"""The lattice against NetworkX, against an oracle written cell by cell, and against the properties that rules and readouts rely on."""

from __future__ import annotations

import doctest
import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch_geometric.data import Batch, Data
from torch_geometric.utils import coalesce, is_undirected

import topologies
from topologies import _lattice, grid

LENGTH = {
    "chebyshev": lambda offset: max(map(abs, offset)),
    "manhattan": lambda offset: sum(map(abs, offset)),
    "euclidean": lambda offset: math.sqrt(sum(step * step for step in offset)),
}


def oracle(sides, radius, metric, boundary, self_loops):
    """[(target, source, displacement)] in order, one cell and one offset at a time."""
    cells = list(itertools.product(*map(range, sides)))
    number = {cell: index for index, cell in enumerate(cells)}
    reach = math.floor(radius)
    ball = [o for o in itertools.product(range(-reach, reach + 1), repeat=len(sides)) if LENGTH[metric](o) <= radius]
    edges = {}
    for cell in cells:
        for offset in ball:
            source = [x + o for x, o in zip(cell, offset)]
            source = tuple(x % side if kind == "periodic" else x for x, side, kind in zip(source, sides, boundary))
            if source not in number or (source == cell and not self_loops):
                continue
            key = number[cell], number[source]
            rank = sum(o * o for o in offset), offset
            edges[key] = min(edges.get(key, rank), rank)
    return [(*key, edges[key][1]) for key in sorted(edges)]


@st.composite
def lattices(draw, boundaries=("periodic", "open")):
    """Arguments of a small lattice of one to four axes, most of them aliased somewhere."""
    dim = draw(st.integers(1, 4))
    sides = tuple(draw(st.lists(st.integers(1, (14, 6, 4, 3)[dim - 1]), min_size=dim, max_size=dim)))
    metric = draw(st.sampled_from(sorted(LENGTH)))
    most = (9, 4, 3, 2)[dim - 1]
    floats = st.floats(1, most) | st.integers(1, most**2).map(math.sqrt)
    radius = draw(floats if metric == "euclidean" else st.integers(1, most))
    boundary = tuple(draw(st.lists(st.sampled_from(boundaries), min_size=dim, max_size=dim)))
    return {"L": sides, "dim": dim, "radius": radius, "metric": metric, "boundary": boundary, "self_loops": draw(st.booleans())}


def wrapped(data: Data, boundary, difference):
    """Coordinate differences [E, dim] modulo the side on periodic axes."""
    side = torch.tensor([float(n) if kind == "periodic" else math.inf for n, kind in zip(data.shape, boundary)])
    return torch.where(side.isinf(), difference, difference % side)


@settings(deadline=None, max_examples=150)
@given(lattices())
def test_equals_the_oracle(arguments):
    """Edges, their order, displacements (and so the aliasing rule) and ports, on every metric, boundary and shape."""
    data = grid(**arguments)
    edges = oracle(*(arguments[key] for key in ("L", "radius", "metric", "boundary", "self_loops")))
    found = zip(data.edge_index[1].tolist(), data.edge_index[0].tolist(), map(tuple, data.edge_attr.long().tolist()))
    assert list(found) == edges
    ports = {offset: port for port, offset in enumerate(sorted({offset for _, _, offset in edges}))}
    assert data.edge_type.tolist() == [ports[offset] for _, _, offset in edges]


@settings(deadline=None, max_examples=100)
@given(lattices())
def test_invariants(arguments):
    """What every reader of a lattice takes for granted: valid, sorted, simple, symmetric, displacement = source − target."""
    data = grid(**arguments)
    source, target = data.edge_index
    assert data.validate(raise_on_error=True)
    assert data.num_nodes == math.prod(arguments["L"]) == len(data.pos)
    assert data.shape == arguments["L"]
    assert torch.equal(data.edge_index, coalesce(data.edge_index, num_nodes=data.num_nodes, sort_by_row=False))
    assert data.has_self_loops() == arguments["self_loops"]
    assert is_undirected(data.edge_index, num_nodes=data.num_nodes)
    difference = data.pos[source] - data.pos[target]
    assert torch.equal(wrapped(data, arguments["boundary"], difference), wrapped(data, arguments["boundary"], data.edge_attr))
    assert all(LENGTH[arguments["metric"]](offset) <= arguments["radius"] for offset in data.edge_attr.tolist())

    # the way back is the opposite displacement, save that half the box is −L/2 both ways
    there = dict(zip(zip(source.tolist(), target.tolist()), data.edge_attr.tolist()))
    for (j, i), offset in there.items():
        for axis, (forth, back) in enumerate(zip(offset, there[i, j])):
            half = arguments["boundary"][axis] == "periodic" and 2 * abs(forth) == data.shape[axis]
            assert back == (forth if half else -forth)


@settings(deadline=None, max_examples=60)
@given(lattices(boundaries=("periodic",)), st.data())
def test_translation_invariance(arguments, draw):
    """On a torus, moving every cell by the same vector maps edges to edges with the same displacement and port; all degrees are equal."""
    data = grid(**arguments)
    by = torch.tensor([draw.draw(st.integers(0, side - 1)) for side in data.shape])
    cells = torch.arange(data.num_nodes).view(data.shape)
    moved = cells.roll(tuple((-by).tolist()), dims=tuple(range(len(data.shape)))).flatten()
    edge_index, (attr, port) = coalesce(moved[data.edge_index], [data.edge_attr, data.edge_type], sort_by_row=False)
    assert torch.equal(edge_index, data.edge_index)
    assert torch.equal(attr, data.edge_attr)
    assert torch.equal(port, data.edge_type)
    degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
    assert (degree == degree[0]).all()


@pytest.mark.parametrize("sides", [(7,), (4, 5), (2, 3), (1, 4), (3, 4, 2), (2, 2, 2), (3, 3, 3, 3)])
@pytest.mark.parametrize("boundary", ["periodic", "open", "mixed"])
def test_networkx_grid_graph(sides, boundary):
    """Radius 1 in the Manhattan metric is NetworkX's grid graph; like it, a wrap over two cells adds no second edge."""
    kinds = [("periodic", "open")[axis % 2] if boundary == "mixed" else boundary for axis in range(len(sides))]
    data = grid(sides, len(sides), metric="manhattan", boundary=kinds)
    graph = nx.grid_graph(sides[::-1], periodic=[kind == "periodic" for kind in reversed(kinds)])
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))  # a cycle of one cell
    number = {cell: int(np.ravel_multi_index(cell if isinstance(cell, tuple) else (cell,), sides)) for cell in graph}
    expected = {(number[a], number[b]) for a, b in graph.to_directed().edges}
    assert set(map(tuple, data.edge_index.t().tolist())) == expected
    assert data.num_edges == len(expected)


@pytest.mark.parametrize(
    ("metric", "radius", "degree"),
    [
        ("chebyshev", 1, 26),
        ("chebyshev", 2, 124),
        ("manhattan", 1, 6),
        ("manhattan", 2, 24),
        ("euclidean", 1, 6),
        ("euclidean", 1.41, 6),
        ("euclidean", math.nextafter(math.sqrt(2), 0), 6),
        ("euclidean", math.sqrt(2), 18),
        ("euclidean", math.sqrt(3), 26),  # its square is 2.9999999999999996
        ("euclidean", 2, 32),
    ],
)
def test_degree_of_the_neighbourhoods(metric, radius, degree):
    data = grid(6, 3, radius, metric=metric)
    assert (torch.bincount(data.edge_index[1]) == degree).all()
    assert data.num_edge_types == degree


def test_fields():
    """The contract in one small picture: dtypes, C order, row 0 the source, ports in lexicographic order of the offsets."""
    data = grid((3, 4), 2, metric="manhattan", boundary=("open", "periodic"))
    assert sorted(data.keys()) == ["edge_attr", "edge_index", "edge_type", "name", "num_nodes", "pos", "shape"]
    assert data.name == "grid"
    assert type(data.shape) is tuple
    assert data.edge_index.dtype == data.edge_type.dtype == torch.int64
    assert data.edge_attr.dtype == data.pos.dtype == torch.get_default_dtype()
    assert data.pos.tolist() == [[x, y] for x in range(3) for y in range(4)]
    into_zero = data.edge_index[1] == 0
    assert data.edge_index[0, into_zero].tolist() == [1, 3, 4]
    assert data.edge_attr[into_zero].tolist() == [[0, 1], [0, -1], [1, 0]]
    assert data.edge_type[into_zero].tolist() == [2, 1, 3]  # of (-1,0) (0,-1) (0,1) (1,0)


def test_self_loops_take_their_place_among_the_ports():
    data = grid(5, 2, self_loops=True)
    loops = data.edge_index[0] == data.edge_index[1]
    assert loops.sum() == 25
    assert (data.edge_type[loops] == 4).all()  # the middle of nine
    assert data.num_edge_types == 9


@pytest.mark.parametrize(
    ("side", "radius", "steps"), [(4, 2, [-2, -1, 1]), (2, 1, [-1]), (3, 2, [-1, 1]), (5, 2, [-2, -1, 1, 2]), (1, 3, [])]
)
def test_aliases_keep_the_shortest_then_the_first(side, radius, steps):
    data = grid(side, 1, radius)
    for node in range(side):
        into = data.edge_index[1] == node
        assert sorted(data.edge_attr[into, 0].tolist()) == steps
        assert sorted(data.edge_type[into].tolist()) == list(range(len(steps)))


@pytest.mark.parametrize("boundary", ["periodic", "open"])
@pytest.mark.parametrize("radius", [3, 50, 10**30])
def test_a_radius_beyond_the_box_is_all_to_all(boundary, radius):
    data = grid(4, 3, radius, boundary=boundary)
    assert data.num_edges == 64 * 63
    assert data.num_edge_types == (63 if boundary == "periodic" else 7**3 - 1)


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_one_cell_has_no_edges(dim):
    data = grid(1, dim)
    assert data.validate(raise_on_error=True)
    assert (data.num_nodes, data.num_edges, data.pos.shape, data.edge_attr.shape) == (1, 0, (1, dim), (0, dim))
    assert grid(1, dim, self_loops=True).edge_index.tolist() == [[0], [0]]


@pytest.mark.parametrize("metric", sorted(LENGTH))
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_chunks_do_not_show(metric, boundary, monkeypatch):
    """The result does not depend on how many targets are built at once, nor on how chunks cut across rows and faces."""
    whole = grid((9, 6, 7), 3, 2, metric=metric, boundary=boundary)
    for chunk in (1, 700):
        monkeypatch.setattr(_lattice, "_CHUNK", chunk)
        parts = grid((9, 6, 7), 3, 2, metric=metric, boundary=boundary)
        for key in ("edge_index", "edge_attr", "edge_type"):
            assert torch.equal(parts[key], whole[key])


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_copied_patterns_equal_walked_ones(boundary):
    """Every cell walked by itself finds what it was given by copying the pattern of its kind."""
    arguments = ((9, 6, 7), 3, 2, "euclidean", boundary)
    data = grid(*arguments[:3], metric="euclidean", boundary=boundary)
    axes, budget = _lattice._arguments(*arguments)
    source, target, port = _lattice._walk(axes, _lattice._ports(axes, "euclidean", budget, False)[1], torch.arange(data.num_nodes))
    assert torch.equal(torch.stack([source, target]), data.edge_index)
    assert torch.equal(port, data.edge_type)


def test_one_value_per_axis_may_be_any_sequence():
    expected = grid((3, 4), 2, 1)
    for sides in ([3, 4], range(3, 5), np.array([3, 4]), torch.tensor([3, 4]), torch.Size([3, 4])):
        data = grid(sides, 2, boundary=["periodic", "periodic"])
        assert data.shape == (3, 4)
        assert all(type(side) is int for side in data.shape)
        assert torch.equal(data.edge_index, expected.edge_index)
    assert grid(np.int64(3), np.int64(2), np.int64(1)).shape == (3, 3)


def test_floats_follow_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        data = grid(3, 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert data.pos.dtype == data.edge_attr.dtype == torch.float64


def test_two_lattices_in_a_batch():
    """Collating shifts node numbers and nothing else, and gives each lattice back as it was."""
    first, second = grid((3, 4), 2), grid(5, 2, 2, boundary="open")
    batch = Batch.from_data_list([first, second])
    assert batch.num_nodes == 12 + 25
    assert torch.equal(batch.edge_index, torch.cat([first.edge_index, second.edge_index + 12], dim=1))
    assert torch.equal(batch.edge_type, torch.cat([first.edge_type, second.edge_type]))
    for one, back in zip((first, second), batch.to_data_list()):
        assert (back.shape, back.name, back.num_nodes) == (one.shape, one.name, one.num_nodes)
        assert all(torch.equal(back[key], one[key]) for key in ("edge_index", "edge_attr", "edge_type", "pos"))


def test_registered():
    assert topologies.GENERATORS["grid"] is topologies.grid


def test_example_in_the_docstring():
    results = doctest.DocTestRunner().run(doctest.DocTestFinder().find(grid, "grid", globs={"grid": grid})[0])
    assert (results.failed, results.attempted) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"L": 0}, r"^L must be an integer in .*got 0"),
        ({"L": -3}, r"^L must be .*got -3"),
        ({"L": 2.0}, r"^L must be .*got 2.0"),
        ({"L": True}, r"^L must be .*got True"),
        ({"L": None}, r"^L must be .*got None"),
        ({"L": "44"}, r"^L must be .*got '44'"),
        ({"L": b"44"}, r"^L must be .*got b'44'"),
        ({"L": {4, 5}}, r"^L must be .*got \{4, 5\}"),
        ({"L": ()}, r"^L must be .*one per axis \(dim=2\), got 0 values"),
        ({"L": (4, 4, 4)}, r"^L must be .*one per axis \(dim=2\), got 3 values"),
        ({"L": (4, 0)}, r"^L\[1\] must be .*got 0"),
        ({"L": (4, False)}, r"^L\[1\] must be .*got False"),
        ({"L": (math.nan, 4)}, r"^L\[0\] must be .*got nan"),
        ({"L": torch.tensor([4.0, 4.0])}, r"^L\[0\] must be .*got 4.0"),
        ({"L": np.ones((2, 2), int)}, r"^L\[0\] must be .*got \[1, 1\]"),
        ({"dim": 0}, r"^dim must be .*got 0"),
        ({"dim": 65}, r"^dim must be .*got 65"),
        ({"dim": 10**9}, r"^dim must be "),
        ({"dim": 2.0}, r"^dim must be .*got 2.0"),
        ({"dim": True}, r"^dim must be .*got True"),
        ({"dim": "2"}, r"^dim must be .*got '2'"),
        ({"radius": 0}, r"^radius must be .*got 0"),
        ({"radius": -1}, r"^radius must be .*got -1"),
        ({"radius": 1.5}, r"^radius must be an integer >= 1, got 1.5"),
        ({"radius": 2.0, "metric": "manhattan"}, r"^radius must be an integer >= 1, got 2.0"),
        ({"radius": True}, r"^radius must be .*got True"),
        ({"radius": None}, r"^radius must be .*got None"),
        ({"radius": math.nan, "metric": "euclidean"}, r"^radius must be a finite number >= 1, got nan"),
        ({"radius": math.inf, "metric": "euclidean"}, r"^radius must be a finite number >= 1, got inf"),
        ({"radius": 0.99, "metric": "euclidean"}, r"^radius must be .*got 0.99"),
        ({"radius": "2", "metric": "euclidean"}, r"^radius must be .*got '2'"),
        ({"metric": "moore"}, r"^metric must be one of 'chebyshev', 'manhattan', 'euclidean', got 'moore'"),
        ({"metric": 2}, r"^metric must be one of .*got 2"),
        ({"boundary": "closed"}, r"^boundary must be one of 'periodic', 'open', got 'closed'"),
        ({"boundary": True}, r"^boundary must be one of .*got True"),
        ({"boundary": ["open"]}, r"^boundary must be .*one per axis \(dim=2\), got 1 values"),
        ({"boundary": ["open", "shut"]}, r"^boundary\[1\] must be one of .*got 'shut'"),
        ({"self_loops": 1}, r"^self_loops must be True or False, got 1"),
        ({"self_loops": None}, r"^self_loops must be True or False, got None"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid(**{"L": 4, "dim": 2, **arguments})


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"L": 10**6, "dim": 3}, "nodes"),
        ({"L": 2, "dim": 64}, "nodes"),
        ({"L": 10**400, "dim": 1}, "L must be"),
        ({"L": 2**31 - 1, "dim": 1}, "edges"),
        ({"L": 10**9, "dim": 1, "radius": 10**9}, "edges"),
        ({"L": 10**9, "dim": 1, "radius": 10**9, "boundary": "open"}, "edges"),
        ({"L": 215, "dim": 3, "radius": 1e9, "metric": "euclidean"}, "edges"),
        ({"L": 2, "dim": 16, "boundary": "open"}, "edges"),  # K = 3^16 offsets must not be listed to find out
        ({"L": 2, "dim": 16, "radius": 12, "metric": "manhattan", "boundary": "open"}, "edges"),
    ],
)
def test_absurd_sizes_are_refused_before_any_work(arguments, what):
    with Work() as work, pytest.raises(ValueError, match=what):
        grid(**arguments)
    assert work.operations == 0


class Work(TorchDispatchMode):
    """Counts tensor operations and notes the bytes of every storage that one of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.allocated: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        made = (tensor.untyped_storage() for tensor in tree_leaves(out) if isinstance(tensor, torch.Tensor))
        self.allocated += [storage.nbytes() for storage in made if storage.data_ptr() not in given]
        return out


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_vectorised_and_light(boundary):
    """32³ cells, 4 M edges: no Python loop over cells, and no intermediate beyond a small part of the result."""
    with Work() as work:
        data = grid(32, 3, 2, boundary=boundary)
    pairs = 32 * 5 if boundary == "periodic" else 32 + 2 * 31 + 2 * 30  # of one axis, over the steps −2 … 2
    assert data.num_edges == pairs**3 - 32**3
    assert work.operations < data.num_nodes / 10
    results = [data[key].nbytes for key in ("edge_index", "edge_attr", "edge_type", "pos")]
    for size in results:
        work.allocated.remove(size)
    assert max(work.allocated) < 0.05 * sum(results)


@pytest.mark.slow
def test_64_cubed_radius_2():
    """The size that the library is made for: 32.5 M edges."""
    data = grid(64, 3, 2)
    source, target = data.edge_index
    assert data.num_edges == 64**3 * 124
    assert torch.equal(target, torch.arange(64**3).repeat_interleave(124))
    rows = source.view(-1, 124)
    assert (rows[:, 1:] > rows[:, :-1]).all()
    steps = list(itertools.product(range(-2, 3), repeat=3))
    steps.remove((0, 0, 0))
    for cell in [(0, 0, 0), (63, 63, 63), (0, 31, 63), (32, 32, 32), (1, 62, 2)]:
        node = int(np.ravel_multi_index(cell, data.shape))
        heard = {
            int(np.ravel_multi_index(tuple((x + o) % 64 for x, o in zip(cell, step)), data.shape)): (port, list(step))
            for port, step in enumerate(steps)
        }
        part = slice(124 * node, 124 * (node + 1))
        assert source[part].tolist() == sorted(heard)
        found = zip(data.edge_type[part].tolist(), data.edge_attr[part].tolist())
        assert list(found) == [heard[neighbour] for neighbour in sorted(heard)]
