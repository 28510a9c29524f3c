"""Null models: what each keeps is kept exactly, what it randomises has the distribution that it promises."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections import Counter
from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader, IterDataPipe
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.transforms import Compose
from torch_geometric.utils import coalesce, is_undirected

import topologies
from topologies import DegreePreservingRewire, EqualDensity, SpectralRadius, WeightShuffle, nulls

RANDOM = [DegreePreservingRewire, EqualDensity, WeightShuffle]
EVERY = [*RANDOM, SpectralRadius]


def graph(edges, n, weight=None, **fields):
    if weight is not None:
        fields["edge_weight"] = torch.tensor(weight)
    return Data(edge_index=torch.tensor(edges, dtype=torch.long).view(-1, 2).T, num_nodes=n, name="g", **fields)


@st.composite
def simple_graphs(draw, weighted=True):
    """Directed and undirected simple graphs with self-loops, unsorted; weights none, of any signs, symmetric or not, some of them 0."""
    n = draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    matrix = torch.rand(n, n, generator=generator) < draw(st.floats(0, 1))
    kind = draw(st.sampled_from(["directed", "undirected", "split"]))
    weight = torch.randint(-3, 4, (n, n), generator=generator).double() + 0.25 * torch.randint(2, (n, n), generator=generator)
    if kind != "directed":
        matrix = matrix | matrix.T
    if kind == "undirected":
        weight = weight + weight.T
    edge_index = matrix.nonzero().T
    edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    data = Data(edge_index=edge_index, num_nodes=n, name="any", pos=torch.rand(n, 2))
    if weighted and draw(st.booleans()):
        data.edge_weight = weight[edge_index[0], edge_index[1]]
    return data


def degrees(data, which=None):
    edges = data.edge_index if which is None else data.edge_index[:, which]
    return [torch.bincount(ends, minlength=data.num_nodes).tolist() for ends in edges]


def weights_by_source(data):
    return [sorted(data.edge_weight[data.edge_index[0] == node].tolist()) for node in range(data.num_nodes)]


def is_mirrored(data):
    """Whether both directions of every edge are there, with equal weights."""
    n = data.num_nodes
    matrix, present = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.bool)
    present[tuple(data.edge_index)] = True
    if "edge_weight" in data:
        matrix[tuple(data.edge_index)] = data.edge_weight.double()
    return torch.equal(present, present.T) and torch.equal(matrix, matrix.T)


def snapshot(data):
    return {key: value.clone() if torch.is_tensor(value) else value for key, value in data.to_dict().items()}


def unchanged(data, before):
    assert data.to_dict().keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(data[key], value) if torch.is_tensor(value) else data[key] == value


def edge_set(data):
    return frozenset(map(tuple, data.edge_index.T.tolist()))


def uniform(outcomes, possible):
    """The p-value of a chi-square test that these outcomes are drawn uniformly from what is possible."""
    counts = Counter(outcomes)
    assert set(counts) <= set(possible)
    return stats.chisquare([counts[outcome] for outcome in possible]).pvalue


# --- what all share


@pytest.mark.parametrize("kind", EVERY)
def test_they_are_transforms_with_a_functional_name(kind):
    name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in kind.__name__)[1:]
    assert name in IterDataPipe.functions
    assert getattr(topologies, kind.__name__) is kind is getattr(nulls, kind.__name__)
    assert repr(kind()).startswith(f"{kind.__name__}(")


@pytest.mark.parametrize("kind", RANDOM)
def test_a_seed_is_that_of_a_series(kind):
    """Calls differ, objects made alike do not, copies go on from where they are; the global generator has no part in it."""
    data = topologies.liquid((6, 3, 3))
    before = torch.random.get_rng_state()

    def series(transform, calls=3):
        return [snapshot(transform(data)) for _ in range(calls)]

    def same(one, other):
        return all(torch.equal(a[key], b[key]) for a, b in zip(one, other) for key in ("edge_index", "edge_weight"))

    transform = kind(seed=5)
    first = series(transform)
    torch.manual_seed(7)
    assert same(first, series(kind(seed=5)))
    assert not same(first[:1], first[1:2])
    assert not same(first, series(kind(seed=6)))
    assert same(first, series(kind(seed=torch.Generator().manual_seed(5))))
    copied, pickled = copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))
    following = series(transform)
    assert same(following, series(copied))
    assert same(following, series(pickled))
    assert not same(following, first)
    torch.random.set_rng_state(before)
    series(transform)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("data", [topologies.liquid((6, 3, 3)), topologies.grid(6, 2)], ids=["directed", "undirected"])
def test_a_seed_is_the_same_null_under_every_default_dtype(kind, data):
    found = []
    data.edge_weight = torch.arange(1.0, data.num_edges + 1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            found.append(kind(seed=1)(data))
            SpectralRadius()(data)
        finally:
            torch.set_default_dtype(torch.float32)
    for other in found[1:]:
        assert torch.equal(other.edge_index, found[0].edge_index)
        assert torch.equal(other.edge_weight, found[0].edge_weight)


class Drawn:
    """A dataset whose items are what a random object draws, one after the other."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 4

    def __getitem__(self, _):
        return self.draw().edge_index.T.tolist()


