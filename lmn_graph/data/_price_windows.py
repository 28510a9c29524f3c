"""Windows of the features of price bars, and what encodes a file of them: cut when asked for, so that nothing holds all of them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from topologies._graph import refuse_without_memory

from ._bars import FEATURES, WARM_UP, Features, features
from ._ohlcvt import Bars, Missing, read_bars
from .base import ENCODERS, Encoder, Inputs, Rows, Split, existing


class PriceWindows(Rows):
    """Windows of standardised features, x float32 [n, window, F], taken from an array or a map of a file.

    Args:
        values: features of all bars, float32 [bars, F].
        starts: bar at which each window begins, int64 [n].
        encoder: the window, the means and the scales.
        known: forecasts without a model of every row's target, [n, out_features], by name.
        key: what the fingerprint of the values is.
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray, encoder: BarEncoder, known: dict[str, Tensor], key: str) -> None:
        super().__init__(len(starts), encoder.in_shape)
        self.values, self.starts, self.encoder, self.known, self._key = values, starts, encoder, known, key

    def take(self, rows: np.ndarray) -> Tensor:
        bars = self.starts[rows][:, None] + np.arange(self.encoder.window)
        return self.encoder.transform(self.values[bars])

    def fingerprint(self) -> str:
        """Of every number of the files, the starts, the window and the scales."""
        found = hashlib.blake2b(self.starts.tobytes(), digest_size=16)
        found.update(f"{self._key} {self.encoder.to_dict()}".encode())
        return found.hexdigest()


@ENCODERS.register(name="bars")
@dataclass(frozen=True)
class BarEncoder(Encoder):
    """Windows of features of price bars, (feature − mean) / scale: x [n, window, F].

    Args:
        target: what is predicted.
        interval: minutes of a bar.
        window: bars that a forecast sees.
        horizon: bars from the last of them to the one that is forecast.
        features: "bars" or "moving-averages".
        missing, longest_gap: how gaps are treated, as in ``kraken``.
        mean, scale: of the features of the training bars, F each; a scale is 1 where a feature is constant.
    """

    interval: int
    window: int
    horizon: int
    features: Features
    missing: Missing
    longest_gap: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    kind: ClassVar[str] = "bars"
    accepts: ClassVar[str] = "a .csv of bars without header, unix_seconds,open,high,low,close,volume,trades"

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.window, len(self.mean)

    def encode(self, path: str | Path) -> Inputs:
        """Every window of the file, the last one included, named by the time at which its last bar begins (UTC)."""
        found = existing(path)
        bars = read_bars(found, self.interval, self.missing, self.longest_gap)
        starts = np.flatnonzero(fits(bars, self.window, WARM_UP[self.features]))
        if not len(starts):
            raise too_short(found, len(bars), WARM_UP[self.features] + self.window)
        refuse_without_memory(f"{found}: window={self.window}", 4 * math.prod(self.in_shape) * len(starts))
        x = self.transform(features(bars, self.features)[starts[:, None] + np.arange(self.window)])
        last = bars.time[starts + self.window - 1].astype("datetime64[s]")
        return Inputs(x, np.datetime_as_string(last, unit="m").tolist())

    def transform(self, values: np.ndarray) -> Tensor:
        """Model input from features float32 [..., F]."""
        mean, scale = (np.asarray(part, dtype=np.float32) for part in (self.mean, self.scale))
        return torch.from_numpy((values - mean) / scale)

    def baselines(self, split: Split, train: Split) -> dict[str, Tensor]:
        """The class that most training rows have; or the training mean, and what the bars say: the last value, the one a period before."""
        if self.target.classes is not None:
            most = functional.one_hot(train.y.bincount(minlength=self.target.out_features).argmax(), self.target.out_features)
            return {"majority": most.float().expand(len(split), -1)}
        known = split.x.known if isinstance(split.x, PriceWindows) else {}
        return {"mean": train.y.mean(0).expand(len(split), -1), **known}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> BarEncoder:
        fields = {**fields, "mean": tuple(fields["mean"]), "scale": tuple(fields["scale"])}
        count = len(FEATURES[fields["features"]])
        if len(fields["mean"]) != count or len(fields["scale"]) != count:
            raise ValueError(f"mean and scale must have {count} numbers, got {len(fields['mean'])} and {len(fields['scale'])}")
        return cls(**fields)


def too_short(path: Path, count: int, needed: int) -> ValueError:
    """What is said of a file with fewer bars than a row takes."""
    return ValueError(f"{path}, line {count}: the file ends after {count} bars; a window takes {needed} bars without a longer gap")


def fits(bars: Bars, span: int, warm: int) -> np.ndarray:
    """Whether so many bars from each one on are in its piece, the features having settled: bool [n]."""
    found = np.zeros(len(bars), dtype=bool)
    if len(bars) >= span:
        whole = len(bars) - span + 1
        found[:whole] = bars.piece[:whole] == bars.piece[span - 1 :]
    return found & (bars.place >= warm)
