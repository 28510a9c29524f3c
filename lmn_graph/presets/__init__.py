"""The named systems: one YAML file each, found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmn_graph.registry import NamedFiles

PRESETS: Mapping[str, Path] = NamedFiles("preset", Path(__file__).parent)

__all__ = ["PRESETS"]
