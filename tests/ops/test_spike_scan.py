"""The compiled loop of SpikingSOC: what step after step gives, on every graph, in values and in gradients of two orders."""

from __future__ import annotations

import pytest
import torch

import topologies
from lmn_graph import rollout
from lmn_graph.ops import spike_scan as module
from lmn_graph.ops.spike_scan import BLOCK
from lmn_graph.rules import SOCState, SpikingSOC
from lmn_graph.surrogates import ArcTan, Gaussian

LEARNED = {"threshold": None, "decay": None, "utilisation": None, "recovery": None}
SHARED = {"threshold": 0.7, "decay": 0.9, "utilisation": 0.2, "recovery": 20.0}


@pytest.fixture
def scans(monkeypatch):
    """How many rollouts, or segments of them, went through the compiled loop."""
    calls = []
    scan = module.spike_scan
    monkeypatch.setattr("lmn_graph.rules.spiking_soc.spike_scan", lambda *given: calls.append(given) or scan(*given))
    return calls


def both(rule, drive, *, steps, state=None, **options):
    """The same rollout step after step and compiled."""
    found = []
    for mode in ("never", "always"):
        rule.compile = mode
        found.append(rollout(rule, drive, steps=steps, state=state, **options))
    return found


def outputs(trajectory):
    return [trajectory.activity, *trajectory.state, *trajectory.recorded.values()]


