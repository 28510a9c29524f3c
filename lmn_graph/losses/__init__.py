"""Losses: on the dynamics (``LOSSES``), on the prediction (``TaskLoss``), and their weighted sum (``TotalLoss``)."""

from lmn_graph.losses.activity import Activity
from lmn_graph.losses.base import LOSSES, PhysicsLoss
from lmn_graph.losses.branching_response import BranchingResponse
from lmn_graph.losses.clustering_loss import ClusteringLoss
from lmn_graph.losses.covariance_slope import CovarianceSlope
from lmn_graph.losses.drive_corrected_ratio import DriveCorrectedRatio
from lmn_graph.losses.modularity_loss import ModularityLoss
from lmn_graph.losses.perturbation import Perturbation
from lmn_graph.losses.plain_ratio import PlainRatio
from lmn_graph.losses.ponder_cost import PonderCost
from lmn_graph.losses.structure import StructuralLoss
from lmn_graph.losses.tangent_growth import TangentGrowth
from lmn_graph.losses.task import TaskLoss, every_step
from lmn_graph.losses.total import TotalLoss

__all__ = [
    "LOSSES",
    "Activity",
    "BranchingResponse",
    "ClusteringLoss",
    "CovarianceSlope",
    "DriveCorrectedRatio",
    "ModularityLoss",
    "Perturbation",
    "PhysicsLoss",
    "PlainRatio",
    "PonderCost",
    "StructuralLoss",
    "TangentGrowth",
    "TaskLoss",
    "TotalLoss",
    "every_step",
]
