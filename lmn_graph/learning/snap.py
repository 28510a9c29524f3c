"""SnAP-k and real-time recurrent learning of filter cells on any acyclic graph."""

from __future__ import annotations

from lmn_graph.learning.local import Local
from lmn_graph.learning.perturbation import Perturbation
from topologies import _checks


class SnAP(Local):
    r"""The sparse k-step approximation of real-time recurrent learning: traces of cells at most k edges away.

    With P[θ, d] = ds_d/dθ for a parameter θ of cell i and the cells d that i reaches over at most k edges (see docs/learning.md for its
    recursion), φ = 1 − y², and :math:`m_d = \partial \ell / \partial y_d` travelling from the outputs against the edges within a time step,

    .. math:: \frac{\partial \ell(t)}{\partial \theta} \approx m_i \varphi_i\, f_\theta(t) + \sum_d m_d \varphi_d\, a_d P[\theta, d](t - 1),
        \qquad f = e_w,\ 1,\ \tau\eta \text{ for a weight, a bias, log } \tau.

    A single step is exact; over many, what a cell beyond k edges remembers is left out. k = 1 is the rule of grid-neurons, with
    3 traces of its own and 8 about its two descendants in a cell of a raster; as k grows it becomes :class:`RTRL`.

    Trains a :class:`lmn_graph.rules.FilterGrid` in topological order behind a projector that does not learn; a readout that learns gets its
    exact gradient. Sequences of up to ``chunk`` steps on a graded graph (such as a raster, a tree) take a sweep that gives the very same
    numbers without the traces, where there is a C++ compiler; otherwise traces are carried forward, and memory does not grow with T.

    Args:
        k: edges, >= 0; 0 keeps a cell's traces of itself only.
        perturbation: errors of the quantities that the rule measures.
        chunk: time steps whose states are held at once, >= 1.

    Raises:
        ValueError: if an argument is out of range.

    Source: J. Menick et al., "Practical real time recurrent learning with a sparse approximation", 2021; T. Pluck, grid-neurons.
    """

    def __init__(self, k: int = 1, *, perturbation: Perturbation | None = None, chunk: int = 64) -> None:
        super().__init__(_checks.integer("k", k, minimum=0), perturbation or Perturbation(), chunk)

    def __repr__(self) -> str:
        return f"SnAP({self.hops})" if self.perturbation.is_none else f"SnAP({self.hops}, {self.perturbation})"


class RTRL(Local):
    """Real-time recurrent learning: traces of every cell that a parameter reaches. The gradient of BPTT, from the past alone.

    A trace for every parameter and every cell after it: 22,050 pairs of cells and 86,670 traces on a raster of 28 × 10, as many in every
    sample. Memory does not grow with T. Trains what :class:`SnAP` trains.

    Args:
        perturbation: errors of the quantities that the rule measures.
        chunk: time steps whose states are held at once, >= 1.

    Source: R. J. Williams, D. Zipser, "A learning algorithm for continually running fully recurrent neural networks", 1989.
    """

    def __init__(self, *, perturbation: Perturbation | None = None, chunk: int = 64) -> None:
        super().__init__(None, perturbation or Perturbation(), chunk)
