"""What every dataset returns: three splits of tensors and the encoder that was fitted on the training one."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lmn_graph.registry import Registry

from ._target import Target

DATASETS: Registry[Any] = Registry("dataset")
ENCODERS: Registry[Any] = Registry("encoder")
CHUNK = 1 << 20  # numbers that are looked at together


class MissingData(ValueError):
    """The files of a dataset are not there; the message names them and says where to get them. Wrong options are plain ValueErrors."""


def existing(path: str | Path) -> Path:
    """``path`` with a leading ~ resolved, or a ValueError if nothing is there."""
    if not isinstance(path, (str, Path)) or not str(path):
        raise ValueError(f"path must be the name of a file or folder, got {path!r}")
    found = Path(path).expanduser()
    if not os.path.exists(found):
        raise ValueError(f"path {str(path)!r} does not exist")
    return found


class Rows(ABC):
    """Inputs that are made when they are asked for; read along the first axis as a tensor float32 [n, *in_shape] would be.

    ``rows[i]`` with a slice, a tensor of row numbers or a mask is a new tensor of these rows, with a number that row alone. Every number is
    finite: nobody looks at all of them.

    Args:
        count: n, >= 1.
        in_shape: of a row.
    """

    dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, count: int, in_shape: Sequence[int]) -> None:
        self.shape = torch.Size((count, *in_shape))

    @abstractmethod
    def take(self, rows: np.ndarray) -> Tensor:
        """Rows float32 [m, *in_shape] of these numbers, int64 [m] in 0 … n − 1; called by one thread at a time, not
        always the same.

        Raises:
            ValueError: naming the file that cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """What is another if a row is another, found without reading all of them."""

    def check(self) -> None:  # noqa: B027 - most rows need no look
        """Look at every row where that can fail.

        Raises:
            ValueError: naming the first that cannot be made.
        """

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def size(self, axis: int) -> int:
        """Length of one axis."""
        return self.shape[axis]

    def __getitem__(self, index: int | slice | Tensor | np.ndarray) -> Tensor:
        if isinstance(index, slice):
            numbers = np.arange(*index.indices(len(self)), dtype=np.int64)
        else:
            numbers = np.asarray(index)
            numbers = numbers.nonzero()[0] if numbers.dtype == bool and numbers.shape == (len(self),) else numbers
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise IndexError(f"rows are taken by a number, a slice, numbers [m] or a mask [{len(self)}], got {index!r}")
        if numbers.size and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"row numbers must be in 0 … {len(self) - 1}, got {numbers.min()} … {numbers.max()}")
        found = self.take(np.atleast_1d(numbers).astype(np.int64) % len(self))
        return found if numbers.ndim else found[0]

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows, so many at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


def chunks(rows: Tensor | Rows) -> Iterable[Tensor]:
    """Some rows at a time, so that what is computed of them takes little memory."""
    return rows.split(max(1, CHUNK // max(1, math.prod(rows.shape[1:]))))


class Inputs(NamedTuple):
    """A user's file as model input: x float32 [n, *in_shape] and what each row is called ("line 2", "cat.png", "row 0")."""

    x: Tensor
    names: list[str]


class Split(TensorDataset):
    """Rows of one split.

    Args:
        x: float32 [n, *in_shape]; or ``Rows``, which are read along their first axis only.
        y: int64 [n], class numbers; or float32 [n, k], scaled regression targets.
    """

    def __init__(self, x: Tensor | Rows, y: Tensor) -> None:
        if x.dtype != torch.float32 or x.dim() < 2:
            raise ValueError(f"x must be float32 [n, *in_shape], got {x.dtype} {list(x.shape)}")
        if (y.dtype, y.dim()) not in ((torch.int64, 1), (torch.float32, 2)):
            raise ValueError(f"y must be int64 [n] or float32 [n, k], got {y.dtype} {list(y.shape)}")
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"x and y must have the same number of rows, at least one; got {len(x)} and {len(y)}")
        super().__init__(x, y)  # type: ignore[arg-type]

    @property
    def x(self) -> Tensor | Rows:
        return self.tensors[0]

    @property
    def y(self) -> Tensor:
        return self.tensors[1]


@dataclass(frozen=True)
class Encoder(ABC):
    """What was learned from the training split, as plain numbers and words: it goes into a run and turns a user's file into input.

    Subclasses register in ``ENCODERS`` under the class's ``kind`` and hold nothing but JSON types, tuples and ``Target``.
    """

    target: Target

    kind: ClassVar[str]
    accepts: ClassVar[str]

    @property
    @abstractmethod
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input row."""

    @abstractmethod
    def encode(self, path: str | Path) -> Inputs:
        """The rows of the user's file or folder ``path``; raises ValueError naming what does not fit."""

    @classmethod
    @abstractmethod
    def from_fields(cls, fields: dict[str, Any]) -> Encoder:
        """Rebuild from the fields of ``to_dict``, ``target`` already being a Target."""

    def decode(self, prediction: Tensor) -> list[Any]:
        """Predictions [n, out_features] as the user's own words or units: see ``Target.decode``."""
        return self.target.decode(prediction)

    def baselines(self, split: Split, train: Split) -> dict[str, Tensor]:
        """Predictions [n, out_features] of the rows of ``split`` that need no model, by name; none where the data know none."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """A record of JSON types from which ``Encoder.from_dict`` builds an equal encoder."""
        return json.loads(json.dumps({"kind": self.kind, **dataclasses.asdict(self)}))

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Encoder:
        """The encoder that ``to_dict`` described.

        Raises:
            ValueError: if the record is of no known kind, or damaged.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("kind"), str):
            raise ValueError(f"encoder record must be a mapping with a 'kind', got {record!r}"[:200])
        encoder = ENCODERS[record["kind"]]
        try:
            target = Target.from_fields(record["target"])
            return encoder.from_fields({k: v for k, v in record.items() if k not in ("kind", "target")} | {"target": target})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"encoder record of kind {record['kind']!r} is damaged: {error!r}") from error


