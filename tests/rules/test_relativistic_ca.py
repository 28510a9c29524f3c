"""The relativistic automaton is its equation, on all pairs and on lattices of one to five dimensions; its steepness is learned."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import topologies
from lmn_graph import LatticeMachine, rollout
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import RelativisticCA, TanhLattice, as_conv


def test_on_all_pairs_it_is_the_dense_block(normal):
    """S' = tanh((σ(α(|S_i| − |S_j|)) ∘ W) S + drive), written with N×N matrices, and all gradients."""
    graph = topologies.complete(9)
    rule = RelativisticCA(graph, alpha=1.7).double()
    drive = normal(4, 9).requires_grad_()
    source, target = rule.connectivity.edge_index
    dense = torch.zeros(9, 9, dtype=torch.float64).index_put((target, source), rule.weight)
    x, expected = torch.zeros(9, 4, dtype=torch.float64), []
    for _ in range(5):
        gate = torch.sigmoid(rule.alpha * (x.abs()[:, None] - x.abs()[None]))
        x = torch.tanh((gate * dense[..., None] * x[None]).sum(1) + drive.t())
        expected.append(x.t())
    expected = torch.stack(expected, 1)
    activity = rollout(rule, drive, steps=5).activity
    torch.testing.assert_close(activity, expected)
    factor, wanted = normal(4, 5, 9), (drive, rule.weight, rule.alpha)
    found = torch.autograd.grad((activity * factor).sum(), wanted)
    for got, want in zip(found, torch.autograd.grad((expected * factor).sum(), wanted)):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("sides", "radius"), [((11,), 3), ((5, 7), 2), ((3, 4, 5), 1), ((3, 3, 4, 3), 1), ((3, 3, 3, 3, 3), 1)], ids=str)
def test_on_a_lattice_it_is_a_sum_over_shifts(sides, radius, normal):
    """One to five dimensions: the neighbour at offset o is the state rolled by −o, and nothing of the graph is used but its ports."""
    graph = topologies.grid(sides, len(sides), radius)
    rule = RelativisticCA(graph).double()
    x = normal(math.prod(sides), 3)
    box = x.view(*sides, 3)
    axes = tuple(range(len(sides)))
    total = torch.zeros_like(box)
    for edge_type, offset in enumerate(o for o in itertools.product(range(-radius, radius + 1), repeat=len(sides)) if any(o)):
        weight = rule.weight[graph.edge_type == edge_type].view(*sides, 1)  # edges of a type are in the order of their targets
        neighbour = box.roll([-step for step in offset], axes)
        total += torch.sigmoid(box.abs() - neighbour.abs()) * weight * neighbour
    _, activity = rule(rule.initial_state(3)._replace(x=x))
    torch.testing.assert_close(activity, torch.tanh(total).view(-1, 3))


def test_with_a_flat_gate_it_is_half_a_tanh_lattice(graph, normal):
    """σ(0) = ½ for every edge, on every graph."""
    rule = RelativisticCA(graph, alpha=0.0).double()
    plain = TanhLattice(graph, weight=normal(rule.connectivity.num_edges)).double()
    with torch.no_grad():
        plain.weight.copy_(rule.weight / 2)
    drive = normal(2, rule.num_nodes)
    torch.testing.assert_close(rollout(rule, drive, steps=4).activity, rollout(plain, drive, steps=4).activity)


@pytest.mark.parametrize("gate", ["norm", "channel"])
def test_cells_with_channels_compare_norms_or_channel_by_channel(gate, random_graph, normal):
    rule = RelativisticCA(random_graph, channels=3, gate=gate, alpha=2.0).double()
    x = normal(13, 2, 3)
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True) if gate == "norm" else x.abs()
    source, target = rule.connectivity.edge_index
    message = torch.sigmoid(2.0 * (size[target] - size[source])) * rule.weight[:, None, None] * x[source]
    expected = torch.tanh(torch.zeros_like(x).index_add(0, target, message))
    torch.testing.assert_close(rule(rule.initial_state(2)._replace(x=x))[1], expected)