LIQUID = topologies.liquid((6, 3, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: topologies.TopologyGenerator(topologies.small_world, 30, p=0.5, seed=5),
        lambda: partial(DegreePreservingRewire(1, seed=5), LIQUID),
    ],
    ids=["topology", "null"],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12: how a DataLoader starts its workers
def test_workers_do_not_repeat_each_other(make):
    """Two workers, two epochs: eight different graphs, the same eight from the same seeds; the series of the process itself goes on."""

    def epochs(dataset, seed):
        loader = DataLoader(dataset, None, num_workers=2, generator=torch.Generator().manual_seed(seed))
        return [str(drawn) for _ in range(2) for drawn in loader]

    series, dataset = Drawn(make()), Drawn(make())
    plain = [str(series[0]) for _ in range(4)]
    first, second = [str(dataset[0]) for _ in range(2)], epochs(dataset, 1)
    assert len({*first, *second}) == 10
    assert first + [str(dataset[0]) for _ in range(2)] == plain
    assert epochs(Drawn(make()), 1) == second
    assert not set(epochs(Drawn(make()), 2)) & set(second)


@settings(deadline=None, max_examples=60)
@given(simple_graphs(), st.sampled_from(RANDOM), st.booleans(), st.integers(0, 99))
def test_the_input_is_never_changed(data, kind, keep_signs, seed):
    before = snapshot(data)
    transform = kind(keep_signs=keep_signs, seed=seed)
    transform.forward(data)
    found = transform(data)
    unchanged(data, before)
    assert found is not data
    assert found.num_nodes == data.num_nodes
    assert torch.equal(found.pos, data.pos)


@pytest.mark.parametrize("kind", EVERY)
def test_graphs_without_edges_come_back_as_they_are(kind):
    data = graph([], 3, shape=(3,), pos=torch.rand(3, 1))
    unchanged(kind()(data), snapshot(data))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (graph([(0, 1), (1, 0)], 2, [1.0, math.nan]), "edge_weight must be finite"),
        (graph([(0, 1), (1, 0)], 2, [1.0, math.inf]), "edge_weight must be finite"),
        (graph([(0, 1), (1, 0)], 2, [1.0]), "edge_weight must be a tensor"),
        (graph([(0, 1), (1, 2)], 2), "edge_index must hold node ids"),
        (Data(num_nodes=2), "must have its edges in edge_index"),
        (Data(edge_index=torch.rand(2, 3), num_nodes=2), "edge_index must be an integer tensor"),
        (Batch.from_data_list([graph([(0, 1)], 2)] * 2), "data must be one"),
        (HeteroData(), "data must be one"),
    ],
)
def test_bad_graphs(kind, data, message):
    with pytest.raises(ValueError, match=message):
        kind()(data)


