"""An interrupted run that is taken up equals the run left alone, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tiny_runs import STRICT, TINY, assert_same_run, metrics_of, rows_of, tiny_config

from lmn_graph.training import evaluate, open_run, resume, train

# Dropout draws from the global generator: random state matters. Checkpoints fall inside epochs of six steps.
LONG = ("--trainer.epochs", "8", "--trainer.checkpoint_every", "2", "--trainer.patience", "50")


class Stop(Callback):
    """Raises after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """A run of three epochs with a checkpoint every second step."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(tiny_config(data, "--trainer.checkpoint_every", "2"), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def alone_long(data, stable, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert stable.run("train", "--data", data, *TINY, *LONG, "--out", folder)[0] == 0
    return folder


@pytest.mark.parametrize("step", [1, 4, 6, 7, 18])
def test_a_run_that_stops_at_any_step_goes_on_as_if_it_had_not(step, data, alone, tmp_path):
    """Before the first checkpoint, right after one inside an epoch, between two, at the end of an epoch, of the run."""
    config = tiny_config(data, "--trainer.checkpoint_every", "2")
    with pytest.raises(RuntimeError, match="stopped"):
        train(config, tmp_path / "run", progress=False, callbacks=[Stop(step)])
    torch.manual_seed(step)  # the caller's random state plays no part
    resume(tmp_path / "run", progress=False)
    assert_same_run(alone, tmp_path / "run")


def test_a_run_that_stops_again_and_again_goes_on(data, alone, tmp_path):
    config = tiny_config(data, "--trainer.checkpoint_every", "2")
    with pytest.raises(RuntimeError):
        train(config, tmp_path / "run", progress=False, callbacks=[Stop(3)])
    for step in (5, 9, 13, 14, 17):
        with pytest.raises(RuntimeError):
            resume(tmp_path / "run", progress=False, callbacks=[Stop(step)])
    resume(tmp_path / "run", progress=False)
    assert_same_run(alone, tmp_path / "run")


def kill_and_resume(stable, data, folder, delays):
    """Kill a run after each delay, the next time after it was resumed; then let it end."""
    stable.start("train", "--data", data, *TINY, *LONG, "--out", folder)
    for delay in delays:
        code = stable.signal(signal.SIGKILL, delay)
        if code == 0:
            return
        assert code == -signal.SIGKILL, stable.error.read_text()
        if (folder / "run.json").exists():
            stable.start("resume", folder)
        else:
            stable.start("train", "--data", data, *TINY, *LONG, "--out", folder)
    assert stable.wait() == 0, stable.error.read_text()


def test_a_killed_run_goes_on(stable, data, alone_long, tmp_path):
    chosen = random.Random(0)
    kill_and_resume(stable, data, tmp_path / "run", [chosen.uniform(0.2, 0.7) for _ in range(3)])
    assert_same_run(alone_long, tmp_path / "run")


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(stable, data, alone_long, tmp_path):
    folder = tmp_path / "run"
    stable.start("train", "--data", data, *TINY, *LONG, "--out", folder)
    assert stable.signal(signal.SIGKILL, (folder / "run.json").exists) == -signal.SIGKILL
    assert not (folder / "checkpoints" / "last.ckpt").exists()
    assert stable.run("resume", folder)[0] == 0
    assert_same_run(alone_long, folder)


@pytest.mark.slow
def test_a_run_killed_in_its_final_stage_only_ends(stable, data, alone_long, tmp_path):
    folder = tmp_path / "run"
    stable.start("train", "--data", data, *TINY, *LONG, "--out", folder)
    assert stable.signal(signal.SIGKILL, (folder / "losses.png").exists) == -signal.SIGKILL
    assert metrics_of(folder) == {}
    assert stable.run("resume", folder)[0] == 0
    assert_same_run(alone_long, folder)


def test_a_run_that_stopped_early_and_was_killed_stays_stopped(data, tmp_path, monkeypatch):
    """Lightning's checkpoint does not say that the run was to stop."""
    from lmn_graph.training import run

    arguments = ("--trainer.epochs", "30", "--trainer.patience", "1", "--optimizer.lr", "0.5", "--optimizer.schedule", "constant")
    config = tiny_config(data, *arguments)
    train(config, tmp_path / "alone", progress=False)
    assert len(rows_of(tmp_path / "alone")) < 30

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(run, "_finish", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(config, tmp_path / "run", progress=False)
    resume(tmp_path / "run", progress=False)
    assert_same_run(tmp_path / "alone", tmp_path / "run")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(kind, stable, data, alone_long, tmp_path):
    """Ctrl-C, or a cluster that wants its machine back: exit code 130, one line, and the resumed run is the run left alone."""
    folder = tmp_path / "a run"
    stable.start("train", "--data", data, *TINY, *LONG, "--out", folder)
    assert stable.signal(kind, (folder / "checkpoints" / "last.ckpt").exists) == 130
    assert stable.error.read_text().endswith(f"lmn: interrupted; go on with: lmn resume '{folder}'\n")
    stable.start("resume", folder)
    assert stable.signal(kind, 0.5) in (130, 0, -kind)
    if not metrics_of(folder):
        assert stable.run("resume", folder)[0] == 0
    assert_same_run(alone_long, folder)


def test_a_finished_run_refuses_to_go_on(alone):
    with pytest.raises(ValueError, match="is finished; start a new one"):
        resume(alone)


def test_changed_data_are_noticed(data, tmp_path):
    copy = tmp_path / "copy.npz"
    copy.write_bytes(data.read_bytes())
    with pytest.raises(RuntimeError):
        train(tiny_config(copy), tmp_path / "run", progress=False, callbacks=[Stop(3)])
    given = dict(np.load(data))
    np.savez(copy, x=given["x"] + 1, y=given["y"])  # the same after scaling, but not for new data
    with pytest.raises(ValueError, match="have changed since it started"):
        resume(tmp_path / "run")


def test_a_run_can_be_used_from_another_folder_and_without_its_data(data, tmp_path, monkeypatch):
    """Paths are kept whole; a prediction needs no training data."""
    copy = tmp_path / "copy.npz"
    copy.write_bytes(data.read_bytes())
    monkeypatch.chdir(tmp_path)
    train(tiny_config("copy.npz"), "run", smoke=True, progress=False)
    monkeypatch.chdir("/")
    run = open_run(tmp_path / "run")
    assert evaluate(run.machine(), run.splits()) == run.metrics
    copy.unlink()
    inputs = open_run(tmp_path / "run").encoder.encode(data)
    assert run.machine().predict(inputs.x).shape == (120, 3)
    with pytest.raises(ValueError, match=r"copy\.npz.*does not exist"):
        run.splits()


@pytest.mark.slow
def test_ten_kills_of_the_real_command(data, tmp_path):
    """The `lmn` command in processes of its own, killed at ten random moments."""
    lmn = [sys.executable, *STRICT, "-m", "lmn_graph.cli"]
    start = [*lmn, "train", "--data", str(data), *TINY, *LONG, "--trainer.epochs", "60", "--quiet", "--out"]
    subprocess.run([*start, str(tmp_path / "alone")], check=True, capture_output=True)
    folder, chosen = tmp_path / "run", random.Random(1)
    last = folder / "checkpoints" / "last.ckpt"
    for _ in range(10):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = subprocess.Popen([*lmn, "resume", str(folder)] if folder.exists() else [*start, str(folder)])
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(chosen.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*lmn, "resume", str(folder)], check=True, capture_output=True)
    assert_same_run(tmp_path / "alone", folder)
