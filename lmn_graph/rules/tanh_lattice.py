"""Hyperbolic-tangent cells on any adjacency."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph import ops
from lmn_graph.connectivity import Connectivity
from lmn_graph.rules.base import RULES
from lmn_graph.rules.continuous import CellState, Init, WeightedRule


class TanhParameters(NamedTuple):
    """What a step needs: the graph, the prepared weights, the leak."""

    connectivity: Connectivity
    weight: ops.EdgeWeight
    leak: Tensor


@RULES.register
class TanhLattice(WeightedRule):
    r"""Cells that take the hyperbolic tangent of what they hear,

    .. math:: f_i = \tanh\big(\textstyle\sum_j w_{ij} x_j + drive_i\big), \qquad x \leftarrow f.

    With ``leak`` λ < 1, :math:`x \leftarrow (1 - \lambda) x + \lambda f`, a leaky recurrent network or echo state network on a graph;
    with ``residual``, :math:`x \leftarrow x + \lambda f`.

    Shapes: drive and activity [N, B], or [N, B, C] with channels, which share the weights; state ``CellState(x)``, starting at 0.

    Args:
        topology: the graph.
        weight: edge weights [E] in the order of the topology's edges; a number is a gain on the graph's ``edge_weight`` (1 where it has
            none); None takes ``edge_weight`` or, where there is none, draws by ``init``.
        learn_weight: whether the edge weights are learned.
        init: "fan_in" draws normal weights of variance gain²/K, K the in-degree; "orthogonal" a matrix that keeps lengths, see
            :func:`lmn_graph.rules.initial.orthogonal`.
        gain: scale of the drawn weights, > 0; with "fan_in" the spectral radius is about the gain.
        channels: None for scalar cells, else C.
        leak: λ in (0, 1]; None learns one per node.
        residual: add f to the state instead of mixing the two.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid.

    Source: NDimLatticeNetwork of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        weight: float | Tensor | None = None,
        learn_weight: bool = True,
        init: Init = "fan_in",
        gain: float = 1.0,
        channels: int | None = None,
        leak: float | None = 1.0,
        residual: bool = False,
    ) -> None:
        super().__init__(
            topology, weight=weight, learn_weight=learn_weight, init=init, gain=gain, channels=channels, leak=leak, residual=residual
        )

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> TanhParameters:
        connectivity = self.resolve(graph)
        return TanhParameters(connectivity, ops.EdgeWeight(connectivity, self.weight_on(connectivity)), self.leak())

    def step(self, p: TanhParameters, state: CellState, drive: Tensor | None) -> tuple[CellState, Tensor]:
        a = self.weighted_sum(p.connectivity, state.x, p.weight)
        return self.moved(state.x, torch.tanh(a if drive is None else a + drive), p.leak)