@dataclass(frozen=True)
class Parts:
    """What every data set is: three parts, of which none shares anything with another, and the encoder fitted on the first.

    Args:
        name: the dataset's name, or the user's file.
        train, validation, test: ``Split`` or ``Stream``.
        encoder: fitted on ``train`` alone.
    """

    name: str
    train: Any
    validation: Any
    test: Any
    encoder: Encoder

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one row, or one item of a stream."""
        return self.encoder.in_shape

    @property
    def out_features(self) -> int:
        """Number of classes, which for text is the size of the vocabulary; or of numbers to predict."""
        return self.encoder.target.out_features

    @property
    def task(self) -> str:
        """ "classification" or "regression"."""
        return self.encoder.target.task

    @property
    def classes(self) -> list[str] | None:
        """Class names, or the vocabulary, in the order of their numbers; None for regression."""
        names: Sequence[str] | None = self.encoder.target.classes
        return None if names is None else list(names)


@dataclass(frozen=True)
class Splits(Parts):
    """A dataset ready to train on; every split holds rows that no other holds.

    Args:
        name: the dataset's name, or the user's file.
        train, validation, test: rows and targets.
        encoder: fitted on ``train`` alone.

    Raises:
        ValueError: if a split does not have the encoder's shapes or holds NaN, inf or a class number out of range.
    """

    train: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            split: Split = getattr(self, part)
            if tuple(split.x.shape[1:]) != self.in_shape:
                raise ValueError(f"{self.name}: {part} rows have shape {tuple(split.x.shape[1:])}, the encoder says {self.in_shape}")
            for label, tensor in (("x", split.x), ("y", split.y)):
                row = 0
                for chunk in () if isinstance(tensor, Rows) else chunks(tensor):
                    finite = torch.isfinite(chunk).flatten(1).all(1) if chunk.dim() > 1 else torch.isfinite(chunk)
                    if not finite.all():
                        raise ValueError(f"{self.name}: {part} {label} row {row + int((~finite).nonzero()[0])} holds NaN or inf")
                    row += len(chunk)
            if self.task == "classification":
                fits = split.y.dim() == 1 and int(split.y.min()) >= 0 and int(split.y.max()) < self.out_features
            else:
                fits = split.y.dim() == 2 and split.y.shape[1] == self.out_features
            if not fits:
                raise ValueError(f"{self.name}: {part} y does not fit {self.task} with {self.out_features} outputs")

    def describe(self) -> str:
        """One line for people."""
        sizes = f"{len(self.train)} training, {len(self.validation)} validation, {len(self.test)} test rows"
        goal = f"{self.out_features} classes" if self.classes else f"regression of {self.encoder.target.label}"
        return f"{self.name}: {sizes}; input {' × '.join(map(str, self.in_shape))}; {goal}"