def test_the_steepness_moves_in_training_and_only_if_it_is_learned(lattice):
    """The source kept it as a plain tensor, and it never moved."""
    for learned in (True, False):
        torch.manual_seed(1)
        rule = RelativisticCA(lattice, alpha=0.5, learn_alpha=learned)
        machine = LatticeMachine(lattice, Linear((6,), lattice), rule, Rate(lattice, 3, 4), steps=4)
        assert ("rule.alpha" in dict(machine.named_parameters())) == learned
        optimizer = torch.optim.SGD(machine.parameters(), lr=0.5)
        x, y = torch.randn(32, 6), torch.arange(32) % 3
        path = [rule.alpha.item()]
        for _ in range(5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(machine(x).prediction, y).backward()
            optimizer.step()
            path.append(rule.alpha.item())
        assert (len(set(path)) == 6) if learned else (set(path) == {0.5})


def test_leak_and_residual_are_steps_towards_or_along_the_update(lattice, normal):
    weight, x, drive = normal(128), normal(16, 2), normal(16, 2)

    def after(**options):
        rule = RelativisticCA(lattice, weight=weight, **options).double()
        return rule(rule.initial_state(2)._replace(x=x), drive)[1]

    f = after()
    torch.testing.assert_close(after(leak=0.3), 0.7 * x + 0.3 * f)
    torch.testing.assert_close(after(residual=True), x + f)
    torch.testing.assert_close(after(leak=0.3, residual=True), x + 0.3 * f)
    learned = RelativisticCA(lattice, weight=weight, leak=None).double()
    state, _ = learned(learned.initial_state(2)._replace(x=x), drive)
    torch.testing.assert_close(state.x, 0.5 * x + 0.5 * f)
    state.x.sum().backward()
    assert learned.leak.raw.grad.shape == (16, 1)
    assert bool((learned.leak.raw.grad != 0).all())


def test_a_drive_enters_at_every_step_or_at_the_first(lattice, normal):
    rule = RelativisticCA(lattice).double()
    drive = normal(2, 16)
    per_step = torch.zeros(2, 3, 16, dtype=torch.float64)
    per_step[:, 0] = drive
    once = rollout(rule, drive, steps=3, inject="first").activity
    torch.testing.assert_close(once, rollout(rule, per_step, steps=3).activity)
    assert not torch.allclose(once, rollout(rule, drive, steps=3).activity)


def test_without_weights_of_its_own_it_takes_any_graph(lattice, random_graph):
    """A gain on the graph's weights and α are shared by all graphs, and both runs agree on the same graph."""
    rule = RelativisticCA(lattice, weight=0.7, learn_weight=False)
    assert rule.shared
    x = torch.rand(13, 3)
    other = RelativisticCA(random_graph, weight=0.7, learn_weight=False)
    y = as_conv(rule, 3)(x, random_graph.edge_index, random_graph.edge_weight.float())
    torch.testing.assert_close(y, as_conv(other, 3)(x, random_graph.edge_index, random_graph.edge_weight.float()))
    y.sum().backward()
    assert rule.alpha.grad != 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": math.nan}, "alpha must be a finite number, got nan"),
        ({"alpha": math.inf}, "alpha must be a finite number, got inf"),
        ({"gate": "both"}, "gate must be one of 'norm', 'channel', got 'both'"),
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"leak": 0.0}, "leak must be a finite number > 0 and <= 1, got 0.0"),
        ({"init": "zeros"}, "init must be one of 'fan_in', 'orthogonal', got 'zeros'"),
        ({"gain": -1}, "gain must be a finite number > 0, got -1"),
        ({"weight": torch.ones(3)}, r"weight must be a finite floating-point tensor \[128\], got torch.float32 \(3,\)"),
        ({"residual": 1}, "residual must be True or False, got 1"),
    ],
)
def test_bad_options_are_refused_by_name(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        RelativisticCA(lattice, **options)


def test_a_steepness_that_has_run_away_is_refused_in_the_step(lattice):
    rule = RelativisticCA(lattice)
    with torch.no_grad():
        rule.alpha.fill_(math.nan)
    with pytest.raises(ValueError, match="alpha must be finite"):
        rollout(rule, torch.ones(1, 16), steps=2)


def test_a_drive_of_another_rank_or_width_is_refused(lattice):
    with pytest.raises(ValueError, match=r"drive must have shape \[B, 16, 2\] or \[B, F, 16, 2\] with F a divisor of 3, got \(4, 16\)"):
        rollout(RelativisticCA(lattice, channels=2), torch.ones(4, 16), steps=3)
    with pytest.raises(ValueError, match=r"drive must have shape \[B, 16\]"):
        rollout(RelativisticCA(lattice), torch.ones(4, 16, 2), steps=3)
    graph = topologies.grid(4, 2)
    with pytest.raises(ValueError, match=r"projector.channels must be the rule's 2, got None"):
        LatticeMachine(graph, Linear((3,), graph), RelativisticCA(graph, channels=2), Rate(graph, 2, 3, channels=2), steps=3)
