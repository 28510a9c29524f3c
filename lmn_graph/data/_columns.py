"""Columns of a table as numbers: what was fitted on the training rows, and nothing else, says how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ._arff import read_table
from ._csv import CsvFile
from ._target import LARGEST, moments
from .base import ENCODERS, Encoder, Inputs

MAX_CATEGORIES = 100
FEW_WORDS = 0.05
IDENTIFIER_ROWS = 20
KINDS = {"category": "categories", "boolean": "true and false"}


@dataclass(frozen=True)
class Column:
    """One column of the user's file.

    A number or boolean (0, 1) becomes z = (v − mean) / scale, with ln v for v if ``log``; a missing one z of ``fill``, followed by 1
    where it is missing if ``indicator``. A category becomes one 0/1 feature for each of ``categories`` and a last one for any other word
    or none.

    Args:
        name: column name.
        kind: "number", "boolean" or "category".
        mean, scale: of the training rows, missing ones filled.
        fill: median of the training rows.
        indicator: whether training rows were missing.
        categories: words of the training rows; beyond ``MAX_CATEGORIES`` the most frequent.
        log: whether the natural logarithm is taken first; mean, scale and fill are of the logarithms then.
    """

    name: str
    kind: str
    mean: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    indicator: bool = False
    categories: tuple[str, ...] = ()
    log: bool = False

    @property
    def features(self) -> list[str]:
        """What each feature says."""
        if self.kind == "category":
            return [f"{self.name}={word}" for word in self.categories] + [f"{self.name}=other"]
        return [f"log {self.name}" if self.log else self.name] + [f"{self.name} is missing"] * self.indicator

    def encode(self, file: CsvFile) -> np.ndarray:
        """float64 [n, len(features)]."""
        if self.kind == "category":
            number = {word: i for i, word in enumerate(self.categories)}
            codes = [number.get(word, len(self.categories)) for word in file.words(self.name)]
            return np.eye(len(self.categories) + 1)[codes]
        values = logarithms(file, self.name) if self.log else numbers(file, self.name, self.kind)
        lost = np.isnan(values)
        scaled = (np.where(lost, self.fill, values) - self.mean) / self.scale
        return np.stack([scaled, lost][: 1 + self.indicator], axis=1)


def infer_kind(file: CsvFile, name: str, remedy: str = "name the column in categorical") -> str:
    """Number if every value is one, boolean if every word is true or false, else category.

    Args:
        remedy: what the message proposes where the words are meant.

    Raises:
        ValueError: with the line, if a column of numbers holds a few other words (at most 5 % of its values, or one).
    """
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    column = file.frame[name]
    if is_bool_dtype(column.dtype):
        return "boolean"
    if is_numeric_dtype(column.dtype):
        return "number"
    words = file.words(name)
    present = words[words != ""]
    if set(map(str.lower, present)) <= {"true", "false"}:
        return "boolean"
    odd = int(np.isnan(_parse(present)).sum())
    if odd == 0:
        return "number"
    if odd <= max(1, FEW_WORDS * len(present)) and odd < len(present) - odd:
        row = int(np.flatnonzero((words != "") & np.isnan(_parse(words)))[0])
        raise ValueError(
            f"{file.where(row)}: column {name!r} is numeric, got {words[row]!r}; write a number, or {remedy} if its values are names"
        )
    return "category"


def numbers(file: CsvFile, name: str, kind: str = "number") -> np.ndarray:
    """A column as float64 [n], NaN where a value is missing.

    Raises:
        ValueError: with the line, for a word or a number beyond float32.
    """
    from pandas.api.types import is_numeric_dtype

    column = file.frame[name]
    if is_numeric_dtype(column.dtype):
        values, lost = column.to_numpy(np.float64), column.isna().to_numpy()
    else:
        words = file.words(name)
        if kind == "boolean":
            words = np.array([{"true": "1", "false": "0"}.get(word.lower(), word) for word in words], dtype=object)
        values, lost = _parse(words), words == ""
    bad = ~(np.abs(values) <= LARGEST) & ~lost
    if bad.any():
        row = int(bad.argmax())
        wanted = "true or false" if kind == "boolean" else "a finite number"
        raise ValueError(f"{file.where(row)}: column {name!r} must be {wanted}, got {file.words(name)[row]!r}")
    return values


def logarithms(file: CsvFile, name: str) -> np.ndarray:
    """ln of a column as float64 [n], NaN where a value is missing.

    Raises:
        ValueError: with the line, for what ``numbers`` refuses and for a number that is not > 0.
    """
    return np.log(positive(file, name))


def positive(file: CsvFile, name: str) -> np.ndarray:
    """``numbers`` of a column whose logarithm is to be taken, checked for that."""
    values = numbers(file, name)
    bad = values <= 0
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{file.where(row)}: column {name!r} must be > 0 for its logarithm, got {file.words(name)[row]!r}")
    return values


def _parse(words: np.ndarray) -> np.ndarray:
    """float64 of each word, NaN where it is no number."""
    import pandas

    return pandas.to_numeric(pandas.Series(words, dtype=object), errors="coerce").to_numpy(np.float64)


@ENCODERS.register(name="table")
@dataclass(frozen=True)
class TableEncoder(Encoder):
    """A table, delimited text or ARFF, as x [n, F].

    Args:
        target: what is predicted.
        columns: the columns that are used, found by name.
        ignored: (name, reason) of those left out.
        separator: character between the columns; None: from the file's ending.
    """

    columns: tuple[Column, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    separator: str | None = None

    kind: ClassVar[str] = "table"
    accepts: ClassVar[str] = "a .csv or .tsv file, its first line naming the columns, or an .arff file; the target may be absent"

    @property
    def features(self) -> list[str]:
        """What each of the F features says."""
        return [feature for column in self.columns for feature in column.features]

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (len(self.features),)

    def encode(self, path: str | Path) -> Inputs:
        file = read_table(path, separator=self.separator, text=[column.name for column in self.columns if column.kind == "category"])
        absent = [column.name for column in self.columns if column.name not in file.header]
        if absent:
            raise ValueError(f"{file.path} lacks the column(s) {', '.join(map(repr, absent))}; it has {', '.join(map(repr, file.header))}")
        return Inputs(self.transform(file), [f"line {line}" for line in file.lines])

    def transform(self, file: CsvFile) -> torch.Tensor:
        """Features float32 [n, F] of the rows."""
        x = np.concatenate([column.encode(file) for column in self.columns], axis=1)
        bad = ~(np.abs(x) <= LARGEST)
        if bad.any():
            row, feature = np.argwhere(bad)[0].tolist()
            raise ValueError(f"{file.where(row)}: {self.features[feature]!r} is too large for the scale of its column in training")
        return torch.from_numpy(x.astype(np.float32))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> TableEncoder:
        columns = tuple(Column(**{**column, "categories": tuple(column["categories"])}) for column in fields["columns"])
        return cls(fields["target"], columns, tuple((name, reason) for name, reason in fields["ignored"]), fields["separator"])


def fit_columns(
    file: CsvFile, rows: np.ndarray, categorical: Collection[str], skip: Collection[str], log: Collection[str] = ()
) -> tuple[list[Column], list[tuple[str, str]]]:
    """Columns fitted on ``rows`` alone, those in ``log`` by their logarithms, and (name, reason) of those that say nothing there."""
    columns, ignored = [], []
    for name in file.header:
        if name in skip:
            continue
        kind = "category" if name in categorical else infer_kind(file, name)
        column: Column | str
        if name in log:
            if kind != "number":
                raise ValueError(f"log: column {name!r} of {file.path} holds {KINDS[kind]}, only numbers have a logarithm")
            column = _fit_numbers(name, kind, logarithms(file, name)[rows])
            column = replace(column, log=True) if isinstance(column, Column) else column
        elif kind == "category":
            column = _fit_words(name, file.words(name)[rows])
        else:
            column = _fit_numbers(name, kind, numbers(file, name, kind)[rows])
        if isinstance(column, Column):
            columns.append(column)
        else:
            ignored.append((name, column))
    return columns, ignored


def _fit_words(name: str, words: np.ndarray) -> Column | str:
    counts = Counter(words.tolist())
    if len(counts) < 2:
        return "the same in every training row"
    if len(counts) == len(words) > IDENTIFIER_ROWS:
        return "a different word in every training row"
    frequent = sorted((word for word in counts if word), key=lambda word: (-counts[word], word))[:MAX_CATEGORIES]
    return Column(name, "category", categories=tuple(sorted(frequent)))


def _fit_numbers(name: str, kind: str, values: np.ndarray) -> Column | str:
    lost = np.isnan(values)
    if lost.all():
        return "missing in every training row"
    fill = float(np.median(values[~lost]))
    mean, scale = (moment.item() for moment in moments(np.where(lost, fill, values)[:, None]))
    if scale == 0 and not lost.any():
        return "the same in every training row"
    return Column(name, kind, mean, scale or 1.0, fill, bool(lost.any()))
