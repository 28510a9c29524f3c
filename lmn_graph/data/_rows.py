"""Pictures that are not held in memory: decoded from their files, or read from arrays of bytes, when a batch asks for them."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmn_graph.patches import unpatchify

from ._pictures import PictureEncoder, read_pictures
from .base import Rows, chunks

TAIL = 4096  # bytes at the end of a file that its fingerprint reads


class FileRows(Rows):
    """Picture files as x float32 in [0, 1], [n, height, width] for mode "L", [n, 3, height, width] for "RGB", decoded for every batch.

    Args:
        paths: the n files.
        size: (height, width) in pixels.
        mode: "L" or "RGB".
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], mode: str) -> None:
        super().__init__(len(paths), size if mode == "L" else (3, *size))
        self.paths = [os.fspath(path) for path in paths]
        self.size_of_picture, self.mode = size, mode

    def take(self, rows: np.ndarray) -> Tensor:
        return read_pictures([Path(self.paths[row]) for row in rows], self.size_of_picture, self.mode)

    def check(self) -> None:
        """Decode every picture."""
        for _ in chunks(self):
            pass

    def fingerprint(self) -> str:
        """Of the names, sizes and last bytes of the files."""
        return files_digest(self.paths)


def files_digest(paths: Sequence[str | Path]) -> str:
    """Of the names of files below their common folder, their sizes and their last 4,096 bytes: a copy of a folder is the same data.

    Raises:
        ValueError: naming a file that is not there.
    """
    found = hashlib.blake2b(digest_size=16)
    common = len(os.path.commonpath([os.path.dirname(path) for path in paths]))
    for path in paths:
        try:
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL))
                last = zlib.crc32(file.read())
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        found.update(os.fsencode(os.fspath(path)[common:]) + f"\0{size}\0{last}\n".encode())
    return found.hexdigest()


class ByteRows(Rows):
    """Grey values 0 … 255 in arrays one after the other, as x = values / 255 of the shape that an encoder says.

    Args:
        arrays: uint8 [n_i, …], all of one shape: rows as the encoder says, or the patches of its whole pictures; mostly maps of files.
        encoder: what x is.
        key: what the fingerprint goes by.
    """

    def __init__(self, arrays: Sequence[np.ndarray], encoder: PictureEncoder, key: str) -> None:
        self._ends = np.cumsum([len(array) for array in arrays])
        super().__init__(int(self._ends[-1]), encoder.in_shape)
        self._arrays = list(arrays)
        self._encoder = encoder
        self._key = key

    def take(self, rows: np.ndarray) -> Tensor:
        held = np.empty((len(rows), *self._arrays[0].shape[1:]), dtype=np.uint8)
        places = np.searchsorted(self._ends, rows, side="right")
        for row, place, number in zip(held, places.tolist(), (rows - self._ends[places]).tolist()):
            row[...] = self._arrays[place][number]  # counted from the end, where it is the same row
        return self._shaped(torch.from_numpy(np.divide(held, np.float32(255), dtype=np.float32)))

    def _shaped(self, x: Tensor) -> Tensor:
        if x.shape[1:] == self.shape[1:]:
            return x
        x = unpatchify(x, *self._encoder.size)
        return x.contiguous() if self._encoder.mode == "RGB" else x.squeeze(1).contiguous()

    def fingerprint(self) -> str:
        """Of the key and the shape."""
        return f"{self._key} {list(self.shape[1:])}"
