"""The pictures of a run: real images of a sensible size, for every kind of rule and task."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import RULE, blobs, prices

from lmn_graph.plugins import import_plugin
from lmn_graph.report import plots
from lmn_graph.rules import RULES
from lmn_graph.training import configure, train


@pytest.fixture(scope="module", autouse=True)
def leaky_tanh(tmp_path_factory):
    """A rule that does not spike."""
    path = tmp_path_factory.mktemp("plugin") / "leaky.py"
    path.write_text(RULE)
    import_plugin(str(path))
    yield
    RULES._entries.pop("LeakyTanh")


def look(path, *, full=0.9):
    """The pixels; neither empty nor one colour."""
    with Image.open(path) as image:
        image.load()
        assert image.width >= 400
        assert image.height >= 200
        assert image.width * image.height < 4e6
        pixels = np.asarray(image.convert("RGB"))
    assert 0.02 < (pixels < 250).any(-1).mean() < full
    return pixels


@pytest.mark.parametrize("rule", ["SpikingSOC", "LeakyTanh"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_run_leaves_three_pictures(rule, task, tmp_path):
    small = ["--topology.L", "4", "--topology.dim", "2", "--machine.steps", "4", "--trainer.epochs", "2"]
    data = ["--data", str(blobs(tmp_path))] if task == "classification" else ["--data", str(prices(tmp_path)), "--data.target", "price"]
    parts = [] if rule == "SpikingSOC" else ["--rule", rule, "--criticality", "none"]
    run = train(configure("soc-lattice", [], [*data, *small, *parts]), tmp_path / "run", progress=False)
    for name in ("losses.png", "raster.png", "dynamics.png"):
        look(run.folder / name)


def test_burn_in_is_shaded(tmp_path):
    table = [{"epoch": i, "train/task": 2 / (i + 1), "val/loss": 2.1 / (i + 1), "val/accuracy": i / 6} for i in range(6)]
    plots.losses(tmp_path / "plain.png", table)
    plots.losses(tmp_path / "shaded.png", table, burn_in=3)
    white = [(look(tmp_path / name, full=1.0) == 255).all(-1).mean() for name in ("plain.png", "shaded.png")]
    assert white[1] < white[0] - 0.2


def test_a_table_of_one_epoch_and_constant_or_missing_values_are_drawn(tmp_path):
    """Points where there is no line yet; zeros and NaN do not break a logarithmic axis."""
    values = {"train/task": 0.0, "val/loss": 1.0, "val/rate": 0.0, "val/lyapunov": float("nan")}
    one = [{"epoch": 0.0, **values}]
    plots.losses(tmp_path / "losses.png", one, burn_in=0)
    plots.dynamics(tmp_path / "dynamics.png", one)
    look(tmp_path / "losses.png")
    look(tmp_path / "dynamics.png")


@pytest.mark.parametrize(
    "activity",
    [torch.zeros(2, 8, 5), torch.ones(1, 3, 1), torch.rand(2, 8, 5) - 0.5, torch.rand(3, 30, 600).round(), torch.randn(2, 8, 5, 3)],
    ids=["silent", "one node", "values", "many nodes", "channels"],
)
def test_any_activity_is_drawn(activity, tmp_path):
    plots.raster(tmp_path / "raster.png", activity, steps=3)
    look(tmp_path / "raster.png")


def test_nothing_of_the_callers_plotting_is_touched(tmp_path):
    before = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
    plots.raster(tmp_path / "raster.png", torch.rand(2, 8, 5), steps=3)
    assert (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)) == before
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []
