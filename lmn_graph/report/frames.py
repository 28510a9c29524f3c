"""A lattice at a few moments: which cells are active."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmn_graph.report.style import GREY, INK, new_figure


def lattice_frames(path: str | Path, activity: Tensor, shape: Sequence[int], *, at: Sequence[int], title: str = "") -> None:
    """Draw a 3-D lattice (a 2-D one as a flat sheet) at the steps ``at``, one frame each.

    Args:
        path: the picture.
        activity: [T, N]; a cell is drawn where it is not zero, larger where it is larger.
        shape: the sides of the lattice, two or three of them.
        at: the steps to draw.
        title: heading.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    sides = tuple(shape)
    if len(sides) not in (2, 3) or activity.dim() != 2 or activity.size(1) != torch.Size(sides).numel():
        raise ValueError(f"activity must be [T, N] on a lattice with two or three sides, got {tuple(activity.shape)} and shape {sides}")
    if not at or min(at) < 0 or max(at) >= activity.size(0):
        raise ValueError(f"at must name steps in [0, {activity.size(0)}), got {list(at)}")
    sides = (*sides, 1) if len(sides) == 2 else sides
    cells = torch.cartesian_prod(*(torch.arange(side) for side in sides))
    depth = (cells[:, 0] - cells[:, 1]).float()  # along the line of sight: nearer cells are darker
    largest = float(activity.abs().max().clamp(min=1e-12))
    with new_figure(path, 1, len(at), (2.5 * len(at), 2.75), projection="3d") as (figure, axes):
        for axis, step in zip(axes[0], at):
            values = activity[step].abs()
            chosen = values.nonzero()[:, 0]
            size = (150 / max(sides)) * (values[chosen] / largest).clamp(min=0.3)
            x, y, z = cells[chosen].T.numpy()
            axis.scatter(x, y, z, s=size.numpy(), c=depth[chosen].numpy(), cmap="YlGnBu", vmin=-1.6 * sides[1], vmax=sides[0], linewidths=0)
            axis.set_title(f"step {step}", color=INK, loc="center", pad=-2, fontweight="normal")
            axis.set_box_aspect(sides, zoom=1.02)
            axis.view_init(elev=16, azim=-58)
            _empty_box(axis, sides)
        if title:
            figure.suptitle(title, fontsize=10.5, color=INK)


def _empty_box(axis: Any, sides: Sequence[int]) -> None:
    """The outline of the lattice, without panes, grid or numbers."""
    axis.grid(False)
    for name, side in zip("xyz", sides):
        getattr(axis, f"set_{name}lim")(-0.5, side - 0.5)
        getattr(axis, f"set_{name}ticks")([])
        getattr(axis, f"{name}axis").set_pane_color((1, 1, 1, 0))
        getattr(axis, f"{name}axis").line.set_color((1, 1, 1, 0))
    low, (a, b, c) = -0.5, (side - 0.5 for side in sides)
    for start, stop in _edges((low, low, low), (a, b, c)):
        axis.plot(*zip(start, stop), color=GREY, linewidth=0.6, alpha=0.55)


def _edges(low: tuple[float, ...], high: tuple[float, ...]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """The twelve edges of a box."""
    corners = list(itertools.product(*zip(low, high)))
    return [(p, q) for p, q in itertools.combinations(corners, 2) if sum(u != v for u, v in zip(p, q)) == 1]
