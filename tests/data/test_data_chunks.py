"""Chunks of older pipelines, .pt files, as shards: every form, splits, classes, and files that are something else."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lmn_graph import data
from lmn_graph.data import _chunks
from lmn_graph.patches import patchify

PARTS = ("train", "validation", "test")
Y = torch.arange(60) % 3
GREY = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 8, 6), dtype=np.uint8))
RGB = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (60, 3, 8, 6), dtype=np.uint8))


def mapping(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"images": x, "labels": y}


def write(folder: Path, x: torch.Tensor, *, parts: int = 3, form: Callable = mapping, **options: object) -> Path:
    """``x`` in files of equal size, numbered without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(torch.arange(len(x)).chunk(parts)):
        torch.save(form(x[rows].clone(), Y[rows].clone()), folder / f"chunk_{8 + number}.pt", **options)
    return folder


def rows_of(splits: data.Splits) -> torch.Tensor:
    """All rows of all splits, in an order that does not depend on the split."""
    x = torch.cat([getattr(splits, part).x[:] for part in PARTS])
    keys = x.flatten(1).double() @ torch.linspace(1, 2, x[0].numel(), dtype=torch.float64)
    return x[keys.argsort()]


FORMS: dict[str, tuple[Callable, dict]] = {
    "mapping": (mapping, {}),
    "pair": (lambda x, y: (x, y), {}),
    "list": (lambda x, y: [x, y.to(torch.uint8)], {}),
    "other names": (lambda x, y: {"epoch": 3, "data": x, "targets": y.to(torch.int32), "paths": ["a"]}, {}),
    "floats": (lambda x, y: {"x": x.float() / 255, "y": y}, {}),
    "doubles": (lambda x, y: {"x": x.double() / 255, "y": y}, {}),
    "halves": (lambda x, y: {"x": (x.float() / 255).half(), "y": y}, {}),
    "a view": (lambda x, y: {"x": x.transpose(-1, -2).contiguous().transpose(-1, -2), "y": y}, {}),
    "with gradients": (lambda x, y: {"x": (x.float() / 255).requires_grad_(), "y": y}, {}),
    "before torch 1.6": (mapping, {"_use_new_zipfile_serialization": False}),
}


@pytest.mark.parametrize(("form", "options"), list(FORMS.values()), ids=list(FORMS))
def test_every_form_of_file(form: Callable, options: dict, tmp_path: Path) -> None:
    """Pictures over 255, each in exactly one split beside its label, in shards smaller and larger than a file."""
    out = data.import_chunks(write(tmp_path / "old", RGB, form=form, **options), tmp_path / "out", shard_size=7)
    splits = data.load(out)
    assert (splits.name, splits.in_shape, splits.classes) == ("old", (3, 8, 6), ["0", "1", "2"])
    assert [len(getattr(splits, part)) for part in PARTS] == [43, 5, 12]
    expected = RGB.float() / 255
    for part in PARTS:
        split = getattr(splits, part)
        number = (split.x[:].flatten(1)[:, None] == expected.flatten(1)).all(2).long().argmax(1)
        assert torch.equal(split.x[:], expected[number])
        assert torch.equal(split.y, Y[number])
        assert sorted(number.tolist()) == number.tolist()  # in the order of the files
    assert len(torch.unique(rows_of(splits), dim=0)) == 60