@pytest.mark.parametrize("kind", [DegreePreservingRewire, EqualDensity])
def test_parallel_edges_are_refused(kind):
    with pytest.raises(ValueError, match=r"parallel edges.*read_edge_table\(type=None\).*parallel=\"sum\".*utils\.coalesce"):
        kind()(graph([(0, 1), (0, 1), (1, 2)], 3))


@pytest.mark.parametrize("kind", [DegreePreservingRewire, EqualDensity])
def test_types_of_edges_are_dropped_with_their_names(kind):
    """And a copy of them under another name moves with the edges; the given graph keeps all."""
    data = graph([(0, 1), (1, 2), (2, 3), (3, 1)], 4, edge_type=torch.tensor([0, 1, 1, 0]), edge_types=["chemical", "gap"])
    data.synapse = data.edge_type
    found = kind()(data)
    assert not {"edge_type", "edge_types"} & set(found.keys())
    assert sorted(found.synapse.tolist()) == [0, 0, 1, 1]
    assert data.edge_types == ["chemical", "gap"]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: DegreePreservingRewire(0), "swaps"),
        (lambda: DegreePreservingRewire(1.5), "swaps"),
        (lambda: DegreePreservingRewire(keep_signs=1), "keep_signs"),
        (lambda: WeightShuffle(keep_signs=None), "keep_signs"),
        (lambda: WeightShuffle(seed=-1), "seed"),
        (lambda: EqualDensity(seed=0.5), "seed"),
        (lambda: SpectralRadius(0), "radius"),
        (lambda: SpectralRadius(math.nan), "radius"),
        (lambda: SpectralRadius("1"), "radius"),
    ],
)
def test_bad_arguments(build, name):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        build()


@pytest.mark.parametrize(("kind", "suffix"), [(DegreePreservingRewire, "rewired"), (EqualDensity, "random")])
def test_what_describes_the_old_wiring_is_dropped(kind, suffix):
    """Lattice fields go; fields of nodes stay, also one that has as many entries as there are edges; other fields of edges move along."""
    data = topologies.ring(8)
    data.delay = torch.arange(16)
    data.input_index = torch.arange(16) % 8
    found = kind()(data)
    assert found.name == f"ring, {suffix}"
    assert not {"shape", "edge_attr", "edge_type"} & set(found.keys())
    assert torch.equal(found.pos, data.pos)
    assert torch.equal(found.input_index, data.input_index)
    assert sorted(found.delay.tolist()) == list(range(16))
    assert not torch.equal(found.edge_index, data.edge_index)


def test_they_compose_and_run():
    """The ladder that a connectome is compared with: every rung trains like the graph itself."""
    from lmn_graph import rollout
    from lmn_graph.rules import SpikingSOC

    data = topologies.liquid((5, 3, 3), seed=1)
    for null in RANDOM:
        found = Compose([null(keep_signs=True), SpectralRadius(0.95)])(data)
        assert radius(found) == pytest.approx(0.95, rel=1e-5)
        rollout(SpikingSOC(found), torch.rand(2, 45), steps=3).activity.sum().backward()


# --- degree-preserving rewiring


@settings(deadline=None, max_examples=100)
@given(simple_graphs(), st.booleans(), st.integers(0, 99))
def test_degrees_are_kept(data, keep_signs, seed):
    """In and out, signed ones with keep_signs; simple, the same loops, undirected as before, each weight with its source."""
    found = DegreePreservingRewire(1, keep_signs=keep_signs, seed=seed)(data)
    assert degrees(found) == degrees(data)
    if data.num_edges:
        assert torch.equal(found.edge_index, coalesce(found.edge_index, num_nodes=data.num_nodes, sort_by_row=False))
    assert {edge for edge in edge_set(found) if edge[0] == edge[1]} == {edge for edge in edge_set(data) if edge[0] == edge[1]}
    assert is_undirected(found.edge_index, num_nodes=data.num_nodes) or not is_undirected(data.edge_index, num_nodes=data.num_nodes)
    if "edge_weight" not in data:
        return
    assert sorted(found.edge_weight.tolist()) == sorted(data.edge_weight.tolist())
    assert is_mirrored(found) or not is_mirrored(data)
    if not is_mirrored(data):
        assert weights_by_source(found) == weights_by_source(data)
    if keep_signs:
        for sign in (-1, 0, 1):
            assert degrees(found, found.edge_weight.sign() == sign) == degrees(data, data.edge_weight.sign() == sign)


