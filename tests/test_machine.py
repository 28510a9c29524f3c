"""LatticeMachine: its parts in a row, checked to fit when it is built."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from small_projectors import sample, small_projector

import topologies
from lmn_graph import Connectivity, LatticeMachine, Output, rollout
from lmn_graph.projectors import PROJECTORS, CPTensor, Hypernetwork, Linear
from lmn_graph.readouts import READOUTS, Holographic, Rate
from lmn_graph.rules import RULES, HypernetCA, SpikingSOC, TanhLattice
from lmn_graph.rules.base import _PROPERTIES
from lmn_graph.rules.generators import LowRankSiren
from lmn_graph.training.measure import history


def build(topology, *, steps=4, channels=None, rule=None, projector=None, readout=None, **options):
    """A machine of small default parts, any of them replaced."""
    return LatticeMachine(
        topology,
        projector or Linear((5,), topology, channels=channels),
        rule or SpikingSOC(topology, threshold=0.3),
        readout or Rate(topology, 2, steps, channels=channels),
        steps=steps,
        **options,
    )


def test_a_machine_is_its_parts_in_a_row(some_graph):
    machine = build(some_graph)
    x = torch.randn(3, 5)
    output = machine(x, record=("v",))
    assert isinstance(output, Output)
    expected = rollout(machine.rule, machine.projector(x), steps=4, record=("v",))
    assert torch.equal(machine.drive(x), machine.projector(x))
    assert torch.equal(output.trajectory.activity, expected.activity)
    assert torch.equal(output.trajectory.recorded["v"], expected.recorded["v"])
    assert torch.equal(output.prediction, machine.readout(expected.activity))
    assert all(torch.equal(got, want) for got, want in zip(output.state, expected.state))


def test_the_state_is_carried_on_by_whoever_calls(lattice):
    """A stream is one call after another with the state passed on; nothing stays on the module."""
    machine = build(lattice)
    x = torch.randn(3, 5)
    first = machine(x)
    second = machine(x, first.state)
    whole = rollout(machine.rule, machine.drive(x), steps=8)
    assert torch.equal(torch.cat([first.trajectory.activity, second.trajectory.activity], 1), whole.activity)
    assert torch.equal(machine(x).prediction, first.prediction)


def test_the_drive_enters_every_step_or_first_or_as_the_state(lattice):
    x = torch.randn(3, 5)
    machine = build(lattice)
    drive = machine.drive(x)
    machine.inject = "first"
    assert torch.equal(machine(x).trajectory.activity, rollout(machine.rule, drive, steps=4, inject="first").activity)
    machine.inject = "state"
    start = machine.rule.initial_state(3)._replace(v=drive.t())
    assert torch.equal(machine(x).trajectory.activity, rollout(machine.rule, None, steps=4, state=start).activity)
    assert torch.equal(machine(x).trajectory.activity[:, 0], (drive >= 0.3).float())


def test_an_input_that_is_the_state_refuses_another_state(lattice):
    """With ``inject="state"`` a given state would leave the input, and the projector's gradient, out without a word."""
    machine = build(lattice, inject="state")
    x = torch.randn(3, 5)
    with pytest.raises(ValueError, match="state must be None where the input is the initial state"):
        machine(x, machine(x).state)


def test_a_rule_on_another_graph_of_the_same_size_is_refused(lattice):
    machine = build(lattice)
    other = SpikingSOC(topologies.grid(4, 2, metric="manhattan"))
    with pytest.raises(ValueError, match="rule must be bound to the topology of the machine"):
        LatticeMachine(lattice, machine.projector, other, machine.readout, steps=machine.steps)


def test_predicting_leaves_every_part_in_its_mode(lattice):
    machine = build(lattice).train()
    machine.readout.eval()
    machine.predict(torch.randn(3, 5))
    assert machine.training
    assert machine.projector.training
    assert not machine.readout.training


def test_reset_parameters_reaches_every_part(lattice):
    machine = build(lattice)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.fill_(7.0)
    machine.reset_parameters()
    assert not [name for name, parameter in machine.named_parameters() if bool((parameter == 7).all())]


@pytest.mark.parametrize("name", list(READOUTS))
def test_reset_parameters_reaches_every_part_of_a_readout(name, lattice):
    """Also a module within, and torch's attention, which calls its own differently."""
    readout = READOUTS[name](lattice, 3, 4)
    before = {key: value.clone() for key, value in readout.state_dict().items()}
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.fill_(7.0)
    readout.reset_parameters()
    assert not [key for key, parameter in readout.named_parameters() if bool((parameter == 7).all())]
    assert readout.state_dict().keys() == before.keys()


def test_a_longer_run_for_pictures_starts_as_the_machine_does(lattice):
    """With an initial state from the projector, and where the input is that state; it does not halt."""
    x = torch.randn(3, 5)
    for inject, projector in (("every", Hypernetwork((5,), lattice, context_dim=4)), ("state", Linear((5,), lattice))):
        rule = HypernetCA(lattice, LowRankSiren, context_dim=4) if inject == "every" else TanhLattice(lattice)
        machine = LatticeMachine(lattice, projector, rule, Rate(lattice, 2, 3), steps=3, inject=inject)
        longer = history(machine, x, 7)
        assert longer.shape == (3, 7, 16)
        torch.testing.assert_close(longer[:, :3], machine(x).trajectory.activity)


def test_an_input_that_is_not_a_number_is_refused(lattice):
    """A threshold would turn NaN into silence, and the prediction would look healthy."""
    machine = build(lattice)
    with pytest.raises(ValueError, match="drive must be finite"):
        machine(torch.full((3, 5), float("nan")))


