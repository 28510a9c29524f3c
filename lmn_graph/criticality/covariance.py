"""The slope of the population activity on its own past."""

from __future__ import annotations

import torch
from torch import Tensor

from lmn_graph.criticality._activity import check_raster, population
from topologies import _checks


def covariance_slope(activity: Tensor, *, lag: int = 1, unbias: bool = False) -> Tensor:
    """r_k = Cov(A_t, A_{t+k}) / Var(A_t), A_t = Σ_i s_i(t), the least-squares slope within each sample.

    For a stationary branching process with white drive, seen whole, E[A_{t+1} | A_t] = m A_t + h, so r_k = m^k. On a lattice it
    turns down again in the over-active phase. Over a short window it is biased low: E[r_1] ≈ m − (1 + 3m)/n for n = T − 1
    pairs (Kendall 1954); ``unbias`` undoes that to first order, r_1 ← (n r_1 + 1)/(n − 3).

    A raster whose A does not vary (silent, saturated, any constant) has no slope: 0 is returned, with derivative 0.

    Args:
        activity: [B, T, N(, C)], T ≥ lag + 2 (lag + 5 with ``unbias``).
        lag: k ≥ 1, in steps.
        unbias: first-order correction of the small-window bias; for lag 1.

    Returns:
        [B]: one slope per sample.

    Raises:
        ValueError: for an ``activity`` of another shape or too short, ``lag`` < 1, or ``unbias`` with another lag than 1.

    Source: R. Wilting and V. Priesemann, Nat. Commun. 9, 2325 (2018), eq. 3; M. G. Kendall, Biometrika 41, 403 (1954).
    """
    lag = _checks.integer("lag", lag, minimum=1)
    if _checks.flag("unbias", unbias) and lag != 1:
        raise ValueError(f"unbias is known for lag 1 only, got lag={lag}")
    total = population(check_raster("activity", activity, steps=lag + (5 if unbias else 2)))
    past, future = total[:, :-lag], total[:, lag:]
    past_deviation = past - past.mean(1, keepdim=True)
    future_deviation = future - future.mean(1, keepdim=True)
    variance = past_deviation.square().mean(1)
    # What rounding alone leaves of a constant is no variance.
    rounding = (4 * torch.finfo(total.dtype).eps * past.detach().abs().amax(1)).square()
    constant = variance <= rounding
    slope = (past_deviation * future_deviation).mean(1) / variance.masked_fill(constant, 1)
    slope = slope.masked_fill(constant, 0)
    if not unbias:
        return slope
    pairs = past.shape[1]
    return ((pairs * slope + 1) / (pairs - 3)).masked_fill(constant, 0)
