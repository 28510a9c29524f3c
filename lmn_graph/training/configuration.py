"""From a preset, a YAML file and a command line to one checked configuration."""

from __future__ import annotations

import copy
import dataclasses
import textwrap
from argparse import ArgumentError
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lmn_graph import presets
from lmn_graph.data import resolve
from lmn_graph.registry import Registry
from lmn_graph.training.build import GIVEN, GIVEN_TO_RULES, NESTED, NESTED_AS, OPTIONAL, PARTS, TERMS, UNNAMED
from lmn_graph.training.options import REQUIRED, Option, options
from lmn_graph.training.settings import SETTINGS
from lmn_graph.training.spelling import Config, flatten, nest, one_line, spell, suggest
from topologies import _checks

_SCALARS = {"seed": (int, 0, "seed of everything that is drawn, 0 to 2³² - 1")}


class _Loader(yaml.SafeLoader):
    """Plain values only; a key that comes twice is refused, where YAML's own loader forgets the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} comes twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, kind: str = "config") -> Config:
    """A configuration file, or one of another kind, as a mapping; nothing in it can create objects.

    Raises:
        ValueError: if the file is missing, is not YAML, names a key twice, or holds no mapping.
    """
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"{kind} file {str(path)!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{kind} file {str(path)!r} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{kind} file {str(path)!r} must hold a mapping, got {type(loaded).__name__}")
    return loaded


def configure(preset: str | None, files: Sequence[str | Config] = (), arguments: Sequence[str] = (), *, data: bool = True) -> Config:
    """The configuration of a run: the preset, overridden by the files, overridden by ``--part``, ``--part.option`` arguments.

    Args:
        preset: name of a preset, or None to start from the files alone.
        files: YAML files, or mappings such as they hold; later ones win.
        arguments: command-line arguments.
        data: whether the data must be there; without them their options are left as they are.

    Raises:
        ValueError: for an unknown name or option (with the nearest known one), a value of the wrong type, or a missing one.
    """
    merged, arguments = _merged(preset, files, arguments)
    apart = {} if data else {"data": merged.pop("data")}
    parser, known = _parser(merged)
    _refuse_unknown(merged, known, arguments)
    return _checked(_parse(parser, known, merged, arguments)) | apart


def reconfigure(config: Config, changes: Sequence[Config]) -> list[Config]:
    """For each of some changes the configuration on top of a checked one, as ``configure(None, [config, change])``, and sooner.

    Raises:
        ValueError: as :func:`configure`.
    """
    _, known = _parser(config)
    found = []
    for change in changes:
        flat = flatten(_merge({}, change))
        if any(key.endswith(".name") and flat[key] != known[key].default for key in flat if key in known):
            found.append(configure(None, [config, change]))  # another part has other options
            continue
        _refuse_unknown(change, known, [])
        try:
            parsed = {key: _parse_one(known[key], key, value) for key, value in flat.items()}
        except (ArgumentError, TypeError, ValueError) as error:
            raise ValueError(one_line(error, known)) from None
        found.append(_checked(_merge(config, nest(parsed))))
    return found


def configure_part(kind: str, name: str, arguments: Sequence[str] = ()) -> Config:
    """The configuration of one part of :data:`PARTS` from ``--option value`` arguments.

    Raises:
        ValueError: as :func:`configure`.
    """
    joined = _name_parts([f"--{kind}.{argument[2:]}" for argument in _joined(list(arguments))])
    merged = _merge({kind: {"name": name}}, _named_on_command_line(joined))
    try:
        known = _part_options(kind, merged[kind], PARTS[kind])
        _refuse_unknown(merged, known, joined)
        config = _parse(_parser_of(known), known, merged, joined)
    except ValueError as error:
        raise ValueError(str(error).replace(f"--{kind}.", "--")) from None
    return config[kind]


def configure_call(function: Callable[..., Any], arguments: Sequence[str] = (), skip: Collection[str] = ()) -> Config:
    """The options of a function, those of ``skip`` excepted, from ``--option value`` arguments; those not given have their defaults.

    Raises:
        ValueError: as :func:`configure`.
    """
    known = {option.name: option for option in options(function, set(skip), [])}
    joined = _joined(list(arguments))
    _refuse_unknown({}, known, joined)
    return _parse(_parser_of(known), known, {}, joined)


def describe(preset: str | None, files: Sequence[str] = (), arguments: Sequence[str] = ()) -> str:
    """Every option of the parts that :func:`configure` would choose: its type, what it does, and its value there."""
    merged, arguments = _merged(preset, files, arguments)
    parser, known = _parser(merged)
    _refuse_unknown(merged, known, arguments)
    values = flatten(_parse(parser, known, merged, arguments))
    return _described(known, {key: f"here {_inline(values[key])}" for key in known})


def describe_part(kind: str, name: str) -> str:
    """Every option of one part of :data:`PARTS`, its type, what it does and its default."""
    return _with_defaults(options(PARTS[kind][name], _given(kind), NESTED))


def describe_call(function: Callable[..., Any], skip: Collection[str] = ()) -> str:
    """Every option of a function, those of ``skip`` excepted, as :func:`describe_part` does."""
    return _with_defaults(options(function, set(skip), []))


def _with_defaults(found: Iterable[Option]) -> str:
    known = {option.name: option for option in found}
    return _described(known, {key: "required" if o.default is REQUIRED else f"default {_inline(o.default)}" for key, o in known.items()})


def _described(known: dict[str, Option], remarks: dict[str, str]) -> str:
    lines = []
    for key, option in known.items():
        lines.append(f"  --{key.removesuffix('.name')} ({spell(option.type)}; {remarks[key]})")
        lines += textwrap.wrap(option.help, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _inline(value: Any) -> str:
    """A value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10**6).splitlines()[0]


