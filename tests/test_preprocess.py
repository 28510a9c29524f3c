"""The command ``lmn preprocess``: shards of pictures and of older chunks, killed, gone on with, checked, trained on."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import Stable, pictures

from lmn_graph import data
from lmn_graph.patches import patchify

SHORT = (
    *("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "3", "--criticality", "none"),
    *("--trainer.epochs", "1", "--trainer.batch_size", "16"),
)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def size_of(folder: Path) -> str:
    """What the shards in a folder take."""
    return f"{sum(path.stat().st_size for path in folder.glob('*.safetensors')) / 1e3:,.1f} kB"


def test_from_pictures_to_a_prediction(tmp_path, lmn):
    """Patches: preprocess, train, predict for a new picture; its probabilities are those of the machine on the cut picture."""
    photos, out = pictures(tmp_path), tmp_path / "shards of mine"
    code, text, error = lmn(
        "preprocess", photos, "--out", out, "--patch", "4", "--shard-size", "9", "--size", "10", "--mode", "RGB", "--verify"
    )
    assert (code, error) == (0, "")
    assert text == f"pictures: 40 pictures in 6 shards of {size_of(out)} together\nlmn train --data '{out}' reads them\n"
    held = data.load(photos, size=10, mode="RGB")
    splits = data.load(out)
    assert splits.in_shape == (3, 3, 3, 4, 4)
    assert torch.equal(splits.train.x[:], patchify(held.train.x, 4))
    assert lmn("train", "soc-lattice", "--data", out, *SHORT, "--quiet", "--out", tmp_path / "run")[0] == 0
    new = tmp_path / "new.png"
    Image.fromarray(np.random.default_rng(9).integers(170, 250, (30, 40), dtype=np.uint8)).save(new)
    code, text, _ = lmn("predict", tmp_path / "run", new)
    assert code == 0
    assert text.splitlines()[0] == "input,class,probability"
    assert text.splitlines()[1].startswith("new.png,bright,")


def test_pictures_of_patches_and_options_of_the_data(tmp_path, lmn):
    """The split options of the folder reach the shards; a run takes whole pictures from shards of patches."""
    photos, out = pictures(tmp_path), tmp_path / "out"
    arguments = ("--size", "8", "--patch", "3", "--test_fraction", "0.5", "--seed", "3")
    assert lmn("preprocess", photos, "--out", out, *arguments)[0] == 0
    held = data.load(photos, size=8, test_fraction=0.5, seed=3)
    assert torch.equal(data.load(out, form="pictures").test.x[:], held.test.x)
    assert len(held.test) == 20
    assert (
        lmn("train", "soc-lattice", "--data", out, "--data.form", "pictures", *SHORT, "--smoke", "--quiet", "--out", tmp_path / "run")[0]
        == 0
    )


def test_a_data_set_by_name(tmp_path, lmn):
    """ImageNet's folders, grey by its own default, with its own option."""
    for part, count in (("train", 4), ("val", 2)):
        for synset in ("n001", "n002", "n003"):
            folder = tmp_path / part / synset
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((6, 6), 40 * number + len(part), np.uint8)).save(folder / f"{number}.JPEG")
    assert lmn("preprocess", "imagenet", "--root", tmp_path, "--classes", "2", "--size", "5", "--out", tmp_path / "out")[0] == 0
    splits, held = data.load(tmp_path / "out"), data.load("imagenet", root=str(tmp_path), classes=2, size=5)
    assert splits.classes == held.classes == ["n001", "n002"]
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(splits, part).x[:], getattr(held, part).x)


def test_chunks_of_an_older_pipeline(tmp_path, lmn):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, 2, 3, 1, 4, 4), dtype=np.uint8))
    (tmp_path / "old").mkdir()
    for number in range(3):
        rows = slice(10 * number, 10 * number + 10)
        torch.save({"patches": x[rows].clone(), "labels": torch.arange(10) % 2}, tmp_path / "old" / f"chunk_{number}.pt")
    code, text, _ = lmn("preprocess", tmp_path / "old", "--out", tmp_path / "out", "--shard-size", "8")
    assert (code, text.splitlines()[0]) == (0, f"old: 30 pictures in 5 shards of {size_of(tmp_path / 'out')} together")
    assert data.load(tmp_path / "out").in_shape == (2, 3, 1, 4, 4)
    photos = pictures(tmp_path)
    (photos / "model.pt").write_bytes(b"a model beside the class folders")
    assert lmn("preprocess", photos, "--out", tmp_path / "out2")[0] == 0


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    found = Stable(tmp_path_factory.mktemp("stable"))
    yield found
    found.close()


