"""Options as a user spells them: dotted keys, types in words, messages with a hint."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

from lmn_graph.registry import did_you_mean
from lmn_graph.training.options import Option

Config = dict[str, Any]


def suggest(key: str, names: list[str], dashes: str = "") -> str:
    """A hint at the nearest known option, or the options of the same group."""
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


def one_line(error: Exception, known: dict[str, Option]) -> str:
    """A parser's message as one line that names the option, what came and what was expected."""
    text = " ".join(str(error).split())
    key = re.search(r'Parser key "([^"]+)"', text)
    value = re.search(r"(?:Given value|Got value):\s?(.*?)\"?$", text.rpartition("Given value type:")[2])
    if key is None or value is None or key[1] not in known:
        return text.removeprefix("argument ")
    return f"option --{key[1]} must be {spell(known[key[1]].type)}, got {value[1]!r}"


def spell(kind: Any) -> str:
    """A type in words."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
    if kind in words:
        return words[kind]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is list:
        return "a list of such: " + spell(get_args(kind)[0])
    return " or ".join(map(spell, get_args(kind)))


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: dict[str, Any]) -> Config:
    """A mapping with dotted keys as a nested one."""
    nested: Config = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = nested
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return nested
