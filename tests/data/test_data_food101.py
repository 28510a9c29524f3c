"""Food-101 as torchvision reads it, from either kind of list; what is wrong or missing; the archive from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image

from lmn_graph import data
from lmn_graph.data import PictureEncoder, _food101, _listing

CLASSES = ("baklava", "apple_pie", "waffles")  # the lists are in an order of their own
TRAIN, TEST = 6, 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """food-101 with lists of both kinds; every picture has a grey of its own."""
    base = tmp_path / "food-101"
    greys = itertools.count(5, 5)
    numbers = itertools.count(100001)
    (base / "meta").mkdir(parents=True)
    for split, count in (("train", TRAIN), ("test", TEST)):
        entries: dict[str, list[str]] = {}
        for name in CLASSES:
            (base / "images" / name).mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                entries.setdefault(name, []).append(f"{name}/{next(numbers)}")
                grey = next(greys)
                Image.new("RGB", (9, 6), (grey, grey, grey)).save(base / "images" / f"{entries[name][-1]}.jpg", quality=100)
        (base / "meta" / f"{split}.json").write_text(json.dumps(entries))
        (base / "meta" / f"{split}.txt").write_text("".join(f"{entry}\n" for each in entries.values() for entry in each))
    (base / "meta" / "classes.txt").write_text("".join(f"{name}\n" for name in sorted(CLASSES)))
    return tmp_path


def _load(folder: Path, /, **options: Any) -> data.Splits:
    return data.load("food101", **({"root": str(folder), "size": 4} | options))


def _files(*parts: Any) -> list[tuple[str, int]]:
    return sorted((str(path), number) for part in parts for path, number in zip(part.paths, part.labels.tolist()))


@pytest.mark.parametrize("lists", ["json", "txt"])
def test_as_torchvision_reads_it(root: Path, lists: str) -> None:
    """The same classes, files and numbers in training and test; rows are the encoder's."""
    theirs = {split: torchvision.datasets.Food101(root, split=split) for split in ("train", "test")}
    for file in (root / "food-101" / "meta").glob("t*"):
        if not file.name.endswith(lists):
            file.unlink()
    listing = data.food101.listing(str(root))
    assert list(listing.target.classes or ()) == theirs["train"].classes == sorted(CLASSES)
    assert _files(listing.train, listing.validation) == sorted(
        (str(p), y) for p, y in zip(theirs["train"]._image_files, theirs["train"]._labels)
    )
    assert _files(listing.test) == sorted((str(p), y) for p, y in zip(theirs["test"]._image_files, theirs["test"]._labels))
    splits = _load(root)
    assert splits.in_shape == (3, 4, 4)
    assert isinstance(splits.encoder, PictureEncoder)
    assert torch.equal(splits.test.x, torch.cat([splits.encoder.encode(path).x for path in listing.test.paths]))
    assert _load(root, mode="L").in_shape == (4, 4)


def test_the_draw(root: Path) -> None:
    """The first classes alone; as many training pictures of each; another seed draws others."""
    splits = _load(root, classes=2)
    assert splits.classes == ["apple_pie", "baklava"]
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (2 * TRAIN, 2 * TEST)
    few = _load(root, train_size=7, validation_fraction=0.3)
    assert sorted(Counter(few.train.y.tolist()).values()) == [2, 2, 3]
    assert Counter(few.validation.y.tolist()) == {0: 1, 1: 1, 2: 1}
    assert torch.equal(few.train.x, _load(root, train_size=7, validation_fraction=0.3).train.x)
    assert not torch.equal(few.train.x, _load(root, train_size=7, validation_fraction=0.3, seed=1).train.x)


