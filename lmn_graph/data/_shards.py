"""Pictures that were decoded once: bytes in files of some rows each, which are mapped into memory, and the record of such a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lmn_graph._files import write_bytes
from topologies import _checks
from topologies._graph import refuse_without_memory

from ._pictures import PictureEncoder
from ._rows import ByteRows
from .base import Encoder, Rows, Split, Splits, chunks, existing

RECORD = "shards.json"
FORMAT = 1
SPLITS = ("train", "validation", "test")
AGAIN = "run lmn preprocess with its options and this --out again: what is missing or damaged is made anew"


@dataclass(frozen=True)
class Shard:
    """One file, SPLIT-NUMBER.safetensors, with the tensors x uint8 [rows, …] and y int64 [rows].

    Args:
        rows: their number; 0 where no picture could be read.
        size: of the file, in bytes.
        sha256: of the file.
        broken: pictures that were left out since they cannot be read.
        error: why, of the first one.
    """

    rows: int
    size: int
    sha256: str
    broken: int = 0
    error: str = ""


@dataclass(frozen=True)
class ShardRecord:
    """What ``shards.json`` says.

    Args:
        name: of the data.
        encoder: of the rows as they are stored: whole pictures, or patches where it has a ``patch``.
        made: from what and how, so that the same can be gone on with.
        shards: by split and number.
        complete: whether all of them are there.
    """

    name: str
    encoder: PictureEncoder
    made: dict[str, Any]
    shards: dict[str, dict[int, Shard]]
    complete: bool

    def write(self, folder: Path) -> None:
        listed = {
            split: [{"name": name_of(split, i), **dataclasses.asdict(of[i])} for i in sorted(of)] for split, of in self.shards.items()
        }
        text = {"format": FORMAT, "name": self.name, "complete": self.complete, "encoder": self.encoder.to_dict(), "made": self.made}
        content = json.dumps({**text, "splits": listed}, indent=1, ensure_ascii=False)
        write_bytes(folder / RECORD, content.encode(errors="backslashreplace"))  # bytes of file names that are no text: as JSON has them


def name_of(split: str, number: int) -> str:
    """The file of a shard."""
    return f"{split}-{number:05d}.safetensors"


def read_record(folder: Path) -> ShardRecord:
    """What is in a folder of shards.

    Raises:
        ValueError: if it has no record, or one that is damaged or of another format.
    """
    file = folder / RECORD
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {found['format']!r}")
        encoder = Encoder.from_dict(found["encoder"])
        if not isinstance(encoder, PictureEncoder) or encoder.target.classes is None:
            raise ValueError("the encoder must be one of pictures of classes")
        if not isinstance(found["name"], str) or not isinstance(found["made"], dict) or not isinstance(found["complete"], bool):
            raise ValueError("name, made and complete must be a text, a mapping, and true or false")
        if set(found["splits"]) != set(SPLITS):
            raise ValueError(f"splits must be {', '.join(SPLITS)}, got {', '.join(found['splits'])}")
        shards = {split: _numbered(split, found["splits"][split]) for split in SPLITS}
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a folder of shards: {RECORD} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); delete it, and the shards beside it, and make them again") from error
    return ShardRecord(found["name"], encoder, found["made"], shards, found["complete"])


def _numbered(split: str, records: list[dict[str, Any]]) -> dict[int, Shard]:
    shards: dict[int, Shard] = {}
    for number, shard in (_shard(split, each) for each in records):
        if number in shards:
            raise ValueError(f"{name_of(split, number)} is listed twice")
        shards[number] = shard
    return shards


def _shard(split: str, record: dict[str, Any]) -> tuple[int, Shard]:
    fields = dict(record)
    number = re.fullmatch(rf"{split}-(\d{{5,9}})\.safetensors", fields.pop("name"))
    shard = Shard(**fields)
    for name in ("rows", "size", "broken"):
        _checks.integer(name, getattr(shard, name), minimum=0)
    if number is None or not isinstance(shard.sha256, str) or not isinstance(shard.error, str):
        raise ValueError(f"{record!r} is no shard of {split}")
    return int(number[1]), shard


def is_intact(path: Path, shard: Shard) -> bool:
    """Whether a file is there and is that of the record, byte for byte."""
    try:
        return path.stat().st_size == shard.size and _sha256(path) == shard.sha256
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_shard(folder: Path, record: ShardRecord, split: str, number: int, *, verify: bool = False) -> tuple[np.ndarray, Tensor]:
    """x uint8 [rows, …], mapped, and y int64 [rows] of a shard whose size and header, and for ``verify`` every byte, are as recorded.

    Raises:
        ValueError: naming the file that is missing or damaged.
    """
    path, shard = folder / name_of(split, number), record.shards[split][number]
    try:
        if (size := path.stat().st_size) != shard.size:
            raise ValueError(f"{size} bytes, {shard.size} were expected")
        if verify and (found := _sha256(path)) != shard.sha256:
            raise ValueError(f"SHA-256 {found}, {shard.sha256} was expected")
        with safe_open(path, "pt") as file:
            if file.metadata() != {"name": path.name} or set(file.keys()) != {"x", "y"}:
                raise ValueError(f"its header is not that of {path.name}")
            x, y = file.get_tensor("x"), file.get_tensor("y")  # maps of the file: nothing is read yet, nothing is kept open
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {AGAIN}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); {AGAIN}") from error
    for name, tensor, dtype, shape in (("x", x, torch.uint8, record.encoder.in_shape), ("y", y, torch.int64, ())):
        if tensor.dtype != dtype or tensor.shape != (shard.rows, *shape):
            expected = f"{dtype} {[shard.rows, *shape]} was expected"
            raise ValueError(f"{path} is damaged ({name} is {tensor.dtype} {list(tensor.shape)}, {expected}); {AGAIN}")
    return x.numpy(), y


def shards(
    path: str | Path, *, memory: bool = False, form: Literal["auto", "pictures", "patches"] = "auto", verify: bool = False
) -> Splits:
    """The folder that ``lmn preprocess`` made: x float32 in [0, 1], the same numbers that decoding the pictures gives.

    x is [n, height, width] (grey), [n, 3, height, width] or, in patches, [n, rows, columns, C, p, p]. The files are mapped into memory: a
    row is read when a batch asks for it. They must not change meanwhile.

    Args:
        path: the folder.
        memory: whether all rows are read at once, into memory.
        form: "pictures", put together again where the shards hold patches; "patches"; or "auto", as they are stored.
        verify: whether the checksum of every shard is computed first; its size and header are always looked at.

    Raises:
        ValueError: naming the argument, or the file that is missing, damaged or not finished, and how to make it again.
    """
    _checks.flag("memory", memory)
    _checks.choice("form", form, ("auto", "pictures", "patches"))
    _checks.flag("verify", verify)
    folder = existing(path)
    record = read_record(folder)
    _check_complete(folder, record)
    encoder = record.encoder
    if form == "patches" and encoder.patch is None:
        raise ValueError(
            f"form must be 'auto' or 'pictures' of {folder}, which holds whole pictures (lmn preprocess --patch cuts them), got 'patches'"
        )
    if form == "pictures":
        encoder = dataclasses.replace(encoder, patch=None)
    parts = [_split(folder, record, split, encoder, verify) for split in SPLITS]
    if memory:
        needed = 4 * sum(part.x.shape.numel() for part in parts)
        refuse_without_memory(f"{sum(map(len, parts))} rows of {folder} with memory=True", needed)
        parts = [Split(_in_memory(part.x), part.y) for part in parts]
    return Splits(record.name, parts[0], parts[1], parts[2], encoder)


def _check_complete(folder: Path, record: ShardRecord) -> None:
    if not record.complete:
        raise ValueError(f"{folder} is not finished; {AGAIN}")


def _split(folder: Path, record: ShardRecord, split: str, encoder: PictureEncoder, verify: bool) -> Split:
    numbers = sorted(record.shards[split])
    if numbers != list(range(len(numbers))) or not numbers:
        raise ValueError(f"{folder / RECORD} is damaged (shards {numbers} of {split}); {AGAIN}")
    opened = [open_shard(folder, record, split, number, verify=verify) for number in numbers]
    key = hashlib.blake2b(" ".join(record.shards[split][number].sha256 for number in numbers).encode(), digest_size=16).hexdigest()
    return Split(ByteRows([x for x, _ in opened], encoder, key), torch.cat([y for _, y in opened]))


def _in_memory(rows: Tensor | Rows) -> Tensor:
    held = torch.empty(rows.shape, dtype=torch.float32)
    start = 0
    for chunk in chunks(rows):
        held[start : start + len(chunk)] = chunk
        start += len(chunk)
    return held


def verify_shards(path: str | Path, progress: Callable[[int], None] = lambda rows: None) -> ShardRecord:
    """Compare every byte of a folder of shards with its record, which is returned.

    Args:
        path: the folder.
        progress: called with the number of rows of every shard that is as it should be.

    Raises:
        ValueError: naming the first file that is missing, damaged or not finished.
    """
    folder = existing(path)
    record = read_record(folder)
    _check_complete(folder, record)
    for split in SPLITS:
        for number in sorted(record.shards[split]):
            open_shard(folder, record, split, number, verify=True)
            progress(record.shards[split][number].rows)
    return record
