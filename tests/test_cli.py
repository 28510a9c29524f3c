"""The command line: what swaps, what is refused and how, and what every command prints and leaves behind."""

from __future__ import annotations

import csv
import json
import os
import pickle
import pty
import select
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import TINY, Stable, blobs, metrics_of, pictures, prices, tiny_config

from lmn_graph import __version__
from lmn_graph.cli import main
from lmn_graph.losses import LOSSES
from lmn_graph.presets import PRESETS
from lmn_graph.rules import RULES
from lmn_graph.surrogates import SURROGATES
from lmn_graph.training import build, configure, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return blobs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_config(data), folder, progress=False)
    return folder


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of it, to be damaged."""
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    found = Stable(tmp_path_factory.mktemp("stable"))
    yield found
    found.close()


def printed(lmn, *arguments):
    """The configuration that ``--print_config`` shows."""
    code, out, error = lmn("train", *arguments, "--print_config")
    assert (code, error) == (0, "")
    return yaml.safe_load(out)


# Help


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_are_instant(argument):
    """They import neither torch nor anything else that is large."""
    program = (
        "import sys\nfrom lmn_graph.cli import main\n"
        f"try:\n    main([{argument!r}])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'lightning', 'jsonargparse', 'matplotlib', 'torch_geometric'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (__version__ if argument == "--version" else "lmn train --data my.csv --data.target price") in done.stdout


def test_list_and_doctor_say_what_is_here(lmn):
    code, out, _ = lmn("list")
    assert code == 0
    for name in ("grid", *RULES, *LOSSES, *SURROGATES, *PRESETS, "digits", "CPTensor", "Holographic"):
        assert f"\n  {name} " in out
    code, out, _ = lmn("doctor")
    assert code == 0
    assert torch.__version__.split("+")[0] in out
    assert "C++ compiler" in out


def test_no_command_prints_the_help(lmn):
    code, out, _ = lmn()
    assert code == 0
    assert "COMMAND" in out


# Configurations

SWAPS = {
    "topology.L": ("5", 5),
    "topology.radius": ("2", 2),
    "topology.boundary": ("open", "open"),
    "topology.metric": ("manhattan", "manhattan"),
    "topology.self_loops": ("true", True),
    "rule.reset": ("zero", "zero"),
    "rule.weight": ("-0.25", -0.25),
    "rule.decay": ("0.9", 0.9),
    "rule.resources": ("false", False),
    "rule.surrogate.width": ("0.5", 0.5),
    "readout.dropout": ("0.5", 0.5),
    "criticality.target": ("0.9", 0.9),
    "activity.target": ("2e-1", 0.2),
    "machine.inject": ("first", "first"),
    "machine.truncate": ("2", 2),
    "machine.checkpoint": ("2", 2),
    "machine.reference": ("true", True),
    "optimizer.lr": ("1e-4", 1e-4),
    "optimizer.schedule": ("cosine", "cosine"),
    "trainer.epochs": ("7", 7),
    "data.test_fraction": ("0.5", 0.5),
    "seed": ("11", 11),
}


def value_of(config, key):
    for step in key.split("."):
        config = config[step]
    return config


def test_every_option_swaps_from_the_command_line_and_from_yaml(lmn, tmp_path):
    spaced = [token for key, (text, _) in SWAPS.items() for token in (f"--{key}", text)]
    joined = [f"--{key}={text}" for key, (text, _) in SWAPS.items()]
    one = printed(lmn, *spaced)
    assert one == printed(lmn, *joined)
    lines: dict = {}
    for key, (text, value) in SWAPS.items():
        assert value_of(one, key) == value, key
        *path, last = key.split(".")
        place = lines
        for step in path:
            place = place.setdefault(step, {})
        place[last] = yaml.safe_load(text)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(lines))
    assert printed(lmn, "--config", tmp_path / "all.yaml") == one


PARTS = [
    (("--rule.surrogate", "Gaussian", "--rule.surrogate.width", "0.3"), "rule.surrogate", {"name": "Gaussian", "width": 0.3}),
    (("--projector", "CPTensor", "--projector.rank", "3"), "projector.rank", 3),
    (("--readout", "Holographic", "--readout.rank", "8", "--readout.heads", "2"), "readout.heads", 2),
    (("--criticality", "none"), "criticality", {"name": "none"}),
    (("--activity", "none"), "activity", {"name": "none"}),
    (("--clustering", "ClusteringLoss", "--clustering.on", "activity"), "clustering.on", "activity"),
    (("--modularity", "ModularityLoss", "--modularity.communities", "blocks", "--modularity.count", "2"), "modularity.count", 2),
    (("--topology.L", "[4,5]"), "topology.L", [4, 5]),
    (("--topology.L", "[4, 5]", "--topology.boundary", "[open, periodic]"), "topology.boundary", ["open", "periodic"]),
    *((("--criticality", name), "criticality.name", name) for name in sorted(set(LOSSES) - {"DriveCorrectedRatio", "PonderCost"})),
    (("--halting", "AdaptiveTime", "--halting.bias", "-1", "--ponder", "PonderCost"), "halting.bias", -1.0),
    *((("--rule.surrogate", name), "rule.surrogate.name", name) for name in sorted(SURROGATES)),
    (("--machine.inject", "state"), "machine.inject", "state"),
    (("--machine.truncate", "2", "--machine.checkpoint", "2"), "machine.checkpoint", 2),
    (("--rule.learn_weight", "false", "--machine.reference", "true"), "rule.learn_weight", False),
    (("--activity.target", "0.2", "--loss.criticality_weight", "0"), "loss.criticality_weight", 0.0),
]


@pytest.mark.parametrize(("arguments", "key", "value"), PARTS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_every_part_swaps_and_runs(arguments, key, value, data):
    """The machine and the loss are built and differentiated."""
    small = ["--topology.L", "4", "--topology.dim", "2", "--machine.steps", "4"]
    config = configure("soc-lattice", [], ["--data", str(data), *small, *arguments])
    assert value_of(config, key) == value
    splits = build.load_data(config)
    machine = build.build_machine(config, splits.in_shape, splits.out_features)
    loss = build.build_loss(config, splits.task, 0, machine)
    x, y = splits.train.x[:8], splits.train.y[:8]
    total, terms = loss(machine(x), y, machine=machine, x=x, epoch=0)
    total.backward()
    assert total.isfinite()
    assert terms.keys() == {"task", *(name for name in build.TERMS if config[name]["name"] != "none")}


def test_the_printed_configuration_is_a_configuration(lmn, tmp_path):
    for preset, path in PRESETS.items():
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        options = ["--optimizer.lr", "0.125"]
        options += ["--topology.L", "[4,5,6]"] if given["topology"]["name"] == "grid" else []
        options += ["--rule.surrogate", "Triangular"] if given["rule"] == "SpikingSOC" else []
        code, out, _ = lmn("train", preset, *options, "--print_config")
        assert code == 0
        assert all(value in out for value in ("0.125", *(["Triangular"] if "Triangular" in options else [])))
        (tmp_path / "printed.yaml").write_text(out)
        assert lmn("train", "--config", tmp_path / "printed.yaml", "--print_config")[1] == out


def test_later_words_win(lmn, tmp_path):
    """Preset, then files in order, then options; the preset may stand after options."""
    (tmp_path / "one.yaml").write_text("trainer: {epochs: 4, batch_size: 9}\nrule: {surrogate: Gaussian}\n")
    (tmp_path / "two.yaml").write_text("trainer: {epochs: 5}\noptimizer: {lr: 1e-5}\n")
    found = printed(lmn, "--config", tmp_path / "one.yaml", "--config", tmp_path / "two.yaml", "--trainer.patience", "3")
    assert (found["trainer"]["epochs"], found["trainer"]["batch_size"], found["trainer"]["patience"]) == (5, 9, 3)
    assert found["optimizer"]["lr"] == 1e-5
    assert found["rule"]["surrogate"]["name"] == "Gaussian"
    assert found["topology"]["L"] == 8
    after = printed(lmn, "--trainer.epochs", "3", "mnist", "--trainer.epochs=2")
    assert (after["data"]["name"], after["trainer"]["epochs"]) == ("mnist", 2)


def test_another_part_drops_the_options_of_the_one_it_replaces(lmn):
    assert printed(lmn, "--criticality", "Activity")["criticality"].keys() == {"name", "target"}


REFUSED = [
    (("train", "soc-latice"), "unknown preset 'soc-latice'; did you mean 'soc-lattice'?"),
    (("train", "soc-lattice", "mnist"), "unexpected argument 'mnist'"),
    (("train", "--rule", "SpikingSoc"), "unknown rule 'SpikingSoc'; did you mean 'SpikingSOC'?"),
    (("train", "--topology", "gird"), "unknown topology 'gird'; did you mean 'grid'?"),
    (("train", "--readout", "Holo"), "unknown readout 'Holo'"),
    (("train", "--rule.rest", "zero"), "unknown option '--rule.rest'; did you mean '--rule.reset'?"),
    (("train", "--epochs", "3"), "unknown option '--epochs'"),
    (("train", "--rule.reset", "zer"), "--rule.reset must be one of 'none', 'zero', 'subtract', got 'zer'"),
    (("train", "--rule.reset"), "--rule.reset expects a value"),
    (("train", "--rule="), "--rule expects a name"),
    (("train", "--trainer.epochs", "2.5"), "--trainer.epochs must be an integer, got '2.5'"),
    (("train", "--trainer.epochs", "0"), "trainer.epochs must be an integer >= 1, got 0"),
    (("train", "--trainer.epochs", ""), "--trainer.epochs must be an integer, got ''"),
    (("train", "--optimizer.lr", "-1e-3"), "optimizer.lr must be a finite number > 0, got -0.001"),
    (("train", "--optimizer.lr", "nan"), "optimizer.lr must be a"),
    (("train", "--topology.L", "[4,x]"), "--topology.L must be an integer or a list"),
    (("train", "--topology.L", "0"), "L must be"),
    (("train", "--seed", "-1"), "seed must be an integer in [0, "),
    (("train", "--seed", "99999999999"), "seed must be an integer in [0, "),
    (("train", "--data", "digts"), "did you mean 'digits'?"),
    (("train", "--data", "nowhere.csv"), "'nowhere.csv' does not exist"),
    (("train", "--config", "nowhere.yaml"), "'nowhere.yaml' cannot be read: No such file"),
    (("train", "-x"), "-x"),
    (("trian",), "trian"),
    (("evaluate",), "RUN"),
    (("evaluate", "nowhere"), "is not a run directory"),
    (("evaluate", ".", "--what", "3"), "unknown option '--what'"),
    (("resume", "/dev/null"), "is not a run directory"),
    (("predict", "nowhere", "nothing"), "is not a run directory"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_what_is_wrong_is_said_in_one_line(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["- 1", "", "{", "rule: !!python/object/apply:os.system ['true']", "rule: 3", "machine: 3", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(text, refused, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    refused("train", "--config", tmp_path / "bad.yaml")


def test_debug_shows_the_traceback():
    for arguments in (["--debug", "train", "--rule", "X"], ["train", "--rule", "X", "--debug"]):
        with pytest.raises(ValueError, match="unknown rule 'X'"):
            main(arguments)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module that leaves a file where it is imported."""
    (tmp_path / "canary_module.py").write_text(f"open({str(tmp_path / 'sang')!r}, 'w')\nclass Bird:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "canary_module.Bird"
    assert not (tmp_path / "sang").exists()
    assert "canary_module" not in sys.modules


def test_no_dotted_path_is_imported(canary, refused, tmp_path):
    """From the command line and from YAML, for every part, nested ones too."""
    for path in (canary, "os.system", "torch.nn.Linear", "lmn_graph.rules.SpikingSOC"):
        for kind in ("topology", "rule", "projector", "readout", "criticality", "activity", "data", "rule.surrogate"):
            assert path in refused("train", f"--{kind}", path)
            *outer, last = kind.split(".")
            for spelled in (path, {"name": path}, {"class_path": path}, {"class_path": path, "init_args": {"command": "true"}}):
                inner = {last: spelled}
                (tmp_path / "dotted.yaml").write_text(yaml.safe_dump({outer[0]: inner} if outer else inner))
                refused("train", "--config", tmp_path / "dotted.yaml")
        for option in ("--topology.L", "--rule.weight", "--machine.truncate", "--trainer.epochs", "--rule.class_path"):
            refused("train", option, path)
            refused("train", option, json.dumps({"class_path": path}))
        (tmp_path / "dotted.yaml").write_text(yaml.safe_dump({"topology": {"L": {"class_path": path}}}))
        refused("train", "--config", tmp_path / "dotted.yaml")
    code = main(["train", "--data.name", canary, "--print_config"])
    assert code == 2


# Runs


def test_evaluate_repeats_the_numbers_of_the_run(lmn, finished):
    code, out, error = lmn("evaluate", finished)
    assert (code, error) == (0, "")
    shown = dict(line.split() for line in out.splitlines())
    assert shown == {name: f"{value:.4f}" for name, value in metrics_of(finished).items()}
    code, out, _ = lmn("evaluate", finished, "--split", "validation")
    assert code == 0
    assert "validation/accuracy" in out


def test_a_finished_run_refuses_to_go_on(refused, finished):
    assert "is finished" in refused("resume", finished)


def predicted(text):
    return list(csv.DictReader(text.splitlines()))


def test_a_table_trains_and_predicts_a_price(lmn, refused, tmp_path):
    """Types are inferred; predictions are in the price's own units; a bad row is named by its line."""
    run = tmp_path / "run"
    options = [*TINY, "--trainer.epochs", "15", "--optimizer.lr", "0.03", "--readout.dropout", "0"]
    code, out, error = lmn("train", "--data", prices(tmp_path), "--data.target", "price", *options, "--out", run, "--quiet")
    assert (code, error) == (0, "")
    assert "test/r2" in out
    (tmp_path / "new.csv").write_text("size,colour\n2,red\n8,red\n")
    code, out, _ = lmn("predict", run, tmp_path / "new.csv")
    rows = predicted(out)
    assert [row["input"] for row in rows] == ["line 2", "line 3"]
    assert 500 < float(rows[0]["price"]) < float(rows[1]["price"]) < 5000
    (tmp_path / "bad.csv").write_text("size,colour\n2,red\nwide,red\n")
    assert "line 3" in refused("predict", run, tmp_path / "bad.csv", "--out", tmp_path / "p.csv")
    (tmp_path / "bad.csv").write_text("size\n2\n")
    assert "colour" in refused("predict", run, tmp_path / "bad.csv", "--out", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    code, out, error = lmn("predict", run, tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert (code, out) == (0, "")
    assert "2 predictions in" in error
    assert predicted((tmp_path / "p.csv").read_text()) == rows
    assert not list(tmp_path.glob(".*"))
    assert "cannot be written" in refused("predict", run, tmp_path / "new.csv", "--out", tmp_path / "none" / "p.csv")


def test_a_table_of_classes_predicts_words_with_probabilities(lmn, tmp_path):
    prices(tmp_path)
    code, *_ = lmn("train", "--data", tmp_path / "prices.csv", "--data.target", "colour", *TINY, "--out", tmp_path / "run", "--quiet")
    assert code == 0
    rows = predicted(lmn("predict", tmp_path / "run", tmp_path / "prices.csv")[1])
    assert len(rows) == 90
    assert {row["colour"] for row in rows} <= {"red", "green", "blue"}
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


def test_a_folder_of_pictures_trains_and_predicts(lmn, tmp_path):
    folder = pictures(tmp_path)
    options = [
        *TINY,
        "--data.size",
        "8",
        "--trainer.epochs",
        "30",
        "--trainer.batch_size",
        "8",
        "--optimizer.lr",
        "0.03",
        "--readout.dropout",
        "0",
    ]
    assert lmn("train", "--data", folder, *options, "--out", tmp_path / "run", "--quiet")[0] == 0
    one = predicted(lmn("predict", tmp_path / "run", folder / "dark" / "3.png")[1])
    assert [row["class"] for row in one] == ["dark"]
    assert len(predicted(lmn("predict", tmp_path / "run", folder / "bright")[1])) == 20


def test_arrays_train_and_predict(lmn, finished, data):
    rows = predicted(lmn("predict", finished, data)[1])
    assert len(rows) == 120
    assert rows[0].keys() == {"input", "y", "probability"}


def test_arrays_with_several_targets_predict_a_column_each(lmn, tmp_path):
    import numpy as np

    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "two.npz", x=x, y=x[:, :2] * 3)
    assert lmn("train", "--data", tmp_path / "two.npz", *TINY, "--smoke", "--quiet", "--out", tmp_path / "run")[0] == 0
    rows = predicted(lmn("predict", tmp_path / "run", tmp_path / "two.npz")[1])
    assert rows[0].keys() == {"input", "y[0]", "y[1]"}
    float(rows[0]["y[1]"])


def test_runs_get_free_folders_and_smoke_is_short(lmn, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        code, out, error = lmn("train", "--data", data, *TINY, "--smoke")
        assert code == 0
        assert f"1 epochs, 0 s; everything is in runs/soc-lattice-00{number}" in out.replace(", 1 s", ", 0 s")
        assert error.startswith("epoch   1/1  loss ")
    (tmp_path / "mine.yaml").write_text("trainer: {epochs: 2}\n")
    assert lmn("train", "--config", "mine.yaml", "--data", data, *TINY, "--smoke", "--quiet")[0] == 0
    assert (tmp_path / "runs" / "mine-001" / "run.json").exists()


# Bad input


def test_folders_that_cannot_be_written_are_refused(refused, data, finished, tmp_path):
    (tmp_path / "file").write_text("")
    assert "must not exist or be empty" in refused("train", "--data", data, *TINY, "--out", finished)
    assert "must not exist or be empty" in refused("train", "--data", data, *TINY, "--out", tmp_path / "file")
    assert "cannot be made: Not a directory" in refused("train", "--data", data, *TINY, "--out", tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_empty_folder_is_taken(lmn, data, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert lmn("train", "--data", data, *TINY, "--smoke", "--quiet", "--out", ".")[0] == 0
    assert lmn("evaluate", tmp_path / "empty")[0] == 0


def test_bad_data_are_refused_before_anything_is_written(refused, tmp_path):
    import numpy as np

    bad = tmp_path / "bad.csv"
    cases = {
        "a,b\n1,2\n3\n": "line 3",
        "a,b\n": "row",
        "": "empty",
    }
    for text, message in cases.items():
        bad.write_text(text)
        assert message in refused("train", "--data", bad, "--data.target", "b", "--out", tmp_path / "run")
    prices(tmp_path)
    assert "column 'prize'; did you mean 'price'?" in refused(
        "train", "--data", tmp_path / "prices.csv", "--data.target", "prize", "--out", tmp_path / "run"
    )
    assert "target" in refused("train", "--data", tmp_path / "prices.csv", "--out", tmp_path / "run")
    x = np.zeros((30, 3))
    x[4, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(30) % 2)
    assert "NaN" in refused("train", "--data", tmp_path / "nan.npz", "--out", tmp_path / "run")
    (tmp_path / "noise.npz").write_bytes(os.urandom(200))
    refused("train", "--data", tmp_path / "noise.npz", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def damages(path, flag):
    """Every way in which a file may be broken: cut, overwritten, bits flipped, emptied, a pickle with code in it."""
    whole = path.read_bytes()
    flipped = bytearray(whole)
    middle = len(whole) // 2
    flipped[middle : middle + 300] = (byte ^ 1 for byte in whole[middle : middle + 300])
    torch.save({"state_dict": Payload(flag)}, path)
    with_code = path.read_bytes()
    return [whole[: len(whole) // 2], whole[:-1], os.urandom(300), bytes(flipped), b"", with_code, pickle.dumps(Payload(flag))]


def test_a_damaged_model_is_refused_and_runs_no_code(refused, run_copy, data, tmp_path):
    path = run_copy / "checkpoints" / "best.safetensors"
    for content in damages(path, str(tmp_path / "ran")):
        path.write_bytes(content)
        assert "best.safetensors' is damaged" in refused("evaluate", run_copy)
        assert "best.safetensors' is damaged" in refused("predict", run_copy, data, "--out", tmp_path / "p.csv")
    path.unlink()
    assert "has no model yet" in refused("evaluate", run_copy)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "p.csv").exists()


def test_a_damaged_checkpoint_is_refused_and_runs_no_code(refused, run_copy, tmp_path):
    record = json.loads((run_copy / "run.json").read_text())
    del record["metrics"]
    (run_copy / "run.json").write_text(json.dumps(record))
    path = run_copy / "checkpoints" / "last.ckpt"
    before = sorted(run_copy.rglob("*"))
    for content in damages(path, str(tmp_path / "ran")):
        path.write_bytes(content)
        assert "last.ckpt' is " in refused("resume", run_copy, "--quiet")
    assert not (tmp_path / "ran").exists()
    assert sorted(run_copy.rglob("*")) == before


def test_a_checkpoint_of_another_machine_is_refused(refused, run_copy, data):
    record = json.loads((run_copy / "run.json").read_text())
    del record["metrics"]
    (run_copy / "run.json").write_text(json.dumps(record))
    config = (run_copy / "config.yaml").read_text()
    (run_copy / "config.yaml").write_text(config.replace("L: 4", "L: 5"))
    assert "of another machine" in refused("resume", run_copy)
    assert "of another machine" in refused("evaluate", run_copy)


@pytest.mark.parametrize(
    "change",
    [
        {"in_shape": 3},
        {"in_shape": ["4"]},
        {"out_features": "3"},
        {"out_features": 0},
        {"encoder": {}},
        {"encoder": {"kind": "os.system"}},
        {"encoder": None},
        {"smoke": None},
        {"data_digest": 3},
        {"metrics": {"test/accuracy": "high"}},
        {"metrics": 3},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(change, refused, run_copy, data):
    record = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_text(json.dumps({**record, **change}))
    refused("predict", run_copy, data)
    for text in ("[]", "3", "{", "", '"x"'):
        (run_copy / "run.json").write_text(text)
        assert "is damaged" in refused("evaluate", run_copy)


@pytest.mark.parametrize("text", ["", "[", "rule: X", "- 3", "data: 3", "\x00"])
def test_a_damaged_configuration_is_refused(text, refused, run_copy):
    (run_copy / "config.yaml").write_text(text)
    for command in ("evaluate", "resume"):
        refused(command, run_copy)


def test_a_file_of_another_kind_is_refused(refused, finished, tmp_path):
    assert "does not exist" in refused("predict", finished, tmp_path / "none.npz")
    refused("predict", finished, prices(tmp_path))
    refused("predict", finished, tmp_path)


# Processes


def test_no_warning_reaches_the_user(stable, data, tmp_path):
    """Warnings are errors in that process; nothing but the line of each epoch is on stderr."""
    code, out, error = stable.run("train", "--data", data, *TINY, "--out", tmp_path / "run")
    assert code == 0, error
    lines = error.splitlines()
    assert [line[:12] for line in lines] == ["epoch   1/3 ", "epoch   2/3 ", "epoch   3/3 "]
    assert all("loss " in line and "accuracy " in line and "branching ratio " in line for line in lines)
    assert "test/accuracy" in out


def test_without_a_compiler_everything_runs(stable, data, tmp_path):
    path = str(tmp_path)
    code, out, error = stable.run(
        "train", "--data", data, *TINY, "--smoke", "--out", tmp_path / "run", PATH=path, CXX="/nonexistent", CC="/nonexistent"
    )
    assert code == 0, error
    assert "test/branching_ratio" in out
    assert "none: torch.compile is not available" in stable.run("doctor", PATH=path)[1]


def test_a_terminal_gets_a_bar(stable, data, tmp_path):
    """Loss, accuracy and branching ratio move in it, and a line stays for each epoch."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(controller, (40, 160))
    arguments = ("train", "--data", data, *TINY, "--out", tmp_path / "run")
    stable.start(*arguments, terminal=os.ttyname(terminal))
    seen, ended = bytearray(), threading.Event()

    def read() -> None:  # as long as it runs, however slow the machine, and then what is left
        while (ready := select.select([controller], [], [], 0.2)[0]) or not ended.is_set():
            seen.extend(os.read(controller, 65536) if ready else b"")

    reader = threading.Thread(target=read)
    reader.start()
    assert stable.wait() == 0
    ended.set()
    reader.join()
    os.close(terminal)
    os.close(controller)
    text = seen.decode()
    bars = [part for part in text.split("\r") if "step/s" in part or "s/step" in part or "it/s" in part]
    assert bars, repr(text)
    assert any("epoch 2/3" in bar and "loss " in bar and "accuracy " in bar and "branching ratio " in bar for bar in bars), bars
    assert "epoch   3/3  loss" in text


def test_a_closed_pipe_is_no_error(finished):
    """``lmn list | head -1``."""
    command = f"{sys.executable} -W ignore -m lmn_graph.cli list | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "topologies\n"
    assert done.stderr == ""


def test_a_network_beyond_memory_is_one_line(data, tmp_path, capsys):
    """Larger than any address space; nothing is left behind."""
    options = ["--data", str(data), "--rule", "TanhLattice", "--rule.channels", "1000000000000"]
    assert main(["train", "--topology.L", "3", "--out", str(tmp_path / "run"), *options]) == 2
    assert capsys.readouterr().err == "lmn: error: not enough memory for a network of this size: use smaller options\n"
    assert not (tmp_path / "run").exists()


def test_help_of_train_lists_every_option_of_the_chosen_parts(capsys):
    """Types, what an option does, and its value here; another rule or readout shows its own."""
    assert main(["train", "--help", "--readout", "Holographic", "--rule.reset", "zero"]) == 0
    text = capsys.readouterr().out
    assert "usage: lmn train [PRESET]" in text
    assert "--topology.L (an integer or a list of such: an integer; here 8)" in text
    assert "--rule.reset (one of 'none', 'zero', 'subtract'; here zero)" in text
    assert "what a spike does to its membrane" in text
    assert "--readout.rank (an integer; here 64)" in text
    assert "--readout.skip" not in text


def test_ctrl_c_that_a_library_turned_into_an_error_is_ctrl_c(monkeypatch, capsys):
    """NumPy says ImportError where its import is interrupted."""
    import lmn_graph.cli as cli

    def dispatch(arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("C-extensions failed") from error

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "lmn: interrupted\n"
