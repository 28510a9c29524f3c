"""Every preset trains from its name alone: a smoke run without any files, whose parts are the ones it is named after."""

from __future__ import annotations

import pytest
import torch
import yaml

from lmn_graph import data
from lmn_graph.presets import PRESETS
from lmn_graph.rules import RULES
from lmn_graph.training import configure, train
from lmn_graph.training.build import build_machine

HEAVY = {
    *("block-imagenet", "block-mnist", "blocksparse-helena", "mnist", "pc-food101", "pc-head-bench", "pc-imagenet"),
    *("stsoc-domainnet", "stsoc-multidomain", "vision-soc", "vision-soc-clustering", "volumetric-soc"),
}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """A folder without data."""
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in PRESETS])
def test_a_preset_smokes_without_files(name, tmp_path):
    run = train(configure(name), tmp_path / "run", smoke=True, progress=False)
    score = "test/accuracy" if run.record["task"] == "classification" else "test/r2"
    assert score in run.metrics
    assert ("test/branching_ratio" if RULES[run.config["rule"]["name"]].spiking else "test/lyapunov") in run.metrics
    assert not any((tmp_path / "nowhere").iterdir())  # nothing is fetched, no cache is made


def test_pictures_that_do_not_fit_into_memory_are_decoded_later():
    """All of DomainNet in colour would take 27 GB as numbers."""
    for name in PRESETS:
        spec = yaml.safe_load(PRESETS[name].read_text(encoding="utf-8"))["data"]
        if isinstance(spec, dict) and (spec.get("name"), spec.get("mode")) == ("domainnet", "RGB"):
            assert spec.get("memory") is False, name


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_says_what_it_is(name):
    """One line on top, which ``lmn list`` shows, and nothing but registered names."""
    text = PRESETS[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text.splitlines()[0]) <= 140
    assert yaml.safe_load(text).keys() >= {"data", "topology", "projector", "rule", "readout", "machine", "trainer"}


def machine_of(name):
    config = configure(name)
    spec = config["data"]
    splits = (
        data.make_specimen(spec["name"]) if name in ("blocksparse-helena", "block-mnist", "block-imagenet") else data.load(spec["name"])
    )
    return build_machine(config, splits.in_shape, splits.out_features)


def test_helena_is_a_grid_of_ten_thousand_cells_in_four_dimensions():
    machine = machine_of("blocksparse-helena")
    assert machine.topology.shape == (10, 10, 10, 10)
    assert (machine.projector.in_shape, machine.readout.out_features) == ((27,), 100)


def test_a_block_has_a_cell_per_pixel():
    for name, side, classes in (("block-mnist", 28, 10), ("block-imagenet", 32, 1000)):
        machine = machine_of(name)
        assert machine.topology.shape == machine.projector.in_shape == (side, side)
        assert machine.readout.out_features == classes
        assert isinstance(machine.rule.alpha, torch.nn.Parameter)
