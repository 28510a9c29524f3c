"""A rule written in one new module trains from the command line and passes the tests of every rule."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import RULE, metrics_of, rows_of

from lmn_graph.cli import main
from lmn_graph.rules import RULES

OPTIONS = ("--criticality", "none", "--loss.burn_in", "0", "--smoke", "--quiet")


@pytest.fixture
def plugin(tmp_path):
    """The module; the registry is as before afterwards."""
    path = tmp_path / "my_rule.py"
    path.write_text(RULE.strip() + "\n")
    yield path
    RULES._entries.pop("LeakyTanh", None)


def start(plugin, data, out, *more):
    size = ("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "4")
    return main(["train", "--plugin", str(plugin), "--rule", "LeakyTanh", "--data", str(data), *size, *OPTIONS, "--out", str(out), *more])


def test_it_takes_forty_lines_and_one_line_to_register(plugin):
    lines = plugin.read_text().splitlines()
    assert len(lines) <= 40
    assert sum("register" in line for line in lines) == 1


def test_it_trains_is_listed_and_its_run_is_used_with_the_plugin_only(plugin, data, tmp_path, capsys):
    run = tmp_path / "run"
    assert start(plugin, data, run, "--rule.leak", "0.25") == 0
    assert {"test/accuracy", "test/lyapunov"} <= metrics_of(run).keys()
    assert "val/lyapunov" in rows_of(run)[0]
    assert "leak: 0.25" in (run / "config.yaml").read_text()
    assert main(["list", "--plugin", str(plugin)]) == 0
    assert "LeakyTanh              Leaky tanh cells" in capsys.readouterr().out
    for use in (["evaluate", str(run)], ["predict", str(run), str(data)]):
        assert main([*use, "--plugin", str(plugin)]) == 0
        del RULES._entries["LeakyTanh"]
        capsys.readouterr()
        assert main(use) == 2
        assert "unknown rule 'LeakyTanh'; known: " in capsys.readouterr().err


def test_without_the_plugin_the_name_is_unknown(data, tmp_path, capsys):
    assert main(["train", "--rule", "LeakyTanh", "--data", str(data), *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    assert "unknown rule 'LeakyTanh'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_passes_the_tests_of_every_rule(plugin):
    """Registered before they are collected, it is one more parameter of each."""
    tests = Path(__file__).parents[1] / "rules" / "test_every_rule.py"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "my_rule", "-p", "no:cacheprovider", "-k", "LeakyTanh", str(tests)]
    paths = os.pathsep.join([str(plugin.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tests.parents[2])
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 30


def test_a_plugin_does_not_stand_in_for_another_module(tmp_path, capsys):
    import random

    (tmp_path / "random.py").write_text("VALUE = 3\n")
    assert main(["list", "--plugin", str(tmp_path / "random.py")]) == 0
    assert __import__("random") is random


@pytest.mark.parametrize(
    ("text", "message"),
    [("import no_such_module_at_all", "ModuleNotFoundError: No module"), ("1 +", "SyntaxError"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_plugin_that_fails_is_named(text, message, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(text)
    assert main(["list", "--plugin", str(tmp_path / "bad.py")]) == 2
    error = capsys.readouterr().err
    assert "bad.py' cannot be imported: " in error
    assert message in error
    assert main(["list", "--plugin", str(tmp_path / "none.py")]) == 2
    assert main(["list", "--plugin", "no_such_module_at_all"]) == 2