def assert_same(found, inputs, normal, *, tolerance=1e-9):
    """Equal outputs, and equal gradients of a random combination of them."""
    step, scan = map(outputs, found)
    weights = [normal(*value.shape).to(value.dtype) for value in step]
    for got, want in zip(scan, step, strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    gradients = [
        torch.autograd.grad(sum((w * v).sum() for w, v in zip(weights, values)), inputs, allow_unused=True, materialize_grads=True)
        for values in (step, scan)
    ]
    for want, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def spread(rule, normal):
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter += 0.3 * normal(*parameter.shape)
    return rule


def start(rule, normal, batch_size):
    v, r = normal(rule.num_nodes, batch_size), torch.rand(rule.num_nodes, batch_size, dtype=torch.float64)
    return SOCState(v.requires_grad_(), r.requires_grad_())


@pytest.mark.parametrize("batch_size", [1, 5, 19])
def test_equals_step_after_step_on_every_graph(graph, normal, scans, batch_size):
    """Periodic, open, directed, parallel edges, isolated nodes, one node, no edges; samples that fill no register and some."""
    rule = spread(SpikingSOC(graph, **LEARNED, reset="zero", surrogate=Gaussian(0.5)).double(), normal)
    drive = (0.5 + 0.5 * normal(batch_size, 37, rule.num_nodes)).requires_grad_()
    state = start(rule, normal, batch_size)
    found = both(rule, drive, steps=37, state=state, record=("v", "r"))
    assert len(scans) == 1
    assert 2 * BLOCK < 37
    assert 0 < found[0].activity.mean() < 1
    assert_same(found, [drive, *state, *rule.parameters()], normal)


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("resources", [True, False], ids=["resources", "no resources"])
@pytest.mark.parametrize("reset", ["none", "zero", "subtract"])
@pytest.mark.parametrize("numbers", [LEARNED, SHARED], ids=["learned", "shared"])
def test_every_kind_of_neuron(random_graph, normal, scans, numbers, reset, resources, detach):
    rule = SpikingSOC(random_graph, **numbers, reset=reset, resources=resources, detach_reset=detach, surrogate=ArcTan(1.0)).double()
    spread(rule, normal)
    drive, state = (0.5 + 0.5 * normal(3, rule.num_nodes)).requires_grad_(), start(rule, normal, 3)
    found = both(rule, drive, steps=20, state=state)
    assert len(scans) == 1
    assert_same(found, [drive, *state, *rule.parameters()], normal)


@pytest.mark.parametrize("inject", ["every", "first"])
@pytest.mark.parametrize("frames", [None, 1, 3, 12])
@pytest.mark.parametrize("batch_first", [True, False])
def test_every_drive(lattice, normal, scans, inject, frames, batch_first):
    """Constant, some frames or one a step, in either layout."""
    rule = SpikingSOC(lattice, reset="zero").double()
    shape = (2, 16) if frames is None else (2, frames, 16)
    drive = 0.5 + 0.5 * normal(*shape)
    drive = drive if batch_first else drive.movedim(0, -1).contiguous().movedim(-1, 0)
    drive.requires_grad_()
    found = both(rule, drive, steps=12, inject=inject)
    assert len(scans) == 1
    assert_same(found, [drive, *rule.parameters()], normal)


def test_no_drive_from_a_state(lattice, normal):
    rule = SpikingSOC(lattice, reset="subtract").double()
    state = start(rule, normal, 4)
    assert_same(both(rule, None, steps=18, state=state, record=("r",)), [*state, *rule.parameters()], normal)


@pytest.mark.parametrize("options", [{"truncate": 5}, {"checkpoint": 7}, {"truncate": 4, "checkpoint": 6}], ids=str)
@pytest.mark.parametrize("frames", [20, 10, 1])
def test_truncated_and_checkpointed(lattice, normal, options, frames):
    """A gradient is cut and recomputed where the loop would, in the middle of a frame too."""
    rule = SpikingSOC(lattice, reset="zero").double()
    drive = (0.5 + 0.5 * normal(3, frames, 16)).requires_grad_()
    assert_same(both(rule, drive, steps=20, record=("v",), **options), [drive, *rule.parameters()], normal)


def test_second_derivatives(lattice, normal):
    """Of what the gradient of a compiled run depends on: as double back-propagation through the steps gives them."""
    rule = SpikingSOC(lattice, **LEARNED, reset="zero", surrogate=Gaussian(0.5)).double()
    drive, state = (0.5 + 0.5 * normal(2, 9, 16)).requires_grad_(), start(rule, normal, 2)
    inputs = [drive, *state, *rule.parameters()]
    weights, second = [normal(2, 9, 16), normal(2, 9, 16)], []
    for trajectory in both(rule, drive, steps=9, state=state, record=("v",)):
        total = (weights[0] * trajectory.activity).sum() + (weights[1] * trajectory.recorded["v"]).square().sum()
        first = torch.autograd.grad(total, inputs, create_graph=True)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    for want, got in zip(*second, strict=True):
        assert want.any()
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_threads_share_the_samples(lattice, normal):
    """Two threads give what one gives, in every width of a block."""
    rule = SpikingSOC(lattice, reset="zero").double()
    for batch_size in (2, 11, 40):
        drive = (0.5 + 0.5 * normal(batch_size, 20, 16)).requires_grad_()
        try:
            torch.set_num_threads(2)
            assert_same(both(rule, drive, steps=20), [drive, *rule.parameters()], normal)
        finally:
            torch.set_num_threads(1)


@pytest.mark.parametrize("batch_size", [1, 7, 33])
def test_single_precision(lattice, normal, scans, batch_size):
    rule = SpikingSOC(lattice, reset="zero")
    drive = (0.5 + 0.5 * normal(batch_size, 12, 16)).float().requires_grad_()
    found = both(rule, drive, steps=12)
    assert len(scans) == 1
    assert torch.equal(found[0].activity, found[1].activity)
    assert_same(found, [drive, *rule.parameters()], normal, tolerance=1e-4)


def test_wider_numbers_than_the_weights(lattice, normal, scans):
    """A drive in double precision and weights in single precision are computed in double, as step after step."""
    rule = SpikingSOC(lattice, reset="zero")
    drive = (0.5 + 0.5 * normal(3, 12, 16)).requires_grad_()
    found = both(rule, drive, steps=12)
    assert len(scans) == 1
    assert found[1].activity.dtype == torch.float64
    assert_same(found, [drive, *rule.parameters()], normal, tolerance=1e-5)


def test_a_gradient_of_a_part_only(lattice, normal):
    """Frozen weights, or a drive without a gradient: what is asked for is as before, the rest is not there."""
    rule = SpikingSOC(lattice, reset="zero", learn_weight=False).double()
    drive = 0.5 + 0.5 * normal(3, 12, 16)
    assert_same(both(rule, drive, steps=12), list(rule.parameters()), normal)
    rule.requires_grad_(False)
    drive.requires_grad_()
    assert_same(both(rule, drive, steps=12), [drive], normal)


@pytest.mark.parametrize("batch_size", [1, 9])
def test_what_is_no_number_is_not_hidden(lattice, normal, batch_size):
    """Infinity and NaN in a state come out where they would."""
    rule = SpikingSOC(lattice, reset="subtract").double()
    v, r = normal(16, batch_size), torch.ones(16, batch_size, dtype=torch.float64)
    v[3, 0], r[5, 0] = float("inf"), float("nan")
    step, scan = both(rule, None, steps=3, state=SOCState(v, r))
    assert not scan.state.r[5, 0].isfinite()
    for got, want in zip(outputs(scan), outputs(step), strict=True):
        torch.testing.assert_close(got, want, equal_nan=True)


def test_without_gradients_nothing_is_kept(lattice, normal, scans):
    rule = SpikingSOC(lattice, reset="zero").double()
    with torch.no_grad():
        step, scan = both(rule, 0.5 + normal(3, 40, 16), steps=40)
    assert torch.equal(step.activity, scan.activity)
    assert scan.activity.grad_fn is None
    with torch.inference_mode():
        rollout(rule, 0.5 + normal(3, 40, 16), steps=40)
    assert len(scans) == 2


def test_back_propagation_keeps_every_sixteenth_state(normal):
    """Not every state of every step, and nothing per edge."""
    rule = SpikingSOC(topologies.grid(6, 2), reset="zero").double()
    rule.compile = "always"
    drive = (0.5 + normal(4, 160, 36)).requires_grad_()
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
        activity = rollout(rule, drive, steps=160).activity
    node = activity.grad_fn
    while not hasattr(node, "starts"):
        node = node.next_functions[0][0]
    assert sum(field.numel() for state in node.starts for field in state) == 2 * 4 * 36 * 160 // BLOCK
    assert sum(held) < 2 * drive.numel()  # the drive itself, and parameters


class Louder(SpikingSOC):
    """A step of its own."""

    def step(self, p, state, drive):
        state, s = super().step(p, state, drive)
        return state, 2 * s


class Heavier(SpikingSOC):
    """Messages of its own."""

    def message(self, x_j, weight):
        return 2 * super().message(x_j, weight)


class Softer(ArcTan):
    """Spikes of its own."""

    def __call__(self, u):
        return 0.5 * super().__call__(u)


@pytest.mark.parametrize(
    "make",
    [Louder, Heavier, lambda g: SpikingSOC(g, surrogate=Softer()), lambda g: SpikingSOC(g, surrogate=lambda u: (u >= 0).to(u.dtype))],
    ids=["step", "message", "surrogate", "function"],
)
def test_what_differs_from_the_loop_goes_step_after_step(lattice, normal, scans, make):
    rule = make(lattice).double()
    step, scan = both(rule, 0.5 + normal(2, 8, 16), steps=8)
    assert not scans
    assert torch.equal(step.activity, scan.activity)


def test_watched_messages_go_step_after_step(lattice, normal, scans):
    """Hooks of PyG see every message, and the reference is the reference."""
    rule, drive, seen = SpikingSOC(lattice).double(), 0.5 + normal(2, 8, 16), []
    handle = rule.register_message_forward_hook(lambda *given: seen.append(given))
    both(rule, drive, steps=8)
    handle.remove()
    assert len(seen) == 16
    rule.reference = True
    both(rule, drive, steps=8)
    assert not scans


def test_small_runs_are_not_worth_it(lattice, normal, scans):
    """By itself a rule compiles what takes longer than compiling does; any size if asked to."""
    rule = SpikingSOC(lattice).double()
    assert rule.compile == "auto"
    rollout(rule, normal(2, 16), steps=8)
    assert not scans
    rollout(rule, normal(1000, 16), steps=8, truncate=5)
    assert len(scans) == 2


@pytest.mark.parametrize("variable", ["CXX", "LMN_COMPILE"])
def test_without_a_compiler(monkeypatch, lattice, normal, scans, variable):
    monkeypatch.setenv(variable, "never")
    rule = SpikingSOC(lattice).double()
    step, scan = both(rule, 0.5 + normal(2, 8, 16), steps=8)
    assert not scans
    assert torch.equal(step.activity, scan.activity)


def test_a_loop_that_does_not_compile_is_said_once(monkeypatch, lattice, normal, caplog):
    """A broken compiler is no error: the steps run one after the other."""
    from lmn_graph.ops import _native

    def broken(*given, **options):
        raise RuntimeError("no such flag")

    monkeypatch.setattr("torch._inductor.codecache.CppCodeCache.load", broken)
    _native._library.cache_clear()
    try:
        rule = SpikingSOC(lattice).double()
        for _ in range(2):
            step, scan = both(rule, 0.5 + normal(2, 8, 16), steps=8)
        assert torch.equal(step.activity, scan.activity)
        assert [record.getMessage() for record in caplog.records] == [
            "spike_scan runs without its compiled form: RuntimeError: no such flag"
        ]
    finally:
        _native._library.cache_clear()
