"""Projectors: from an input batch to the drive of a graph."""

from lmn_graph.projectors.backbone import Backbone
from lmn_graph.projectors.base import PROJECTORS, Projection, Projector
from lmn_graph.projectors.cp_tensor import CPTensor
from lmn_graph.projectors.hypernetwork import Hypernetwork
from lmn_graph.projectors.identity import Identity
from lmn_graph.projectors.linear import Linear
from lmn_graph.projectors.stream import Stream

__all__ = ["PROJECTORS", "Backbone", "CPTensor", "Hypernetwork", "Identity", "Linear", "Projection", "Projector", "Stream"]
