"""Excess clustering: how much more than by chance strong edges close triangles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lmn_graph.graph_metrics import Triangles, excess_clustering
from lmn_graph.losses.base import LOSSES
from lmn_graph.losses.structure import On, StructuralLoss

if TYPE_CHECKING:
    from lmn_graph.connectivity import Connectivity
    from lmn_graph.machine import LatticeMachine


@LOSSES.register
class ClusteringLoss(StructuralLoss):
    r"""−(C − C₀), or (C − C₀ − target)²: the weighted clustering of a graph in excess of its null.

    .. math:: C = \tfrac1N \textstyle\sum_i c_i(w), \qquad C_0 = E_\pi\, \tfrac1N \textstyle\sum_i c_i(\pi w)

    with :math:`c_i` the directed weighted clustering coefficient (``graph_metrics.clustering``, which for symmetric weights is Onnela's)
    and π all permutations of the weights over the edges. C₀ is exact, not sampled (``graph_metrics.excess_clustering``); it takes out
    what the pattern of edges and the distribution of weights give by themselves, so equal weights have no excess.

    Args:
        on: "weights", the magnitudes of the learned weights, or "activity", the co-activity graph; see :class:`StructuralLoss`.
        target: excess to reach; None asks for as much as possible.

    Raises:
        ValueError: as :class:`StructuralLoss`.
    """

    def __init__(self, on: On = "weights", target: float | None = None) -> None:
        super().__init__(on, target)
        self._found: tuple[Connectivity, Triangles] | None = None  # of the last graph: enumerated once

    def value(self, weight: Tensor, machine: LatticeMachine) -> Tensor:
        triangles = self._triangles(machine.rule.connectivity)
        if not bool((weight.detach() > 0).any()):
            return weight.sum()  # a graph of weights 0, or nodes that are never active together: no triangle, and no scale
        return excess_clustering(triangles, weight, directed=True).mean()

    def _triangles(self, connectivity: Connectivity) -> Triangles:
        device = connectivity.edge_index.device  # moving a machine keeps its connectivity
        if self._found is None or self._found[0] is not connectivity or self._found[1].edge_index.device != device:
            self._found = connectivity, Triangles(connectivity)
        return self._found[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_found": None}
