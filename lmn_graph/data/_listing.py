"""Picture files of the three splits, listed before one of them is decoded, and how they become rows."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from lmn_graph._warning import warn
from topologies import _checks
from topologies._graph import refuse_without_memory

from ._pictures import MODES, PictureEncoder, decode, read_pictures, read_what_can_be_read
from ._rows import FileRows
from ._splitting import draw_balanced
from ._target import Target
from .base import Split, Splits

Broken = Literal["fatal", "skip"]

F = TypeVar("F", bound=Callable[..., Splits])


class Listed(NamedTuple):
    """Pictures and the number of the class of each: n paths, labels int64 [n]."""

    paths: list[Path]
    labels: np.ndarray

    def at(self, rows: np.ndarray) -> Listed:
        """The pictures of these rows, in their order."""
        return Listed([self.paths[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class Listing:
    """A dataset of picture files that nobody has opened yet.

    Args:
        name: the dataset's name, or the user's folder.
        train, validation, test: files and class numbers.
        target: the classes.

    Raises:
        ValueError: if a split is empty or has labels that are no class numbers, naming the split.
    """

    name: str
    train: Listed
    validation: Listed
    test: Listed
    target: Target

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            paths, labels = getattr(self, part)
            if not paths:
                raise ValueError(f"{self.name}: {part} has no pictures")
            if labels.dtype != np.int64 or labels.shape != (len(paths),):
                raise ValueError(f"{self.name}: {part} labels must be int64 [{len(paths)}], got {labels.dtype} {list(labels.shape)}")
            if labels.min() < 0 or labels.max() >= self.target.out_features:
                classes = self.target.out_features
                raise ValueError(f"{self.name}: {part} labels must be in 0 … {classes - 1}, got {labels.min()} … {labels.max()}")


def listed(lister: Callable[..., Listing]) -> Callable[[F], F]:
    """Decorator of a dataset of picture files: ``dataset.listing(**options)`` is its ``Listing``, no picture being opened.

    It takes every option of the dataset; those that ``lister`` does not have (size, mode and whatever else is about reading) are of no
    effect. ::

        @DATASETS.register
        @listed(_list)
        def pets(root: str = "data", *, size: int = 64, mode: str = "RGB", broken: Broken = "fatal", seed: int = 0) -> Splits:
            check_reading(size=size, mode=mode, broken=broken)
            return read_listing(_list(root, seed), size=size, mode=mode, broken=broken)

    Args:
        lister: from options, called as the dataset calls them, to the listing; it checks them and raises as the dataset does.
    """

    def mark(dataset: F) -> F:
        signature = inspect.signature(dataset)
        taken = inspect.signature(lister).parameters

        @functools.wraps(lister)
        def listing(*args: Any, **options: Any) -> Listing:
            given = signature.bind(*args, **options)
            given.apply_defaults()
            return lister(**{name: value for name, value in given.arguments.items() if name in taken})

        dataset.listing = listing  # type: ignore[attr-defined]
        return dataset

    return mark


def check_drawing(*, train_size: int | None, validation_fraction: float, seed: int, classes: int | None = None) -> None:
    """Refuse options of ``draw_listing`` that are wrong, before files are looked for; ``classes`` where only so many are taken."""
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    if classes is not None:
        _checks.integer("classes", classes, minimum=2)
    if train_size is not None:
        _checks.integer("train_size", train_size, minimum=classes or 2)
    _checks.integer("seed", seed, minimum=0)


def draw_listing(
    name: str,
    train: Listed,
    test: Listed,
    classes: Sequence[str],
    *,
    train_size: int | None,
    validation_fraction: float,
    seed: int,
    called: Sequence[str] | None = None,
) -> Listing:
    """The listing of a dataset whose test pictures are given: training and validation pictures are drawn from ``train``, class by class.

    Args:
        name: the dataset's.
        train, test: the publisher's.
        classes: class names in the order of their numbers.
        train_size: number of training pictures, the same for every class to within one; None: all that are not for validation.
        validation_fraction: share of the drawn pictures that are for validation, in (0, 0.9].
        seed: seed of the choice.
        called: what messages call the classes; None: by their names.

    Raises:
        ValueError: naming a class that has too few pictures.
    """
    kept, held = draw_balanced(train.labels, called or classes, train_size, validation_fraction, np.random.default_rng(seed))
    return Listing(name, train.at(kept), train.at(held), test, Target.classification("class", classes))


def check_reading(*, size: int, mode: str, broken: str, memory: bool = True) -> None:
    """Refuse options of ``read_listing`` that are wrong, before files are looked for."""
    _checks.integer("size", size, minimum=1, maximum=4096)
    _checks.choice("mode", mode, MODES)
    _checks.choice("broken", broken, ("fatal", "skip"))
    _checks.flag("memory", memory)


def read_listing(listing: Listing, *, size: int, mode: str, broken: Broken = "fatal", memory: bool = True) -> Splits:
    """The pictures as rows: x float32 in [0, 1], [n, size, size] for mode "L", [n, 3, size, size] for "RGB".

    Args:
        listing: the files.
        size: height and width in pixels.
        mode: "L" (grey) or "RGB".
        broken: a picture that cannot be read is an error for "fatal"; for "skip" it is left out, and a warning and the name of the splits
            say how many there were.
        memory: whether they are decoded at once, into memory; else ``FileRows`` decode every picture whenever it is asked for. What is
            broken is then noticed late, unless it is skipped: that takes a look at every picture first.

    Raises:
        ValueError: naming the argument, or the picture; if the rows do not fit into memory; or if nothing is left of a split, or of a
            class's training pictures.
    """
    check_reading(size=size, mode=mode, broken=broken, memory=memory)
    if not memory:
        return _read_later(listing, (size, size), mode, broken)
    parts = (listing.train, listing.validation, listing.test)
    count = sum(len(part.paths) for part in parts)
    needed = 4 * count * size * size * (1 if mode == "L" else 3)
    refuse_without_memory(f"{count} pictures of {listing.name} with size={size}, mode={mode!r}", needed)
    encoder = PictureEncoder(listing.target, (size, size), mode)
    if broken == "fatal":
        train, validation, test = (Split(read_pictures(p.paths, (size, size), mode), torch.from_numpy(p.labels)) for p in parts)
        return Splits(listing.name, train, validation, test, encoder)
    read = [read_what_can_be_read(part.paths, (size, size), mode) for part in parts]
    name = left_out(listing, [part.labels[rows] for part, (_, rows, _) in zip(parts, read)], [error for *_, error in read if error])
    train, validation, test = (Split(x, torch.from_numpy(part.labels[rows])) for part, (x, rows, _) in zip(parts, read))
    return Splits(name, train, validation, test, encoder)


def read_first(listing: Listing, count: int, *, size: int, mode: str, broken: Broken = "fatal", memory: bool = True) -> Splits:
    """``read_listing`` of the first pictures of every split, for "skip" the first that can be read; the classes stay what they are."""

    def first(part: Listed) -> Listed:
        rows = range(len(part.paths))
        whole = rows if broken == "fatal" else (row for row in rows if not decode([part.paths[row]], (size, size), mode, skip=True)[2])
        return part.at(np.fromiter(itertools.islice(whole, count), np.int64))

    few = dataclasses.replace(listing, train=first(listing.train), validation=first(listing.validation), test=first(listing.test))
    return read_listing(few, size=size, mode=mode, memory=memory)


def _read_later(listing: Listing, size: tuple[int, int], mode: str, broken: Broken) -> Splits:
    parts, name = [listing.train, listing.validation, listing.test], listing.name
    if broken == "skip":
        errors = [[decode([path], size, mode, skip=True)[2] for path in part.paths] for part in parts]
        kept = [np.array([row for row, error in enumerate(each) if not error], dtype=np.int64) for each in errors]
        name = left_out(
            listing, [part.labels[rows] for part, rows in zip(parts, kept)], [error for each in errors for error in each if error]
        )
        parts = [part.at(rows) for part, rows in zip(parts, kept)]
    train, validation, test = (Split(FileRows(part.paths, size, mode), torch.from_numpy(part.labels)) for part in parts)
    return Splits(name, train, validation, test, PictureEncoder(listing.target, size, mode))


def left_out(listing: Listing, kept: Sequence[np.ndarray], errors: Sequence[str]) -> str:
    """Say how many pictures are left out, and refuse what is left if it is too little: the name of the splits.

    Args:
        listing: all pictures.
        kept: labels of those that are kept, of every split.
        errors: why others are not, the first one at least.
    """
    parts = (listing.train, listing.validation, listing.test)
    lost = sum(len(part.paths) - len(labels) for part, labels in zip(parts, kept))
    if not lost:
        return listing.name
    for split, part, labels in zip(("training", "validation", "test"), parts, kept):
        if not len(labels):
            raise ValueError(f"{listing.name}: none of the {len(part.paths)} {split} pictures can be read; the first: {errors[0]}")
    gone = np.setdiff1d(listing.train.labels, kept[0])
    if len(gone):
        name = (listing.target.classes or ())[gone[0]]
        count = int((listing.train.labels == gone[0]).sum())
        raise ValueError(f"{listing.name}: none of the {count} training picture(s) of class {name!r} can be read; the first: {errors[0]}")
    total = sum(len(part.paths) for part in parts)
    warn(f"{listing.name}: {lost} of {total} pictures cannot be read and are left out; the first: {errors[0]}")
    return f"{listing.name} ({lost} broken picture{'s' if lost > 1 else ''} left out)"
