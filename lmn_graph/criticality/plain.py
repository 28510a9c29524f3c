"""The per-step ratio of the source, kept for reference."""

from __future__ import annotations

import torch
from torch import Tensor

from lmn_graph.criticality._activity import check_raster, magnitude, population
from topologies import _checks


def plain_ratio(activity: Tensor, *, floor: float = 1.0) -> Tensor:
    """ρ_t = |s_t| / |s_{t−1}|, with |s_t| = Σ_i |s_i(t)|.

    Every steady raster has ρ = 1, subcritical, critical or saturated alike, so this is neither a measure of criticality nor a
    useful loss. The quotient is undefined after silence, |s_{t−1}| < ``floor``; there

        ρ_t = min(|s_t| / floor, 1):

    staying silent counts as 0 (with derivative 1/floor per spike: upwards), a start out of silence counts as 1, having no
    predecessor to be compared with, and its derivative is 0. A saturated raster gives ρ = 1 with derivative ±1/|s|.

    Args:
        activity: [B, T, N(, C)], T ≥ 2.
        floor: what counts as silence: one spike. Lower it for graded activity that is small.

    Returns:
        [B, T − 1]: the ratio of each step to the one before.

    Raises:
        ValueError: for an ``activity`` of another shape or shorter than two steps, or ``floor`` ≤ 0.
    """
    floor = _checks.number("floor", floor, above=0)
    size = population(magnitude(check_raster("activity", activity, steps=2)))
    before, after = size[:, :-1], size[:, 1:]
    silent = before < floor
    return torch.where(silent, (after / floor).clamp(max=1), after / before.masked_fill(silent, 1))
