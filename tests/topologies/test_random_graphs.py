"""Random graphs against exact probabilities on a few nodes, closed forms on many, and NetworkX's own generators."""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections import Counter
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import torch
from graph_checks import as_networkx, check, check_batch, check_registered, in_degree
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch_geometric.utils import coalesce

import topologies
from topologies import TopologyGenerator, _draw, erdos_renyi, random_regular, ring, scale_free, small_world

slow = pytest.mark.slow
MAKE = {
    "erdos_renyi": lambda **seed: erdos_renyi(30, 0.2, **seed),
    "random_regular": lambda **seed: random_regular(30, 4, **seed),
    "small_world": lambda **seed: small_world(30, 4, 0.5, **seed),
    "scale_free": lambda **seed: scale_free(30, 2, **seed),
    "geometric": lambda **seed: topologies.geometric(30, 0.3, **seed),
    "delaunay": lambda **seed: topologies.delaunay(30, **seed),
    "liquid": lambda **seed: topologies.liquid((5, 3, 2), **seed),
}


def edge_set(data):
    """The undirected edges as a hashable value."""
    return tuple((j, i) for j, i in data.edge_index.T.tolist() if j < i)


def p_value(counts, probabilities):
    """Of a chi-square test of counts (by outcome) against exact probabilities; an outcome that cannot be is an error."""
    assert set(counts) <= set(probabilities)
    total = sum(counts.values())
    outcomes = list(probabilities)
    return stats.chisquare([counts[o] for o in outcomes], [float(probabilities[o]) * total for o in outcomes]).pvalue


def clustering(data):
    return nx.average_clustering(as_networkx(data).to_undirected())


def test_they_are_registered():
    check_registered(*MAKE)


@pytest.mark.parametrize("name", list(MAKE))
def test_seeds(name):
    """An integer gives the same graph always, a generator moves on, and the global one is neither read nor moved."""
    before = torch.random.get_rng_state()
    first, again = MAKE[name](seed=1), MAKE[name](seed=1)
    torch.manual_seed(99)
    other = MAKE[name](seed=2)
    assert torch.equal(first.edge_index, again.edge_index)
    assert not torch.equal(first.edge_index, other.edge_index)
    generator = torch.Generator().manual_seed(1)
    one, two = MAKE[name](seed=generator), MAKE[name](seed=generator)
    assert torch.equal(one.edge_index, first.edge_index)
    assert not torch.equal(one.edge_index, two.edge_index)
    torch.random.set_rng_state(before)
    MAKE[name](seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", list(MAKE))
@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", None, 2**63])
def test_bad_seeds(name, seed):
    with pytest.raises(ValueError, match="seed must be"):
        MAKE[name](seed=seed)


@pytest.mark.parametrize("name", list(MAKE))
def test_batches(name):
    check_batch(MAKE[name](seed=1), MAKE[name](seed=2))


MILLION = {
    "erdos_renyi": lambda: erdos_renyi(100_000, 1e-4),
    "random_regular": lambda: random_regular(100_000, 10),
    "small_world": lambda: small_world(100_000, 10, 0.3),
    "scale_free": lambda: scale_free(100_000, 5),
    "geometric": lambda: topologies.geometric(100_000, math.sqrt(1e-4 / math.pi)),
    "delaunay": lambda: topologies.delaunay(170_000),
    "liquid": lambda: topologies.liquid((60, 60, 24)),
}


def test_every_random_topology_is_tried_here():
    random = {name for name, function in topologies.GENERATORS.items() if "seed" in inspect.signature(function).parameters}
    assert random == set(MAKE) == set(MILLION)


@slow
@pytest.mark.parametrize("name", list(MILLION))
def test_a_million_edges(name):
    """Work grows with the edges, not with the pairs of nodes: about a million of them in less than 20 s of one processor."""
    start = time.process_time()
    data = MILLION[name]()
    spent = time.process_time() - start
    assert 0.9e6 < data.num_edges < 1.3e6
    assert spent < 20


def test_they_make_series_for_datasets():
    series = TopologyGenerator(small_world, 20, k=4, p=0.5, seed=3)
    assert not torch.equal(series().edge_index, series().edge_index)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: erdos_renyi(0, 0.5), "n"),
        (lambda: erdos_renyi(2.0, 0.5), "n"),
        (lambda: erdos_renyi(5, 1.01), "p"),
        (lambda: erdos_renyi(5, -0.1), "p"),
        (lambda: erdos_renyi(5, math.nan), "p"),
        (lambda: erdos_renyi(5, 0.5, directed=1), "directed"),
        (lambda: erdos_renyi(5, 0.5, self_loops="yes"), "self_loops"),
        (lambda: erdos_renyi(2**31, 0.0), "n"),
        (lambda: erdos_renyi(100_000, 0.9), "n"),
        (lambda: random_regular(0, 0), "n"),
        (lambda: random_regular(5, 3), "degree"),
        (lambda: random_regular(5, 5), "degree"),
        (lambda: random_regular(5, -1), "degree"),
        (lambda: random_regular(2**30, 4), "n"),
        (lambda: small_world(0), "n"),
        (lambda: small_world(10, 3), "k"),
        (lambda: small_world(10, 10), "k"),
        (lambda: small_world(10, 4, 1.5), "p"),
        (lambda: small_world(10, 4, math.nan), "p"),
        (lambda: small_world(2**30, 4), "n"),
        (lambda: scale_free(0), "n"),
        (lambda: scale_free(5, 0), "m"),
        (lambda: scale_free(5, 5), "m"),
        (lambda: scale_free(2**30), "n"),
    ],
)
def test_bad_arguments(build, name):
    with pytest.raises(ValueError, match=rf"^{name}(=\S+)?[ ,].*must "):
        build()