@pytest.mark.parametrize(
    "degree",
    [
        *(pytest.param(degree, marks=pytest.mark.slow) for degree in ((2, 2, 2, 2, 2), (3, 3, 2, 2, 2))),
        *((3, 2, 2, 2, 1), (2, 2, 2, 1, 1), (1, 1, 1, 1, 0)),
    ],
)
def test_undirected_graphs_are_equally_likely(degree):
    """All graphs with these degrees, enumerated; a chain of rewirings visits each equally often."""
    pairs = list(itertools.combinations(range(5), 2))
    possible = [
        frozenset(edges) | frozenset((i, j) for j, i in edges)
        for edges in itertools.combinations(pairs, sum(degree) // 2)
        if Counter(itertools.chain(*edges)) == Counter(dict(enumerate(degree)))
    ]
    assert len(possible) > 2
    data, transform, seen = graph(sorted(possible[0]), 5), DegreePreservingRewire(1, seed=2), []
    for _ in range(40 * len(possible)):
        data = transform(data)
        seen.append(edge_set(data))
    assert uniform(seen, possible) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "into"),
    [((1, 1, 1), (1, 1, 1)), ((1, 1, 0, 0), (0, 0, 1, 1)), ((2, 1, 1, 1), (1, 1, 1, 2)), ((1, 1, 1, 1), (1, 1, 1, 1))],
)
def test_directed_graphs_are_equally_likely(out, into):
    """Also the two directed triangles, which no swap of two edges joins, and two edges, which could only alternate."""
    n = len(out)
    pairs = list(itertools.permutations(range(n), 2))
    possible = [
        frozenset(edges)
        for edges in itertools.combinations(pairs, sum(out))
        if [sum(j == node for j, _ in edges) for node in range(n)] == list(out)
        and [sum(i == node for _, i in edges) for node in range(n)] == list(into)
    ]
    assert len(possible) > 1
    start = next(edges for edges in possible if any((i, j) not in edges for j, i in edges))  # a symmetric one is rewired as undirected
    data, transform = graph(sorted(start), n), DegreePreservingRewire(2, seed=3)
    assert uniform([edge_set(transform(data)) for _ in range(max(100, 30 * len(possible)))], possible) > 0.01


def swapped_alike(edges):
    """The signed undirected graphs that one swap of two edges of one sign makes."""
    for (one, other), turn in itertools.product(itertools.combinations(sorted(edges), 2), (False, True)):
        ((a, b), sign), ((c, d), other_sign) = one, other
        new = [tuple(sorted(pair)) for pair in ([(a, c), (d, b)] if turn else [(a, d), (c, b)])]
        kept = edges - {one, other}
        if sign == other_sign and len({*new, *(edge for edge, _ in kept)}) == len(edges) and all(u != v for u, v in new):
            yield kept | {(edge, sign) for edge in new}


@pytest.mark.slow
def test_signed_graphs_are_equally_likely():
    """All graphs within reach of swaps of edges of one sign, found by brute force: each is visited equally often, and no other."""
    start = {(0, 1): 1.0, (2, 3): 1.0, (3, 4): 1.0, (0, 2): -1.0, (1, 3): -1.0, (4, 5): -1.0}
    possible, new = set(), {frozenset(start.items())}
    while new := new - possible:
        possible |= new
        new = {found for edges in new for found in swapped_alike(edges)}
    assert len(possible) > 20
    edges = [*start, *((i, j) for j, i in start)]
    data, transform, seen = graph(edges, 6, [*start.values()] * 2), DegreePreservingRewire(2, keep_signs=True, seed=1), []
    for _ in range(12 * len(possible)):
        data = transform(data)
        signed = zip(map(tuple, data.edge_index.T.tolist()), data.edge_weight.tolist())
        seen.append(frozenset((edge, sign) for edge, sign in signed if edge[0] < edge[1]))
    assert uniform(seen, list(possible)) > 0.01


