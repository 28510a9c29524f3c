"""Pictures that cannot be read, in every dataset of pictures: named, or left out and counted; folders that cannot be listed."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lmn_graph import data

CLASSES = ("ant", "bee", "cat")
TRAIN, TEST = 8, 3

Load = Callable[..., data.Splits]


def _jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


TRUNCATED = _jpeg(0)[:-400]
BROKEN = {"empty": b"", "words": b"<html>not found</html>", "truncated": TRUNCATED, "header": b"\x89PNG\r\n\x1a\n"}


def _files() -> list[tuple[str, str, str, bytes]]:
    """(split, class, name, content)."""
    parts = [(split, name, i) for split, count in (("train", TRAIN), ("test", TEST)) for name in CLASSES for i in range(count)]
    return [(split, name, f"{split}{i}", _jpeg(seed)) for seed, (split, name, i) in enumerate(parts)]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _folder(root: Path) -> tuple[Load, str]:
    for split, name, picture, content in _files():
        _write(root / split / name / f"{picture}.jpg", content)
    return lambda **options: data.load(root, **({"size": 8, "mode": "RGB"} | options)), "{split}/{name}/{picture}.jpg"


def _imagenet(root: Path) -> tuple[Load, str]:
    for split, name, picture, content in _files():
        _write(root / split.replace("test", "val") / name / f"{picture}.JPEG", content)
    options = {"root": str(root), "size": 8, "mode": "RGB", "validation_fraction": 0.1}
    return lambda **more: data.load("imagenet", **(options | more)), "{val}/{name}/{picture}.JPEG"


def _domainnet(root: Path) -> tuple[Load, str]:
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for split, name, picture, content in _files():
        _write(root / "real" / name / f"{picture}.jpg", content)
        lines[split].append(f"real/{name}/{picture}.jpg {CLASSES.index(name)}\n")
    for split, each in lines.items():
        (root / f"real_{split}.txt").write_text("".join(each))
    options = {"root": str(root), "size": 8, "domains": "real"}
    return lambda **more: data.load("domainnet", **(options | more)), "real/{name}/{picture}.jpg"


def _food101(root: Path) -> tuple[Load, str]:
    entries: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for split, name, picture, content in _files():
        _write(root / "food-101" / "images" / name / f"{picture}.jpg", content)
        entries[split].setdefault(name, []).append(f"{name}/{picture}")
    for split, each in entries.items():
        _write(root / "food-101" / "meta" / f"{split}.json", json.dumps(each).encode())
    return lambda **options: data.load("food101", **({"root": str(root), "size": 8} | options)), "food-101/images/{name}/{picture}.jpg"


class Made:
    """A dataset of pictures in a folder: how it is loaded, and where its pictures are."""

    def __init__(self, make: Callable[[Path], tuple[Load, str]], root: Path) -> None:
        self.root = root
        self.load, self._layout = make(root)

    def path(self, split: str, name: str, number: int) -> Path:
        val = split.replace("test", "val")
        return self.root / self._layout.format(split=split, val=val, name=name, picture=f"{split}{number}")


@pytest.fixture(params=[_folder, _imagenet, _domainnet, _food101], ids=["folder", "imagenet", "domainnet", "food101"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return Made(request.param, tmp_path / "pictures")


def _rows(splits: data.Splits) -> dict[str, list[tuple[int, bytes]]]:
    return {part: [(int(y), x.numpy().tobytes()) for x, y in getattr(splits, part)] for part in ("train", "validation", "test")}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_by_default_a_broken_picture_is_an_error_that_names_it(made: Made, content: bytes) -> None:
    for split in ("train", "test"):
        path = made.path(split, "bee", 1)
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is not a picture that can be read"):
            made.load()
        path.write_bytes(whole)


def test_skipped_pictures_are_counted_and_the_others_are_as_before(made: Made) -> None:
    """All rows that can be read, in the same order and of the same split as if nothing were broken."""
    before = made.load()
    whole = _rows(before)
    lost: set[bytes] = set()
    for (split, name, number), content in zip((("train", "ant", 0), ("train", "cat", 5), ("test", "bee", 2)), BROKEN.values()):
        path = made.path(split, name, number)
        lost.add(before.encoder.encode(path).x[0].numpy().tobytes())
        path.write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"3 of 33 pictures cannot be read and are left out; the first: .*(ant|cat|bee).* is not a picture"
    ) as said:
        splits = made.load(broken="skip")
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    assert splits.describe().split(":")[0].endswith(" (3 broken pictures left out)")
    kept = {part: [row for row in rows if row[1] not in lost] for part, rows in whole.items()}
    assert sum(map(len, kept.values())) == 30
    assert _rows(splits) == kept
    assert torch.isfinite(splits.train.x).all()


def test_where_nothing_is_broken_skip_changes_nothing(made: Made) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = made.load(broken="skip", mode="L")
    plain = made.load(mode="L")
    assert splits.name == plain.name
    assert _rows(splits) == _rows(plain)


def test_a_class_that_loses_all_its_training_pictures_is_an_error(made: Made) -> None:
    """Also if some are left in another split; the class and the first picture are named."""
    for number in range(TRAIN):
        made.path("train", "cat", number).write_bytes(b"")
    message = r"none of the \d training picture\(s\) of class 'cat' can be read; the first: .*cat.* is not a picture"
    with pytest.raises(ValueError, match=message):
        made.load(broken="skip")


def test_a_split_that_loses_all_its_pictures_is_an_error(made: Made) -> None:
    for name in CLASSES:
        for number in range(TEST):
            made.path("test", name, number).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"none of the 9 test pictures can be read; the first: "):
        made.load(broken="skip")


def test_a_class_that_loses_its_test_pictures_is_still_there(made: Made) -> None:
    for number in range(TEST):
        made.path("test", "ant", number).write_bytes(b"no")
    with pytest.warns(UserWarning, match="3 of 33 pictures"):
        splits = made.load(broken="skip")
    assert splits.out_features == 3
    assert set(splits.test.y.tolist()) == {1, 2}


def test_folders_that_cannot_be_listed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, and not taken for empty."""
    folder = made.path("train", "bee", 0).parent
    listdir, scandir = os.listdir, os.scandir

    def refused(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".") -> Any:
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return do(path)

        return call

    monkeypatch.setattr(os, "listdir", refused(listdir))
    monkeypatch.setattr(os, "scandir", refused(scandir))
    with pytest.raises(ValueError, match=f"{folder} cannot be read: .*Permission denied"):
        made.load()


def test_a_class_folder_below_a_class_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures further down are not lost without a word."""
    made = Made(_folder, tmp_path)
    inner = tmp_path / "train" / "ant" / "more"
    _write(inner / "x.jpg", _jpeg(99))
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if Path(path) == inner:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ValueError, match=f"{inner} cannot be read"):
        made.load()


def test_decompression_bombs_are_broken_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pixels than Pillow opens: refused or left out, never decoded."""
    made = Made(_domainnet, tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32)
    Image.new("L", (200, 200)).save(made.path("train", "ant", 3), "JPEG")
    with pytest.raises(ValueError, match=r"ant/train3.jpg is not a picture that can be read: .*decompression bomb"):
        made.load()
    with pytest.warns(UserWarning, match="1 of 33 pictures"):
        assert made.load(broken="skip").name == "domainnet (1 broken picture left out)"
