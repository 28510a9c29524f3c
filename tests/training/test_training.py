"""What a run does between its first and its last epoch."""

from __future__ import annotations

import json
import random
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tiny_runs import assert_same_run, blobs, metrics_of, prices, rows_of, tiny_config

from lmn_graph.training import configure, evaluate, open_run, resume, train
from lmn_graph.training.fit import seeded


class Watch(Callback):
    """Gradients after clipping, learning rates, and the parameters after every epoch."""

    def __init__(self):
        self.norms, self.rates, self.readouts = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        gradients = [p.grad for p in pl_module.machine.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, pl_module):
        self.readouts.append([p.detach().clone() for p in pl_module.machine.readout.parameters()])


@pytest.fixture(scope="module")
def learned(data, tmp_path_factory):
    """Eight epochs that learn, two of them burn-in; and what a callback saw."""
    folder, watch = tmp_path_factory.mktemp("learned") / "run", Watch()
    arguments = ("--trainer.epochs", "8", "--loss.burn_in", "2", "--optimizer.lr", "0.03", "--optimizer.weight_decay", "0")
    return train(tiny_config(data, *arguments), folder, progress=False, callbacks=[watch]), watch


def test_a_run_directory_holds_everything(learned):
    run, _ = learned
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "metrics.csv", "run.json", "losses.png", "raster.png", "dynamics.png"),
        *("checkpoints/best.safetensors", "checkpoints/last.ckpt"),
    }
    assert (run.folder / "run.json").stat().st_mode & 0o777 == (run.folder / "losses.png").stat().st_mode & 0o777
    found = metrics_of(run.folder)
    assert {"test/accuracy", "test/loss", "test/branching_ratio", "test/rate", "test/silent", "test/saturated"} == found.keys()
    assert found["test/accuracy"] > 0.8
    assert found == evaluate(open_run(run.folder).machine(), open_run(run.folder).splits())


def test_every_loss_term_is_a_column_of_the_table(learned):
    rows = rows_of(learned[0].folder)
    assert [row["epoch"] for row in rows] == list(range(8))
    assert [row["step"] for row in rows] == [6 * (epoch + 1) for epoch in range(8)]
    wanted = {"train/loss", "train/task", "train/criticality", "train/activity", "train/accuracy", "train/rate", "lr"}
    assert wanted | {"val/loss", "val/accuracy", "val/branching_ratio", "val/rate"} <= rows[0].keys()
    settings = learned[0].config["loss"]
    for row in rows:
        task = 0.0 if row["epoch"] < 2 else row["train/task"]
        total = task + settings["criticality_weight"] * row["train/criticality"] + settings["activity_weight"] * row["train/activity"]
        assert row["train/loss"] == pytest.approx(total, rel=1e-5)


def test_burn_in_trains_the_dynamics_alone(learned):
    """The readout has no gradient in burn-in, so without weight decay it does not move; then it does."""
    readouts = learned[1].readouts
    assert all(torch.equal(one, two) for one, two in zip(readouts[0], readouts[1]))
    assert not any(torch.equal(one, two) for one, two in zip(readouts[1], readouts[2]))


def test_the_best_model_is_the_one_with_the_lowest_validation_loss(learned):
    run, _ = learned
    found = evaluate(run.machine(), run.splits(), "validation")
    assert found["validation/loss"] == pytest.approx(min(row["val/loss"] for row in rows_of(run.folder)[2:]), rel=1e-6)


def test_the_best_model_is_never_of_burn_in(tmp_path):
    """With labels that nothing can predict the run gets worse after burn-in, and yet its best model is from then."""
    data = tmp_path / "noise.npz"
    generator = np.random.default_rng(0)
    np.savez(data, x=generator.normal(size=(120, 4, 4)), y=generator.integers(0, 3, 120))
    arguments = ("--trainer.epochs", "3", "--loss.burn_in", "2", "--optimizer.lr", "3", "--optimizer.schedule", "constant")
    run = train(tiny_config(data, *arguments), tmp_path / "run", progress=False)
    losses = [row["val/loss"] for row in rows_of(run.folder)]
    assert losses[2] > min(losses)
    assert evaluate(run.machine(), run.splits(), "validation")["validation/loss"] == pytest.approx(losses[2], rel=1e-6)


