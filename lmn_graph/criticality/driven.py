"""The branching ratio with the spikes that came from outside taken out."""

from __future__ import annotations

from torch import Tensor

from lmn_graph.criticality._activity import check_raster, population


def drive_corrected_ratio(activity: Tensor, forced: Tensor) -> Tensor:
    """m = Σ_t (A_{t+1} − H_{t+1}) / Σ_t A_t, t = 0 … T − 2, A and H the sums of ``activity`` and ``forced`` over neurons.

    For E[A_{t+1} − H_{t+1} | A_t] = m A_t this is m, in transients too. In a stationary run it equals 1 − ⟨H⟩/⟨A⟩ up to the two
    end bins: with drive on it is below 1 always, and more activity raises it always, so an over-active network satisfies it as
    well as a critical one. Use it with a ceiling on the rate.

    H are spikes *forced* from outside that would not have occurred otherwise; an injected current is not H. Where only a
    fraction of the neurons is seen, ``forced`` must be thinned alike.

    A sample without a spike before its last step has the denominator 1 (one spike): a silent one gives 0, with derivative 1 per
    spike, upwards. A saturated one gives 1 − ⟨H⟩/⟨A⟩, whose derivative per spike is of the order of 1/ΣA.

    Args:
        activity: spikes [B, T, N(, C)], the forced ones included, T ≥ 2.
        forced: the same shape, aligned with ``activity``: 1 where the spike was forced from outside.

    Returns:
        [B]: one ratio per sample.

    Raises:
        ValueError: for other shapes, or fewer than two steps.
    """
    activity = check_raster("activity", activity, steps=2)
    forced = check_raster("forced", forced, steps=2)
    if forced.shape != activity.shape:
        raise ValueError(f"forced must have the shape of activity, {tuple(activity.shape)}, got {tuple(forced.shape)}")
    total = population(activity)
    descendants = (total - population(forced))[:, 1:].sum(1)
    ancestors = total[:, :-1].sum(1)
    return descendants / ancestors.clamp(min=1)
