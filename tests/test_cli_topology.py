"""`lmn topology`, and topologies that are made of topologies: options, table, picture, and what is refused."""

from __future__ import annotations

import inspect

import pytest
from PIL import Image
from small_topologies import arguments_of

import topologies
from lmn_graph import TOPOLOGIES
from lmn_graph.report.numbers import numbers_table, topology_numbers
from lmn_graph.training import configure
from lmn_graph.training.build import build_topology


def spelled(arguments):
    """The arguments of a topology as a command line has them."""
    words = []
    for name, value in arguments.items():
        if name == "column":
            words += ["--column", "grid", "--column.L", "4", "--column.dim", "1"]
        else:
            words += [f"--{name}", str(value)]
    return words


@pytest.mark.parametrize("name", list(TOPOLOGIES))
def test_every_topology_prints_its_numbers(name, lmn, tmp_path):
    """The table of the command is that of the graph which the function makes."""
    arguments = arguments_of(name, tmp_path)
    code, out, error = lmn("topology", name, *spelled(arguments), "--nulls", "0")
    assert (code, error) == (0, "")
    assert out.strip() == numbers_table(TOPOLOGIES[name](**arguments), nulls=0).strip()


def test_the_command_of_the_issue_draws_a_lattice(lmn, tmp_path):
    code, out, _ = lmn("topology", "grid", "--L", "6", "--dim", "3", "--out", tmp_path / "lattice.png")
    assert code == 0
    lines = {line[:24].strip(): line[24:].split() for line in out.splitlines()}
    assert lines["nodes"] == ["216"]
    assert lines["edges"] == ["5,616"]
    assert lines["clustering"][0] == "0.4062"  # (7³ − 27 − 52) / (26 · 25)
    assert lines["clustering"][1:3] != []
    with Image.open(tmp_path / "lattice.png") as picture:
        assert min(picture.size) > 500


def test_help_lists_the_options_of_the_topology(lmn):
    code, out, _ = lmn("topology", "small_world", "--help")
    assert code == 0
    for name in inspect.signature(topologies.small_world).parameters:
        assert f"--{name} " in out
    assert "required" in out
    assert "default 0.1" in out
    assert "default [0.3, 0.2, 0.4, 0.1]" in lmn("topology", "liquid", "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one topology must be named, got 0"),
        (("grid", "ring"), "one topology must be named, got 2"),
        (("grdi", "--L", "3"), "unknown topology 'grdi'; did you mean 'grid'?"),
        (("grid", "--L", "3"), "option --dim is required"),
        (("grid", "--L", "3", "--dim", "x"), "option --dim must be an integer, got 'x'"),
        (("grid", "--L", "3", "--dimm", "2"), "unknown option '--dimm'; did you mean '--dim'?"),
        (("grid", "--L", "0", "--dim", "2"), "L must be an integer in [1"),
        (("grid", "--L", "3", "--dim", "2", "--radius", "0"), "radius must be an integer >= 1, got 0"),
        (("small_world", "--n", "30", "--p", "1.5"), "p must be a finite number in [0, 1], got 1.5"),
        (("columns", "--count", "2"), "option --column is required"),
        (("columns", "--count", "2", "--column", "rign"), "unknown topology 'rign'; did you mean 'ring'?"),
        (("read_edge_table", "--path", "nothing.csv"), "nothing.csv"),
        (("grid", "--L", "3", "--dim", "2", "--out", "lattice.txt"), "--out must end in one of"),
        (("grid", "--L", "3", "--dim", "2", "--out", "no/folder/a.png"), "--out must be a file in a folder that exists"),
        (("grid", "--L", "3", "--dim", "2", "--nulls", "-1"), "nulls must be an integer >= 0, got -1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused("topology", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_topology_made_of_topologies_is_an_option_of_a_run():
    """On the command line and in YAML, at any depth."""
    words = ["--topology", "columns", "--topology.count", "2", "--topology.column", "columns", "--topology.column.count", "3"]
    words += ["--topology.column.column", "ring", "--topology.column.column.n", "5"]
    config = configure("soc-lattice", [], words)
    assert config["topology"]["column"]["column"]["name"] == "ring"
    graph = build_topology(config)
    assert (graph.num_nodes, graph.shape) == (30, (2, 3, 5))


def test_numbers_are_of_the_simple_graph_and_of_any_graph(graph):
    """Parallel edges, loops, isolated nodes, one node, no edge."""
    found = topology_numbers(graph)
    assert found["nodes"] == graph.num_nodes
    assert found["edges"] == graph.edge_index.size(1)
    assert numbers_table(graph, nulls=1).count("\n") == len(found)


def test_a_rewired_small_world_loses_its_clustering():
    table = numbers_table(topologies.small_world(300, k=6, p=0.05), nulls=2)
    (line,) = (line for line in table.splitlines() if line.startswith("clustering"))
    own, null = line.split()[1:3]
    assert float(own) > 0.4 > 0.1 > float(null)
