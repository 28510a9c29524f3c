"""Rings and all-to-all graphs against NetworkX, the lattice they are cases of, and closed forms."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from graph_checks import as_networkx, check, check_batch, check_registered, in_degree
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import complete, grid, ring


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 12), st.sampled_from(["periodic", "open"]))
def test_a_ring_is_the_lattice_of_one_axis(n, radius, boundary):
    """Every field, and the degrees: two per step of the radius, until all others are heard."""
    data = ring(n, radius, boundary=boundary)
    check(data, "ring")
    expected = grid(n, 1, radius, boundary=boundary)
    assert data.shape == expected.shape == (n,)
    assert all(torch.equal(data[key], expected[key]) for key in ("edge_index", "edge_attr", "edge_type", "pos"))
    place = torch.arange(n)
    ends = place.clamp(max=radius) + place.flip(0).clamp(max=radius)
    assert torch.equal(in_degree(data), torch.full((n,), min(2 * radius, n - 1)) if boundary == "periodic" else ends)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_ring_and_line_are_networkx_cycle_and_path(n):
    assert nx.utils.graphs_equal(as_networkx(ring(n)), nx.cycle_graph(n).to_directed())
    assert nx.utils.graphs_equal(as_networkx(ring(n, boundary="open")), nx.path_graph(n).to_directed())


@pytest.mark.parametrize(("n", "radius"), [(9, 2), (12, 3), (7, 5)])
def test_a_wider_ring_is_networkx_circulant(n, radius):
    expected = nx.circulant_graph(n, list(range(1, radius + 1)))
    assert nx.utils.graphs_equal(as_networkx(ring(n, radius)), expected.to_directed())


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 20), st.booleans())
def test_complete_is_every_pair(n, self_loops):
    """In order, so that the edges are the rows of the dense matrix."""
    data = complete(n, self_loops=self_loops)
    check(data, "complete", self_loops=self_loops)
    assert data.edge_index.t().tolist() == [[j, i] for i in range(n) for j in range(n) if self_loops or i != j]


def test_complete_is_networkx_complete_graph():
    assert nx.utils.graphs_equal(as_networkx(complete(6)), nx.complete_graph(6).to_directed())


def test_the_edges_of_a_complete_graph_are_the_rows_of_a_matrix():
    """The equality that makes it the dense layer: summing over edges is a matrix product."""
    weight, x = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    source, target = complete(5, self_loops=True).edge_index
    summed = torch.zeros(5, dtype=torch.float64).index_add(0, target, weight.flatten() * x[source])
    torch.testing.assert_close(summed, weight @ x)


def test_batches():
    check_batch(ring(5), ring(8, 2, boundary="open"))
    check_batch(complete(3), complete(4, self_loops=True))


def test_registered():
    check_registered("ring", "complete")


@pytest.mark.parametrize("n", [0, -1, 2.0, True, math.nan, "3", None, [3], 2**31, 10**400])
@pytest.mark.parametrize("topology", [ring, complete])
def test_bad_n(topology, n):
    with pytest.raises(ValueError, match=r"^n must be an integer in "):
        topology(n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ring(5, 0), r"^radius must be an integer >= 1, got 0"),
        (lambda: ring(5, 1.5), r"^radius must be .*got 1.5"),
        (lambda: ring(5, True), r"^radius must be .*got True"),
        (lambda: ring(5, boundary="closed"), r"^boundary must be one of 'periodic', 'open', got 'closed'"),
        (lambda: ring(5, boundary=["open"]), r"^boundary must be one of"),
        (lambda: complete(5, self_loops=1), r"^self_loops must be True or False, got 1"),
        (lambda: complete(5, self_loops=None), r"^self_loops must be "),
        (lambda: ring(2**31 - 1), r"^n=2147483647, radius=1 must give at most 2,147,483,647 edges"),
        (lambda: ring(10**9, 10**30, boundary="open"), r"edges, got 999,999,999,000,000,000"),
        (lambda: complete(46_342), r"^n=46342 must give at most 2,147,483,647 edges, got 2,147,534,622"),
        (lambda: complete(46_341, self_loops=True), r"^n=46341 must give at most .* edges"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
