"""Modularity: how much more than by chance edges join nodes of the same community."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from lmn_graph.graph_metrics import SoftCommunities, lattice_blocks, louvain, modularity
from lmn_graph.losses.base import LOSSES
from lmn_graph.losses.structure import On, StructuralLoss
from topologies import _checks

if TYPE_CHECKING:
    from lmn_graph.connectivity import Connectivity
    from lmn_graph.machine import LatticeMachine


@LOSSES.register
class ModularityLoss(StructuralLoss):
    r"""−Q, or (Q − target)², of a directed weighted graph and hard or soft communities:

    .. math:: Q = \frac1m \sum_{ji} w_{ij} \langle S_j, S_i \rangle - \frac{\gamma}{m^2} \sum_c (S^T k^{out})_c (S^T k^{in})_c

    (``graph_metrics.modularity``, equal to NetworkX's for hard communities).

    Args:
        on: "weights", the magnitudes of the learned weights, or "activity", the co-activity graph; see :class:`StructuralLoss`.
        communities: labels [N] or soft assignments [N, C] that stay; or "learned", softmax assignments that are parameters of this
            loss, made by ``prepare(machine)`` (before an optimiser is built of them) and trained with the machine; "blocks" of a
            lattice; "louvain" communities of the topology.
        count: number of learned communities; blocks along each axis.
        resolution: γ > 0.
        target: Q to reach; None asks for as much as possible.

    Raises:
        ValueError: as :class:`StructuralLoss`; or if communities do not fit the topology, or are learned and were not prepared.
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
        if not isinstance(communities, Tensor) and not (isinstance(communities, str) and communities in _KINDS):
            kinds = ", ".join(map(repr, _KINDS))
            raise ValueError(f"communities must be one of {kinds}, or a tensor [N] or [N, C], got {str(communities)[:40]!r}")
        self.kind = "given" if isinstance(communities, Tensor) else communities
        self.register_buffer("given", communities if isinstance(communities, Tensor) else None)
        self.soft: SoftCommunities | None = None
        self._found: tuple[Connectivity, Tensor] | None = None  # of the last graph: sought once

    given: Tensor | None

    def prepare(self, machine: LatticeMachine) -> None:
        """Make the parameters of learned communities, for as many nodes as the machine has."""
        graph = machine.rule.connectivity
        if self.kind == "learned" and self.soft is None:
            self.soft = SoftCommunities(graph.num_nodes, self.count).to(graph.edge_index.device)

    def communities(self, machine: LatticeMachine) -> Tensor:
        """Labels [N], or assignments [N, C] whose rows add up to 1.

        Raises:
            ValueError: if they are to be learned and :meth:`prepare` was not called, or are of another number of nodes.
        """
        graph = machine.rule.connectivity
        if self.kind == "learned":
            if self.soft is None:
                raise ValueError("communities are learned: call prepare(machine) before the optimiser is built, as lmn train does")
            found = self.soft()
        else:
            found = self._sought(machine) if self.given is None else self.given
        if found.dim() < 1 or found.size(0) != graph.num_nodes:
            raise ValueError(f"communities must have one entry per node, {graph.num_nodes}, got {tuple(found.shape)}")
        return found

    def _sought(self, machine: LatticeMachine) -> Tensor:
        """Blocks or Louvain's communities of the machine's topology."""
        graph = machine.rule.connectivity
        if self._found is None or self._found[0] is not graph or self._found[1].device != graph.edge_index.device:
            if self.kind == "blocks":
                labels = lattice_blocks(machine.topology, self.count)
            else:
                labels = louvain(graph.edge_index, graph.edge_weight, num_nodes=graph.num_nodes, resolution=self.resolution, directed=True)
            self._found = graph, labels.to(graph.edge_index.device)
        return self._found[1]

    def value(self, weight: Tensor, machine: LatticeMachine) -> Tensor:
        communities = self.communities(machine)
        if not bool((weight.detach() > 0).any()):
            return weight.sum()  # no edge has any weight: nothing to divide
        communities = communities.to(weight.dtype) if communities.is_floating_point() else communities
        return modularity(machine.rule.connectivity, weight, communities, resolution=self.resolution, directed=True)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_found": None}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, communities={self.kind!r}, count={self.count}, resolution={self.resolution:g}"


_KINDS = ("learned", "blocks", "louvain")
