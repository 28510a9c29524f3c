"""Sweeps: the runs that a sweep file asks for, trained once each, their tables and pictures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmn_graph.registry import did_you_mean
from lmn_graph.training import results
from lmn_graph.training.configuration import Config, to_yaml
from lmn_graph.training.files import write_text
from lmn_graph.training.plan import Plan, read_plan
from lmn_graph.training.run import resume, train
from lmn_graph.training.splits import DataReader

_SHARE = 20  # pictures are drawn again when so many times what they took last has passed: they cost a twentieth at most


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and what is in it.

    Args:
        folder: the folder.
        plan: what was asked for.
        records: the content of ``run.json`` of every finished run, by its name.
        failed: what went wrong in runs that did not end, by their names.
    """

    folder: Path
    plan: Plan
    records: dict[str, dict[str, Any]]
    failed: dict[str, str]

    @property
    def metric(self) -> str:
        """What tables and plots show: the file's metric, else accuracy or R².

        Raises:
            ValueError: if the runs have no such metric.
        """
        known = list(dict.fromkeys(key for record in self.records.values() for key in record["metrics"]))
        metric = self.plan.metric or ("test/r2" if "test/r2" in known else "test/accuracy")
        if known and metric not in known:
            raise ValueError(f"unknown metric {metric!r}{did_you_mean(metric, known)}")
        return metric

    @property
    def curves(self) -> list[results.Curve]:
        """The metric over the values of every sweep."""
        return [results.curve(swept, self.records, self.metric) for swept in self.plan.sweeps]

    @property
    def table(self) -> str:
        """``table.md``."""
        done = len(self.records)
        return results.as_markdown(self.plan, self.folder.resolve().name, self.curves, self.metric, done, self.failed)


def sweep(
    source: str | Path,
    folder: str | Path,
    *,
    arguments: Sequence[str] = (),
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    smoke: bool = False,
    progress: bool = True,
) -> Sweep:
    """Train every run that a sweep file asks for and that is not finished in ``folder``, and write tables and pictures.

    A run whose training fails is left behind and named in the result; the others go on. The same call again trains what is left.

    Args:
        source: the name of a sweep, or a sweep file.
        folder: where everything goes: a new folder, or that of the same sweep, to go on.
        arguments: command-line arguments that apply to every run, ``["--optimizer.lr", "0.01"]`` say.
        only: names of sweeps in the file; the others are left alone.
        seeds: in place of those of the file.
        smoke: one epoch on a few samples for every run.
        progress: whether to show progress.

    Raises:
        ValueError: if the file, an option or the folder is not valid, before anything is trained; if the data or a machine is not.
    """
    folder = Path(folder)
    plan = read_plan(source, arguments, seeds=seeds, smoke=smoke)
    needed = plan.needed(only)
    _open(folder, plan)
    found = Sweep(folder, plan, {}, {})
    for run, config in plan.runs.items():
        if (record := _finished(folder / "runs" / run, config)) is not None:
            found.records[run] = record
    _check_data(found)
    left = [run for run in needed if run not in found.records]
    reader, pictures = DataReader(), _Pictures()
    try:
        for number, run in enumerate(left, 1):
            started = time.perf_counter()
            _train(found, run, reader, progress and sys.stderr.isatty())
            if progress:
                _say(found, run, f"{number}/{len(left)}", time.perf_counter() - started)
            _write_tables(found)
            pictures.draw(found)
    finally:
        # Also after Ctrl-C, and where nothing was left to train: a process that was killed may have left older ones.
        _write_tables(found)
        pictures.draw(found, now=True)
    return found


def _open(folder: Path, plan: Plan) -> None:
    """Make the folder of a sweep, or check that it is that of this one."""
    file = folder / "sweep.yaml"
    try:
        if file.is_file():
            plan.check_same(file)
            for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
                part.unlink(missing_ok=True)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"folder {str(folder)!r} must be that of a sweep, not exist or be empty")
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        write_text(file, plan.to_yaml())
    except OSError as error:
        raise ValueError(f"folder {str(folder)!r} cannot be made: {error.strerror}") from None


def _finished(folder: Path, config: Config) -> dict[str, Any] | None:
    """What a finished run has found, None if it is not finished.

    Raises:
        ValueError: if it is a run of another configuration, or damaged.
    """
    if not (folder / "run.json").is_file():
        return None
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        same = (folder / "config.yaml").read_text(encoding="utf-8") == to_yaml(config)
    except (OSError, ValueError) as error:
        raise ValueError(f"run {str(folder)!r} is damaged: {error}; remove it to train it again") from None
    if not same:
        raise ValueError(f"run {str(folder)!r} has another configuration than the sweep gives it; remove it to train it again")
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        return None
    if not {"epochs", "seconds", "data_digest"} <= record.keys():
        raise ValueError(f"run {str(folder)!r} is damaged: run.json is not whole; remove it to train it again")
    return record


def _check_data(found: Sweep) -> None:
    """Runs with the same data options must have had the same data."""
    seen: dict[str, tuple[str, str]] = {}
    for run, record in found.records.items():
        first, digest = seen.setdefault(to_yaml(found.plan.runs[run]["data"]), (run, record["data_digest"]))
        if digest != record["data_digest"]:
            raise ValueError(f"data of run {run!r} are not those of run {first!r}: they have changed in between; choose another folder")


def _train(found: Sweep, run: str, reader: DataReader, progress: bool) -> None:
    """Train one run, or go on with it; a failure after its training began is kept."""
    folder, config = found.folder / "runs" / run, found.plan.runs[run]
    try:
        if (folder / "run.json").is_file():
            done = resume(folder, progress=progress, pictures=False, reader=reader)
        else:
            done = train(config, folder, smoke=found.plan.smoke, progress=progress, pictures=False, reader=reader)
    except ValueError as error:
        if not (folder / "run.json").is_file():
            raise ValueError(f"run {run!r} cannot start: {error}") from None
        found.failed[run] = " ".join(str(error).split())
        return
    found.records[run] = done.record
    _check_data(found)


def _say(found: Sweep, run: str, number: str, seconds: float) -> None:
    if run in found.failed:
        text = f"failed: {found.failed[run]}"
    else:
        value = found.records[run]["metrics"][found.metric]
        text = f"{found.metric} {'not defined' if value is None else f'{value:.4f}'}"
    print(f"{number}  {run}  {text}  ({seconds:.1f} s)", file=sys.stderr, flush=True)


def _write_tables(found: Sweep) -> None:
    table = found.table  # before anything is written: a metric that no run has is refused
    write_text(found.folder / "table.csv", results.as_csv(found.plan, found.records))
    write_text(found.folder / "table.md", table)


class _Pictures:
    """Draws the pictures of a sweep, and not so often that they take the time of the runs."""

    def __init__(self) -> None:
        self._ended, self._took = -float("inf"), 0.0
        self._drawn = -1

    def draw(self, found: Sweep, *, now: bool = False) -> None:
        started = time.perf_counter()
        fresh = len(found.records) != self._drawn and found.records
        if not fresh or not (now or started - self._ended >= _SHARE * self._took):
            return
        from lmn_graph.report.sweeps import draw_summary, draw_sweep

        curves = [curve for curve in found.curves if any(curve.scores)]
        for curve in curves:
            draw_sweep(found.folder / f"{curve.name}.png", curve, found.metric)
        if curves:
            draw_summary(found.folder / "summary.png", curves, found.metric)
        self._ended = time.perf_counter()
        self._took, self._drawn = self._ended - started, len(found.records)
