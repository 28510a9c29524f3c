"""How every picture looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg", force=False)

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

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


@contextmanager
def new_figure(
    path: str | Path, rows: int, columns: int, size: tuple[float, float], projection: str | None = None
) -> Iterator[tuple[Figure, Any]]:
    """A figure of ``rows`` × ``columns`` axes in one style, saved to ``path`` when the block ends well, closed in any case."""
    with plt.rc_context(_STYLE):
        subplots: dict[str, Any] = {"projection": projection} if projection else {}
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", subplot_kw=subplots)
        try:
            yield figure, axes
            figure.savefig(path)
        finally:
            plt.close(figure)
