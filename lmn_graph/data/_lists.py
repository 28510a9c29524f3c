"""Publishers' lists of pictures: text that is text, every file there, none named twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """Where a picture is listed."""

    file: Path
    line: int = 0
    words: str = "lists it"

    def __str__(self) -> str:
        return f"{self.file} {self.words}" + (f" in line {self.line}" if self.line else "")


class Inventory:
    """Pictures as lists name them. Folders are read once, so that a list of a million files takes seconds."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Place | None]] = {}

    def add(self, path: Path, place: Place) -> None:
        """One more picture.

        Raises:
            ValueError: if there is no such file, or it has been added before; the lists and lines are named.
        """
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = dict.fromkeys(names_in(folder) if folder.is_dir() else ())
        there = self._folders[folder]
        if path.name not in there:
            raise ValueError(f"{path} is missing, {place}")
        if (first := there[path.name]) is not None:
            raise ValueError(f"{path} is listed twice: {first}, {place}")
        there[path.name] = place


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
