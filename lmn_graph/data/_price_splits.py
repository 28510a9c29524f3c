"""Price bars of many files cut by their dates into training, validation and test windows, none of which looks ahead."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmn_graph._warning import warn

from ._bars import FEATURES, WARM_UP, Features, features, goals
from ._ohlcvt import Bars, Missing
from ._price_windows import BarEncoder, PriceWindows, fits, too_short
from ._target import Target
from .base import CHUNK, Split, Splits

Goal = Literal["direction", "rsi", "return"]
DIRECTIONS = ("down", "up")


class Cutting(NamedTuple):
    """What is made of bars, checked: see ``kraken``."""

    interval: int
    features: Features
    window: int
    horizon: int
    target: Goal
    period: int | None
    gap: int
    test_fraction: float
    validation_fraction: float
    stride: int
    missing: Missing
    longest_gap: int
    memory: bool

    @property
    def span(self) -> int:
        """Bars from the first of a row to the one that is forecast."""
        return self.window + self.horizon


@dataclass(frozen=True)
class _Series:
    """Of one file what rows are cut from, [n] each: dates, settled bars, starts of rows that fit, what was known at every bar."""

    first: int
    time: np.ndarray
    warm: np.ndarray
    starts: np.ndarray
    goal: np.ndarray
    piece: np.ndarray


def split(name: str, files: Iterable[Bars], options: Cutting) -> Splits:
    """The windows of all files' bars, cut by their dates.

    Raises:
        ValueError: if no file is long enough for a row, or a part has none; of some files that are too short a warning says so.
    """
    store, series, short = _Store(options.memory, len(FEATURES[options.features])), [], []
    warm, content = WARM_UP[options.features], hashlib.blake2b(digest_size=16)
    for bars in files:
        whole = fits(bars, options.span, warm)
        if not whole.any():
            short.append(too_short(bars.path, len(bars), warm + options.span))
            continue
        starts = np.flatnonzero(whole & ((bars.place - warm) % options.stride == 0))
        goal = goals(bars, options.target, options.horizon)
        series.append(_Series(store.count, bars.time, bars.place >= warm, starts, goal, bars.piece))
        for column in (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.trades):
            content.update(np.ascontiguousarray(column).data)
        store.add(features(bars, options.features))
    if not series:
        raise short[0]
    if short:
        warn(f"{name}: {len(short)} of {len(short) + len(series)} files are too short and are left out; the first: {short[0]}")
    return _cut(name, series, store.finish(), options, content.hexdigest())


def _cut(name: str, series: list[_Series], values: np.ndarray, options: Cutting, key: str) -> Splits:
    limits = _limits(name, np.unique(np.concatenate([each.time for each in series])), options)
    trained = limits[0][1]
    mean, scale = _moments(values, [each.first + np.flatnonzero(each.warm & (each.time < trained)) for each in series])
    parts = []
    for (low, high), part in zip(limits, ("training", "validation", "test")):
        rows = [(each, _within(each, low, high, options.span)) for each in series]
        if not any(len(starts) for _, starts in rows):
            sizes = f"window {options.window} and horizon {options.horizon}"
            raise ValueError(f"{name}: the {part} part is too short: no row of {sizes} fits into it")
        parts.append([(each, starts) for each, starts in rows if len(starts)])
    reached = [np.concatenate([each.goal[starts + options.span - 1] for each, starts in rows])[:, None] for rows in parts]
    if options.target == "direction":
        target = Target.classification("direction", DIRECTIONS)
    else:
        target = Target.regression(options.target, reached[0])
    shared = (options.interval, options.window, options.horizon, options.features, options.missing, options.longest_gap)
    encoder = BarEncoder(target, *shared, mean, scale)
    splits = []
    for rows, goal in zip(parts, reached):
        starts = np.concatenate([each.first + starts for each, starts in rows])
        classes = target.classes is not None
        y = torch.from_numpy(goal[:, 0].astype(np.int64)) if classes else target.encode_numbers(goal)
        known = {} if classes else _known(rows, target, options)
        splits.append(Split(PriceWindows(values, starts, encoder, known, key), y))
    return Splits(name, splits[0], splits[1], splits[2], encoder)


def _limits(name: str, dates: np.ndarray, options: Cutting) -> list[tuple[float, float]]:
    """[first, last) dates of the three parts, in seconds."""
    usable = len(dates) - 2 * options.gap
    test = round(usable * options.test_fraction)
    validation = round((usable - test) * options.validation_fraction)
    train = usable - test - validation
    if min(train, validation, test) < 1:
        raise ValueError(f"{name}: {len(dates)} dates are too few for three parts with gaps of {options.gap}")
    second, third = train + options.gap, train + validation + 2 * options.gap
    return [(-math.inf, dates[train]), (dates[second], dates[second + validation]), (dates[third], math.inf)]


def _within(series: _Series, low: float, high: float, span: int) -> np.ndarray:
    """Starts of rows whose bars are all in [low, high)."""
    starts = series.starts
    return starts[(series.time[starts] >= low) & (series.time[starts + span - 1] < high)]


def _moments(values: np.ndarray, bars: list[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of these bars' features, some at a time; 1 for the deviation of one that is constant."""
    size = CHUNK // values.shape[1]
    blocks = [rows[first : first + size] for rows in bars for first in range(0, len(rows), size)]
    count = sum(map(len, blocks))
    if not count:
        return (0.0,) * values.shape[1], (1.0,) * values.shape[1]
    mean = sum(values[block].sum(0, dtype=np.float64) for block in blocks) / count
    square = sum(np.square(values[block] - mean).sum(0) for block in blocks) / count
    std = np.sqrt(square)
    return tuple(mean.tolist()), tuple(np.where(std > 1e-9 * np.maximum(1, np.abs(mean)), std, 1.0).tolist())


def _known(rows: list[tuple[_Series, np.ndarray]], target: Target, options: Cutting) -> dict[str, Tensor]:
    """The target's value at the last bar of every window, and a period before the target; the training mean where there is none."""
    lags = {"last_value": options.horizon} | ({} if options.period is None else {"seasonal": options.period})
    found = {}
    for name, lag in lags.items():
        values = []
        for each, starts in rows:
            end = starts + options.span - 1
            then = np.maximum(end - lag, 0)
            value = each.goal[then]
            there = (end >= lag) & (each.piece[then] == each.piece[end]) & np.isfinite(value)
            values.append(np.where(there, value, target.mean[0]))
        found[name] = target.encode_numbers(np.concatenate(values)[:, None])
    return found


class _Store:
    """Features of file after file: in memory, or in a file that vanishes with the last map of it."""

    def __init__(self, memory: bool, width: int) -> None:
        self.count, self._width = 0, width
        self._held: list[np.ndarray] = []
        self._file = None if memory else tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish

    def add(self, values: np.ndarray) -> None:
        self.count += len(values)
        if self._file is None:
            self._held.append(values)
        else:
            self._file.write(np.ascontiguousarray(values).data)

    def finish(self) -> np.ndarray:
        if self._file is None:
            return np.concatenate(self._held)
        with self._file as file:
            file.flush()
            return np.memmap(file, np.float32, "r", shape=(self.count, self._width))
