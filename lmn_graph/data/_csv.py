"""Delimited text read by pandas, with the line number of the file for every complaint."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topologies._delimited import not_text, rows_of

from ._target import is_number
from .base import existing

if TYPE_CHECKING:
    import pandas

MISSING = ("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "nan", "NaN", "NAN", "-nan", "-NaN", "null", "NULL", "None")
MISSING_TEXT = ("", "?", "NA", "N/A", "nan", "NaN", "<NA>")  # "None" and "null" are usual class names
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


@dataclass(frozen=True)
class CsvFile:
    """A file and its rows as columns; row r of the frame begins at ``lines[r]`` of the file.

    ``nominal`` are the columns whose values the file itself declares to be names.
    """

    path: Path
    separator: str
    header: list[str]
    frame: pandas.DataFrame
    nominal: frozenset[str] = frozenset()

    @cached_property
    def lines(self) -> list[int]:
        """Line on which each row begins; blank lines and line breaks within quotes are counted."""
        lines = [line for line, _ in rows_of(self.path, self.separator, strict=False)][1:]
        if len(lines) != len(self.frame):
            raise ValueError(f"{self.path}: quotes are not paired, the rows cannot be told apart")
        return lines

    def where(self, row: int) -> str:
        """The start of a message about a row."""
        return f"{self.path}, line {self.lines[row]}"

    def words(self, name: str) -> np.ndarray:
        """A column as text, object [n]; "" where a value is missing."""
        column = self.frame[name]
        return np.array(["" if lost else str(value).strip() for value, lost in zip(column, column.isna())], dtype=object)


def read(path: str | Path, *, separator: str | None = None, text: Collection[str] = ()) -> CsvFile:
    """Read a table whose first line names the columns.

    Args:
        path: UTF-8 text; compressed if the name ends in ".gz".
        separator: one character; None: a tab for .tsv, else a comma.
        text: columns kept as text whatever they hold; names not in the file are passed over.

    Raises:
        ValueError: naming the file and, where there is one, the line.
    """
    import pandas

    found = existing(path)
    if found.is_dir():
        raise ValueError(f"{found} is a folder, a text file was expected")
    if separator is not None and (not isinstance(separator, str) or len(separator) != 1):
        raise ValueError(f"separator must be one character, got {separator!r}")
    mark = separator or ("\t" if found.name.lower().endswith((".tsv", ".tsv.gz")) else ",")
    header = read_header(found, mark)
    try:
        frame = pandas.read_csv(
            found,
            sep=mark,
            header=0,
            names=header,
            encoding="utf-8-sig",
            compression="gzip" if found.suffix.lower() == ".gz" else None,
            skipinitialspace=True,
            low_memory=False,
            dtype={name: str for name in header if name in text},
            keep_default_na=False,
            na_values={name: list(MISSING_TEXT if name in text else MISSING) for name in header},
        )
    except pandas.errors.ParserError as error:
        _check_widths(found, mark, header)
        raise ValueError(f"{found} cannot be read as a table: {error}") from error
    except UnicodeDecodeError as error:
        raise not_text(found) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{found} cannot be read: {error}") from error
    if not isinstance(frame.index, pandas.RangeIndex) or frame[header[-1]].isna().any():
        _check_widths(found, mark, header)  # a longer row becomes an index, a shorter one is filled with missing values
    if frame.empty:
        raise ValueError(f"{found} has column names but no rows")
    return CsvFile(found, mark, header, frame)


def read_header(path: Path, separator: str) -> list[str]:
    """Column names; a nameless one (the row index that pandas writes) is called "unnamed column i"."""
    line, header = next(rows_of(path, separator, strict=False), (0, []))
    if not header:
        raise ValueError(f"{path} is empty")
    names = [name.strip() or f"unnamed column {i}" for i, name in enumerate(header, 1)]
    if all(is_number(name) for name in names):
        raise ValueError(f"{path}, line {line}: column names were expected, got the numbers {', '.join(names[:5])}")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}, line {line}: the column {name!r} is there {names.count(name)} times")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise ValueError(f"{path}, line {line}: one column {names[0]!r}; give the character between the columns as separator")
    return names


def _check_widths(path: Path, separator: str, header: list[str]) -> None:
    for line, row in rows_of(path, separator, strict=False):
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} fields, the header names {len(header)}")
