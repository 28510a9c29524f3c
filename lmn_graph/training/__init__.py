"""Training on Lightning, and the only place where it is used: configurations, runs, evaluation.

The names below are loaded when they are first used: configurations alone need no Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmn_graph.training.configuration import configure, describe, to_yaml
    from lmn_graph.training.run import Run, evaluate, open_run, resume, train
    from lmn_graph.training.sweeps import Sweep, sweep

_HOMES = dict.fromkeys(("configure", "describe", "to_yaml"), "configuration")
_HOMES |= dict.fromkeys(("Run", "evaluate", "open_run", "resume", "train"), "run")
_HOMES |= dict.fromkeys(("Sweep", "sweep"), "sweeps")

__all__ = ["Run", "Sweep", "configure", "describe", "evaluate", "open_run", "resume", "sweep", "to_yaml", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
