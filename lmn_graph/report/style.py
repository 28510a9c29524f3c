"""How every picture looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREEN, GREY, MUTED = "#22252a", "#2f6fb3", "#d1752b", "#3a8f5d", "#9aa1ab", "#6b727c"
_STYLE: Any = {
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 9.5,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}


@contextmanager
def new_figure(
    path: str | Path, rows: int, columns: int, size: tuple[float, float], *, projection: str | None = None, **grid: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure that pyplot does not know: nothing of the caller's plotting is touched. The file is replaced whole."""
    from lmn_graph._files import replacing

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": projection}, **grid)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lower().lstrip("."))


def check_picture(name: str, path: str | Path) -> None:
    """A ValueError, named ``name``, where no picture can be written: another suffix, no such folder."""
    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix.lower().lstrip(".") not in kinds:
        raise ValueError(f"{name} must end in one of {', '.join(f'.{kind}' for kind in kinds)}, got {str(path)!r}")
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {str(path)!r}")
