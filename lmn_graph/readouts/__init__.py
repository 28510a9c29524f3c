"""Readouts: from the history of a graph to a prediction."""

from lmn_graph.readouts.base import READOUTS, Readout
from lmn_graph.readouts.holographic import Holographic
from lmn_graph.readouts.rate import Rate

__all__ = ["READOUTS", "Holographic", "Rate", "Readout"]
