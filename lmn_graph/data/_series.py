"""Forecasts from a series in time order: windows, a split by time, scaling fitted on the past alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from topologies import _checks
from topologies._graph import refuse_without_memory

from ._npz import DAMAGE
from ._seasons import VALUES, season
from ._streams import Stream, StreamSplits, ValueEncoder
from ._target import LARGEST, Target
from .base import ENCODERS, Encoder, Inputs, Split, Splits, existing


def series(
    path: str | Path,
    *,
    window: int = 64,
    horizon: int = 1,
    column: int = 0,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    stride: int = 1,
    stream: bool = False,
) -> Splits | StreamSplits:
    """Forecast of a series u: x = u[s : s + window], y = u[s + window − 1 + horizon]; x float32 [n, window].

    The values are cut by time into a training, a validation and a test part, and every row lies within one of them: none of the values of
    one split, inputs or targets, is in another. The training values get mean 0 and variance 1; the same scale holds for everything else.

    Args:
        path: an .npy file of numbers [n] or [n, k] in time order; nothing is unpickled.
        window: values that a forecast sees.
        horizon: steps from the last of them to the value that is forecast.
        column: of an array [n, k], the one that is seen and forecast.
        test_fraction: share of all values, the last ones, in (0, 0.9]; at least one row.
        validation_fraction: share of the remaining values, the last ones, in (0, 0.9]; at least one row.
        stride: steps from the start of one row to the start of the next.
        stream: no rows but the values one after the other, each the target of the one before; ``window``, ``horizon`` and ``stride``
            mean nothing then.

    Raises:
        ValueError: naming the argument, or the row of the file; a file that is too short, with the number of values that are needed.
    """
    found = existing(path)
    return forecasts(
        found.name,
        str(found),
        lambda: read_series(found, column),
        column=column,
        window=window,
        horizon=horizon,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        stride=stride,
        stream=stream,
    )


def forecasts(
    name: str,
    where: str,
    read: Callable[[], np.ndarray],
    *,
    window: int,
    horizon: int,
    test_fraction: float,
    validation_fraction: float,
    stride: int,
    column: int = 0,
    stream: bool = False,
) -> Splits | StreamSplits:
    """Splits of the values float64 [n] that ``read()`` gives once the other arguments, those of ``series``, are checked.

    Args:
        name: of the splits.
        where: the start of a message about the values.
    """
    _checks.integer("window", window, minimum=1)
    _checks.integer("horizon", horizon, minimum=1)
    _checks.integer("stride", stride, minimum=1)
    _checks.integer("column", column, minimum=0)
    _checks.number("test_fraction", test_fraction, above=0, maximum=0.9)
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    values = read()
    if _checks.flag("stream", stream):
        return _streamed(name, where, values, test_fraction, validation_fraction)
    span = window + horizon  # values from the first input of a row to its target
    needed = 3 * span + stride  # two rows to train on, one for each of the other splits
    if len(values) < needed:
        sizes = f"window {window}, horizon {horizon} and stride {stride}"
        raise ValueError(f"{where}: {len(values)} values are too few for {sizes}: at least {needed} are needed")
    test = min(max(span, round(len(values) * test_fraction)), len(values) - 2 * span - stride)
    rest = len(values) - test
    validation = min(max(span, round(rest * validation_fraction)), rest - span - stride)
    refuse_without_memory(f"{where}: window={window}, stride={stride}", 4 * window * (len(values) // stride))
    parts = np.split(values, [rest - validation, rest])
    target = Target.regression("value", parts[0][:, None])
    encoder = SeriesEncoder(target, window, horizon, column)
    splits = []
    for part in parts:
        starts = np.arange(0, len(part) - span + 1, stride)
        goals = part[starts + span - 1]
        splits.append(Split(encoder.transform(part, starts), target.encode_numbers(goals[:, None])))
    return Splits(name, splits[0], splits[1], splits[2], encoder)


def _streamed(name: str, where: str, values: np.ndarray, test_fraction: float, validation_fraction: float) -> StreamSplits:
    test = max(2, round(len(values) * test_fraction))
    rest = len(values) - test
    validation = max(2, round(rest * validation_fraction))
    if rest - validation < 2:
        raise ValueError(f"{where}: {len(values)} values are too few for a stream: at least 6 are needed")
    parts = np.split(values, [rest - validation, rest])
    encoder = ValueEncoder(Target.regression("value", parts[0][:, None]))
    train, held_out, last = (Stream(encoder.target.encode_numbers(part[:, None]).numpy()) for part in parts)
    return StreamSplits(name, train, held_out, last, encoder)


def read_series(path: Path, column: int) -> np.ndarray:
    """Column ``column`` of an .npy file as float64 [n].

    Raises:
        ValueError: if the file is no array of numbers [n] or [n, k > column], or its column holds NaN, inf or a number beyond float32.
    """
    try:
        with open(path, "rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except DAMAGE as error:
        raise ValueError(f"{path} is not an .npy file of numbers, or damaged: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} must hold numbers, got dtype {array.dtype}")
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{path} must have shape [n] or [n, k], got {list(array.shape)}")
    columns = 1 if array.ndim == 1 else array.shape[1]
    if column >= columns:
        raise ValueError(f"column must be an integer in [0, {columns - 1}], the columns of {path}, got {column}")
    values = array.reshape(len(array), -1)[:, column].astype(np.float64)
    bad = ~(np.abs(values) <= LARGEST)
    if bad.any():
        raise ValueError(f"{path} holds NaN, inf or a number beyond float32 in row {int(bad.argmax())}")
    return values


@ENCODERS.register(name="series")
@dataclass(frozen=True)
class SeriesEncoder(Encoder):
    """Windows of a series, (u − mean) / scale with the target's mean and scale: x [n, window].

    Args:
        target: what is predicted, one number.
        window: values that a forecast sees.
        horizon: steps from the last of them to the value that is forecast.
        column: of an array [n, k], the one that is used.
    """

    window: int
    horizon: int = 1
    column: int = 0

    kind: ClassVar[str] = "series"
    accepts: ClassVar[str] = "an .npy with at least one window of numbers in time order"

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.window,)

    def encode(self, path: str | Path) -> Inputs:
        """Every window of the file, the last one included: what is predicted from that is not in the file."""
        found = existing(path)
        values = read_series(found, self.column)
        if len(values) < self.window:
            raise ValueError(f"{found}: {len(values)} values are too few for a window: at least {self.window} are needed")
        starts = np.arange(len(values) - self.window + 1)
        refuse_without_memory(f"{found}: window={self.window}", 4 * self.window * len(starts))
        return Inputs(self.transform(values, starts), [f"row {start + self.window - 1 + self.horizon}" for start in starts])

    def transform(self, values: np.ndarray, starts: np.ndarray) -> torch.Tensor:
        """Model input float32 [n, window] from float64 [m]: the windows that begin at ``starts``."""
        scaled = self.target.encode_numbers(values[:, None])[:, 0].numpy()
        return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(scaled, self.window)[starts])

    def baselines(self, split: Split, train: Split) -> dict[str, torch.Tensor]:
        """The training mean, the last value of the window and, if the training rows have a period within it, the value a period ago."""
        seen, known = split.x[:], train.x[:VALUES]
        found = {"mean": train.y.mean(0).expand(len(split), -1), "last_value": seen[:, -1:]}
        back = season((known.flip(1) - train.y[:VALUES]).square().mean(0).numpy())  # of the values from the last one back
        return found if back is None else {**found, "seasonal": seen[:, self.window - 1 - back, None]}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> SeriesEncoder:
        return cls(fields["target"], fields["window"], fields["horizon"], fields["column"])
