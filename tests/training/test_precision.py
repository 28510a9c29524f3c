"""Mixed precision: matrix products of projector and readout are rounded, dynamics, losses and files are not."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from small_projectors import sample, small_projector
from small_readouts import outputs
from tiny_runs import assert_same_run, metrics_of, rows_of, tiny_config

import topologies
from lmn_graph import LatticeMachine, rollout
from lmn_graph.losses import TaskLoss, TotalLoss
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.rules import RULES, as_conv
from lmn_graph.training import configure, evaluate, open_run, resume, train
from lmn_graph.training.settings import TrainerSettings

STEPS = 6
OPTIONS = {"HypernetCA": {"context_dim": 4}}  # weights of its own for every sample
CHECKPOINTS = ("--trainer.checkpoint_every", "2")


def bfloat16(on=True):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=on)


def graph_for(rule):
    return topologies.raster(4, 3) if "ports" in RULES[rule].requires else topologies.grid(4, 2)


def machine_of(rule="TanhLattice", projector=None, readout="Rate"):
    graph = graph_for(rule)
    part = RULES[rule](graph, **OPTIONS.get(rule, {}))
    projector = projector or ("Hypernetwork" if part.context_dim else "Linear")
    context = {"context_dim": part.context_dim} if part.context_dim else {}
    drives = small_projector(projector, graph, steps=STEPS, channels=part.channels, **context)
    reads = READOUTS[readout](graph, outputs(readout, graph, 3), STEPS, channels=part.channels)
    return LatticeMachine(graph, drives, part, reads, steps=STEPS), sample(projector, 4)


def loss_and_gradient(machine, x, loss, mixed):
    machine.zero_grad()
    with bfloat16(mixed):
        output = machine(x)
        total, terms = loss(output, torch.arange(4) % output.prediction.size(1), machine=machine, x=x)
    total.backward()
    parts = [parameter.grad.flatten() for parameter in machine.parameters() if parameter.grad is not None]
    return output, total.detach(), terms, torch.cat(parts)


def assert_close_to_full_precision(machine, x, loss):
    """The loss within 2 per cent, gradients finite, float32 and within 10 degrees; activity not rounded, the prediction from it is."""
    _, expected, _, direction = loss_and_gradient(machine, x, loss, mixed=False)
    output, found, terms, gradient = loss_and_gradient(machine, x, loss, mixed=True)
    assert found.dtype == gradient.dtype == output.trajectory.activity.dtype == torch.float32
    assert all(field.dtype != torch.bfloat16 for field in output.state)
    assert all(bool(term.isfinite()) for term in terms.values())
    assert abs(found - expected) < 0.02 * abs(expected)
    assert bool(gradient.isfinite().all())
    assert torch.nn.functional.cosine_similarity(gradient, direction, dim=0) > 0.985
    return output


@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_trains_under_autocast(rule):
    output = assert_close_to_full_precision(*machine_of(rule), TotalLoss(TaskLoss(), {}))
    assert output.prediction.dtype == torch.bfloat16


@pytest.mark.parametrize("projector", list(PROJECTORS))
def test_every_projector_trains_under_autocast(projector):
    assert_close_to_full_precision(*machine_of(projector=projector), TotalLoss(TaskLoss(), {}))


@pytest.mark.parametrize("readout", list(READOUTS))
def test_every_readout_trains_under_autocast(readout):
    assert_close_to_full_precision(*machine_of(readout=readout), TotalLoss(TaskLoss(), {}))


@pytest.mark.parametrize("rule", ["SpikingSOC", "HypernetCA"])
def test_losses_on_the_dynamics_are_in_full_precision(rule):
    """Of the same trajectory they are the same numbers, bit for bit, as they are without autocast."""
    machine, x = machine_of(rule)
    loss = TotalLoss()
    output, _, _, gradient = loss_and_gradient(machine, x, loss, mixed=True)
    assert bool(gradient.isfinite().all())
    torch.manual_seed(0)
    with bfloat16():
        first = {name: term(output, machine=machine, x=x) for name, term in loss.terms.items()}
    torch.manual_seed(0)
    second = {name: term(output, machine=machine, x=x) for name, term in loss.terms.items()}
    assert first == second
    assert all(value.dtype == torch.float32 for value in first.values())


@pytest.mark.parametrize("rule", list(RULES))
def test_a_rollout_is_the_same_under_autocast(rule):
    """A drive, a context and a state in bfloat16 are taken up in float32: every value equals that of a run without autocast."""
    part = RULES[rule](graph_for(rule), **OPTIONS.get(rule, {}))
    tail = () if part.channels is None else (part.channels,)
    drive = torch.rand(3, part.num_nodes, *tail).bfloat16()
    context = torch.rand(3, part.context_dim).bfloat16() if part.context_dim else None
    expected = rollout(part, drive.float(), steps=STEPS, context=None if context is None else context.float())
    state, activity = part(part.initial_state(3), drive[:3].float().transpose(0, 1), context=None if context is None else context.float())
    with bfloat16():
        found = rollout(part, drive, steps=STEPS, context=context)
        one_state, one_activity = part(part.initial_state(3), drive.transpose(0, 1), context=context)
    assert torch.equal(found.activity, expected.activity)
    assert torch.equal(one_activity, activity)
    for mixed, full in zip((*found.state, *one_state), (*expected.state, *state)):
        assert torch.equal(mixed, full)


def test_an_input_that_is_the_initial_state_rounds_no_other_part_of_it(lattice):
    """Resources and refractory times start where they start without autocast."""
    part = RULES["SpikingSOC"](lattice)
    drives = small_projector("Linear", lattice)
    reads = READOUTS["Rate"](lattice, 3, STEPS)
    machine = LatticeMachine(lattice, drives, part, reads, steps=STEPS, inject="state")
    x = torch.rand(4, 5)
    with bfloat16():
        cells = machine.drive(x)
        found = machine(x).trajectory
    assert cells.dtype == torch.bfloat16
    assert torch.equal(found.activity, machine.run(cells.float()).activity)


def test_a_rule_as_a_layer_is_the_same_under_autocast():
    graph = topologies.grid(4, 2)
    layer = as_conv(RULES["TanhLattice"](graph), steps=3)
    x = torch.rand(16, 2)
    with bfloat16():
        found = layer(x.bfloat16(), graph.edge_index)
    assert torch.equal(found, layer(x.bfloat16().float(), graph.edge_index))


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_loss_of_half_predictions_is_in_full_precision(kind):
    prediction, target = torch.randn(5, 3), torch.arange(5) % 3 if kind == "classification" else torch.randn(5, 3)
    loss = TaskLoss(kind)
    assert torch.equal(loss(prediction.bfloat16(), target), loss(prediction.bfloat16().float(), target))


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """One run in each precision."""
    folder = tmp_path_factory.mktemp("precision")
    for precision in ("float32", "bfloat16"):
        train(tiny_config(data, "--trainer.precision", precision, *CHECKPOINTS), folder / precision, progress=False)
    return folder


def test_a_run_in_mixed_precision_is_close_to_one_in_full(runs):
    """Every loss of every epoch within 5 per cent, and not the same numbers; the model file is in float32, and so is
    all evaluation: that of the best epoch is found again."""
    full, mixed = rows_of(runs / "float32"), rows_of(runs / "bfloat16")
    assert full != mixed
    for one, two in zip(full, mixed, strict=True):
        for name in ("train/loss", "train/task", "train/criticality", "val/loss"):
            assert two[name] == pytest.approx(one[name], rel=0.05, abs=0.02), name
    assert all(value == value for value in metrics_of(runs / "bfloat16").values())
    run = open_run(runs / "bfloat16")
    best = min(row["val/loss"] for row in mixed[1:])  # the first epoch is burn-in
    assert evaluate(run.machine(), run.splits(), "validation")["validation/loss"] == pytest.approx(best, rel=1e-6)
    tensors = load_file(runs / "bfloat16" / "checkpoints" / "best.safetensors")
    assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float32}


def test_a_stopped_run_in_mixed_precision_goes_on_bit_for_bit(runs, data, tmp_path):
    from lightning.pytorch import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 9:
                raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train(tiny_config(data, "--trainer.precision", "bfloat16", *CHECKPOINTS), tmp_path / "run", progress=False, callbacks=[Stop()])
    resume(tmp_path / "run", progress=False)
    assert_same_run(runs / "bfloat16", tmp_path / "run")


def test_local_learning_is_not_rounded(tmp_path):
    """The only matrix product is the readout's, whose gradient a local rule takes itself: the same run in either precision."""
    found = []
    for precision in ("float32", "bfloat16"):
        config = configure("filter-mnist", [], ["--trainer.precision", precision])
        train(config, tmp_path / precision, smoke=True, progress=False)
        found.append(rows_of(tmp_path / precision))
    assert found[0] == found[1]


