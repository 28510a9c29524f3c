"""Rows of a delimited text file, each with the line of the file on which it begins."""

from __future__ import annotations

import csv
import difflib
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple


class Table(NamedTuple):
    """A file with a header: row r begins on line ``lines[r]``; ``cells`` are all fields, row by row."""

    path: Path
    columns: list[str]
    cells: list[str]
    lines: list[int]

    def where(self, row: int) -> str:
        """The start of a message about a row."""
        return f"{self.path}, line {self.lines[row]}"

    def column(self, name: str, argument: str) -> list[str]:
        """The fields of a column.

        Raises:
            ValueError: if there is none of this name: ``argument`` is where another could be given.
        """
        if name not in self.columns:
            found = ", ".join(map(repr, self.columns))
            raise ValueError(f"{self.path}: no column {name!r} ({argument}); the header has {found}{hint(name, self.columns)}")
        return self.cells[self.columns.index(name) :: len(self.columns)]


def read(path: Any, argument: str, delimiter: str) -> Table:
    """Read a table: UTF-8, with or without a byte order mark, any line ends, compressed if its name ends in ".gz".

    Blank lines are passed over; fields are stripped of blanks around them.

    Raises:
        ValueError: naming the file and, where there is one, the line.
    """
    if not isinstance(path, (str, Path)) or not str(path):
        raise ValueError(f"{argument} must be the path of a file, got {path!r}")
    if delimiter in ("\\t", "tab"):
        delimiter = "\t"
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter must be one character, got {delimiter!r}")
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"{argument} must be a file: {file} {'is a folder' if file.is_dir() else 'does not exist'}")
    rows = rows_of(file, delimiter)
    line, header = next(rows, (0, []))
    if not header:
        raise ValueError(f"{file} is empty: a header was expected")
    if header[0].startswith("#"):
        raise ValueError(
            f"{file}, line {line}: a header was expected, got {header[0]!r}: the first line must name the columns, without '#'"
        )
    for name in header:
        if header.count(name) > 1:
            raise ValueError(f"{file}, line {line}: the column {name!r} is there {header.count(name)} times")
    if len(header) == 1 and (other := next((mark for mark in ",;\t|" if mark in header[0]), None)):
        raise ValueError(f"{file}, line {line}: one column {header[0]!r}; perhaps delimiter={other!r}")
    found = Table(file, header, [], [])
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{file}, line {line}: {len(row)} fields where the header has {len(header)} ({', '.join(header)})")
        found.cells.extend(row)
        found.lines.append(line)
    return found


def hint(name: str, known: Sequence[str]) -> str:
    """``"; did you mean 'pre'?"``, or nothing where no name is close."""
    lowered = {option.lower(): option for option in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""


def rows_of(path: Path, delimiter: str, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """First line and fields of every row that is not blank; a line break within quotes is part of its row.

    ``strict`` refuses quotes that are not paired; otherwise what follows the last one is a row.
    """
    line = 1
    try:
        with _open(path) as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=strict)
            for row in reader:
                if len(row) > 1 or (row and row[0].strip()):
                    yield line, [field.strip() for field in row]
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise not_text(path) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}") from error


def _open(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def not_text(path: Path) -> ValueError:
    """The error of a file that is not UTF-8, with the first line that is not."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as file:
        for line, content in enumerate(file, 1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError as error:
                return ValueError(f"{path}, line {line}: not UTF-8 text ({error.reason})")
    return ValueError(f"{path} is not UTF-8 text")
