"""Sums over neighbours: the few operations that every rule is made of."""

from lmn_graph.ops._compiled import Compile
from lmn_graph.ops.gated import gated_sum
from lmn_graph.ops.message import message_sum
from lmn_graph.ops.weighted import EdgeWeight, weighted_sum

__all__ = ["Compile", "EdgeWeight", "gated_sum", "message_sum", "weighted_sum"]
