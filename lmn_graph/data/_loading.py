"""From what the user calls the data to the function that reads it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmn_graph.registry import did_you_mean

from ._arff import TABLE_ENDINGS
from ._arrays import arrays
from ._folder import folder
from ._listing import check_reading, read_first
from ._series import series
from ._shards import RECORD, shards
from ._streams import StreamSplits
from ._table import table
from ._text import text
from ._token_files import TOKENS, tokens
from .base import DATASETS, Splits


def resolve(spec: str | Path) -> tuple[Callable[..., Splits | StreamSplits], dict[str, Any]]:
    """The function behind ``spec`` and the arguments that ``spec`` itself fixes; the rest of its signature are options.

    A registered name wins; then an existing path: .csv, .tsv, .arff (.gz) → ``table``; a folder → ``tokens`` where ``lmn tokenize`` made it
    or a ``train.bin`` is in it, ``shards`` where ``lmn preprocess`` made it, ``text`` where .txt files are in it, else ``folder``;
    .txt → ``text``, .npz → ``arrays``, .npy → ``series``.

    Raises:
        ValueError: if it is neither, saying what is accepted.
    """
    if not isinstance(spec, (str, Path)) or not str(spec):
        raise ValueError(f"data must be the name of a dataset or a path, got {spec!r}")
    if str(spec) in DATASETS:
        return DATASETS[str(spec)], {}
    path = Path(spec).expanduser()
    name = path.name.lower()
    accepted = "a .csv, .tsv or .arff file (.gz too), a folder of class folders, an .npz or .npy file, a .txt file or a folder of them"
    accepted += f", or one of {', '.join(DATASETS)}"
    if not os.path.exists(path):
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"data {str(spec)!r} does not exist; expected {accepted}")
        raise ValueError(
            f"data {str(spec)!r} is neither a dataset nor a path{did_you_mean(str(spec), list(DATASETS))}; expected {accepted}"
        )
    if path.is_dir():
        if (path / TOKENS).is_file() or (path / "train.bin").is_file():
            return tokens, {"path": str(path)}
        if any(entry.suffix == ".txt" for entry in path.iterdir() if entry.is_file()):
            return text, {"path": str(path)}
        return shards if (path / RECORD).is_file() else folder, {"path": str(path)}
    if name.endswith(TABLE_ENDINGS):
        return table, {"path": str(path)}
    if name.endswith(".txt"):
        return text, {"path": str(path)}
    if name.endswith(".npz"):
        return arrays, {"path": str(path)}
    if name.endswith(".npy"):
        return series, {"path": str(path)}
    raise ValueError(f"data {str(spec)!r} is of no known kind; expected {accepted}")


def load(spec: str | Path, **options: Any) -> Splits | StreamSplits:
    """The dataset that ``spec`` names or points to; ``options`` are keyword arguments of the function ``resolve`` finds.

    Raises:
        ValueError: for an unknown spec or option, and for what the function refuses.
    """
    function, fixed = _checked(spec, options)
    return function(**fixed, **options)


def load_pictures(spec: str | Path, count: int, **options: Any) -> Splits | None:
    """The first ``count`` rows of every split of ``load(spec, **options)``, no other picture being decoded; None where it lists none."""
    function, fixed = _checked(spec, options)
    given = inspect.signature(function).bind(**fixed, **options)
    given.apply_defaults()
    reading = {name: value for name, value in given.arguments.items() if name in ("size", "mode", "broken", "memory")}
    if not hasattr(function, "listing") or not {"size", "mode"} <= reading.keys():
        return None
    check_reading(**{"broken": "fatal", **reading})
    return read_first(function.listing(**fixed, **options), count, **reading)


def make_specimen(spec: str | Path, **options: Any) -> Splits | None:
    """Made-up rows of the dataset's input shape, task and classes, drawn from its ``seed``; its name says what they are.

    Arguments are those of ``load``. None where ``spec`` has no specimen: a user's own file, or a dataset without one.
    """
    function, _ = _checked(spec, options)
    make = getattr(function, "specimen", None)
    defaults = {name: given.default for name, given in inspect.signature(function).parameters.items()}
    return None if make is None else make(str(spec), {**defaults, **options})


def _checked(spec: str | Path, options: dict[str, Any]) -> tuple[Callable[..., Splits | StreamSplits], dict[str, Any]]:
    """What ``resolve`` finds, if it has all of the options."""
    function, fixed = resolve(spec)
    known = [name for name in inspect.signature(function).parameters if name not in fixed]
    for option in options:
        if option not in known:
            raise ValueError(f"data {str(spec)!r} has no option {option!r}{did_you_mean(option, known)}")
    return function, fixed
