"""Publishers' lists of pictures: text that is text, every file there, none named twice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ._listing import Listed


class Place(NamedTuple):
    """Where a picture is listed."""

    file: Path
    line: int = 0
    words: str = "lists it"

    def __str__(self) -> str:
        return f"{self.file} {self.words}" + (f" in line {self.line}" if self.line else "")


class Entry(NamedTuple):
    """A picture as a list has it: its folder below those of all pictures, its name in there, its class."""

    place: Place
    folder: str
    picture: str
    kind: str


class Inventory:
    """Pictures that lists name: each is there, and is named once. Folders are read once, so that a million lines take seconds.

    Args:
        root: the folder of all pictures.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, tuple[Path, dict[str, Place | None]]] = {}

    def take(self, entries: Iterable[Entry], classes: Sequence[str]) -> Listed:
        """Those of the classes, numbered in their order; others are passed over.

        Raises:
            ValueError: if there is no such file, or it has been taken before; the lists and lines are named.
        """
        number = {name: i for i, name in enumerate(classes)}
        paths, labels = [], []
        for place, name, picture, kind in entries:
            if kind not in number:
                continue
            folder, there = self._folders.get(name) or self._read(name)
            if picture not in there:
                raise ValueError(f"{folder / picture} is missing, {place}")
            if (first := there[picture]) is not None:
                raise ValueError(f"{folder / picture} is listed twice: {first}, {place}")
            there[picture] = place
            paths.append(folder / picture)
            labels.append(number[kind])
        return Listed(paths, np.array(labels, dtype=np.int64))

    def _read(self, name: str) -> tuple[Path, dict[str, Place | None]]:
        folder = self._root / name
        self._folders[name] = folder, dict.fromkeys(names_in(folder) if folder.is_dir() else ())
        return self._folders[name]


def names_in(folder: Path) -> list[str]:
    """Names in a folder, sorted; one that cannot be read is a ValueError."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error


def subfolders(folder: Path) -> list[str]:
    """Folders in a folder that are not hidden, sorted."""
    return [name for name in names_in(folder) if not name.startswith(".") and os.path.isdir(folder / name)]


def read_text(file: Path) -> str:
    """A text in UTF-8, with or without a mark at its beginning; anything else is a ValueError."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def numbered_lines(file: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of every line of a text that is not blank."""
    return [(number, line) for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()]
