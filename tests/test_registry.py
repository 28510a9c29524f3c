"""Registries: names, did-you-mean, third-party entries; and that importing the library stays light."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import lmn_graph
from lmn_graph import registry as registry_module
from lmn_graph.registry import Registry
from lmn_graph.surrogates import SURROGATES, Surrogate


class Part:
    pass


class Wheel(Part):
    pass


class Engine(Part):
    pass


@pytest.fixture
def parts():
    registry = Registry("part", Part)
    registry.register(Wheel)
    registry.register(name="motor")(Engine)
    return registry


def test_entries_are_found_under_their_names_in_alphabetical_order(parts):
    assert list(parts) == ["Wheel", "motor"]
    assert parts["Wheel"] is Wheel
    assert parts["motor"] is Engine
    assert "Wheel" in parts
    assert "Engine" not in parts
    assert len(parts) == 2
    assert dict(parts.items()) == {"Wheel": Wheel, "motor": Engine}


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all(parts):
    with pytest.raises(ValueError, match=r"unknown part 'wheels'; did you mean 'Wheel'\?"):
        parts["wheels"]
    with pytest.raises(ValueError, match=r"unknown part 'xyz'; known: Wheel, motor"):
        parts["xyz"]


def test_get_returns_the_default_as_every_mapping_does(parts):
    assert parts.get("Wheel") is Wheel
    assert parts.get("nothing") is None
    assert parts.get("nothing", Engine) is Engine


def test_a_name_belongs_to_one_entry(parts):
    with pytest.raises(ValueError, match="part 'Wheel' is already registered"):
        parts.register(Engine, name="Wheel")
    assert parts["Wheel"] is Wheel
    assert parts.register(Wheel) is Wheel  # the same entry again, as when a module is reloaded


def test_an_entry_must_derive_from_the_base(parts):
    for entry in (int, len):
        with pytest.raises(ValueError, match="must be a subclass of Part"):
            parts.register(entry)
    assert len(parts) == 2


def test_entry_points_are_loaded_when_the_registry_is_first_read(monkeypatch):
    """A third party adds a part without this package knowing it, and pays its import only when names are looked up."""
    asked = []
    loaded = []

    class Lazy(EntryPoint):
        def load(self):
            loaded.append(self.name)
            return Engine

    def entry_points(group):
        asked.append(group)
        return [Lazy("turbine", "elsewhere:Engine", group)]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    registry = Registry("part", Part)
    assert asked == ["lmn_graph.parts"]
    assert loaded == []
    assert registry["turbine"] is Engine
    assert list(registry) == ["turbine"]
    assert loaded == ["turbine"]


def test_the_shipped_registries_hold_what_is_promised():
    assert "grid" in lmn_graph.TOPOLOGIES
    assert {"ArcTan", "FastSigmoid", "Gaussian", "Sigmoid", "StraightThrough", "Triangular"} <= set(SURROGATES)
    assert all(issubclass(surrogate, Surrogate) for surrogate in SURROGATES.values())


def test_topologies_is_one_module_under_both_names():
    import topologies

    assert lmn_graph.topologies is topologies
    assert sys.modules["lmn_graph.topologies"] is topologies
    from lmn_graph.topologies import grid

    assert grid is topologies.grid
    from lmn_graph.topologies.nulls import SpectralRadius

    assert SpectralRadius is topologies.SpectralRadius


def test_importing_the_library_loads_nothing_heavy():
    """Neither ``import lmn_graph`` nor the use of any part of a machine pays for training, plots or data sets."""
    heavy = ["lightning", "pytorch_lightning", "matplotlib", "sklearn", "torchvision", "datasets", "pandas", "jsonargparse"]
    code = (
        "import sys, torch_geometric\n"  # which may load some of them itself
        "before = set(sys.modules)\n"
        "import lmn_graph\n"
        "from lmn_graph import TOPOLOGIES, Connectivity, LatticeMachine, rollout\n"
        "from lmn_graph import criticality, data, losses, ops, presets, projectors, readouts, rules, surrogates, topologies\n"
        f"print([name for name in {heavy} if name in sys.modules and name not in before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_line_of_a_part_is_plain_text():
    """No markup of docstrings, no colon that announces an equation."""
    from lmn_graph.catalogue import catalogue

    for entries in catalogue().values():
        for name, text in entries.items():
            assert "`" not in text, name
            assert not text.endswith((",", ":")), name
