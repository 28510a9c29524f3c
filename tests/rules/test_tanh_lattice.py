"""Hyperbolic-tangent cells are a recurrent network on the graph; initial weights are what they are called; long runs go as told."""

from __future__ import annotations

import math

import pytest
import torch

import topologies
from lmn_graph import Connectivity, criticality, rollout
from lmn_graph.rules import TanhLattice
from lmn_graph.rules.initial import fan_in, orthogonal


def dense(connectivity, weight):
    source, target = connectivity.edge_index
    matrix = torch.zeros(connectivity.num_nodes, connectivity.num_nodes, dtype=weight.dtype)
    return matrix.index_put((target, source), weight, accumulate=True)


def test_it_is_a_recurrent_network_with_the_weights_as_a_matrix(graph, normal):
    """torch's own RNN cell, driven through its input bias, on every graph."""
    rule = TanhLattice(graph).double()
    n = rule.num_nodes
    cell = torch.nn.RNNCell(n, n, bias=False).double()
    with torch.no_grad():
        cell.weight_hh.copy_(dense(rule.connectivity, rule.weight))
        cell.weight_ih.copy_(torch.eye(n))
    drive = normal(3, n)
    x = torch.zeros(3, n, dtype=torch.float64)
    for t in range(5):
        x = cell(drive, x)
        torch.testing.assert_close(rollout(rule, drive, steps=t + 1).activity[:, -1], x)


@pytest.mark.parametrize(
    "graph", [topologies.grid(5, 2), topologies.grid((3, 4, 5), 3), topologies.ring(7), topologies.raster(4, 4)], ids=str
)
def test_orthogonal_weights_keep_lengths_as_far_as_the_graph_can(graph):
    """W Wᵀ is the identity on lattices; where no perfect matching exists, its singular values are still 1 or 0."""
    connectivity = Connectivity(graph)
    matrix = dense(connectivity, orthogonal(connectivity).double())
    singular = torch.linalg.svdvals(matrix)
    matched = graph.name != "raster"
    assert torch.equal(matrix @ matrix.t(), torch.eye(connectivity.num_nodes, dtype=torch.float64)) == matched
    assert bool(((singular < 1e-12) | ((singular - 1).abs() < 1e-12)).all())
    rank = int((singular > 0.5).sum())
    sources = graph.edge_index[0].unique().numel()
    assert 0.5 * sources < rank <= sources


def test_orthogonal_weights_on_all_pairs_are_a_dense_orthogonal_matrix():
    """Only its diagonal is left out: lengths change by the share of one entry in N."""
    torch.manual_seed(0)
    connectivity = Connectivity(topologies.complete(200))
    matrix = dense(connectivity, orthogonal(connectivity).double())
    x = torch.randn(200, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert bool(((matrix @ x).norm(dim=0) / x.norm(dim=0) - 1).abs().max() < 0.02)
    assert int((matrix != 0).sum()) == 200 * 199


def test_parallel_edges_are_matched_once(multigraph):
    connectivity = Connectivity(multigraph)
    weight = orthogonal(connectivity)
    assert set(weight.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert int(torch.linalg.matrix_rank(dense(connectivity, weight.double()))) == int(weight.abs().sum())


def test_fan_in_weights_give_a_sum_of_unit_variance():
    """Their spectral radius is near that of the circular law, 1; few neighbours of unequal weight lift it."""
    torch.manual_seed(0)
    connectivity = Connectivity(topologies.grid(12, 3, 1))
    weight = fan_in(connectivity)
    x = torch.randn(connectivity.num_nodes, 64, generator=torch.Generator().manual_seed(2))
    assert float((dense(connectivity, weight) @ x).std()) == pytest.approx(1, abs=0.01)
    assert criticality.spectral_radius(connectivity, weight) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("gain", "leak"), [(0.8, 1.0), (1.25, 1.0), (0.5, 0.4)])
def test_small_states_grow_or_shrink_by_the_gain(gain, leak, lattice):
    """At rest the Jacobian of an orthogonal lattice is gain · W: the Lyapunov exponent is ln gain, and the leak moves it as it should."""
    rule = TanhLattice(lattice, init="orthogonal", gain=gain, leak=leak).double()
    found = criticality.lyapunov(rule, rule.initial_state(4), None, steps=200, discard=300)
    jacobian = (1 - leak) * torch.eye(16, dtype=torch.float64) + leak * dense(rule.connectivity, rule.weight.detach())
    expected = math.log(float(torch.linalg.eigvals(jacobian).abs().max()))
    torch.testing.assert_close(found, torch.full((4,), expected, dtype=torch.float64), rtol=0, atol=0.01)
    if leak == 1:
        assert expected == pytest.approx(math.log(gain))


def test_reset_draws_the_weights_anew(lattice):
    rule = TanhLattice(lattice, leak=None)
    before = rule.weight.clone()
    with torch.no_grad():
        rule.leak.raw.zero_()
    rule.reset_parameters()
    assert not torch.equal(rule.weight, before)
    torch.testing.assert_close(rule.leak(), torch.full((16, 1), 0.5))


def test_the_weights_of_the_graph_are_taken_over_and_scaled(random_graph):
    rule = TanhLattice(random_graph)
    torch.testing.assert_close(rule.weight, rule.connectivity.edge_weight.float())
    torch.testing.assert_close(TanhLattice(random_graph, weight=0.5).weight, 0.5 * rule.connectivity.edge_weight.float())
