"""Lattice Machine Networks on PyTorch Geometric: a graph, a rule and a number of steps.

The names below are loaded when they are first used, so that the command line can answer ``--help`` without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import topologies as topologies
    from lmn_graph.catalogue import TOPOLOGIES as TOPOLOGIES
    from lmn_graph.connectivity import Connectivity as Connectivity
    from lmn_graph.machine import LatticeMachine as LatticeMachine
    from lmn_graph.machine import Output as Output
    from lmn_graph.rollout import Trajectory as Trajectory
    from lmn_graph.rollout import rollout as rollout

__version__ = "0.1.0"

_HOMES = {
    "TOPOLOGIES": "lmn_graph.catalogue",
    "Connectivity": "lmn_graph.connectivity",
    "LatticeMachine": "lmn_graph.machine",
    "Output": "lmn_graph.machine",
    "Trajectory": "lmn_graph.rollout",
    "rollout": "lmn_graph.rollout",
}
_PACKAGES = (
    "criticality",
    "data",
    "embeddings",
    "graph_metrics",
    "losses",
    "ops",
    "presets",
    "projectors",
    "readouts",
    "rules",
    "surrogates",
    "topologies",
    "training",
)

__all__ = ["__version__", *_HOMES, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
