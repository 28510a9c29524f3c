"""Runs on pictures that are not in memory: the run on those in memory, bit for bit; resumed, changed, interrupted."""

from __future__ import annotations

import threading

import pytest
import torch
from lightning.pytorch import Callback
from tiny_runs import TINY, assert_same_run, metrics_of, pictures, tiny_config

from lmn_graph import data as datasets
from lmn_graph.data import _pictures
from lmn_graph.training import evaluate, open_run, resume, splits, train


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "out"
    return datasets.preprocess(datasets.folder.listing(photos), out, size=8, mode="L", shard_size=5)


@pytest.fixture(scope="module")
def in_memory(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "run"
    train(tiny_config(photos, "--data.size", "8", "--trainer.batch_size", "5"), folder, progress=False)
    return folder


def lazy(photos, shards, kind, *arguments):
    of = {"files": (photos, "--data.size", "8", "--data.memory", "false"), "shards": (shards,)}[kind]
    return tiny_config(*of, "--trainer.batch_size", "5", *arguments)


class Stop(Callback):
    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise self.error


def reading():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.mark.parametrize("prefetch", ["0", "null", "3"])
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_training_is_that_in_memory(kind, prefetch, photos, shards, in_memory, tmp_path):
    """The table of metrics and the best model byte for byte, the metrics of the test split."""
    train(lazy(photos, shards, kind, "--trainer.prefetch", prefetch), tmp_path / "run", progress=False)
    for name in ("metrics.csv", "checkpoints/best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (in_memory / name).read_bytes(), name
    assert metrics_of(tmp_path / "run") == metrics_of(in_memory) != {}
    run = open_run(tmp_path / "run")
    assert evaluate(run.machine(), run.splits()) == run.metrics
    assert reading() == []


@pytest.mark.parametrize("kind", ["files", "shards"])
def test_a_run_that_reads_ahead_goes_on_as_if_it_had_not_stopped(kind, photos, shards, tmp_path):
    """After an error and after Ctrl-C, in the middle of epochs with batches read ahead; no thread is left."""
    config = lazy(photos, shards, kind, "--trainer.checkpoint_every", "2", "--trainer.prefetch", "3")
    train(config, tmp_path / "alone", progress=False)
    with pytest.raises(RuntimeError, match="stopped"):
        train(config, tmp_path / "run", progress=False, callbacks=[Stop(3, RuntimeError("stopped"))])
    assert reading() == []
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "run", progress=False, callbacks=[Stop(8, KeyboardInterrupt())])
    assert reading() == []
    resume(tmp_path / "run", progress=False)
    assert_same_run(tmp_path / "alone", tmp_path / "run")


def test_a_run_that_stops_early_leaves_no_thread(photos, shards, tmp_path):
    arguments = ("--trainer.epochs", "30", "--trainer.patience", "1", "--optimizer.lr", "0.5", "--optimizer.schedule", "constant")
    train(lazy(photos, shards, "shards", *arguments), tmp_path / "run", progress=False)
    assert open_run(tmp_path / "run").record["epochs"] < 30
    assert reading() == []


def test_changed_files_and_shards_are_noticed(tmp_path):
    """A file with other bytes; shards of other pictures in the same place. Shards that are made anew are the same data."""
    photos = pictures(tmp_path)
    listing = datasets.folder.listing(photos)
    out = datasets.preprocess(listing, tmp_path / "out", size=8, mode="L", shard_size=5)
    for kind in ("files", "shards"):
        with pytest.raises(RuntimeError):
            train(lazy(photos, out, kind), tmp_path / kind, progress=False, callbacks=[Stop(3, RuntimeError("stopped"))])
    (out / "train-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"train-00001\.safetensors is missing; run lmn preprocess"):
        resume(tmp_path / "shards", progress=False)
    datasets.preprocess(listing, out, size=8, mode="L", shard_size=5)
    resume(tmp_path / "shards", progress=False, callbacks=[])
    assert metrics_of(tmp_path / "shards")

    picture = next((photos / "dark").iterdir())
    picture.write_bytes(picture.read_bytes() + b" ")
    with pytest.raises(ValueError, match="have changed since it started"):
        resume(tmp_path / "files", progress=False)
    for path in out.iterdir():
        path.unlink()
    datasets.preprocess(datasets.folder.listing(photos, seed=1), out, size=8, mode="L", shard_size=5)
    with pytest.raises(ValueError, match="have changed since it started"):
        open_run(tmp_path / "shards").splits()


def test_a_picture_that_breaks_is_named(photos, tmp_path, refused):
    """In the thread that reads ahead: one line, and no thread left."""
    copy = pictures(tmp_path)
    (copy / "dark" / "3.png").write_bytes(b"nothing")
    arguments = ("--data", copy, "--data.size", "8", "--data.memory", "false", "--quiet", "--out", tmp_path / "run")
    assert "3.png is not a picture that can be read" in refused("train", "soc-lattice", *TINY, *arguments)
    assert reading() == []


def test_a_smoke_run_reads_a_few_rows(photos, shards, tmp_path):
    for kind in ("files", "shards"):
        train(lazy(photos, shards, kind), tmp_path / kind, smoke=True, progress=False)
    assert metrics_of(tmp_path / "files") == metrics_of(tmp_path / "shards") != {}


@pytest.mark.parametrize("memory", ["true", "false"])
def test_a_smoke_run_decodes_a_few_pictures(memory, tmp_path, monkeypatch):
    """Those that the whole begins with, which for "skip" are those that can be read."""
    photos, opened, read = pictures(tmp_path), [], _pictures._read_picture
    first = datasets.folder.listing(photos).train.paths[1]
    first.write_bytes(b"nothing")
    monkeypatch.setitem(splits.SMOKE, "samples", 3)
    monkeypatch.setattr(_pictures, "_read_picture", lambda path, *how: opened.append(path) or read(path, *how))
    arguments = ("--data.size", "8", "--data.memory", memory, "--data.broken")
    found, _ = splits.DataReader().read(tiny_config(photos, *arguments, "skip"), smoke=True)
    assert len(set(opened)) == 10
    with pytest.raises(ValueError, match=f"{first} is not a picture"):
        splits.DataReader().read(tiny_config(photos, *arguments, "fatal"), smoke=True)
    with pytest.warns(UserWarning, match="1 of 40 pictures cannot be read"):
        whole = datasets.load(photos, size=8, broken="skip")
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(found, part).x, getattr(whole, part).x[:3])
        assert torch.equal(getattr(found, part).y, getattr(whole, part).y[:3])
    assert found.encoder == whole.encoder


def test_prefetch_is_checked(photos, refused):
    assert refused("train", "--data", photos, "--trainer.prefetch", "-1") == "trainer.prefetch must be an integer >= 0, got -1"


@pytest.mark.parametrize("part", ["validation", "test"])
def test_what_breaks_after_training_is_found_before(part, tmp_path, refused):
    """A picture of the validation or test split that cannot be read ends the run before it has begun."""
    copy = pictures(tmp_path)
    path = getattr(datasets.folder.listing(copy), part).paths[-1]
    path.write_bytes(b"")
    arguments = ("--data", copy, "--data.size", "8", "--data.memory", "false", "--quiet", "--out", tmp_path / "run")
    assert f"{path.name} is not a picture that can be read" in refused("train", "soc-lattice", *TINY, *arguments)
    assert not (tmp_path / "run").exists()
