"""Sums over neighbours: the few operations that every rule is made of."""

from lmn_graph.ops._compiled import Compile
from lmn_graph.ops.gated import gated_sum
from lmn_graph.ops.lowrank import LowRankWeight, lowrank_sum, pays_to_materialise
from lmn_graph.ops.message import message_sum
from lmn_graph.ops.stencil import Stencil, StencilKernel, StencilMethod, stencil_sum
from lmn_graph.ops.typed import typed_sum
from lmn_graph.ops.weighted import EdgeWeight, weighted_sum

__all__ = [
    "Compile",
    "EdgeWeight",
    "LowRankWeight",
    "Stencil",
    "StencilKernel",
    "StencilMethod",
    "gated_sum",
    "lowrank_sum",
    "message_sum",
    "pays_to_materialise",
    "stencil_sum",
    "typed_sum",
    "weighted_sum",
]
