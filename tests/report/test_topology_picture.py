"""The picture of a topology: drawn for every kind of graph, with what the caption promises."""

from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image
from small_topologies import small
from torch_geometric.data import Data

import topologies
from lmn_graph import TOPOLOGIES, Connectivity
from lmn_graph.report import topology as report
from lmn_graph.report.layout import layout
from lmn_graph.report.topology import draw_gallery, draw_topology


def size(path):
    with Image.open(path) as picture:
        picture.verify()
        return picture.size


@pytest.mark.parametrize("name", list(TOPOLOGIES))
def test_every_topology_can_be_drawn(name, tmp_path):
    draw_topology(tmp_path / "a.png", small(name, tmp_path))
    assert min(size(tmp_path / "a.png")) > 500


def test_a_gallery_has_a_panel_for_every_graph(tmp_path):
    """Flat and in space, in rows of so many."""
    graphs = {"a": topologies.grid(3, 3), "b": topologies.raster(3, 2), "c": topologies.complete(4)}
    draw_gallery(tmp_path / "row.png", graphs, columns=3)
    draw_gallery(tmp_path / "column.png", graphs, columns=1)
    row, column = size(tmp_path / "row.png"), size(tmp_path / "column.png")
    assert row[0] > 2 * column[0]
    assert column[1] > 2 * row[1]
    with pytest.raises(ValueError, match="graphs must hold at least one graph, got none"):
        draw_gallery(tmp_path / "none.png", {})
    with pytest.raises(ValueError, match="columns must be an integer >= 1, got 0"):
        draw_gallery(tmp_path / "none.png", graphs, columns=0)
    assert not (tmp_path / "none.png").exists()


def test_graphs_without_positions_edges_or_size_are_drawn(graph, tmp_path):
    """Isolated nodes, one node, no edge, parallel edges; a graph too large for springs."""
    draw_topology(tmp_path / "a.svg", Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes))
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_a_large_graph_is_laid_out_by_distances_and_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr("lmn_graph.report.layout._SPRINGS", 20)
    monkeypatch.setattr(report, "_EDGES", 50)
    draw_topology(tmp_path / "a.png", Data(edge_index=topologies.grid(8, 2).edge_index, num_nodes=64))
    assert min(size(tmp_path / "a.png")) > 500
    assert report._evenly(1000, 50).tolist()[::49] == [0, 999]


def test_a_wrapped_edge_goes_half_way_towards_where_it_comes_from():
    """On a periodic square the displacement of an edge is a unit vector, though its ends are three apart."""
    place, displacement = report.place_nodes(Connectivity(topologies.grid(4, 2, metric="manhattan")))
    assert torch.equal(displacement.norm(dim=1), torch.ones(64, dtype=torch.float64))
    assert place.shape == (16, 2)


def test_rows_of_a_flat_lattice_go_down_and_columns_to_the_right():
    place, _ = report.place_nodes(Connectivity(topologies.raster(3, 4)))
    assert place[[0, 3, 8]].tolist() == [[0, 0], [3, 0], [0, -2]]


def test_a_line_is_straight_and_a_ring_is_round():
    line, _ = report.place_nodes(Connectivity(topologies.grid(6, 1, boundary="open")))
    ring, _ = report.place_nodes(Connectivity(topologies.grid(6, 1)))
    assert line[:, 1].unique().tolist() == [0]
    torch.testing.assert_close(ring.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_columns_do_not_lie_on_top_of_each_other():
    columns = topologies.columns(3, topologies.grid(4, 2))
    place = report._apart(report.place_nodes(Connectivity(columns))[0], columns.column)
    assert len(place.unique(dim=0)) == columns.num_nodes


def test_parts_of_a_graph_do_not_lie_on_top_of_each_other():
    """Two rings, an edge and 30 nodes alone: every part in a square of its own."""
    rings = topologies.columns(2, topologies.ring(20)).edge_index
    edges = torch.cat([rings, torch.tensor([[40, 41], [41, 40]])], dim=1)
    place = layout(Connectivity(Data(edge_index=edges, num_nodes=72)))
    parts = [place[:20], place[20:40], place[40:42], *place[42:].split(1)]
    boxes = [(part.amin(0), part.amax(0)) for part in parts]
    for (low, high), (other_low, other_high) in itertools.combinations(boxes, 2):
        assert bool(((high < other_low) | (other_high < low)).any())
    assert torch.equal(place, layout(Connectivity(Data(edge_index=edges, num_nodes=72))))


@pytest.mark.parametrize("springs", [600, 5])
def test_neighbours_are_drawn_close(springs, monkeypatch):
    """By springs and by distances: on a ring the edges are short beside the distances of other pairs."""
    monkeypatch.setattr("lmn_graph.report.layout._SPRINGS", springs)
    graph = Connectivity(Data(edge_index=topologies.ring(60).edge_index, num_nodes=60))
    place = layout(graph)
    source, target = graph.edge_index
    assert (place[source] - place[target]).norm(dim=1).mean() < 0.3 * torch.pdist(place).mean()


def test_a_complete_graph_is_a_circle():
    place = layout(Connectivity(topologies.complete(9)))
    torch.testing.assert_close((place - place.mean(0)).norm(dim=1), torch.full((9,), 3.0, dtype=torch.float64))


def test_a_large_graph_without_edges_is_drawn(tmp_path):
    draw_topology(tmp_path / "a.png", Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=700))
    assert min(size(tmp_path / "a.png")) > 500


def test_kinds_of_nodes_are_named():
    """By ``node_types`` where the topology has them; more than six are not listed."""
    graph = topologies.ring(8)
    graph.node_type = torch.arange(8) % 2
    colours = report._Colours(graph, Connectivity(graph))
    assert [name for name, _ in colours.legend()] == ["node_type 0", "node_type 1"]
    graph.node_types = ["sensory", "motor"]
    assert [name for name, _ in report._Colours(graph, Connectivity(graph)).legend()] == ["sensory", "motor"]
    graph.node_type = torch.arange(8)
    assert report._Colours(graph, Connectivity(graph)).legend() == []


def test_the_same_graph_is_the_same_picture(tmp_path):
    graph = Data(edge_index=topologies.ring(9).edge_index, num_nodes=9)
    for name in ("a.png", "b.png"):
        draw_topology(tmp_path / name, graph)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_bad_positions_are_refused(tmp_path):
    graph = topologies.grid(3, 2)
    graph.pos = torch.full((9, 2), torch.nan)
    with pytest.raises(ValueError, match=r"topology\.pos must be finite, got NaN or infinity"):
        draw_topology(tmp_path / "a.png", graph)
    assert not (tmp_path / "a.png").exists()
