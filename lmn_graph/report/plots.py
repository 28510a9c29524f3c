"""Pictures of a run: how the loss terms fell, which neurons fired when, how activity and branching moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from lmn_graph.machine import LatticeMachine
from lmn_graph.readouts import ClassQuery
from lmn_graph.report.style import BLUE, GREEN, GREY, INK, MUTED, ORANGE, new_figure

Rows = list[dict[str, float]]


def save_all(
    folder: Path,
    rows: Rows,
    machine: LatticeMachine,
    x: Tensor,
    burn_in: int = 0,
    taken: Mapping[str, Tensor] | None = None,
    classes: Sequence[str] | None = None,
) -> list[Path]:
    """All pictures of a run in ``folder``: ``losses.png``, ``raster.png``, ``dynamics.png``; ``steps.png`` of a machine that halts,
    ``attention.png`` of one whose classes attend to the history, ``factors.png`` of a holographic readout.

    Args:
        folder: where they go.
        rows: one mapping per epoch, as in ``metrics.csv``.
        machine: the trained machine.
        x: samples to run for the raster; the first is drawn.
        burn_in: epochs that are shaded.
        taken: the steps that the samples of a test set took before they halted, by its name; none where none halts.
        classes: names of the classes; None for a regression.
    """
    from lmn_graph.report import readouts
    from lmn_graph.training.measure import history

    steps = max(2 * machine.steps, 24)
    activity = history(machine, x, steps)
    paths = [folder / name for name in ("losses.png", "raster.png", "dynamics.png")]
    losses(paths[0], rows, burn_in)
    raster(paths[1], activity, machine.steps)
    dynamics(paths[2], rows, burn_in)
    if taken:
        paths.append(folder / "steps.png")
        steps_taken(paths[-1], taken, machine.steps)
    if isinstance(machine.readout, ClassQuery):
        paths.append(folder / "attention.png")
        names = dict(enumerate(classes or [f"output {number}" for number in range(machine.readout.out_features)]))
        readouts.class_attention(paths[-1], machine, x, {number: names[number] for number in list(names)[: readouts.MAPS]})
    if hasattr(machine.readout, "node_factors"):
        paths.append(folder / "factors.png")
        readouts.holographic_factors(paths[-1], machine, classes)
    return paths


def losses(path: Path, rows: Rows, burn_in: int = 0) -> None:
    """Every loss term over the epochs, each on an axis of its own, and the accuracy or R²."""
    terms = [key for key in rows[0] if key.startswith("train/") and key not in ("train/loss", "train/rate", "train/accuracy")]
    score = next((name for name in ("accuracy", "r2") if f"val/{name}" in rows[0]), "loss")
    with new_figure(path, 1, len(terms) + 1, (3.1 * (len(terms) + 1), 2.7)) as (_, axes):
        for axis, key in zip(axes[0], terms):
            _line(axis, rows, key, BLUE, "training")
            if key == "train/task":
                _line(axis, rows, "val/loss", ORANGE, "validation")
                axis.legend()
            _logarithmic(axis, [row[key] for row in rows])
            axis.set_title(f"{key.removeprefix('train/')} loss")
        last = axes[0][-1]
        if f"train/{score}" in rows[0]:
            _line(last, rows, f"train/{score}", BLUE, "training")
        _line(last, rows, f"val/{score}", ORANGE, "validation")
        last.set_title(score if score != "r2" else "R²")
        last.legend()
        for axis in axes[0]:
            _epochs(axis, burn_in)
        _name_burn_in(axes[0][0], burn_in)


def raster(path: Path, activity: Tensor, steps: int) -> None:
    """Which node was active when, in one run, with the mean activity below; the dashed line ends the machine's own T steps.

    Args:
        path: the picture.
        activity: [B, T, N(, C)]; the first sample is drawn, the mean is over all.
        steps: where the dashed line goes.
    """
    values = activity if activity.dim() == 3 else activity.mean(-1)
    one = values[0].T.cpu().numpy()
    spiking = bool(((values == 0) | (values == 1)).all())
    with new_figure(path, 2, 1, (7.2, 5.4), sharex=True, height_ratios=(2.6, 1)) as (figure, axes):
        top, bottom = axes[:, 0]
        limit = max(float(abs(one).max()), 1e-12)
        colours: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1} if spiking else {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        image = top.imshow(one, aspect="auto", origin="lower", interpolation="nearest", **colours)
        if not spiking:
            figure.colorbar(image, ax=top, pad=0.02)
        top.grid(visible=False)
        top.set_title("spikes of one sample" if spiking else "activity of one sample")
        top.set_title("the readout sees the steps left of the dashed line", loc="right", color=ORANGE, size=8.5, weight="normal")
        top.set_ylabel("node")
        top.yaxis.set_major_locator(MaxNLocator(integer=True))
        mean = values.abs().mean(2).cpu().numpy()
        bottom.fill_between(range(mean.shape[1]), mean.min(0), mean.max(0), color=BLUE, alpha=0.15, linewidth=0)
        bottom.plot(mean.mean(0), color=BLUE)
        bottom.set_title("mean activity, and its range over samples" if spiking else "mean |activity|, and its range over samples")
        bottom.set_xlabel("step")
        bottom.set_ylim(bottom=0)
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (top, bottom):
            axis.axvline(steps - 0.5, color=ORANGE, linestyle="--", linewidth=1.2)


def dynamics(path: Path, rows: Rows, burn_in: int = 0) -> None:
    """Mean activity and branching ratio (or Lyapunov exponent) over the epochs."""
    spread, critical = ("branching_ratio", 1.0) if "val/branching_ratio" in rows[0] else ("lyapunov", 0.0)
    with new_figure(path, 1, 2, (7.2, 2.7)) as (_, axes):
        left, right = axes[0]
        _line(left, rows, "val/rate", BLUE, "mean")
        for name, colour in (("silent", GREY), ("saturated", ORANGE)):
            if f"val/{name}" in rows[0]:
                _line(left, rows, f"val/{name}", colour, f"{name} share")
        left.set_title("activity")
        left.set_ylim(0, max(1.3 * left.get_ylim()[1], 1e-6))
        left.legend(loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.2, borderaxespad=0.1)
        _line(right, rows, f"val/{spread}", GREEN, spread)
        low, high = right.get_ylim()
        right.set_ylim(min(low, critical - 0.1), max(high, critical + 0.1))
        right.axhline(critical, color=INK, linestyle="--", linewidth=0.9)
        right.set_title("branching ratio (1 is critical)" if critical else "Lyapunov exponent (0 is critical)")
        for axis in (left, right):
            _epochs(axis, burn_in)
        _name_burn_in(right, burn_in)


def steps_taken(path: Path, taken: Mapping[str, Tensor], budget: int) -> None:
    """How many steps the samples of each test set took before they halted, as histograms below each other; the dashed line is the mean.

    Args:
        path: the picture.
        taken: for the name of every set, the steps of its samples, [B].
        budget: the largest number of steps.
    """
    width = max(1, math.ceil(budget / 60))  # at most 60 bars, each of whole steps
    with new_figure(path, len(taken), 1, (5.6, 1.0 + 1.7 * len(taken)), sharex=True) as (_, axes):
        for axis, (name, steps) in zip(axes[:, 0], taken.items()):
            counts = torch.bincount((steps.cpu() - 1) // width, minlength=math.ceil(budget / width)).numpy()
            left = [1 + width * bar for bar in range(len(counts))]
            axis.bar(left, counts / max(1, counts.sum()), width=0.9 * width, color=BLUE, align="edge" if width > 1 else "center")
            mean = float(steps.double().mean())
            axis.axvline(mean, color=ORANGE, linestyle="--", linewidth=1.2)
            axis.set_title(f"steps of {steps.numel():,} samples, {name}")
            axis.set_title(f"mean {mean:.1f}", loc="right", color=ORANGE, size=8.5, weight="normal")
            axis.set_ylabel("share")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel(f"steps, of a budget of {budget}")


def _line(axis: Axes, rows: Rows, key: str, colour: str, label: str) -> None:
    marker = "o" if len(rows) < 3 else None
    values = [row.get(key, float("nan")) for row in rows]
    axis.plot([row["epoch"] + 1 for row in rows], values, color=colour, label=label, marker=marker, markersize=4, clip_on=False, zorder=3)


def _logarithmic(axis: Axes, values: list[float]) -> None:
    """A logarithmic axis with plain numbers on it, where the values are positive and span enough."""
    if min(values) <= 0 or max(values) < 3 * min(values):
        return
    axis.set_yscale("log")
    wide = max(values) > 30 * min(values)
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _epochs(axis: Axes, burn_in: int) -> None:
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if burn_in:
        axis.axvspan(0.5, burn_in + 0.5, color=GREY, alpha=0.15, linewidth=0)
        axis.set_xlim(left=0.5)


def _name_burn_in(axis: Axes, burn_in: int) -> None:
    if burn_in:
        axis.text(0.6, 0.03, "burn-in", color=MUTED, size=8, transform=axis.get_xaxis_transform())
