"""Runs that learn by local rules: the same as a plain loop, resumed bit for bit, refused where a rule cannot learn."""

from __future__ import annotations

import re

import pytest
import torch
from test_resume import Stop
from tiny_runs import assert_same_run, rows_of

from lmn_graph.learning import SnAP, sgd
from lmn_graph.training import configure, resume, train
from lmn_graph.training.batches import Batches
from lmn_graph.training.build import build_machine, load_data
from lmn_graph.training.fit import seeded
from lmn_graph.training.plan import read_plan

FILTER = (
    *("--topology", "raster", "--topology.rows", "4", "--topology.cols", "3"),
    *("--projector", "Stream", "--projector.gain", "3"),
    *("--rule", "FilterGrid", "--readout", "Shoreline", "--machine.steps", "5"),
    *("--criticality", "none", "--activity", "none", "--loss.burn_in", "0", "--loss.label_smoothing", "0"),
    *("--optimizer.weight_decay", "0", "--optimizer.schedule", "constant", "--optimizer.gradient_clip", "0"),
    *("--trainer.epochs", "2", "--trainer.batch_size", "16", "--trainer.patience", "0"),
)


def config_for(data, *options):
    return configure("soc-lattice", [], ["--data", str(data), *FILTER, *options])


def weights_of(run):
    return {name: value.clone() for name, value in run.machine().rule.state_dict().items()}


