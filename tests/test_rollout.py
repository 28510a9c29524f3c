"""The time loop: what goes in, what comes out, what is kept, and where the gradient is cut."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import topologies
from lmn_graph import rollout
from lmn_graph.rollout import _boundaries
from lmn_graph.rules import CellState, SOCState, SpikingSOC
from lmn_graph.surrogates import Gaussian

T, B = 7, 3


@pytest.fixture
def rule(random_graph, normal):
    rule = SpikingSOC(random_graph, threshold=0.4, surrogate=Gaussian(1.0)).double()
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter += 0.2 * normal(*parameter.shape)
    return rule


@pytest.fixture
def drives(normal):
    return normal(B, T, 13).abs()


def by_hand(rule, drives, truncate=None):
    """The loop written out: step, collect, and detach the state at every multiple of ``truncate``."""
    p, state = rule.prepare(), rule.initial_state(drives.size(0))
    activity, membranes = [], []
    for t in range(drives.size(1)):
        if truncate and t and t % truncate == 0:
            state = SOCState(*(field.detach() for field in state))
        state, spikes = rule.step(p, state, drives[:, t].t())
        activity.append(spikes.t())
        membranes.append(state.v.t())
    return torch.stack(activity, 1), torch.stack(membranes, 1), state


def gradients(rule, activity, membranes, state, *more):
    generator = torch.Generator().manual_seed(5)
    draw = [torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in (activity, membranes, state.v, state.r)]
    loss = sum((factor * value).sum() for factor, value in zip(draw, (activity, membranes, state.v, state.r)))
    return torch.autograd.grad(loss, [*rule.parameters(), *more])


def assert_all_close(found, wanted):
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_a_rollout_is_the_loop(rule, drives):
    found = rollout(rule, drives, steps=T, record=["v"])
    activity, membranes, state = by_hand(rule, drives)
    assert torch.equal(found.activity, activity)
    assert torch.equal(found.recorded["v"], membranes)
    assert all(torch.equal(got, want) for got, want in zip(found.state, state))


def test_a_constant_drive_is_the_same_drive_every_step(rule, drives):
    constant = drives[:, 0].clone().requires_grad_()
    once = rollout(rule, constant, steps=T, record=["v"])
    repeated = rollout(rule, constant[:, None].expand(B, T, 13), steps=T, record=["v"])
    assert torch.equal(once.recorded["v"], repeated.recorded["v"])
    results = [gradients(rule, found.activity, found.recorded["v"], found.state, constant) for found in (once, repeated)]
    assert_all_close(*results)


def test_drive_at_the_first_step_only(rule, drives):
    zeros = torch.zeros(B, T, 13, dtype=torch.float64)
    zeros[:, 0] = drives[:, 0]
    assert torch.equal(rollout(rule, drives[:, 0], steps=T, inject="first").activity, rollout(rule, zeros, steps=T).activity)


@pytest.mark.parametrize("options", [{}, {"truncate": 5}, {"checkpoint": 4}], ids=str)
@pytest.mark.parametrize("inject", ["every", "first"])
def test_some_frames_are_held(rule, drives, inject, options):
    """Three frames for twelve steps drive four each, or the first of four: as the same drive written out, gradients too."""
    frames = drives[:, :3].clone().requires_grad_()
    out = torch.zeros(B, 3, 4, 13, dtype=torch.float64)
    out[:, :, 0] = 1
    out = frames.unsqueeze(2) * (out if inject == "first" else torch.ones_like(out))
    held = rollout(rule, frames, steps=12, inject=inject, record=["v"], **options)
    written = rollout(rule, out.flatten(1, 2), steps=12, record=["v"], **options)
    assert torch.equal(held.recorded["v"], written.recorded["v"])
    assert_all_close(*(gradients(rule, found.activity, found.recorded["v"], found.state, frames) for found in (held, written)))


def test_a_run_without_drive_starts_from_a_given_state(rule, drives):
    start = rule.initial_state(B)._replace(v=drives[:, 0].t())
    found = rollout(rule, None, steps=T, state=start)
    assert torch.equal(found.activity, rollout(rule, torch.zeros(B, 13, dtype=torch.float64), steps=T, state=start).activity)
    assert torch.equal(found.activity[:, 0], (drives[:, 0] >= 0.4).double())


def test_two_halves_are_the_whole_with_gradients(rule, drives):
    """The state is a value: passed on it carries values and gradients, and the one passed in is left alone."""
    whole = rollout(rule, drives, steps=T, record=["v"])
    first = rollout(rule, drives[:, :3], steps=3, record=["v"])
    kept = [field.clone() for field in first.state]
    second = rollout(rule, drives[:, 3:], steps=T - 3, state=first.state, record=["v"])
    assert all(torch.equal(field, before) for field, before in zip(first.state, kept))
    joined = [torch.cat([a, b], 1) for a, b in ((first.activity, second.activity), (first.recorded["v"], second.recorded["v"]))]
    assert torch.equal(joined[0], whole.activity)
    assert torch.equal(joined[1], whole.recorded["v"])
    assert_all_close(gradients(rule, *joined, second.state), gradients(rule, whole.activity, whole.recorded["v"], whole.state))


@pytest.mark.parametrize("options", [{}, {"checkpoint": 3}, {"truncate": 2}], ids=str)
@pytest.mark.parametrize("grad", [True, False])
def test_record_returns_the_fields_after_every_step(rule, drives, options, grad):
    with torch.set_grad_enabled(grad):
        found = rollout(rule, drives, steps=T, record=("r", "v"), **options)
    assert list(found.recorded) == ["r", "v"]
    for name, values in found.recorded.items():
        assert values.shape == (B, T, 13)
        assert torch.equal(values[:, -1], getattr(found.state, name).t())
    assert rollout(rule, drives, steps=T).recorded == {}


def test_inside_is_node_major_and_outside_batch_first(rule, drives):
    """The trajectory is a view: its memory is [T, N, B], what scatter and sparse products want."""
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = rollout(rule, drives, steps=T)
        assert found.activity.shape == (B, T, 13)
        assert found.activity.movedim(0, 2).is_contiguous()
        assert found.state.v.shape == (13, B)


@pytest.mark.parametrize("truncate", [1, 2, 3, 6, 7, 20])
def test_truncation_is_detaching_the_state_by_hand(rule, drives, truncate):
    drives.requires_grad_()
    found = rollout(rule, drives, steps=T, record=["v"], truncate=truncate)
    expected = by_hand(rule, drives, truncate)
    assert torch.equal(found.activity, expected[0])
    cut = gradients(rule, found.activity, found.recorded["v"], found.state, drives)
    assert_all_close(cut, gradients(rule, *expected, drives))
    if truncate < 6:
        whole = gradients(rule, *by_hand(rule, drives), drives)
        assert any(not torch.allclose(got, want) for got, want in zip(cut, whole))


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("truncate", [None, 2, 3, 4])
def test_checkpointing_changes_no_gradient(rule, drives, checkpoint, truncate):
    """With and without truncation, whose cuts need not coincide with the checkpoints."""
    drives.requires_grad_()
    found = rollout(rule, drives, steps=T, record=["v"], truncate=truncate, checkpoint=checkpoint)
    expected = by_hand(rule, drives, truncate)
    assert torch.equal(found.activity, expected[0])
    assert_all_close(gradients(rule, found.activity, found.recorded["v"], found.state, drives), gradients(rule, *expected, drives))


def test_segments_end_where_either_option_cuts():
    assert _boundaries(7, None, None) == [0, 7]
    assert _boundaries(5, 2, None) == [0, 2, 4, 5]
    assert _boundaries(8, 3, 4) == [0, 3, 4, 6, 8]
    assert _boundaries(6, 9, 3) == [0, 3, 6]
    with torch.no_grad():
        assert _boundaries(3, None, 2) == [0, 1, 2, 3]


class Kept:
    """Counts the elements that autograd saves for the backward pass."""

    def __init__(self):
        self.seen = {}

    def pack(self, tensor):
        self.seen[tensor.untyped_storage().data_ptr()] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    @property
    def bytes(self):
        return sum(size for _, size in self.seen.values())


def test_checkpointing_keeps_less(rule, normal):
    """The point of it: fewer activations are saved for the backward pass."""
    drive = normal(64, 13).abs()
    kept = []
    for checkpoint in (None, 8):
        with Kept() as saved:
            rollout(rule, drive, steps=64, checkpoint=checkpoint)
        kept.append(saved.bytes)
    assert kept[1] < kept[0] / 4


class Peak(TorchDispatchMode):
    """The largest number of bytes of tensors alive at once among those that operations returned."""

    def __init__(self):
        super().__init__()
        self.alive, self.current, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.alive:
                    self.alive[key] = storage.nbytes()
                    self.current += storage.nbytes()
                    weakref.finalize(storage, self.release, key)
        self.peak = max(self.peak, self.current)
        return result

    def release(self, key):
        self.current -= self.alive.pop(key, 0)


@pytest.mark.parametrize("record", [(), ("v", "r")], ids=str)
def test_without_gradients_memory_grows_by_what_is_recorded_alone(rule, normal, record):
    drive = normal(4, 13)
    peaks = []
    with torch.no_grad():
        for steps in (50, 250):
            with Peak() as memory:
                rollout(rule, drive, steps=steps, record=record)
            peaks.append(memory.peak)
    recorded = 200 * 4 * 13 * 8 * (1 + len(record))
    assert recorded <= peaks[1] - peaks[0] <= recorded * 1.02


def test_without_gradients_the_values_are_the_same(rule, drives):
    with torch.no_grad():
        found = rollout(rule, drives, steps=T, record=("v",), checkpoint=2, truncate=3)
    expected = rollout(rule, drives, steps=T, record=("v",))
    assert torch.equal(found.activity, expected.activity)
    assert torch.equal(found.recorded["v"], expected.recorded["v"])
    assert not found.activity.requires_grad


@pytest.mark.parametrize("grad", [True, False])
def test_a_drive_in_double_makes_the_whole_run_double(random_graph, drives, grad):
    """From the first step on, for the rule's own state and for a given one; a single drive never lowers the precision."""
    single = SpikingSOC(random_graph)
    with torch.set_grad_enabled(grad):
        for state in (None, single.initial_state(B)):
            found = rollout(single, drives, steps=T, state=state, record=("v", "r"))
            assert {x.dtype for x in (found.activity, *found.state, *found.recorded.values())} == {torch.float64}
        double = SpikingSOC(random_graph).double()
        found = rollout(double, drives.float(), steps=T, record=("v", "r"))
        assert {x.dtype for x in (found.activity, *found.state, *found.recorded.values())} == {torch.float64}


