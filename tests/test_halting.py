"""Adaptive computation time: a rollout that halts is Graves' sums written out sample by sample, whatever else is asked of it."""

from __future__ import annotations

import copy
import csv
import json
import math
import pickle
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import topologies
from lmn_graph import Connectivity, LatticeMachine, rollout
from lmn_graph.halting import HALTING, HaltingUnit
from lmn_graph.losses import PonderCost
from lmn_graph.projectors import Linear
from lmn_graph.readouts import READOUTS, Attention, Rate
from lmn_graph.rollout import Trajectory
from lmn_graph.rules import RULES, CellState, DistanceKernelCA, HypernetCA, RelativisticCA, SpikingSOC, TanhLattice, UpdateRule
from lmn_graph.rules.base import _PROPERTIES
from lmn_graph.rules.generators import GENERATORS
from lmn_graph.surrogates import Gaussian

T, B, N = 12, 7, 13


class Scaled(NamedTuple):
    weight: Tensor
    scale: Tensor


class Contextual(UpdateRule):
    """x ← tanh(c_b (W x)_i + drive): a rule with something of its own, c = exp(context · u), for every sample."""

    context_dim = 2

    def __init__(self, topology) -> None:
        super().__init__(topology)
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, self.connectivity.num_edges))
        self.u = torch.nn.Parameter(torch.tensor([0.3, -0.6]))
        self.selected = []

    def initial_state(self, batch_size, *, graph=None):
        return CellState(self.weight.new_zeros(self.num_nodes, batch_size))

    def prepare(self, context=None, graph=None):
        return Scaled(self.weight, (context.to(self.u.dtype) @ self.u).exp())

    def select(self, p, samples):
        self.selected.append(samples.numel())
        return p._replace(scale=p.scale[samples])

    def step(self, p, state, drive):
        target, source = self.connectivity.edge_index[1], self.connectivity.edge_index[0]
        total = torch.zeros_like(state.x).index_add(0, target, p.weight.unsqueeze(1) * state.x[source])
        x = torch.tanh(p.scale * total if drive is None else p.scale * total + drive)
        return CellState(x), x


class ContextualWithoutSelect(Contextual):
    """The same, by an author who did not think of halting."""

    select = UpdateRule.select


@pytest.fixture
def rule(random_graph, normal):
    return spread_parameters(RelativisticCA(random_graph, leak=0.5), normal)


@pytest.fixture
def drive(normal):
    return normal(B, N).requires_grad_()


def spread_parameters(rule, normal):
    rule.double()
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter += 0.3 * normal(*parameter.shape)
    return rule


def unit_for(rule, *, nodes=N, spread=1.0, bias=-2.0, **options):
    """A unit under which the samples of a batch stop at different steps."""
    unit = HaltingUnit(rule.connectivity, channels=rule.channels, bias=bias, **options).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        unit.weight.copy_(spread * torch.randn(unit.weight.shape, generator=generator, dtype=torch.float64))
    return unit


def probability(unit, x: Tensor) -> Tensor:
    """h of one sample, [N] or [N, C], written out anew."""
    x = x if unit.channels is not None else x[:, None]
    weight = unit.weight if unit.channels is not None else unit.weight[..., None]
    cells = (x * weight).sum(1)
    pooled = {"linear": cells.sum(), "mean": cells.mean(), "min": cells.min(), "max": cells.max()}[unit.pool]
    return 1 / (1 + (-pooled - unit.bias).exp())