def test_truncation_and_checkpointing_reach_the_rollout(lattice):
    x = torch.randn(3, 5)
    machine = build(lattice, steps=8).double()
    plain, other = copy.deepcopy(machine), copy.deepcopy(machine)
    other.checkpoint = 3
    for each in (plain, other):
        each(x.double()).prediction.square().sum().backward()
    for one, two in zip(plain.parameters(), other.parameters()):
        torch.testing.assert_close(one.grad, two.grad)
    other.checkpoint, other.truncate = None, 2
    other.zero_grad()
    other(x.double()).prediction.square().sum().backward()
    assert not torch.allclose(other.projector.linear.weight.grad, plain.projector.linear.weight.grad)


def test_predict_takes_any_number_of_samples_and_restores_the_mode(lattice):
    machine = build(lattice, readout=Rate(lattice, 2, 4, dropout=0.5))
    x = torch.randn(11, 5)
    predictions = machine.predict(x, batch_size=4)
    assert machine.training
    assert not predictions.requires_grad
    machine.eval()
    torch.testing.assert_close(predictions, machine(x).prediction)
    assert torch.equal(machine.predict(x), machine(x).prediction)
    assert not machine.training
    assert machine.predict(x[:0]).shape == (0, 2)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        machine.predict(x, batch_size=0)


def test_a_machine_learns(lattice, generator):
    """A few steps of gradient descent through projector, spikes and readout lower the loss."""
    machine = build(lattice)
    x = torch.randn(32, 5, generator=generator)
    target = (x[:, 0] > 0).long()
    optimiser = torch.optim.Adam(machine.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(machine(x).prediction, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("readout", list(READOUTS))
@pytest.mark.parametrize("projector", list(PROJECTORS))
def test_every_combination_of_parts_fits(projector, rule, readout, some_graph):
    """Any registered projector, rule and readout, with their defaults, on a graph that the rule can run on.

    test_every_topology.py has every projector and readout with every rule too, in pairs that change; these are all of them.
    """
    if not all(_PROPERTIES[needed](Connectivity(some_graph)) for needed in RULES[rule].requires):
        return
    bound = RULES[rule](some_graph)
    machine = LatticeMachine(
        some_graph, small_projector(projector, some_graph, channels=bound.channels, steps=3), bound,
        READOUTS[readout](some_graph, 2, 3, channels=bound.channels), steps=3,
    )  # fmt: skip
    prediction = machine(sample(projector, 2)).prediction
    prediction.sum().backward()
    assert prediction.shape == (2, 2)
    assert bool(prediction.isfinite().all())


def test_copies_pickles_and_state_dicts_are_the_same_machine(random_graph):
    machine = build(random_graph, readout=Holographic(random_graph, 2, 4), projector=CPTensor((5,), random_graph)).eval()
    x = torch.randn(3, 5)
    expected = machine(x).prediction
    rebuilt = build(random_graph, readout=Holographic(random_graph, 2, 4), projector=CPTensor((5,), random_graph)).eval()
    rebuilt.load_state_dict(machine.state_dict())
    for other in (copy.deepcopy(machine), pickle.loads(pickle.dumps(machine)), rebuilt):
        assert torch.equal(other(x).prediction, expected)
    assert machine.double()(x.double()).prediction.dtype == torch.float64


def test_parts_that_do_not_fit_are_refused_when_the_machine_is_built(lattice):
    other = topologies.grid(3, 2)
    cases = {
        "topology must be a torch_geometric.data.Data, got NoneType": lambda: LatticeMachine(
            None, Linear((5,), lattice), SpikingSOC(lattice), Rate(lattice, 2, 4), steps=4),
        "rule must be an UpdateRule, got Linear": lambda: build(lattice, rule=torch.nn.Linear(1, 1)),
        "projector must be made for the topology's 16 nodes, got 9": lambda: build(lattice, projector=Linear((5,), other)),
        "rule must be made for the topology's 16 nodes, got 9": lambda: build(lattice, rule=SpikingSOC(other)),
        "readout must be made for the topology's 16 nodes, got 9": lambda: build(lattice, readout=Rate(other, 2, 4)),
        "projector.channels must be the rule's None, got 3": lambda: build(lattice, channels=3),
        "readout.channels must be the rule's None, got 3": lambda: build(lattice, readout=Rate(lattice, 2, 4, channels=3)),
        "readout.steps must be the machine's 4, got 5": lambda: build(lattice, readout=Rate(lattice, 2, 5)),
        "steps must be an integer >= 1, got 0": lambda: LatticeMachine(
            lattice, Linear((5,), lattice), SpikingSOC(lattice), Rate(lattice, 2, 4), steps=0),
        "inject must be one of 'every', 'first', 'state', got 'last'": lambda: build(lattice, inject="last"),
        "truncate must be an integer >= 1, got 0": lambda: build(lattice, truncate=0),
        "checkpoint must be an integer >= 1, got 2.5": lambda: build(lattice, checkpoint=2.5),
    }  # fmt: skip
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_it_says_what_it_is(lattice):
    assert "topology=grid, steps=4, inject='every'" in repr(build(lattice))


@pytest.mark.cuda
def test_a_machine_moves_to_a_gpu(lattice):
    machine = build(lattice).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    expected = machine(x).prediction
    torch.testing.assert_close(machine.cuda()(x.cuda()).prediction.cpu(), expected)