def test_the_last_epoch_trains_the_task_however_long_the_burn_in(data, tmp_path):
    run = train(tiny_config(data, "--loss.burn_in", "9"), tmp_path / "run", smoke=True, progress=False)
    assert run.burn_in == 0
    assert rows_of(run.folder)[0]["train/loss"] > rows_of(run.folder)[0]["train/task"]


def test_early_stopping_counts_after_burn_in_only(data, tmp_path):
    arguments = ("--trainer.epochs", "20", "--loss.burn_in", "4", "--trainer.patience", "2", "--optimizer.lr", "1e-12")
    run = train(tiny_config(data, *arguments, "--optimizer.schedule", "constant"), tmp_path / "run", progress=False)
    # The first epoch after burn-in is the best so far; two more of the same end the run.
    assert len(rows_of(run.folder)) == 4 + 1 + 2
    assert run.record["epochs"] == 7


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_the_learning_rate_follows_its_schedule(schedule, data, tmp_path):
    watch = Watch()
    config = tiny_config(data, "--optimizer.schedule", schedule, "--optimizer.lr", "0.01")
    train(config, tmp_path / "run", progress=False, callbacks=[watch])
    rates = torch.tensor(watch.rates)
    assert len(rates) == 18
    assert rates.max() == pytest.approx(0.01, rel=0.05)
    if schedule == "constant":
        assert rates.unique().numel() == 1
    elif schedule == "cosine":
        assert bool((rates.diff() < 0).all())
        assert rates[9] == pytest.approx(0.005)
    else:
        assert rates[0] < 0.001
        assert 3 <= int(rates.argmax()) <= 7
        assert rates[-1] < 1e-4


@pytest.mark.parametrize("limit", [0.05, 0.0])
def test_gradients_are_clipped_to_a_norm(limit, data, tmp_path):
    watch = Watch()
    train(tiny_config(data, "--optimizer.gradient_clip", str(limit)), tmp_path / "run", progress=False, callbacks=[watch])
    if limit:
        assert max(watch.norms) == pytest.approx(limit, rel=1e-3)
    else:
        assert max(watch.norms) > 0.05


def test_the_callers_random_state_and_settings_are_left_alone(data, tmp_path):
    def everything():
        keys = np.random.get_state()[1].tolist()  # noqa: NPY002
        return torch.get_rng_state().tolist(), random.getstate(), keys, torch.get_num_threads(), warnings.filters[:]

    before = everything()
    train(tiny_config(data, "--trainer.threads", "2"), tmp_path / "run", smoke=True, progress=False)
    assert everything() == before


def test_the_seed_decides_everything(data, tmp_path):
    """Whatever the caller drew before."""
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        torch.rand(7)
        train(tiny_config(data, "--seed", str(seed)), tmp_path / name, progress=False)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert metrics_of(tmp_path / "one")["test/loss"] != metrics_of(tmp_path / "other")["test/loss"]


def test_seeding_ends_with_the_block():
    before = torch.get_rng_state()
    with seeded(5):
        drawn = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    assert torch.equal(before, torch.get_rng_state())
    with seeded(5):
        assert (random.random(), np.random.rand()) == drawn[1:]  # noqa: NPY002


def test_a_loss_that_is_not_finite_is_an_error_that_says_so(data, tmp_path):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 8:
                with torch.no_grad():
                    next(pl_module.machine.readout.parameters()).fill_(torch.nan)

    with pytest.raises(ValueError, match=r"loss became nan in epoch 1: lower optimizer\.lr"):
        train(tiny_config(data), tmp_path / "run", progress=False, callbacks=[Poison()])