def by_hand(rule, unit, drive, *, steps=T, state=None, truncate=None, inject="every", context=None, record=()):
    """Graves 2016, equations 5 to 9, one sample at a time in a plain loop."""
    tail = () if rule.channels is None else (rule.channels,)
    rows = []
    for b in range(drive.size(0)):
        p = rule.prepare(None if context is None else context[b : b + 1])
        s = rule.initial_state(1) if state is None else type(state)(*(field[:, b : b + 1] for field in state))
        outputs, states, hs = [], [], []
        while True:
            t = len(outputs)
            if truncate and t and t % truncate == 0:
                s = type(s)(*(field.detach() for field in s))
            constant = drive.shape[1:] == (rule.num_nodes, *tail)
            now = drive[b] if constant else drive[b, t]
            s, y = rule.step(p, s, None if inject == "first" and constant and t else now.unsqueeze(1))
            outputs.append(y[:, 0])
            states.append([field[:, 0] for field in s])
            hs.append(probability(unit, s[0][:, 0]))
            if sum(h.item() for h in hs) >= 1 - unit.epsilon or len(hs) == steps:
                break
        n = len(hs)
        remainder = 1 - sum(hs[:-1])
        weights = torch.stack(
            [*hs[:-1], torch.as_tensor(remainder, dtype=torch.float64), *[torch.zeros((), dtype=torch.float64)] * (steps - n)]
        )
        nothing = [torch.zeros_like(outputs[0])] * (steps - n)
        mean = [sum(weight * field for weight, field in zip(weights, fields)) for fields in zip(*states)]
        named = dict(zip(s._fields, zip(*states)))
        recorded = [torch.stack([*named[name], *nothing]) for name in record]
        rows.append((torch.stack([*outputs, *nothing]), *mean, *recorded, weights, torch.tensor(n), n + remainder))
    return [torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*rows)]


def values_of(found: Trajectory) -> list[Tensor]:
    """In the order of :func:`by_hand`, batch-first."""
    assert found.halting is not None
    return [found.activity, *(field.transpose(0, 1) for field in found.state), *found.recorded.values(), *found.halting]


def gradients(values, wanted):
    generator = torch.Generator().manual_seed(5)
    loss = sum((torch.randn(v.shape, generator=generator, dtype=v.dtype) * v).sum() for v in values if v.is_floating_point())
    return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)


def assert_all_close(found, wanted):
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, check_dtype=False)


def assert_is_by_hand(rule, unit, drive, *, options=None, state=None, **common):
    """Values and the gradients of all of them to everything."""
    found = rollout(rule, drive, steps=T, state=state, halting=unit, **common, **(options or {}))
    expected = by_hand(rule, unit, drive, state=state, **common)
    assert_all_close(values_of(found), expected)
    wanted = [drive, *rule.parameters(), *unit.parameters()]
    assert_all_close(gradients(values_of(found), wanted), gradients(expected, wanted))
    assert found.halting is not None
    return found


@pytest.mark.parametrize(("pool", "bias"), [("linear", -2), ("mean", -1.5), ("min", 2.5), ("max", -6.5)])
def test_a_rollout_that_halts_is_the_loop_of_every_sample(rule, drive, pool, bias):
    unit = unit_for(rule, pool=pool, spread=1.0 if pool == "linear" else 6.0, bias=bias)
    found = assert_is_by_hand(rule, unit, drive)
    assert len(found.halting.steps.unique()) >= 3
    torch.testing.assert_close(found.halting.weights.sum(1), torch.ones(B, dtype=torch.float64))
    assert found.halting.steps.dtype == torch.int64


@pytest.mark.parametrize("pool", ["linear", "mean", "min", "max"])
def test_cells_with_channels_halt_too(random_graph, normal, pool):
    rule = spread_parameters(RelativisticCA(random_graph, channels=3), normal)
    assert_is_by_hand(rule, unit_for(rule, pool=pool), normal(B, N, 3).requires_grad_())


def test_spikes_stop(random_graph, normal):
    """The first field is the membrane; the mean state holds resources as well."""
    rule = spread_parameters(SpikingSOC(random_graph, threshold=0.4, surrogate=Gaussian(1.0)), normal)
    found = assert_is_by_hand(rule, unit_for(rule, spread=0.5), normal(B, N).abs().requires_grad_(), record=("r", "v"))
    assert list(found.recorded) == ["r", "v"]


OPTIONS = {
    "truncate": ({}, {"truncate": 2}),
    "checkpoint": ({"checkpoint": 3}, {}),
    "both": ({"checkpoint": 5}, {"truncate": 3}),
    "record": ({}, {"record": ("x",)}),
    "all": ({"checkpoint": 4}, {"record": ("x",), "truncate": 3, "inject": "first"}),
    "first": ({}, {"inject": "first"}),
}


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("case", OPTIONS)
def test_every_option_works_together_with_halting(rule, normal, case, per_step):
    """Truncation detaches the state alone; a checkpoint changes nothing; a drive may differ from step to step."""
    options, common = OPTIONS[case]
    drive = normal(B, T, N) if per_step else normal(B, N)
    assert_is_by_hand(rule, unit_for(rule), drive.requires_grad_(), options=options, **common)


