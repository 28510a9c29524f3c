"""A stream learned step by step is the sequence learned as a whole; comparing two rules; what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from allocations import Allocations

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.learning import BPTT, RTRL, Online, SnAP, compare, sgd
from lmn_graph.losses import TaskLoss, TotalLoss
from lmn_graph.projectors import Stream
from lmn_graph.readouts import Shoreline
from lmn_graph.rules import FilterGrid


@pytest.mark.parametrize("rule", [SnAP(0), SnAP(1), SnAP(2), RTRL()], ids=repr)
@pytest.mark.parametrize("readout", ["Shoreline", "Rate"])
def test_a_stream_adds_up_to_the_sequence(circuit, machine_on, batch_for, gradients_by, rule, readout, compiler):
    """The gradients of all steps together are T times that of the loss of every step, averaged."""
    machine = machine_on(circuit, steps=6, readout=readout)
    x, y = batch_for(machine)
    kind = "regression" if y.is_floating_point() else "classification"
    whole = gradients_by(rule, machine, x, y, loss=TotalLoss(TaskLoss(kind), {}, every_step=True))
    machine.zero_grad()
    online = Online(machine, rule, batch_size=3)
    predictions = []
    for t in range(6):
        moment = online.step(x[:, t], y)
        predictions.append(moment.prediction)
        assert moment.loss is not None
    for name, parameter in machine.named_parameters():
        torch.testing.assert_close(parameter.grad / 6, whole[name], rtol=1e-10, atol=1e-13)
    trajectory = machine(x).trajectory
    torch.testing.assert_close(torch.stack(predictions, 1), machine.readout.each(trajectory.activity))
    torch.testing.assert_close(online.state.s, trajectory.state.s)


def test_steps_without_a_target_are_remembered(machine_on, batch_for):
    """A target at the end alone: the gradient of the last step of the sequence by back-propagation."""
    machine = machine_on(topologies.raster(4, 3), steps=6)
    x, y = batch_for(machine)
    online = Online(machine, RTRL(), batch_size=3)
    for t in range(5):
        assert online.step(x[:, t]).loss is None
    assert all(parameter.grad is None for parameter in machine.parameters())
    online.step(x[:, 5], y)
    last = TaskLoss()(machine.readout.each(machine(x).trajectory.activity)[:, -1], y)
    for (name, parameter), want in zip(machine.named_parameters(), torch.autograd.grad(last, list(machine.parameters()))):
        torch.testing.assert_close(parameter.grad, want, rtol=1e-10, atol=1e-13, msg=lambda text, name=name: f"{name}: {text}")
    online.reset()
    assert float(online.state.s.abs().max()) == 0
    torch.testing.assert_close(online.step(x[:, 0]).prediction, machine.readout.each(machine(x).trajectory.activity)[:, 0])


def test_parameters_may_change_between_steps(machine_on, batch_for):
    """Learning goes on after an update with what it made of the cells, and the loss on a repeated pattern falls."""
    machine = machine_on(topologies.raster(4, 3), steps=2)
    optimizer, online = torch.optim.Adam(machine.parameters(), lr=0.03), Online(machine, SnAP(1))
    losses = []
    for _ in range(150):
        for pattern in range(3):
            optimizer.zero_grad()
            x = torch.full((1, 4), float(pattern) - 1, dtype=torch.float64)
            losses.append(float(online.step(x, torch.tensor([pattern])).loss))
            optimizer.step()
    assert sum(losses[-30:]) < 0.6 * sum(losses[:30])


def test_memory_of_a_stream_is_constant(machine_on):
    machine = machine_on(topologies.raster(4, 3))
    online, peaks = Online(machine, SnAP(1)), []
    for steps in (5, 50):
        with Allocations() as watched:
            for _ in range(steps):
                online.step(torch.randn(1, 4, dtype=torch.float64), torch.tensor([1]))
        peaks.append(watched.peak)
    assert peaks[1] < 1.2 * peaks[0]


def test_what_does_not_fit_a_stream_is_named(machine_on):
    machine = machine_on(topologies.raster(3, 3))
    with pytest.raises(ValueError, match="rule must be SnAP or RTRL to learn from a stream, got BPTT"):
        Online(machine, BPTT())
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        Online(machine, SnAP(1), batch_size=0)
    online = Online(machine, SnAP(1), batch_size=2)
    with pytest.raises(ValueError, match=r"x must have shape \[2, 3\], streams and their features, got \(3, 3\)"):
        online.step(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="x must be finite"):
        online.step(torch.full((2, 3), math.nan))
    with pytest.raises(ValueError, match="target must be in 0 … 2, got 7 … 7"):
        online.step(torch.zeros(2, 3), torch.tensor([7, 7]))
    assert float(online.state.s.abs().max()) == 0  # nothing of a refused step is kept


def test_a_stream_passes_the_wires_of_the_projector():
    """A fixed sparse random matrix from nine features to four ports, and its gain."""
    graph = topologies.raster(4, 3)
    projector = Stream((5, 9), graph, gain=3.0, density=0.5)
    machine = LatticeMachine(graph, projector, FilterGrid(graph), Shoreline(graph, 3, 5), steps=5)
    x, online = torch.randn(2, 5, 9), Online(machine, SnAP(1), batch_size=2)
    found = torch.stack([online.step(x[:, t]).prediction for t in range(5)], 1)
    torch.testing.assert_close(found, machine.readout.each(machine(x).trajectory.activity).detach())


def test_what_cannot_learn_from_a_stream_is_refused(machine_on):
    machine = machine_on(topologies.raster(3, 3))
    online = Online(machine, SnAP(1))
    with torch.inference_mode(), pytest.raises(ValueError, match=r"outside of torch\.inference_mode"):
        online.step(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="loss must be finite, got nan"):
        online.step(torch.zeros(1, 3), torch.full((1, 3), math.nan))
    with pytest.raises(ValueError, match="y must be a tensor of class numbers"):
        online.step(torch.zeros(1, 3), [1])
    machine.float()
    with pytest.raises(ValueError, match=r"machine must stay torch\.float64 while a stream goes on, got torch\.float32"):
        online.step(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"machine must have a parameter that learns|module must have a parameter that learns"):
        sgd(machine.requires_grad_(False), 0.1)


def test_a_rule_compared_with_itself_and_with_back_propagation(machine_on, batch_for):
    machine = machine_on(topologies.raster(4, 3), steps=6)
    x, y = batch_for(machine)
    BPTT().gradients(machine, x, y)
    kept = [parameter.grad.clone() for parameter in machine.parameters()]
    same = compare(machine, x, y, BPTT())
    assert [row.name for row in same] == ["rule.log_tau", "rule.bias", "rule.w_left", "rule.w_top", "all"]
    assert all(row.error == 0 and row.cosine == pytest.approx(1) and row.largest == 0 for row in same)
    rows = compare(machine, x, y, SnAP(0))
    assert rows[-1].size == 48
    assert 0 < rows[-1].error < 1
    assert 0.5 < rows[-1].cosine < 1
    # the law of cosines ties the two numbers to the lengths of both gradients
    flat = torch.cat([grad.flatten() for grad in kept])
    assert rows[-1].reference == pytest.approx(float(flat.abs().max()))
    for parameter, before in zip(machine.parameters(), kept):
        assert torch.equal(parameter.grad, before)
