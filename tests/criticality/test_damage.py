"""Twin runs: counts known exactly, a lattice on both sides of its critical point, the smoothed count and its gradient."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from known_processes import Cells, MapRule, PassOn
from torch import Tensor

import topologies
from lmn_graph.criticality import branching_ratio, damage_growth, damage_spreading, soft_damage
from lmn_graph.rollout import rollout
from lmn_graph.rules import SpikingSOC


def ring(n: int, offsets: tuple[int, ...]) -> PassOn:
    """Every neuron reaches those at the given distances on a ring."""
    weight = torch.zeros(n, n)
    for offset in offsets:
        weight[(torch.arange(n) + offset) % n, torch.arange(n)] = 1
    return PassOn(weight)


def test_one_descendant_each_is_critical():
    """A spike that moves round a ring: one differing site for ever, ratio 1 exactly."""
    damage = damage_spreading(ring(9, (1,)), Cells(torch.zeros(9, 4)), None, steps=12)
    assert torch.equal(damage, torch.ones(13, 4))
    assert branching_ratio(damage) == 1


def test_descendants_that_meet_make_one_spike():
    """Two targets each, next to each other: 1, 2, 3, … and not 1, 2, 4: coalescence is counted as the lattice has it."""
    damage = damage_spreading(ring(40, (1, 2)), Cells(torch.zeros(40, 2)), None, steps=10)
    assert torch.equal(damage, torch.arange(1.0, 12).unsqueeze(1).expand(11, 2))
    assert branching_ratio(damage) == pytest.approx(11**0.1)


def test_a_spike_taken_away_counts_as_one_added():
    """Flipping a spike off in a saturated ring leaves one hole that moves round."""
    damage = damage_spreading(ring(7, (1,)), Cells(torch.ones(7, 3)), None, steps=5, flips=torch.tensor([0, 3, 6]))
    assert torch.equal(damage, torch.ones(6, 3))


def test_damage_that_dies_and_damage_that_is_outvoted():
    """Without an edge it dies after the flip; in a saturated lattice with two parents each a single hole closes."""
    dead = damage_spreading(PassOn(torch.zeros(5, 5)), Cells(torch.zeros(5, 2)), None, steps=3)
    assert dead.sum(1).tolist() == [2, 0, 0, 0]
    assert branching_ratio(dead) == 0
    assert branching_ratio(dead, start=1) == 0
    saturated = damage_spreading(ring(9, (1, 2)), Cells(torch.ones(9, 2)), None, steps=3)
    assert saturated.sum(1).tolist() == [2, 0, 0, 0]


def test_branching_ratio_over_all_samples():
    """The mean comes before the root: half the flips die, the others double."""
    damage = torch.tensor([[1.0, 1], [0, 2], [0, 4]])
    assert branching_ratio(damage) == pytest.approx(2**0.5)
    assert branching_ratio(damage, start=1) == pytest.approx(2)


class BondState(NamedTuple):
    s: Tensor
    t: Tensor


class DirectedPercolation(PassOn):
    """Bond directed percolation on an open-bond L×L torus: four von Neumann bonds of probability p, plus sparse random ignition.

    The random numbers of step t depend on t and the sample alone, so twins share them.
    """

    def __init__(self, side: int, p: float, ignition: float, seed: int) -> None:
        super().__init__(torch.zeros(side * side, 1))
        self.side, self.p, self.ignition, self.seed = side, p, ignition, seed

    def step(self, p, state, drive):
        n, samples = state.s.shape
        activity = (state.s >= 0.5).float()
        numbers = torch.rand(5, n, samples, generator=torch.Generator().manual_seed(self.seed * 100_003 + int(state.t[0, 0])))
        field = activity.view(self.side, self.side, samples)
        arriving = numbers[4] < self.ignition
        for k, (shift, dim) in enumerate(((1, 0), (-1, 0), (1, 1), (-1, 1))):
            arriving |= (numbers[k] < self.p) & (field.roll(shift, dim).reshape(n, samples) > 0)
        return BondState(arriving.float(), state.t + 1), activity

    def flip(self, p, state, node):
        return state._replace(s=super().flip(p, Cells(state.s), node).s)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bonds", "low", "high"),
    [(0.90, 0.0, 0.3), (1.149, 0.7, 3.0), (1.30, 0.0, 0.45)],
    ids=["subcritical", "critical", "over-active"],
)
def test_damage_sees_both_sides_of_a_lattice(bonds, low, high):
    """Sixteen steps in two dimensions: near 1 at the critical 4p = 1.149 only, not at a weight sum of 1, not beyond."""
    rule = DirectedPercolation(32, bonds / 4, 2e-4, seed=1)
    n, samples = 32 * 32, 300
    start = torch.rand(n, samples, generator=torch.Generator().manual_seed(2)) < (0.4 if bonds > 1.2 else 0.1)
    state = BondState(start.float(), torch.zeros(n, samples))
    for _ in range(120):
        state, _ = rule.step(rule.prepare(), state, None)
    damage = damage_spreading(rule, state, None, steps=16, generator=torch.Generator().manual_seed(3))
    assert low <= damage[-1].mean() <= high


def lattice(**options) -> SpikingSOC:
    torch.manual_seed(5)
    return SpikingSOC(topologies.grid(5, 2), **options)


def warm(rule: SpikingSOC, samples: int = 60, steps: int = 10):
    """A driven run: its drive and its final state."""
    drive = 0.4 * torch.rand(samples, rule.num_nodes, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        return drive, rollout(rule, drive, steps=steps).state


@pytest.mark.parametrize("reset", ["none", "zero", "subtract"])
def test_spiking_rule_flips_exactly_one_spike(reset, generator):
    rule = lattice(reset=reset)
    drive, state = warm(rule)
    damage = damage_spreading(rule, state, drive, generator=generator)
    assert (damage[0] == 1).all()
    assert damage.shape == (11, 60)
    assert not damage.requires_grad


def test_soft_damage_becomes_the_count(generator):
    """As the width goes to 0 the smoothed count is the count."""
    rule = lattice(weight=0.3, reset="zero")
    drive, state = warm(rule)
    flips = torch.randint(rule.num_nodes, (60,), generator=generator)
    hard = damage_spreading(rule, state, drive, flips=flips)
    soft = soft_damage(rule, state, drive, flips=flips, width=1e-6).detach()
    assert hard[1:].sum() > 20
    torch.testing.assert_close(soft, hard, atol=1e-3, rtol=0)
    smooth = soft_damage(rule, state, drive, flips=flips, width=0.2).detach()
    assert 0.3 < smooth[1:].mean() / hard[1:].mean() < 3


@pytest.mark.parametrize("level", [-1e4, -3.0, 3.0, 1e4], ids=["deep silence", "silence", "saturation", "deep saturation"])
def test_silent_and_saturated_lattices_have_finite_gradients(level, generator):
    """Far from the threshold the damage vanishes and so does its gradient; nothing becomes nan."""
    rule = lattice(reset="zero")
    state = rule.initial_state(8)
    damage = soft_damage(rule, state, torch.full((8, rule.num_nodes), level), generator=generator)
    damage[-1].sum().backward()
    assert damage.isfinite().all()
    assert (damage[0] == 1).all()
    for name, parameter in rule.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_growth_has_the_value_of_the_count_and_the_gradient_of_the_smoothed_count(generator):
    """ρ is the counted ratio up to ε; ∂ ln ρ is (1/k) ∂ ln of the smoothed count, the other factors being constants."""
    rule = lattice(weight=0.3, reset="zero")
    drive, state = warm(rule)
    flips = torch.randint(rule.num_nodes, (60,), generator=generator)
    growth = damage_growth(rule, state, drive, flips=flips, width=0.3)
    counted = branching_ratio(damage_spreading(rule, state, drive, flips=flips))
    assert growth.item() == pytest.approx(counted, abs=2e-3)
    (found,) = torch.autograd.grad(growth.log(), rule.weight)
    soft = soft_damage(rule, state, drive, flips=flips, width=0.3)[-1].mean()
    (expected,) = torch.autograd.grad((soft + 1e-3).log() / 10, rule.weight)
    torch.testing.assert_close(found, expected)
    assert (found != 0).any()


def test_growth_of_dead_damage(generator):
    """Nothing to spread along: ε^{1/k}, finite, gradient 0."""
    rule = lattice(weight=0.0, reset="zero", decay=0.0)
    weight = torch.nn.Parameter(torch.zeros_like(rule.weight))
    rule.weight = weight
    growth = damage_growth(rule, rule.initial_state(5), None, generator=generator)
    growth.backward()
    assert growth.item() == pytest.approx(1e-3**0.1, rel=1e-3)
    assert (weight.grad == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "below"), [(0.02, True), (0.6, False)], ids=["from below", "from above"])
def test_descent_moves_the_counted_ratio_to_the_target(gain, below, generator):
    """Descending (ρ − 1)² brings the ratio of damage counted on fresh flips to 1, from both sides."""
    topology = topologies.grid(8, 2)
    sign = torch.randn(SpikingSOC(topology).connectivity.num_edges, generator=generator)
    rule = SpikingSOC(topology, weight=gain * sign, reset="zero", decay=0.5, resources=False)
    drive = 0.5 * torch.randn(300, rule.num_nodes, generator=generator) + 0.2

    def settled():
        with torch.no_grad():
            return rollout(rule, drive, steps=10).state

    def counted() -> float:
        state = settled()
        return branching_ratio(torch.cat([damage_spreading(rule, state, drive, generator=generator) for _ in range(5)], 1))

    first = counted()
    assert (first < 0.9) if below else (first > 1.1)
    optimiser = torch.optim.Adam(rule.parameters(), 0.01)
    for _ in range(80):
        optimiser.zero_grad()
        (damage_growth(rule, settled(), drive, generator=generator) - 1).square().backward()
        optimiser.step()
    assert counted() == pytest.approx(1, abs=0.03)


RING = ring(4, (1,))
STATE = Cells(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: damage_spreading(MapRule(torch.eye(4)), STATE, None), "MapRule does not spike"),
        (lambda: soft_damage(MapRule(torch.eye(4)), STATE, None), "MapRule does not spike"),
        (lambda: damage_spreading(RING, STATE, None, steps=0), "steps must be an integer >= 1"),
        (lambda: damage_spreading(RING, STATE, torch.zeros(2, 10, 4)), "drive must cover 11 steps, got 10"),
        (lambda: damage_spreading(RING, STATE, None, flips=torch.tensor([0, 4])), "flips must name neurons 0 … 3, got 0 … 4"),
        (lambda: damage_spreading(RING, STATE, None, flips=torch.tensor([-1, 0])), "flips must name neurons"),
        (lambda: damage_spreading(RING, STATE, None, flips=torch.tensor([0])), r"flips must be integers of shape \(2,\)"),
        (lambda: damage_spreading(RING, STATE, None, flips=torch.zeros(2)), "flips must be integers"),
        (lambda: damage_spreading(RING, STATE, None, flips=3), "flips must be integers .* got int"),
        (lambda: soft_damage(RING, STATE, None, width=0), "width must be a finite number > 0"),
        (lambda: damage_growth(RING, STATE, None, width=-1), "width must be a finite number > 0"),
        (lambda: damage_growth(MapRule(torch.eye(4)), STATE, None), "MapRule does not spike"),
        (lambda: branching_ratio(torch.zeros(3)), r"damage must be \[steps \+ 1, B\]"),
        (lambda: branching_ratio([1.0]), "damage must be"),
        (lambda: branching_ratio(torch.zeros(3, 2)), "at least one differing site"),
        (lambda: branching_ratio(torch.ones(3, 2), start=2), "start must be an integer in"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class NoThreshold(PassOn):
    def prepare(self, context=None):
        return self.weight

    def step(self, p, state, drive):
        return super().step(super().prepare(), state, drive)

    def flip(self, p, state, node):
        return super().flip(super().prepare(), state, node)


def test_a_rule_without_a_threshold_is_named():
    rule = NoThreshold(RING.weight)
    assert branching_ratio(damage_spreading(rule, STATE, None)) == 1
    with pytest.raises(ValueError, match="soft_damage needs the threshold of NoThreshold"):
        soft_damage(rule, STATE, None)