def test_a_given_state_is_where_a_halting_rollout_starts(rule, drive, normal):
    state = CellState(normal(N, B))
    kept = state.x.clone()
    assert_is_by_hand(rule, unit_for(rule), drive, state=state)
    assert torch.equal(state.x, kept)


@pytest.mark.parametrize("kind", [Contextual, ContextualWithoutSelect])
def test_what_belongs_to_a_sample_leaves_with_it(random_graph, normal, kind):
    """With ``select`` stopped samples are dropped; without it they are carried along, and nothing is wrong."""
    rule = spread_parameters(kind(random_graph), normal)
    context = normal(B, 2)
    assert_is_by_hand(rule, unit_for(rule), normal(B, N).requires_grad_(), context=context, options={"checkpoint": 2})
    assert bool(rule.selected) == (kind is Contextual)


@pytest.mark.parametrize("kind", list(GENERATORS))
def test_weights_that_a_generator_makes_for_a_sample_leave_with_it(lattice, normal, kind):
    """The registered rule that has a weight for every edge and sample, or factors of them."""
    rule = HypernetCA(lattice, context_dim=3, generator=GENERATORS[kind]).double()
    drive, context = normal(B, 16).requires_grad_(), 2 * normal(B, 3)
    unit = unit_for(rule, bias=-1.0)
    found = assert_is_by_hand(rule, unit, drive, context=context)
    assert len(found.halting.steps.unique()) >= 3


def test_without_gradients_the_values_are_the_same(rule, drive):
    unit = unit_for(rule)
    expected = rollout(rule, drive, steps=T, halting=unit, record=("x",))
    with torch.no_grad():
        found = rollout(rule, drive, steps=T, halting=unit, record=("x",), checkpoint=3, truncate=2)
    assert_all_close(values_of(found), [value.detach() for value in values_of(expected)])
    assert not found.activity.requires_grad


class Counting(RelativisticCA):
    """Notes how many samples every step is given."""

    def step(self, p, state, drive):
        self.widths = [*getattr(self, "widths", []), state[0].size(1)]
        return super().step(p, state, drive)


@pytest.mark.parametrize("grad", [True, False])
def test_samples_that_stopped_are_no_longer_computed(random_graph, normal, grad):
    """Once a quarter of those held has stopped they are dropped, and the loop ends with the last one."""
    rule = spread_parameters(Counting(random_graph, leak=0.5), normal)
    with torch.set_grad_enabled(grad):
        found = rollout(rule, normal(64, N), steps=200, halting=unit_for(rule, spread=0.4))
    running = [int((found.halting.steps > t).sum()) for t in range(200)]
    last = int(found.halting.steps.max())
    assert len(rule.widths) == last < 200
    assert all(run <= held and held - run < max(1, 0.25 * held) for run, held in zip(running, rule.widths))
    assert found.activity.shape == (64, 200, N)


@pytest.mark.parametrize("grad", [True, False])
def test_dropping_changes_nothing(rule, normal, monkeypatch, grad):
    module, unit, drive, results = sys.modules["lmn_graph.rollout"], unit_for(rule), normal(40, T, N).requires_grad_(), []
    for share in (0.0, 0.25, math.inf):
        monkeypatch.setattr(module, "_DROP_FROM", share)
        with torch.set_grad_enabled(grad):
            values = values_of(rollout(rule, drive, steps=T, halting=unit, record=("x",)))
        results.append(values + (list(gradients(values, [drive, *rule.parameters(), *unit.parameters()])) if grad else []))
    assert_all_close(results[1], results[0])
    assert_all_close(results[2], results[0])


class Exploding(UpdateRule):
    """x ← c x² + drive: beyond float32 after six steps from a drive of 10."""

    def __init__(self, topology) -> None:
        super().__init__(topology)
        self.c = torch.nn.Parameter(torch.ones(()))

    def initial_state(self, batch_size, *, graph=None):
        return CellState(torch.zeros(self.num_nodes, batch_size))

    def prepare(self, context=None, graph=None):
        return self.c

    def step(self, p, state, drive):
        x = p * state.x.square() + drive
        return CellState(x), x