def test_pictures_that_are_listed_but_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is decoded; of classes that are not asked for none is needed."""
    monkeypatch.setattr(_listing, "read_pictures", lambda *_: pytest.fail("a picture was read"))
    images = root / "food-101" / "images"
    shutil.rmtree(images / "waffles")
    with pytest.raises(ValueError, match=r"images/waffles/100013.jpg is missing, .*train.json lists it"):
        _load(root)
    assert len(data.food101.listing(str(root), classes=2).test.paths) == 2 * TEST
    (images / "baklava" / "100020.jpg").unlink()
    (root / "food-101" / "meta" / "test.json").unlink()
    with pytest.raises(ValueError, match=r"baklava/100020.jpg is missing, .*test.txt lists it in line 2"):
        _load(root, classes=2)


def _edit(root: Path, name: str, change: Any) -> None:
    file = root / "food-101" / "meta" / name
    if name.endswith(".json"):
        entries = json.loads(file.read_text())
        change(entries)
        file.write_text(json.dumps(entries))
    else:
        for other in ("train.json", "test.json"):
            (file.parent / other).unlink()
        lines = file.read_text().splitlines()
        change(lines)
        file.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "train.json",
            lambda e: e["waffles"].append("baklava/100001"),
            r"train.json: waffles/ID was expected in the list of 'waffles', got",
        ),
        ("train.json", lambda e: e["waffles"].append("waffles/../baklava/100001"), "waffles/ID was expected"),
        ("train.json", lambda e: e["waffles"].append("waffles/.."), "waffles/ID was expected"),
        ("train.json", lambda e: e["waffles"].append(7), "waffles/ID was expected in the list of 'waffles', got '7'"),
        ("train.json", lambda e: e.update(waffles="x"), "train.json must hold a list of pictures for every class"),
        (
            "train.json",
            lambda e: e["waffles"].append("waffles/100013"),
            r"waffles/100013.jpg is listed twice: .*train.json lists it, .*train",
        ),
        (
            "test.json",
            lambda e: e["waffles"].append("waffles/100013"),
            r"100013.jpg is listed twice: .*train.json lists it, .*test.json lists",
        ),
        ("test.txt", lambda lines: lines.append(lines[0]), r"listed twice: .*test.txt lists it in line 1, .*test.txt lists it in line 7"),
        ("test.txt", lambda lines: lines.append("waffles/100013"), r"listed twice: .*train.txt lists it in line 13, .*test.txt .* line 7"),
        ("test.txt", lambda lines: lines.insert(2, "waffles"), "test.txt, line 3: CLASS/ID was expected, got 'waffles'"),
        ("test.txt", lambda lines: lines.insert(2, "../x/1"), "test.txt, line 3: CLASS/ID was expected"),
        ("test.json", lambda e: e.update(pie=["pie/1"]), r"class 'pie' has no training pictures, .*test.json lists it"),
        ("test.json", lambda e: e.clear(), "food101: test has no pictures"),
        ("train.json", lambda e: e.update(waffles=[]), r"class 'waffles' has no training pictures, .*classes.txt lists it in line 3"),
        ("train.json", lambda e: e.update(waffles=["waffles/100013"]), r"class waffles has 1 training picture\(s\), at least 2"),
        ("train.json", lambda e: e.clear(), "class 'apple_pie' has no training pictures"),
    ],
)
def test_wrong_lists(root: Path, name: str, change: Any, message: str) -> None:
    _edit(root, name, change)
    with pytest.raises(ValueError, match=message):
        _load(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xd8\xff\xe0", "train.json cannot be read: 'utf-8'"),
        (b"{", "train.json is not JSON"),
        (b"[" * 100_000, "train.json is not JSON"),
        (b"[1, 2]", "train.json must hold a list of pictures for every class"),
    ],
)
def test_files_that_are_no_lists(root: Path, content: bytes, message: str) -> None:
    (root / "food-101" / "meta" / "train.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _load(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes must be an integer >= 2"),
        ({"classes": 4}, "training pictures are of 3 classes, at least 4 were expected"),
        ({"train_size": 2}, "train_size must be at least one picture for each of the 3 classes"),
        ({"train_size": 18}, "train_size 18 takes"),
        ({"validation_fraction": 0.95}, "validation_fraction must be"),
        ({"size": 0}, "size must be an integer in"),
        ({"mode": "P"}, "mode must be one of 'L', 'RGB'"),
        ({"broken": True}, "broken must be one of 'fatal', 'skip'"),
        ({"download": "yes"}, "download must be True or False"),
        ({"seed": -1}, "seed must be"),
        ({"root": ""}, "root must be the name of a folder"),
    ],
)
def test_bad_options(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _load(root, **options)
    assert not isinstance(caught.value, data.MissingData)


def test_missing_files_say_where_they_are_to_be_had(root: Path, tmp_path: Path) -> None:
    with pytest.raises(data.MissingData, match=r"food-101/images and .*food-101/meta missing; pass download=True to fetch http.* \(5 GB\)"):
        _load(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for name in ("train.json", "train.txt"):
        (root / "food-101" / "meta" / name).unlink()
    with pytest.raises(data.MissingData, match=r"meta holds neither train.json nor train.txt; Food-101 is to be had from http"):
        _load(root)
    made = data.make_specimen("food101", size=20, mode="L")
    assert made is not None
    assert (made.in_shape, made.out_features) == ((20, 20), 101)


def _packed(root: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(root / "food-101", "food-101")
        link = tarfile.TarInfo("food-101/images/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    return stream.getvalue()


def test_the_archive_is_torchvisions() -> None:
    """Where it is and its checksum, as torchvision has them."""
    assert (_food101.URL, _food101.MD5) == (torchvision.datasets.Food101._URL, torchvision.datasets.Food101._MD5)


def test_the_archive_is_fetched_once(root: Path, publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked by its MD5, unpacked without its links; a second call asks for nothing."""
    content = _packed(root)
    publisher.files["food.tar.gz"] = content[:-1] + b"x"
    monkeypatch.setattr(_food101, "URL", f"{publisher.url}/food.tar.gz")
    monkeypatch.setattr(_food101, "MD5", hashlib.md5(content, usedforsecurity=False).hexdigest())
    with pytest.raises(ValueError, match=r"Food-101 from .* is damaged \(MD5 [0-9a-f]{32}, [0-9a-f]{32} was expected\)"):
        _load(tmp_path / "ours", download=True)
    assert not list((tmp_path / "ours").iterdir())
    publisher.files["food.tar.gz"] = content
    ours, theirs = _load(tmp_path / "ours", download=True), _load(root)
    assert torch.equal(ours.train.x, theirs.train.x)
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["food-101", "food-101.tar.gz"]
    assert not (tmp_path / "ours" / "food-101" / "images" / "link").exists()
    _load(tmp_path / "ours", download=True)
    assert publisher.asked == ["food.tar.gz"] * 2
    shutil.rmtree(tmp_path / "ours" / "food-101")
    (tmp_path / "ours" / "food-101.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"food-101.tar.gz is damaged .*: delete it to fetch it once more"):
        _load(tmp_path / "ours", download=True)
    assert not (tmp_path / "ours" / "food-101").exists()
