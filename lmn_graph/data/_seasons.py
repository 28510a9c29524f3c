"""The period of a series, for the forecast that the value a period ago comes again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LAGS, VALUES = 500, 100_000  # looked at


def season(errors: Sequence[float] | np.ndarray) -> int | None:
    """Which of ascending lags is a period: the one with the least error beyond the first whose error is at least the mean; None where
    errors only grow from there, as those of a random walk do."""
    errors = np.asarray(errors, dtype=np.float64)
    beyond = np.flatnonzero(errors >= errors.mean())
    if not len(beyond):
        return None
    found = int(beyond[0] + np.argmin(errors[beyond[0] :]))
    return found if found > beyond[0] and errors[found] < errors.mean() else None


def period_of(values: np.ndarray) -> int | None:
    """The period of a series [n, F] in items, by the mean squared difference to itself so many items before; None if it has none."""
    values = np.asarray(values[-VALUES:], dtype=np.float64)
    lags = range(1, min(LAGS, len(values) // 2) + 1)
    found = season([np.square(values[lag:] - values[:-lag]).mean() for lag in lags]) if len(lags) else None
    return None if found is None else lags[found]