def _merged(preset: str | None, files: Sequence[str | Config], arguments: Sequence[str]) -> tuple[Config, list[str]]:
    """The sources on top of each other, with the parts that the command line names, and the arguments in one form."""
    merged: Config = {}
    for source in [*([] if preset is None else [presets.PRESETS[preset]]), *files]:
        merged = _merge(merged, source if isinstance(source, dict) else read_yaml(source))
    joined = _name_parts(_joined(list(arguments)))
    merged = _merge(merged, _named_on_command_line(joined))
    _name_of("data", merged.get("data"))
    return merged, joined


def _merge(base: Config, over: Config) -> Config:
    """``over`` on top of ``base``; a part with another name drops the options of the one it replaces."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        value = {"name": value} if isinstance(value, str) and key in (*PARTS, "data", *NESTED_AS) else value
        value = _merge({}, value) if isinstance(value, dict) else value
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
    named = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        part, *path = key[2:].split(".")
        is_part = part in (*PARTS, "data") if not path else part in PARTS and path[-1] in NESTED_AS
        if is_part and not value:
            raise ValueError(f"option {key} expects a name")
        named.append(f"{key}.name{equals}{value}" if is_part else argument)
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
    known: dict[str, Option] = {}
    for key, (scalar, default, text) in _SCALARS.items():
        known[key] = Option(key, scalar, default, text)
    for section, settings in SETTINGS.items():
        known.update({f"{section}.{option.name}": option for option in options(settings, set(), [])})
    for kind, registry in PARTS.items():
        known.update(_part_options(kind, merged.get(kind), registry))
    if "data" in merged:
        known.update(_data_options(merged["data"]))
    return _parser_of(known), known


def _parser_of(known: dict[str, Option]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    for key, option in known.items():
        initial = None if option.default is REQUIRED or option.registry else option.default
        parser.add_argument(f"--{key}", type=option.type, default=initial, help=option.help or " ")
    return parser


def _part_options(kind: str, config: Any, registry: Registry[Any], entry: Callable[..., Any] | None = None) -> dict[str, Option]:
    name = UNNAMED[kind] if config is None and kind in UNNAMED else _name_of(kind, config)
    text = f"one of {', '.join(registry)}" + (", or none" if kind in OPTIONAL else "")
    found = {f"{kind}.name": Option("name", str, name, text)}
    if kind in OPTIONAL and name == "none":
        return found
    entry = registry[name]
    for option in options(entry, _given(kind), NESTED):
        key = f"{kind}.{option.name}"
        if option.registry is None:
            found[key] = option
            continue
        inner = config.get(option.name) or {}
        if option.default is REQUIRED and "name" not in inner:
            raise ValueError(f"option --{key} is required: {option.help} One of {', '.join(option.registry)}")
        default = option.default.__name__ if isinstance(option.default, type) else type(option.default).__name__
        inner = {"name": default, **inner} if isinstance(inner, dict) else inner
        nested = _part_options(key, inner, option.registry)
        if default == _name_of(key, inner) and not isinstance(option.default, type) and dataclasses.is_dataclass(option.default):
            for field in dataclasses.fields(option.default):
                place = f"{key}.{field.name}"
                nested[place] = dataclasses.replace(nested[place], default=getattr(option.default, field.name))
        found.update(nested)
    return found


def _given(kind: str) -> set[str]:
    """Arguments of a part that are no options, since the builder gives them."""
    return set() if kind in TERMS else GIVEN_TO_RULES if kind == "rule" else GIVEN


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
    for key in flatten(merged):
        if key not in known:
            raise ValueError(f"unknown option {key!r}{suggest(key, names)}")
    for argument in arguments:
        key = argument.partition("=")[0]
        if key[2:] not in known:
            raise ValueError(f"unknown option {key!r}{suggest(key[2:], names, '--')}")


def _parse(parser: ArgumentParser, known: dict[str, Option], merged: Config, arguments: list[str]) -> Config:
    try:
        flat = flatten(merged)
        flat = {key: _parse_one(known[key], key, value) for key, value in flat.items()}
        parser.set_defaults(flat)
        parsed = parser.parse_args(arguments)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(one_line(error, known)) from None
    config = nest({key: _value(parsed, key) for key in known})
    for key, option in known.items():
        if option.default is REQUIRED and _value(parsed, key) is None:
            raise ValueError(f"option --{key} is required: {option.help or option.type}")
    return config


def _parse_one(option: Option, key: str, value: Any) -> Any:
    """A value as its option takes it; by itself, so that a message names the key."""
    single = ArgumentParser(exit_on_error=False)
    single.add_argument(f"--{key}", type=option.type)
    return single.parse_object(nest({key: value}))[key]


def _checked(config: Config) -> Config:
    _checks.integer("seed", config["seed"], minimum=0, maximum=2**32 - 1)
    for section, settings in SETTINGS.items():
        settings(**config[section])
    return config


def _value(parsed: Namespace, key: str) -> Any:
    value = parsed[key]
    return list(value) if isinstance(value, tuple) else value


def to_yaml(config: Config) -> str:
    """A configuration as the YAML that :func:`read_yaml` reads back."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
