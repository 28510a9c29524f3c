"""HIGGS of the UCI repository: eleven million collisions, read once and then mapped from disk, never held in memory as a whole."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topologies import _checks

from . import _numeric as numeric
from ._columns import TableEncoder
from ._download import check_sha256
from ._specimen import specimen
from ._target import Target
from .base import DATASETS, Split, Splits

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/00280/HIGGS.csv.gz"
SHA256 = "ea302c18164d4e3d916a1e2e83a9a8d07069fa6ebc7771e4c0540d54e593b698"
SIZE = 2_816_407_858
FILES = ("HIGGS.csv", "HIGGS.csv.gz", "higgs.zip")
FORMAT = 1  # of the cache
EDGE = 1 << 16  # bytes at either end of the source that its key depends on
FEATURES = (
    "lepton pT",
    "lepton eta",
    "lepton phi",
    "missing energy magnitude",
    "missing energy phi",
    *(f"jet {i} {what}" for i in range(1, 5) for what in ("pt", "eta", "phi", "b-tag")),
    *("m_jj", "m_jjj", "m_lv", "m_jlv", "m_bb", "m_wbb", "m_wwbb"),
)
NAMES = ("label", *FEATURES)
CLASSES = ("background", "signal")


@DATASETS.register
@specimen(lambda options: TableEncoder(Target.classification("process", CLASSES), numeric.number_columns(FEATURES)))
def higgs(
    root: str = "data",
    *,
    path: str | None = None,
    download: bool = False,
    cache: str | None = None,
    rows: int | None = None,
    test_rows: int = 500_000,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> Splits:
    """Simulated collisions with and without a Higgs boson, 11,000,000 × 28 numbers: x float32 [n, 28], scaled on the training rows.

    The last rows are the test split, as the publisher has it. The file is read once, in blocks, into a float32 copy on disk; the scaled
    rows of every choice of options are a second one (each up to 1.3 GB for the whole file). The splits are maps of the latter, so they
    take no memory of their own. Both copies are written whole or not at all and belong to the content of the file (its size, time and both
    ends); their folders can be deleted at any time, and are made again.

    Args:
        root: folder that holds (or gets, with download) HIGGS.csv, HIGGS.csv.gz or UCI's higgs.zip with the latter.
        path: one of these files itself; root and download are of no effect then.
        download: fetch HIGGS.csv.gz from UCI (2.8 GB) if no file is there, and check it; otherwise nothing is fetched.
        cache: folder of the copies; None: higgs-cache beside the file.
        rows: number of training rows, drawn from all; None: all that are not for validation or test.
        test_rows: number of rows at the end of the file that are the test split.
        validation_fraction: share of training and validation rows together, in (0, 0.9].
        seed: seed of the choice of rows.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, or the line and column that is wrong.
    """
    numeric.check_source(root, download)
    if cache is not None and (not isinstance(cache, (str, Path)) or not str(cache)):
        raise ValueError(f"cache must be the name of a folder, got {cache!r}")
    if rows is not None:
        _checks.integer("rows", rows, minimum=2)
    _checks.integer("test_rows", test_rows, minimum=1)
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    _checks.integer("seed", seed, minimum=0)
    fetch = numeric.fetcher("HIGGS", URL, FILES[1], check_sha256(SHA256), download, SIZE)
    file = numeric.locate("HIGGS", root, path, FILES, url=URL, fetch=fetch, volume="2.8 GB")

    folder = file.parent / "higgs-cache" if cache is None else Path(cache).expanduser()
    source = _source_key(file)
    copy = _made(folder / f"rows-{source}", functools.partial(_convert, file)) / "rows.npy"
    options = {"rows": rows, "test_rows": test_rows, "validation_fraction": validation_fraction, "seed": seed}
    name = f"scaled-{_key({'source': source, **options})}"
    parts, mean, scale = _read_scaled(_made(folder / name, functools.partial(_scale, file, copy, options)))
    encoder = TableEncoder(Target.classification("process", CLASSES), numeric.number_columns(FEATURES, mean, scale))
    return Splits("higgs", parts[0], parts[1], parts[2], encoder)


def _key(record: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=8).hexdigest()


def _source_key(file: Path) -> str:
    """What changes when the file does."""
    try:
        state = file.stat()
        with open(file, "rb") as stream:
            ends = hashlib.blake2b(stream.read(EDGE))
            stream.seek(max(0, state.st_size - EDGE))
            ends.update(stream.read(EDGE))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return _key({"format": FORMAT, "size": state.st_size, "time": state.st_mtime_ns, "ends": ends.hexdigest()})


def _made(folder: Path, fill: Callable[[Path], None]) -> Path:
    """``folder``, filled if it was not there; whatever interrupts that leaves nothing under its name."""
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.part")
    try:
        part.mkdir(parents=True)
        fill(part)
        try:
            part.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error}; cache= is the folder of these copies") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write(path: Path, width: int, dtype: type, chunks: Iterable[np.ndarray]) -> int:
    """Chunks [m, width] (or [m] for width 0) one after the other as a .npy file; returns the number of rows."""
    count = 0
    with open(path, "wb") as file:
        start = _header(file, 0, width, dtype)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype=dtype).data)
            count += len(chunk)
        file.seek(0)
        if _header(file, count, width, dtype) != start:  # numpy leaves room in it for any number of rows
            raise RuntimeError(f"the header of {path} has grown")
        file.flush()
        os.fsync(file.fileno())
    return count


def _header(file: Any, count: int, width: int, dtype: type) -> int:
    shape = (count, width) if width else (count,)
    np.lib.format.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return int(file.tell())


def _convert(file: Path, folder: Path) -> None:
    """The file as rows.npy, float32 [n, 29] with the label first."""

    def _rows() -> Iterable[np.ndarray]:
        for line, block in numeric.blocks(file, NAMES, FILES[:2]):
            label = block[:, :1]
            numeric.refuse(file, line, NAMES, block, (label != 0) & (label != 1), "0 or 1")
            yield block

    if _write(folder / "rows.npy", len(NAMES), np.float32, _rows()) == 0:
        raise ValueError(f"{file} is empty")


def _scale(file: Path, copy: Path, options: dict[str, Any], folder: Path) -> None:
    """x.npy and y.npy with training, validation and test rows one after the other, and record.json, which says how many and how scaled."""
    table = _map(copy)
    pool = len(table) - options["test_rows"]
    if pool < 3:
        raise ValueError(f"{file} holds {len(table):,} rows: test_rows {options['test_rows']:,} must leave at least 3 of them")
    drawing = {name: value for name, value in options.items() if name != "test_rows"}
    parts = (*numeric.draw(pool, **drawing), np.arange(pool, len(table)))
    labels = np.array(table[:, 0], dtype=np.int64)
    for number, name in enumerate(CLASSES):
        if not (labels[parts[0]] == number).any():
            raise ValueError(f"{file}: no training row is of class {name!r} ({number}); give more rows or another seed")
    inputs = table[:, 1:]
    mean, scale = numeric.moments_of(inputs, parts[0])
    _write(folder / "x.npy", len(FEATURES), np.float32, (chunk for part in parts for chunk in numeric.scaled(inputs, part, mean, scale)))
    _write(folder / "y.npy", 0, np.int64, (labels[part] for part in parts))
    record = {"rows": [len(part) for part in parts], "mean": mean.tolist(), "scale": scale.tolist()}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def _read_scaled(folder: Path) -> tuple[list[Split], np.ndarray, np.ndarray]:
    x, y = _map(folder / "x.npy"), _map(folder / "y.npy")
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        ends = np.cumsum(record["rows"]).tolist()
        mean, scale = (np.array(record[name], dtype=np.float64) for name in ("mean", "scale"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is damaged ({error!r}); delete it and it is made again") from error
    shapes = (x.shape, y.shape, mean.shape, scale.shape)
    if len(ends) != 3 or shapes != ((ends[2], len(FEATURES)), (ends[2],), (len(FEATURES),), (len(FEATURES),)):
        raise ValueError(f"{folder} is damaged (arrays of shapes {shapes}); delete it and it is made again")
    parts = [Split(torch.from_numpy(x[start:end]), torch.from_numpy(y[start:end])) for start, end in zip((0, *ends), ends)]
    return parts, mean, scale


def _map(path: Path) -> np.ndarray:
    """A .npy file mapped into memory; what is written to the array stays in memory, the file is left as it is."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete its folder and it is made again") from error
