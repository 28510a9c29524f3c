"""Readouts: from the history of a graph to a prediction."""

from lmn_graph.readouts.attention import Attention
from lmn_graph.readouts.base import READOUTS, Readout
from lmn_graph.readouts.dynamic_attention import DynamicAttention
from lmn_graph.readouts.holographic import Holographic
from lmn_graph.readouts.rate import Rate
from lmn_graph.readouts.shoreline import Shoreline
from lmn_graph.readouts.spatio_temporal import SpatioTemporal

__all__ = ["READOUTS", "Attention", "DynamicAttention", "Holographic", "Rate", "Readout", "Shoreline", "SpatioTemporal"]
