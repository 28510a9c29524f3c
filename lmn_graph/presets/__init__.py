"""The named systems: one YAML file each, found by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lmn_graph.registry import did_you_mean


class _Presets(Mapping[str, Path]):
    """Preset names and their files in this folder."""

    def __init__(self) -> None:
        self._files = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}

    def __getitem__(self, name: str) -> Path:
        if name not in self._files:
            raise ValueError(f"unknown preset {name!r}{did_you_mean(name, list(self._files))}")
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


PRESETS: Mapping[str, Path] = _Presets()

__all__ = ["PRESETS"]
