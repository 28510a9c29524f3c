"""Names of exchangeable parts: what the command line, the combination tests and the tables enumerate."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def did_you_mean(name: str, options: list[str]) -> str:
    """A hint such as ``"; did you mean 'grid'?"``, or the list of options where nothing is close."""
    lowered = {option.lower(): option for option in options}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    return f"; did you mean {lowered[close[0]]!r}?" if close else f"; known: {', '.join(sorted(options))}"


class NamedFiles(Mapping[str, Path]):
    """The YAML files of a folder by their names.

    Args:
        kind: what a file is, for messages ("preset").
        folder: where they are.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}

    def __getitem__(self, name: str) -> Path:
        if name not in self._files:
            raise ValueError(f"unknown {self.kind} {name!r}{did_you_mean(name, list(self._files))}")
        return self._files[name]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping of names to classes or functions, filled by the ``register`` decorator.

    Third parties add to it without touching this package through an entry point in the group ``lmn_graph.<kind>s``;
    entry points are loaded when the registry is first read.

    Args:
        kind: what an entry is, for messages ("rule", "topology").
        base: the class that every entry derives from, or None for functions.
        known: entries to start with.
        makes: what an entry returns; ``base`` where it is a class.
    """

    def __init__(self, kind: str, base: type | None = None, known: Mapping[str, T] | None = None, makes: type | None = None) -> None:
        self.kind = kind
        self.base = base
        self.makes = makes or base
        self._entries: dict[str, T] = dict(known or {})
        self._pending = list(entry_points(group=f"lmn_graph.{kind}s"))

    def register(self, entry: T | None = None, *, name: str | None = None) -> Any:
        """Add a class or function under its own name, or under ``name``. Usable as a decorator.

        Raises:
            ValueError: if the name belongs to another entry or the entry does not derive from ``base``.
        """
        if entry is None:
            return lambda given: self.register(given, name=name)
        key = name or entry.__name__
        present = self._entries.get(key)
        same = present is not None and (present.__module__, present.__qualname__) == (entry.__module__, entry.__qualname__)
        if present is not None and not same:
            raise ValueError(f"{self.kind} {key!r} is already registered by {present.__module__}")
        if self.base is not None and not (isinstance(entry, type) and issubclass(entry, self.base)):
            raise ValueError(f"{self.kind} {key!r} must be a subclass of {self.base.__name__}, got {entry!r}")
        self._entries[key] = entry
        return entry

    def _load(self) -> dict[str, T]:
        while self._pending:
            self.register(self._pending[-1].load(), name=self._pending[-1].name)
            self._pending.pop()
        return self._entries

    def __getitem__(self, name: str) -> T:
        entries = self._load()
        if name not in entries:
            raise ValueError(f"unknown {self.kind} {name!r}{did_you_mean(name, list(entries))}")
        return entries[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or ``default`` for an unknown name."""
        return self._load().get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __len__(self) -> int:
        return len(self._load())
