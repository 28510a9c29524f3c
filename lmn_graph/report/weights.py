"""One graph under several weightings, side by side: which edges are strong, and which nodes belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.report.style import INK, new_figure
from lmn_graph.report.topology import place_nodes


class Weighting(NamedTuple):
    """Edge weights [E] in the order of the connectivity, and a label [N] by which nodes are coloured, or None."""

    weight: Tensor
    label: Tensor | None = None


def draw_weights(path: str | Path, topology: Data, weightings: Mapping[str, Weighting]) -> None:
    """Draw a graph with positions in the plane once per weighting, an edge the wider and darker the larger its magnitude.

    Widths are relative to the 99th percentile of each weighting; the two directions of an edge lie on top of each other, and an edge
    that wraps around a periodic lattice is drawn half way from each end.

    Args:
        path: the picture.
        topology: the graph.
        weightings: heading → weights.

    Raises:
        ValueError: if there is no weighting, one does not fit the graph, or nodes lie in space.
    """
    graph = Connectivity(topology).cpu()
    place, displacement = place_nodes(graph)
    if place.size(1) != 2:
        raise ValueError(f"topology must have positions in the plane, or none, got {tuple(place.shape)}")
    if not weightings:
        raise ValueError("weightings must hold at least one, got none")
    for name, (weight, label) in weightings.items():
        if weight.shape != (graph.num_edges,) or (label is not None and label.shape != (graph.num_nodes,)):
            raise ValueError(f"weightings[{name!r}] must be [{graph.num_edges}] weights and [{graph.num_nodes}] labels or None")
    with new_figure(path, 1, len(weightings), (4.1 * len(weightings), 4.3)) as (_, axes):
        for axis, (name, (weight, label)) in zip(axes[0], weightings.items()):
            _draw(axis, graph, place, displacement, weight.detach().cpu().abs().double(), label)
            axis.set_title(name, color=INK, loc="center", fontweight="normal")


def _draw(axis: Any, graph: Connectivity, place: Tensor, displacement: Tensor, weight: Tensor, label: Tensor | None) -> None:
    from matplotlib.collections import LineCollection

    target = graph.edge_index[1]
    strength = (weight / weight.quantile(0.99).clamp(min=1e-12)).clamp(max=1) if len(weight) else weight
    order = strength.argsort()
    segments = torch.stack([place[target], place[target] + 0.5 * displacement], dim=1)[order].numpy()
    colours = [(0.13, 0.15, 0.16, alpha) for alpha in (0.04 + 0.9 * strength[order]).tolist()]
    axis.add_collection(LineCollection(list(segments), colors=colours, linewidths=(0.4 + 3.6 * strength[order]).tolist(), zorder=1))
    size = min(90.0, max(6.0, 5000 / graph.num_nodes))
    colour = torch.zeros(graph.num_nodes) if label is None else label
    axis.scatter(*place.T.numpy(), c=(colour.cpu() % 20).numpy(), s=size, cmap="tab20", vmin=0, vmax=19, edgecolors="white", zorder=2)
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_aspect("equal")
    axis.margins(0.04)
