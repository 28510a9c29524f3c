"""One graph under several weightings: drawn for lattices and other graphs, refused where a weighting does not fit."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import topologies
from lmn_graph.report.weights import Weighting, draw_weights


@pytest.mark.parametrize("graph", [topologies.triangular(4, 4), topologies.complete(5), topologies.grid(1, 1)], ids=lambda g: g.name)
def test_every_weighting_is_a_panel(graph, tmp_path):
    """Labels or none; weights of any sign, all zero, none at all."""
    weight = torch.linspace(-1, 1, graph.num_edges)
    one = {"a": Weighting(weight)}
    two = {"a": Weighting(weight, torch.arange(graph.num_nodes)), "b": Weighting(0 * weight)}
    sizes = []
    for name, weightings in (("one.png", one), ("two.png", two)):
        draw_weights(tmp_path / name, graph, weightings)
        with Image.open(tmp_path / name) as picture:
            sizes.append(picture.size)
    assert sizes[1][0] > 1.5 * sizes[0][0]


def test_what_does_not_fit_is_refused(tmp_path):
    graph = topologies.triangular(4, 4)
    with pytest.raises(ValueError, match="weightings must hold at least one, got none"):
        draw_weights(tmp_path / "a.png", graph, {})
    with pytest.raises(ValueError, match=r"weightings\['a'\] must be \[96\] weights and \[16\] labels or None"):
        draw_weights(tmp_path / "a.png", graph, {"a": Weighting(torch.ones(3))})
    with pytest.raises(ValueError, match="topology must have positions in the plane"):
        draw_weights(tmp_path / "a.png", topologies.grid(3, 3), {"a": Weighting(torch.ones(702))})
    assert not list(tmp_path.iterdir())