@pytest.mark.parametrize(
    ("x", "patch", "shape"),
    [
        (GREY, None, (8, 6)),
        (GREY[:, None], None, (8, 6)),
        (GREY, 4, (2, 2, 1, 4, 4)),
        (RGB, 4, (2, 2, 3, 4, 4)),
        (patchify(RGB, 2).contiguous(), None, (4, 3, 3, 2, 2)),
        (patchify(RGB, 2).contiguous(), 2, (4, 3, 3, 2, 2)),
        (patchify(GREY, 2).contiguous(), None, (4, 3, 1, 2, 2)),
    ],
)
def test_every_shape(x: torch.Tensor, patch: int | None, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Pictures are cut on request, patches stay patches, and both are pictures again where those are asked for."""
    out = data.import_chunks(write(tmp_path / "old", x), tmp_path / "out", patch=patch)
    splits, whole = data.load(out), data.load(out, form="pictures")
    pictures = RGB if whole.in_shape[0] == 3 else GREY
    assert splits.in_shape == shape
    rows = pictures.float() / 255
    keys = rows.flatten(1).double() @ torch.linspace(1, 2, rows[0].numel(), dtype=torch.float64)
    assert torch.equal(rows_of(whole), rows[keys.argsort()])
    if len(shape) == 5:
        assert torch.equal(splits.train.x[:], patchify(whole.train.x[:], shape[-1]))


def test_splits_that_files_and_folders_name(tmp_path: Path) -> None:
    """By the first word of a file, or by its folder; validation is drawn from training where none is given."""
    old = tmp_path / "old"
    for name, rows in (("train_0.pt", slice(0, 30)), ("Val-1.pt", slice(30, 39)), ("test.pt", slice(39, 60))):
        old.mkdir(exist_ok=True)
        torch.save((GREY[rows].clone(), Y[rows].clone()), old / name)
    splits = data.load(data.import_chunks(old, tmp_path / "out"))
    for part, rows in zip(PARTS, (slice(0, 30), slice(30, 39), slice(39, 60))):
        assert torch.equal(getattr(splits, part).x[:], GREY[rows].float() / 255)
        assert torch.equal(getattr(splits, part).y, Y[rows])

    folders = tmp_path / "folders"
    for name, rows in (("train", slice(0, 40)), ("test", slice(40, 60))):
        (folders / name).mkdir(parents=True)
        torch.save({"pictures": GREY[rows].clone(), "target": Y[rows].clone()}, folders / name / "0.pth")
    splits = data.load(data.import_chunks(folders, tmp_path / "out2", validation_fraction=0.2))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (32, 8, 20)
    assert torch.equal(splits.test.x[:], GREY[40:].float() / 255)

    (old / "test.pt").unlink()
    with pytest.raises(
        ValueError, match=r"must hold files of train and test \(and validation\), or none that says so, got train, validation"
    ):
        data.import_chunks(old, tmp_path / "out3")
    torch.save((GREY, Y), old / "more.pt")
    with pytest.raises(ValueError, match=r"or none that says so, got .*more\.pt"):
        data.import_chunks(old, tmp_path / "out3")


@pytest.mark.parametrize("name", ["classes.txt", "classes.json"])
def test_class_names(name: str, tmp_path: Path) -> None:
    old = write(tmp_path / "old", GREY)
    (old / name).write_text("cat\nowl\n\nfrog\n" if name.endswith("txt") else json.dumps(["cat", "owl", "frog"]))
    assert data.load(data.import_chunks(old, tmp_path / "out")).classes == ["cat", "owl", "frog"]
    (old / name).write_text("cat\nowl\nfrog\nant" if name.endswith("txt") else json.dumps(["cat", "owl", "frog", "ant"]))
    with pytest.raises(ValueError, match=r"class 'ant' has 0 row\(s\), at least 3 are needed"):
        data.import_chunks(old, tmp_path / "out2")
    (old / name).write_text("cat\nowl\n" if name.endswith("txt") else '["cat", "owl"]')
    with pytest.raises(ValueError, match=rf"{name} names 2 classes, but .*chunk_8\.pt has label 2"):
        data.import_chunks(old, tmp_path / "out2")
    (old / name).write_text("cat\ncat\nowl\n" if name.endswith("txt") else '{"cat": 0}')
    with pytest.raises(ValueError, match=rf"{name} must be a list of different names"):
        data.import_chunks(old, tmp_path / "out2")


def test_floats_that_are_no_grey_values_are_rounded_and_reported(tmp_path: Path) -> None:
    """To the nearest, at most half a grey value away."""
    x = torch.rand(60, 8, 6, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"old: inputs are no multiples of 1/255 and are rounded to the nearest") as warned:
        out = data.import_chunks(write(tmp_path / "old", x), tmp_path / "out")
    assert {warning.filename for warning in warned} == {__file__}
    found, expected = rows_of(data.load(out)), (x.double() * 255).round().div(255).float()
    assert torch.equal(found.flatten().sort().values, expected.flatten().sort().values)


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch harm",)


class Quiet:
    """A class of this file, which does nothing."""


def _bomb(x: torch.Tensor, y: torch.Tensor) -> object:
    return {"images": x[:1].expand(10**12, 8, 6), "labels": y[:1].expand(10**12)}


def _nested(x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are a prototype
        return torch.nested.nested_tensor(list(x.float()), layout=torch.strided)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda x, y: {"images": x, "labels": y, "more": Malicious()}, "holds something else than tensors, which is not loaded"),
        (lambda x, y: Malicious(), "holds something else than tensors, which is not loaded"),
        (lambda x, y: {"images": x, "labels": y, "more": Quiet()}, "holds something else than tensors, which is not loaded"),
        (lambda x, y: {"images": x, "labels": y, "more": subprocess.Popen}, "holds something else than tensors, which is not loaded"),
        (lambda x, y: {"images": x}, "must hold a mapping with images .* got a mapping with images"),
        (lambda x, y: {"images": x.tolist(), "labels": y}, "must hold a mapping with images"),
        (lambda x, y: (x, y, y), "must hold a mapping with images .* got tuple"),
        (lambda x, y: x, "must hold a mapping with images .* got Tensor"),
        (lambda x, y: (x, y[:-1]), r"inputs must have as many rows as labels, at least one, got \[20, 8, 6\] and 19 labels"),
        (lambda x, y: (x[:0], y[:0]), "inputs must have as many rows as labels, at least one"),
        (lambda x, y: (x, y.float()), r"labels must be whole numbers \[n\], got torch\.float32"),
        (lambda x, y: (x, y[:, None]), r"labels must be whole numbers \[n\], got torch\.int64 \[20, 1\]"),
        (lambda x, y: (x, y - 1), r"labels must be >= 0, got -1"),
        (lambda x, y: (x, y * 10**12), "labels must be class numbers from 0, got 2000000000000 among 20 rows"),
        (lambda x, y: (x.short(), y), r"inputs must be uint8, or float16, .* in \[0, 1\], got torch\.int16"),
        (lambda x, y: ((x / 255).to(torch.float8_e4m3fn), y), r"inputs must be uint8, or float16, .*, got torch\.float8_e4m3fn"),
        (lambda x, y: (x.to("meta"), y), r"plain, whole tensors, got one of torch\.strided, torch\.uint8, \[20, 8, 6\] on meta"),
        (lambda x, y: (x, y.to("meta")), r"plain, whole tensors, got one of torch\.strided, torch\.int64, \[20\] on meta"),
        (lambda x, y: (_nested(x), y), r"plain, whole tensors, got one of torch\.strided, torch\.float32, nested on cpu"),
        (lambda x, y: (x.flatten(1), y), r"inputs must have shape \[n, height, width\], .*, got \[20, 48\]"),
        (lambda x, y: (x[:, None].expand(-1, 4, -1, -1).clone(), y), r"inputs must have shape .*, got \[20, 4, 8, 6\]"),
        (lambda x, y: (x.float(), y), r"row 0: inputs must be uint8 or lie in \[0, 1\], got \d+"),
        (lambda x, y: (x.float() / 255 - 0.5, y), r"inputs must be uint8 or lie in \[0, 1\], got -0"),
        (lambda x, y: ((x / 255).where(x < 250, torch.nan), y), r"inputs must be uint8 or lie in \[0, 1\], got nan"),
        (lambda x, y: (x.float().to_sparse(), y), "must hold plain, whole tensors, got one of torch.sparse_coo"),
        (_bomb, "must hold plain, whole tensors"),
    ],
)
def test_files_of_something_else_are_refused(form: Callable, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is named, nothing in it is carried out, no shards are left that could be trained on."""
    monkeypatch.chdir(tmp_path)
    write(Path("old"), GREY[:20], parts=1, form=form)
    with pytest.raises(ValueError, match=message) as found:
        data.import_chunks("old", "out")
    assert "chunk_8.pt" in str(found.value)
    assert "weights_only" not in str(found.value)
    assert not Path("harm").exists()
    assert not list(Path().glob("out/*.safetensors"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing more", b"\x80\x02cposix\nsystem\n", None])
def test_damaged_files_are_refused(content: bytes | None, tmp_path: Path) -> None:
    old = write(tmp_path / "old", GREY)
    path = old / "chunk_9.pt"
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    with pytest.raises(ValueError, match=r"chunk_9\.pt (is damaged|holds something else)"):
        data.import_chunks(old, tmp_path / "out")


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    old = write(tmp_path / "old", GREY)
    torch.save((RGB, Y), old / "chunk_11.pt")
    with pytest.raises(ValueError, match=r"chunk_11\.pt: rows have shape \[3, 8, 6\], those of .*chunk_8\.pt \[8, 6\]"):
        data.import_chunks(old, tmp_path / "out")
    patches = write(tmp_path / "patches", patchify(RGB, 2).contiguous())
    with pytest.raises(ValueError, match=r"patch must be 2, as the patches in .*chunk_8\.pt are, or not given, got 4"):
        data.import_chunks(patches, tmp_path / "out", patch=4)
    with pytest.raises(ValueError, match=r"holds no \.pt or \.pth files"):
        data.import_chunks(tmp_path, tmp_path / "out")


def test_a_file_that_cannot_be_mapped_is_loaded_once_for_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for every shard that has rows of it; and once when it is looked at first."""
    loaded, load = [], _chunks._load
    monkeypatch.setattr(_chunks, "_load", lambda path: loaded.append(path.name) or load(path))
    old = write(tmp_path / "old", GREY, _use_new_zipfile_serialization=False)
    data.import_chunks(old, tmp_path / "out", shard_size=2)
    assert max(loaded.count(name) for name in loaded) == 4


def test_training_on_chunks_says_what_to_do(tmp_path: Path) -> None:
    """In the folder itself, and in folders of splits."""
    old = write(tmp_path / "old", GREY)
    for folder in (old, write(tmp_path / "apart" / "train", GREY).parent):
        with pytest.raises(
            ValueError, match=rf"no (class folders|pictures).*; lmn preprocess {folder} --out DIR makes shards of \.pt files"
        ):
            data.load(folder)


def test_an_import_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A file is damaged when half of the shards are made; once it is back they are those of an undisturbed import."""
    old = write(tmp_path / "old", GREY, parts=6)
    alone = data.import_chunks(old, tmp_path / "alone", shard_size=4)
    path, out = old / "chunk_11.pt", tmp_path / "out"
    state, held = path.stat(), path.read_bytes()
    x, y = torch.load(path, weights_only=True).values()
    torch.save({"images": x.float(), "labels": y}, path)
    with pytest.raises(ValueError, match=r"chunk_11\.pt, row 0: inputs must be uint8 or lie in"):
        data.import_chunks(old, out, shard_size=4)
    made = {file.name for file in out.glob("*.safetensors")}
    path.write_bytes(held)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match=r"holds shards made with chunks='\w+', now it is '\w+'"):
        data.import_chunks(old, out, shard_size=4)  # the file that was there when they were begun was another one
    assert made
    assert made < {file.name for file in alone.glob("*.safetensors")}
