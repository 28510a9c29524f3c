"""What is computed of price bars: each value from its own bar and earlier ones, none from a later one."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from ._ohlcvt import Bars

Features = Literal["bars", "moving-averages"]
FEATURES: dict[str, tuple[str, ...]] = {
    "bars": (
        *("return", "high", "low", "volume", "trades", "rsi", "fast", "slow", "volatility"),
        *("hour_sin", "hour_cos", "day_sin", "day_cos"),
    ),
    "moving-averages": tuple(f"average_{k}" for k in range(2, 102)),
}
WARM_UP = {"bars": 52, "moving-averages": 100}  # bars at the start of a piece that no window begins with
PERIOD = 14  # of the relative strength index
FAST, SLOW, SPREAD = 12, 26, 20  # bars of the two exponential averages, and of volatility and mean volume
HOUR, DAY = 3600, 86_400


def log_return(close: np.ndarray, horizon: int = 1) -> np.ndarray:
    """ln(c_t / c_{t − horizon}), float64 [n]; NaN for the first ``horizon`` bars."""
    found = np.full(len(close), np.nan)
    logs = np.log(close)
    found[horizon:] = logs[horizon:] - logs[:-horizon]
    return found


def rsi(close: np.ndarray, period: int = PERIOD) -> np.ndarray:
    """Wilder's relative strength index in [0, 100], float64 [n]; NaN for the first ``period`` bars, 50 where no price has changed.

    100 g / (g + l), with g and l the averages of the rises and of the falls of the close: the means of the first ``period`` changes, then
    g ← ((period − 1) g + rise) / period.

    Source: J. Welles Wilder, "New Concepts in Technical Trading Systems", 1978.
    """
    found = np.full(len(close), np.nan)
    if len(close) > period:
        change = np.diff(close)
        rise, fall = _smoothed(change.clip(min=0), period), _smoothed((-change).clip(min=0), period)
        both = rise + fall
        found[period:] = np.where(both > 0, 100 * rise / np.where(both > 0, both, 1), 50.0)
    return found


def averages(close: np.ndarray) -> np.ndarray:
    """c_t / SMA_k − 1 with SMA_k the mean of the last k closes, k = 2 … 101: float64 [n, 100]; NaN where there are fewer than k."""
    import pandas

    prices = pandas.Series(close)
    means = (np.maximum(prices.rolling(k).mean().to_numpy(), close / k) for k in range(2, 102))  # never 0 by rounding
    return np.stack([close / mean - 1 for mean in means], 1)


def indicators(bars: Bars) -> np.ndarray:
    """The 13 features "bars" of one piece, float64 [n, 13], in the order of ``FEATURES``; NaN where there are not enough bars before."""
    import pandas

    close = bars.close
    change = log_return(close)
    prices = pandas.Series(close)
    fast, slow = (prices.ewm(span=span, adjust=False).mean().to_numpy() for span in (FAST, SLOW))
    spread = pandas.Series(change).rolling(SPREAD).std(ddof=0).to_numpy()
    hour, day = (2 * np.pi * (bars.time % every) / every for every in (DAY, 7 * DAY))
    columns = [
        *(change, np.log(bars.high / close), np.log(bars.low / close), _beside_mean(bars.volume), _beside_mean(bars.trades)),
        *(rsi(close) / 50 - 1, close / fast - 1, close / slow - 1, spread),
        *(np.sin(hour), np.cos(hour), np.sin(day), np.cos(day)),
    ]
    return np.stack(columns, 1)


def features(bars: Bars, kind: Features) -> np.ndarray:
    """Features float32 [n, F] of every bar, piece by piece; 0 for the first ``WARM_UP[kind]`` bars of a piece, finite everywhere."""
    found = np.zeros((len(bars), len(FEATURES[kind])), dtype=np.float32)
    warm = WARM_UP[kind]
    for part in bars.pieces:
        if part.stop - part.start > warm:
            piece = _piece(bars, part)
            values = indicators(piece) if kind == "bars" else averages(piece.close)
            found[part.start + warm : part.stop] = values[warm:]
    return found


def goals(bars: Bars, target: str, horizon: int) -> np.ndarray:
    """What is known at a bar of the ``horizon`` bars up to it, float64 [n]; NaN where there are not enough before it in its piece.

    "return": ln(c_t / c_{t − horizon}); "direction": 1 where c_t > c_{t − horizon}, else 0; "rsi": the index at t.
    """
    found = np.full(len(bars), np.nan)
    for part in bars.pieces:
        close = bars.close[part]
        if target == "rsi":
            found[part] = rsi(close)
        elif target == "return":
            found[part] = log_return(close, horizon)
        else:
            found[part][horizon:] = close[horizon:] > close[:-horizon]
    return found


def _piece(bars: Bars, part: slice) -> Bars:
    columns = {field.name: getattr(bars, field.name)[part] for field in dataclasses.fields(bars) if field.name != "path"}
    return dataclasses.replace(bars, **columns)


def _smoothed(values: np.ndarray, period: int) -> np.ndarray:
    """Wilder's average, from the mean of the first ``period`` values on: [n] → [n − period + 1]."""
    import pandas

    seeded = np.concatenate([[values[:period].mean()], values[period:]])
    return pandas.Series(seeded).ewm(alpha=1 / period, adjust=False).mean().to_numpy()


def _beside_mean(values: np.ndarray) -> np.ndarray:
    """ln((v + m) / 2m), with m the mean of the last bars, v among them: free of the unit; 0 where nothing was traded in all of them."""
    import pandas

    last = pandas.Series(values).rolling(SPREAD)
    most = last.max().to_numpy()
    mean = np.where(most > 0, np.maximum(last.mean().to_numpy(), most / SPREAD), 1.0)  # rounding of the running mean may leave 0
    return np.where(most > 0, np.log((values + mean) / (2 * mean)), 0.0)
