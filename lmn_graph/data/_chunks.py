"""Tensors in .pt files, as older pipelines leave them, made into shards: loaded as tensors and nothing else, a file at a time."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmn_graph._warning import warn
from topologies import _checks

from ._pictures import PictureEncoder, find_pictures
from ._preprocess import cut, write_shards
from ._rows import files_digest
from ._shards import SPLITS, ShardRecord
from ._splitting import Drawn, check_trained, hold_out, split_rows
from ._target import Target
from .base import existing

ENDINGS = (".pt", ".pth")
INPUTS = ("patches", "images", "pictures", "data", "inputs", "x")
LABELS = ("labels", "label", "targets", "target", "y")
WORDS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
FORMS = "a mapping with images (or patches, pictures, data, inputs, x) and labels (or targets, y), or a pair of these"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)
EXACT = 1e-3  # grey values: how far 255 x of a float32 that was one is from it at most


class _File(NamedTuple):
    path: Path
    split: str  # "" where none is given
    x: Tensor | None  # a map of the file; None where it cannot be mapped
    labels: np.ndarray
    shape: tuple[int, ...]


def is_chunked(folder: Path) -> bool:
    """Whether a folder holds .pt files, itself or in folders of its splits, and no pictures."""
    return folder.is_dir() and bool(_found(folder)) and next(find_pictures(folder), None) is None


def import_chunks(
    path: str | Path,
    out: str | Path,
    *,
    patch: int | None = None,
    shard_size: int = 1024,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
    verify: bool = False,
    progress: bool = False,
) -> Path:
    """Make shards of a folder of .pt files, each with tensors of some rows; they are loaded with ``torch.load(weights_only=True)``.

    A file holds a mapping with inputs ("images", "patches", "pictures", "data", "inputs" or "x") and labels ("labels", "targets", "y"), or
    a pair of them. Inputs are uint8, or floating-point numbers in [0, 1], which become the nearest of 256 grey values; a warning says so
    where that changes them.

    - pictures [n, height, width], [n, 1, height, width] (grey) or [n, 3, height, width];
    - patches [n, rows, columns, C, p, p] with C = 1 or 3, rows and columns from above and from the left.

    Labels are whole numbers [n] from 0. Files are of the split that their name begins with, or in whose folder they are: train, val (valid,
    validation) or test, as in train_00000.pt or train/chunk_0.pt. Validation rows that are not given are drawn from the training ones;
    where no file says what it is for, all splits are drawn. Class names are the lines of classes.txt, or the list in classes.json, if there
    is one.

    Args:
        path: the folder.
        out, patch, shard_size, verify, progress: as of ``preprocess``.
        test_fraction: share of all rows, in (0, 0.9]; of no effect where test files are given.
        validation_fraction: share of the remaining rows, in (0, 0.9]; of no effect where validation files are given.
        seed: seed of the choice; classes keep their shares.

    Returns:
        The folder of the shards.

    Raises:
        ValueError: naming the argument, or the file and what is wrong with it.
    """
    if patch is not None:
        _checks.integer("patch", patch, minimum=1)
    _checks.number("test_fraction", test_fraction, above=0, maximum=0.9)
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    folder = existing(path)
    found = _found(folder)
    if not found:
        raise ValueError(f"{folder} holds no {' or '.join(ENDINGS)} files")
    files = [_open(path, split) for path, split in found]
    for file in files:
        if file.shape != files[0].shape:
            raise ValueError(f"{file.path}: rows have shape {list(file.shape)}, those of {files[0].path} {list(files[0].shape)}")
    labels = np.concatenate([file.labels for file in files])
    classes = _classes(folder, labels, files)
    encoder = _encoder(files[0], Target.classification("class", classes), patch)
    drawing = {"test_fraction": test_fraction, "validation_fraction": validation_fraction, "seed": seed}
    rows = _drawn(folder, files, labels, classes, **drawing)
    names = [str(file.path.relative_to(folder)) for file in files]
    digest = hashlib.blake2b(f"{files_digest([file.path for file in files])} {names} {classes}".encode(), digest_size=16).hexdigest()
    record = ShardRecord(folder.name or str(folder), encoder, {"chunks": digest, "patch": patch, **drawing}, {}, False)
    load = functools.lru_cache(maxsize=1)(_load)  # one file that cannot be mapped has rows of several shards
    sources = {split: _Chunks(files, getattr(rows, split), encoder, load) for split in SPLITS}
    return write_shards(Path(out), sources, record, shard_size=shard_size, verify=verify, progress=progress)


def _found(folder: Path) -> list[tuple[Path, str]]:
    """Files and the splits that they are said to be of, in the order of their names, numbers in them by size."""

    def inside(place: Path, split: str) -> list[tuple[Path, str]]:
        paths = [path for path in place.iterdir() if path.suffix in ENDINGS and not path.name.startswith(".") and path.is_file()]
        paths.sort(key=lambda path: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)])
        return [(path, split or WORDS.get(re.split(r"[^a-z]", path.stem.lower())[0], "")) for path in paths]

    try:
        splits = [(folder / word, split) for word, split in WORDS.items() if (folder / word).is_dir()]
        return [*inside(folder, ""), *(found for place, split in splits for found in inside(place, split))]
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}") from error


def _load(path: Path) -> tuple[Tensor, Tensor, bool]:
    """Inputs, labels, and whether they are maps of the file."""
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    mapped = True
    try:
        with warnings.catch_warnings():
            for kind in ("Validating sparse tensor", "The PyTorch API of nested tensors"):  # they are refused below
                warnings.filterwarnings("ignore", message=kind)
            try:
                content = torch.load(path, mmap=True, **options)
            except RuntimeError:  # a file of torch before 1.6 cannot be mapped
                content, mapped = torch.load(path, **options), False
    except pickle.UnpicklingError as error:
        reason = re.search(r"(?:Unsupported|GLOBAL)[^.\n]*", str(error))
        why = f" ({reason[0][:100].strip()})" if reason else ""
        raise ValueError(f"{path} is damaged, or holds something else than tensors, which is not loaded{why}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged, or no file of torch.save: {' '.join(str(error).split())[:200]}") from error
    return *_parts(path, content), mapped


def _parts(path: Path, content: Any) -> tuple[Tensor, Tensor]:
    if isinstance(content, dict):
        parts = [next((content[name] for name in names if name in content), None) for names in (INPUTS, LABELS)]
    else:
        parts = list(content) if isinstance(content, (tuple, list)) else []
    found = [part for part in parts if isinstance(part, Tensor)]
    if len(parts) != 2 or len(found) != 2:
        held = f"a mapping with {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} must hold {FORMS}, got {held[:200]}")
    for part in found:
        plain = part.layout == torch.strided and part.device.type == "cpu" and not (part.is_nested or part.is_quantized)
        if not plain or part.untyped_storage().nbytes() < part.numel() * part.element_size():
            shape = "nested" if part.is_nested else f"{list(part.shape)}"
            raise ValueError(f"{path} must hold plain, whole tensors, got one of {part.layout}, {part.dtype}, {shape} on {part.device}")
    return found[0].detach(), found[1].detach()


def _open(path: Path, split: str) -> _File:
    x, labels, mapped = _load(path)
    if labels.dim() != 1 or labels.dtype not in WHOLE:
        raise ValueError(f"{path}: labels must be whole numbers [n], got {labels.dtype} {list(labels.shape)}")
    if x.dim() == 0 or len(x) != len(labels) or len(x) == 0:
        raise ValueError(f"{path}: inputs must have as many rows as labels, at least one, got {list(x.shape)} and {len(labels)} labels")
    numbers = labels.to(torch.int64).numpy().copy()
    if numbers.min() < 0:
        raise ValueError(f"{path}: labels must be >= 0, got {numbers.min()}")
    if x.dtype != torch.uint8 and x.dtype not in FLOATS:
        raise ValueError(f"{path}: inputs must be uint8, or float16, bfloat16, float32 or float64 in [0, 1], got {x.dtype}")
    shape = tuple(x.shape[1:])
    whole = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    if not (whole or (len(shape) == 5 and shape[2] in (1, 3) and shape[3] == shape[4])) or 0 in shape:
        expected = "[n, height, width], [n, 1 or 3, height, width] or [n, rows, columns, 1 or 3, p, p]"
        raise ValueError(f"{path}: inputs must have shape {expected}, got {list(x.shape)}")
    return _File(path, split, x if mapped else None, numbers, shape)


def _encoder(file: _File, target: Target, patch: int | None) -> PictureEncoder:
    if len(file.shape) != 5:
        height, width = file.shape[-2:]
        return PictureEncoder(target, (height, width), "RGB" if file.shape[:-2] == (3,) else "L", patch)
    rows, columns, channels, side, _ = file.shape
    if patch not in (None, side):
        raise ValueError(f"patch must be {side}, as the patches in {file.path} are, or not given, got {patch}")
    return PictureEncoder(target, (rows * side, columns * side), "RGB" if channels == 3 else "L", side)


def _classes(folder: Path, labels: np.ndarray, files: list[_File]) -> list[str]:
    """Names from classes.txt or classes.json, else the numbers."""
    count = int(labels.max()) + 1
    for name in ("classes.txt", "classes.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8-sig")
            names = json.loads(text) if file.suffix == ".json" else [line.strip() for line in text.splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names) or len(set(names)) < len(names):
            raise ValueError(f"{file} must be a list of different names")
        if len(names) < count:
            worst = next(each.path for each in files if each.labels.max() == labels.max())
            raise ValueError(f"{file} names {len(names)} classes, but {worst} has label {count - 1}")
        return names
    if count > 100_000 or count > 10 * len(labels):
        worst = next(each.path for each in files if each.labels.max() == labels.max())
        raise ValueError(f"{worst}: labels must be class numbers from 0, got {count - 1} among {len(labels)} rows")
    return [str(number) for number in range(count)]


def _drawn(folder: Path, files: list[_File], labels: np.ndarray, classes: Sequence[str], **drawing: Any) -> Drawn:
    """Row numbers of each split over all files, in the order of the files."""
    of = np.repeat([file.split for file in files], [len(file.labels) for file in files])
    said = {file.split for file in files}
    if said == {""}:
        rows = split_rows(len(labels), labels=labels, classes=classes, **drawing)
    else:
        if "" in said or not {"train", "test"} <= said:
            loose = next((str(file.path) for file in files if not file.split), ", ".join(sorted(said)))
            raise ValueError(f"{folder} must hold files of train and test (and validation), or none that says so, got {loose}")
        train, held = np.flatnonzero(of == "train"), np.flatnonzero(of == "validation")
        if not len(held):
            small = np.bincount(labels[train], minlength=len(classes))
            if small.min() < 2:
                name = classes[int(small.argmin())]
                raise ValueError(f"class {name!r} has {small.min()} training row(s), at least 2 are needed, one to validate with")
            generator = np.random.default_rng(_checks.integer("seed", drawing["seed"], minimum=0))
            train, held = hold_out(train, max(1, round(len(train) * drawing["validation_fraction"])), generator, labels)
        rows = Drawn(train, held, np.flatnonzero(of == "test"))
    check_trained(labels, rows, classes)
    return Drawn(*(np.sort(part) for part in rows))


class _Chunks:
    """Rows of files, by their numbers over all of them."""

    def __init__(self, files: list[_File], rows: np.ndarray, encoder: PictureEncoder, load: Callable[[Path], tuple]) -> None:
        self.files, self.rows, self.encoder, self.load = files, rows, encoder, load
        self.ends = np.cumsum([len(file.labels) for file in files])

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, str]:
        wanted = self.rows[start:stop]
        places = np.searchsorted(self.ends, wanted, side="right")
        x, y = [], []
        for place in np.unique(places):
            file = self.files[place]
            rows = wanted[places == place] - (self.ends[place] - len(file.labels))
            inputs = file.x if file.x is not None else self.load(file.path)[0]
            x.append(_bytes(file.path, inputs[torch.from_numpy(rows)], rows))
            y.append(file.labels[rows])
        found = np.concatenate(x)
        if len(self.files[0].shape) == 3 and self.encoder.mode == "L":
            found = found[:, 0]
        return found if found.ndim == 6 else cut(found, self.encoder.patch), np.concatenate(y), ""


def _bytes(path: Path, x: Tensor, rows: np.ndarray) -> np.ndarray:
    """Grey values 0 … 255."""
    if x.dtype == torch.uint8:
        return x.numpy()
    wrong = ~((x >= 0) & (x <= 1))
    if wrong.any():
        row, value = wrong.flatten(1).any(1).nonzero()[0, 0], x[wrong][0]
        raise ValueError(f"{path}, row {rows[row]}: inputs must be uint8 or lie in [0, 1], got {float(value):g}")
    scaled = x.to(torch.float32) * 255
    found = scaled.round()
    if (scaled - found).abs().max() > max(EXACT, 255 * torch.finfo(x.dtype).eps):
        warn(f"{path.parent}: inputs are no multiples of 1/255 and are rounded to the nearest")
    return found.to(torch.uint8).numpy()
