"""Pictures of what a readout looks at: every cell is drawn where it lies, and any graph can be drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.halting import HALTING
from lmn_graph.machine import evaluating
from lmn_graph.projectors import Linear
from lmn_graph.readouts import ClassQuery, Holographic, HolographicEmbedding, Rate
from lmn_graph.report.readouts import class_attention, holographic_factors, sheet
from lmn_graph.rules import TanhLattice

GRAPHS = {
    "cube": topologies.grid(3, 3),
    "line": topologies.grid(5, 1),
    "small world": topologies.small_world(12, 4, 0.2, seed=0),
    "ports": topologies.raster(3, 4),
    "one": topologies.complete(1),
}


def machine(graph, readout, channels=None, **options):
    rule = TanhLattice(graph, channels=channels)
    steps = 8
    made = readout(graph, 4, steps, channels=channels, **options)
    return LatticeMachine(graph, Linear((5,), graph, channels=channels), rule, made, steps=steps)


def test_a_sheet_has_every_cell_once_in_its_layer():
    """Layers of 2 × 3 cells side by side, NaN between; read back they are the lattice."""
    values = np.arange(30.0)
    picture = sheet(values, (2, 3, 5))
    assert sorted(picture[np.isfinite(picture)]) == values.tolist()
    lattice = values.reshape(2, 3, 5)
    corners = [np.argwhere(picture == lattice[0, 0, layer])[0] for layer in range(5)]
    for layer, (top, left) in enumerate(corners):
        assert (picture[top : top + 2, left : left + 3] == lattice[:, :, layer]).all()
    assert sheet(np.arange(4.0), (4,)).shape == (1, 4)
    assert sheet(np.arange(6.0), (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.isfinite(sheet(np.arange(16.0), (2, 2, 2, 2))).sum() == 16


@pytest.mark.parametrize(("graph", "channels"), [("cube", None), ("line", 2), ("small world", None), ("ports", 2), ("one", None)])
def test_every_graph_can_be_drawn(graph, channels, tmp_path):
    topology = GRAPHS[graph]
    class_attention(
        tmp_path / "attention.png", machine(topology, ClassQuery, channels), torch.rand(3, 5), {0: "cats", 2: "dogs & other <beasts>"}
    )
    holographic_factors(tmp_path / "factors.png", machine(topology, HolographicEmbedding, channels, rank=3), ["a", "b", "c", "d"])
    if graph == "cube":
        holographic_factors(tmp_path / "plain.svg", machine(topology, Holographic, channels, rank=4))
        assert (tmp_path / "plain.svg").read_text().startswith("<?xml")
    for name in ("attention", "factors"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size[0] > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 8


def test_where_a_class_attends_is_what_is_drawn(tmp_path, monkeypatch):
    """The colours of the cells are their shares, times the number of cells: with all shares equal all are 1."""
    drawn = []
    import lmn_graph.report.readouts as report

    monkeypatch.setattr(report, "sheet", lambda values, shape: drawn.append(values) or sheet(values, shape))
    one = machine(GRAPHS["cube"], ClassQuery)
    for parameter in (one.readout.spatial.query, one.readout.attend.query):
        torch.nn.init.zeros_(parameter)
    class_attention(tmp_path / "a.png", one, torch.rand(2, 5), {1: "one", 3: "three"})
    assert len(drawn) == 2
    np.testing.assert_allclose(drawn, np.ones((2, 27)), rtol=1e-5)
    assert one.training


def test_a_machine_that_halts_shows_what_its_readout_is_given(tmp_path, monkeypatch):
    """Activity weighed by the shares of the steps, zero after the last one."""
    graph = GRAPHS["cube"]
    one = machine(graph, ClassQuery)
    halting = LatticeMachine(graph, one.projector, one.rule, one.readout, steps=8, halting=HALTING["AdaptiveTime"](graph, channels=None))
    given, x = [], torch.rand(2, 5)
    attention = one.readout.attention
    monkeypatch.setattr(one.readout, "attention", lambda activity, classes: given.append(activity) or attention(activity, classes))
    class_attention(tmp_path / "a.png", halting, x, {1: "one"})
    with evaluating(halting), torch.no_grad():
        trajectory = halting.run(halting.inputs(x))
    torch.testing.assert_close(given[0], trajectory.activity * 8 * trajectory.halting.weights.unsqueeze(2))
    assert not torch.equal(given[0], trajectory.activity)


def test_readouts_without_attention_or_factors_are_refused(tmp_path):
    plain = machine(GRAPHS["cube"], Rate)
    with pytest.raises(ValueError, match="machine must have a ClassQuery readout, got Rate"):
        class_attention(tmp_path / "a.png", plain, torch.rand(2, 5), {0: "a"})
    with pytest.raises(ValueError, match="machine must have a readout with node factors such as Holographic, got Rate"):
        holographic_factors(tmp_path / "a.png", plain)
    for classes in ({}, dict.fromkeys(range(7), "a")):
        with pytest.raises(ValueError, match=f"classes must name 1 to 6 classes, got {len(classes)}"):
            class_attention(tmp_path / "a.png", machine(GRAPHS["cube"], ClassQuery), torch.rand(2, 5), classes)
    assert not list(tmp_path.iterdir())
