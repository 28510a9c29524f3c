"""From pictures to shards: each written whole or not at all, taken up again where it was interrupted."""

from __future__ import annotations

import functools
import hashlib
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.numpy import save

from lmn_graph._files import holding, write_bytes
from lmn_graph.patches import patchify
from topologies import _checks

from ._listing import Broken, Listed, Listing, check_reading, left_out
from ._pictures import PictureEncoder, decode
from ._rows import files_digest
from ._shards import RECORD, SPLITS, Shard, ShardRecord, is_intact, name_of, open_shard, read_record, verify_shards


class Source(Protocol):
    """The rows of one split, from which shards are made."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Of the rows from start to stop those that can be read: x uint8 [m, …] and labels int64 [m]; why the first other one cannot."""


def preprocess(
    listing: Listing,
    out: str | Path,
    *,
    size: int,
    mode: str,
    patch: int | None = None,
    shard_size: int = 1024,
    broken: Broken = "fatal",
    verify: bool = False,
    progress: bool = False,
) -> Path:
    """Decode pictures once and write them as shards, which ``data.load(out)`` reads without ever holding all of them in memory.

    What was interrupted goes on with the next call of the same arguments: shards that are there are compared with their checksums, those
    that are missing or damaged are made. Finished shards are left as they are. The bytes depend on pictures and arguments alone.

    Args:
        listing: the pictures, ``data.folder.listing("photos")`` for one.
        out: the folder of the shards: a new or empty one, or one that was begun with the same arguments.
        size: height and width in pixels.
        mode: "L" (grey) or "RGB".
        patch: side of the patches into which pictures are cut, in pixels; None: they are stored whole.
        shard_size: rows of a shard; so many pictures are in memory at a time.
        broken: a picture that cannot be read is an error for "fatal"; for "skip" it is left out with a warning.
        verify: whether all shards are read again at the end, and compared with their checksums.
        progress: whether a bar is shown where there is a terminal.

    Returns:
        The folder.

    Raises:
        ValueError: naming the argument, the picture that cannot be read, the folder if it holds something else, shards of other arguments
            or pictures, the folder if another call is at work in it, or the file that cannot be written.
    """
    check_reading(size=size, mode=mode, broken=broken)
    if patch is not None:
        _checks.integer("patch", patch, minimum=1)
    encoder = PictureEncoder(listing.target, (size, size), mode, patch)
    parts = {split: getattr(listing, split) for split in SPLITS}
    made = {"size": size, "mode": mode, "patch": patch, "broken": broken, "pictures": _digest(listing)}
    record = ShardRecord(listing.name, encoder, made, {}, False)
    sources = {split: _Pictures(part, encoder, broken) for split, part in parts.items()}
    name = functools.partial(left_out, listing)
    return write_shards(Path(out), sources, record, shard_size=shard_size, name=name, verify=verify, progress=progress)


class _Pictures:
    """Picture files, whole or cut into patches."""

    def __init__(self, part: Listed, encoder: PictureEncoder, broken: Broken) -> None:
        self.part, self.encoder, self.broken = part, encoder, broken

    def __len__(self) -> int:
        return len(self.part.paths)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, str]:
        x, rows, error = decode(self.part.paths[start:stop], self.encoder.size, self.encoder.mode, skip=self.broken == "skip")
        return cut(x, self.encoder.patch), self.part.labels[start:stop][rows], error


def cut(pictures: np.ndarray, patch: int | None) -> np.ndarray:
    """``pictures``, or their patches."""
    return pictures if patch is None else patchify(torch.from_numpy(pictures), patch).contiguous().numpy()


def _digest(listing: Listing) -> str:
    """Of the files, their labels and their split."""
    parts = [getattr(listing, split) for split in SPLITS]
    found = hashlib.blake2b(files_digest([path for part in parts for path in part.paths]).encode(), digest_size=16)
    for part in parts:
        found.update(f"{len(part.paths)} ".encode() + part.labels.astype("<i8").tobytes())
    return found.hexdigest()


