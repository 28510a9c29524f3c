"""Files of price bars as Kraken ships them, ``PAIR_INTERVAL.csv``, checked line by line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from topologies._delimited import not_text

from ._target import LARGEST

COLUMNS = ("time", "open", "high", "low", "close", "volume", "trades")
NAME = re.compile(r"(.+)_([0-9]{1,6})\.csv")  # pair, minutes
LAST = 253_402_300_800  # seconds; the year 10000
Missing = Literal["split", "refuse"]


@dataclass(frozen=True)
class Bars:
    """The bars of one file in time order.

    Args:
        path: the file.
        time: seconds since 1970 at which a bar begins, int64 [n], ascending.
        open, high, low, close: prices, float64 [n], > 0, low <= high.
        volume, trades: float64 [n], >= 0.
        piece: number of the piece of a bar, int64 [n]; nothing is computed across the gap between two pieces.
    """

    path: Path
    time: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    trades: np.ndarray
    piece: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    @property
    def pieces(self) -> Iterator[slice]:
        """The bars of each piece."""
        ends = np.append(np.flatnonzero(np.diff(self.piece)) + 1, len(self)).tolist()
        return (slice(first, last) for first, last in zip([0, *ends], ends))

    @property
    def place(self) -> np.ndarray:
        """How many bars of its piece are before a bar, int64 [n]."""
        found = np.empty(len(self), dtype=np.int64)
        for part in self.pieces:
            found[part] = np.arange(part.stop - part.start)
        return found


def interval_of(path: Path) -> int | None:
    """Minutes of a bar as the name of the file says, or None."""
    found = NAME.fullmatch(path.name)
    return int(found[2]) if found else None


def read_bars(path: Path, interval: int, missing: Missing, longest_gap: int) -> Bars:
    """Lines ``unix_seconds,open,high,low,close,volume,trades`` without a header.

    Args:
        path: UTF-8 text.
        interval: minutes of a bar.
        missing: "split" begins a new piece where two bars are further apart than ``longest_gap`` intervals; "refuse" wants every bar.
        longest_gap: intervals, >= 1.

    Raises:
        ValueError: naming file and line: another number of columns; no number, NaN or one beyond float32; a price that is not > 0; high
            < low; a negative volume or number of trades; bars out of order, twice, between two intervals, or missing where that is refused.
    """
    table = _read(path)
    time, prices, traded = table[:, 0], table[:, 1:5], table[:, 5:]
    whole = (time == np.floor(time)) & (time >= 0) & (time < LAST)
    _refuse(path, ~whole, lambda row: f"time must be whole seconds, got {time[row]:g}")
    _refuse(path, prices.min(axis=1) <= 0, lambda row: f"prices must be > 0, got {prices[row].min():g}")
    _refuse(path, prices[:, 1] < prices[:, 2], lambda row: f"high must be >= low, got high {prices[row, 1]:g}, low {prices[row, 2]:g}")
    _refuse(path, traded[:, 0] < 0, lambda row: f"volume must be >= 0, got {traded[row, 0]:g}")
    _refuse(path, traded[:, 1] < 0, lambda row: f"trades must be >= 0, got {traded[row, 1]:g}")
    seconds = time.astype(np.int64)
    _check_steps(path, seconds, 60 * interval, missing)
    piece = np.cumsum(np.diff(seconds, prepend=seconds[0]) > 60 * interval * longest_gap)
    opening, high, low, close, volume, trades = (np.ascontiguousarray(column) for column in table[:, 1:].T)
    return Bars(path, seconds, opening, high, low, close, volume, trades, piece)


def _check_steps(path: Path, seconds: np.ndarray, step: int, missing: Missing) -> None:
    apart = np.diff(seconds, prepend=seconds[0] - step)
    _refuse(path, apart == 0, lambda row: f"the bar of time {seconds[row]} is there twice")
    _refuse(path, apart < 0, lambda row: f"bars must be in order of time, got {seconds[row]} after {seconds[row - 1]}")
    uneven = apart % step != 0
    _refuse(path, uneven, lambda row: f"bars must be whole intervals of {step} seconds apart, got {apart[row]} seconds")
    if missing == "refuse":
        lost = apart // step - 1
        _refuse(path, lost > 0, lambda row: f"{lost[row]} bar(s) are missing before time {seconds[row]}; missing 'split' allows that")


def _read(path: Path) -> np.ndarray:
    """Numbers float64 [n, 7]."""
    import pandas

    try:
        # An eighth column shows lines that are too long; those that are too short come as NaN.
        frame = pandas.read_csv(path, header=None, names=range(8), index_col=False, dtype=np.float64, encoding="utf-8-sig")
    except pandas.errors.EmptyDataError:
        raise ValueError(f"{path} is empty") from None
    except UnicodeDecodeError as error:
        raise not_text(path) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (pandas.errors.ParserError, ValueError) as error:
        _find(path)
        raise ValueError(f"{path} cannot be read as bars: {error}") from error
    values = frame.to_numpy()
    if not len(values):
        raise ValueError(f"{path} is empty")
    if not np.isnan(values[:, 7]).all() or not (np.abs(values[:, :7]) <= LARGEST).all():
        _find(path)
        raise ValueError(f"{path} cannot be read as bars")
    return values[:, :7]


def _find(path: Path) -> None:
    """The first line that is not seven numbers, as a ValueError."""
    for line, words in _lines(path):
        if len(words) != 7:
            raise ValueError(f"{path}, line {line}: expected {','.join(COLUMNS)}, 7 columns, got {len(words)}")
        for name, word in zip(COLUMNS, words):
            try:
                fits = abs(float(word)) <= LARGEST
            except ValueError:
                fits = False
            if not fits:
                hint = "; the file has no header line" if line == 1 else ""
                raise ValueError(f"{path}, line {line}: {name} must be a finite number within float32, got {word!r}{hint}")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line from 1, its words) of lines that are not blank."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for words in reader:
            if words:
                yield reader.line_num, words


def _refuse(path: Path, bad: np.ndarray, message: Callable[[int], str]) -> None:
    """A ValueError with the line of the first bar that is ``bad``; ``message`` makes its text from the row."""
    if bad.any():
        row = int(bad.argmax())
        line = next(line for number, (line, _) in enumerate(_lines(path)) if number == row)
        raise ValueError(f"{path}, line {line}: {message(row)}")
