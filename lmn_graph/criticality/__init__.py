"""How far activity is from critical: estimators, the differentiable ones usable as losses (see ``lmn_graph.losses``).

They give one number per sample, so that a dead sample cannot hide behind a saturated one; those of damage and the multistep fit,
which are expectations over many flips or trials, average before they divide.
"""

from lmn_graph.criticality.covariance import covariance_slope
from lmn_graph.criticality.damage import branching_ratio, damage_growth, damage_spreading, soft_damage
from lmn_graph.criticality.driven import drive_corrected_ratio
from lmn_graph.criticality.exponents import lyapunov
from lmn_graph.criticality.multistep import MultistepFit, mr_estimator
from lmn_graph.criticality.plain import plain_ratio
from lmn_graph.criticality.response import branching_response
from lmn_graph.criticality.spectral import spectral_radius
from lmn_graph.criticality.tangent import tangent_growth

__all__ = [
    "MultistepFit",
    "branching_ratio",
    "branching_response",
    "covariance_slope",
    "damage_growth",
    "damage_spreading",
    "drive_corrected_ratio",
    "lyapunov",
    "mr_estimator",
    "plain_ratio",
    "soft_damage",
    "spectral_radius",
    "tangent_growth",
]