def test_what_a_machine_cannot_do_is_refused(data, tmp_path):
    """Before anything is written; but a run that was trained with it elsewhere may be looked at here."""
    config = tiny_config(data, "--trainer.precision", "float16", "--trainer.accelerator", "cpu")
    with pytest.raises(ValueError, match=r"trainer\.precision must be 'auto', 'float32' or 'bfloat16' on a CPU, got 'float16'"):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"trainer\.precision must be one of .*, got 'half'"):
        TrainerSettings(precision="half")
    assert TrainerSettings(precision="auto", accelerator="cpu").lightning_precision() == "32-true"
    assert TrainerSettings(accelerator="cpu").lightning_precision() == "32-true"
    assert TrainerSettings(precision="bfloat16", accelerator="cpu").lightning_precision() == "bf16-mixed"


def test_a_gpu_that_has_bfloat16_is_used_by_itself(monkeypatch):
    """What "auto" chooses and what float16 is called, on a machine that says it has a GPU."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for there, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert TrainerSettings(precision="auto", accelerator="gpu").lightning_precision() == expected
    assert TrainerSettings(precision="float16", accelerator="gpu").lightning_precision() == "16-mixed"


def test_autocast_leaves_no_trace(lattice):
    """What was prepared under autocast is prepared again without."""
    part = RULES["HypernetCA"](lattice, **OPTIONS["HypernetCA"])
    other = copy.deepcopy(part)
    drive, context = torch.rand(2, 16), torch.rand(2, part.context_dim)
    with bfloat16():
        rollout(part, drive, steps=2, context=context)
    assert torch.equal(rollout(part, drive, steps=2, context=context).activity, rollout(other, drive, steps=2, context=context).activity)
