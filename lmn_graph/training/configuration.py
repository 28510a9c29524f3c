"""From a preset, a YAML file and a command line to one checked configuration."""

from __future__ import annotations

import copy
import dataclasses
import re
import textwrap
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace

from lmn_graph import presets
from lmn_graph.data import resolve
from lmn_graph.registry import Registry, did_you_mean
from lmn_graph.training.build import GIVEN, NESTED, OPTIONAL, PARTS
from lmn_graph.training.options import REQUIRED, Option, options
from lmn_graph.training.settings import SETTINGS
from topologies import _checks

Config = dict[str, Any]
_SCALARS = {"seed": (int, 0, "seed of everything that is drawn, 0 to 2³² - 1")}


def read_yaml(path: str | Path) -> Config:
    """A configuration file as a mapping; nothing in it can create objects.

    Raises:
        ValueError: if the file is missing, is not YAML, or holds no mapping.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {str(path)!r} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"config file {str(path)!r} must hold a mapping, got {type(loaded).__name__}")
    return loaded


def configure(preset: str | None, files: Sequence[str] = (), arguments: Sequence[str] = (), *, data: bool = True) -> Config:
    """The configuration of a run: the preset, overridden by the files, overridden by ``--part``, ``--part.option`` arguments.

    Args:
        preset: name of a preset, or None to start from the files alone.
        files: YAML files, later ones win.
        arguments: command-line arguments.
        data: whether the data must be there; without them their options are left as they are.

    Raises:
        ValueError: for an unknown name or option (with the nearest known one), a value of the wrong type, or a missing one.
    """
    merged, arguments = _merged(preset, files, arguments)
    apart = {} if data else {"data": merged.pop("data")}
    parser, known = _parser(merged)
    _refuse_unknown(merged, known, arguments)
    return _parse(parser, known, merged, arguments) | apart


def describe(preset: str | None, files: Sequence[str] = (), arguments: Sequence[str] = ()) -> str:
    """Every option of the parts that :func:`configure` would choose: its type, what it does, and its value there."""
    merged, arguments = _merged(preset, files, arguments)
    parser, known = _parser(merged)
    _refuse_unknown(merged, known, arguments)
    values = _flatten(_parse(parser, known, merged, arguments))
    lines = []
    for key, option in known.items():
        lines.append(f"  --{key.removesuffix('.name')} ({_spell(option.type)}; here {to_yaml(values[key]).split(chr(10))[0]})")
        lines += textwrap.wrap(option.help, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _merged(preset: str | None, files: Sequence[str], arguments: Sequence[str]) -> tuple[Config, list[str]]:
    """The sources on top of each other, with the parts that the command line names, and the arguments in one form."""
    merged: Config = {}
    sources = [] if preset is None else [read_yaml(presets.PRESETS[preset])]
    for source in [*sources, *(read_yaml(path) for path in files)]:
        merged = _merge(merged, source)
    joined = _name_parts(_joined(list(arguments)))
    merged = _merge(merged, _named_on_command_line(joined))
    _name_of("data", merged.get("data"))
    return merged, joined


def _merge(base: Config, over: Config) -> Config:
    """``over`` on top of ``base``; a part with another name drops the options of the one it replaces."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        value = {"name": value} if isinstance(value, str) and (key in PARTS or key in ("data", "surrogate")) else value
        present = merged.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            replaced = "name" in value and value["name"] != present.get("name")
            merged[key] = copy.deepcopy(value) if replaced else _merge(present, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _joined(arguments: list[str]) -> list[str]:
    """Every option as ``--key=value``, so that a value may begin with a minus."""
    joined: list[str] = []
    tokens = iter(arguments)
    for token in tokens:
        if token.startswith("--") and "=" not in token:
            value = next(tokens, None)
            if value is None:
                raise ValueError(f"option {token} expects a value")
            token = f"{token}={value}"
        elif not token.startswith("--"):
            raise ValueError(f"unexpected argument {token!r}: options are spelled --part.option value")
        joined.append(token)
    return joined


def _name_parts(arguments: list[str]) -> list[str]:
    """``--rule X`` is short for ``--rule.name X``, and so for every part; a nested one is ``--rule.surrogate X``."""
    short = {f"--{kind}" for kind in (*PARTS, "data")} | {"--rule.surrogate"}
    named = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in short and not value:
            raise ValueError(f"option {key} expects a name")
        named.append(f"{key}.name{equals}{value}" if key in short else argument)
    return named


def _named_on_command_line(arguments: list[str]) -> Config:
    found: Config = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.endswith(".name"):
            place = found
            for step in key[2:].split(".")[:-1]:
                place = place.setdefault(step, {})
            place["name"] = value
    return found


def _parser(merged: Config) -> tuple[ArgumentParser, dict[str, Option]]:
    """A parser that knows the options of the parts that are named, and those options by dotted key."""
    parser = ArgumentParser(prog="lmn train", exit_on_error=False)
    known: dict[str, Option] = {}
    for key, (scalar, default, text) in _SCALARS.items():
        known[key] = Option(key, scalar, default, text)
    for section, settings in SETTINGS.items():
        known.update({f"{section}.{option.name}": option for option in options(settings, set(), [])})
    for kind, registry in PARTS.items():
        known.update(_part_options(kind, merged.get(kind), registry))
    if "data" in merged:
        known.update(_data_options(merged["data"]))
    for key, option in known.items():
        initial = None if option.default is REQUIRED or option.registry else option.default
        parser.add_argument(f"--{key}", type=option.type, default=initial, help=option.help or " ")
    return parser, known


def _part_options(kind: str, config: Any, registry: Registry[Any], entry: Callable[..., Any] | None = None) -> dict[str, Option]:
    name = _name_of(kind, config)
    text = f"one of {', '.join(registry)}" + (", or none" if kind in OPTIONAL else "")
    found = {f"{kind}.name": Option("name", str, name, text)}
    if kind in OPTIONAL and name == "none":
        return found
    entry = registry[name]
    for option in options(entry, set() if kind in OPTIONAL else GIVEN, NESTED):
        key = f"{kind}.{option.name}"
        if option.registry is None:
            found[key] = option
            continue
        inner = config.get(option.name) or {}
        inner = {"name": type(option.default).__name__, **inner} if isinstance(inner, dict) else inner
        nested = _part_options(key, inner, option.registry)
        if type(option.default).__name__ == _name_of(key, inner) and dataclasses.is_dataclass(option.default):
            for field in dataclasses.fields(option.default):
                place = f"{key}.{field.name}"
                nested[place] = dataclasses.replace(nested[place], default=getattr(option.default, field.name))
        found.update(nested)
    return found


def _data_options(config: Any) -> dict[str, Option]:
    name = _name_of("data", config)
    function, fixed = resolve(name)
    found = {"data.name": Option("name", str, name, "a dataset by name, or a .csv file, a folder of class folders, an .npz file")}
    found.update({f"data.{option.name}": option for option in options(function, set(fixed), [])})
    return found


def _name_of(kind: str, config: Any) -> str:
    if isinstance(config, str):
        return config
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise ValueError(f"{kind} must be a name or a mapping with a name, got {config!r}")
    return config["name"]


def _refuse_unknown(merged: Config, known: dict[str, Option], arguments: list[str]) -> None:
    names = [*known, *(key.removesuffix(".name") for key in known if key.endswith(".name"))]
    for key in _flatten(merged):
        if key not in known:
            raise ValueError(f"unknown option {key!r}{_suggest(key, names)}")
    for argument in arguments:
        key = argument.partition("=")[0]
        if key[2:] not in known:
            raise ValueError(f"unknown option {key!r}{_suggest(key[2:], names, '--')}")


def _suggest(key: str, names: list[str], dashes: str = "") -> str:
    hint = did_you_mean(key, names)
    if hint.startswith("; did"):
        return hint.replace("mean '", f"mean '{dashes}")
    group = key.partition(".")[0]
    inside = [name for name in dict.fromkeys(names) if name.startswith(f"{group}.") and not name.endswith(".name")]
    return (
        f"; options of {group}: {', '.join(inside)}"
        if inside
        else f"; known groups: {', '.join(sorted({n.partition('.')[0] for n in names}))}"
    )


def _parse(parser: ArgumentParser, known: dict[str, Option], merged: Config, arguments: list[str]) -> Config:
    try:
        flat = _flatten(merged)
        for key, value in flat.items():
            # One at a time, so that a message names the key.
            single = ArgumentParser(exit_on_error=False)
            single.add_argument(f"--{key}", type=known[key].type)
            flat[key] = single.parse_object(_nest({key: value}))[key]
        parser.set_defaults(flat)
        parsed = parser.parse_args(arguments)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(_one_line(error, known)) from None
    config = _nest({key: _value(parsed, key) for key in known})
    for key, option in known.items():
        if option.default is REQUIRED and _value(parsed, key) is None:
            raise ValueError(f"option --{key} is required: {option.help or option.type}")
    _checks.integer("seed", config["seed"], minimum=0, maximum=2**32 - 1)
    for section, settings in SETTINGS.items():
        settings(**config[section])
    return config


def _value(parsed: Namespace, key: str) -> Any:
    value = parsed[key]
    return list(value) if isinstance(value, tuple) else value


def _one_line(error: Exception, known: dict[str, Option]) -> str:
    """A parser's message as one line that names the option, what came and what was expected."""
    text = " ".join(str(error).split())
    key = re.search(r'Parser key "([^"]+)"', text)
    value = re.search(r"(?:Given value|Got value):\s?(.*?)\"?$", text.rpartition("Given value type:")[2])
    if key is None or value is None or key[1] not in known:
        return text.removeprefix("argument ")
    return f"option --{key[1]} must be {_spell(known[key[1]].type)}, got {value[1]!r}"


def _spell(kind: Any) -> str:
    """A type in words."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
    if kind in words:
        return words[kind]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is list:
        return "a list of such: " + _spell(get_args(kind)[0])
    return " or ".join(map(_spell, get_args(kind)))


def _flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _nest(flat: dict[str, Any]) -> Config:
    nested: Config = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = nested
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return nested


def to_yaml(config: Config) -> str:
    """A configuration as the YAML that :func:`read_yaml` reads back."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
