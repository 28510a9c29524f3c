"""Arrays of an .npz file, checked, and the encoder of datasets whose rows are arrays."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lmn_graph.registry import did_you_mean

from ._target import LARGEST
from .base import ENCODERS, Encoder, Inputs, existing

# What zipfile and numpy raise for archives and array headers that are broken, encrypted or larger than memory.
DAMAGE = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, ValueError, OSError, EOFError, RuntimeError, MemoryError, SyntaxError)


def read_npz(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz by name; nothing is unpickled.

    Raises:
        ValueError: naming the file and the array that is missing or unreadable.
    """
    arrays = {}
    name = ""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file, or damaged")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            for name in names:
                if name not in file.files:
                    raise ValueError(f"there is no array {name!r}{did_you_mean(name, file.files)}")
            for name in (*names, *(each for each in optional if each in file.files)):
                arrays[name] = file[name]
    except DAMAGE as error:
        raise ValueError(f"{path}{f', array {name!r}' if name else ''}: {error}") from error
    return arrays


def rows_of(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """``array`` as rows [n, *shape], float32 where that is exact, else float64.

    Raises:
        ValueError: naming the array, for another dtype or shape, or the row with NaN, inf or a number beyond float32.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: array {name!r} must hold numbers, got dtype {array.dtype}")
    if array.ndim < 2 or array.size == 0 or (shape is not None and array.shape[1:] != shape):
        wanted = "..." if shape is None else ", ".join(map(str, shape))
        raise ValueError(f"{path}: array {name!r} must have shape [n, {wanted}], got {list(array.shape)}")
    values = array.astype(np.result_type(array.dtype, np.float32))
    bad = ~(np.abs(values.reshape(len(values), -1)) <= LARGEST)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        where = f"row {row}, column {column}" if values.ndim == 2 and values.shape[1] > 1 else f"row {row}"
        raise ValueError(f"{path}: array {name!r} holds NaN, inf or a number beyond float32 in {where}")
    return values


@ENCODERS.register(name="arrays")
@dataclass(frozen=True)
class ArrayEncoder(Encoder):
    """(x − mean) / scale of an array x [n, *shape].

    Args:
        target: what is predicted.
        shape: of one row.
        mean, scale: one per feature, or a single one for all.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    kind: ClassVar[str] = "arrays"
    accepts: ClassVar[str] = "an .npz with the array x"

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.shape

    def encode(self, path: str | Path) -> Inputs:
        found = existing(path)
        x = self.transform(rows_of(found, "x", read_npz(found, ("x",))["x"], self.shape), f"{found}: array 'x'")
        return Inputs(x, [f"row {i}" for i in range(len(x))])

    def transform(self, values: np.ndarray, what: str) -> torch.Tensor:
        """Model input float32 [n, *shape] of rows."""
        scaled = (values - np.array(self.mean)) / np.array(self.scale)
        if np.abs(scaled).max() > LARGEST:
            raise ValueError(f"{what} holds a number too large for the scale of the training rows")
        return torch.from_numpy(scaled.astype(np.float32))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> ArrayEncoder:
        return cls(fields["target"], tuple(fields["shape"]), tuple(fields["mean"]), tuple(fields["scale"]))
