"""Sweeps: their tables say what the runs found, no run is trained twice, and what cannot be swept is refused before anything runs."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_runs import blobs, metrics_of

from lmn_graph.report.sweeps import draw_summary, draw_sweep
from lmn_graph.sweeps import SWEEPS
from lmn_graph.training import configure, sweep, sweeps
from lmn_graph.training.configuration import reconfigure
from lmn_graph.training.plan import read_plan
from lmn_graph.training.results import Curve

ROOT = Path(__file__).parents[2]
TINY = {
    "topology": {"L": 3, "dim": 2},
    "machine": {"steps": 3},
    "criticality": "none",
    "activity": "none",
    "loss": {"burn_in": 0, "label_smoothing": 0.0},
    "trainer": {"epochs": 1, "batch_size": 32},
}
SWEPT = {
    "learning-rate": {"values": [0.001, 0.003, 0.03], "sets": {"optimizer.lr": [0, 1]}},
    "both": {
        "label": "smoothing, and rate",
        "values": [0.0, 0.1],
        "baseline": 0.0,
        "sets": {"optimizer.lr": [0.003, 0.5], "loss.label_smoothing": [0, 1]},
    },
    "reset": {"values": ["zero", "subtract"], "sets": {"rule.reset": "value"}},
}


def write(path: Path, data: Path, **changes: object) -> Path:
    content = {"preset": "soc-lattice", "options": {**TINY, "data": str(data)}, "seeds": [0, 1], "sweeps": SWEPT, **changes}
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text("# Three sweeps.\n" + yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    return write(tmp_path_factory.mktemp("files") / "three.yaml", data)


@pytest.fixture(scope="module")
def done(file, tmp_path_factory):
    """The three sweeps, finished."""
    return sweep(file, tmp_path_factory.mktemp("sweep") / "out", progress=False)


@pytest.fixture(autouse=True)
def _no_pictures_of_sweeps(monkeypatch):
    """They take longer than the runs; ``done`` and the commands of other processes draw them."""
    monkeypatch.setattr(sweeps._Pictures, "draw", lambda *_, **__: None)


@pytest.fixture
def trained(monkeypatch):
    """What is trained and what is resumed from here on, by name."""
    calls: dict[str, list[str]] = {"train": [], "resume": []}
    for name, position in (("train", 1), ("resume", 0)):
        function = getattr(sweeps, name)

        def watched(*given, _function=function, _name=name, _position=position, **more):
            calls[_name].append(Path(given[_position]).name)
            return _function(*given, **more)

        monkeypatch.setattr(sweeps, name, watched)
    return calls


def table_of(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


# Results


def test_the_table_says_what_the_runs_found(done):
    rows = table_of(done.folder)
    assert [(row["sweep"], row["value"], row["seed"]) for row in rows] == [
        (name, str(value), str(seed)) for name, swept in SWEPT.items() for value in swept["values"] for seed in (0, 1)
    ]
    for row in rows:
        record = json.loads((done.folder / row["run"] / "run.json").read_text())
        for metric, value in record["metrics"].items():
            assert row[metric] == ("" if value is None else str(value))
        assert (row["epochs"], row["seconds"]) == (str(record["epochs"]), str(record["seconds"]))
        config = yaml.safe_load((done.folder / row["run"] / "config.yaml").read_text())
        assert config["seed"] == int(row["seed"])
        if row["sweep"] == "learning-rate":
            assert config["optimizer"]["lr"] == float(row["value"])
        elif row["sweep"] == "both":
            assert config["optimizer"]["lr"] == pytest.approx(0.003 + 0.5 * float(row["value"]), rel=1e-12)
            assert config["loss"]["label_smoothing"] == float(row["value"])
        else:
            assert config["rule"]["reset"] == row["value"]


def test_a_run_of_a_sweep_is_the_run_that_lmn_train_makes(done, data, lmn, tmp_path):
    arguments = [
        f"--{part}.{option}={value}" for part, options in TINY.items() if isinstance(options, dict) for option, value in options.items()
    ]
    arguments += ["--criticality", "none", "--activity", "none", "--optimizer.lr", "0.03", "--seed", "1"]
    assert lmn("train", "--data", data, *arguments, "--out", tmp_path / "alone", "--quiet")[0] == 0
    assert metrics_of(tmp_path / "alone") == metrics_of(done.folder / "runs" / "learning-rate-0.03-seed1") != {}


def test_equal_configurations_are_one_run(done):
    """The rate 0.003 and no smoothing are both the configuration without a sweep: three values, two values and two, less one."""
    folders = sorted(path.name for path in (done.folder / "runs").iterdir())
    assert len(folders) == 2 * (3 + 2 + 2 - 1)
    rows = table_of(done.folder)
    shared = {row["run"] for row in rows if (row["sweep"], row["value"]) in (("learning-rate", "0.003"), ("both", "0.0"))}
    assert shared == {"runs/baseline-seed0", "runs/baseline-seed1"}


def test_means_spreads_and_differences_are_those_of_the_rows(done):
    """Against the standard library, from the table as text; differences seed by seed."""
    text = (done.folder / "table.md").read_text()
    assert "Three sweeps." in text
    assert "12 of 12 runs are finished" in text
    scores: dict = {}
    for row in table_of(done.folder):
        scores.setdefault((row["sweep"], row["value"]), []).append(float(row["test/accuracy"]))
    one, base = scores["learning-rate", "0.03"], scores["learning-rate", "0.003"]
    apart = [a - b for a, b in zip(one, base)]
    expected = f"| 0.03 | {statistics.mean(one):.4f} ± {statistics.stdev(one):.4f} "
    expected += f"| {statistics.mean(apart):+.4f} ± {statistics.stdev(apart):.4f} | 2 |".replace("-", "−")
    assert expected in text
    assert "| learning-rate | test/accuracy | difference from 0.003 | runs |" in text
    assert "| smoothing, and rate | test/accuracy | difference from 0.0 | runs |" in text
    assert "| reset | test/accuracy | runs |" in text  # neither of its values is the preset's


def test_every_sweep_is_drawn(done):
    for name in ("learning-rate", "both", "reset", "summary"):
        with Image.open(done.folder / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(pixels.shape) > 300
        assert 0.01 < (pixels < 200).mean() < 0.5


def test_runs_leave_no_pictures_and_nothing_half_written(done):
    assert not list((done.folder / "runs").rglob("*.png"))
    assert not list(done.folder.rglob("*.part"))


# Going on


def test_the_same_again_trains_nothing(file, done, trained, monkeypatch):
    before = {path: path.read_bytes() for path in done.folder.rglob("*") if path.suffix in (".json", ".csv", ".md", ".yaml")}
    again = sweep(file, done.folder, progress=False)
    assert trained == {"train": [], "resume": []}
    assert again.records == done.records
    assert before == {path: path.read_bytes() for path in before}


def test_its_own_file_asks_for_the_same_runs(done, trained):
    again = sweep(done.folder / "sweep.yaml", done.folder, progress=False)
    assert trained == {"train": [], "resume": []}
    assert again.plan.runs == done.plan.runs
    assert again.plan.description == "Three sweeps."


def test_only_one_sweep_then_the_others(file, done, trained, tmp_path):
    some = sweep(file, tmp_path / "out", only=["both"], seeds=[0], progress=False)
    assert trained["train"] == ["baseline-seed0", "both-0.1-seed0"]
    assert "2 of 6 runs" in some.table
    found = sweep(file, tmp_path / "out", seeds=[0], progress=False)
    assert len(trained["train"]) == len(set(trained["train"])) == 6
    assert {run: record["metrics"] == done.records[run]["metrics"] for run, record in found.records.items()} == dict.fromkeys(
        found.records, True
    )


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on(stable, file, done, tmp_path):
    """Ctrl-C in the middle: what is finished is in the tables, the line says how to go on, and the end is that of the sweep left alone."""
    folder = tmp_path / "a sweep"
    stable.start("sweep", file, "--seeds", "0", "--out", folder)
    assert stable.signal(signal.SIGINT, (folder / "runs" / "learning-rate-0.03-seed0" / "config.yaml").exists) == 130
    assert stable.error.read_text().endswith(f"lmn: interrupted; go on with: lmn sweep '{folder}'\n")
    finished = {path.parent.name for path in folder.glob("runs/*/run.json") if metrics_of(path.parent)}
    assert {"baseline-seed0", "learning-rate-0.001-seed0"} <= finished
    assert {Path(row["run"]).name for row in table_of(folder)} == finished
    stamps = {name: (folder / "runs" / name / "run.json").stat().st_mtime_ns for name in finished}
    code, out, error = stable.run("sweep", folder)
    assert code == 0, error
    assert "6 of 6 runs are finished" in out
    assert all((folder / f"{name}.png").stat().st_size > 5_000 for name in (*SWEPT, "summary"))
    assert stamps == {name: (folder / "runs" / name / "run.json").stat().st_mtime_ns for name in finished}
    for name in (name for name in done.records if name.endswith("seed0")):
        assert metrics_of(folder / "runs" / name) == metrics_of(done.folder / "runs" / name) != {}


def test_a_run_that_was_begun_is_taken_up(file, done, trained, tmp_path, monkeypatch):
    """It goes on from its last checkpoint: what it finds is what it finds alone."""
    from lmn_graph.training import run

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep(file, tmp_path / "out", only=["both"], seeds=[0], progress=False)
    assert table_of(tmp_path / "out") == []
    found = sweep(file, tmp_path / "out", only=["both"], seeds=[0], progress=False)
    assert trained["resume"] == ["baseline-seed0"]
    assert found.records["baseline-seed0"]["metrics"] == done.records["baseline-seed0"]["metrics"]


def test_a_run_that_fails_leaves_the_others_alone(data, lmn, tmp_path):
    """A learning rate at which nothing stays finite: named, exit code 2, and the rest is there."""
    wild = {"rate": {"values": [1e30, 0.003], "sets": {"optimizer.lr": "value"}}}
    options = {**TINY, "data": str(data), "optimizer": {"schedule": "constant"}, "rule": "TanhLattice"}
    file = write(tmp_path / "wild.yaml", data, sweeps=wild, seeds=[0], options=options)
    code, out, error = lmn("sweep", file, "--out", tmp_path / "out", "--quiet")
    assert code == 2
    assert re.search(r"lmn: error: run 'rate-1e\+30-seed0' failed: (loss became|drive must be finite)", error)
    assert "1 of 2 runs are finished" in out
    assert "Failed:\n\n- rate-1e+30-seed0: " in (tmp_path / "out" / "table.md").read_text()
    assert [row["value"] for row in table_of(tmp_path / "out")] == ["0.003"]


def test_data_are_read_once(file, tmp_path, monkeypatch):
    from lmn_graph.training import build

    loads = []
    load = build.load_data
    monkeypatch.setattr(build, "load_data", lambda config: loads.append(config["data"]) or load(config))
    sweep(file, tmp_path / "out", only=["both"], seeds=[0], smoke=True, progress=False)
    assert len(loads) == 1
    fractions = {"fraction": {"values": [0.2, 0.3], "sets": {"data.test_fraction": "value"}}}
    file = write(tmp_path / "fractions.yaml", Path(loads[0]["name"]), sweeps=fractions, seeds=[0])
    found = sweep(file, tmp_path / "other", smoke=True, progress=False)
    assert len(loads) == 3
    assert len({record["data_digest"] for record in found.records.values()}) == 2


def test_changed_data_are_noticed(tmp_path):
    data = blobs(tmp_path)
    file = write(tmp_path / "three.yaml", data, seeds=[0])
    sweep(file, tmp_path / "out", only=["both"], smoke=True, progress=False)
    given = dict(np.load(data))
    np.savez(data, x=given["x"] + 1, y=given["y"])
    with pytest.raises(ValueError, match="they have changed in between"):
        sweep(file, tmp_path / "out", smoke=True, progress=False)


# What is refused


def one(name="rate", **sweep):
    return {"sweeps": {name: {"values": [0.1, 0.2], "sets": {"optimizer.lr": "value"}, **sweep}}}


BAD = {
    "an unknown key": ({"sweep": {}}, "unknown key 'sweep'; did you mean 'sweeps'?"),
    "no start": ({"preset": None}, "preset or config must be given, one of the two"),
    "two starts": ({"config": {}}, "preset or config must be given, one of the two"),
    "an unknown preset": ({"preset": "soc-latice"}, "unknown preset 'soc-latice'; did you mean 'soc-lattice'?"),
    "no sweeps": ({"sweeps": {}}, "sweeps must be a mapping of at least one name to a sweep, got {}"),
    "an unknown option": ({"options": {"optimizer": {"rl": 1}}}, "unknown option 'optimizer.rl'; did you mean 'optimizer.lr'?"),
    "options of a wrong kind": ({"options": [1]}, "options must be a mapping, got [1]"),
    "no seeds": ({"seeds": []}, "seeds must be a list of at least one integer, got []"),
    "a seed twice": ({"seeds": [1, 2, 1]}, "seeds must hold every value once, got 1 twice"),
    "a seed that is none": ({"seeds": [-1]}, "seeds must be an integer"),
    "smoke of a wrong kind": ({"smoke": "yes please"}, "smoke must be true or false, got 'yes please'"),
    "a metric of a wrong kind": ({"metric": 3}, "metric must be the name of a metric such as test/accuracy, got 3"),
    "a sweep that is none": ({"sweeps": {"rate": [1]}}, "sweeps.rate must be a mapping with values and sets, got [1]"),
    "a name with a slash": (one("a/b"), "the name of a sweep must be of letters, digits"),
    "a name that is taken": (one("summary"), "and not 'summary', got 'summary'"),
    "an unknown key of a sweep": (one(value=[1]), "unknown key 'sweeps.rate.value'; did you mean 'values'?"),
    "no values": (one(values=[]), "sweeps.rate.values must be a list of at least one value, got []"),
    "a value twice": (one(values=[0.1, 0.2, 0.1]), "sweeps.rate.values must hold every value once, got 0.1 twice"),
    "equal numbers": (one(values=[1, 1.0]), "sweeps.rate.values must hold every value once, got 1.0 twice"),
    "a value that is none": (one(values=[0.1, None]), "sweeps.rate.values must be finite numbers, words, or true and false, got None"),
    "an infinite value": (one(values=[float("inf")]), "sweeps.rate.values must be finite numbers"),
    "nothing set": (one(sets={}), "sweeps.rate.sets must map at least one option"),
    "an expression": (one(sets={"optimizer.lr": "2*value"}), "sets.optimizer.lr must be [intercept, slope], two finite"),
    "three numbers": (one(sets={"optimizer.lr": [0, 1, 2]}), "sweeps.rate.sets.optimizer.lr must be [intercept, slope]"),
    "a line over words": (one(values=["a"], sets={"optimizer.lr": [0, 1]}), "must be the word value where values are not numbers"),
    "the seed": (one(sets={"seed": "value"}), "sweeps.rate.sets must not set the seed"),
    "an option and one in it": (one(sets={"optimizer": "value", "optimizer.lr": "value"}), "must not set 'optimizer' and an option of it"),
    "an option not there": (one(sets={"rule.decai": "value"}), "sets at 0.1: unknown option 'rule.decai'; did you mean 'rule.decay'"),
    "a value of a wrong type": (one(values=["high"]), "sweeps.rate.sets at 'high': option --optimizer.lr must be a number, got 'high'"),
    "a value out of range": (one(values=[0.1, -0.1]), "sweeps.rate.sets at -0.1: optimizer.lr must be"),
    "an unknown part": (one(values=["Tanh"], sets={"rule": "value"}), "sweeps.rate.sets at 'Tanh': unknown rule 'Tanh'"),
    "a baseline that is no value": (one(baseline=0.3), "sweeps.rate.baseline must be one of its values, got 0.3"),
    "a label that is no text": (one(label=3), "sweeps.rate.label must be a text, got 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(case, data, tmp_path, refused):
    changes, message = BAD[case]
    file = write(tmp_path / "bad.yaml", data, **changes)
    found = refused("sweep", file, "--out", tmp_path / "out")
    assert found.startswith(f"sweep file {str(file)!r}: ")
    assert message in found
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_comes_twice_is_refused(data, tmp_path, refused):
    """YAML itself would forget the first."""
    file = write(tmp_path / "double.yaml", data)
    file.write_text(file.read_text() + "  both: {values: [1], sets: {optimizer.lr: value}}\n")
    assert f"sweep file {str(file)!r} is not valid YAML: 'both' comes twice" in refused("sweep", file)


def test_bad_arguments_are_refused(file, done, data, tmp_path, refused):
    out = tmp_path / "out"
    assert refused("sweep").startswith("one sweep must be named, got 0")
    assert refused("sweep", "learning-rat").startswith("unknown sweep 'learning-rat'; did you mean 'learning-rate'?")
    assert "cannot be read" in refused("sweep", tmp_path / "nothing.yaml")
    assert refused("sweep", file, "--only", "bth", "--out", out).startswith("unknown sweep 'bth'; did you mean 'both'?")
    assert refused("sweep", file, "--seeds", "1,x", "--out", out) == "option --seeds must be integers with commas between them, got '1,x'"
    assert refused("sweep", file, "--seed", "1", "--out", out).startswith("option --seed is set for every run of a sweep")
    # A mistake on the command line is not blamed on the file.
    assert refused("sweep", file, "--optimizer.rl", "1", "--out", out).startswith("unknown option '--optimizer.rl'; did you mean")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert "must be that of a sweep, not exist or be empty" in refused("sweep", file, "--out", tmp_path / "full")
    assert not out.exists()


def test_another_sweep_in_the_same_folder_is_refused(file, done, data, tmp_path, refused):
    for more, keys in ((["--optimizer.weight_decay", "0.5"], "config"), (["--seeds", "0"], "seeds"), (["--smoke"], "smoke")):
        assert f"is of another sweep: it differs in {keys}; choose another folder" in refused("sweep", file, "--out", done.folder, *more)


def test_metric_labels_and_baselines_may_change(done, data, trained, tmp_path):
    """They are read off runs that are there."""
    swept = {**SWEPT, "reset": {**SWEPT["reset"], "label": "after a spike", "baseline": "subtract"}}
    folder = Path(shutil.copytree(done.folder, tmp_path / "copy"))
    found = sweep(write(tmp_path / "three.yaml", data, sweeps=swept, metric="test/loss"), folder, progress=False)
    assert trained == {"train": [], "resume": []}
    assert "| after a spike | test/loss | difference from subtract | runs |" in (folder / "table.md").read_text()
    loss = statistics.mean(metrics_of(folder / "runs" / f"baseline-seed{seed}")["test/loss"] for seed in (0, 1))
    assert found.curves[0].score(1)[0] == pytest.approx(loss, rel=1e-12)
    with pytest.raises(ValueError, match=r"unknown metric 'test/acuracy'; did you mean 'test/accuracy'\?"):
        sweep(write(tmp_path / "three.yaml", data, metric="test/acuracy"), folder, progress=False)


def test_a_run_that_is_not_the_sweeps_is_refused(file, done, tmp_path):
    folder = Path(shutil.copytree(done.folder, tmp_path / "copy"))
    config = folder / "runs" / "baseline-seed0" / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 32", "batch_size: 31"))
    with pytest.raises(ValueError, match="baseline-seed0' has another configuration than the sweep gives it"):
        sweep(file, folder, progress=False)


# Plans


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"lr": 1}},
        {"optimizer": {"lr": "1e-3"}},
        {"rule": "TanhLattice"},
        {"rule": {"name": "SpikingSOC", "decay": 0.5, "reset": "zero"}},
        {"rule": {"surrogate": "Gaussian"}},
        {"data": {"name": "mnist"}},
        {"topology": {"L": [3, 4, 5]}, "machine": {"truncate": 2}},
    ],
    ids=str,
)
def test_a_configuration_is_changed_as_if_it_were_made_anew(change):
    """Down to the type of a number and the order of the options, which a run directory is recognised by."""
    base = configure("soc-lattice")
    (changed,) = reconfigure(base, [change])
    assert repr(changed) == repr(configure(None, [base, change]))
    assert base == configure("soc-lattice")


def test_a_sweep_over_parts_drops_the_options_of_the_part_before(data, tmp_path):
    rules = {"rule": {"values": ["SpikingSOC", "TanhLattice"], "sets": {"rule": "value"}}}
    plan = read_plan(write(tmp_path / "rules.yaml", data, sweeps=rules, seeds=[4]))
    assert list(plan.runs) == ["baseline-seed4", "rule-TanhLattice-seed4"]
    assert plan.runs["rule-TanhLattice-seed4"]["rule"] == configure("tanh-lattice")["rule"]
    assert plan.sweeps[0].baseline == 0


def test_the_command_line_applies_to_every_run_and_the_sweep_comes_on_top(file):
    plan = read_plan(file, ["--optimizer.lr", "0.01", "--rule.decay", "0.7"])
    rates = [plan.runs[runs[0]]["optimizer"]["lr"] for runs in plan.sweeps[0].runs]
    assert rates == [0.001, 0.003, 0.03]
    assert {config["optimizer"]["lr"] for run, config in plan.runs.items() if run.startswith("reset")} == {0.01}
    assert {config["rule"]["decay"] for config in plan.runs.values()} == {0.7}
    assert plan.sweeps[0].baseline is None  # 0.01 is not among its values


def test_baselines_are_trained_first_and_seeds_one_after_the_other(file):
    needed = read_plan(file).needed()
    assert needed[0] == "baseline-seed0"
    assert [run[-1] for run in needed] == ["0"] * 6 + ["1"] * 6


def test_numbers_as_yaml_writes_them_and_as_people_do(data, tmp_path):
    """YAML 1.1 takes 1e-3 for a word."""
    file = write(tmp_path / "numbers.yaml", data, **one(values=[0.5]))
    file.write_text(file.read_text().replace("- 0.5", "- 1e-3\n    - 0.002"))
    assert read_plan(file).sweeps[0].values == (0.001, 0.002)
    whole = write(tmp_path / "whole.yaml", data, **one(values=[8, 16], sets={"trainer.batch_size": [8, 2]}))
    assert [config["trainer"]["batch_size"] for config in read_plan(whole, seeds=[0]).runs.values()] == [24, 40]


def test_values_that_differ_in_signs_only_get_folders_of_their_own(data, tmp_path):
    words = one(values=["a/b.npz", "a_b.npz"], sets={"data.name": "value"})
    for name in ("a/b.npz", "a_b.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data.read_bytes())
    words["sweeps"]["rate"]["values"] = [str(tmp_path / "a/b.npz"), str(tmp_path / "a_b.npz")]
    runs = read_plan(write(tmp_path / "words.yaml", data, seeds=[0], **words)).runs
    assert len(runs) == 2
    assert all(re.fullmatch(r"[\w.+-]+", run) for run in runs)


@pytest.mark.parametrize("name", list(SWEEPS))
def test_a_named_sweep_can_be_planned(name):
    """Its first line says what it is, its options exist, and every sweep in it has a label and a baseline."""
    text = SWEEPS[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text.splitlines()[0]) <= 140
    for swept in read_plan(name).sweeps:
        assert len(swept.values) > 1
        assert swept.baseline is not None


# The command


def test_the_command_reports(lmn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, error = lmn("sweep", "learning-rate", "--smoke", "--topology.L", "3", "--topology.dim", "2", "--criticality", "none")
    assert code == 0, error
    folder = tmp_path / "runs" / "learning-rate-001"
    assert out == (folder / "table.md").read_text() + f"\n5 of 5 runs are finished; everything is in {folder.relative_to(tmp_path)}\n"
    assert len(re.findall(r"^\d/5  \S+  test/accuracy 0\.\d{4}  \(\d+\.\d s\)$", error, flags=re.MULTILINE)) == 5
    assert "0.003 (peak" not in out
    assert "| 0.003 |" in out
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["smoke"] is True


def test_the_help_names_the_options_and_the_sweeps(lmn):
    code, out, _ = lmn("sweep", "--help")
    assert code == 0
    for word in ("NAME_OR_FILE", "--out", "--only", "--seeds", "--smoke", "--quiet", "--PART.OPTION", *SWEEPS):
        assert word in out
    assert "lmn sweep learning-rate" in lmn()[1]
    assert all(f"\n  {name} " in lmn("list")[1] for name in SWEEPS)


# The guide


def test_the_code_of_the_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    found: dict = {}
    exec(compile(code, "sweeps.md", "exec"), found)
    assert list(found["means"]) == [0.0003, 0.001, 0.003, 0.01, 0.03]
    assert "| peak learning rate | test/accuracy | difference from 0.003 |" in capsys.readouterr().out


def test_the_file_of_the_guide_can_be_planned(tmp_path):
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "guide.yaml").write_text(block, encoding="utf-8")
    plan = read_plan(tmp_path / "guide.yaml")
    assert len(plan.runs) == 3 * (3 + 3 + 2 - 1)
    named = set(re.findall(r"^\| (?:`(\w+)` or )?`(\w+)`", text.split("## The folder")[0], flags=re.MULTILINE))
    assert {"preset", "config", "options", "seeds", "metric", "smoke", "sweeps"} == {word for pair in named for word in pair if word}


# Pictures


def curve_of(values, scores, baseline=0):
    return Curve("a sweep", "a value", tuple(values), baseline, tuple(scores))


@pytest.mark.parametrize(
    ("values", "scores", "baseline"),
    [
        ((0.0, 0.1, 0.2), ({0: 0.5, 1: 0.6}, {0: 0.7}, {}), 0),
        ((0.001, 0.01, 1), ({0: 0.5}, {0: 0.7}, {0: 0.2}), None),
        ((3, -1), ({}, {0: 0.7, 2: 0.9}), 0),
        (("a", "b", True), ({0: 0.5, 1: 0.6}, {0: 0.7, 1: 0.7}, {}), 1),
        ((2.0,), ({0: 0.5},), 0),
    ],
    ids=["partial", "logarithmic", "no baseline yet", "words", "one value"],
)
def test_any_curve_is_drawn(values, scores, baseline, tmp_path):
    curve = curve_of(values, scores, baseline)
    draw_sweep(tmp_path / "one.png", curve, "test/accuracy")
    draw_summary(tmp_path / "all.png", [curve] * 4, "test/r2")
    for name in ("one.png", "all.png"):
        with Image.open(tmp_path / name) as picture:
            assert 0.005 < (np.asarray(picture.convert("L")) < 200).mean() < 0.5


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sweep 'a sweep' must have a finished run to be drawn"):
        draw_sweep(tmp_path / "a.png", curve_of((1, 2), ({}, {})), "test/accuracy")
    with pytest.raises(ValueError, match="curves must hold at least one sweep"):
        draw_summary(tmp_path / "a.png", [], "test/accuracy")
    with pytest.raises(ValueError, match="path must end in one of"):
        draw_sweep(tmp_path / "a.xyz", curve_of((1,), ({0: 1.0},)), "test/accuracy")
