"""Modularity: how much more than by chance edges join nodes of the same community."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from lmn_graph.graph_metrics import SoftCommunities, lattice_blocks, louvain, modularity
from lmn_graph.losses.base import LOSSES
from lmn_graph.losses.structure import On, StructuralLoss
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.machine import LatticeMachine


@LOSSES.register
class ModularityLoss(StructuralLoss):
    r"""−Q, or (Q − target)², of a directed weighted graph and hard or soft communities:

    .. math:: Q = \frac1m \sum_{ji} w_{ij} \langle S_j, S_i \rangle - \frac{\gamma}{m^2} \sum_c (S^T k^{out})_c (S^T k^{in})_c

    (``graph_metrics.modularity``, equal to NetworkX's for hard communities).

    Args:
        on: "weights", the magnitudes of the learned weights, or "activity", the co-activity graph; see :class:`StructuralLoss`.
        communities: labels [N] or soft assignments [N, C] that stay; or "learned", softmax assignments that are parameters of this loss
            and trained with the machine; "blocks" of a lattice; "louvain" communities of the topology.
        count: number of learned communities; blocks along each axis.
        resolution: γ > 0.
        target: Q to reach; None asks for as much as possible.

    Raises:
        ValueError: as :class:`StructuralLoss`; or if communities do not fit the topology.
    """

    def __init__(
        self,
        on: On = "weights",
        target: float | None = None,
        *,
        communities: Literal["learned", "blocks", "louvain"] | Tensor = "learned",
        count: int = 4,
        resolution: float = 1.0,
    ) -> None:
        super().__init__(on, target)
        self.count = _checks.integer("count", count, minimum=1)
        self.resolution = _checks.number("resolution", resolution, above=0)
        self.kind = "given" if isinstance(communities, Tensor) else _checks.choice("communities", communities, _KINDS)
        self.register_buffer("labels", communities if isinstance(communities, Tensor) else None)
        self.soft: SoftCommunities | None = None

    labels: Tensor | None

    def prepare(self, machine: LatticeMachine) -> None:
        """Find the communities of the machine's topology, or make the parameters that will hold them."""
        graph = machine.rule.connectivity
        if self.kind == "learned" and self.soft is None:
            self.soft = SoftCommunities(graph.num_nodes, self.count).to(graph.edge_index.device)
        elif self.kind == "blocks" and self.labels is None:
            self.labels = lattice_blocks(machine.topology, self.count)
        elif self.kind == "louvain" and self.labels is None:
            self.labels = louvain(graph.edge_index, graph.edge_weight, num_nodes=graph.num_nodes, resolution=self.resolution, directed=True)

    def communities(self) -> Tensor:
        """Labels [N], or assignments [N, C] whose rows add up to 1."""
        if self.soft is not None:
            return self.soft()
        if self.labels is None:
            raise ValueError(f"communities must be prepared first: call prepare(machine) on {self}")
        return self.labels

    def value(self, weight: Tensor, machine: LatticeMachine) -> Tensor:
        self.prepare(machine)
        graph = machine.rule.connectivity
        if not bool((weight.detach() > 0).any()):
            return weight.sum()  # no edge has any weight: nothing to divide
        communities = self.communities()
        if communities.size(0) != graph.num_nodes:
            raise ValueError(f"communities must have one entry per node, {graph.num_nodes}, got {tuple(communities.shape)}")
        communities = communities.to(weight.dtype) if communities.is_floating_point() else communities
        return modularity(graph, weight, communities, resolution=self.resolution, directed=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, communities={self.kind!r}, count={self.count}, resolution={self.resolution:g}"


_KINDS = ("learned", "blocks", "louvain")
