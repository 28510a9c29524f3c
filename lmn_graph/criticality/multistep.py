"""The multistep-regression estimator of the branching ratio: right even where only a few neurons are seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmn_graph.criticality._activity import check_raster, population
from topologies import _checks


class MultistepFit(NamedTuple):
    """r_k ≈ amplitude · branching_ratio^k at the ``lags`` given, with the ``slopes`` r_k it was fitted to."""

    branching_ratio: float
    amplitude: float
    lags: tuple[int, ...]
    slopes: tuple[float, ...]


@torch.no_grad()
def mr_estimator(activity: Tensor, *, lags: Sequence[int] | None = None) -> MultistepFit:
    """Least-squares fit of r_k = b m^k, r_k = ⟨(A_t − Ā)(A_{t+k} − Ā)⟩ / ⟨(A_t − Ā)²⟩ with one mean Ā over all samples and steps.

    Where every spike is seen with probability p, b < 1 takes the loss and m stays: r_k = m^k p / (p + (1 − p)(1 − m²)).
    r_k itself is fitted, not its logarithm, which would drop r_k ≤ 0 and bias m upward. A report, not a loss.

    Args:
        activity: [B, T, N(, C)]; samples are trials of one stationary process.
        lags: increasing lags ≥ 1, at least two; 1 … T/10 where None. They should reach several times −1/ln m.

    Returns:
        the fit, m in [0, 1]; nan for m and b where A does not vary (silent, saturated).

    Raises:
        ValueError: for another shape, fewer than two lags, or a lag that leaves no pair.

    Source: R. Wilting and V. Priesemann, Nat. Commun. 9, 2325 (2018).
    """
    total = population(check_raster("activity", activity, steps=4)).double()
    steps = total.shape[1]
    if lags is None:
        lags = range(1, max(2, steps // 10) + 1)
    known = tuple(_checks.integer("lags", lag, minimum=1, maximum=steps - 1) for lag in lags)
    if len(known) < 2 or list(known) != sorted(set(known)):
        raise ValueError(f"lags must be at least two increasing integers, got {list(known)}")
    deviation = total - total.mean()
    if not bool((deviation != 0).any()):
        return MultistepFit(float("nan"), float("nan"), known, (float("nan"),) * len(known))
    slopes = tuple(
        float((deviation[:, :-lag] * deviation[:, lag:]).mean() / deviation[:, :-lag].square().mean().clamp(min=1e-300)) for lag in known
    )
    ratio, amplitude = _fit(np.asarray(known, dtype=float), np.asarray(slopes))
    return MultistepFit(ratio, amplitude, known, slopes)


def _fit(lags: np.ndarray, slopes: np.ndarray) -> tuple[float, float]:
    """argmin over m in [0, 1] of min_b Σ_k (r_k − b m^k)²: the best of a grid in m, then narrowed around it five times."""
    low, high = 0.0, 1.0
    for _ in range(6):
        grid = np.linspace(low, high, 401)
        powers = grid[:, None] ** lags
        squares = np.maximum((powers**2).sum(1), np.finfo(float).tiny)
        amplitudes = powers @ slopes / squares
        errors = ((slopes - amplitudes[:, None] * powers) ** 2).sum(1)
        best = int(errors.argmin())
        width = grid[1] - grid[0]
        low, high = max(0.0, grid[best] - 2 * width), min(1.0, grid[best] + 2 * width)
    return float(grid[best]), float(amplitudes[best])