def test_one_step_and_one_node():
    rule = SpikingSOC(topologies.grid(1, 1), weight=0.5)
    found = rollout(rule, torch.ones(2, 1), steps=1)
    assert found.activity.shape == (2, 1, 1)
    assert rollout(rule, torch.ones(2, 1, 1), steps=1).activity.shape == (2, 1, 1)
    assert rollout(rule, torch.ones(0, 1), steps=3).activity.shape == (0, 3, 1)


def ok():
    return torch.zeros(B, 13)


BAD = {
    "steps": (lambda r: rollout(r, ok(), steps=0), "steps must be an integer >= 1, got 0"),
    "steps float": (lambda r: rollout(r, ok(), steps=2.0), "steps must be an integer >= 1, got 2.0"),
    "nothing": (lambda r: rollout(r, None, steps=1), "drive must be a tensor where no state is given, got None"),
    "list": (
        lambda r: rollout(r, [[0.0] * 13], steps=1),
        r"drive must be a floating-point tensor \[B, 13\] or \[B, F, 13\] with F a divisor of 1, got list",
    ),
    "integers": (lambda r: rollout(r, ok().long(), steps=1), "drive must be a floating-point tensor .* got torch.int64"),
    "nodes": (
        lambda r: rollout(r, ok()[:, 1:], steps=2),
        r"drive must have shape \[B, 13\] or \[B, F, 13\] with F a divisor of 2, got \(3, 12\)",
    ),
    "time": (lambda r: rollout(r, ok()[:, None].expand(B, 5, 13), steps=4), r"or \[B, F, 13\] with F a divisor of 4, got \(3, 5, 13\)"),
    "scalar": (lambda r: rollout(r, torch.tensor(1.0), steps=4), r"drive must have shape .* got \(\)"),
    "vector": (lambda r: rollout(r, torch.zeros(13), steps=4), r"drive must have shape .* got \(13,\)"),
    "inject": (lambda r: rollout(r, ok(), steps=1, inject="state"), "inject must be one of 'every', 'first', got 'state'"),
    "truncate": (lambda r: rollout(r, ok(), steps=1, truncate=0), "truncate must be an integer >= 1, got 0"),
    "checkpoint": (lambda r: rollout(r, ok(), steps=1, checkpoint=-1), "checkpoint must be an integer >= 1, got -1"),
    "record": (lambda r: rollout(r, ok(), steps=1, record=["w"]), "record must be one of 'v', 'r', got 'w'"),
    "record string": (lambda r: rollout(r, ok(), steps=1, record="v"), "record must be a sequence of names .* got the string 'v'"),
    "batch": (lambda r: rollout(r, ok(), steps=1, state=r.initial_state(2)), "state must hold the batch of the drive, 3 samples, got 2"),
    "state": (
        lambda r: rollout(r, ok(), steps=1, state=SOCState(torch.zeros(B, 13), torch.ones(B, 13))),
        r"state.v must be node-major with 13 nodes in front, got shape \(3, 13\)",
    ),
    "state field": (
        lambda r: rollout(r, ok(), steps=1, state=SOCState(torch.zeros(13, B), torch.ones(13, 2))),
        "state.r must hold as many samples as its other fields, 3, got 2",
    ),
    "state's rank": (
        lambda r: rollout(r, ok(), steps=1, state=type(r.initial_state(B))(*(field.unsqueeze(-1) for field in r.initial_state(B)))),
        r"state.v must have shape \[13, B\], got \(13, 3, 1\)",
    ),
    "state of another rule": (
        lambda r: rollout(r, ok(), steps=1, state=CellState(torch.zeros(13, B))),
        "state must hold v, r, the state of SpikingSOC, got CellState of x",
    ),
    "no state": (lambda r: rollout(r, ok(), steps=1, state=torch.zeros(13, B)), "state must be a state of SpikingSOC .* got Tensor"),
    "rule": (lambda r: rollout(torch.nn.Linear(1, 1), ok(), steps=1), "rule must be an UpdateRule, got Linear"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(rule, case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(rule)


def test_everything_works_without_a_compiler(tmp_path):
    """No C++ compiler at hand: importing and training a step never ask for one."""
    code = """
import torch, lmn_graph
from lmn_graph.rules import SpikingSOC
rule = SpikingSOC(lmn_graph.topologies.grid(3, 2))
optimiser = torch.optim.SGD(rule.parameters(), 0.1)
lmn_graph.rollout(rule, torch.ones(2, 9), steps=5).state.v.sum().backward()
before = rule.weight.detach().clone()
optimiser.step()
print(bool((rule.weight != before).any()))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment |= {"CXX": "/nonexistent", "CC": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == "True"


@pytest.mark.cuda
def test_a_rollout_on_a_gpu_returns_there(rule, drives):
    found = rollout(rule.cuda(), drives.cuda(), steps=T, record=("v",), checkpoint=3, truncate=2)
    assert {found.activity.device.type, found.state.v.device.type, found.recorded["v"].device.type} == {"cuda"}
    torch.testing.assert_close(found.activity.cpu(), rollout(rule.cpu(), drives, steps=T).activity)
