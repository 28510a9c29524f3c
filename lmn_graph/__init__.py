"""Lattice Machine Networks on PyTorch Geometric: a graph, a rule and a number of steps."""

import sys

import topologies
from lmn_graph.connectivity import Connectivity
from lmn_graph.machine import LatticeMachine, Output
from lmn_graph.registry import Registry
from lmn_graph.rollout import Trajectory, rollout

__version__ = "0.1.0"

sys.modules[f"{__name__}.topologies"] = topologies

TOPOLOGIES = Registry("topology", known=getattr(topologies, "GENERATORS", {}))

__all__ = ["TOPOLOGIES", "Connectivity", "LatticeMachine", "Output", "Registry", "Trajectory", "__version__", "rollout", "topologies"]
