"""Pictures of a sweep: a metric over the values, and how far every value is from the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lmn_graph.report.style import BLUE, INK, MUTED, check_picture, new_figure

if TYPE_CHECKING:
    from lmn_graph.training.results import Curve

_COLUMNS = 3
_WIDE = 20.0  # a logarithmic axis where the largest value is so many times the smallest


def draw_sweep(path: str | Path, curve: Curve, metric: str) -> None:
    """The metric over the values of one sweep: the mean with its standard deviation, a dot for each seed, the baseline dashed.

    Args:
        path: the picture.
        curve: the sweep.
        metric: what the metric is called, ``test/accuracy`` say.

    Raises:
        ValueError: if no run is finished, or no picture can be written there.
    """
    check_picture("path", path)
    if not any(curve.scores):
        raise ValueError(f"sweep {curve.name!r} must have a finished run to be drawn, got none")
    with new_figure(path, 1, 1, (5.6, 3.4)) as (_, axes):
        axis = axes[0][0]
        x = _positions(axis, curve)
        _draw(axis, curve, x, [curve.score(position) for position in range(len(x))])
        for position, scores in zip(x, curve.scores):
            axis.plot([position] * len(scores), list(scores.values()), "o", color=BLUE, alpha=0.45, markersize=3.5, linestyle="none")
        if curve.baseline is not None and curve.scores[curve.baseline]:
            axis.axhline(curve.score(curve.baseline)[0], color=INK, linestyle="--", linewidth=0.9)
            axis.set_title(f"dashed: baseline, {_text(curve, curve.baseline)}", loc="right", color=MUTED, size=8.5, weight="normal")
        axis.set_title(curve.name)
        axis.set_xlabel(curve.label)
        axis.set_ylabel(_words(metric))


def draw_summary(path: str | Path, curves: Sequence[Curve], metric: str) -> None:
    """All sweeps beside each other, on one scale: the difference from the baseline, or from the first value where there is none.

    Args:
        path: the picture.
        curves: the sweeps.
        metric: what the metric is called.

    Raises:
        ValueError: if there is no sweep, or no picture can be written there.
    """
    check_picture("path", path)
    if not curves:
        raise ValueError("curves must hold at least one sweep, got none")
    columns = 2 if len(curves) == 4 else min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    size = (max(4.4, 3.0 * columns), 0.4 + 2.5 * rows)
    with new_figure(path, rows, columns, size, sharey=True) as (figure, axes):
        for axis, curve in zip(axes.flat, curves):
            reference = curve.baseline or 0
            x = _positions(axis, curve)
            _draw(axis, curve, x, [curve.difference(position, reference) for position in range(len(x))])
            axis.axhline(0.0, color=INK, linestyle="--", linewidth=0.9)
            axis.set_title(curve.name)
            axis.set_title(f"from {_text(curve, reference)}", loc="right", color=MUTED, size=8.5, weight="normal")
            axis.set_xlabel(curve.label)
        for axis in axes.flat[len(curves) :]:
            axis.set_visible(False)
        figure.supylabel(f"difference in {_words(metric)}", size=9.5, color=INK)


def _draw(axis: Axes, curve: Curve, x: Sequence[float], points: Sequence[tuple[float, float]]) -> None:
    """Means joined by a line with a band of one standard deviation; words by themselves, with bars."""
    shown = sorted((at, mean, 0.0 if math.isnan(spread) else spread) for at, (mean, spread) in zip(x, points) if not math.isnan(mean))
    at, mean, spread = ([point[part] for point in shown] for part in range(3))
    if _numeric(curve):
        axis.plot(at, mean, color=BLUE, marker="o", markersize=4, zorder=3)
        axis.fill_between(at, [m - s for m, s in zip(mean, spread)], [m + s for m, s in zip(mean, spread)], color=BLUE, alpha=0.15, lw=0)
    else:
        axis.errorbar(at, mean, spread, color=BLUE, marker="o", markersize=5, linestyle="none", capsize=3, zorder=3)


def _positions(axis: Axes, curve: Curve) -> list[float]:
    """Where the values go: numbers where they are, logarithmic where they span much; words beside each other."""
    if not _numeric(curve):
        axis.set_xlim(-0.5, len(curve.values) - 0.5)
        axis.set_xticks(range(len(curve.values)), [_text(curve, position) for position in range(len(curve.values))])
        return [float(position) for position in range(len(curve.values))]
    values = [float(value) for value in curve.values]
    if min(values) > 0 and max(values) >= _WIDE * min(values):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(_spaced(values)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return values


def _spaced(values: Sequence[float]) -> list[float]:
    """Of positive values, ticks that leave each other room on a logarithmic axis."""
    apart = math.log(max(values) / min(values)) / 7
    kept: list[float] = []
    for value in sorted(values):
        if not kept or math.log(value / kept[-1]) >= apart:
            kept.append(value)
    return kept


def _numeric(curve: Curve) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in curve.values)


def _text(curve: Curve, position: int) -> str:
    value = curve.values[position]
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _words(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ").replace("r2", "R²")