def test_a_sample_that_stopped_stays_where_it_is(random_graph):
    """One that is held for a while, because few have stopped, cannot overflow and spoil the gradients of the others."""
    rule = Exploding(random_graph)
    unit = HaltingUnit(random_graph, pool="mean", bias=-3.0)
    with torch.no_grad():
        unit.weight.fill_(30.0)
    drive = torch.zeros(B, N)
    drive[0] = 10.0
    drive.requires_grad_()
    found = rollout(rule, drive, steps=30, halting=unit)
    assert found.halting.steps.tolist() == [1] + [21] * (B - 1)
    for gradient in torch.autograd.grad(found.state.x.sum() + found.halting.ponder.sum(), [drive, rule.c]):
        assert bool(gradient.isfinite().all())


def test_the_ponder_cost_is_what_is_published(lattice):
    """h = 0.3 at every step: four steps, remainder 0.1; the gradient of ρ to a common h is −3."""
    unit = HaltingUnit(lattice, pool="mean", bias=math.log(0.3 / 0.7)).double()
    torch.nn.init.zeros_(unit.weight)
    found = rollout(RelativisticCA(lattice).double(), torch.ones(2, 16, dtype=torch.float64), steps=9, halting=unit)
    assert found.halting.steps.tolist() == [4, 4]
    assert found.halting.weights[0].tolist() == pytest.approx([0.3, 0.3, 0.3, 0.1, 0, 0, 0, 0, 0])
    assert found.halting.ponder.tolist() == pytest.approx([4.1, 4.1])
    (gradient,) = torch.autograd.grad(found.halting.ponder[0], unit.bias)
    assert float(gradient) == pytest.approx(-3 * 0.3 * 0.7)


@pytest.mark.parametrize(("steps", "taken"), [(1, 1), (2, 2), (4, 4), (50, 4)])
def test_a_sample_stops_at_the_end_of_the_budget_in_any_case(lattice, steps, taken):
    unit = HaltingUnit(lattice, pool="mean", bias=math.log(0.3 / 0.7))
    torch.nn.init.zeros_(unit.weight)
    found = rollout(RelativisticCA(lattice), torch.ones(2, 16), steps=steps, halting=unit)
    assert found.halting.steps.tolist() == [taken] * 2
    torch.testing.assert_close(found.halting.weights.sum(1), torch.ones(2))
    assert found.halting.ponder.tolist() == pytest.approx([taken + 1 - 0.3 * (taken - 1)] * 2)


def test_a_unit_that_is_sure_at_once_gives_the_first_step(rule, drive):
    found = rollout(rule, drive, steps=T, halting=unit_for(rule, bias=50.0))
    first = rollout(rule, drive, steps=1)
    assert torch.equal(found.activity[:, 0], first.activity[:, 0])
    assert not found.activity[:, 1:].any()
    assert torch.equal(found.state.x, first.state.x)
    assert found.halting.ponder.tolist() == [2.0] * B


def test_without_a_unit_nothing_halts(rule, drive):
    assert rollout(rule, drive, steps=T).halting is None
    assert Trajectory(drive, None, {}).halting is None


@pytest.mark.parametrize("grad", [True, False])
def test_no_samples_and_a_single_node(grad):
    rule = SpikingSOC(topologies.grid(1, 1), weight=0.5)
    unit = HaltingUnit(rule.connectivity)
    with torch.set_grad_enabled(grad):
        for size in (0, 1, 2):
            found = rollout(rule, torch.ones(size, 1), steps=5, halting=unit)
            assert found.activity.shape == (size, 5, 1)
            assert found.halting.weights.shape == (size, 5)
            assert found.state.v.shape == (1, size)


class Shortcut(RelativisticCA):
    def run(self, *args, **options):
        raise AssertionError("not used with halting")


