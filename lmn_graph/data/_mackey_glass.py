"""The Mackey-Glass delay equation, integrated: a chaotic series that every forecasting paper knows."""

from __future__ import annotations

import numpy as np

from topologies import _checks

from ._series import forecasts
from ._streams import StreamSplits
from .base import DATASETS, Splits

BETA, GAMMA, POWER = 0.2, 0.1, 10
SUBSTEPS = 10  # integration steps per unit of time, which is the distance of two values
WARM_UP = 500  # units of time that are left out: the solution forgets its constant history


@DATASETS.register(name="mackey-glass")
def mackey_glass(
    length: int = 5000,
    *,
    tau: int = 17,
    window: int = 64,
    horizon: int = 1,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    stride: int = 1,
    seed: int = 0,
    stream: bool = False,
) -> Splits | StreamSplits:
    """Forecast of the Mackey-Glass series, x' = 0.2 x(t − τ) / (1 + x(t − τ)^10) − 0.1 x(t), one value per unit of time.

    Chaotic from τ ≈ 17 on; for τ < arccos(−1/4) / √0.15 = 4.71 the solution comes to rest at 1.

    Args:
        length: number of values.
        tau: the delay τ, in units of time.
        window: values that a forecast sees.
        horizon: steps from the last of them to the value that is forecast.
        test_fraction: share of all values, the last ones, in (0, 0.9]; at least one row.
        validation_fraction: share of the remaining values, the last ones, in (0, 0.9]; at least one row.
        stride: steps from the start of one row to the start of the next.
        seed: seed of the history, a constant in [0.5, 1.3] for t ≤ 0.
        stream: no rows but the values one after the other, each the target of the one before; ``window``, ``horizon`` and ``stride``
            mean nothing then.

    Raises:
        ValueError: naming the argument; a length that is too short, with the number of values that are needed.
    """
    _checks.integer("length", length, minimum=1, maximum=10**6)
    _checks.integer("tau", tau, minimum=1, maximum=10**4)
    history = np.random.default_rng(_checks.integer("seed", seed, minimum=0)).uniform(0.5, 1.3)
    return forecasts(
        "mackey-glass",
        f"length={length}",
        lambda: integrate(WARM_UP + length, tau, history)[WARM_UP:],
        window=window,
        horizon=horizon,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        stride=stride,
        stream=stream,
    )


def integrate(length: int, tau: int, history: float, substeps: int = SUBSTEPS) -> np.ndarray:
    """x(0), x(1), …, x(length − 1) as float64, where x(t) = ``history`` for t ≤ 0.

    Runge-Kutta of order 4; the delayed value in the middle of a step is Hermite's cubic through the values and slopes at its ends.
    """
    h, lag = 1.0 / substeps, tau * substeps
    x, slope = [history] * (lag + 1), [0.0] * lag  # x[lag + i] is x(i h); the slope at 0 is the one after it
    for i in range((length - 1) * substeps):
        now, left, right = x[-1], x[i], x[i + 1]
        first = _slope(now, left)
        slope.append(first)
        # The history is constant up to and including 0, where the solution has a kink: its slope there is 0 from the left.
        end = 0.0 if i + 1 == lag else slope[i + 1]
        middle = (left + right) / 2 + h / 8 * (slope[i] - end)
        second = _slope(now + h / 2 * first, middle)
        third = _slope(now + h / 2 * second, middle)
        fourth = _slope(now + h * third, right)
        x.append(now + h / 6 * (first + 2 * second + 2 * third + fourth))
    return np.array(x[lag::substeps])


def _slope(now: float, delayed: float) -> float:
    return BETA * delayed / (1 + delayed**POWER) - GAMMA * now
