"""What a trained readout looks at: where and when each class attends, and the factors that it contracts the lattice with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lmn_graph.connectivity import Connectivity, lattice_shape
from lmn_graph.machine import LatticeMachine, evaluating
from lmn_graph.readouts import ClassQuery
from lmn_graph.report.style import BLUE, GREY, INK, new_figure
from lmn_graph.report.topology import place_nodes

MAPS = 6  # classes or factors drawn side by side
COLOURS = (BLUE, "#d1752b", "#3a8f5d", "#8c5fa8", "#b8475a", "#6b727c")


def sheet(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A lattice as a picture: its layers along all axes but the first two side by side, NaN between them.

    Args:
        values: [N].
        shape: the sides of the lattice, N cells in all.

    Returns:
        [height, width]; one row for a lattice of one axis.
    """
    rows, columns = (1, shape[0]) if len(shape) == 1 else shape[:2]
    layers = values.reshape(rows, columns, -1)
    count = layers.shape[2]
    across = math.ceil(math.sqrt(count * rows / columns)) or 1
    down = math.ceil(count / across)
    found = np.full((down * (rows + 1) - 1, across * (columns + 1) - 1), np.nan)
    for layer in range(count):
        top, left = (layer // across) * (rows + 1), (layer % across) * (columns + 1)
        found[top : top + rows, left : left + columns] = layers[:, :, layer]
    return found


@torch.no_grad()
def class_attention(path: str | Path, machine: LatticeMachine, x: Tensor, classes: Mapping[int, str]) -> None:
    """Where the query of every class attends, summed over the steps, and when, summed over the cells; both are means over samples.

    Args:
        path: the picture.
        machine: one whose readout is a :class:`lmn_graph.readouts.ClassQuery`.
        x: samples.
        classes: the number of each class that is drawn and what it is called, at most six.

    Raises:
        ValueError: if the readout is another, or no or too many classes are named.
    """
    readout = machine.readout
    if not isinstance(readout, ClassQuery):
        raise ValueError(f"machine must have a ClassQuery readout, got {type(readout).__name__}")
    if not 1 <= len(classes) <= MAPS:
        raise ValueError(f"classes must name 1 to {MAPS} classes, got {len(classes)}")
    with evaluating(machine):
        share = readout.attention(machine.seen(machine(x).trajectory), list(classes)).mean(0).cpu()  # [classes, steps, cells]
    where, when = share.sum(1), share.sum(2)
    count, limits = len(classes), (0.0, float(where.max()) * where.size(1))
    with new_figure(path, 2, count, (2.3 * count + 0.8, 4.0), height_ratios=(2, 1)) as (figure, axes):
        for axis, cells, name in zip(axes[0], where, classes.values()):
            picture = _draw_cells(axis, machine, readout.output_index, cells * cells.numel(), "magma", limits)
            axis.set_title(name, loc="center", color=INK)
        figure.colorbar(picture, ax=list(axes[0]), pad=0.01, label="attention (uniform: 1)")
        for axis, steps, colour in zip(axes[1], when, COLOURS):
            axis.bar(range(readout.skip + 1, readout.steps + 1), steps.numpy(), color=colour)
            axis.set_ylim(0, float(when.max()) * 1.1)
            axis.set_xlabel("step")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1][0].set_ylabel("attention")


@torch.no_grad()
def holographic_factors(path: str | Path, machine: LatticeMachine, names: Sequence[str] | None = None) -> None:
    """The first factors that a holographic readout contracts the lattice with, the cells of each coloured by its value, and, where the
    readout has embeddings of classes, their cosines.

    Args:
        path: the picture.
        machine: one whose readout has ``node_factors()``.
        names: of the classes.

    Raises:
        ValueError: if the readout has no factors.
    """
    readout: Any = machine.readout
    if not hasattr(readout, "node_factors"):
        raise ValueError(f"machine must have a readout with node factors such as Holographic, got {type(readout).__name__}")
    factors = readout.node_factors().detach().cpu().flatten(1).T[:MAPS]
    embeddings = readout.class_factors().detach().cpu() if hasattr(readout, "class_factors") else None
    count = len(factors) + (embeddings is not None)
    ratios = [1.0] * len(factors) + [1.4] * (embeddings is not None)
    with new_figure(path, 1, count, (2.0 * sum(ratios) + 0.8, 2.6), width_ratios=ratios) as (figure, axes):
        limit = float(factors.abs().flatten().quantile(0.995).clamp(min=1e-12))  # a few cells may stand far out
        for number, (axis, values) in enumerate(zip(axes[0], factors)):
            picture = _draw_cells(axis, machine, readout.output_index, values, "RdBu_r", (-limit, limit))
            axis.set_title(f"factor {number + 1}", loc="center", color=INK)
        figure.colorbar(picture, ax=list(axes[0][: len(factors)]), pad=0.01, shrink=0.9)
        if embeddings is not None:
            _draw_cosines(figure, axes[0][-1], embeddings, names)


def _draw_cosines(figure: Any, axis: Any, embeddings: Tensor, names: Sequence[str] | None) -> None:
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    picture = axis.imshow((unit @ unit.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.set_title("cosines of classes", loc="center")
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    if names is not None and len(names) == len(unit) <= 12:
        axis.set_yticks(range(len(names)), names, fontsize=7.5)
    figure.colorbar(picture, ax=axis, pad=0.02, shrink=0.9)


def _draw_cells(axis: Any, machine: LatticeMachine, ports: Tensor | None, values: Tensor, colours: str, limits: tuple[float, float]) -> Any:
    """The cells of a lattice as a sheet, the nodes of another graph where they lie; nodes that are not read are grey."""
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    values = values.view(-1) if ports is not None else values.view(machine.topology.num_nodes, -1).mean(1)
    shape = lattice_shape(machine.topology) if ports is None else None
    low, high = limits
    if shape is not None:
        axis.set_aspect("equal")
        return axis.imshow(sheet(values.numpy(), shape), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    place, _ = place_nodes(Connectivity(machine.topology).cpu())
    x, y = place[:, :2].T.numpy()
    chosen = slice(None) if ports is None else ports.cpu().numpy()
    size = min(60.0, max(4.0, 2500 / len(x)))
    axis.scatter(x, y, s=size, color=GREY, alpha=0.3, linewidths=0)
    axis.set_aspect("equal")
    return axis.scatter(x[chosen], y[chosen], c=values.numpy(), s=size, cmap=colours, vmin=low, vmax=high, linewidths=0)
