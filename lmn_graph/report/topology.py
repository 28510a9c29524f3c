"""A topology as a picture: its nodes and edges, its degrees, its adjacency matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.report.layout import circle, layout
from lmn_graph.report.style import BLUE, GREEN, GREY, INK, MUTED, ORANGE, new_figure
from topologies import _checks

_NODES, _EDGES = 20_000, 12_000  # drawn at most; more would be a blot
_TILT = 0.55  # the angle from one axis of a lattice with four or more to the next


def draw_topology(path: str | Path, topology: Data, *, title: str = "") -> None:
    """Draw a graph: lattices with up to three axes in space (a wrapped edge as two half ones), other graphs by layout.

    Nodes are coloured by ``node_type``, else by in-degree, as the bars beside are; input ports have a green, output ports an orange rim.
    Edges with negative weight are orange. At most 20,000 nodes and 12,000 edges are drawn, evenly chosen. Beside it: the distribution of
    the in-degrees and where the adjacency matrix is not zero.

    Args:
        path: the picture, in any format that matplotlib writes.
        topology: the graph.
        title: heading; the graph's name where empty.

    Raises:
        ValueError: if the graph is not valid or has positions that are not finite.
    """
    graph = Connectivity(topology).cpu()
    with new_figure(path, 1, 1, (9.6, 6.2)) as (figure, axes):
        axes[0, 0].remove()
        cells = figure.add_gridspec(2, 2, width_ratios=(2.4, 1))
        main = _draw_graph(figure, cells[:, 0], topology, graph)
        main.set_title(title or f"{graph.name}: {graph.num_nodes:,} nodes, {graph.num_edges:,} edges", color=INK)
        _draw_degrees(figure.add_subplot(cells[0, 1]), graph, _Colours(topology, graph))
        _draw_adjacency(figure.add_subplot(cells[1, 1]), graph)


def draw_gallery(path: str | Path, graphs: Mapping[str, Data], *, columns: int = 4) -> None:
    """Draw graphs side by side, each as :func:`draw_topology` does, without what stands beside it and without a legend.

    Args:
        path: the picture.
        graphs: heading → graph, at least one.
        columns: how many in a row, ≥ 1.

    Raises:
        ValueError: if there is no graph, or as :func:`draw_topology`.
    """
    columns = _checks.integer("columns", columns, minimum=1)
    if not graphs:
        raise ValueError("graphs must hold at least one graph, got none")
    rows = -(-len(graphs) // columns)
    with new_figure(path, 1, 1, (2.6 * columns, 2.75 * rows)) as (figure, axes):
        axes[0, 0].remove()
        cells = figure.add_gridspec(rows, columns)
        for number, (title, topology) in enumerate(graphs.items()):
            axis = _draw_graph(figure, cells[number // columns, number % columns], topology, Connectivity(topology).cpu(), small=True)
            axis.set_title(title, color=INK, loc="center", fontweight="normal")


def _draw_graph(figure: Any, cell: Any, topology: Data, graph: Connectivity, small: bool = False) -> Any:
    """The nodes and edges in a cell of the figure; the axis."""
    place, displacement = place_nodes(graph)
    if graph.pos is not None:
        place = _apart(place, topology.get("column"))
    axis = figure.add_subplot(cell, projection=None if place.size(1) == 2 else "3d")
    _draw_edges(axis, graph, place, displacement)
    _draw_nodes(axis, topology, graph, place, 0.3 if small else 1.0)
    _bare(axis, place)
    if small and axis.get_legend() is not None:
        axis.get_legend().remove()
    return axis


def place_nodes(graph: Connectivity) -> tuple[Tensor, Tensor]:
    """Where the nodes are, [N, 2 or 3], and the vector from target to source of every edge, [E, 2 or 3]."""
    source, target = graph.edge_index
    if graph.pos is None or graph.pos.dim() != 2 or graph.pos.size(1) < 1:
        place = layout(graph)
        return place, place[source] - place[target]
    pos = graph.pos.double()
    if not bool(pos.isfinite().all()):
        raise ValueError("topology.pos must be finite, got NaN or infinity")
    displacement = pos[source] - pos[target]
    if graph.edge_attr is not None and graph.edge_attr.shape == displacement.shape:
        displacement = graph.edge_attr.double()
    if pos.size(1) == 2 and graph.shape is not None and len(graph.shape) == 2 and torch.equal(pos, _cells(graph.shape)):
        pos, displacement = (vectors.flip(1) * torch.tensor([1.0, -1.0]) for vectors in (pos, displacement))  # rows go down
    if pos.size(1) > 1:
        return _seen(pos), _seen(displacement)
    if bool((displacement - (pos[source] - pos[target])).abs().max() > 0.5) if graph.num_edges else False:
        place = circle(graph.num_nodes)  # a ring
    else:
        place = torch.cat([pos, torch.zeros_like(pos)], dim=1)
    return place, place[source] - place[target]


def _apart(place: Tensor, column: Any) -> Tensor:
    """Columns, whose positions are the same, side by side."""
    if not isinstance(column, Tensor) or column.shape != place.shape[:1]:
        return place
    step = torch.zeros(place.size(1), dtype=place.dtype)
    step[0] = 1.25 * float(place[:, 0].max() - place[:, 0].min()) + 1
    return place + column.to(place.dtype)[:, None] * step


def _cells(shape: tuple[int, ...]) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(side) for side in shape)).double()


def _seen(vectors: Tensor) -> Tensor:
    """Vectors with two or three components as they are; more are drawn in the plane, each axis at an angle of its own."""
    dim = vectors.size(1)
    if dim <= 3:
        return vectors
    angle = _TILT * torch.arange(dim, dtype=torch.float64)
    length = torch.tensor([1.0 + 2.2 * (axis // 2) for axis in range(dim)], dtype=torch.float64)
    return vectors @ torch.stack([length * (angle + math.pi / 2 * (angle > 0)).cos(), length * (angle + math.pi / 2).sin()], dim=1)


def _evenly(count: int, limit: int) -> Tensor:
    """At most ``limit`` of ``count`` numbers, evenly spread."""
    return torch.arange(count) if count <= limit else torch.linspace(0, count - 1, limit).long()


def _draw_edges(axis: Any, graph: Connectivity, place: Tensor, displacement: Tensor) -> None:
    from matplotlib.collections import LineCollection
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    chosen = _evenly(graph.num_edges, _EDGES)
    if not len(chosen):
        return
    source, target = graph.edge_index[:, chosen]
    inside = torch.isclose(place[source] - place[target], displacement[chosen], atol=1e-6).all(1)
    # An edge that wraps around the box leaves its target and never arrives: half of it is drawn at each end, the other direction's.
    end = torch.where(inside[:, None], place[source], place[target] + 0.5 * displacement[chosen])
    segments = torch.stack([place[target], end], dim=1).numpy()
    negative = torch.zeros(len(chosen), dtype=torch.bool) if graph.edge_weight is None else graph.edge_weight[chosen] < 0
    length = displacement[chosen].norm(dim=1)
    shortest = torch.where(length > 0, length, torch.inf).min()  # a self-loop has none
    near = length < 1.01 * shortest  # on a crowded lattice its axes stay visible, the diagonals are a haze
    kind = LineCollection if place.size(1) == 2 else Line3DCollection
    for part, crowd in ((near, int(near.sum())), (~near, len(chosen))):
        alpha = min(0.6, max(0.06, 900 / max(1, crowd)))
        for subset, colour in ((part & ~negative, GREY), (part & negative, ORANGE)):
            if bool(subset.any()):
                axis.add_collection(kind(segments[subset.numpy()], colors=colour, linewidths=0.7, alpha=alpha, zorder=1))


class _Colours:
    """Node colours: by kind where the topology names kinds, else by in-degree."""

    def __init__(self, topology: Data, graph: Connectivity) -> None:
        kinds, names = topology.get("node_type"), topology.get("node_types")
        self.by_kind = isinstance(kinds, Tensor) and kinds.shape == (graph.num_nodes,)
        self.value = kinds.cpu().double() if isinstance(kinds, Tensor) and self.by_kind else graph.in_degree().double()
        low, high = float(self.value.min()), float(self.value.max())
        self.low = low - 0.6 * max(1.0, high - low)  # no node as pale as the paper
        self.high = high + 0.2 * max(1.0, high - low)
        self.names = [str(name) for name in names] if isinstance(names, list) else []

    def of(self, value: Tensor) -> Any:
        """RGBA [n, 4]."""
        from matplotlib import colormaps

        return colormaps["YlGnBu"](((value.double() - self.low) / (self.high - self.low)).numpy())

    def legend(self) -> list[tuple[str, Any]]:
        """Kinds with their colours, where there are few enough to list."""
        kinds = self.value.unique() if self.by_kind else torch.empty(0)
        if not 1 < len(kinds) <= 6:
            return []
        names = [self.names[int(k)] if 0 <= int(k) < len(self.names) else f"node_type {int(k)}" for k in kinds.tolist()]
        return list(zip(names, self.of(kinds)))


def _draw_nodes(axis: Any, topology: Data, graph: Connectivity, place: Tensor, scale: float) -> None:
    from matplotlib.lines import Line2D

    chosen, colours = _evenly(graph.num_nodes, _NODES), _Colours(topology, graph)
    size = scale * min(60.0, max(2.0, (2600 if place.size(1) == 2 else 6000) / graph.num_nodes))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "zorder": 2}
    if place.size(1) == 3:
        style["depthshade"] = False
        axis.computed_zorder = False
    axis.scatter(*place[chosen].T.numpy(), c=colours.of(colours.value[chosen]), **style)
    for field, colour in (("input_index", GREEN), ("output_index", ORANGE)):
        ports = topology.get(field)
        if isinstance(ports, Tensor) and ports.numel():
            rim = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.2, "zorder": 3}
            axis.scatter(*place[ports.cpu()].T.numpy(), s=size + scale * (16 + 14 * (field == "input_index")), label=field, **rim)
    handles = axis.get_legend_handles_labels()[0]
    handles += [Line2D([], [], marker="o", linestyle="", color=colour, label=name[:28]) for name, colour in colours.legend()]
    if graph.edge_weight is not None and bool((graph.edge_weight < 0).any()):
        handles.append(Line2D([], [], color=ORANGE, label="negative weight"))
    if handles:
        axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=4)


def _bare(axis: Any, place: Tensor) -> None:
    """Equal scales, no ticks, no panes."""
    axis.grid(False)
    low, high = place.amin(0), place.amax(0)
    for name, a, b in zip("xyz", low.tolist(), high.tolist()):
        margin = 0.6 if b - a > 2 else 0.1 * max(b - a, 1e-3) + 0.05 * float((high - low).max().clamp(min=1e-3))
        getattr(axis, f"set_{name}lim")(a - margin, b + margin)
        getattr(axis, f"set_{name}ticks")([])
        if place.size(1) == 3:
            getattr(axis, f"{name}axis").set_pane_color((1, 1, 1, 0))
            getattr(axis, f"{name}axis").line.set_color((1, 1, 1, 0))
    if place.size(1) == 3:
        axis.set_box_aspect((high - low + 1).tolist(), zoom=1.1)
        axis.view_init(elev=16, azim=-58)
        return
    for spine in axis.spines.values():
        spine.set_visible(False)
    if 0.25 < float((high[1] - low[1]) / (high[0] - low[0]).clamp(min=1e-9)) < 4:  # else stretched: a tree is much wider than high
        axis.set_aspect("equal")


def _draw_degrees(axis: Any, graph: Connectivity, colours: _Colours) -> None:
    degree, count = graph.in_degree().unique(return_counts=True)
    wide = len(degree) > 1 and float(degree.max()) > 50 * max(1.0, float(degree.double().median()))
    if len(degree) > 40:
        _, edges, bars = axis.hist(graph.in_degree().numpy(), bins=40, color=BLUE)
        if not colours.by_kind:
            for bar, colour in zip(bars, colours.of(torch.from_numpy((edges[1:] + edges[:-1]) / 2))):
                bar.set_facecolor(colour)
    else:
        axis.bar(degree.numpy(), count.numpy(), color=BLUE if colours.by_kind else colours.of(degree), width=0.8)
    if wide:
        axis.set_yscale("log")
    if len(degree) == 1:
        axis.set_xlim(float(degree) - 3, float(degree) + 3)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title("in-degree", color=INK)
    axis.set_ylabel("nodes")


def _draw_adjacency(axis: Any, graph: Connectivity) -> None:
    """The matrix as a raster of at most 200 × 200 cells: darker where a larger share of the entries is not zero."""
    n, side = graph.num_nodes, min(graph.num_nodes, 200)
    cell = graph.edge_index * side // n
    counts = torch.bincount(cell[1] * side + cell[0], minlength=side * side).view(side, side).double()
    edges = torch.arange(side + 1) * n // side
    # Cells of a raster that does not divide n differ in size by a row or a column.
    area = edges.diff().clamp(min=1).double()
    share = counts / (area[:, None] * area[None])
    axis.imshow(share.pow(0.5).numpy(), cmap="Blues", vmin=0, interpolation="nearest", extent=(0, n, n, 0))
    axis.grid(False)
    axis.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    axis.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    axis.tick_params(colors=MUTED)
    axis.set_title("adjacency matrix", color=INK)
    axis.set_xlabel("source")
    axis.set_ylabel("target")