# --- what they are drawn with


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.booleans())
def test_every_pair_has_one_slot(n, loops):
    """The numberings of pairs reach each pair once and no other."""
    slot = torch.arange(_draw.unordered_slots(n, loops=loops))
    pairs = sorted(tuple(sorted(pair)) for pair in _draw.unordered_pair(slot, n, loops=loops).T.tolist())
    assert pairs == sorted((itertools.combinations_with_replacement if loops else itertools.combinations)(range(n), 2))
    slot = torch.arange(_draw.ordered_slots(n, loops=loops))
    pairs = [tuple(pair) for pair in _draw.ordered_pair(slot, n, loops=loops).T.tolist()]
    assert pairs == [(j, i) for i in range(n) for j in range(n) if loops or i != j]


def test_hits_among_very_many_slots(generator):
    """Near the largest number of slots nothing overflows: as many hits as expected, evenly spread."""
    slots = 2**62
    found = torch.cat([_draw.hits(slots, 1e-15, generator) for _ in range(3)])
    expected = 3 * slots * 1e-15
    assert abs(len(found) - expected) < 4 * math.sqrt(expected)
    assert stats.kstest(found.double().numpy() / slots, "uniform").pvalue > 0.01
    assert all(len(_draw.hits(2**62, 1e-25, generator)) == 0 for _ in range(100))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_distinct_sets_are_uniform(count, generator):
    counts = Counter(tuple(_draw.distinct(4, count, generator).tolist()) for _ in range(1200))
    sets = list(itertools.combinations(range(4), count))
    assert p_value(counts, dict.fromkeys(sets, 1 / len(sets))) > 0.01
    assert [len(_draw.distinct(4, whole, generator)) for whole in (0, 4)] == [0, 4]


# --- G(n, p)


@pytest.mark.parametrize(("directed", "loops"), list(itertools.product([False, True], repeat=2)))
def test_erdos_renyi_on_three_nodes(directed, loops):
    """Every trial on its own at rate p, none correlated with another: the joint distribution over all graphs of 2 or 3 nodes is exact."""
    n, p, generator = (2 if directed else 3), 0.3, torch.Generator().manual_seed(5)
    pairs = [(j, i) for j in range(n) for i in range(n) if (directed or j <= i) and (loops or i != j)]
    exact = {}
    for chosen in itertools.product([0, 1], repeat=len(pairs)):
        edges = {pair for pair, one in zip(pairs, chosen) if one}
        edges |= set() if directed else {(i, j) for j, i in edges}
        exact[frozenset(edges)] = p ** sum(chosen) * (1 - p) ** (len(pairs) - sum(chosen))
    drawn = (erdos_renyi(n, p, directed=directed, self_loops=loops, seed=generator) for _ in range(1500))
    assert p_value(Counter(frozenset(map(tuple, data.edge_index.T.tolist())) for data in drawn), exact) > 0.01


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 25), st.floats(0, 1), st.booleans(), st.booleans(), st.integers(0, 2**40))
def test_erdos_renyi_is_simple(n, p, directed, loops, seed):
    data = erdos_renyi(n, p, directed=directed, self_loops=loops, seed=seed)
    assert data.validate(raise_on_error=True)
    assert data.num_nodes == n
    assert torch.equal(data.edge_index, coalesce(data.edge_index, num_nodes=n, sort_by_row=False))
    assert loops or not data.has_self_loops()
    assert directed or data.is_undirected()


