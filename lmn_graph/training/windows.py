"""A stream cut into windows that come in their order, in lanes or in whole documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmn_graph.data import Stream
from lmn_graph.training.settings import StreamSettings
from topologies import _checks

IGNORED = -1  # target of what is no item of a document


class Window(NamedTuple):
    """Items of B streams between two steps of the optimiser.

    Attributes:
        x: [B, W, *in_shape].
        y: the targets of the last k items, [B, k] tokens or [B, k, F] numbers; those of tokens are −1 where there is no item.
        starts: bool [B, W], the items that begin a document.
        advance: items from the first of this window to the first of the next one.
        first: whether every stream begins here.
    """

    x: Tensor
    y: Tensor
    starts: Tensor
    advance: int
    first: bool


class StreamBatches:
    """The windows of a stream, row b of a batch being the continuation of row b of the one before.

    By lanes the stream is cut into B pieces of equal length; an epoch leaves out fewer than ``window`` items at the front, another number
    each time, and what is no whole window at the end of the pieces, unless ``whole`` keeps it. By documents every batch holds B of them
    whole. Seed and epoch alone say what is left out, and the order of documents.

    Args:
        stream: the values.
        settings: how they are cut.
        batch_size: B; fewer where the stream is too short for so many lanes of a window.
        shuffle: whether epochs differ.
        seed: of the differences.
        whole: by lanes, keep the last window of them also where it is shorter.

    Raises:
        ValueError: if the stream is shorter than a window.
    """

    def __init__(
        self, stream: Stream, settings: StreamSettings, batch_size: int, *, shuffle: bool = False, seed: int = 0, whole: bool = False
    ) -> None:
        _checks.integer("batch_size", batch_size, minimum=1)
        self.stream, self.settings, self.seed, self.whole = stream, settings, seed, whole
        self.epoch = self.position = 0
        self.shuffle = shuffle
        usable = len(stream) - 1
        if settings.by == "documents":
            self.pieces = _pieces(stream, settings.longest)
            if not len(self.pieces):
                raise ValueError("data must hold a document of at least two items, got none")
            self.lanes = min(batch_size, len(self.pieces))
            return
        if usable < settings.window:
            raise ValueError(f"stream.window must be at most {usable} for a stream of {len(stream)} items, got {settings.window}")
        self.spare = settings.window - 1 if shuffle else 0
        self.spare = min(self.spare, usable - settings.window)
        self.lanes = max(1, min(batch_size, (usable - self.spare) // settings.window))
        self.length = (usable - self.spare) // self.lanes

    def __len__(self) -> int:
        if self.settings.by == "documents":
            return -(-len(self.pieces) // self.lanes)
        return -(-self.length // self.settings.window) if self.whole else self.length // self.settings.window

    def __iter__(self) -> Iterator[Window]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        drawn = np.random.default_rng([self.seed, self.epoch])
        make = self._documents if self.settings.by == "documents" else self._lanes
        find = make(drawn)
        for number in range(self.position, len(self)):
            self.position += 1
            yield find(number)

    def _lanes(self, drawn: np.random.Generator) -> Any:
        offset = int(drawn.integers(self.spare + 1)) if self.spare else 0
        window, back = self.settings.window, self.settings.back or self.settings.window
        lanes = offset + np.arange(self.lanes)[:, None] * self.length

        def find(number: int) -> Window:
            stop = min((number + 1) * window, self.length)
            begin, after = max(0, (number + 1) * window - back), max(0, (number + 2) * window - back)
            positions = lanes + np.arange(begin, stop)
            y = self.stream.targets(positions[:, number * window - begin :])
            return Window(self.stream.take(positions), y, self.stream.begins(positions), after - begin, number == 0)

        return find

    def _documents(self, drawn: np.random.Generator) -> Any:
        order = drawn.permutation(len(self.pieces)) if self.shuffle else np.arange(len(self.pieces))

        def find(number: int) -> Window:
            pieces = self.pieces[order[number * self.lanes : (number + 1) * self.lanes]]
            lengths = pieces[:, 1:] - pieces[:, :1]
            places = np.arange(int(lengths.max()))[None]
            positions = pieces[:, :1] + np.minimum(places, lengths - 1)
            y, there = self.stream.targets(positions), torch.from_numpy(places < lengths)
            y = y.masked_fill(~there, IGNORED) if self.stream.is_text else y.masked_fill(~there.unsqueeze(-1), math.nan)
            starts = torch.zeros_like(there)
            return Window(self.stream.take(positions), y, starts, 0, True)

        return find

    def close(self) -> None:
        """Nothing is read ahead."""

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position, normalised so that the end of an epoch is the start of the next."""
        ended = self.position >= len(self)
        return {"epoch": self.epoch + ended, "position": 0 if ended else self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


def _pieces(stream: Stream, longest: int) -> np.ndarray:
    """First and last position, int64 [m, 2], of the inputs of documents: the last item of one is no input, only a target."""
    ends = np.append(stream.starts[1:], len(stream))
    found = [(first, min(first + longest, end - 1)) for start, end in zip(stream.starts, ends) for first in range(start, end - 1, longest)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)
