"""ImageNet-1K as its publisher or Kaggle packs it: lists and folders checked, only what is drawn decoded."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from topologies import _checks

from ._listing import Broken, Listed, Listing, check_reading, listed, read_listing
from ._pictures import PictureEncoder, find_pictures
from ._specimen import specimen
from ._splitting import hold_out
from ._target import Target
from .base import DATASETS, MissingData, Splits

CLASSES = 1000
SOURCE = "https://www.image-net.org (folders) or the Kaggle competition imagenet-object-localization-challenge (its archive, unpacked)"


def _list(root: str, train_size: int | None, validation_fraction: float, classes: int | None, seed: int) -> Listing:
    """What is drawn of the pictures of ``imagenet``."""
    if not isinstance(root, (str, Path)) or not str(root):
        raise ValueError(f"root must be the name of a folder, got {root!r}")
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    if classes is not None:
        _checks.integer("classes", classes, minimum=2)
    if train_size is not None:
        _checks.integer("train_size", train_size, minimum=classes or 2)
    generator = np.random.default_rng(_checks.integer("seed", seed, minimum=0))
    synsets, names, train, test = _listed(Path(root).expanduser(), classes)
    kept, held = _draw(train, synsets, train_size, validation_fraction, generator)
    return Listing("imagenet", train.at(kept), train.at(held), test, Target.classification("class", names))


@DATASETS.register
@specimen(lambda options: _encoder(options["classes"] or CLASSES, options["size"], options["mode"]))
@listed(_list)
def imagenet(
    root: str = "data",
    *,
    size: int = 32,
    mode: Literal["L", "RGB"] = "L",
    broken: Broken = "fatal",
    train_size: int | None = None,
    validation_fraction: float = 0.05,
    classes: int | None = None,
    seed: int = 0,
) -> Splits:
    """ImageNet-1K, photographs of 1,000 classes: x float32 in [0, 1], [n, size, size] for mode "L", [n, 3, size, size] for "RGB".

    The publisher's validation pictures are the test split (the labels of its test pictures are not public). Pictures are stretched to the
    size and held in memory, so ask for what fits. Either layout is recognised: folders train/SYNSET/*.JPEG and val/SYNSET/*.JPEG, or
    Kaggle's, ILSVRC/Data/CLS-LOC/{train/SYNSET,val}/*.JPEG with ILSVRC/ImageSets/CLS-LOC/train_cls.txt and LOC_val_solution.csv.
    Where the latter is not there, the boxes say what a picture shows: ILSVRC/Annotations/CLS-LOC/val/*.xml. Classes are in the order of
    their synsets; LOC_synset_mapping.txt, where it is there, gives their names.

    Args:
        root: folder that holds one of the layouts.
        size: height and width in pixels.
        mode: "L" (grey) or "RGB".
        broken: what a picture that cannot be read is: "fatal", or for "skip" left out with a warning.
        train_size: number of training pictures, the same for every class to within one; None: all that are not for validation.
        validation_fraction: share of the pictures drawn from the publisher's training ones, in (0, 0.9].
        classes: the first so many of the classes, at least 2; None: all.
        seed: seed of the choice of pictures.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, or a picture that cannot be read.
    """
    check_reading(size=size, mode=mode, broken=broken)
    return read_listing(_list(root, train_size, validation_fraction, classes, seed), size=size, mode=mode, broken=broken)


def _encoder(classes: int, size: int, mode: str) -> PictureEncoder:
    """That of the made-up rows."""
    return PictureEncoder(Target.classification("class", [f"class {i}" for i in range(classes)]), (size, size), mode)


def _listed(root: Path, classes: int | None) -> tuple[list[str], list[str], Listed, Listed]:
    """Synsets, class names, the publisher's training and validation pictures."""
    kaggle = root / "ILSVRC" / "Data" / "CLS-LOC"
    base = kaggle if kaggle.is_dir() else root
    missing = [str(base / part) for part in ("train", "val") if not (base / part).is_dir()]
    if missing:
        layouts = "root must hold train/SYNSET and val/SYNSET with pictures, or Kaggle's ILSVRC/Data/CLS-LOC"
        raise MissingData(f"root {str(root)!r}: {' and '.join(missing)} is missing; {layouts}; ImageNet-1K is to be had from {SOURCE}")
    synsets = sorted(entry.name for entry in os.scandir(base / "train") if entry.is_dir() and not entry.name.startswith("."))
    if len(synsets) < (classes or 2):
        wanted = "two" if classes is None else f"classes = {classes}"
        raise ValueError(f"{base / 'train'} holds {len(synsets)} class folders, at least {wanted} were expected")
    synsets = synsets[:classes]
    if base is kaggle:
        train, test = _kaggle_train(root, kaggle, synsets), _kaggle_test(root, kaggle, synsets)
    else:
        train, test = _folders(root / "train", synsets), _folders(root / "val", synsets)
    for split, where in ((train, base / "train"), (test, base / "val")):
        counts = np.bincount(split.labels, minlength=len(synsets))
        if counts.min() < 1:
            raise ValueError(f"{where} holds no pictures of class {synsets[int(counts.argmin())]}")
    return synsets, _names(root / "LOC_synset_mapping.txt", synsets), train, test


def _folders(folder: Path, synsets: list[str]) -> Listed:
    found = [(path, number) for number, synset in enumerate(synsets) for path in find_pictures(folder / synset)]
    return Listed([path for path, _ in found], np.array([number for _, number in found], dtype=np.int64))


def _kaggle_train(root: Path, data: Path, synsets: list[str]) -> Listed:
    """What train_cls.txt lists: lines "n01440764/n01440764_10026 1"."""
    file = root / "ILSVRC" / "ImageSets" / "CLS-LOC" / "train_cls.txt"
    number = {synset: i for i, synset in enumerate(synsets)}
    paths, labels = [], []
    there = {synset: set(os.listdir(data / "train" / synset)) for synset in synsets}
    for line, text in enumerate(_text(file).splitlines(), 1):
        synset, slash, picture = text.split(maxsplit=1)[0].partition("/") if text.strip() else ("", "", "")
        if text.strip() and not (slash and picture and synset.startswith("n")):
            raise ValueError(f"{file}, line {line}: SYNSET/PICTURE was expected, got {text[:60]!r}")
        if synset not in number:
            continue
        path = data / "train" / synset / f"{picture}.JPEG"
        if path.name not in there[synset]:
            raise ValueError(f"{path} is missing, {file} lists it in line {line}")
        paths.append(path)
        labels.append(number[synset])
    return Listed(paths, np.array(labels, dtype=np.int64))


def _kaggle_test(root: Path, data: Path, synsets: list[str]) -> Listed:
    """The flat folder val/ by its list of labels, or by the annotations of its pictures."""
    file, boxes = root / "LOC_val_solution.csv", root / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    listed = _annotations(boxes) if boxes.is_dir() and not file.is_file() else _solution(file)
    number = {synset: i for i, synset in enumerate(synsets)}
    paths, labels = [], []
    there = set(os.listdir(data / "val"))
    for where, picture, synset in listed:
        if synset not in number:
            continue
        path = data / "val" / f"{picture}.JPEG"
        if path.name not in there:
            raise ValueError(f"{path} is missing, {where}")
        paths.append(path)
        labels.append(number[synset])
    return Listed(paths, np.array(labels, dtype=np.int64))


def _annotations(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(where it is listed, picture, synset of its first box) of every .xml file, by name."""
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".xml")):
        found = re.search(r"<object>\s*<name>\s*(\w+)\s*</name>", _text(folder / name))
        if found is None:
            raise ValueError(f"{folder / name} holds no <object> with a <name>")
        yield f"{folder / name} is its annotation", name.removesuffix(".xml"), found[1]


def _solution(file: Path) -> Iterator[tuple[str, str, str]]:
    """The same of LOC_val_solution.csv: ImageId and PredictionString, "n01978287 240 170 272 202 …"."""
    rows = csv.reader(_text(file).splitlines())
    if next(rows, [])[:2] != ["ImageId", "PredictionString"]:
        raise ValueError(f"{file}, line 1: ImageId,PredictionString was expected")
    for line, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise ValueError(f"{file}, line {line}: a picture and its synset were expected, got {','.join(row)[:60]!r}")
        yield f"{file} lists it in line {line}", row[0].strip(), row[1].split()[0]


def _names(file: Path, synsets: list[str]) -> list[str]:
    """Names from lines "n01440764 tench, Tinca tinca", the synset added where two classes have one name; without the file the synsets."""
    if not file.is_file():
        return synsets
    words = dict(line.split(maxsplit=1) for line in _text(file).splitlines() if len(line.split(maxsplit=1)) == 2)
    names = [words.get(synset, synset).strip() for synset in synsets]
    return [f"{name} ({synset})" if names.count(name) > 1 else name for name, synset in zip(names, synsets)]


def _text(file: Path) -> str:
    if not file.is_file():
        raise MissingData(f"{file} is missing; ImageNet-1K is to be had from {SOURCE}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _draw(
    train: Listed, synsets: list[str], train_size: int | None, fraction: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation."""
    counts = np.bincount(train.labels, minlength=len(synsets))
    if counts.min() < 2:
        small = int(counts.argmin())
        raise ValueError(f"class {synsets[small]} has {counts[small]} training picture(s), at least 2 are needed, one to validate with")
    rows = np.arange(len(train.labels))
    if train_size is None:
        return hold_out(rows, max(1, round(fraction * len(rows))), generator, train.labels)
    if train_size < len(synsets):
        raise ValueError(f"train_size must be at least one picture for each of the {len(synsets)} classes, got {train_size}")
    wanted = _shares(train_size, len(synsets), generator)
    held = _shares(max(len(synsets), round(train_size * fraction / (1 - fraction))), len(synsets), generator)
    short = wanted + held > counts
    if short.any():
        small = int(short.argmax())
        both = f"{wanted[small]} for training and {held[small]} for validation"
        raise ValueError(f"train_size {train_size} takes {both} from class {synsets[small]}, which has {counts[small]} pictures")
    kept_rows, held_rows = [], []
    for number in range(len(synsets)):
        order = generator.permutation(rows[train.labels == number])
        kept_rows.append(order[: wanted[number]])
        held_rows.append(order[len(order) - held[number] :])
    return generator.permutation(np.concatenate(kept_rows)), generator.permutation(np.concatenate(held_rows))


def _shares(total: int, groups: int, generator: np.random.Generator) -> np.ndarray:
    """``total`` in equal parts, the remainder one each to groups that are drawn."""
    shares = np.full(groups, total // groups)
    shares[generator.permutation(groups)[: total % groups]] += 1
    return shares
