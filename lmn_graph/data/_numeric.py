"""Publishers' files of comma-separated numbers without a header, in blocks, packed or not; and what is computed block by block."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from topologies import _checks

from ._columns import Column
from ._download import download
from ._target import LARGEST
from .base import MissingData, existing

BLOCK = 1 << 23  # bytes of text that are read at once
CHUNK = 1 << 16  # rows that are scaled at once


def locate(
    what: str, root: str | Path, path: str | None, names: Sequence[str], *, url: str, fetch: Callable[[Path], Path] | None, volume: str
) -> Path:
    """The file of a dataset: ``path``, or the first of ``names`` that is in ``root``, or what ``fetch`` puts there.

    Args:
        what: the dataset, for messages.
        url, volume: where the file is to be had and how large it is.
        fetch: called with the folder; None where nothing may be fetched.

    Raises:
        ValueError: if ``path`` is no file; ``MissingData`` if there is none of the names.
    """
    if path is not None:
        found = existing(path)
        if found.is_dir():
            raise ValueError(f"path {str(path)!r} is a folder, a file of {what} was expected")
        return found
    folder = Path(root).expanduser()
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if fetch is None:
        raise MissingData(
            f"root {str(root)!r}: {folder} holds none of {', '.join(names)} of {what}; pass download=True to fetch {url} ({volume}), "
            "or path=, the file"
        )
    return fetch(folder)


def fetcher(
    what: str, url: str, name: str, check: Callable[[Path], None], download_it: bool, size: int | None = None
) -> Callable[[Path], Path] | None:
    """What ``locate`` calls to fetch ``name``; None where that was not asked for."""
    return (lambda folder: download(url, folder / name, what=what, check=check, size=size)) if download_it else None


def check_source(root: str | Path, download: bool) -> None:
    """Refuse a root or a wish to download that is of another type."""
    if not isinstance(root, (str, Path)) or not str(root):
        raise ValueError(f"root must be the name of a folder, got {root!r}")
    _checks.flag("download", download)


def draw(pool: int, *, rows: int | None, validation_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows among 0 … pool − 1, drawn from the seed, each in the order of the file.

    Args:
        rows: training rows; None: all that are not for validation.
        validation_fraction: share of both together.

    Raises:
        ValueError: if there are fewer rows than that.
    """
    count = pool if rows is None else round(rows / (1 - validation_fraction))
    held = max(1, round(count * validation_fraction))
    kept = pool - held if rows is None else rows
    if kept < 2 or kept + held > pool:
        raise ValueError(f"rows {rows} with validation_fraction {validation_fraction} must fit into {pool} training rows")
    order = np.random.default_rng(seed).permutation(np.arange(pool, dtype=np.int32 if pool < 2**31 else np.int64))
    return np.sort(order[held : held + kept]), np.sort(order[:held])


def blocks(path: Path, names: Sequence[str], members: Sequence[str] = ()) -> Iterator[tuple[int, np.ndarray]]:
    """(line of the first row, float64 [m, F]) of every block of rows.

    Args:
        path: text, or that packed as .gz or .zip.
        names: what the F columns hold, for messages.
        members: names that the file may have in a .zip, .gz ones being unpacked once more.

    Raises:
        ValueError: naming the line and the column of what is no finite number within float32; or that the file is damaged.
    """
    line = 1
    blank = None
    with ExitStack() as stack:
        try:
            stream = _open(path, members, stack)
            while lines := stream.readlines(BLOCK):
                first, line = line, line + len(lines)
                while lines and not lines[-1].strip():
                    lines.pop()
                if lines and blank is not None:
                    raise ValueError(f"{path}, line {blank}: no values, {len(names)} were expected")
                if first + len(lines) < line and blank is None:
                    blank = first + len(lines)  # allowed at the end of the file
                if lines:
                    yield first, _parse(path, first, lines, names)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
            raise ValueError(f"{path} is damaged or cannot be read: {error}") from error


def table(path: Path, names: Sequence[str], members: Sequence[str], count: int, check: Callable[[int, np.ndarray], None]) -> np.ndarray:
    """All rows as float32 [count, F]; ``check`` gets every block and its first line.

    Raises:
        ValueError: as ``blocks``, or if there are more or fewer rows than ``count``.
    """
    values = np.empty((count, len(names)), dtype=np.float32)
    filled = 0
    for line, block in blocks(path, names, members):
        check(line, block)
        if filled + len(block) > count:
            raise ValueError(f"{path} holds more than the {count:,} rows that the publisher's file has")
        values[filled : filled + len(block)] = block
        filled += len(block)
    if filled < count:
        raise ValueError(f"{path} holds {filled:,} rows, the publisher's file has {count:,}: it is cut off")
    return values


