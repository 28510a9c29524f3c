"""What a sweep file asks for: which runs, each with its whole configuration, and which points of which sweep they are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmn_graph.registry import did_you_mean
from lmn_graph.sweeps import SWEEPS
from lmn_graph.training.build import NESTED_AS, PARTS
from lmn_graph.training.configuration import Config, configure, read_yaml, reconfigure
from lmn_graph.training.spelling import flatten, nest
from lmn_graph.training.splits import located
from topologies import _checks

Value = int | float | str | bool
Form = Sequence[float] | str  # intercept and slope, or the word "value"

_KEYS = ("preset", "config", "options", "seeds", "metric", "smoke", "sweeps")
_SWEEP_KEYS = ("values", "sets", "baseline", "label")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # a number that YAML 1.1 takes for a word, such as 1e-3


@dataclass(frozen=True)
class Swept:
    """One sweep: its values, and the options that each of them sets.

    Args:
        name: its name in the file.
        label: what the values are.
        values: numbers, words, or true and false.
        sets: for each option, with its dotted name, (intercept, slope) or "value".
        baseline: the position of the value that the others are compared with, or None.
        runs: for each value, the name of its run for every seed.
    """

    name: str
    label: str
    values: tuple[Value, ...]
    sets: Mapping[str, Form]
    baseline: int | None
    runs: tuple[Mapping[int, str], ...]


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep file; equal configurations are one run.

    Args:
        description: the comment on top of the file.
        config: the configuration that the sweeps start from.
        smoke: whether the runs are smoke runs.
        seeds: seeds of every run.
        metric: what tables and plots show, or None to choose by the task.
        sweeps: the sweeps.
        runs: the whole configuration of every run by its name.
    """

    description: str
    config: Config
    smoke: bool
    seeds: tuple[int, ...]
    metric: str | None
    sweeps: tuple[Swept, ...]
    runs: Mapping[str, Config]

    def to_yaml(self) -> str:
        """A sweep file that asks for the same, whatever becomes of the preset."""
        sweeps = {}
        for swept in self.sweeps:
            baseline = None if swept.baseline is None else swept.values[swept.baseline]
            sets = {option: form if isinstance(form, str) else list(form) for option, form in swept.sets.items()}
            sweeps[swept.name] = {"label": swept.label, "values": list(swept.values), "baseline": baseline, "sets": sets}
        content = {"config": self.config, "smoke": self.smoke, "seeds": list(self.seeds), "metric": self.metric, "sweeps": sweeps}
        comment = f"# {self.description}\n" if self.description else ""
        return comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def check_same(self, path: Path) -> None:
        """A ValueError where the file that an earlier plan left asks for other runs."""
        before, now = (_runs_only(content) for content in (read_yaml(path, "sweep"), yaml.safe_load(self.to_yaml())))
        other = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
        if other:
            raise ValueError(f"{str(path)!r} is of another sweep: it differs in {', '.join(other)}; choose another folder")

    def needed(self, only: Sequence[str] = ()) -> list[str]:
        """Names of the runs of some sweeps, or of all: seed by seed, and baselines first.

        Raises:
            ValueError: for a sweep that is not in the file.
        """
        names = [swept.name for swept in self.sweeps]
        for name in only:
            if name not in names:
                raise ValueError(f"unknown sweep {name!r}{did_you_mean(name, names)}")
        chosen = [swept for swept in self.sweeps if not only or swept.name in only]
        found = []
        for seed in self.seeds:
            found += [swept.runs[swept.baseline][seed] for swept in chosen if swept.baseline is not None]
            found += [runs[seed] for swept in chosen for runs in swept.runs]
        return list(dict.fromkeys(found))


