"""Food-101 in the publisher's layout, which is torchvision's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from . import _numeric as numeric
from ._download import check_md5, unpack
from ._download import download as fetch
from ._listing import Broken, Listing, check_drawing, check_reading, draw_listing, listed, read_listing
from ._lists import Entry, Inventory, Place, numbered_lines, read_text
from ._pictures import PictureEncoder
from ._specimen import specimen
from ._target import Target
from .base import DATASETS, MissingData, Splits

CLASSES = 101
URL = "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"
MD5 = "85eeb15f3717b99a5da872d97d918f87"
VOLUME = "5 GB"
ENTRY = re.compile(r"([^./\\][^/\\]*)/([^./\\][^/\\]*)")


def _list(root: str, classes: int | None, train_size: int | None, validation_fraction: float, download: bool, seed: int) -> Listing:
    """What is drawn of the pictures of ``food101``."""
    numeric.check_source(root, download)
    check_drawing(train_size=train_size, validation_fraction=validation_fraction, seed=seed, classes=classes)
    base = _located(Path(root).expanduser(), download)
    lists = [list(_entries(base / "meta", split)) for split in ("train", "test")]
    names = sorted({entry.kind for entry in lists[0]})
    _check_classes(base / "meta", names, lists[1])
    if len(names) < (classes or 2):
        raise ValueError(f"{base / 'meta'}: the training pictures are of {len(names)} classes, at least {classes or 2} were expected")
    names = names[:classes]
    inventory = Inventory(base / "images")
    train, test = (inventory.take(entries, names) for entries in lists)
    return draw_listing("food101", train, test, names, train_size=train_size, validation_fraction=validation_fraction, seed=seed)


@DATASETS.register
@specimen(lambda options: _encoder(options["classes"] or CLASSES, options["size"], options["mode"]))
@listed(_list)
def food101(
    root: str = "data",
    *,
    size: int = 64,
    mode: Literal["L", "RGB"] = "RGB",
    broken: Broken = "fatal",
    memory: bool = True,
    classes: int | None = None,
    train_size: int | None = None,
    validation_fraction: float = 0.1,
    download: bool = False,
    seed: int = 0,
) -> Splits:
    """Food-101, 101,000 photographs of dishes: x float32 in [0, 1], [n, 3, size, size], or [n, size, size] for mode "L".

    The layout is the publisher's and torchvision's: root/food-101/images/CLASS/ID.jpg with lists meta/train.json and meta/test.json, or
    .txt with lines CLASS/ID. The publisher's test pictures are the test split. Classes are in alphabetical order.

    Args:
        root: folder that holds (or gets, with download) food-101.
        size: height and width in pixels.
        mode: "L" (grey) or "RGB".
        broken: what a picture that cannot be read is: "fatal", or for "skip" left out with a warning.
        memory: whether all pictures are decoded at once, into memory; else each when a batch asks for it.
        classes: the first so many of the classes, at least 2; None: all.
        train_size: number of training pictures, the same for every class to within one; None: all that are not for validation.
        validation_fraction: share of the pictures drawn from the publisher's training ones, in (0, 0.9].
        download: fetch the publisher's archive if the folder is not there, check and unpack it; otherwise nothing is fetched.
        seed: seed of the choice of pictures.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, the list and its line, or the picture.
    """
    check_reading(size=size, mode=mode, broken=broken, memory=memory)
    listing = _list(root, classes, train_size, validation_fraction, download, seed)
    return read_listing(listing, size=size, mode=mode, broken=broken, memory=memory)


def _encoder(classes: int, size: int, mode: str) -> PictureEncoder:
    """That of the made-up rows."""
    return PictureEncoder(Target.classification("class", [f"class {i}" for i in range(classes)]), (size, size), mode)


def _located(root: Path, download_it: bool) -> Path:
    """The folder food-101, fetched if it is not there and that is asked for."""
    base, archive = root / "food-101", root / "food-101.tar.gz"
    if not base.is_dir() and download_it:
        if not archive.is_file():
            fetch(URL, archive, what="Food-101", check=check_md5(MD5))
        unpack(archive, base)
    missing = [str(base / part) for part in ("images", "meta") if not (base / part).is_dir()]
    if missing:
        hint = f"pass download=True to fetch {URL} ({VOLUME}), or root=, the folder that holds food-101"
        raise MissingData(f"root {str(root)!r}: {' and '.join(missing)} missing; {hint}")
    return base


def _entries(meta: Path, split: str) -> Iterator[Entry]:
    """What a list names: train.json or, where that is not there, train.txt."""
    file = meta / f"{split}.json"
    if file.is_file():
        for name, entries in _read_json(file).items():
            for entry in entries:
                found = ENTRY.fullmatch(entry) if isinstance(entry, str) else None
                if found is None or found[1] != name:
                    raise ValueError(f"{file}: {name}/ID was expected in the list of {name!r}, got {str(entry)[:60]!r}")
                yield Entry(Place(file), name, f"{found[2]}.jpg", name)
        return
    file = meta / f"{split}.txt"
    if not file.is_file():
        raise MissingData(f"{meta} holds neither {split}.json nor {split}.txt; Food-101 is to be had from {URL}")
    for line, text in numbered_lines(file):
        found = ENTRY.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{file}, line {line}: CLASS/ID was expected, got {text[:60]!r}")
        yield Entry(Place(file, line), found[1], f"{found[2]}.jpg", found[1])


def _read_json(file: Path) -> dict[str, list[object]]:
    """Lists by class."""
    try:
        found = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(entries, list) for entries in found.values()):
        raise ValueError(f"{file} must hold a list of pictures for every class")
    return found


def _check_classes(meta: Path, trained: list[str], test: list[Entry]) -> None:
    """Refuse a class of classes.txt or of the test list that no training picture is of."""
    file = meta / "classes.txt"
    named = [(Place(file, line), text.strip()) for line, text in numbered_lines(file)] if file.is_file() else []
    known = set(trained)
    for place, name in [*named, *((entry.place, entry.kind) for entry in test)]:
        if name not in known:
            raise ValueError(f"class {name!r} has no training pictures, {place}")
