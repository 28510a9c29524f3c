"""Kraken's price histories as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmn_graph.registry import did_you_mean
from topologies import _checks
from topologies._graph import refuse_without_memory

from ._bars import FEATURES, WARM_UP, Features
from ._ohlcvt import NAME, Bars, Missing, interval_of, read_bars
from ._price_splits import Cutting, Goal, split
from ._specimen import SIZES
from .base import DATASETS, MissingData, Split, Splits

GOALS = ("direction", "rsi", "return")
LINE = 40  # bytes, about the shortest line of a file


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
    return split("kraken", (read_bars(path, interval, missing, longest_gap) for path in files), options)


def _checked(*, gap: int | None, **options: Any) -> Cutting:
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
    return Cutting(gap=gap, **options)


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
    splits = split(name, [bars], chosen)
    train, validation, test = (
        Split(part.x[:size], part.y[:size]) for part, size in zip((splits.train, splits.validation, splits.test), SIZES)
    )
    return Splits(f"{name} (specimen: made up for --smoke)", train, validation, test, splits.encoder)


kraken.specimen = _make_up
