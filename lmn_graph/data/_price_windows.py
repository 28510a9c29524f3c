"""Windows of price bars, cut by time; read when they are asked for, so that nothing holds all of them."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lmn_graph._warning import warn
from lmn_graph.registry import did_you_mean
from topologies import _checks
from topologies._graph import refuse_without_memory

from ._bars import FEATURES, WARM_UP, Features, features, goals
from ._ohlcvt import NAME, Bars, Missing, interval_of, read_bars
from ._specimen import SIZES
from ._target import Target
from .base import CHUNK, DATASETS, ENCODERS, Encoder, Inputs, MissingData, Rows, Split, Splits, existing

Goal = Literal["direction", "rsi", "return"]
GOALS = ("direction", "rsi", "return")
DIRECTIONS = ("down", "up")
LINE = 40  # bytes, about the shortest line of a file


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
        starts = np.flatnonzero(_fits(bars, self.window, WARM_UP[self.features]))
        if not len(starts):
            raise _too_short(found, len(bars), WARM_UP[self.features] + self.window)
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


class _Options(NamedTuple):
    """Checked options of ``kraken`` that say what is made of bars."""

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


def _make_up(name: str, options: dict[str, Any]) -> Splits:
    """The first rows of a random walk of prices, through the same code."""
    chosen = _checked(**{key: value for key, value in options.items() if key not in ("root", "pairs")})
    chosen = chosen._replace(test_fraction=0.2, validation_fraction=0.25, memory=True)
    count = 2 * chosen.gap + 2 * (WARM_UP[chosen.features] + SIZES[0] * chosen.stride) + 6 * chosen.span
    generator = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, count)))
    opening = np.concatenate([[100.0], close[:-1]])
    above, below = np.exp(np.abs(generator.normal(0, 0.005, (2, count))))
    high, low = np.maximum(opening, close) * above, np.minimum(opening, close) / below
    trades = generator.poisson(20, count).astype(np.float64)
    time = 60 * chosen.interval * np.arange(count, dtype=np.int64)
    volume = trades * generator.exponential(1, count)
    bars = Bars(Path("made up"), time, opening, high, low, close, volume, trades, np.zeros(count, dtype=np.int64))
    splits = _split(name, [bars], chosen)
    train, validation, test = (
        Split(part.x[:size], part.y[:size]) for part, size in zip((splits.train, splits.validation, splits.test), SIZES)
    )
    return Splits(f"{name} (specimen: made up for --smoke)", train, validation, test, splits.encoder)


@DATASETS.register
def kraken(
    root: str = "data",
    *,
    interval: int = 60,
    pairs: list[str] | str | None = None,
    features: Features = "bars",
    window: int = 32,
    horizon: int = 1,
    target: Goal = "direction",
    period: int | None = None,
    gap: int | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    stride: int = 1,
    missing: Missing = "split",
    longest_gap: int = 72,
    memory: bool = True,
) -> Splits:
    """Forecasts from windows of price bars: x float32 [n, window, F], the future of their close as target.

    Files are those of Kraken's downloadable history, ``PAIR_INTERVAL.csv`` with lines ``unix_seconds,open,high,low,close,volume,trades``
    and no header. Their dates are cut into a training, a validation and a test part, the same for all files, with ``gap`` dates left out
    in between: no bar of a row, its inputs and its target, is in two splits. Features are made of a bar and earlier ones; their means
    and scales are those of the training bars. Features begin anew after a gap in a file, and the bars that they take to settle
    (52, for "moving-averages" 100) begin no window.

    Args:
        root: a folder with such files, or one of them.
        interval: minutes of a bar.
        pairs: names of the pairs, separated by commas or in a list; None: every file of the interval.
        features: "bars", 13 of every bar; "moving-averages", close / SMA_k − 1 for the means of the last k = 2 … 101 closes.
        window: bars that a forecast sees.
        horizon: bars from the last of them to the one that is forecast.
        target: "direction" of the close over the horizon, "up" or "down", which it also is if they are equal; "return", its natural
            logarithm; "rsi", the relative strength index (14) at the end of the horizon.
        period: bars, at least ``horizon``: the value so long before the target is a baseline of regressions; None: no such baseline.
        gap: dates left out between two splits, at least window + horizon; None: as many as that.
        test_fraction: share of the dates, the last ones, in (0, 0.9].
        validation_fraction: share of the remaining dates, the last ones, in (0, 0.9].
        stride: bars from the start of one row to the start of the next.
        missing: "split": bars may be missing, as at weekends or where nobody traded, and no row spans a gap longer than
            ``longest_gap``; "refuse": a missing bar is an error.
        longest_gap: intervals between two bars; 72 are the weekends of hourly bars, longest holidays among them.
        memory: whether the features of all bars are held in memory, 4 F bytes a bar; else in a file without name among the temporary
            files, mapped into memory. Windows are cut when they are asked for in either case.

    Raises:
        MissingData: if there are no such files.
        ValueError: naming the argument; or file and line of a bar that is not valid; or a file or part that is too short for a row. A
            folder's files that are too short are left out with a warning.
    """
    options = _checked(
        interval=interval,
        features=features,
        window=window,
        horizon=horizon,
        target=target,
        period=period,
        gap=gap,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        stride=stride,
        missing=missing,
        longest_gap=longest_gap,
        memory=memory,
    )
    files = _files(root, interval, pairs)
    if memory:
        size = sum(path.stat().st_size for path in files) // LINE
        refuse_without_memory(f"features of {len(files)} file(s) in memory", 8 * len(FEATURES[features]) * size)
    return _split("kraken", (read_bars(path, interval, missing, longest_gap) for path in files), options)


kraken.specimen = _make_up


def _checked(*, gap: int | None, **options: Any) -> _Options:
    for name in ("interval", "window", "horizon", "stride", "longest_gap"):
        _checks.integer(name, options[name], minimum=1)
    _checks.choice("features", options["features"], tuple(FEATURES))
    _checks.choice("target", options["target"], GOALS)
    _checks.choice("missing", options["missing"], ("split", "refuse"))
    _checks.flag("memory", options["memory"])
    if options["period"] is not None:
        _checks.integer("period", options["period"], minimum=options["horizon"])
    span = options["window"] + options["horizon"]
    gap = span if gap is None else _checks.integer("gap", gap, minimum=span)
    for name in ("test_fraction", "validation_fraction"):
        _checks.number(name, options[name], above=0, maximum=0.9)
    return _Options(gap=gap, **options)


def _files(root: str, interval: int, pairs: list[str] | str | None) -> list[Path]:
    """Files of the pairs, sorted by name."""
    if not isinstance(root, (str, Path)) or not str(root):
        raise ValueError(f"root must be the name of a folder or file, got {root!r}")
    names = pairs.split(",") if isinstance(pairs, str) else pairs
    if names is not None and not (isinstance(names, Sequence) and names and all(isinstance(name, str) and name.strip() for name in names)):
        raise ValueError(f"pairs must be names of pairs, got {pairs!r}")
    folder = Path(root).expanduser()
    if folder.is_file():
        if interval_of(folder) not in (None, interval):
            raise ValueError(f"interval must be that of {folder.name}, {interval_of(folder)}, got {interval}")
        return [folder]
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = NAME.fullmatch(path.name)
        if match and int(match[2]) == interval:
            found[match[1]] = path
    if not found:
        source = 'Kraken offers them under "Downloadable historical OHLCVT data"'
        raise MissingData(f"files of bars PAIR_{interval}.csv are missing in {folder} ({source}); root names their folder, or one file")
    if names is None:
        return list(found.values())
    wanted = list(dict.fromkeys(name.strip() for name in names))
    for name in wanted:
        if name not in found:
            raise ValueError(f"pairs: {folder} has no file {name}_{interval}.csv{did_you_mean(name, list(found))}")
    return [found[name] for name in wanted]


def _too_short(path: Path, count: int, needed: int) -> ValueError:
    return ValueError(f"{path}, line {count}: the file ends after {count} bars; a window takes {needed} bars without a longer gap")


def _fits(bars: Bars, span: int, warm: int) -> np.ndarray:
    """Whether so many bars from each one on are in its piece, the features having settled: bool [n]."""
    found = np.zeros(len(bars), dtype=bool)
    if len(bars) >= span:
        whole = len(bars) - span + 1
        found[:whole] = bars.piece[:whole] == bars.piece[span - 1 :]
    return found & (bars.place >= warm)


@dataclass(frozen=True)
class _Series:
    """Of one file what rows are cut from, [n] each: dates, settled bars, starts of rows that fit, what was known at every bar."""

    first: int
    time: np.ndarray
    warm: np.ndarray
    starts: np.ndarray
    goal: np.ndarray
    piece: np.ndarray


def _split(name: str, files: Iterable[Bars], options: _Options) -> Splits:
    store, series, short = _Store(options.memory, len(FEATURES[options.features])), [], []
    warm, content = WARM_UP[options.features], hashlib.blake2b(digest_size=16)
    for bars in files:
        fits = _fits(bars, options.span, warm)
        if not fits.any():
            short.append(_too_short(bars.path, len(bars), warm + options.span))
            continue
        starts = np.flatnonzero(fits & ((bars.place - warm) % options.stride == 0))
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


def _cut(name: str, series: list[_Series], values: np.ndarray, options: _Options, key: str) -> Splits:
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


def _limits(name: str, dates: np.ndarray, options: _Options) -> list[tuple[float, float]]:
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


def _known(rows: list[tuple[_Series, np.ndarray]], target: Target, options: _Options) -> dict[str, Tensor]:
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
