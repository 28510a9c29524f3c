"""Parallel channels of relativistic cells that look at each other through attention."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.rules._gate import RelativisticGate
from lmn_graph.rules._token_attention import TokenAttention
from lmn_graph.rules.base import RULES
from lmn_graph.rules.continuous import CellState, ContinuousRule, Init
from lmn_graph.rules.initial import INITS, draw
from topologies import _checks

Activation = Literal["tanh", "logistic"]
_ACTIVATIONS = {"tanh": torch.tanh, "logistic": torch.sigmoid}


class ChannelParameters(NamedTuple):
    """What a step needs: the graph, the weights [E, 1, C], the steepness [C], the leak."""

    connectivity: Connectivity
    weight: Tensor
    alpha: Tensor
    leak: Tensor


@RULES.register
class LogisticChannels(RelativisticGate, ContinuousRule):
    r"""C channels, each a relativistic automaton of scalar cells with weights and a steepness of its own, and then attention across them,

    .. math:: h^c_i &= \phi\big(\textstyle\sum_j \sigma(\alpha^c(|x^c_i| - |x^c_j|))\, w^c_{ij}\, x^c_j + drive^c_i\big) \\
              f^c &= h^c + \textstyle\sum_{c'} A_{cc'}(h)\, V h^{c'}, \qquad x \leftarrow f

    with φ the logistic function or tanh. The tokens of the self-attention are the channels, their features the N nodes, through maps of
    low rank; the outward map starts at 0, so f starts as h. On ``topologies.complete(n)`` a channel is one vector of n features in which
    everything hears everything, which is the system of the source; any other graph works as well.

    Shapes: drive and activity [N, B, C]; state ``CellState(x)``, starting at 0.

    Args:
        topology: the graph.
        channels: C ≥ 1.
        activation: φ, "logistic" or "tanh".
        attention: whether channels attend to each other.
        width: features of queries, keys and values; None for the smaller of N and 32.
        heads: heads of the attention; must divide ``width``.
        alpha: initial steepness of every channel, a finite number.
        learn_alpha: whether the steepness is learned.
        learn_weight: whether the edge weights [E, C] are learned.
        init: "fan_in" or "orthogonal" for the weights of each channel, where the graph has no ``edge_weight``.
        gain: scale of the drawn weights, > 0.
        leak: λ in (0, 1], :math:`x \leftarrow (1 - \lambda) x + \lambda f`; None learns one per node.
        residual: :math:`x \leftarrow x + \lambda f`.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid; in a step, if a steepness is no longer finite.

    Source: MultiChannelRelativisticLayer and MultiChannelPCNet of the Lattice Machine Networks repository.
    """

    alpha: Tensor
    weight: Tensor

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        channels: int = 4,
        activation: Activation = "logistic",
        attention: bool = True,
        width: int | None = None,
        heads: int = 1,
        alpha: float = 1.0,
        learn_alpha: bool = True,
        learn_weight: bool = True,
        init: Init = "fan_in",
        gain: float = 2.0,
        leak: float | None = 1.0,
        residual: bool = False,
    ) -> None:
        super().__init__(topology, channels=_checks.integer("channels", channels, minimum=1), leak=leak, residual=residual)
        self.activation = _checks.choice("activation", activation, _ACTIVATIONS)
        self.attention = TokenAttention(self.num_nodes, width=width, heads=heads) if _checks.flag("attention", attention) else None
        self.initial_alpha = _checks.number("alpha", alpha)
        self._draw = partial(draw, _checks.choice("init", init, INITS), self.connectivity, _checks.number("gain", gain, above=0))
        steepness = torch.full((channels,), self.initial_alpha)
        if not bool(steepness.isfinite().all()):
            raise ValueError(f"alpha must be finite in {steepness.dtype}, got {self.initial_alpha}")
        drawn = self._weights()
        if _checks.flag("learn_alpha", learn_alpha):
            self.alpha = nn.Parameter(steepness)
        else:
            self.register_buffer("alpha", steepness)
        if _checks.flag("learn_weight", learn_weight):
            self.weight = nn.Parameter(drawn)
        else:
            self.register_buffer("weight", drawn)

    def _weights(self) -> Tensor:
        """[E, C]: the graph's own for every channel, or drawn anew for each."""
        assert self.channels is not None
        given = self.connectivity.edge_weight
        if given is not None:
            return given.to(torch.get_default_dtype())[:, None].repeat(1, self.channels)
        return torch.stack([self._draw() for _ in range(self.channels)], dim=1)

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        if self.attention is not None:
            self.attention.reset_parameters()
        with torch.no_grad():
            self.alpha.fill_(self.initial_alpha)
            if isinstance(self.weight, nn.Parameter):
                self.weight.copy_(self._weights())

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> ChannelParameters:
        return ChannelParameters(self.resolve(graph), self.weight.unsqueeze(1), self.alpha, self.leak())

    def step(self, p: ChannelParameters, state: CellState, drive: Tensor | None) -> tuple[CellState, Tensor]:
        x = state.x
        a = self.gated_sum(p.connectivity, x, p.weight, p.alpha, "channel")
        f = _ACTIVATIONS[self.activation](a if drive is None else a + drive)
        if self.attention is not None:
            f = f + self.attention(f.permute(1, 2, 0)).permute(2, 0, 1)
        return self.moved(x, f, p.leak)

    def extra_repr(self) -> str:
        attention = "" if self.attention is None else f"attention=({self.attention.extra_repr()}), "
        return f"activation={self.activation!r}, {attention}{self._dynamics_repr()}"
