"""Sums over neighbours: the few operations that every rule is made of."""

from lmn_graph.ops.weighted import EdgeWeight, weighted_sum

__all__ = ["EdgeWeight", "weighted_sum"]
