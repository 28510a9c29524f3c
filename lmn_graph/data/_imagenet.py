"""ImageNet-1K as its publisher or Kaggle packs it: lists and folders checked, only what is drawn decoded."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from ._listing import Broken, Listed, Listing, check_drawing, check_reading, draw_listing, listed, read_listing
from ._lists import Entry, Inventory, Place, names_in, numbered_lines, read_text, subfolders
from ._pictures import PictureEncoder, find_pictures
from ._specimen import specimen
from ._target import Target
from .base import DATASETS, MissingData, Splits

CLASSES = 1000
SOURCE = "https://www.image-net.org (folders) or the Kaggle competition imagenet-object-localization-challenge (its archive, unpacked)"


def _list(root: str, train_size: int | None, validation_fraction: float, classes: int | None, seed: int) -> Listing:
    """What is drawn of the pictures of ``imagenet``."""
    if not isinstance(root, (str, Path)) or not str(root):
        raise ValueError(f"root must be the name of a folder, got {root!r}")
    check_drawing(train_size=train_size, validation_fraction=validation_fraction, seed=seed, classes=classes)
    synsets, names, train, test = _listed(Path(root).expanduser(), classes)
    return draw_listing(
        "imagenet", train, test, names, called=synsets, train_size=train_size, validation_fraction=validation_fraction, seed=seed
    )


@DATASETS.register
@specimen(lambda options: _encoder(options["classes"] or CLASSES, options["size"], options["mode"]))
@listed(_list)
def imagenet(
    root: str = "data",
    *,
    size: int = 32,
    mode: Literal["L", "RGB"] = "L",
    broken: Broken = "fatal",
    memory: bool = True,
    train_size: int | None = None,
    validation_fraction: float = 0.05,
    classes: int | None = None,
    seed: int = 0,
) -> Splits:
    """ImageNet-1K, photographs of 1,000 classes: x float32 in [0, 1], [n, size, size] for mode "L", [n, 3, size, size] for "RGB".

    The publisher's validation pictures are the test split (the labels of its test pictures are not public). Pictures are stretched to the
    size. Either layout is recognised: folders train/SYNSET/*.JPEG and val/SYNSET/*.JPEG, or Kaggle's, the same in ILSVRC/Data/CLS-LOC with
    a flat val/*.JPEG. A flat val is read where it is, nothing being moved or copied: LOC_val_solution.csv says what a picture shows, or,
    where that is not there, the first box of ILSVRC/Annotations/CLS-LOC/val/*.xml. Where there is ILSVRC/ImageSets/CLS-LOC/train_cls.txt,
    the training pictures are those that it lists, else all in the folders. Classes are in the order of their synsets;
    LOC_synset_mapping.txt, where it is there, gives their names.

    Args:
        root: folder that holds one of the layouts.
        size: height and width in pixels.
        mode: "L" (grey) or "RGB".
        broken: what a picture that cannot be read is: "fatal", or for "skip" left out with a warning.
        memory: whether all pictures are decoded at once, into memory; else each when a batch asks for it.
        train_size: number of training pictures, the same for every class to within one; None: all that are not for validation.
        validation_fraction: share of the pictures drawn from the publisher's training ones, in (0, 0.9].
        classes: the first so many of the classes, at least 2; None: all.
        seed: seed of the choice of pictures.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, or a picture that cannot be read.
    """
    check_reading(size=size, mode=mode, broken=broken, memory=memory)
    return read_listing(_list(root, train_size, validation_fraction, classes, seed), size=size, mode=mode, broken=broken, memory=memory)


def _encoder(classes: int, size: int, mode: str) -> PictureEncoder:
    """That of the made-up rows."""
    return PictureEncoder(Target.classification("class", [f"class {i}" for i in range(classes)]), (size, size), mode)


def _listed(root: Path, classes: int | None) -> tuple[list[str], list[str], Listed, Listed]:
    """Synsets, class names, the publisher's training and validation pictures."""
    kaggle = root / "ILSVRC" / "Data" / "CLS-LOC"
    base = kaggle if kaggle.is_dir() else root
    missing = [str(base / part) for part in ("train", "val") if not (base / part).is_dir()]
    if missing:
        layouts = "root must hold train/SYNSET and val with pictures, or Kaggle's ILSVRC/Data/CLS-LOC"
        raise MissingData(f"root {str(root)!r}: {' and '.join(missing)} is missing; {layouts}; ImageNet-1K is to be had from {SOURCE}")
    synsets = subfolders(base / "train")
    if len(synsets) < (classes or 2):
        wanted = "two" if classes is None else f"classes = {classes}"
        raise ValueError(f"{base / 'train'} holds {len(synsets)} class folders, at least {wanted} were expected")
    synsets = synsets[:classes]
    lines = root / "ILSVRC" / "ImageSets" / "CLS-LOC" / "train_cls.txt"
    by_list = base is kaggle and lines.is_file()
    train = Inventory(base / "train").take(_train_lines(lines), synsets) if by_list else _folders(base / "train", synsets)
    sorted_in = not set(synsets).isdisjoint(subfolders(base / "val"))
    test = _folders(base / "val", synsets) if sorted_in else Inventory(base / "val").take(_val_labels(root), synsets)
    for split, where in ((train, base / "train"), (test, base / "val")):
        counts = np.bincount(split.labels, minlength=len(synsets))
        if counts.min() < 1:
            raise ValueError(f"{where} holds no pictures of class {synsets[int(counts.argmin())]}")
    return synsets, _names(root / "LOC_synset_mapping.txt", synsets), train, test


def _folders(folder: Path, synsets: list[str]) -> Listed:
    found = [(path, number) for number, synset in enumerate(synsets) for path in find_pictures(folder / synset)]
    return Listed([path for path, _ in found], np.array([number for _, number in found], dtype=np.int64))


def _train_lines(file: Path) -> Iterator[Entry]:
    """What train_cls.txt lists: lines "n01440764/n01440764_10026 1"."""
    for line, text in numbered_lines(file):
        found = re.fullmatch(r"(n[^/\\]+)/([^/\\]+)", text.split(maxsplit=1)[0])
        if found is None:
            raise ValueError(f"{file}, line {line}: SYNSET/PICTURE was expected, got {text[:60]!r}")
        synset = sys.intern(found[1])
        yield Entry(Place(file, line), synset, f"{found[2]}.JPEG", synset)


def _val_labels(root: Path) -> Iterator[Entry]:
    """What the pictures of a flat folder val/ show, by their list or else by their annotations."""
    file, boxes = root / "LOC_val_solution.csv", root / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    if not file.is_file() and not boxes.is_dir():
        raise MissingData(f"{file} is missing; ImageNet-1K is to be had from {SOURCE}")
    return _solution(file) if file.is_file() else _annotations(boxes)


def _solution(file: Path) -> Iterator[Entry]:
    """Rows of LOC_val_solution.csv: ImageId and PredictionString, "n01978287 240 170 272 202 …"."""
    rows = csv.reader(read_text(file).split("\n"))
    try:
        if next(rows, [])[:2] != ["ImageId", "PredictionString"]:
            raise ValueError(f"{file}, line 1: ImageId,PredictionString was expected")
        for line, row in enumerate(rows, 2):
            if not row:
                continue
            if len(row) < 2 or re.fullmatch(r"[^/\\]+", row[0].strip()) is None or not row[1].strip():
                raise ValueError(f"{file}, line {line}: a picture and its synset were expected, got {','.join(row)[:60]!r}")
            yield Entry(Place(file, line), "", f"{row[0].strip()}.JPEG", row[1].split()[0])
    except csv.Error as error:
        raise ValueError(f"{file}, line {rows.line_num}: {error}") from error


def _annotations(folder: Path) -> Iterator[Entry]:
    """The first box of every .xml file, by name."""
    for name in names_in(folder):
        if name.endswith(".xml"):
            file = folder / name
            yield Entry(Place(file, words="is its annotation"), "", f"{name.removesuffix('.xml')}.JPEG", _first_box(file))


def _first_box(file: Path) -> str:
    """What the first <object> is; a file that defines anything, as entities that grow do, is refused."""
    text = read_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{file} holds a document type definition, an annotation was expected")
    try:
        found = ElementTree.fromstring(text).findtext("object/name", "").strip()
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is not XML: {error}") from error
    if not found:
        raise ValueError(f"{file} holds no <object> with a <name>")
    return found


def _names(file: Path, synsets: list[str]) -> list[str]:
    """Names from lines "n01440764 tench, Tinca tinca", the synset added where two classes have one name; without the file the synsets."""
    if not file.is_file():
        return synsets
    words = dict(line.split(maxsplit=1) for _, line in numbered_lines(file) if len(line.split(maxsplit=1)) == 2)
    names = [words.get(synset, synset).strip() for synset in synsets]
    return [f"{name} ({synset})" if names.count(name) > 1 else name for name, synset in zip(names, synsets)]
