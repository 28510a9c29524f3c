"""Features of samples that were seen before, in an SQLite file: f is run once per sample, whatever epoch, run or process asks."""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_ASKED = 500  # keys in one question: SQLite takes 999 at least
_WAIT = 30.0  # seconds for another process that writes
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_SHORT_READ}
_SCHEMA = "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL)"


class FeatureCache:
    """f(x) by the content of x, for a function f of single samples that never changes.

    A row is a sample: BLAKE2b of its bytes, dtype and shape; f(x) in float32; CRC-32 of both. A row that is damaged counts as not there and
    is written anew, a damaged file is refused. Every look-up opens the file, and all new rows of a batch are one transaction of a
    write-ahead log: processes may share a file, be forked, and be killed at any moment. Where nothing can be written (a full disk, a folder
    that may only be read) there is one warning, and features are computed as without a cache.

    Args:
        folder: where the file is; made when the first features are kept.
        name: of the file, without its ending: everything that determines f.

    Raises:
        ValueError: if ``folder`` is there and no folder.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self.path = folder_of(folder) / f"{name}.sqlite"
        self._reads = self._writes = True

    def features(self, x: Tensor, f: Callable[[Tensor], Tensor], size: int) -> Tensor:
        """f(x) [B, F], float32, on the device of x; f is called once at most, with the samples that are not there yet.

        Args:
            x: samples [B, …], one at least.
            f: samples [n, …] → features [n, F].
            size: F.

        Raises:
            ValueError: if the file is damaged, or no cache.
        """
        keys = sample_keys(x)
        found = self._read(keys, size)
        missing: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in found:
                missing.setdefault(key, row)
        if missing:
            rows = list(missing.values())
            computed = f(x if len(rows) == len(x) else x[rows]).detach().to("cpu", torch.float32).numpy()
            new = dict(zip(missing, computed))
            self._write(new)
            found |= new
        return torch.from_numpy(np.stack([found[key] for key in keys]).astype(np.float32, copy=False)).to(x.device)

    def _read(self, keys: Sequence[bytes], size: int) -> dict[bytes, np.ndarray]:
        """The features that are there and whole."""
        found: dict[bytes, np.ndarray] = {}
        asked = list(dict.fromkeys(keys))
        try:
            if not self._reads or not self.path.exists():
                return found
            with self._opened() as connection:
                for first in range(0, len(asked), _ASKED):
                    part = asked[first : first + _ASKED]
                    question = f"SELECT key, value, crc FROM features WHERE key IN ({', '.join('?' * len(part))})"
                    for key, value, crc in connection.execute(question, part):
                        if isinstance(value, bytes) and len(value) == 4 * size and _checksum(key, value) == crc:
                            found[key] = np.frombuffer(value, dtype="<f4")
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            self._reads = False
        return found

    def _write(self, new: Mapping[bytes, np.ndarray]) -> None:
        if not self._writes:
            return
        values = {key: feature.astype("<f4").tobytes() for key, feature in new.items()}
        rows = [(key, value, _checksum(key, value)) for key, value in values.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        try:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:  # at the very first opening by several processes, all but one are turned away
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
            yield connection
        finally:
            connection.close()

    def _failed(self, error: sqlite3.Error | OSError) -> None:
        """A ValueError for a damaged file; else nothing is written any more, and the first time there is a warning."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and {code, code & 0xFF} & _DAMAGED:
            message = f"cache file {str(self.path)!r} is damaged ({error}); delete it: its features are then computed anew"
            raise ValueError(message) from None
        if self._writes:
            message = f"cache file {str(self.path)!r} cannot be used ({error}): features are computed and not kept"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._writes = False


def folder_of(folder: str | Path) -> Path:
    """A folder that is there or can be made later, or a ValueError."""
    if not isinstance(folder, (str, Path)) or not str(folder):
        raise ValueError(f"cache must be None or a folder, got {folder!r}")
    found = Path(folder).expanduser()
    if found.exists() and not found.is_dir():
        raise ValueError(f"cache must be None or a folder, got {str(folder)!r}, which is a file")
    return found


def sample_keys(x: Tensor) -> list[bytes]:
    """BLAKE2b of the bytes, dtype and shape of every sample [B, …]."""
    start = hashlib.blake2b(f"{x.dtype} {tuple(x.shape[1:])} ".encode(), digest_size=20)
    keys = []
    for row in x.detach().cpu().contiguous().numpy():
        key = start.copy()
        key.update(np.ascontiguousarray(row).data)
        keys.append(key.digest())
    return keys


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))
