"""The Lorenz equations, integrated: the chaotic flow with two wings."""

from __future__ import annotations

import numpy as np

from topologies import _checks

from ._series import forecasts
from ._streams import StreamSplits
from .base import DATASETS, Splits

SIGMA, RHO, BETA = 10.0, 28.0, 8 / 3
SUBSTEPS = 10  # integration steps between two values
WARM_UP = 20.0  # units of time that are left out: the solution falls onto the attractor


@DATASETS.register(name="lorenz")
def lorenz(
    length: int = 5000,
    *,
    dt: float = 0.02,
    component: str = "x",
    window: int = 64,
    horizon: int = 1,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    stride: int = 1,
    seed: int = 0,
    stream: bool = False,
) -> Splits | StreamSplits:
    """Forecast of a component of the Lorenz equations, x' = 10 (y − x), y' = x (28 − z) − y, z' = x y − 8/3 z.

    Two solutions that are close move apart by a factor e in about 1.1 units of time.

    Args:
        length: number of values.
        dt: units of time from one value to the next, in (0, 0.1].
        component: the one that is seen and forecast, "x", "y" or "z".
        window: values that a forecast sees.
        horizon: steps from the last of them to the value that is forecast.
        test_fraction: share of all values, the last ones, in (0, 0.9]; at least one row.
        validation_fraction: share of the remaining values, the last ones, in (0, 0.9]; at least one row.
        stride: steps from the start of one row to the start of the next.
        seed: seed of the initial state, each component in [−1, 1] around (1, 1, 20).
        stream: no rows but the values one after the other, each the target of the one before; ``window``, ``horizon`` and ``stride``
            mean nothing then.

    Raises:
        ValueError: naming the argument; a length that is too short, with the number of values that are needed.
    """
    _checks.integer("length", length, minimum=1, maximum=10**6)
    dt = _checks.number("dt", dt, above=0, maximum=0.1)
    column = "xyz".index(_checks.choice("component", component, ("x", "y", "z")))
    start = np.array([1.0, 1.0, 20.0]) + np.random.default_rng(_checks.integer("seed", seed, minimum=0)).uniform(-1, 1, 3)

    def read() -> np.ndarray:
        first = integrate(2, WARM_UP, start, round(WARM_UP * 500))[1]
        return integrate(length, dt, first)[:, column]

    return forecasts(
        "lorenz",
        f"length={length}",
        read,
        window=window,
        horizon=horizon,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        stride=stride,
        stream=stream,
    )


def integrate(length: int, dt: float, start: np.ndarray, substeps: int = SUBSTEPS) -> np.ndarray:
    """(x, y, z) at 0, dt, …, (length − 1) dt from ``start`` at 0, float64 [length, 3], by Runge-Kutta of order 4."""
    h = dt / substeps
    x, y, z = (float(value) for value in start)
    found = np.empty((length, 3))
    found[0] = x, y, z
    for i in range(1, length):
        for _ in range(substeps):
            a, b, c = _slope(x, y, z)
            d, e, f = _slope(x + h / 2 * a, y + h / 2 * b, z + h / 2 * c)
            k, n, m = _slope(x + h / 2 * d, y + h / 2 * e, z + h / 2 * f)
            p, q, r = _slope(x + h * k, y + h * n, z + h * m)
            x, y, z = x + h / 6 * (a + 2 * d + 2 * k + p), y + h / 6 * (b + 2 * e + 2 * n + q), z + h / 6 * (c + 2 * f + 2 * m + r)
        found[i] = x, y, z
    return found


def _slope(x: float, y: float, z: float) -> tuple[float, float, float]:
    return SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z
