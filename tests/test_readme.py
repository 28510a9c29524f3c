"""What the README and the guides say is true: their code runs, their tables are complete."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

import topologies
from lmn_graph import rollout
from lmn_graph.catalogue import catalogue

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_ten_lines_run_and_learn(capsys):
    (code,) = code_blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy > 0.9


@pytest.mark.parametrize(("kind", "row"), [(kind, "losses on the dynamics" if kind == "losses" else kind) for kind in catalogue()])
def test_the_table_names_exactly_what_is_registered(kind, row):
    (cells,) = re.findall(rf"^\| {row} \| (.*) \|$", README, flags=re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", cells)) == sorted(catalogue()[kind])


def test_the_two_commands_are_the_ones_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("pip install -e . && lmn train", 'pip install -e ".[test]" && pytest'):
        assert command in README
        assert re.search(rf"^{re.escape(command)}$", ci, flags=re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_and_pictures_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert not missing


def test_the_rule_of_the_guide_is_a_rule(tmp_path, monkeypatch):
    """The rule that docs/extending.md shows runs, and its parameters get a gradient."""
    guide = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = code_blocks(guide, "python")[0].replace("@RULES.register\n", "")  # the registry belongs to all tests
    (tmp_path / "rule_of_the_guide.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rule = importlib.import_module("rule_of_the_guide").LeakyTanh(topologies.grid(4, 2))
    rollout(rule, torch.ones(2, rule.num_nodes), steps=3).activity.sum().backward()
    assert rule.weight.grad.abs().sum() > 0


def test_the_code_of_the_guide_to_graphs_runs():
    """One block after the other, as a reader would."""
    code = "\n".join(code_blocks((ROOT / "docs" / "graphs.md").read_text(encoding="utf-8"), "python"))
    found: dict = {}
    exec(compile(code, "graphs.md", "exec"), found)
    assert found["activity"].shape == (8, 10, 45)
    assert found["null"].num_edges == found["world"].num_edges
    assert 0 < float(found["q"]) < 1


def test_the_guide_to_graphs_names_every_topology():
    text = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8").split("## Graphs in and out")[0]
    named = set(re.findall(r"`(\w+)[(`]", text))
    assert set(catalogue()["topologies"]) <= named


def test_the_guide_to_parts_names_every_one_and_runs():
    text = (ROOT / "docs" / "parts.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(named) == sorted([*catalogue()["projectors"], *catalogue()["readouts"]])
    found: dict = {}
    exec(compile("\n".join(code_blocks(text, "python")), "parts.md", "exec"), found)
    assert found["drive"].shape == (2, 100)


def test_the_code_of_the_guide_to_rules_runs():
    """The gate of one's own is summed as PyG's propagate sums it; the attention is a softmax over the neighbours."""
    code = "\n".join(code_blocks((ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), "python"))
    found: dict = {}
    exec(compile(code, "rules.md", "exec"), found)
    assert found["activity"].shape == (8, 10, 200)
    assert found["prediction"].shape == (8, 100)
    context, drive = torch.rand(8, 16), torch.rand(8, 216)
    for hyper in (found["own"], found["tinted"]):
        assert bool(rollout(hyper, drive, steps=2, context=context).activity.isfinite().all())
    rule, drive = found["Contrast"](found["graph"]).double(), torch.rand(2, 200, dtype=torch.float64)
    fast = rollout(rule, drive, steps=3).activity
    rule.reference = True
    torch.testing.assert_close(fast, rollout(rule, drive, steps=3).activity)
    q, k, v = found["q"], found["k"], found["v"]
    source, target = found["graph"].edge_index
    heard = source[target == 7]
    share = torch.softmax((q[7] * k[heard]).sum(-1), 0)
    torch.testing.assert_close(found["attended"][7], (share[..., None] * v[heard]).sum(0))


def test_the_guide_to_rules_names_every_rule():
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert set(catalogue()["rules"]) <= set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))


def test_the_code_of_the_guide_to_learning_runs():
    """The local rule is near back-propagation at the start, and the stream leaves a gradient."""
    code = "\n".join(code_blocks((ROOT / "docs" / "learning.md").read_text(encoding="utf-8"), "python"))
    found: dict = {}
    exec(compile(code, "learning.md", "exec"), found)
    assert found["row"].name == "all"
    assert found["row"].cosine > 0.8
    assert bool(found["moment"].loss.isfinite())
    assert float(found["machine"].rule.w_left.grad.abs().sum()) > 0