def test_a_regression_reports_in_units_of_the_target(tmp_path):
    data = prices(tmp_path)
    arguments = ("--data.target", "price", "--trainer.epochs", "12", "--optimizer.lr", "0.03", "--readout.dropout", "0")
    run = train(tiny_config(data, *arguments), tmp_path / "run", progress=False)
    assert {"test/loss", "test/r2", "test/rmse", "test/mae", "test/branching_ratio"} <= run.metrics.keys()
    assert "val/r2" in rows_of(run.folder)[0]
    splits = run.splits()
    predicted = torch.tensor(run.encoder.decode(run.machine().predict(splits.test.x)), dtype=torch.float64)
    actual = splits.encoder.target.unscale(splits.test.y)[:, 0]
    error = predicted - actual
    assert run.metrics["test/rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
    assert run.metrics["test/mae"] == pytest.approx(float(error.abs().mean()), rel=1e-5)
    assert run.metrics["test/r2"] == pytest.approx(float(1 - error.square().mean() / actual.var(correction=0)), rel=1e-5)
    assert run.metrics["test/r2"] > 0.5


def test_a_last_batch_of_one_sample_trains(tmp_path):
    """Every criticality loss; 120 samples leave 86 for training: 85 and one."""
    data = blobs(tmp_path)
    for name in ("PlainRatio", "BranchingResponse", "TangentGrowth", "CovarianceSlope", "Perturbation"):
        base = ["--data", str(data), "--topology.L", "4", "--topology.dim", "2", "--criticality", name, "--trainer.batch_size", "85"]
        run = train(configure("soc-lattice", [], base), tmp_path / name, smoke=True, progress=False)
        assert np.isfinite(list(run.metrics.values())).all(), name


def test_what_does_not_fit_together_fails_before_anything_is_written(data, tmp_path):
    cases = [
        (("--readout", "Holographic", "--readout.rank", "6", "--readout.heads", "4"), "heads must divide"),
        (("--criticality.target", "-1"), "target"),
        (("--topology.dim", "0"), "dim must be"),
        (("--rule.decay", "2"), "decay must be"),
        (("--loss.label_smoothing", "1"), "label_smoothing"),
        (("--readout.skip", "4"), "skip"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            train(tiny_config(data, *arguments), tmp_path / "run", progress=False)
    config = configure("soc-lattice", [], ["--criticality", "DriveCorrectedRatio"])
    with pytest.raises(ValueError, match="needs a drive made of spikes"):
        train(config, tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(data):
    with pytest.raises(ValueError, match="which has no GPU"):
        tiny_config(data, "--trainer.accelerator", "gpu")


def test_run_json_is_json(learned, tmp_path):
    """Also where a number is not defined: R² of one test row."""
    record = json.loads((learned[0].folder / "run.json").read_text(), parse_constant=pytest.fail)
    assert record["parameters"] == sum(p.numel() for p in learned[0].machine().parameters())
    config = tiny_config(prices(tmp_path, 6), "--data.target", "price")
    train(config, tmp_path / "run", smoke=True, progress=False)
    assert json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=pytest.fail)["metrics"]["test/r2"] is None
    assert np.isnan(open_run(tmp_path / "run").metrics["test/r2"])


def test_structural_losses_are_parts_of_a_run_and_their_communities_are_trained(data, tmp_path):
    """Named on the command line, a column each, weighed by their own weight; a run is resumed with their parameters."""
    arguments = ("--clustering", "ClusteringLoss", "--modularity", "ModularityLoss", "--modularity.count", "3", "--trainer.epochs", "3")

    class Communities(Callback):
        """The memberships before the first epoch that is run, and after the last."""

        def on_train_start(self, trainer, pl_module):
            self.first = pl_module.loss.terms["modularity"].soft.logits.detach().clone()

        def on_train_end(self, trainer, pl_module):
            self.last = pl_module.loss.terms["modularity"].soft.logits.detach().clone()

    config = tiny_config(data, *arguments, "--loss.modularity_weight", "2")
    assert (config["clustering"]["on"], config["modularity"]["communities"]) == ("weights", "learned")
    whole = Communities()
    run = train(config, tmp_path / "run", progress=False, callbacks=[whole])
    assert {"train/clustering", "train/modularity"} <= rows_of(run.folder)[0].keys()
    assert not torch.equal(whole.first, whole.last)
    assert set(tiny_config(data)["clustering"].items()) == {("name", "none")}

    class Stop(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", progress=False, callbacks=[Stop()])
    rest = Communities()
    assert resume(tmp_path / "stopped", progress=False, callbacks=[rest]).metrics == run.metrics
    assert not torch.equal(rest.first, whole.first)
    assert torch.equal(rest.last, whole.last)
