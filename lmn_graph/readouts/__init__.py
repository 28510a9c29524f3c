"""Readouts: from the history of a graph to a prediction."""

from lmn_graph.readouts.attention import Attention
from lmn_graph.readouts.base import READOUTS, Readout
from lmn_graph.readouts.class_query import ClassQuery
from lmn_graph.readouts.dynamic_attention import DynamicAttention
from lmn_graph.readouts.embedding_dot import EmbeddingDot
from lmn_graph.readouts.holographic import Holographic
from lmn_graph.readouts.holographic_embedding import HolographicEmbedding
from lmn_graph.readouts.holographic_metric import HolographicMetric
from lmn_graph.readouts.multi_head_attention import MultiHeadAttention
from lmn_graph.readouts.overlapping_groups import OverlappingGroups
from lmn_graph.readouts.rate import Rate
from lmn_graph.readouts.shared_embedding import SharedEmbedding
from lmn_graph.readouts.shoreline import Shoreline
from lmn_graph.readouts.spatio_temporal import SpatioTemporal
from lmn_graph.readouts.temporal_attention import TemporalAttention

__all__ = [
    "READOUTS",
    "Attention",
    "ClassQuery",
    "DynamicAttention",
    "EmbeddingDot",
    "Holographic",
    "HolographicEmbedding",
    "HolographicMetric",
    "MultiHeadAttention",
    "OverlappingGroups",
    "Rate",
    "Readout",
    "SharedEmbedding",
    "Shoreline",
    "SpatioTemporal",
    "TemporalAttention",
]