def read_plan(source: str | Path, arguments: Sequence[str] = (), *, seeds: Sequence[int] | None = None, smoke: bool = False) -> Plan:
    """The plan of a named sweep or of a sweep file.

    Args:
        source: a name of :data:`lmn_graph.sweeps.SWEEPS`, or a YAML file.
        arguments: command-line arguments, ``--part``, ``--part.option``; they apply to every run, and the sweeps come on top.
        seeds: in place of those of the file.
        smoke: whether every run is a smoke run, whatever the file says.

    Raises:
        ValueError: for whatever is unknown, missing, empty or double, naming the file and the key.
    """
    path = _path_of(source)
    content = read_yaml(path, "sweep")
    if any(argument.partition("=")[0] == "--seed" for argument in arguments):
        raise ValueError("option --seed is set for every run of a sweep: name the seeds, as in --seeds 0,1,2")
    with _inside(f"sweep file {str(path)!r}"):
        _refuse_keys("", content, _KEYS)
        if ("preset" in content) == ("config" in content):
            raise ValueError("preset or config must be given, one of the two")
        if not isinstance(content.get("smoke", False), bool):
            raise ValueError(f"smoke must be true or false, got {content['smoke']!r}")
        metric = content.get("metric")
        if metric is not None and not isinstance(metric, str):
            raise ValueError(f"metric must be the name of a metric such as test/accuracy, got {metric!r}")
        if not isinstance(content.get("sweeps"), dict) or not content["sweeps"]:
            raise ValueError(f"sweeps must be a mapping of at least one name to a sweep, got {content.get('sweeps')!r}")
        for name, sweep in content["sweeps"].items():
            _check_sweep(name, sweep)
        given = _seeds(content["seeds"]) if seeds is None and "seeds" in content else None
    config = _base(path, content, arguments)
    chosen = given or (tuple(_seeds(list(seeds))) if seeds is not None else (config["seed"],))
    runs = _Runs(config, chosen)
    with _inside(f"sweep file {str(path)!r}"):
        sweeps = [_swept(name, sweep, config, runs) for name, sweep in content["sweeps"].items()]
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    description = first.lstrip("# ").strip() if first.startswith("#") else ""
    smoke = smoke or content.get("smoke", False)
    return Plan(description, config, smoke, chosen, metric, tuple(sweeps), runs.configs)


def _path_of(source: str | Path) -> Path:
    if str(source) in SWEEPS:
        return SWEEPS[str(source)]
    path = Path(source)
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path
    raise ValueError(f"unknown sweep {str(source)!r}{did_you_mean(str(source), list(SWEEPS))}; or the path of a sweep file")


@contextmanager
def _inside(where: str) -> Iterator[None]:
    """Messages that say where."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _refuse_keys(where: str, content: Mapping[Any, Any], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise ValueError(f"unknown key {f'{where}{key}'!r}{did_you_mean(key, list(known))}")


def _base(path: Path, content: Config, arguments: Sequence[str]) -> Config:
    """What the sweeps start from; a message about the file names it, one about the arguments does not."""
    for key in ("config", "options"):
        if key in content and not isinstance(content[key], dict):
            raise ValueError(f"sweep file {str(path)!r}: {key} must be a mapping, got {content[key]!r}")

    def made(given: Sequence[str]) -> Config:
        return configure(content.get("preset"), [content[key] for key in ("config", "options") if key in content], given)

    try:
        config = made(arguments)
    except ValueError as error:
        if arguments:
            try:
                made(())
            except ValueError as alone:
                if str(alone) != str(error):
                    raise error from None
            else:
                raise
        raise ValueError(f"sweep file {str(path)!r}: {error}") from None
    return {**config, "data": located(config["data"])}


def _seeds(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or not given:
        raise ValueError(f"seeds must be a list of at least one integer, got {given!r}")
    for seed in given:
        _checks.integer("seeds", seed, minimum=0, maximum=2**32 - 1)
    _refuse_doubles("seeds", given)
    return tuple(given)


def _refuse_doubles(name: str, values: Sequence[Any]) -> None:
    for number, value in enumerate(values):
        if any(_same(value, other) for other in values[:number]):
            raise ValueError(f"{name} must hold every value once, got {value!r} twice")


def _same(one: Any, two: Any) -> bool:
    return one == two and isinstance(one, bool) == isinstance(two, bool)


def _check_sweep(name: Any, sweep: Any) -> None:
    """Everything about a sweep that needs no configuration."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*", name) or name == "summary":
        raise ValueError(f"the name of a sweep must be of letters, digits and . _ + -, and not 'summary', got {name!r}")
    key = f"sweeps.{name}"
    if not isinstance(sweep, dict):
        raise ValueError(f"{key} must be a mapping with values and sets, got {sweep!r}")
    _refuse_keys(f"{key}.", sweep, _SWEEP_KEYS)
    if not isinstance(sweep.get("values"), list) or not sweep["values"]:
        raise ValueError(f"{key}.values must be a list of at least one value, got {sweep.get('values')!r}")
    values = [_number(value) for value in sweep["values"]]
    for value in values:
        if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{key}.values must be finite numbers, words, or true and false, got {value!r}")
    _refuse_doubles(f"{key}.values", values)
    if not isinstance(sweep.get("sets"), dict) or not sweep["sets"]:
        raise ValueError(f"{key}.sets must map at least one option to what a value makes of it, got {sweep.get('sets')!r}")
    forms = flatten(sweep["sets"])
    for option, form in forms.items():
        if any(other.startswith(f"{option}.") for other in forms) and option.rpartition(".")[2] not in (*PARTS, "data", *NESTED_AS):
            raise ValueError(f"{key}.sets must not set {option!r} and an option of it")
        if option == "seed":
            raise ValueError(f"{key}.sets must not set the seed: seeds: does")
        if form == "value":
            continue
        linear = isinstance(form, list) and len(form) == 2 and all(_is_number(_number(part)) for part in form)
        if not linear:
            raise ValueError(f"{key}.sets.{option} must be [intercept, slope], two finite numbers, or the word value, got {form!r}")
        if not all(_is_number(value) for value in values):
            raise ValueError(f"{key}.sets.{option} must be the word value where values are not numbers, got {form!r}")
    if not isinstance(sweep.get("label", ""), str):
        raise ValueError(f"{key}.label must be a text, got {sweep['label']!r}")
    baseline = _number(sweep.get("baseline"))
    if baseline is not None and not any(_same(baseline, value) for value in values):
        raise ValueError(f"{key}.baseline must be one of its values, got {baseline!r}")


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class _Runs:
    """Runs by their configurations: one for each that is new."""

    def __init__(self, base: Config, seeds: Sequence[int]) -> None:
        self.seeds = seeds
        self.configs: dict[str, Config] = {}
        self._names: dict[Any, Mapping[int, str]] = {}
        self._base = _frozen(base)

    def of(self, config: Config, name: str) -> Mapping[int, str]:
        """The run of a configuration for every seed; ``name`` is what it is called if it is new."""
        key = _frozen(config)
        if key not in self._names:
            stem = "baseline" if key == self._base else re.sub(r"[^\w.+-]+", "_", name)[:60]
            taken = {one.rpartition("-seed")[0].lower() for one in self.configs}  # some file systems do not tell A from a
            free = next(new for number in range(1, 10**9) if (new := stem if number == 1 else f"{stem}-{number}").lower() not in taken)
            self._names[key] = {seed: f"{free}-seed{seed}" for seed in self.seeds}
            self.configs.update({run: {**config, "seed": seed} for seed, run in self._names[key].items()})
        return self._names[key]


