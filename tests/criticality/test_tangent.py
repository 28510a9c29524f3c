"""tangent_growth against explicit products of Jacobians, its gradient, and its range."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from known_processes import Cells, MapRule
from torch import Tensor

import topologies
from lmn_graph.criticality import tangent_growth
from lmn_graph.rules import SpikingSOC
from lmn_graph.rules.spiking_soc import SOCState


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Slow(NamedTuple):
    s: Tensor
    slow: Tensor


class TwoFields(MapRule):
    """A tanh map with a slow second field that feeds back: the path through it must count."""

    def step(self, p, state, drive):
        s = torch.tanh(p @ state.s + 0.7 * state.slow + (0 if drive is None else drive))
        return Slow(s, 0.8 * state.slow + 0.5 * state.s**2), s


def explicit_jacobian(rule, state, drive, steps: int) -> Tensor:
    """∂s_k/∂s_0 of sample 0, by torch's own Jacobian of the whole run."""

    def run(s: Tensor) -> Tensor:
        now = type(state)(s, *state[1:])
        for step in range(steps):
            now, _ = rule.step(rule.prepare(), now, None if drive is None else drive[:, step].T)
        return now[0]

    return torch.autograd.functional.jacobian(run, state[0])[:, 0, :, 0].detach()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("driven", [False, True])
def test_every_covector_is_pulled_through_the_product_of_jacobians(steps, driven):
    """Over all basis covectors: ‖Jᵀe_i‖ one by one, and their squares add up to ‖J‖_F²."""
    n = 5
    rule = TwoFields(random(n, n) / 2)
    drive = random(1, steps, n, seed=2) if driven else None
    state = Slow(random(n, 1, seed=1), random(n, 1, seed=3))
    jacobian = explicit_jacobian(rule, state, drive, steps)
    lengths = []
    for i in range(n):
        covector = torch.zeros(n, 1, dtype=torch.float64)
        covector[i] = 2.5
        lengths.append(tangent_growth(rule, state, drive, steps=steps, covector=covector) ** steps)
    lengths = torch.cat(lengths).detach()
    torch.testing.assert_close(lengths, jacobian.norm(dim=1))
    torch.testing.assert_close(lengths.square().sum(), jacobian.square().sum())


def test_samples_do_not_mix():
    """The growth of a batch is that of its samples one by one."""
    rule = TwoFields(random(4, 4))
    state, covector = Slow(random(4, 3, seed=1), random(4, 3, seed=2)), random(4, 3, seed=3)
    together = tangent_growth(rule, state, None, steps=4, covector=covector)
    for b in range(3):
        one = Slow(*(field[:, b : b + 1] for field in state))
        torch.testing.assert_close(tangent_growth(rule, one, None, steps=4, covector=covector[:, b : b + 1])[0], together[b])


def test_random_covectors_measure_the_frobenius_norm(generator):
    """E (growth)^{2k} = ‖J‖_F² / n for a normal covector, to 3 standard errors over 20,000 draws."""
    rule = MapRule(random(6, 6) / 2)
    state = Cells(torch.zeros(6, 20_000, dtype=torch.float64))
    squares = tangent_growth(rule, state, None, steps=3, generator=generator).detach() ** 6
    exact = torch.linalg.matrix_power(rule.weight.detach(), 3).square().sum() / 6
    assert abs(squares.mean() - exact) < 3 * squares.std() / 20_000**0.5


