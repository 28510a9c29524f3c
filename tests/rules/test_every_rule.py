"""What every registered rule promises, on every small graph that meets its requirements. A new rule is tested by being registered."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

import topologies
from lmn_graph import Connectivity, rollout
from lmn_graph.rules import RULES, as_conv
from lmn_graph.rules.base import _PROPERTIES

every_rule = pytest.mark.parametrize("name", list(RULES))
STEPS = 4


@pytest.fixture
def some_graph(name, some_graph):
    """A raster for rules that want ports and no cycles, which the other graphs do not have."""
    return topologies.raster(4, 3) if "ports" in RULES[name].requires else some_graph


@pytest.fixture
def lattice(name, lattice):
    return topologies.raster(4, 3) if "ports" in RULES[name].requires else lattice


def build(name, graph):
    """The rule with its defaults, or None where the graph lacks what it requires."""
    rule = RULES[name]
    met = all(_PROPERTIES[needed](Connectivity(graph)) for needed in rule.requires)
    return rule(graph) if met else None


def drive_for(rule, batch_size, *, steps=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    shape = [batch_size, *([] if steps is None else [steps]), rule.num_nodes, *([] if rule.channels is None else [rule.channels])]
    return torch.rand(shape, generator=generator, dtype=torch.float64).mul(1.5).to(dtype)


def outcome(rule, drive, wanted=()):
    """Everything a run returns, and the gradients of all of it to ``wanted``."""
    state = rule.initial_state(drive.size(0))
    found = rollout(rule, drive, steps=STEPS, record=state._fields)
    values = [found.activity, *found.state, *found.recorded.values()]
    if not wanted:
        return values
    generator = torch.Generator().manual_seed(11)
    loss = sum((torch.randn(value.shape, generator=generator, dtype=value.dtype) * value).sum() for value in values)
    if not loss.requires_grad:
        return values
    return values + [torch.zeros(()) if grad is None else grad for grad in torch.autograd.grad(loss, wanted, allow_unused=True)]


@every_rule
def test_a_rule_runs_with_its_defaults_or_names_what_the_graph_lacks(name, graph):
    """Shapes are [B, T, N(, C)] outside and node-major in the state; everything is finite; bad graphs get a ValueError."""
    rule = build(name, graph)
    if rule is None:
        with pytest.raises(ValueError, match=f"that {name} requires"):
            RULES[name](graph)
        return
    tail = () if rule.channels is None else (rule.channels,)
    found = rollout(rule, drive_for(rule, 3, dtype=torch.float32), steps=STEPS)
    assert found.activity.shape == (3, STEPS, rule.num_nodes, *tail)
    assert bool(found.activity.isfinite().all())
    for field in found.state:
        assert field.shape[:2] == (rule.num_nodes, 3)
        assert bool(field.isfinite().all())


@every_rule
def test_the_fast_path_equals_pygs_own_path(name, graph):
    """Values and all gradients, in double precision, of parameters and of the drive."""
    rule = build(name, topologies.raster(4, 3) if "ports" in RULES[name].requires else graph)
    if rule is None:
        return
    rule.double()
    drive = drive_for(rule, 3).requires_grad_()
    wanted = [drive, *rule.parameters()]
    fast = outcome(rule, drive, wanted)
    rule.reference = True
    for got, want in zip(fast, outcome(rule, drive, wanted), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


@every_rule
def test_a_step_is_pure(name, some_graph):
    """Twice the same from the same, and nothing that was passed in is changed."""
    rule = build(name, some_graph)
    if rule is None:
        return
    p, state = rule.prepare(), rule.initial_state(2)
    drive = drive_for(rule, 2, dtype=torch.float32).transpose(0, 1).contiguous()
    state, _ = rule.step(p, state, drive)
    before, given = type(state)(*(field.clone() for field in state)), drive.clone()
    results = [rule.step(p, state, drive) for _ in range(2)]
    for one, two in zip((*results[0][0], results[0][1]), (*results[1][0], results[1][1])):
        assert torch.equal(one, two)
    assert all(torch.equal(field, kept) for field, kept in zip(state, before))
    assert torch.equal(drive, given)
    called_state, called = rule(state, drive)
    assert torch.equal(called, results[0][1])
    assert all(torch.equal(field, kept) for field, kept in zip(called_state, results[0][0]))


@every_rule
def test_the_activity_is_followed_into_the_next_step(name, some_graph):
    """The gradient of one activity to the one before it is not cut off: losses on the dynamics and measures of criticality take it."""
    rule = build(name, some_graph)
    if rule is None or rule.instantaneous:  # what passes on within a step remembers in another field of the state
        return
    p, state = rule.prepare(), rule.initial_state(2)
    drive = drive_for(rule, 2, dtype=torch.float32).transpose(0, 1)
    state, _ = rule.step(p, type(state)(*(field.requires_grad_() for field in state)), drive)
    state, first = rule.step(p, state, drive)
    (gradient,) = torch.autograd.grad(rule.step(p, state, drive)[1].sum(), first, allow_unused=True)
    assert gradient is not None
    assert bool((gradient != 0).any())


@every_rule
def test_samples_of_a_batch_do_not_touch_each_other(name, some_graph):
    rule = build(name, some_graph)
    if rule is None:
        return
    rule.double()
    drive = drive_for(rule, 3)
    together = rollout(rule, drive, steps=STEPS).activity
    for sample in range(3):
        torch.testing.assert_close(rollout(rule, drive[sample, None], steps=STEPS).activity[0], together[sample])
    assert rollout(rule, drive[:0], steps=STEPS).activity.shape == (0, *together.shape[1:])


@every_rule
def test_state_in_and_out_carries_a_run_on(name, some_graph):
    """Two halves of a run are the run."""
    rule = build(name, some_graph)
    if rule is None:
        return
    drive = drive_for(rule, 2, steps=STEPS, dtype=torch.float32)
    whole = rollout(rule, drive, steps=STEPS)
    first = rollout(rule, drive[:, : STEPS // 2], steps=STEPS // 2)
    second = rollout(rule, drive[:, STEPS // 2 :], steps=STEPS // 2, state=first.state)
    torch.testing.assert_close(torch.cat([first.activity, second.activity], 1), whole.activity)
    for got, want in zip(second.state, whole.state):
        torch.testing.assert_close(got, want)


@every_rule
def test_copies_pickles_and_state_dicts_are_the_same_rule(name, some_graph):
    rule = build(name, some_graph)
    if rule is None:
        return
    drive = drive_for(rule, 2, dtype=torch.float32)
    expected = outcome(rule, drive)
    rebuilt = RULES[name](some_graph)
    rebuilt.load_state_dict(rule.state_dict())
    for other in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule)), rebuilt):
        assert all(torch.equal(got, want) for got, want in zip(outcome(other, drive), expected))


@every_rule
def test_truncation_and_checkpointing_are_options_of_every_rule(name, lattice):
    """Checkpointing changes no gradient; truncation changes no value."""
    rule = build(name, lattice)
    if rule is None:
        return
    rule.double()
    drive = drive_for(rule, 2)
    parameters = list(rule.parameters())

    def gradients(**options):
        found = rollout(rule, drive, steps=STEPS, **options)
        loss = found.activity.sum() + sum(field.sum() for field in found.state)
        return found.activity, torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)

    activity, plain = gradients()
    for got, want in zip(gradients(checkpoint=3)[1], plain):
        torch.testing.assert_close(got, want)
    assert torch.equal(gradients(truncate=2)[0], activity)


@every_rule
def test_a_spiking_rule_spikes_in_zeros_and_ones_and_can_be_flipped(name, some_graph):
    """``flip`` changes exactly one spike of every sample; a rule that does not spike says so."""
    rule = build(name, some_graph)
    if rule is None:
        return
    p, state = rule.prepare(), rule.initial_state(5)
    drive = drive_for(rule, 5, dtype=torch.float32).transpose(0, 1).contiguous()
    node = torch.arange(5) % rule.num_nodes
    if not rule.spiking:
        with pytest.raises(ValueError, match=f"{name} does not spike"):
            rule.flip(p, state, node)
        return
    for _ in range(STEPS):
        before = rule.step(p, state, drive)[1]
        after = rule.step(p, rule.flip(p, state, node), drive)[1]
        assert set(before.unique().tolist()) <= {0.0, 1.0}
        different = (before != after).nonzero().tolist()
        assert sorted(different) == sorted([n, b] for b, n in enumerate(node.tolist()))
        state, _ = rule.step(p, state, drive)


@every_rule
def test_a_rule_is_a_layer(name, some_graph):
    """``as_conv`` on the rule's own graph is the mean activity of a constant drive."""
    rule = build(name, some_graph)
    if rule is None:
        return
    features = rule.channels or 3
    x = torch.rand(rule.num_nodes, features)
    y = as_conv(rule, STEPS)(x, some_graph.edge_index)
    drive = x.t() if rule.channels is None else x[None]
    expected = rollout(rule, drive, steps=STEPS).activity.mean(1)
    torch.testing.assert_close(y, expected.t() if rule.channels is None else expected[0])


@every_rule
def test_a_rule_uses_pygs_generated_propagate_and_documents_itself(name):
    """PyG falls back silently to a slow generic path for type hints that it cannot resolve; the docstring has the equation first."""
    cls = RULES[name]
    graphs = [topologies.grid(3, 2), topologies.grid(3, 2, boundary="open")]
    rule = next((rule for rule in (build(name, graph) for graph in graphs) if rule is not None), None)
    if rule is not None:
        assert rule.propagate.__module__.endswith("_propagate")
    assert ".. math::" in inspect.getdoc(cls) or ":math:" in inspect.getdoc(cls)
    assert "Args:" in inspect.getdoc(cls)


@every_rule
def test_what_is_no_graph_is_refused(name):
    for topology in (None, 3, "grid", torch.eye(3)):
        with pytest.raises(ValueError, match=r"topology must be a torch_geometric\.data\.Data"):
            RULES[name](topology)