@pytest.mark.parametrize(("p", "expected"), [(0, 0), (1, 380)])
def test_erdos_renyi_without_chance(p, expected):
    assert erdos_renyi(20, p).num_edges == expected
    assert erdos_renyi(20, p, directed=True, self_loops=True).num_edges == (400 if p else 0)


def test_erdos_renyi_degrees_are_binomial():
    """Mean and distribution of the degrees of 20 000 nodes: nearly Binomial(n − 1, p)."""
    n, p = 20_000, 2e-4
    data = erdos_renyi(n, p, directed=True, seed=1)
    trials = n * (n - 1)
    assert abs(data.num_edges - trials * p) < 3 * math.sqrt(trials * p)
    for ends in data.edge_index:
        counts = Counter(torch.bincount(ends, minlength=n).clamp(max=12).tolist())
        exact = {k: stats.binom.pmf(k, n - 1, p) for k in range(12)} | {12: stats.binom.sf(11, n - 1, p)}
        assert p_value(counts, exact) > 0.01


# --- regular graphs


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 24).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))), st.integers(0, 1000))
def test_random_regular_is_regular_and_simple(size, seed):
    n, degree = size
    if n * degree % 2:
        degree -= 1
    data = random_regular(n, degree, seed=seed)
    assert in_degree(data).eq(degree).all()
    if degree:
        check(data, "random_regular")


@pytest.mark.parametrize(("n", "degree"), [(10, 9), (6, 4), (5, 4), (4, 3)])
def test_dense_regular_graphs(n, degree):
    check(random_regular(n, degree), "random_regular")
    assert in_degree(random_regular(n, degree)).eq(degree).all()


@pytest.mark.parametrize(
    ("n", "degree", "graphs", "bias"),
    [(6, 1, 15, 0.1), (6, 2, 70, 0.2), pytest.param(5, 2, 12, 0.1, marks=slow), pytest.param(6, 3, 70, 0.2, marks=slow)],
)
def test_random_regular_reaches_all_graphs(n, degree, graphs, bias):
    """All labelled graphs there are (their number is known), each about equally often: the docstring allows a small bias on few nodes."""
    generator, draws = torch.Generator().manual_seed(1), 1000
    counts = Counter(edge_set(random_regular(n, degree, seed=generator)) for _ in range(draws))
    assert len(counts) == graphs
    relative = np.array(list(counts.values())) / draws * graphs - 1
    assert np.square(relative).mean() - (graphs - 1) / draws < bias**2  # what sampling adds is taken off


def test_large_random_regular_graphs_look_random():
    """The number of triangles of a random d-regular graph tends to Poisson((d − 1)³/6) (Bollobás)."""
    triangles = [sum(nx.triangles(as_networkx(random_regular(400, 4, seed=seed)).to_undirected()).values()) // 3 for seed in range(60)]
    assert abs(np.mean(triangles) - 27 / 6) < 3 * math.sqrt(27 / 6 / 60)


# --- small worlds


@pytest.mark.parametrize(("n", "k"), [(1, 0), (5, 4), (10, 4), (11, 10), (30, 6)])
def test_small_world_without_rewiring_is_the_ring(n, k):
    data = small_world(n, k, 0.0)
    assert torch.equal(data.edge_index, ring(n, k // 2).edge_index if k else torch.empty(2, 0, dtype=torch.long))


@pytest.mark.parametrize("k", [2, 4, 10])
def test_clustering_of_the_ring(k):
    assert clustering(small_world(60, k, 0.0)) == pytest.approx(3 * (k - 2) / (4 * (k - 1)))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 24).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))),
    st.floats(0, 1),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.97]),
)
def test_small_world_keeps_its_edges(size, p, seed, crowded):
    """Exactly n·k/2 edges, simple, and every node still holds the k/2 edges that began at it; in both ways of drawing."""
    n, k = size[0], size[1] - size[1] % 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topologies._small_world._CROWDED", crowded)
        data = small_world(n, k, p, seed=seed)
    assert data.num_edges == n * k
    if k:
        check(data, "small_world")
        assert in_degree(data).min() >= k // 2


