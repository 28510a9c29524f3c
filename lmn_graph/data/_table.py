"""The user's own table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from lmn_graph.registry import did_you_mean
from topologies import _checks

from ._arff import ARFF_ENDINGS, read_table
from ._columns import TableEncoder, fit_columns, infer_kind, numbers, positive
from ._csv import CsvFile
from ._splitting import divide
from ._target import Task, infer_task, whole_words
from .base import Split, Splits


def table(
    path: str | Path,
    *,
    target: str | None = None,
    task: Task = "auto",
    drop: list[str] | str | None = None,
    categorical: list[str] | str | None = None,
    log: list[str] | str | None = None,
    separator: str | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Rows of a .csv, .tsv or .arff file (.gz too): x float32 [n, F].

    A column is numeric if every value is a number, boolean if every word is true or false, else it holds categories. Numbers are scaled to
    mean 0 and variance 1, missing ones set to the median and flagged in a column of their own; categories become 0/1 columns with one more
    for words that training never saw. Columns that are constant, empty, nameless or different words throughout are left out
    (``encoder.ignored``). All of it is fitted on the training rows. Empty, NA, NaN, null, None and ? are missing values. What an ARFF
    file declares to be nominal is categories whatever the values look like; its missing nominal values are ? alone.

    Args:
        path: the file; its first line names the columns, or its attributes do.
        target: column to predict. Missing values are refused there.
        task: "auto": words are classes; numbers are classes if all are whole, at most 20 differ and each has three rows on average,
            else a regression. Nominal attributes are classes.
        drop: columns to leave out (identifiers, anything that gives the answer away).
        categorical: columns whose numbers are names of categories.
        log: columns of numbers > 0, the target among them if wanted, whose natural logarithm is taken before scaling. Predictions of such
            a target come back in its own units; losses and metrics are of the logarithm. Under task "auto" it is a regression.
        separator: character between the columns; None: a tab for .tsv, else a comma. Not for .arff.
        test_fraction: share of all rows, in (0, 0.9].
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument, or the line of the file.
    """
    _checks.choice("task", task, ("auto", "classification", "regression"))
    dropped, words, logged = _names("drop", drop), _names("categorical", categorical), _names("log", log)
    if separator is not None and str(path).lower().endswith(ARFF_ENDINGS):
        raise ValueError(f"separator must be None for an .arff file, got {separator!r}")
    file = read_table(path, separator=separator, text=[*words, *([target] if isinstance(target, str) else [])])
    if target is None:
        raise ValueError(f"target must name the column to predict, one of {', '.join(map(repr, file.header))}")
    for argument, names in (("target", [target]), ("drop", dropped), ("categorical", words), ("log", logged)):
        for name in names:
            if name not in file.header:
                raise ValueError(f"{argument}: {file.path} has no column {name!r}{did_you_mean(name, file.header)}")
    if target in dropped:
        raise ValueError(f"drop must not hold the target {target!r}")
    for argument, others in (("drop", dropped), ("categorical", words)):
        for name in logged:
            if name in others:
                raise ValueError(f"log and {argument} must not both hold {name!r}")
    if target in logged and (task == "classification" or target in file.nominal):
        raise ValueError(f"log must not hold the target {target!r}, which is a class")
    return fit_table(
        file.path.name,
        file,
        target,
        task=task,
        dropped=dropped,
        categorical=words,
        log=logged,
        separator=separator,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )


def fit_table(
    name: str,
    file: CsvFile,
    target: str,
    *,
    task: Task,
    dropped: list[str],
    categorical: list[str],
    separator: str | None,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    log: Collection[str] = (),
) -> Splits:
    """The splits of a file that has been read, called ``name``; arguments as in ``table``, ``dropped`` being its ``drop``."""
    labels, values = _read_target(file, target, task, target in log)
    goal, y, rows = divide(
        target, labels, values, log=target in log, test_fraction=test_fraction, validation_fraction=validation_fraction, seed=seed
    )
    nameless = [(column, "no name") for column in file.header if column.startswith("unnamed column ")]
    names = {*categorical, *file.nominal}
    columns, ignored = fit_columns(file, rows.train, names, {target, *dropped, *(column for column, _ in nameless)}, log)
    ignored = [*((column, "dropped") for column in dropped), *nameless, *ignored]
    if not columns:
        raise ValueError(f"{file.path} has no column to predict {target!r} from: {ignored or 'there is no other column'}")
    encoder = TableEncoder(goal, tuple(columns), tuple(ignored), separator)
    x = encoder.transform(file)
    train, validation, test = (Split(x[part], y[part]) for part in rows)
    return Splits(name, train, validation, test, encoder)


def _names(argument: str, given: list[str] | str | None) -> list[str]:
    """Names of a list, or of text with commas in it."""
    names = given.split(",") if isinstance(given, str) else list(given or [])
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a list of column names, got {given!r}")
    return [name.strip() for name in names if name.strip()]


def _read_target(file: CsvFile, target: str, task: Task, log: bool) -> tuple[list[str] | None, np.ndarray]:
    """Class words or None, and numbers [n, 1] (empty for classes), > 0 if their logarithms are wanted."""
    words = file.words(target)
    lost = words == ""
    if lost.any():
        raise ValueError(f"{file.where(int(lost.argmax()))}: the target {target!r} is missing")
    if task == "classification":
        return words.tolist(), np.empty((0, 1))
    if task == "auto" and not log and (target in file.nominal or infer_kind(file, target, "set task to classification") != "number"):
        return words.tolist(), np.empty((0, 1))
    values = positive(file, target) if log else numbers(file, target)
    if task == "auto" and not log and infer_task(values) == "classification" and values.min() < values.max():
        return whole_words(values), np.empty((0, 1))
    if values.min() == values.max():
        raise ValueError(f"target {target!r} is constant ({words[0]}): there is nothing to predict")
    return None, values[:, None]