def test_a_rules_own_run_gives_way_to_the_loop(random_graph, normal):
    rule = spread_parameters(Shortcut(random_graph), normal)
    assert_is_by_hand(rule, unit_for(rule), normal(B, N).requires_grad_())


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("pool", ["linear", "min"])
def test_every_registered_rule_halts(name, pool, some_graph):
    """A batch that halts is its samples halted one by one, and every parameter that a rollout trains is trained."""
    if not all(_PROPERTIES[needed](Connectivity(some_graph)) for needed in RULES[name].requires):
        with pytest.raises(ValueError, match=f"that {name} requires"):
            RULES[name](some_graph)
        return
    rule = RULES[name](some_graph).double()
    tail = () if rule.channels is None else (rule.channels,)
    unit = unit_for(rule, pool=pool)
    generator = torch.Generator().manual_seed(7)
    drive = 1.5 * torch.rand((5, rule.num_nodes, *tail), generator=generator, dtype=torch.float64)
    found = rollout(rule, drive, steps=T, halting=unit, record=rule.initial_state(0)._fields)
    for sample in range(5):
        alone = rollout(rule, drive[sample, None], steps=T, halting=unit, record=rule.initial_state(0)._fields)
        assert_all_close([value[0] for value in values_of(alone)], [value[sample] for value in values_of(found)])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(values_of(found), list(rule.parameters())))


@pytest.mark.parametrize("pool", ["mean", "min", "max"])
def test_a_pooled_unit_fits_a_lattice_of_any_size(pool):
    rule = DistanceKernelCA(topologies.grid(4, 1, boundary="open", self_loops=True), channels=3)
    unit = HaltingUnit(rule.connectivity, channels=3, pool=pool)
    larger = topologies.grid(9, 1, boundary="open", self_loops=True)
    assert rollout(rule, torch.rand(2, 9, 3), steps=5, halting=unit, graph=larger).activity.shape == (2, 5, 9, 3)
    with pytest.raises(ValueError, match=r"halting must be made for the graph's 9 nodes, or pool otherwise than \"linear\", got 4"):
        rollout(rule, torch.rand(2, 9, 3), steps=5, halting=HaltingUnit(rule.connectivity, channels=3), graph=larger)


def test_a_drive_in_double_makes_halting_double(random_graph, normal):
    single = RelativisticCA(random_graph)
    unit = HaltingUnit(random_graph)
    found = rollout(single, normal(B, N), steps=T, halting=unit)
    assert {found.halting.weights.dtype, found.halting.ponder.dtype, found.state.x.dtype, found.activity.dtype} == {torch.float64}
    found = rollout(single, normal(B, N).float(), steps=T, halting=unit)
    assert {found.halting.weights.dtype, found.halting.ponder.dtype, found.state.x.dtype, found.activity.dtype} == {torch.float32}


def test_parameters_of_a_unit_can_be_saved_copied_and_drawn_anew(lattice):
    unit = HaltingUnit(lattice, channels=2, bias=-1.5)
    other = HaltingUnit(lattice, channels=2)
    other.load_state_dict(unit.state_dict())
    x = torch.rand(16, 3, 2)
    assert torch.equal(other(x), unit(x))
    assert torch.equal(copy.deepcopy(unit)(x), unit(x))
    other.reset_parameters()
    assert other.bias.item() == 1.0
    assert not torch.equal(other.weight, unit.weight)
    assert list(HALTING) == ["AdaptiveTime"]
    assert HALTING["AdaptiveTime"] is HaltingUnit


def test_a_larger_bias_stops_sooner(rule, drive):
    taken = []
    for bias in (-4.0, -2.0, 0.0, 1.0):
        found = rollout(rule, drive, steps=200, halting=unit_for(rule, bias=bias, spread=0.0))
        taken.append(int(found.halting.steps[0]))
    assert taken == [math.ceil(0.99 * (1 + math.exp(-bias))) for bias in (-4.0, -2.0, 0.0, 1.0)]