@pytest.mark.parametrize("p", [pytest.param(0.05, marks=slow), 0.3, pytest.param(1.0, marks=slow)])
def test_small_world_is_networkx_watts_strogatz(p):
    """The mean clustering and the spread of degrees of 40 graphs each agree within 4 standard errors."""
    ours = [small_world(150, 6, p, seed=seed) for seed in range(40)]
    theirs = [nx.watts_strogatz_graph(150, 6, p, seed=seed) for seed in range(40)]
    for mine, other in (
        ([clustering(data) for data in ours], [nx.average_clustering(graph) for graph in theirs]),
        ([float(in_degree(data).double().var()) for data in ours], [float(np.var([k for _, k in g.degree], ddof=1)) for g in theirs]),
    ):
        error = math.sqrt((np.var(mine, ddof=1) + np.var(other, ddof=1)) / 40)
        assert abs(np.mean(mine) - np.mean(other)) < 4 * error


@pytest.mark.parametrize(("k", "crowded"), [(6, 0.0), (6, 1.0), (16, 0.0), pytest.param(16, 1.0, marks=slow)])
def test_crowded_small_worlds_are_networkx_watts_strogatz(k, crowded, monkeypatch):
    """Both ways of drawing, also where few nodes are free: the spread of degrees within 4 standard errors."""
    monkeypatch.setattr("topologies._small_world._CROWDED", crowded)
    ours = [float(in_degree(small_world(19, k, 0.7, seed=seed)).double().var()) for seed in range(80)]
    theirs = [float(np.var([d for _, d in nx.watts_strogatz_graph(19, k, 0.7, seed=seed).degree], ddof=1)) for seed in range(80)]
    error = math.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 80)
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error


def test_at_p_1_every_edge_is_rewired():
    """What is left of the ring is chance: each of its places is filled about as often as any other."""
    n, k = 400, 4
    data = small_world(n, k, 1.0)
    ahead = (data.edge_index[1] - data.edge_index[0]) % n
    on_ring = int(((ahead >= 1) & (ahead <= k // 2)).sum())
    assert on_ring < 4 * (n * k / 2) * k / n


# --- scale-free graphs


def exact_attachment(n, m):
    """The probability of every graph, one new node and one new edge at a time."""
    start = frozenset((0, leaf) for leaf in range(1, m + 1))
    exact = {start: Fraction(1)}
    for node in range(m + 1, n):
        grown = Counter()
        for edges, p in exact.items():
            degree = Counter(end for edge in edges for end in edge)
            for chosen in itertools.permutations(range(node), m):
                q, left = p, sum(degree.values())
                for end in chosen:
                    q, left = q * Fraction(degree[end], left), left - degree[end]
                grown[edges | {(end, node) for end in chosen}] += q
        exact = grown
    return {tuple(sorted(edges, key=lambda edge: edge[::-1])): p for edges, p in exact.items()}


@pytest.mark.parametrize(
    ("n", "m", "blocks"),
    [
        (5, 2, False),
        (6, 2, True),
        pytest.param(5, 1, False, marks=slow),
        pytest.param(6, 1, True, marks=slow),
        pytest.param(6, 3, True, marks=slow),
    ],
)
def test_scale_free_on_a_few_nodes(n, m, blocks, monkeypatch):
    """The exact distribution over all graphs, also where many nodes that copy each other come together."""
    if blocks:
        monkeypatch.setattr("topologies._preferential._block", lambda node, m: n)
    generator = torch.Generator().manual_seed(6)
    counts = Counter(edge_set(scale_free(n, m, seed=generator)) for _ in range(1500))
    assert p_value(counts, exact_attachment(n, m)) > 0.01


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), st.integers(0, 1000))
def test_scale_free_has_exactly_its_edges(size, seed):
    n, m = size
    data = scale_free(n, m, seed=seed)
    check(data, "scale_free")
    assert data.num_edges == 2 * m * (n - m)
    assert nx.is_weakly_connected(as_networkx(data))
    assert m == n - 1 or in_degree(data)[m + 1 :].min() >= m


@pytest.mark.parametrize("m", [1, 2, pytest.param(5, marks=slow)])
def test_scale_free_degrees(m):
    """P(k) = 2m(m + 1)/(k(k + 1)(k + 2)) within 4 standard errors for every k up to 8m, and the exponent 3 of its tail."""
    n = 100_000
    degree = in_degree(scale_free(n, m, seed=1))
    assert degree.double().mean() == 2 * m * (n - m) / n
    for k in range(m, 8 * m + 1):
        p = 2 * m * (m + 1) / (k * (k + 1) * (k + 2))
        assert abs(int((degree == k).sum()) - n * p) < 4 * math.sqrt(n * p)
    beyond = int((degree >= 20 * m).sum())
    p = m * (m + 1) / (20 * m * (20 * m + 1))  # the sum over k >= 20m
    assert abs(beyond - n * p) < 4 * math.sqrt(n * p)
