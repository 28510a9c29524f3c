"""What a sweep found: one row for every run of every sweep, means and differences as tables."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmn_graph.training.plan import Plan, Swept, Value, spelled

Records = Mapping[str, Mapping[str, Any]]
"""The content of ``run.json`` of every finished run, by the run's name."""


@dataclass(frozen=True)
class Curve:
    """A metric over the values of a sweep.

    Args:
        name: of the sweep.
        label: what the values are.
        values: the values.
        baseline: the position of the value that the others are compared with, or None.
        scores: for each value, the metric by seed, of the runs that are finished and where it is defined.
    """

    name: str
    label: str
    values: tuple[Value, ...]
    baseline: int | None
    scores: tuple[Mapping[int, float], ...]

    def score(self, position: int) -> tuple[float, float]:
        """Mean and standard deviation over seeds at a value; NaN where there is nothing to take them of."""
        return mean_and_spread(list(self.scores[position].values()))

    def difference(self, position: int, reference: int) -> tuple[float, float]:
        """Mean and standard deviation of the difference between two values, seed by seed."""
        one, other = self.scores[position], self.scores[reference]
        return mean_and_spread([one[seed] - other[seed] for seed in one if seed in other])


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN for the mean of none, for the deviation of fewer than two."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def curve(swept: Swept, records: Records, metric: str) -> Curve:
    """The curve of a metric."""
    scores = []
    for runs in swept.runs:
        found = {seed: records[run]["metrics"][metric] for seed, run in runs.items() if run in records}
        scores.append({seed: value for seed, value in found.items() if value is not None})
    return Curve(swept.name, swept.label, swept.values, swept.baseline, tuple(scores))


def rows(plan: Plan, records: Records) -> Iterator[dict[str, Any]]:
    """A row for every finished run of every value of every sweep: what it is, its metrics, epochs and seconds, its folder."""
    for swept in plan.sweeps:
        for value, runs in zip(swept.values, swept.runs):
            for seed, run in runs.items():
                if run in records:
                    record = records[run]
                    row = {"sweep": swept.name, "value": spelled(value), "seed": seed, **record["metrics"]}
                    yield {**row, "epochs": record["epochs"], "seconds": record["seconds"], "run": f"runs/{run}"}


def as_csv(plan: Plan, records: Records) -> str:
    """The rows as CSV, numbers as they are in ``run.json``; what is not defined is empty."""
    found = list(rows(plan, records))
    ends = ("epochs", "seconds", "run")
    columns = ["sweep", "value", "seed"]
    columns += [key for key in dict.fromkeys(key for row in found for key in row) if key not in (*columns, *ends)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *ends], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def as_markdown(plan: Plan, title: str, curves: Sequence[Curve], metric: str, done: int, failed: Mapping[str, str]) -> str:
    """A table for every sweep: value, mean ± standard deviation of the metric, difference from the baseline."""
    seeds = f"mean ± standard deviation over seeds {', '.join(map(str, plan.seeds))}" if len(plan.seeds) > 1 else f"seed {plan.seeds[0]}"
    about = [f"# {title}", *([plan.description] if plan.description else [])]
    about.append(f"{metric}, {seeds}; {done} of {len(plan.runs)} runs are finished" + (", each a smoke run." if plan.smoke else "."))
    if failed:
        about.append("\n".join(["Failed:", "", *(f"- {run}: {message}" for run, message in failed.items())]))
    for found in curves:
        header = [found.label, metric]
        if found.baseline is not None:
            header.append(f"difference from {spelled(found.values[found.baseline])}")
        if len(plan.seeds) > 1:
            header.append("runs")
        lines = [header, ["---"] * len(header)]
        for position, value in enumerate(found.values):
            line = [spelled(value), _pair(*found.score(position))]
            if found.baseline is not None:
                line.append("baseline" if position == found.baseline else _pair(*found.difference(position, found.baseline), sign="+"))
            if len(plan.seeds) > 1:
                line.append(str(len(found.scores[position])))
            lines.append(line)
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        about.append(f"## {found.name}\n\n{table}")
    return "\n\n".join(about) + "\n"


def _pair(mean: float, spread: float, sign: str = "") -> str:
    if math.isnan(mean):
        return ""
    text = f"{mean:{sign}.4f}".replace("-", "−")
    return text if math.isnan(spread) else f"{text} ± {spread:.4f}"
