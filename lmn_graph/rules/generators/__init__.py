"""Generators: what makes the weights of a hypernetwork's edges for every sample."""

from lmn_graph.rules.generators.base import GENERATORS, Factors, WeightGenerator
from lmn_graph.rules.generators.emitter_listener import EmitterListener
from lmn_graph.rules.generators.factored_router import FactoredRouter
from lmn_graph.rules.generators.implicit_router import ImplicitRouter
from lmn_graph.rules.generators.low_rank_siren import LowRankSiren
from lmn_graph.rules.generators.mlp_router import MLPRouter

__all__ = [
    "GENERATORS",
    "EmitterListener",
    "FactoredRouter",
    "Factors",
    "ImplicitRouter",
    "LowRankSiren",
    "MLPRouter",
    "WeightGenerator",
]
