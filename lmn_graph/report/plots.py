"""Pictures of a run: how the loss terms fell, which neurons fired when, how activity and branching moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg", force=False)

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lmn_graph.machine import LatticeMachine

INK, BLUE, ORANGE, GREEN, GREY = "#22252a", "#2f6fb3", "#d1752b", "#3a8f5d", "#9aa1ab"
_STYLE: Any = {
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}
Rows = list[dict[str, float]]


@contextmanager
def _figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[tuple[Figure, Any]]:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        try:
            yield figure, axes
            figure.savefig(path)
        finally:
            plt.close(figure)


def save_all(folder: Path, rows: Rows, machine: LatticeMachine, x: Tensor, burn_in: int = 0) -> list[Path]:
    """All pictures of a run in ``folder``: ``losses.png``, ``raster.png``, ``dynamics.png``.

    Args:
        folder: where they go.
        rows: one mapping per epoch, as in ``metrics.csv``.
        machine: the trained machine.
        x: samples to run for the raster; the first is drawn.
        burn_in: epochs that are shaded.
    """
    from lmn_graph.training.measure import history

    steps = max(2 * machine.steps, 40)
    activity = history(machine, x, steps)
    paths = [folder / name for name in ("losses.png", "raster.png", "dynamics.png")]
    losses(paths[0], rows, burn_in)
    raster(paths[1], activity, machine.steps)
    dynamics(paths[2], rows, burn_in)
    return paths


def losses(path: Path, rows: Rows, burn_in: int = 0) -> None:
    """Every loss term over the epochs, each on an axis of its own, and the accuracy or R²."""
    terms = [key for key in rows[0] if key.startswith("train/") and key not in ("train/loss", "train/rate", "train/accuracy")]
    score = next((name for name in ("accuracy", "r2") if f"val/{name}" in rows[0]), "loss")
    with _figure(path, 1, len(terms) + 1, (3.1 * (len(terms) + 1), 2.7)) as (_, axes):
        for axis, key in zip(axes[0], terms):
            _line(axis, rows, key, BLUE, "training")
            if key == "train/task":
                _line(axis, rows, "val/loss", ORANGE, "validation")
                axis.legend()
            if all(row[key] > 0 for row in rows):
                axis.set_yscale("log")
            axis.set_title(f"{key.removeprefix('train/')} loss")
        last = axes[0][-1]
        if f"train/{score}" in rows[0]:
            _line(last, rows, f"train/{score}", BLUE, "training")
        _line(last, rows, f"val/{score}", ORANGE, "validation")
        last.set_title(score if score != "r2" else "R²")
        last.legend()
        for axis in axes[0]:
            _epochs(axis, burn_in)


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
    with _figure(path, 2, 1, (7.2, 5.0)) as (figure, axes):
        top, bottom = axes[:, 0]
        if spiking:
            node, time = one.nonzero()
            size = max(0.4, 260 / one.shape[0])
            top.scatter(time, node, s=size, c=INK, marker="s", linewidths=0)
            top.set_xlim(-0.6, one.shape[1] - 0.4)
            top.set_ylim(-1, one.shape[0])
        else:
            image = top.imshow(one, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-abs(one).max(), vmax=abs(one).max())
            figure.colorbar(image, ax=top, shrink=0.8)
        top.set_title("spikes of one sample" if spiking else "activity of one sample")
        top.set_ylabel("node")
        mean = values.abs().mean(2).cpu().numpy()
        bottom.fill_between(range(mean.shape[1]), mean.min(0), mean.max(0), color=BLUE, alpha=0.15, linewidth=0)
        bottom.plot(mean.mean(0), color=BLUE)
        bottom.set_title("mean activity, and its range over samples")
        bottom.set_xlabel("step")
        bottom.set_ylim(bottom=0)
        for axis in (top, bottom):
            axis.axvline(steps - 0.5, color=ORANGE, linestyle="--", linewidth=1)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.set_xlim(top.get_xlim())


def dynamics(path: Path, rows: Rows, burn_in: int = 0) -> None:
    """Mean activity and branching ratio (or Lyapunov exponent) over the epochs."""
    spread = "branching_ratio" if "val/branching_ratio" in rows[0] else "lyapunov"
    with _figure(path, 1, 2, (7.2, 2.7)) as (_, axes):
        left, right = axes[0]
        _line(left, rows, "val/rate", BLUE, "mean")
        for name, colour in (("silent", GREY), ("saturated", ORANGE)):
            if f"val/{name}" in rows[0]:
                _line(left, rows, f"val/{name}", colour, f"{name} share")
        left.set_title("activity")
        left.set_ylim(bottom=0)
        left.legend()
        _line(right, rows, f"val/{spread}", GREEN, spread)
        right.axhline(1.0 if spread == "branching_ratio" else 0.0, color=GREY, linestyle="--", linewidth=1)
        right.set_title("branching ratio" if spread == "branching_ratio" else "Lyapunov exponent")
        for axis in (left, right):
            _epochs(axis, burn_in)


def _line(axis: Axes, rows: Rows, key: str, colour: str, label: str) -> None:
    marker = "o" if len(rows) < 3 else None
    axis.plot([row["epoch"] for row in rows], [row.get(key, float("nan")) for row in rows], color=colour, label=label, marker=marker)


def _epochs(axis: Axes, burn_in: int) -> None:
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if burn_in:
        axis.axvspan(-0.5, burn_in - 0.5, color=GREY, alpha=0.15, linewidth=0)
