"""Update rules: each is a PyG ``MessagePassing`` layer that a rollout applies T times."""

from lmn_graph.rules.base import RULES, UpdateRule
from lmn_graph.rules.conv import RuleConv, as_conv
from lmn_graph.rules.spiking_soc import SOCState, SpikingSOC

__all__ = ["RULES", "RuleConv", "SOCState", "SpikingSOC", "UpdateRule", "as_conv"]
