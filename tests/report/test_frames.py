"""A lattice drawn at a few moments."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lmn_graph.report.frames import lattice_frames


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 6)])
def test_active_cells_leave_more_ink_than_a_silent_lattice(tmp_path, shape):
    silent = torch.zeros(3, torch.Size(shape).numel())
    active = silent.clone()
    active[1] = 1.0
    ink = {}
    for name, activity in (("silent", silent), ("active", active)):
        lattice_frames(tmp_path / f"{name}.png", activity, shape, at=(0, 1))
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 400
            ink[name] = sum(picture.convert("L").histogram()[:200])
    assert ink["active"] > 1.2 * ink["silent"]


@pytest.mark.parametrize(
    ("activity", "shape", "at", "named"),
    [
        (torch.zeros(2, 9), (3, 3, 3), (0,), "activity"),
        (torch.zeros(2, 3), (3,), (0,), "activity"),
        (torch.zeros(2, 9), (3, 3), (2,), "at"),
        (torch.zeros(2, 9), (3, 3), (), "at"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, activity, shape, at, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        lattice_frames(tmp_path / "picture.png", activity, shape, at=at)
    assert not list(tmp_path.iterdir())