@pytest.mark.parametrize("data", [topologies.grid(24, 2), topologies.erdos_renyi(400, 0.03, directed=True)], ids=["lattice", "directed"])
def test_little_is_left_of_the_wiring(data):
    """The share of edges that are still there is that of chance, and a lattice's clustering is gone."""
    found = DegreePreservingRewire(seed=1)(data)
    n, edges = data.num_nodes, data.num_edges
    overlap = len(edge_set(found) & edge_set(data))
    chance = edges**2 / n / (n - 1)
    assert abs(overlap - chance) < 5 * math.sqrt(2 * chance)


@pytest.mark.slow
def test_dense_graphs():
    """A complete graph has one wiring; one edge short of it per node the complement is what moves."""
    full = topologies.complete(9)
    assert edge_set(DegreePreservingRewire()(full)) == edge_set(full)
    dense = topologies.random_regular(12, 10, seed=1)
    found = [DegreePreservingRewire(seed=seed)(dense) for seed in range(10)]
    assert all(degrees(one) == degrees(dense) for one in found)
    # Of 60 pairs 6 are free, and by chance a graph has 1/11 of them as edges: nearly all free pairs end up somewhere else.
    changed = [len(edge_set(dense) - edge_set(one)) / 2 for one in found]
    assert min(changed) >= 3


def test_large_graphs_too_are_rewired_as_planned():
    """Where the number of batches follows from the share of swaps that succeed, a structured graph still ends at chance."""
    data = topologies.ring(4000, 3)
    found = DegreePreservingRewire(seed=4)(data)
    assert degrees(found) == degrees(data)
    assert len(edge_set(found) & edge_set(data)) < 60  # of 24 000; 36 by chance
    graph = nx.Graph(found.edge_index.T.tolist())
    assert nx.transitivity(graph) < 0.01


# --- shuffled weights


@settings(deadline=None, max_examples=60)
@given(simple_graphs(), st.booleans(), st.integers(0, 99))
def test_shuffled_weights(data, keep_signs, seed):
    """The same edges in the same order, the same weights in another; symmetric as before, signs where they were with keep_signs."""
    found = WeightShuffle(keep_signs=keep_signs, seed=seed)(data)
    assert torch.equal(found.edge_index, data.edge_index)
    if "edge_weight" not in data:
        assert "edge_weight" not in found
        return
    assert found.edge_weight.dtype == data.edge_weight.dtype
    assert sorted(found.edge_weight.tolist()) == sorted(data.edge_weight.tolist())
    assert is_mirrored(found) or not is_mirrored(data)
    if keep_signs:
        assert torch.equal(found.edge_weight.sign(), data.edge_weight.sign())


@pytest.mark.parametrize(
    ("weight", "keep_signs", "possible"),
    [
        ([1.0, 2.0, 3.0, 4.0], False, list(itertools.permutations([1.0, 2.0, 3.0, 4.0]))),
        ([1.0, -2.0, 3.0, -4.0], True, [(1, -2, 3, -4), (3, -2, 1, -4), (1, -4, 3, -2), (3, -4, 1, -2)]),
    ],
)
def test_shuffles_are_equally_likely(weight, keep_signs, possible):
    data, transform = graph([(0, 1), (1, 2), (2, 3), (3, 0)], 4, weight), WeightShuffle(keep_signs=keep_signs, seed=1)
    assert uniform([tuple(transform(data).edge_weight.tolist()) for _ in range(1200)], possible) > 0.01


def test_shuffled_weights_keep_everything_else():
    data = topologies.grid(4, 2)
    data.edge_weight = torch.rand(data.num_edges, requires_grad=True)
    found = WeightShuffle()(data)
    assert found.name == "grid, weights shuffled"
    assert set(found.keys()) == set(data.keys())
    found.edge_weight.sum().backward()
    assert torch.equal(data.edge_weight.grad, torch.ones(data.num_edges))


