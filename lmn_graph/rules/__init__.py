"""Update rules: each is a PyG ``MessagePassing`` layer that a rollout applies T times."""

from lmn_graph.rules.base import RULES, UpdateRule
from lmn_graph.rules.continuous import CellState, ContinuousRule, WeightedRule
from lmn_graph.rules.conv import RuleConv, as_conv
from lmn_graph.rules.distance_kernel_ca import DistanceKernelCA
from lmn_graph.rules.filter_grid import FilterGrid, FilterState
from lmn_graph.rules.hypernet_ca import HypernetCA
from lmn_graph.rules.logistic_channels import LogisticChannels
from lmn_graph.rules.relativistic_ca import RelativisticCA
from lmn_graph.rules.smart_net import SmartNet
from lmn_graph.rules.spiking_soc import SOCState, SpikingSOC
from lmn_graph.rules.tanh_lattice import TanhLattice

__all__ = [
    "RULES",
    "CellState",
    "ContinuousRule",
    "DistanceKernelCA",
    "FilterGrid",
    "FilterState",
    "HypernetCA",
    "LogisticChannels",
    "RelativisticCA",
    "RuleConv",
    "SOCState",
    "SmartNet",
    "SpikingSOC",
    "TanhLattice",
    "UpdateRule",
    "WeightedRule",
    "as_conv",
]
