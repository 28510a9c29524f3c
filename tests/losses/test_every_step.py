"""The task loss of every step's own prediction: the source's formula, its gradient, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.halting import HaltingUnit
from lmn_graph.losses import Activity, TaskLoss, TotalLoss, every_step
from lmn_graph.projectors import Linear, Stream
from lmn_graph.readouts import Holographic, Rate, Shoreline
from lmn_graph.rules import TanhLattice
from lmn_graph.training import configure
from lmn_graph.training.batches import Batches
from lmn_graph.training.build import build_loss, build_machine
from lmn_graph.training.measure import quality

T = 5


def machine(readout=Shoreline, **options):
    graph = topologies.grid(4, 2)
    given = {} if "halting" not in options else {"halting": options.pop("halting")(graph)}
    return LatticeMachine(graph, Linear((6,), graph), TanhLattice(graph), readout(graph, 3, T, **options), steps=T, **given)


def per_timestep_ce(rates, target):
    """For every sample the mean over t of −log_softmax(r_t)[target], one number after another; then the mean over the batch."""
    return torch.stack([r.exp().sum().log() - r[label] for sample, label in zip(rates, target.tolist()) for r in sample]).mean()


def test_it_is_the_formula_of_the_source(normal):
    predictions, target = normal(4, T, 3), torch.tensor([0, 2, 1, 2])
    torch.testing.assert_close(every_step(TaskLoss(), predictions, target), per_timestep_ce(predictions, target))


def test_a_regression_and_smoothed_labels_are_averaged_over_time(normal):
    predictions, values = normal(4, T, 3), normal(4, 3)
    found = every_step(TaskLoss("regression"), predictions, values)
    torch.testing.assert_close(found, (predictions - values.unsqueeze(1)).square().mean())
    target, smoothed = torch.tensor([0, 2, 1, 2]), TaskLoss(label_smoothing=0.2)
    by_hand = torch.stack([smoothed(predictions[:, t], target) for t in range(T)]).mean()
    torch.testing.assert_close(every_step(smoothed, predictions, target), by_hand)


def test_the_gradient_to_a_prediction_is_that_of_its_own_step(normal):
    """(softmax(r_t) − onehot) / (B T): what a learning rule injects at step t."""
    predictions, target = normal(4, T, 3).requires_grad_(), torch.tensor([0, 2, 1, 2])
    every_step(TaskLoss(), predictions, target).backward()
    expected = (predictions.detach().softmax(2) - functional.one_hot(target, 3).unsqueeze(1)) / (4 * T)
    torch.testing.assert_close(predictions.grad, expected)


@pytest.mark.parametrize("readout", [Shoreline, Rate])
def test_the_total_trains_on_single_steps(readout):
    """Weighted and burnt in like the loss on the prediction, and returned as "task"; other terms are the same."""
    m, x, target = machine(readout), torch.randn(4, 6), torch.tensor([0, 2, 1, 2])
    output = m(x)
    wanted = per_timestep_ce(m.readout.each(output.trajectory.activity), target)
    total = TotalLoss(None, {"activity": Activity(0.3)}, weights={"task": 0.5, "activity": 2.0}, burn_in=1, every_step=True)
    value, parts = total(output, target, machine=m, x=x, epoch=1)
    activity = Activity(0.3)(output, machine=m, x=x)
    torch.testing.assert_close(parts["task"], wanted.detach())
    torch.testing.assert_close(value, 0.5 * wanted + 2 * activity)
    torch.testing.assert_close(total(output, target, machine=m, x=x, epoch=0)[0], 2 * activity)
    torch.testing.assert_close(total.of_task(output, target, machine=m), wanted)
    without = TotalLoss(terms={})
    torch.testing.assert_close(without.of_task(output, target, machine=m), functional.cross_entropy(output.prediction, target))
    assert "every_step=True" in repr(total)
    assert "every_step" not in repr(without)


def test_a_single_step_is_the_same_loss_either_way():
    graph = topologies.grid(4, 2)
    m = LatticeMachine(graph, Stream((1, 16), graph), TanhLattice(graph), Shoreline(graph, 3, 1), steps=1)
    x, target = torch.randn(4, 1, 16), torch.tensor([0, 2, 1, 2])
    one, two = (TotalLoss(terms={}, every_step=flag)(m(x), target, machine=m, x=x)[0] for flag in (False, True))
    torch.testing.assert_close(one, two)


def test_what_has_no_prediction_at_every_step_is_refused():
    x, target, total = torch.randn(4, 6), torch.tensor([0, 2, 1, 2]), TotalLoss(terms={}, every_step=True)
    for refused, message in (
        (machine(halting=HaltingUnit), "every_step must be False for a machine that halts"),
        (machine(Holographic), "Holographic gives no prediction at every step"),
        (machine(Rate, skip=1), r"readout\.skip must be 0 for a prediction at every step, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            total(refused(x), target, machine=refused, x=x)
    with pytest.raises(ValueError, match="every_step must be True or False, got 1"):
        TotalLoss(every_step=1)
    for predictions, labels in ((torch.zeros(4, 3), target), (torch.zeros(3, T, 3), target)):
        with pytest.raises(ValueError, match=r"predictions must be \[B, T, K\] with a target for each of the B samples"):
            every_step(TaskLoss(), predictions, labels)


def test_it_is_an_option_of_the_command_line_and_validation_stays_that_of_the_prediction():
    config = configure("tanh-lattice", [], ["--data", "digits", "--topology.L", "4", "--readout", "Rate", "--loss.every_step", "true"])
    m = build_machine(config, (6,), 3).eval()
    loss = build_loss(config, "classification", 0, m)
    assert loss.every_step
    assert not build_loss(configure("tanh-lattice", [], ["--data", "digits"]), "classification", 0, m).every_step
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    found = quality(m, Batches(x, y, 4), "classification")
    assert found["loss"] == pytest.approx(functional.cross_entropy(m(x).prediction, y).item(), rel=1e-5)
    each = loss(m(x), y, machine=m, x=x)[1]["task"].item()
    assert each != pytest.approx(found["loss"], rel=1e-6)
    with pytest.raises(ValueError, match="every_step"):
        configure("tanh-lattice", [], ["--data", "digits", "--loss.every_step", "maybe"])
