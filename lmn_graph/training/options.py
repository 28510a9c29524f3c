"""What a part can be told from the command line and from YAML, read off its signature and docstring.

Only plain types (numbers, words, flags, lists of them) become options, and parts are named through their registries, so nothing
that a configuration says is ever imported or called by a dotted path.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring

from lmn_graph.registry import Registry

_PLAIN = (int, float, bool, str, type(None))


@dataclasses.dataclass(frozen=True)
class Option:
    """One argument of a part: its name, its plain type, its default (``REQUIRED`` where there is none) and its description."""

    name: str
    type: Any
    default: Any
    help: str
    registry: Registry[Any] | None = None


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


def options(part: Callable[..., Any], skip: set[str], registries: list[Registry[Any]]) -> Iterator[Option]:
    """The options of a class or function.

    Args:
        part: the class or function.
        skip: arguments that the builder gives.
        registries: an argument annotated with what one of them makes, or with a callable that makes it, is a nested part.
    """
    target = part.__init__ if inspect.isclass(part) and not dataclasses.is_dataclass(part) else part
    hints = get_type_hints(target)
    described = _descriptions(part)
    for name, parameter in inspect.signature(target).parameters.items():
        if name in skip or name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        hint = hints.get(name, str)
        registry = next((found for found in registries if _makes(hint, found.makes)), None)
        kind = str if registry is not None else plain_type(hint)
        if kind is not None:
            yield Option(name, kind, default, described.get(name, ""), registry)


def _makes(hint: Any, kind: type | None) -> bool:
    """Whether an argument takes what a registry makes, or (``Callable[..., kind]``) what makes one."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(get_origin(member) is collections.abc.Callable and _makes(member, kind) for member in get_args(hint))
    if get_origin(hint) is collections.abc.Callable:
        return kind is not None and get_args(hint) == (..., kind)
    return inspect.isclass(hint) and hint is kind


def plain_type(hint: Any) -> Any:
    """``hint`` without the members that a command line cannot spell, or None if nothing is left."""
    origin = get_origin(hint)
    if hint in _PLAIN:
        return hint
    if hint is Path:
        return str
    if origin is Literal:
        return hint
    if origin in (Union, types.UnionType):
        members = [kind for kind in map(plain_type, get_args(hint)) if kind is not None]
        if not [kind for kind in members if kind is not type(None)]:
            return None
        return Union[tuple(members)]  # noqa: UP007 - built at run time
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Collection):
        inner = plain_type(get_args(hint)[0])
        return None if inner is None else list[inner]  # type: ignore[valid-type]
    return None


def _descriptions(part: Callable[..., Any]) -> dict[str, str]:
    text = inspect.getdoc(part) or ""
    return {found.arg_name: " ".join((found.description or "").split()) for found in parse_docstring(text).params}
