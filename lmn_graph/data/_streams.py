"""Sequences longer than a sample: tokens of a text or values of a series in their order, cut into documents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import ENCODERS, Encoder, Inputs, Parts

BLOCK = 1 << 20  # values that are looked at together


@dataclass(frozen=True)
class Stream:
    """Values one after the other; each is the target of the one before it, and memory of the past ends where a document begins.

    Args:
        values: integer tokens [n], an array or a map of a file; or floating-point numbers [n, F], scaled.
        starts: int64, the positions at which documents begin, ascending from 0.
        characters, words: of the text, for measures that do not depend on the tokens; 0 for numbers.

    Raises:
        ValueError: if there are fewer than two values, they are of another kind, NaN or infinite, or ``starts`` are no such positions.
    """

    values: np.ndarray
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    characters: int = 0
    words: int = 0

    def __post_init__(self) -> None:
        values, starts = self.values, np.asarray(self.starts)
        fits = isinstance(values, np.ndarray) and (values.ndim, values.dtype.kind) in ((1, "u"), (1, "i"), (2, "f"))
        if not fits:
            got = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(f"values must be integers [n] or floating-point numbers [n, F], got {got}")
        if len(values) < 2 or not values[0].size:
            raise ValueError(f"values must hold at least two items, an input and its target, got {len(values)}")
        ascending = starts.ndim == 1 and starts.dtype.kind in "iu" and starts.size > 0 and starts[0] == 0 and (np.diff(starts) > 0).all()
        if not ascending or starts[-1] >= len(values):
            raise ValueError(f"starts must be positions in ascending order from 0 below {len(values)}, got {starts[:5].tolist()} …")
        if values.ndim == 2:
            for first in range(0, len(values), BLOCK):
                bad = ~np.isfinite(values[first : first + BLOCK]).all(1)
                if bad.any():
                    raise ValueError(f"values hold NaN or inf in row {first + int(bad.argmax())}")
        object.__setattr__(self, "starts", starts.astype(np.int64))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_text(self) -> bool:
        """Whether the values are tokens."""
        return self.values.ndim == 1

    def take(self, positions: np.ndarray) -> Tensor:
        """The values at int64 ``positions`` of any shape: tokens int64 [*shape, 1], or numbers float32 [*shape, F]."""
        found = self.values[positions]
        if self.is_text:
            return torch.from_numpy(found.astype(np.int64)).unsqueeze(-1)
        return torch.from_numpy(found.astype(np.float32))

    def targets(self, positions: np.ndarray) -> Tensor:
        """The values after ``positions``: tokens int64 [*shape], or numbers float32 [*shape, F]."""
        found = self.take(positions + 1)
        return found.squeeze(-1) if self.is_text else found

    def begins(self, positions: np.ndarray) -> Tensor:
        """Whether a document begins at ``positions``, bool."""
        place = np.searchsorted(self.starts, positions)
        return torch.from_numpy(self.starts[np.minimum(place, len(self.starts) - 1)] == positions)

    def digest(self) -> str:
        """Of every value, every start and both counts."""
        found = hashlib.blake2b(digest_size=16)
        for first in range(0, len(self), BLOCK):
            block = self.values[first : first + BLOCK]
            found.update(np.ascontiguousarray(block.astype(np.int64 if self.is_text else np.float32)).data)
        found.update(self.starts.tobytes() + f"{self.characters} {self.words}".encode())
        return found.hexdigest()

    def first(self, count: int) -> Stream:
        """The first ``count`` values, with their share of the characters and words."""
        if count >= len(self):
            return self
        share = count / len(self)
        starts = self.starts[self.starts < count]
        return Stream(self.values[:count], starts, round(self.characters * share), round(self.words * share))


@dataclass(frozen=True)
class StreamSplits(Parts):
    """Three streams ready to train on; none shares a value with another.

    Args:
        name: the dataset's name, or the user's file.
        train, validation, test: the streams, all of tokens or all of numbers.
        encoder: fitted on ``train`` alone.

    Raises:
        ValueError: if a stream does not fit the encoder: a token beyond the vocabulary, another number of columns.
    """

    train: Stream
    validation: Stream
    test: Stream

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            stream: Stream = getattr(self, part)
            if stream.is_text != (self.task == "classification"):
                kind = "tokens" if stream.is_text else "numbers"
                raise ValueError(f"{self.name}: {part} must fit the encoder, which is for {self.task}, got {kind}")
            if not stream.is_text and stream.values.shape[1] != self.out_features:
                raise ValueError(f"{self.name}: {part} must have {self.out_features} columns, got {stream.values.shape[1]}")
            for first in range(0, len(stream) if stream.is_text else 0, BLOCK):
                block = stream.values[first : first + BLOCK]
                bad = (block < 0) | (block >= self.out_features)
                if bad.any():
                    place = int(bad.argmax())
                    beyond = f"token {int(block[place])} at position {first + place}"
                    raise ValueError(f"{self.name}: {part} holds {beyond}, beyond the vocabulary of {self.out_features}")

    def describe(self) -> str:
        """One line for people."""
        sizes = f"{len(self.train):,} training, {len(self.validation):,} validation, {len(self.test):,} test"
        if self.train.is_text:
            return f"{self.name}: {sizes} tokens of a vocabulary of {self.out_features:,}"
        return f"{self.name}: {sizes} values; forecast of the next {self.encoder.target.label}"

    def digest(self) -> str:
        """Tells whether data are the same."""
        import json

        found = hashlib.blake2b(digest_size=16)
        for stream in (self.train, self.validation, self.test):
            found.update(stream.digest().encode())
        record: dict[str, Any] = self.encoder.to_dict()
        found.update(json.dumps(record).encode())
        return found.hexdigest()


@ENCODERS.register(name="values")
@dataclass(frozen=True)
class ValueEncoder(Encoder):
    """Numbers one after the other, (u − mean) / scale: an item [F] is the input, the next one the target.

    Args:
        target: what is predicted, F numbers.
    """

    kind: ClassVar[str] = "values"
    accepts: ClassVar[str] = "nothing: lmn_graph.forecast continues a series"

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.target.out_features,)

    def encode(self, path: str | Path) -> Inputs:
        raise ValueError(f"path {str(path)!r} cannot be predicted row by row by a run on a stream: lmn_graph.forecast continues a series")

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> ValueEncoder:
        return cls(fields["target"])
