"""branching_response against explicit column sums of the linear response."""

from __future__ import annotations

import pytest
import torch
from known_processes import Cells, MapRule

import topologies
from lmn_graph.criticality import branching_response
from lmn_graph.rules import SpikingSOC
from lmn_graph.rules.spiking_soc import SOCState


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 3])
def test_linear_rule_has_the_column_sums_of_its_power(steps):
    """(1/N) Σ_j |Σ_i (W^k)_ij|, to the k-th root."""
    weight = random(6, 6)
    found = branching_response(MapRule(weight), Cells(random(6, 2, seed=1)), None, steps=steps, silence=1e-15)
    expected = torch.linalg.matrix_power(weight, steps).sum(0).abs().mean() ** (1 / steps)
    torch.testing.assert_close(found, expected.expand(2))


def test_one_descendant_each_is_one():
    """A doubly stochastic excitatory W: every spike has one descendant, whatever the number of neurons."""
    found = branching_response(MapRule(torch.full((50, 50), 1 / 50, dtype=torch.float64)), Cells(random(50, 3)), None)
    torch.testing.assert_close(found, torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_spiking_rule_counts_what_travels_through_spikes():
    """One generation of SpikingSOC, reset "none": Σ_i φ(v_i(1) − θ) w_ij r_j(0); the membrane's own memory is not in it."""
    rule = SpikingSOC(topologies.grid(4, 2)).double()
    n = rule.num_nodes
    state = SOCState(1 + random(n, 1, seed=1), torch.full((n, 1), 0.7, dtype=torch.float64))
    following, _ = rule.step(rule.prepare(), state, None)
    target, source = rule.connectivity.edge_index[1], rule.connectivity.edge_index[0]
    slope = rule.surrogate.derivative(following.v - 1)[:, 0]
    columns = torch.zeros(n, dtype=torch.float64).index_add(0, source, slope[target] * rule.weight) * 0.7
    found = branching_response(rule, state, None, steps=1, silence=1e-15)
    torch.testing.assert_close(found[0], columns.abs().mean())


def test_gradient_is_that_of_the_value():
    state, drive = Cells(random(4, 2, seed=1)), random(2, 4, seed=2).requires_grad_()
    rule = MapRule(random(4, 4), torch.tanh)

    def response(weight: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        rule.prepare = lambda context=None: weight
        return branching_response(rule, state, drive, steps=3)

    assert torch.autograd.gradcheck(response, (random(4, 4).requires_grad_(), drive))


def test_nothing_spreads():
    """No coupling: the floor ε^{1/k}, a finite gradient."""
    rule = MapRule(torch.zeros(3, 3, dtype=torch.float64))
    found = branching_response(rule, Cells(random(3, 2)), None, steps=5)
    found.sum().backward()
    torch.testing.assert_close(found, torch.full((2,), 1e-6**0.2, dtype=torch.float64))
    assert rule.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps must be"), ({"silence": 0}, "silence must be"), ({"drive": torch.zeros(2, 5, 3)}, "drive must cover 11 steps")],
)
def test_bad_input_is_named(options, message):
    options = {"drive": None, **options}
    with pytest.raises(ValueError, match=message):
        branching_response(MapRule(torch.eye(3)), Cells(torch.zeros(3, 2)), **options)
