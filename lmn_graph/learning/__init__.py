"""Ways to get the gradient of a machine: back-propagation through time, and local rules that learn forward in time."""

from lmn_graph.learning.base import LEARNING, BPTT, Learned, LearningRule
from lmn_graph.learning.perturbation import Perturbation
from lmn_graph.learning.snap import RTRL, SnAP

__all__ = ["BPTT", "LEARNING", "RTRL", "Learned", "LearningRule", "Perturbation", "SnAP"]
