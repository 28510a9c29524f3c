"""Curves are drawn with their names at their ends, none over another."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.axes import Axes

from lmn_graph.report.curves import draw_curves


def test_names_do_not_overlap(tmp_path, monkeypatch):
    """Ten curves that end at the same height get ten heights for their names."""
    heights = []
    annotate = Axes.annotate
    monkeypatch.setattr(Axes, "annotate", lambda self, text, xy, **more: heights.append(xy[1]) or annotate(self, text, xy, **more))
    draw_curves(tmp_path / "c.png", {f"rule {i}": [0.1 * i, 0.5, 0.9] for i in range(10)}, "epoch", "accuracy", "title")
    assert len(set(heights)) == 10
    gaps = [high - low for high, low in itertools.pairwise(heights)]
    assert min(gaps) > 0.03
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"curves must hold at least one curve, and none that is empty, got \{'a': 0\}"):
        draw_curves(tmp_path / "c.png", {"a": []}, "x", "y", "t")
    with pytest.raises(ValueError, match="path must end in one of"):
        draw_curves(tmp_path / "c.xyz", {"a": [1.0]}, "x", "y", "t")