def test_parallel_edges_share_the_weights():
    data = graph([(0, 1), (0, 1), (1, 0), (1, 0), (1, 1)], 2, [1, 2, 2, 1, 7])
    found = {tuple(WeightShuffle(seed=seed)(data).edge_weight.tolist()) for seed in range(20)}
    assert found == {(1, 2, 2, 1, 7), (2, 1, 1, 2, 7)}


# --- equal density


@settings(deadline=None, max_examples=100)
@given(simple_graphs(), st.booleans(), st.integers(0, 99))
def test_equal_density(data, keep_signs, seed):
    """As many edges and as many loops, simple, undirected as before, the same magnitudes; the signs either all kept or with the source."""
    found = EqualDensity(keep_signs=keep_signs, seed=seed)(data)
    assert found.num_edges == data.num_edges
    assert int((found.edge_index[0] == found.edge_index[1]).sum()) == int((data.edge_index[0] == data.edge_index[1]).sum())
    if data.num_edges:
        assert torch.equal(found.edge_index, coalesce(found.edge_index, num_nodes=data.num_nodes, sort_by_row=False))
    assert is_undirected(found.edge_index, num_nodes=data.num_nodes) or not is_undirected(data.edge_index, num_nodes=data.num_nodes)
    if "edge_weight" not in data:
        return
    assert is_mirrored(found) or not is_mirrored(data)
    assert sorted(found.edge_weight.abs().tolist()) == sorted(data.edge_weight.abs().tolist())
    if sorted(found.edge_weight.tolist()) != sorted(data.edge_weight.tolist()):
        assert keep_signs
        for weights in (*weights_by_source(data), *weights_by_source(found)):
            assert not weights or weights[0] >= 0 or weights[-1] <= 0


@pytest.mark.parametrize("directed", [True, False])
def test_all_graphs_of_a_density_are_equally_likely(directed):
    pairs = list((itertools.permutations if directed else itertools.combinations)(range(4), 2))
    possible = [frozenset(edges) for edges in itertools.combinations(pairs, 2)]
    possible = possible if directed else [edges | {(i, j) for j, i in edges} for edges in possible]
    transform, data = EqualDensity(seed=3), graph(sorted(possible[0]), 4)
    assert uniform([edge_set(transform(data)) for _ in range(30 * len(possible))], possible) > 0.01


def test_signs_go_with_the_source():
    """Dale: each node that had outgoing weights keeps their sign, the others get one, and without keep_signs it is mixed up."""
    data = topologies.liquid((6, 3, 3), seed=1)
    sign = torch.where(data.node_type == 0, 1.0, -1.0)
    heard = torch.bincount(data.edge_index[0], minlength=54) > 0
    found = EqualDensity(keep_signs=True, seed=2)(data)
    source = found.edge_index[0]
    assert torch.equal(found.edge_weight.sign()[heard[source]], sign[source][heard[source]])
    assert all(len({weight > 0 for weight in weights}) < 2 for weights in weights_by_source(found))
    assert torch.equal(found.node_type, data.node_type)
    mixed = EqualDensity(seed=2)(data)
    assert int((mixed.edge_weight < 0).sum()) == int((data.edge_weight < 0).sum())
    assert any(len({weight > 0 for weight in weights}) > 1 for weights in weights_by_source(mixed))


# --- spectral radius


def radius(data):
    matrix = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.float64)
    weight = data.edge_weight.double() if "edge_weight" in data else torch.ones(data.num_edges, dtype=torch.float64)
    matrix.index_put_((data.edge_index[1], data.edge_index[0]), weight, accumulate=True)
    return float(abs(np.linalg.eigvals(matrix.numpy())).max())