def test_a_run_is_the_plain_loop(data, tmp_path):
    """The parameters after an epoch of SnAP-1 and Adam are those of a loop with the same start and the same batches."""
    config = config_for(data, "--learning", "snap1", "--trainer.epochs", "1")
    run = train(config, tmp_path / "run", progress=False)
    splits = load_data(config)
    with seeded(config["seed"]):
        machine = build_machine(config, splits.in_shape, splits.out_features)
        optimizer = torch.optim.AdamW(machine.parameters(), lr=config["optimizer"]["lr"], weight_decay=0)
        for x, y in Batches(splits.train.x, splits.train.y, 16, shuffle=True, seed=config["seed"]):
            optimizer.zero_grad()
            SnAP(1).gradients(machine, x, y)
            optimizer.step()
    for name, value in weights_of(run).items():
        torch.testing.assert_close(value, machine.rule.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("every_step", ["false", "true"])
def test_real_time_recurrent_learning_trains_as_back_propagation_does(data, tmp_path, every_step):
    """Two ways to the same gradient, two runs to the same parameters and the same rows of metrics; SnAP-0 goes elsewhere."""
    runs = {
        name: train(config_for(data, "--learning", name, "--loss.every_step", every_step), tmp_path / name, progress=False)
        for name in ("bptt", "rtrl")
    }
    for name, value in weights_of(runs["bptt"]).items():
        torch.testing.assert_close(value, weights_of(runs["rtrl"])[name], rtol=1e-3, atol=1e-5)
    rows = [rows_of(tmp_path / name)[-1] for name in runs]
    for key in ("train/loss", "train/task", "val/loss"):
        assert float(rows[0][key]) == pytest.approx(float(rows[1][key]), rel=1e-3)
    assert float(rows[0]["train/accuracy"]) == float(rows[1]["train/accuracy"])
    config = config_for(data, "--learning", "snap", "--learning.k", "0", "--loss.every_step", every_step)
    other = weights_of(train(config, tmp_path / "snap", progress=False))
    assert not torch.allclose(other["w_left"], weights_of(runs["bptt"])["w_left"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [("--learning.message_noise", "0.1", "--learning.trace_noise", "0.1"), ("--optimizer.method", "sgd")])
def test_an_interrupted_run_goes_on_as_if_it_had_not(data, tmp_path, options):
    """Noise comes from the random state that a checkpoint holds; plain descent has no state at all."""
    config = config_for(data, "--learning", "snap1", "--trainer.checkpoint_every", "2", *options)
    train(config, tmp_path / "alone", progress=False)
    with pytest.raises(RuntimeError, match="stopped"):
        train(config, tmp_path / "run", progress=False, callbacks=[Stop(5)])
    resume(tmp_path / "run", progress=False)
    assert_same_run(tmp_path / "alone", tmp_path / "run")


def test_plain_descent_keeps_nothing_per_parameter(data, tmp_path):
    run = train(config_for(data, "--learning", "snap1", "--optimizer.method", "sgd"), tmp_path / "run", progress=False)
    kept = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    assert not any(value is not None for state in kept["state"].values() for value in state.values())
    lrs = sorted(group["lr"] for group in kept["param_groups"])
    assert lrs == pytest.approx([3e-3 / 20, 3e-3, 4 * 3e-3])


def test_descent_of_a_machine_leaves_its_other_parts_at_the_plain_step(data):
    config = config_for(data, "--readout", "Rate")
    machine = build_machine(config, (4, 4), 3)
    groups = {round(group["lr"], 6): sum(p.numel() for p in group["params"]) for group in sgd(machine, 0.1).param_groups}
    readout = sum(p.numel() for p in machine.readout.parameters())
    assert groups == {0.1: 24 + readout, 0.005: 12, 0.4: 12}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--learning", "snp1"), "unknown learning rule 'snp1'; did you mean 'snap1'?"),
        (("--learning", "snap", "--learning.k", "-1"), "k must be an integer >= 0, got -1"),
        (("--learning", "snap1", "--learning.leak", "1"), "leak must be a number in [0, 1), got 1.0"),
        (
            ("--learning", "rtrl", "--rule", "TanhLattice"),
            "machine.rule must be a FilterGrid in topological order for RTRL, got TanhLattice",
        ),
        (("--learning", "snap1", "--projector", "Linear"), "machine.projector must have no parameters that learn for SnAP"),
        (("--learning", "snap1", "--activity", "Activity"), "loss must be on the task alone for SnAP, got the terms activity"),
        (("--rule.time_step", "0"), "time_step must be a finite number > 0, got 0"),
        (("--rule.tau", "[0, 1]"), "tau must be a finite number > 0, got 0"),
        (("--topology.rows", "5", "--projector.wiring", "identity"), "wiring must be 'sparse' or None"),
        (("--optimizer.method", "adam"), "optimizer.method"),
    ],
)
def test_what_cannot_learn_is_refused_before_anything_is_written(data, tmp_path, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(config_for(data, *options), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_gradients_are_compared_from_the_command_line(lmn, refused):
    """A line for every parameter and one for all; the exact rule agrees to rounding, the local one nearly."""
    code, out, error = lmn("check-gradients", "filter-mnist", "--samples", "4", "--learning", "rtrl")
    assert (code, error) == (0, "")
    lines = [line.split() for line in out.splitlines()[2:]]
    assert [line[0] for line in lines] == ["rule.log_tau", "rule.bias", "rule.w_left", "rule.w_top", "all"]
    assert all(float(line[2]) == 1 and float(line[4]) < 1e-10 for line in lines)
    _, out, _ = lmn("check-gradients", "filter-mnist-sgd", "--samples", "4")
    assert 0.5 < float(out.splitlines()[-1].split()[2]) < 1 - 1e-6
    assert "such as --learning snap1, got bptt" in refused("check-gradients", "soc-lattice")
    assert refused("check-gradients", "filter-mnist", "--samples", "0") == "samples must be an integer in [1, 256], got 0"
    assert "unknown preset 'filtermnist'; did you mean 'filter-mnist'" in refused("check-gradients", "filtermnist")


@pytest.mark.slow
def test_both_presets_take_any_way_to_learn(tmp_path):
    for preset in ("filter-mnist", "filter-mnist-sgd"):
        for name in ("snap1", "rtrl", "bptt"):
            config = configure(preset, [], ["--learning", name, "--trainer.batch_size", "64"])
            run = train(config, tmp_path / f"{preset}-{name}", smoke=True, progress=False)
            assert run.record["parameters"] == 1120


def test_the_robustness_study_is_that_of_the_source():
    """Its eight sweeps over the learning path, 50 conditions; those that are the same are one run."""
    plan = read_plan("filter-robustness", smoke=True)
    sizes = {sweep.name: len(sweep.values) for sweep in plan.sweeps}
    assert sum(sizes.values()) == 50
    assert len(sizes) == 8
    assert len(plan.runs) == 43
    learned = {tuple(config["learning"][key] for key in ("leak", "gain_positive", "gain_negative")) for config in plan.runs.values()}
    assert {(0.0, 1.0, 1.0), (0.2, 1.0, 1.0), (0.0, 0.8, 0.8), (0.0, 0.8, 1.2), (0.0, 1.2, 0.8)} <= learned
    both = [
        config["learning"] for config in plan.runs.values() if config["learning"]["trace_noise"] and config["learning"]["message_noise"]
    ]
    assert sorted(one["trace_noise"] for one in both) == [0.01, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert all(one["trace_noise"] == one["message_noise"] for one in both)
    assert all(config["trainer"]["epochs"] == 5 and config["data"]["train_size"] == 6000 for config in plan.runs.values())