BAD = {
    "pool": (lambda g: HaltingUnit(g, pool="sum"), "pool must be one of 'linear', 'mean', 'min', 'max', got 'sum'"),
    "epsilon 0": (lambda g: HaltingUnit(g, epsilon=0), "epsilon must be a finite number > 0, got 0"),
    "epsilon 1": (lambda g: HaltingUnit(g, epsilon=1), r"epsilon must be a number in \(0, 1\), got 1"),
    "bias": (lambda g: HaltingUnit(g, bias=math.inf), "bias must be a finite number, got inf"),
    "channels": (lambda g: HaltingUnit(g, channels=0), "channels must be an integer >= 1, got 0"),
    "topology": (lambda g: HaltingUnit(None), "topology.num_nodes must be an integer >= 1, got None"),
    "budget": (
        lambda g: rollout(RelativisticCA(g), torch.zeros(1, 16), steps=0, halting=HaltingUnit(g)),
        "steps, the budget of halting, must be an integer >= 1, got 0",
    ),
    "unit": (
        lambda g: rollout(RelativisticCA(g), torch.zeros(1, 16), steps=1, halting="AdaptiveTime"),
        "halting must be a HaltingUnit or None, got str",
    ),
    "nodes": (
        lambda g: rollout(RelativisticCA(g), torch.zeros(1, 16), steps=1, halting=HaltingUnit(topologies.grid(3, 2))),
        'halting must be made for the graph\'s 16 nodes, or pool otherwise than "linear", got 9',
    ),
    "rule's channels": (
        lambda g: rollout(RelativisticCA(g), torch.zeros(1, 16), steps=1, halting=HaltingUnit(g, channels=2)),
        "halting.channels must be the rule's None, got 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(lattice, case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(lattice)


# Machines


def machine_on(topology, *, steps=T, readout=None, channels=None, bias=-2.0, pool="linear", **options):
    rule = RelativisticCA(topology, channels=channels)
    unit = HaltingUnit(topology, channels=channels, bias=bias, pool=pool)
    torch.nn.init.normal_(unit.weight, generator=torch.Generator().manual_seed(3))
    readout = Rate(topology, 2, steps, channels=channels) if readout is None else readout
    return LatticeMachine(topology, Linear((5,), topology, channels=channels), rule, readout, steps=steps, halting=unit, **options)


@pytest.mark.parametrize("channels", [None, 3])
def test_the_mean_over_time_of_what_a_readout_gets_is_the_weighted_output(lattice, channels):
    machine, x = machine_on(lattice, channels=channels).double(), torch.randn(B, 5, dtype=torch.float64)
    output = machine(x)
    expected = by_hand(machine.rule, machine.halting, machine.drive(x))
    torch.testing.assert_close(output.trajectory.halting.steps, expected[3])
    mean = torch.einsum("bt,bt...->b...", expected[2], expected[0])
    torch.testing.assert_close(output.prediction, machine.readout.linear(mean.flatten(1)))
    torch.testing.assert_close(output.state.x.transpose(0, 1), expected[1])


@pytest.mark.parametrize("name", list(READOUTS))
@pytest.mark.parametrize("inject", ["every", "first", "state"])
def test_every_readout_reads_a_machine_that_halts(lattice, name, inject):
    """One gradient for every parameter of the machine, the halting unit's among them."""
    machine = machine_on(lattice, readout=READOUTS[name](lattice, 2, T), inject=inject, checkpoint=4)
    output = machine(torch.randn(B, 5))
    (output.prediction.square().sum() + output.trajectory.halting.ponder.sum()).backward()
    for key, parameter in machine.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
    assert bool(machine.halting.weight.grad.any())


def test_the_unit_is_a_part_of_the_machine(lattice):
    machine, x = machine_on(lattice), torch.randn(B, 5)
    assert {"halting.weight", "halting.bias"} <= machine.state_dict().keys()
    other = machine_on(lattice, bias=0.5)
    other.load_state_dict(machine.state_dict())
    machine.eval(), other.eval()
    for same in (other, copy.deepcopy(machine), pickle.loads(pickle.dumps(machine))):
        assert torch.equal(same(x).prediction, machine(x).prediction)
    other.reset_parameters()
    assert other.halting.bias.item() == 0.5
    assert machine.double()(x.double()).trajectory.halting.ponder.dtype == torch.float64
    without = LatticeMachine(lattice, machine.projector, machine.rule, machine.readout, steps=T)
    assert not any(key.startswith("halting") for key in without.state_dict())
    assert without(x.double()).trajectory.halting is None


def test_a_stream_goes_on_from_the_mean_state(lattice):
    machine, x = machine_on(lattice), torch.randn(B, 5)
    first = machine(x)
    second = machine(x, first.state)
    expected = rollout(machine.rule, machine.drive(x), steps=T, state=first.state, halting=machine.halting)
    assert torch.equal(second.trajectory.activity, expected.activity)


def test_a_price_on_steps_makes_a_machine_halt_sooner(lattice):
    """Descending the ponder cost alone, the steps fall to one."""
    machine, x = machine_on(lattice, steps=20), torch.randn(16, 5)
    term, taken = PonderCost(), []
    optimiser = torch.optim.Adam(machine.halting.parameters(), 0.1)
    for _ in range(150):
        output = machine(x)
        taken.append(output.trajectory.halting.steps.double().mean().item())
        loss = term(output, machine=machine, x=x)
        assert torch.equal(loss, output.trajectory.halting.ponder.mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert taken[0] > 6
    assert taken[-1] < 2.1


def test_a_machine_refuses_what_does_not_halt_with_it(lattice):
    plain = LatticeMachine(lattice, Linear((5,), lattice), RelativisticCA(lattice), Rate(lattice, 2, T), steps=T)
    x = torch.randn(2, 5)
    with pytest.raises(ValueError, match="machine must have a halting unit for PonderCost"):
        PonderCost()(plain(x), machine=plain, x=x)
    parts = (lattice, plain.projector, plain.rule)
    for halting, message in (
        ("AdaptiveTime", "halting must be a HaltingUnit or None, got str"),
        (HaltingUnit(lattice, channels=2), "halting.channels must be the rule's None, got 2"),
        (HaltingUnit(topologies.grid(3, 2)), "halting must be made for the graph's 16 nodes"),
    ):
        with pytest.raises(ValueError, match=message):
            LatticeMachine(*parts, plain.readout, steps=T, halting=halting)
    with pytest.raises(ValueError, match=r"readout\.skip must be 0 with halting"):
        LatticeMachine(*parts, Rate(lattice, 2, T, skip=1), steps=T, halting=HaltingUnit(lattice))
    with pytest.raises(ValueError, match=r"readout\.pool must be 'mean' with halting"):
        LatticeMachine(*parts, Attention(lattice, 2, T, pool="last"), steps=T, halting=HaltingUnit(lattice))


# Runs


@pytest.fixture(scope="module")
def halted_run(tmp_path_factory):
    """A tiny run with halting and a ponder cost, from options alone."""
    from tiny_runs import blobs

    from lmn_graph.training import configure, train

    folder = tmp_path_factory.mktemp("halting")
    small = ("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "9", "--trainer.epochs", "2", "--trainer.batch_size", "16")
    wanted = ("--halting", "AdaptiveTime", "--halting.epsilon", "0.05", "--halting.bias", "-1.5", "--ponder", "PonderCost")
    config = configure("soc-lattice", [], ["--data", str(blobs(folder)), *small, *wanted, "--loss.ponder_weight", "0.01"])
    return config, train(config, folder / "run", progress=False)


def test_a_run_logs_how_many_steps_its_samples_took(halted_run):
    config, run = halted_run
    assert config["halting"] == {"name": "AdaptiveTime", "pool": "linear", "epsilon": 0.05, "bias": -1.5}
    with (run.folder / "metrics.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    found = json.loads((run.folder / "run.json").read_text())["metrics"]
    for place, numbers in (("val", rows[0]), ("val", rows[-1]), ("test", found)):
        least, median, mean, most = (numbers[f"{place}/steps_{name}"] for name in ("min", "median", "mean", "max"))
        assert 1 <= least <= min(median, mean) <= max(median, mean) <= most <= 9
    assert all(1 < row["train/ponder"] <= 10 for row in rows)
    assert (run.folder / "steps.png").stat().st_size > 1000


def test_a_finished_run_halts_as_it_was_trained(halted_run):
    """The unit's parameters are in the model, and the numbers of the test set are those of its samples."""
    from lmn_graph.training import evaluate, open_run
    from lmn_graph.training.batches import Batches
    from lmn_graph.training.measure import steps_taken

    _, run = halted_run
    opened = open_run(run.folder)
    machine, splits = opened.machine(), opened.splits()
    assert machine.halting.epsilon == 0.05
    taken = steps_taken(machine, Batches(splits.test.x, splits.test.y, 7)).double()
    found = evaluate(machine, splits)
    assert found == run.metrics
    assert [found[f"test/steps_{name}"] for name in ("mean", "min", "max")] == [taken.mean(), taken.min(), taken.max()]


def test_a_run_without_halting_draws_no_steps(tmp_path):
    from tiny_runs import blobs

    from lmn_graph.training import build, configure
    from lmn_graph.training.batches import Batches
    from lmn_graph.training.measure import quality, steps_taken

    config = configure("soc-lattice", [], ["--data", str(blobs(tmp_path)), "--topology.L", "4", "--topology.dim", "2"])
    assert config["halting"] == config["ponder"] == {"name": "none"}
    splits = build.load_data(config)
    machine = build.build_machine(config, splits.in_shape, splits.out_features)
    batches = Batches(splits.test.x, splits.test.y, 64)
    assert machine.halting is None
    assert steps_taken(machine, batches) is None
    assert quality(machine, batches, "classification").keys() == {"loss", "accuracy"}


def test_the_command_line_knows_the_options_of_halting(tmp_path):
    from tiny_runs import blobs

    from lmn_graph.training import configure

    data = ("--data", str(blobs(tmp_path)))
    with pytest.raises(ValueError, match=r"unknown halting 'AdaptivTime'; did you mean 'AdaptiveTime'\?"):
        configure("soc-lattice", [], [*data, "--halting", "AdaptivTime"])
    with pytest.raises(ValueError, match=r"halting\.epsilonn"):
        configure("soc-lattice", [], [*data, "--halting", "AdaptiveTime", "--halting.epsilonn", "0.1"])
    with pytest.raises(ValueError, match="channels"):  # the rule's, given by the builder
        configure("soc-lattice", [], [*data, "--halting", "AdaptiveTime", "--halting.channels", "2"])


@pytest.mark.parametrize("budget", [1, 7, 200])
def test_the_picture_of_steps_has_a_histogram_for_every_test_set(tmp_path, budget):
    from lmn_graph.report.plots import steps_taken

    taken = {name: torch.randint(1, budget + 1, (50,)) for name in ("test", "longer")}
    steps_taken(tmp_path / "two.png", taken, budget)
    steps_taken(tmp_path / "one.png", {"test": taken["test"]}, budget)
    assert (tmp_path / "two.png").stat().st_size > (tmp_path / "one.png").stat().st_size > 1000


# A task


@pytest.mark.slow
def test_parity_learned_on_short_paths_is_right_on_longer_ones_in_more_steps():
    """Trained on up to 10 nodes: paths of 20 come out right, and every further node takes as many more steps again."""
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    spec = spec_from_file_location("parity", Path(__file__).parents[1] / "benchmarks" / "parity.py")
    parity = module_from_spec(spec)
    spec.loader.exec_module(parity)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = parity.Parity()
        parity.train(model, iterations=700, halting_iterations=100)
        rows = {n: parity.measured(model, n, samples=64) for n in (5, 10, 20)}
    assert rows[10].bits > 0.999
    assert rows[20].bits > 0.99
    slope, _, fit = parity.line(list(rows), [row.mean for row in rows.values()])
    assert 1 <= slope < 4  # below the budget of four steps a node; parity moves by at most one node a step
    assert fit > 0.99
    assert rows[20].most < 4 * 20 + 20


def test_the_code_of_the_page_on_halting_runs():
    """One block after the other, as a reader would."""
    import re
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "halting.md").read_text(encoding="utf-8")
    found: dict = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)), "halting.md", "exec"), found)
    assert found["found"].activity.shape == (16, 40, 64)
    assert found["terms"].keys() == {"task", "ponder"}


def test_small_probabilities_add_up_in_half_precision(lattice):
    """1,000 times 0.0009: in bfloat16 a sum of so many would stall below one."""
    rule, unit = TanhLattice(lattice).bfloat16(), HaltingUnit(lattice, bias=-7.0).bfloat16()
    with torch.no_grad():
        unit.weight.zero_()
    found = rollout(rule, torch.zeros(2, 16, dtype=torch.bfloat16), steps=1500, halting=unit).halting
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2))
    assert found.steps.tolist() == [1087, 1087]


def test_a_bias_beyond_single_precision_is_refused(lattice):
    with pytest.raises(ValueError, match="bias must be finite"):
        HaltingUnit(lattice, bias=1e39)
