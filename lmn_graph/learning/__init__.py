"""Ways to get the gradient of a machine: back-propagation through time, and local rules that learn forward in time."""

from lmn_graph.learning import named as named  # the names are registered on import
from lmn_graph.learning.base import BPTT, LEARNING, Learned, LearningRule
from lmn_graph.learning.compare import Agreement, compare
from lmn_graph.learning.descent import sgd
from lmn_graph.learning.online import Online
from lmn_graph.learning.perturbation import Perturbation
from lmn_graph.learning.snap import RTRL, SnAP

__all__ = ["BPTT", "LEARNING", "RTRL", "Agreement", "Learned", "LearningRule", "Online", "Perturbation", "SnAP", "compare", "sgd"]
