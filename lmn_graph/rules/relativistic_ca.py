"""The relativistic cellular automaton: neighbours are heard by how their magnitude compares with one's own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.ops.gated import Gate
from lmn_graph.rules._gate import RelativisticGate
from lmn_graph.rules.base import RULES
from lmn_graph.rules.continuous import CellState, Init, WeightedRule
from topologies import _checks


class RelativisticParameters(NamedTuple):
    """What a step needs: the graph, the weights [E], the steepness α (a scalar), the leak."""

    connectivity: Connectivity
    weight: Tensor
    alpha: Tensor
    leak: Tensor


@RULES.register
class RelativisticCA(RelativisticGate, WeightedRule):
    r"""Cells that hear a neighbour the more, the smaller it is beside themselves,

    .. math:: f_i = \tanh\big(\textstyle\sum_j \sigma(\alpha(|x_i| - |x_j|))\, w_{ij}\, x_j + drive_i\big), \qquad x \leftarrow f.

    Dense on ``topologies.complete``, sparse on a lattice of any dimension or any other graph. With ``leak`` λ < 1,
    :math:`x \leftarrow (1 - \lambda) x + \lambda f`; with ``residual``, :math:`x \leftarrow x + \lambda f`.

    Shapes: drive and activity [N, B], or [N, B, C] with channels, which share the weights; state ``CellState(x)``, starting at 0.

    Args:
        topology: the graph.
        alpha: steepness α of the gate, a finite number; at 0 every gate is 1/2.
        learn_alpha: whether α is a parameter.
        gate: with channels, |x| is the Euclidean norm of a cell ("norm") or each channel has a gate of its own ("channel").
        weight: edge weights [E] in the order of the topology's edges; a number is a gain on the graph's ``edge_weight`` (1 where it has
            none); None takes ``edge_weight`` or, where there is none, draws by ``init``.
        learn_weight: whether the edge weights are learned.
        init: "fan_in" draws normal weights of variance gain²/K, K the in-degree; "orthogonal" a matrix that keeps lengths, see
            :func:`lmn_graph.rules.initial.orthogonal`.
        gain: scale of the drawn weights, > 0; at α = 0 the gates halve it, so 2 is the edge of stability there.
        channels: None for scalar cells, else C.
        leak: λ in (0, 1]; None learns one per node.
        residual: add f to the state instead of mixing the two.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid; in a step, if α is no longer finite.

    Source: Block, BlockConv and BlockSparse of the Lattice Machine Networks repository, where α was frozen by mistake.
    """

    alpha: Tensor

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        alpha: float = 1.0,
        learn_alpha: bool = True,
        gate: Gate = "norm",
        weight: float | Tensor | None = None,
        learn_weight: bool = True,
        init: Init = "fan_in",
        gain: float = 2.0,
        channels: int | None = None,
        leak: float | None = 1.0,
        residual: bool = False,
    ) -> None:
        super().__init__(
            topology, weight=weight, learn_weight=learn_weight, init=init, gain=gain, channels=channels, leak=leak, residual=residual
        )
        self.initial_alpha = _checks.number("alpha", alpha)
        self.gate: Gate = _checks.choice("gate", gate, ("norm", "channel"))
        value = torch.tensor(self.initial_alpha, dtype=torch.get_default_dtype())
        if not bool(value.isfinite()):
            raise ValueError(f"alpha must be finite in {value.dtype}, got {self.initial_alpha}")
        if _checks.flag("learn_alpha", learn_alpha):
            self.alpha = nn.Parameter(value)
        else:
            self.register_buffer("alpha", value)

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        with torch.no_grad():
            self.alpha.fill_(self.initial_alpha)

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> RelativisticParameters:
        connectivity = self.resolve(graph)
        return RelativisticParameters(connectivity, self.weight_on(connectivity), self.alpha, self.leak())

    def step(self, p: RelativisticParameters, state: CellState, drive: Tensor | None) -> tuple[CellState, Tensor]:
        x = state.x
        a = self.gated_sum(p.connectivity, x, p.weight, p.alpha, self.gate)
        return self.moved(x, torch.tanh(a if drive is None else a + drive), p.leak)

    def extra_repr(self) -> str:
        gate = "" if self.channels is None else f", gate={self.gate!r}"
        return f"alpha={self.alpha.item():g}{gate}, {self._dynamics_repr()}"