def _frozen(config: Config) -> Any:
    """A configuration without its seed as something to look up: 0 and 0.0 are equal, a list is its values."""

    def fixed(value: Any) -> Any:
        return tuple(map(fixed, value)) if isinstance(value, list) else value

    return frozenset((key, fixed(value)) for key, value in flatten(config).items() if key != "seed")


def _swept(name: str, sweep: Config, base: Config, runs: _Runs) -> Swept:
    values = tuple(_number(value) for value in sweep["values"])
    sets = {
        option: form if isinstance(form, str) else tuple(_number(part) for part in form) for option, form in flatten(sweep["sets"]).items()
    }
    configs = []
    for value in values:
        options = nest({_named(option, form): _made(form, value) for option, form in sets.items()})
        with _inside(f"sweeps.{name}.sets at {value!r}"):
            configs += reconfigure(base, [options])
    configs = [{**config, "data": located(config["data"])} for config in configs]
    baseline = next((number for number, config in enumerate(configs) if _frozen(config) == _frozen(base)), None)
    if "baseline" in sweep:
        baseline = next((number for number, value in enumerate(values) if _same(value, _number(sweep["baseline"]))), None)
    named = tuple(runs.of(config, f"{name}-{spelled(value)}") for value, config in zip(values, configs))
    return Swept(name, sweep.get("label", name), values, sets, baseline, named)


def _made(form: Form, value: Any) -> Value:
    """What an option becomes at a value."""
    if isinstance(form, str):
        return value
    made = form[0] + form[1] * value
    # Rounded, so that 0.1 + 0.2 is 0.3 and equals the option of another run.
    return float(f"{made:.12g}") if isinstance(made, float) else made


def _named(option: str, form: Form) -> str:
    """``rule: value`` names the rule, and leaves room for ``rule.leak`` beside it."""
    return f"{option}.name" if isinstance(form, str) and option.rpartition(".")[2] in (*PARTS, "data", *NESTED_AS) else option


def spelled(value: Value) -> str:
    """A value as the file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _runs_only(content: Config) -> Config:
    """A sweep file without what only changes tables and pictures."""
    sweeps = content.get("sweeps")
    if isinstance(sweeps, dict):
        sweeps = {name: {key: sweep[key] for key in ("values", "sets") if key in sweep} for name, sweep in sweeps.items()}
    return {**{key: value for key, value in content.items() if key != "metric"}, "sweeps": sweeps}
