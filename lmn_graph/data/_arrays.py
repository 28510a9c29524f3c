"""The user's own arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from topologies import _checks

from ._npz import ArrayEncoder, read_npz, rows_of
from ._splitting import divide
from ._target import Task, infer_task, moments, whole_words
from .base import Split, Splits, existing


def arrays(
    path: str | Path,
    *,
    task: Task = "auto",
    scale: Literal["standard", "none"] = "standard",
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Arrays of an .npz: x [n, ...] and y [n] or [n, k]; where x_test and y_test are there too, they are the test split.

    Args:
        path: the file; numbers and text only, nothing pickled.
        task: "auto": text, booleans and integers y [n] are classes; floats are classes if all are whole, at most 20 differ and each has
            three rows on average; y [n, k] and everything else is a regression.
        scale: "standard": training rows get mean 0 and variance 1, feature by feature for x [n, F], over all numbers for more dimensions
            (pictures, series); "none": x as it is.
        test_fraction: share of all rows, in (0, 0.9]; of no effect where x_test is given.
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument, or the array and what is wrong with it.
    """
    _checks.choice("task", task, ("auto", "classification", "regression"))
    _checks.choice("scale", scale, ("standard", "none"))
    found = existing(path)
    given = read_npz(found, ("x", "y"), ("x_test", "y_test"))
    if ("x_test" in given) != ("y_test" in given):
        raise ValueError(f"{found}: x_test and y_test belong together, got only {'x_test' if 'x_test' in given else 'y_test'}")
    x, y = rows_of(found, "x", given["x"]), _goals(found, "y", given["y"], len(given["x"]))
    fixed = len(x) if "x_test" in given else None
    words, values = _targets(found, "y", y, task)
    if fixed is not None:
        x = np.concatenate([x, rows_of(found, "x_test", given["x_test"], x.shape[1:])])
        y_test = _goals(found, "y_test", given["y_test"], len(given["x_test"]))
        more_words, more_values = _targets(found, "y_test", y_test, "regression" if words is None else "classification")
        if values.shape[1:] != more_values.shape[1:]:
            raise ValueError(
                f"{found}: array 'y_test' must have as many columns as 'y', got shapes {list(y_test.shape)} and {list(y.shape)}"
            )
        words, values = None if words is None else words + (more_words or []), np.concatenate([values, more_values])
    target, goals, rows = divide(
        "y", words, values, fixed=fixed, test_fraction=test_fraction, validation_fraction=validation_fraction, seed=seed
    )
    encoder = ArrayEncoder(target, x.shape[1:])
    if scale == "standard":
        mean, deviation = moments(x[rows.train].astype(np.float64).reshape(-1, x.shape[1] if x.ndim == 2 else 1))
        encoder = ArrayEncoder(target, x.shape[1:], tuple(mean.tolist()), tuple(np.where(deviation == 0, 1.0, deviation).tolist()))
    inputs = encoder.transform(x, f"{found}: array 'x'")
    train, validation, test = (Split(inputs[part], goals[part]) for part in rows)
    return Splits(found.name, train, validation, test, encoder)


def _goals(path: Path, name: str, y: np.ndarray, count: int) -> np.ndarray:
    """Targets [n], or [n, k] with k > 1."""
    if y.ndim not in (1, 2) or len(y) != count or y.size == 0:
        raise ValueError(f"{path}: array {name!r} must have shape [{count}] or [{count}, k], one row for each of x, got {list(y.shape)}")
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _targets(path: Path, name: str, y: np.ndarray, task: Task) -> tuple[list[str] | None, np.ndarray]:
    """Class words [n] or None, and numbers float64 [n, k] (k = 0 for classes)."""
    nothing = np.empty((len(y), 0))
    if y.ndim == 2 and task == "classification":
        raise ValueError(f"{path}: array {name!r} must have shape [n] for classification, got {list(y.shape)}")
    if y.dtype.kind in "US" and y.ndim == 1 and task != "regression":
        return y.astype(str).tolist(), nothing
    values = rows_of(path, name, y.reshape(len(y), -1)).astype(np.float64)
    counted = y.dtype.kind in "biu" or infer_task(y) == "classification"
    if y.ndim == 1 and (task == "classification" or (task == "auto" and counted)):
        return y.astype(str).tolist() if y.dtype.kind in "biu" else whole_words(y), nothing
    return None, values
