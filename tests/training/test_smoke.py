"""``--smoke`` without data: every registered dataset runs on a specimen where its files are missing, and the record says so."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lmn_graph import data
from lmn_graph.data import DATASETS, ArrayEncoder, MissingData, PictureEncoder, Split, Splits, Target
from lmn_graph.training import configure, open_run, resume, train

TINY = ("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "3", "--criticality", "none", "--trainer.batch_size", "32")


TEXTS = {"babylm", "tinystories"}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """A folder without data; caches of other libraries are not looked at."""
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")


def config_of(name: str, *arguments: str) -> dict:
    return configure("soc-lattice", [], ["--data", name, *TINY, *arguments])


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_dataset_smokes_without_files(name, tmp_path):
    """One epoch, metrics, and a record that says specimen wherever the dataset needs files; those that need none are themselves."""
    more = ["--projector", "TokenEmbedding"] if name in TEXTS else []
    run = train(config_of(name, *more), tmp_path / "run", smoke=True, progress=False)
    assert run.metrics
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    try:
        data.load(name)
    except MissingData:
        assert record["data"].startswith(f"{name} (specimen: made up for --smoke): {4096 if name in TEXTS else 256:,} training, ")
        assert hasattr(DATASETS[name], "specimen")
    else:
        assert record["data"].startswith(f"{name}: ")
    assert not any((tmp_path / "nowhere").iterdir())


@pytest.mark.parametrize(
    ("name", "options", "in_shape", "classes"),
    [
        ("mnist", {}, (28, 28), 10),
        ("fashion-mnist", {}, (28, 28), 10),
        ("helena", {}, (27,), 100),
        ("imagenet", {}, (32, 32), 1000),
        ("imagenet", {"size": 20, "mode": "RGB", "classes": 7}, (3, 20, 20), 7),
    ],
)
def test_a_specimen_has_the_shape_of_its_dataset(name, options, in_shape, classes):
    splits = data.make_specimen(name, **options)
    assert (splits.in_shape, splits.out_features, splits.task) == (in_shape, classes, "classification")
    assert len(torch.unique(splits.train.y)) >= 0.9 * min(classes, len(splits.train))
    if isinstance(splits.encoder, PictureEncoder):
        assert splits.train.x.min() >= 0
        assert splits.train.x.max() <= 1
    else:
        assert splits.train.x.std() == pytest.approx(1, abs=0.05)


def test_a_specimen_is_that_of_the_files(tmp_path, monkeypatch):
    """Where the real files are there they are used, and their encoder is the specimen's."""
    generator = np.random.default_rng(0)
    raw = tmp_path / "nowhere" / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 300), ("t10k", 60)):
        for kind, values in (("images-idx3", generator.integers(0, 256, (count, 28, 28))), ("labels-idx1", np.arange(count) % 10)):
            header = np.array([0x0800 + values.ndim, *values.shape], dtype=">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    run = train(config_of("mnist", "--data.validation_size", "50"), tmp_path / "run", smoke=True, progress=False)
    assert run.record["data"] == "mnist: 250 training, 50 validation, 60 test rows; input 28 × 28; 10 classes"
    assert run.encoder == data.make_specimen("mnist").encoder


def test_a_specimen_is_drawn_from_the_seed(tmp_path):
    one, two, other = (data.make_specimen("helena", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.train.x, two.train.x)
    assert not torch.equal(one.train.x, other.train.x)
    rows = {row.numpy().tobytes() for part in (one.train, one.validation, one.test) for row in part.x}
    assert len(rows) == len(one.train) + len(one.validation) + len(one.test)


def test_a_specimen_can_be_learned():
    """Classes differ: the nearest class mean of the training rows is right more often than chance."""
    splits = data.make_specimen("mnist")
    x = splits.train.x.flatten(1)
    means = torch.stack([x[splits.train.y == number].mean(0) for number in range(10)])
    guess = torch.cdist(splits.test.x.flatten(1), means).argmin(1)
    assert (guess == splits.test.y).float().mean() > 0.5


def test_a_smoke_run_can_be_resumed_evaluated_and_used(tmp_path, lmn):
    """The specimen is drawn again, bit for bit; with other data in its place the run refuses to go on."""
    from lightning.pytorch import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_: object) -> None:
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    config = config_of("helena")
    whole = train(config, tmp_path / "whole", smoke=True, progress=False)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config, tmp_path / "cut", smoke=True, progress=False, callbacks=[Stop()])
    assert resume(tmp_path / "cut", progress=False).metrics == whole.metrics
    assert open_run(tmp_path / "cut").splits().name == "helena (specimen: made up for --smoke)"
    code, out, _ = lmn("evaluate", tmp_path / "whole")
    assert code == 0
    assert f"test/accuracy         {whole.metrics['test/accuracy']:.4f}" in out

    header = ["@relation helena", "@attribute class {" + ",".join(map(str, range(100))) + "}"]
    header += [*(f"@attribute V{i} real" for i in range(1, 28)), "@data"]
    values = np.random.default_rng(0).normal(size=(3, 27))
    (tmp_path / "new.arff").write_text("\n".join([*header, *(",".join(map(str, [0, *row])) for row in values.tolist())]) + "\n")
    code, out, _ = lmn("predict", tmp_path / "whole", tmp_path / "new.arff")
    assert code == 0
    assert len(out.splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("mnist", "validation_size", "3", "validation_size must be an integer >= 10"),
        ("helena", "test_fraction", "2", "test_fraction must be"),
        ("helena", "path", "nowhere.arff", "nowhere.arff' does not exist"),
        ("imagenet", "size", "0", "size must be"),
        ("imagenet", "classes", "1", "classes must be"),
        ("mackey-glass", "tau", "0", "tau must be"),
    ],
)
def test_a_wrong_option_is_refused_all_the_same(name, option, value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(config_of(name, f"--data.{option}", value), tmp_path / "run", smoke=True, progress=False)
    with pytest.raises(ValueError, match="has no option 'sise'"):
        data.make_specimen(name, sise=3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mnist", "helena", "imagenet"])
def test_a_run_that_is_no_smoke_run_needs_the_files(name, tmp_path, refused):
    assert "missing" in refused("train", "--data", name, *TINY, "--out", tmp_path / "run").replace("lacks", "missing")
    assert not (tmp_path / "run").exists()


def test_users_files_have_no_specimen(tmp_path, refused):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    assert "line 3" in refused("train", "--data", tmp_path / "bad.csv", "--data.target", "b", *TINY, "--smoke", "--out", tmp_path / "run")
    (tmp_path / "good.csv").write_text("a,b\n1,2\n3,4\n")
    assert data.make_specimen(tmp_path / "good.csv") is None
    assert data.make_specimen("digits") is None


def test_a_new_dataset_gets_its_specimen_in_one_line(monkeypatch):
    """A regression, and inputs that are drawn its own way."""
    encoder = ArrayEncoder(Target("y", None, (1.0, 2.0), (1.0, 3.0)), (5,))

    def tokens(generator: np.random.Generator, count: int) -> np.ndarray:
        return generator.integers(0, 9, (count, 5)).astype(np.float32)

    @data.specimen(lambda options: encoder, draw=tokens)
    def corpus(root: str = "data", *, seed: int = 0) -> Splits:
        raise MissingData(f"{root} is missing")

    @data.specimen(lambda options: encoder)
    def plain(root: str = "data", *, seed: int = 0) -> Splits:
        raise MissingData(f"{root} is missing")

    monkeypatch.setattr(DATASETS, "_entries", {"corpus": corpus, "plain": plain})
    made = data.make_specimen("corpus", seed=2)
    assert set(made.train.x.unique().tolist()) == set(range(9))
    assert (made.task, made.out_features, made.encoder) == ("regression", 2, encoder)
    made = data.make_specimen("plain")
    assert made.train.y.std(0) == pytest.approx([1.0, 1.0], abs=0.15)
    assert isinstance(made.train, Split)