def refuse(path: Path, line: int, names: Sequence[str], block: np.ndarray, bad: np.ndarray, wanted: str) -> None:
    """Raise ValueError with line and column for the first True of bool ``bad`` [m, k], the first k columns of the block."""
    if bad.any():
        row, column = (int(place[0]) for place in np.nonzero(bad))
        raise ValueError(f"{path}, line {line + row}: column {names[column]!r} must be {wanted}, got {block[row, column]:g}")


def moments_of(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation float64 [F] of some rows of [n, F], computed in chunks; 1 for what is constant there."""
    count, width = len(rows), values.shape[1]
    total, largest, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    for start in range(0, count, CHUNK):
        part = values[rows[start : start + CHUNK]].astype(np.float64)
        total += part.sum(0)
        largest = np.maximum(largest, np.abs(part).max(0))
    mean = total / count
    for start in range(0, count, CHUNK):
        squares += np.square(values[rows[start : start + CHUNK]] - mean).sum(0)
    scale = np.sqrt(squares / count)
    return mean, np.where(scale > 1e-12 * largest, scale, 1.0)


def scaled(values: np.ndarray, rows: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Iterator[np.ndarray]:
    """(values − mean) / scale of some rows, float32, in chunks; what is too large for float32 is inf."""
    for start in range(0, len(rows), CHUNK):
        with np.errstate(over="ignore"):
            yield ((values[rows[start : start + CHUNK]] - mean) / scale).astype(np.float32)


def number_columns(names: Sequence[str], mean: np.ndarray | None = None, scale: np.ndarray | None = None) -> tuple[Column, ...]:
    """Columns of numbers for an encoder, missing ones being set to the mean."""
    centre = np.zeros(len(names)) if mean is None else mean
    spread = np.ones(len(names)) if scale is None else scale
    return tuple(Column(name, "number", m, s, m) for name, m, s in zip(names, centre.tolist(), spread.tolist()))


def _open(path: Path, members: Sequence[str], stack: ExitStack) -> Any:
    """A binary stream of the text, closed with ``stack``."""
    kind = path.suffix.lower()
    if kind == ".gz":
        return stack.enter_context(gzip.open(path, "rb"))
    if kind != ".zip":
        return stack.enter_context(open(path, "rb"))
    archive = stack.enter_context(zipfile.ZipFile(path))
    found = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] in members]
    if not found:
        raise ValueError(f"{path} holds none of {', '.join(members)}, but {', '.join(archive.namelist()) or 'nothing'}"[:300])
    stream = stack.enter_context(archive.open(found[0]))
    packed: Any = stream
    return stack.enter_context(gzip.open(packed, "rb")) if found[0].endswith(".gz") else stream


def _parse(path: Path, first: int, lines: list[bytes], names: Sequence[str]) -> np.ndarray:
    import pandas

    try:
        frame = pandas.read_csv(
            io.BytesIO(b"".join(lines)), header=None, dtype=np.float64, quoting=csv.QUOTE_NONE, low_memory=False, keep_default_na=False
        )
        values = frame.to_numpy()
        if values.shape == (len(lines), len(names)) and (np.abs(values) <= LARGEST).all():
            return values
    except ValueError:  # pandas has no line for words, nor a column for rows that are too long
        pass
    for line, text in enumerate(lines, first):
        fields = [field.strip() for field in text.decode("utf-8", "replace").split(",")]
        if len(fields) != len(names):
            raise ValueError(f"{path}, line {line}: {len(fields) if fields != [''] else 'no'} values, {len(names)} were expected")
        numbers = pandas.to_numeric(pandas.Series(fields, dtype=object), errors="coerce").to_numpy(np.float64)
        bad = ~(np.abs(numbers) <= LARGEST)
        if bad.any():
            column = int(bad.argmax())
            raise ValueError(f"{path}, line {line}: column {names[column]!r} must be a finite number, got {fields[column]!r}")
    raise ValueError(f"{path}: lines {first} to {first + len(lines) - 1} are not comma-separated numbers")