def test_alignment_finds_the_spectral_radius(generator):
    """A random covector reads n^{−1/2k} of one leading mode; aligned, it reads the mode."""
    n = 64
    rule = MapRule(torch.full((n, n), 1.0 / n, dtype=torch.float64))
    state = Cells(torch.zeros(n, 200, dtype=torch.float64))
    unaligned = tangent_growth(rule, state, None, steps=10, generator=generator).detach()
    assert (unaligned**20).mean().item() == pytest.approx(1 / n, rel=0.3)
    aligned = tangent_growth(rule, state, None, steps=10, align=1, generator=generator)
    torch.testing.assert_close(aligned, torch.ones(200, dtype=torch.float64))

    weight = random(20, 20) / 20**0.5
    symmetric = weight + weight.T
    radius = torch.linalg.eigvalsh(symmetric).abs().max()
    found = tangent_growth(
        MapRule(symmetric), Cells(torch.zeros(20, 4, dtype=torch.float64)), None, steps=10, align=200, generator=generator
    )
    torch.testing.assert_close(found, radius.expand(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("align", [0, 3])
def test_gradient_is_that_of_the_value(align):
    """gradcheck with respect to the weights and the drive, the trajectory's own dependence included."""
    state = Slow(random(4, 2, seed=1), random(4, 2, seed=2))
    covector, drive = random(4, 2, seed=3), random(2, 4, seed=4).requires_grad_()
    rule = TwoFields(random(4, 4))

    def growth(weight: Tensor, drive: Tensor) -> Tensor:
        rule.prepare = lambda context=None: weight
        return tangent_growth(rule, state, drive, steps=3, covector=covector)

    if not align:
        assert torch.autograd.gradcheck(growth, (random(4, 4).requires_grad_(), drive))
        return
    # With alignment the direction is held fixed: the value is that of the aligned covector, the gradient leaves the alignment out.
    aligned = tangent_growth(rule, state, drive, steps=3, align=align, covector=covector)
    aligned.sum().backward()
    assert rule.weight.grad.isfinite().all()
    assert (rule.weight.grad != 0).any()


@pytest.mark.parametrize("gain", [0.3, 3.0], ids=["from below", "from above"])
@pytest.mark.parametrize("f", [None, torch.tanh], ids=["linear", "tanh"])
def test_descent_reaches_the_target_from_both_sides(gain, f, generator):
    """(growth − 1)² falls to the edge from a contracting and from an expanding (for tanh: chaotic) rule."""
    rule = MapRule(gain * random(40, 40) / 40**0.5, f)
    optimiser = torch.optim.Adam(rule.parameters(), 0.003 if f else 0.01)
    state = Cells((0.1 if gain < 1 else 1.0) * random(40, 16, seed=1))
    first = tangent_growth(rule, state, None, generator=generator).mean().item()
    assert (first < 0.5) if gain < 1 else (first > 1.2)
    for _ in range(200):
        optimiser.zero_grad()
        (tangent_growth(rule, state, None, generator=generator) - 1).square().mean().backward()
        optimiser.step()
    assert tangent_growth(rule, state, None, generator=generator).mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_many_steps_stay_in_range(factor):
    """Four hundred steps in float32: 4^±400 is far outside it, the growth is 4^±1, and its derivative 1."""
    rule = MapRule(torch.eye(3))
    scale = torch.tensor(factor, requires_grad=True)
    rule.prepare = lambda context=None: scale * torch.eye(3)
    growth = tangent_growth(rule, Cells(torch.zeros(3, 2)), None, steps=400)
    growth.sum().backward()
    torch.testing.assert_close(growth, torch.full((2,), factor))
    torch.testing.assert_close(scale.grad, torch.tensor(2.0), rtol=1e-4, atol=0)


def test_no_derivative_left():
    """All J = 0: growth 0 with gradient 0; also where the state no longer depends on anything."""
    rule = MapRule(torch.zeros(3, 3))
    growth = tangent_growth(rule, Cells(torch.ones(3, 2)), None, steps=4)
    growth.sum().backward()
    assert (growth == 0).all()
    assert (rule.weight.grad == 0).all()
    assert (tangent_growth(rule, Cells(torch.ones(3, 2)), None, steps=4, align=4) == 0).all()

    constant = MapRule(torch.eye(3), lambda s: torch.zeros_like(s))
    assert (tangent_growth(constant, Cells(torch.ones(3, 2)), None) == 0).all()


def test_without_gradient_and_in_inference_mode():
    """A validation loop reads the same number, and gets no graph."""
    rule = TwoFields(random(4, 4))
    covector = random(4, 2, seed=3)
    trained = tangent_growth(rule, Slow(random(4, 2, seed=1), random(4, 2, seed=2)), random(2, 4), covector=covector)
    with torch.no_grad():
        plain = tangent_growth(rule, Slow(random(4, 2, seed=1), random(4, 2, seed=2)), random(2, 4), covector=covector)
    with torch.inference_mode():
        inferred = tangent_growth(rule, Slow(random(4, 2, seed=1), random(4, 2, seed=2)), random(2, 4), covector=random(4, 2, seed=3))
    for value in (plain, inferred):
        torch.testing.assert_close(value, trained.detach())
        assert not value.requires_grad
    assert rule.weight.grad is None


def test_state_and_drive_are_left_alone():
    rule = TwoFields(random(4, 4))
    state = Slow(random(4, 2, seed=1), random(4, 2, seed=2))
    tangent_growth(rule, state, None).sum().backward()
    assert not state.s.requires_grad
    assert state.s.grad is None


def test_seed_gives_the_covector():
    rule, state = TwoFields(random(4, 4)), Slow(random(4, 2, seed=1), random(4, 2, seed=2))
    first, same, other = (tangent_growth(rule, state, None, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def spiking(**options) -> SpikingSOC:
    torch.manual_seed(3)
    return SpikingSOC(topologies.grid(4, 2), **options).double()


def test_spiking_rule_has_its_surrogate_jacobian():
    """One step of SpikingSOC, reset "none": J = diag(decay) + W diag(r φ(v − θ)); over basis covectors ‖J‖_F²."""
    rule = spiking()
    n = rule.num_nodes
    state = SOCState(1 + random(n, 1, seed=1), torch.rand(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    target, source = rule.connectivity.edge_index[1], rule.connectivity.edge_index[0]
    weight = torch.zeros(n, n, dtype=torch.float64).index_put((target, source), rule.weight.detach())
    slope = rule.surrogate.derivative(state.v - 1)
    jacobian = torch.diag(rule.decay().detach().flatten()) + weight * (slope * state.r).T
    for i in range(n):
        covector = torch.eye(n, dtype=torch.float64)[:, i : i + 1]
        torch.testing.assert_close(tangent_growth(rule, state, None, steps=1, covector=covector)[0], jacobian[i].norm())


def test_a_membrane_alone_grows_by_its_decay():
    """Neurons without a synapse: the growth is the decay, the documented reading of a silent lattice, with a finite gradient."""
    topology = topologies.grid(4, 2)
    rule = SpikingSOC(topology, weight=torch.zeros(topology.num_edges), decay=0.8)
    growth = tangent_growth(rule, rule.initial_state(3), None)
    growth.sum().backward()
    torch.testing.assert_close(growth, torch.full((3,), 0.8))
    assert rule.weight.grad.isfinite().all()


@pytest.mark.parametrize("reset", ["none", "zero", "subtract"])
def test_spiking_gradient_twice_through_the_sparse_sum(reset):
    """Every parameter of a spiking lattice gets a finite gradient, the edge weights one that is not zero."""
    rule = spiking(reset=reset, threshold=None)
    state = SOCState(1 + random(rule.num_nodes, 2, seed=1), torch.full((rule.num_nodes, 2), 0.8, dtype=torch.float64))
    tangent_growth(rule, state, random(2, rule.num_nodes, seed=5)).sum().backward()
    for name, parameter in rule.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert (rule.weight.grad != 0).all()


RULE = MapRule(torch.eye(3))
STATE = Cells(torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tangent_growth(RULE, STATE, None, steps=0), "steps must be an integer >= 1"),
        (lambda: tangent_growth(RULE, STATE, None, align=-1), "align must be an integer >= 0"),
        (lambda: tangent_growth(RULE, STATE.s, None), "state must be the rule's NamedTuple"),
        (lambda: tangent_growth(RULE, Cells(torch.zeros(2, 3)), None), r"state.s must be node-major \[3, B\]"),
        (lambda: tangent_growth(RULE, Cells(torch.zeros(3, 2, 1)), None), "node-major"),
        (lambda: tangent_growth(RULE, Cells(torch.zeros(3, 0)), None), "B ≥ 1"),
        (lambda: tangent_growth(RULE, Cells(torch.zeros(3, 2, dtype=torch.long)), None), "floating point"),
        (lambda: tangent_growth(RULE, STATE, torch.zeros(3)), r"drive must be \[B, N\]"),
        (lambda: tangent_growth(RULE, STATE, [1.0]), "drive must be .* got list"),
        (lambda: tangent_growth(RULE, STATE, torch.zeros(3, 2)), r"drive must have shape \(2, 3\)"),
        (lambda: tangent_growth(RULE, STATE, torch.zeros(2, 5, 3)), "drive must cover 10 steps, got 5"),
        (lambda: tangent_growth(RULE, STATE, None, covector=torch.zeros(2, 3)), "covector must have the shape"),
        (lambda: tangent_growth(RULE, STATE, None, covector=torch.zeros(3, 2)), "covector must not be zero"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