@pytest.mark.parametrize(
    ("data", "exact"),
    [
        (topologies.ring(7), 2.0),
        (topologies.ring(3000), 2.0),
        (topologies.complete(12), 11.0),
        (topologies.complete(600), 599.0),
        (topologies.ring(30, boundary="open"), 2 * math.cos(math.pi / 31)),
        (topologies.grid((30, 25), 2, metric="manhattan", boundary="open"), 2 * math.cos(math.pi / 31) + 2 * math.cos(math.pi / 26)),
        (graph([(0, leaf) for leaf in range(1, 10)] + [(leaf, 0) for leaf in range(1, 10)], 10), 3.0),
        (graph([(i, (i + 1) % 5) for i in range(5)], 5, [1.0, 2.0, -3.0, 4.0, 5.0]), 120 ** (1 / 5)),
        (graph([(i, (i + 1) % 450) for i in range(450)], 450, [2.0, 8.0] * 225), 4.0),
        (graph([(0, 0), (0, 1), (1, 2)], 3, [-2, 100, 100]), 2.0),
        (graph([(0, 0), (0, 0)], 1, [1.0, 2.0]), 3.0),
    ],
    ids=["ring", "large ring", "complete", "large complete", "line", "open grid", "star", "cycle", "large cycle", "loop", "parallel"],
)
def test_known_radii(data, exact):
    """Closed forms, on either side of the size up to which all eigenvalues are found."""
    data = data.clone()
    factor = 0.5 / exact
    expected = (data.edge_weight if "edge_weight" in data else torch.ones(data.num_edges)).float() * factor
    torch.testing.assert_close(SpectralRadius(0.5)(data).edge_weight, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [50, 700])
@pytest.mark.parametrize("kind", ["signed", "positive", "symmetric", "parts"])
def test_radii_of_random_graphs(n, kind):
    """All eigenvalues of the scaled matrix, found densely: the largest modulus is what was asked for, to 1e-8."""
    generator = torch.Generator().manual_seed(n)
    data = topologies.erdos_renyi(n, 6 / n, directed=kind != "symmetric", seed=generator)
    if kind == "parts":
        data = Batch.from_data_list([data, topologies.complete(5)])
        data = Data(edge_index=data.edge_index, num_nodes=n + 5)
    data.edge_weight = torch.randn(data.num_edges, generator=generator, dtype=torch.float64)
    if kind == "positive":
        data.edge_weight = data.edge_weight.abs()
    if kind == "symmetric":
        low, high = data.edge_index.aminmax(dim=0)
        data.edge_weight = torch.randn(n, n, generator=generator, dtype=torch.float64)[low, high]
    found = SpectralRadius(1.5)(data)
    assert radius(found) == pytest.approx(1.5, rel=1e-8)
    assert torch.equal(found.edge_weight.sign(), data.edge_weight.sign())
    assert torch.equal(SpectralRadius(1.5)(data).edge_weight, found.edge_weight)


@pytest.mark.parametrize(
    "data",
    [
        topologies.tree(3, 2),
        graph([(0, 1), (1, 2), (0, 2)], 3, [1.0, 2.0, 3.0]),
        graph([(0, 0), (0, 1), (1, 0), (1, 1)], 2, [1.0, -1.0, 1.0, -1.0]),
        graph([(0, 1), (1, 0)], 2, [0.0, 0.0]),
        graph([(0, 0), (0, 0)], 1, [1.0, -1.0]),
    ],
    ids=["tree", "acyclic", "nilpotent", "zeros", "cancelled"],
)
def test_a_radius_of_zero_cannot_be_scaled(data):
    with pytest.raises(ValueError, match="spectral radius above 0"):
        SpectralRadius()(data)


def test_scaled_weights():
    """Integers become floats, the gradient passes, ones appear where there was no weight, the name stays."""
    data = graph([(0, 1), (1, 0)], 2, [1, 4])
    assert SpectralRadius(1.0)(data).edge_weight.tolist() == [0.5, 2.0]
    data.edge_weight = torch.tensor([1.0, 4.0], requires_grad=True)
    SpectralRadius(1.0)(data).edge_weight.sum().backward()
    assert data.edge_weight.grad.tolist() == [0.5, 0.5]
    found = SpectralRadius(1.0)(topologies.ring(6))
    assert found.name == "ring"
    assert found.edge_weight.dtype == torch.get_default_dtype()
    assert found.shape == (6,)