@pytest.mark.slow  # a process of its own imports everything
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on(kind, stable, tmp_path):
    """Killed, again and again, or stopped by Ctrl-C: the same command makes what is missing, and the folder is that of one undisturbed."""
    photos = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        for number in range(60):
            Image.fromarray(generator.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(photos / name / f"{number}.png")
    arguments = ("preprocess", photos, "--size", "40", "--mode", "RGB", "--shard-size", "2", "--out")
    assert stable.run(*arguments, tmp_path / "alone")[0] == 0
    out = tmp_path / "out"
    for count in (3, 15, 30):
        stable.start(*arguments, out)
        code = stable.signal(kind, lambda count=count: len(list(out.glob("*.safetensors"))) >= count)
        assert code == (130 if kind == signal.SIGINT else -kind), stable.error.read_text()
        if kind == signal.SIGINT:
            assert stable.error.read_text() == "lmn: interrupted; go on with the same command\n"
    times = {path.name: path.stat().st_mtime_ns for path in sorted(out.glob("*.safetensors"))[:29]}
    assert stable.run("train", "--data", out, "--quiet", "--out", tmp_path / "run")[0] == 2
    assert "is not finished" in stable.error.read_text()
    assert stable.run(*arguments, out)[0] == 0
    assert times == {name: (out / name).stat().st_mtime_ns for name in times}
    assert content(out) == content(tmp_path / "alone")


def test_checking_a_folder(tmp_path, lmn, refused):
    """Every byte: one that is flipped is found, and the same command makes its shard again."""
    photos, out = pictures(tmp_path), tmp_path / "out"
    arguments = ("preprocess", photos, "--out", out, "--shard-size", "9")
    assert lmn(*arguments)[0] == 0
    assert lmn("preprocess", out, "--verify")[:2] == (
        0,
        f"pictures: 40 pictures in 6 shards of {size_of(out)} together\nlmn train --data {out} reads them\n",
    )
    path = out / "test-00000.safetensors"
    held = path.read_bytes()
    path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    assert f"{path} is damaged (SHA-256" in refused("preprocess", out, "--verify")
    assert "SHA-256" in refused("train", "--data", out, "--data.verify", "true", "--out", tmp_path / "run")
    assert lmn(*arguments)[0] == 0
    assert path.read_bytes() == held
    assert lmn("preprocess", out, "--verify")[0] == 0


def test_what_is_refused(tmp_path, refused):
    photos, out = pictures(tmp_path), tmp_path / "out"
    assert refused("preprocess", photos) == "option --out DIR is required: the folder of the shards"
    assert refused("preprocess", "--out", out).startswith("one data set or folder must be named, got 0")
    assert refused("preprocess", photos, photos, "--out", out).startswith("one data set or folder must be named, got 2")
    assert "is not made of picture files; expected a folder of them or of .pt files, or one of " in refused(
        "preprocess", "mnist", "--out", out
    )
    assert refused("preprocess", photos, "--out", out, "--sice", "8") == "unknown option '--sice'; did you mean '--size'?"
    assert refused("preprocess", photos, "--out", out, "--memory", "false").startswith("unknown option '--memory'")
    assert "--size" in refused("preprocess", photos, "--out", out, "--size", "big")
    assert "neither a dataset nor a path" in refused("preprocess", "imagenets", "--out", out)
    assert refused("preprocess", photos, "--out", out, "--patch", "0") == "patch must be an integer >= 1, got 0"
    assert "is missing" in refused("preprocess", "imagenet", "--root", tmp_path, "--out", out)
    assert not out.exists()


def test_help_shows_the_options_of_the_data(tmp_path, lmn):
    code, text, _ = lmn("preprocess", pictures(tmp_path), "--help")
    assert code == 0
    assert "--shard-size N" in text
    assert "--validation_fraction (a number; default 0.1)" in text
    assert "--memory" not in text
    assert "--protocol" in lmn("preprocess", "domainnet", "--help")[1]


def test_shards_are_data_as_any_other(tmp_path, lmn, refused):
    photos, out = pictures(tmp_path), tmp_path / "out"
    assert lmn("preprocess", photos, "--out", out)[0] == 0
    use = f"lmn train --data {out} reads it, lmn preprocess {out} --verify checks it"
    assert refused("preprocess", out, "--out", tmp_path / "again") == f"data '{out}' is a folder of shards already: {use}"
    assert refused("train", "--data", out, "--data.size", "8").startswith("unknown option '--data.size'")