def write_shards(
    out: Path,
    sources: Mapping[str, Source],
    record: ShardRecord,
    *,
    shard_size: int,
    name: Callable[[list[np.ndarray], list[str]], str] | None = None,
    verify: bool = False,
    progress: bool = False,
) -> Path:
    """Write the rows of every split; see ``preprocess``.

    Args:
        out: the folder.
        sources: by split.
        record: its name, its encoder, and from what the shards are made; it has no shards yet.
        shard_size: rows of a shard.
        name: from the labels that are kept in every split, and the reasons why others are not, to the name of the whole; it may refuse it.
        verify, progress: as of ``preprocess``.
    """
    _checks.integer("shard_size", shard_size, minimum=1)
    _checks.flag("verify", verify)
    record.made["shard_size"] = shard_size
    out = out.expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out {str(out)!r} cannot be made or written: {error.strerror}") from error
    with holding(out, "lmn preprocess"):
        begun = _begun(out, record)
        plan = [(split, i, start) for split in SPLITS for i, start in enumerate(range(0, len(sources[split]), shard_size))]
        shards = {split: {i: begun[split][i] for _, i, _ in plan if i in begun[split]} for split in SPLITS}
        record = ShardRecord(record.name, record.encoder, record.made, shards, False)
        with _Bar(sum(map(len, sources.values())), progress) as bar:
            _write(out, sources, record, [step for step in plan if not _kept(out, record, *step[:2], bar)], shard_size, bar)
            labels = [np.concatenate([open_shard(out, record, split, i)[1].numpy() for i in shards[split]]) for split in SPLITS]
            errors = [shard.error for split in SPLITS for shard in shards[split].values() if shard.error]
            ShardRecord(name(labels, errors) if name else record.name, record.encoder, record.made, shards, True).write(out)
            if verify:
                bar.again("checking")
                verify_shards(out, bar.update)
    return out


def _begun(out: Path, record: ShardRecord) -> dict[str, dict[int, Shard]]:
    """The shards of an earlier call with the same arguments, by split and number; an empty folder has none."""
    try:
        parts = set(out.glob(".*.part"))  # what killed processes left
        empty = set(out.iterdir()) == parts
        if empty or (out / RECORD).is_file():
            for part in parts:
                part.unlink(missing_ok=True)
        if empty:
            return {split: {} for split in SPLITS}
    except OSError as error:
        raise ValueError(f"out {str(out)!r} cannot be made or written: {error.strerror}") from error
    if not (out / RECORD).is_file():
        raise ValueError(f"out {str(out)!r} must not exist, be empty, or hold shards of the same pictures")
    found = read_record(out)
    for key in sorted({*found.made, *record.made}):
        if found.made.get(key) != record.made.get(key):
            what = f"{key}={found.made.get(key)!r}, now it is {record.made.get(key)!r}"
            raise ValueError(f"out {str(out)!r} holds shards made with {what}: choose another folder, or delete this one")
    return found.shards


def _kept(out: Path, record: ShardRecord, split: str, number: int, bar: _Bar) -> bool:
    """Whether a shard is there already."""
    shard = record.shards[split].get(number)
    if shard is None or not is_intact(out / name_of(split, number), shard):
        return False
    bar.update(shard.rows + shard.broken)
    return True


def _write(
    out: Path, sources: Mapping[str, Source], record: ShardRecord, plan: list[tuple[str, int, int]], shard_size: int, bar: _Bar
) -> None:
    shape = record.encoder.in_shape
    needed = math.prod(shape) * sum(min(shard_size, len(sources[split]) - start) for split, _, start in plan)
    if needed > (free := shutil.disk_usage(out).free):
        raise ValueError(f"out {str(out)!r} would take {needed / 2**30:.1f} GiB more, of which {free / 2**30:.1f} GiB are free there")
    for split, number, start in plan:
        stop = min(start + shard_size, len(sources[split]))
        x, y, error = sources[split].read(start, stop)
        # One entry of metadata only: the order of several is not fixed, and a shard that is made again is to have the same bytes.
        content = save({"x": np.ascontiguousarray(x).reshape(-1, *shape), "y": y.astype(np.int64)}, {"name": name_of(split, number)})
        shard = Shard(len(y), len(content), hashlib.sha256(content).hexdigest(), stop - start - len(y), error)
        record.shards[split][number] = shard
        path = out / name_of(split, number)
        try:
            write_bytes(path, content)
            record.write(out)
        except OSError as failure:
            kept = "shards that are whole are kept: the same again goes on"
            raise ValueError(f"{path} cannot be written: {failure.strerror}; {kept}") from failure
        bar.update(stop - start)


class _Bar:
    """A bar of rows, where there is a terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total, unit="row", desc="writing", dynamic_ncols=True, leave=False, disable=not (shown and sys.stderr.isatty())
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *failure: object) -> None:
        self._bar.close()

    def update(self, rows: int) -> None:
        self._bar.update(rows)

    def again(self, text: str) -> None:
        self._bar.reset()
        self._bar.set_description(text)
