"""Several curves in one picture, named at their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from lmn_graph.report.style import BLUE, GREEN, GREY, INK, MUTED, ORANGE, check_picture, new_figure

_COLOURS = (BLUE, ORANGE, GREEN, INK, MUTED, GREY)
_DASHES = ("-", "--", ":")
_GAP = 0.055  # between two names, as a share of the height


def draw_curves(path: str | Path, curves: Mapping[str, Sequence[float]], x: str, y: str, title: str, *, first: int = 1) -> None:
    """Draw one line per entry, each named where it ends.

    Args:
        path: the picture.
        curves: name → values, at ``first``, ``first`` + 1, ….
        x, y: what the axes are.
        title: what the picture shows.
        first: where the curves begin.

    Raises:
        ValueError: if there is no curve, one is empty, or no picture can be written there.
    """
    check_picture("path", path)
    if not curves or not all(len(values) for values in curves.values()):
        raise ValueError(f"curves must hold at least one curve, and none that is empty, got { ({n: len(v) for n, v in curves.items()}) }")
    with new_figure(path, 1, 1, (7.2, 3.8)) as (_, axes):
        axis = axes[0][0]
        for number, values in enumerate(curves.values()):
            colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
            marker = "o" if len(values) < 3 else None
            axis.plot(range(first, first + len(values)), values, color=colour, linestyle=dash, marker=marker, markersize=4)
        low, high = axis.get_ylim()
        ends = sorted(((values[-1], number, name) for number, (name, values) in enumerate(curves.items())), reverse=True)
        height = high
        for value, number, name in ends:  # from the top, none closer to the one above than a line of text
            height = min(value, height - _GAP * (high - low)) if height < high else value
            axis.annotate(
                name,
                (1.0, height),
                xycoords=axis.get_yaxis_transform(),
                xytext=(5, 0),
                textcoords="offset points",
                color=_COLOURS[number % len(_COLOURS)],
                va="center",
                size=8.5,
                annotation_clip=False,
            )
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.set_title(title)
        axis.margins(x=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
