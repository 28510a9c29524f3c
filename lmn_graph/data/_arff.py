"""ARFF tables: attributes read by scipy, rows here, so that every complaint has the line of the file."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topologies._delimited import not_text

from ._csv import ENDINGS, MISSING, CsvFile, read
from .base import existing

ARFF_ENDINGS = (".arff", ".arff.gz")
TABLE_ENDINGS = (*ENDINGS, *ARFF_ENDINGS)
# A field in either kind of quotes, with backslashes before quotes, or bare; then the mark between fields, or the end.
_FIELD = r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^{mark}]*))\s*(?:{mark}|$)"""


@dataclass(frozen=True)
class ArffFile(CsvFile):
    """An ARFF file as columns: numeric attributes float64, nominal ones text (and so named in ``nominal``).

    Args:
        starts: line of each row.
    """

    starts: tuple[int, ...] = ()

    @property
    def lines(self) -> list[int]:
        """Line of each row."""
        return list(self.starts)


@dataclass(frozen=True)
class _Attribute:
    """One declared column; ``words`` are the declared values of a nominal one, None for numbers."""

    name: str
    words: frozenset[str] | None


def read_table(path: str | Path, *, separator: str | None = None, text: Collection[str] = ()) -> CsvFile:
    """Read a table of either kind: see ``read`` and, where the name ends in .arff (.gz too), ``read_arff``."""
    if not str(path).lower().endswith(ARFF_ENDINGS):
        return read(path, separator=separator, text=text)
    return read_arff(path, text=text)


def read_arff(path: str | Path, *, text: Collection[str] = ()) -> ArffFile:
    """Read an ARFF file (.gz too).

    Missing values are ?, and for numbers whatever is missing in a .csv file.

    Args:
        path: UTF-8 text; compressed if the name ends in ".gz".
        text: columns kept as text though they are numeric; names not in the file are passed over.

    Raises:
        ValueError: naming the file, the line, and the attribute that is of another type or has a wrong value.
    """
    import pandas

    found = existing(path)
    if found.is_dir():
        raise ValueError(f"{found} is a folder, an ARFF file was expected")
    lines = _lines(found)
    attributes = _header(found, lines)
    rows, starts = _rows(found, lines, [attribute.name for attribute in attributes])
    if not rows:
        raise ValueError(f"{found} has attributes but no rows")
    columns: dict[str, Any] = {}
    for attribute, words in zip(attributes, zip(*rows)):
        if attribute.words is not None:
            columns[attribute.name] = _nominal(found, attribute, words, starts)
        elif attribute.name in text:
            columns[attribute.name] = np.array([None if word in MISSING else word for word in words], dtype=object)
        else:
            columns[attribute.name] = _numeric(found, attribute, words, starts)
    nominal = frozenset(attribute.name for attribute in attributes if attribute.words is not None)
    return ArffFile(found, ",", list(columns), pandas.DataFrame(columns), nominal, tuple(starts))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without those that are blank or comments."""
    zipped = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if zipped else open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                stripped = line.strip()
                if stripped and not stripped.startswith("%"):
                    yield number, stripped
    except UnicodeDecodeError as error:
        raise not_text(path) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _header(path: Path, lines: Iterator[tuple[int, str]]) -> list[_Attribute]:
    """The attributes, up to the line @data."""
    attributes: list[_Attribute] = []
    for number, line in lines:
        word = line.split(maxsplit=1)[0].lower()
        if word == "@data":
            if not attributes:
                raise ValueError(f"{path}, line {number}: no @attribute before @data")
            return attributes
        if word == "@attribute":
            attribute = _attribute(f"{path}, line {number}", line)
            if attribute.name in [each.name for each in attributes]:
                raise ValueError(f"{path}, line {number}: the attribute {attribute.name!r} is there twice")
            attributes.append(attribute)
        elif word != "@relation":
            raise ValueError(f"{path}, line {number}: @relation, @attribute or @data was expected, got {line[:60]!r}")
    raise ValueError(f"{path} has no line @data: it is not an ARFF file, or cut off")


def _attribute(where: str, line: str) -> _Attribute:
    from scipy.io import arff

    if line.split()[-1].lower() == "relational":  # its own attributes stand on the lines that follow
        raise ValueError(f"{where}: the attribute {line.split()[1]!r} is of type relational; only numeric and nominal ones can be read")
    try:
        _, meta = arff.loadarff(io.StringIO(f"@relation one\n{line}\n@data\n"))
        (name,), (kind,) = meta.names(), meta.types()
    except NotImplementedError:
        kind, name = "string", line.split()[1]
    except (arff.ArffError, csv.Error, ValueError, IndexError) as error:
        raise ValueError(f"{where}: {line[:80]!r} is not an attribute that can be read: {error}") from error
    name = name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"" else name
    if kind == "numeric":
        return _Attribute(name, None)
    if kind != "nominal":
        raise ValueError(f"{where}: the attribute {name!r} is of type {kind}; only numeric and nominal ones can be read")
    words = _fields(line[line.index("{") + 1 : line.rindex("}")], ",")
    if words is None:
        raise ValueError(f"{where}: quotes are not paired in the values of the attribute {name!r}")
    return _Attribute(name, frozenset(words))


def _rows(path: Path, lines: Iterator[tuple[int, str]], names: list[str]) -> tuple[list[list[str]], list[int]]:
    """Fields of every row and the line of each."""
    rows: list[list[str]] = []
    starts: list[int] = []
    mark = ","
    for number, line in lines:
        if line.startswith("{"):
            raise ValueError(f"{path}, line {number}: sparse rows in braces cannot be read; write every value of a row")
        if not rows and "," not in line and "\t" in line:
            mark = "\t"
        fields = _fields(line, mark)
        if fields is None:
            raise ValueError(f"{path}, line {number}: quotes are not paired")
        if len(fields) != len(names):
            raise ValueError(f"{path}, line {number}: {len(fields)} values, {len(names)} attributes are declared")
        rows.append(fields)
        starts.append(number)
    return rows, starts


def _fields(line: str, mark: str) -> list[str] | None:
    """The fields of a line without their quotes, or None where quotes are not paired."""
    if "'" not in line and '"' not in line:
        return [field.strip() for field in line.split(mark)]
    pattern = re.compile(_FIELD.replace("{mark}", mark))
    fields, place = [], 0
    while True:
        match = pattern.match(line, place)
        if match is None or (bare := (match[3] or "").strip()).startswith(("'", '"')):
            return None
        quoted = match[1] if match[1] is not None else match[2]
        fields.append(bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        place = match.end()
        if place == len(line):
            return [*fields, ""] if line.endswith(mark) and match[0].endswith(mark) else fields


def _nominal(path: Path, attribute: _Attribute, words: tuple[str, ...], starts: list[int]) -> np.ndarray:
    known = attribute.words or frozenset()
    column = [None if word in ("?", "") and word not in known else word for word in words]
    for start, word in zip(starts, column):
        if word is not None and word not in known:
            some = ", ".join(sorted(known)[:10]) + (", …" if len(known) > 10 else "")
            raise ValueError(f"{path}, line {start}: the attribute {attribute.name!r} must be one of {some}; got {word!r}")
    return np.array(column, dtype=object)


def _numeric(path: Path, attribute: _Attribute, words: tuple[str, ...], starts: list[int]) -> np.ndarray:
    import pandas

    lost = np.array([word in MISSING for word in words])
    column = pandas.Series(words, dtype=object).mask(lost)
    values = pandas.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values) & ~lost
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{path}, line {starts[row]}: the attribute {attribute.name!r} must be a finite number, got {words[row]!r}")
    return values
