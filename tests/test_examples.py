"""The examples run as their first lines say, and show what they claim."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmn_graph.rules import RULES

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.slow


def run(name, folder, *arguments):
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def worm(tmp_path_factory):
    """The folder of the connectome where LMN_DATA is, else a small worm in the same format."""
    if os.environ.get("LMN_DATA"):
        return Path(os.environ["LMN_DATA"]) / "connectome"
    folder = tmp_path_factory.mktemp("worm")
    kinds = ["Amphid", "Layer 1 interneuron", "Head motor neuron"]
    nodes = [f"{i},N{i},{kinds[i % 3]}" for i in range(60)]
    edges = [f"N{i},N{j},chemical,{1 + (i * j) % 7}" for i in range(60) for j in range(60) if i != j and (i * 7 + j * 11) % 13 < 2]
    (folder / "celegans_hermaphrodite_nodes.csv").write_text("\n".join(["id,name,cell_type", *nodes]) + "\n")
    (folder / "celegans_hermaphrodite_edges.csv").write_text("\n".join(["pre,post,type,weight", *edges]) + "\n")
    return folder


def test_every_example_is_run_here():
    known = {"plain_loop", "avalanche", "gallery", "structure", "connectome", "swap_rules", "swap_parts", "streaming_filter"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == known


def test_plain_loop_learns(tmp_path):
    assert float(re.findall(r"0\.\d+", run("plain_loop.py", tmp_path))[-1]) > 0.9


def test_an_avalanche_is_drawn(tmp_path):
    assert "spikes per step" in run("avalanche.py", tmp_path, "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_gallery_is_drawn(tmp_path):
    assert "16 topologies in a.png" in run("gallery.py", tmp_path, "a.png")
    assert (tmp_path / "a.png").stat().st_size > 100_000


def test_each_structural_loss_changes_the_learned_graph(tmp_path):
    """Clustering by the one, modularity by the other, and neither at the cost of the task."""
    text = run("structure.py", tmp_path, "a.png")
    rows = {name: [float(x) for x in values.split()] for name, values in re.findall(r"^([\w ]+?) {2,}([\d. -]+)$", text, re.MULTILINE)}
    alone, clustered, modular = (rows[name] for name in ("task alone", "with ClusteringLoss", "with ModularityLoss"))
    assert clustered[1] > alone[1] + 0.04
    assert modular[2] > alone[2] + 0.1
    assert min(row[0] for row in rows.values()) > 0.94
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_every_rule_is_swapped_into_the_same_task(tmp_path):
    """A row per registered rule, each with an accuracy far above chance, and a picture."""
    text = run("swap_rules.py", tmp_path, "a.png", "--epochs", "4")
    rows = dict(re.findall(r"^(\w+) +(0\.\d+) +[\d,]+ +\d+\.\d+ +(?:Lyapunov exponent|branching ratio) ", text, re.MULTILINE))
    left_out = set(re.findall(r"^(\w+) +does not run here: topology must have the property", text, re.MULTILINE))
    assert rows.keys() | left_out == set(RULES)
    assert all(float(accuracy) > 0.6 for accuracy in rows.values())
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_connectome_stands_beside_its_nulls(tmp_path, worm):
    text = run("connectome.py", tmp_path, worm, "--seeds", "2", "--epochs", "2")
    for name in ("connectome", "rewired", "shuffled", "equally dense", "no connections"):
        assert re.search(rf"^\| {name} \| \d+\.\d ± \d", text, re.MULTILINE), text
    assert (tmp_path / "connectome.png").stat().st_size > 10_000


def test_a_grid_learns_from_a_stream_what_its_readout_alone_does_not(tmp_path):
    text = run("streaming_filter.py", tmp_path, "a.png", "--steps", "3000")
    rows = {name: [float(x) for x in values.split()] for name, values in re.findall(r"^([\w -]+?) {2,}([\d. ]+)$", text, re.MULTILINE)}
    assert rows.keys() == {"SnAP-1", "SnAP-0", "readout alone"}
    assert sum(rows["SnAP-1"][-3:]) / 3 > sum(rows["readout alone"][-3:]) / 3 + 0.1
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_projectors_and_readouts_are_swapped_into_the_same_task(tmp_path):
    """A row for each, every one far above chance, and a picture of what is attended to."""
    chosen = ("--projectors", "VoxelCNN", "Patchify", "--readouts", "ClassQuery", "HolographicEmbedding", "OverlappingGroups")
    text = run("swap_parts.py", tmp_path, *chosen)
    rows = re.findall(r"^(\w+) +(\w+) +(0\.\d+) +[\d,]+$", text, re.MULTILINE)
    assert [row[:2] for row in rows] == [*(("VoxelCNN", name) for name in chosen[4:]), ("Patchify", "ClassQuery")]
    assert all(float(accuracy) > 0.8 for *_, accuracy in rows)
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("attention", "factors"))
