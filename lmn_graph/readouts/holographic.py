"""Factor matrices contract every lattice axis; a transformer reads the resulting series."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.attention import split_heads
from lmn_graph.readouts._factors import AxisFactors, sides_read
from lmn_graph.readouts.base import READOUTS, Readout
from topologies import _checks


@READOUTS.register
class Holographic(Readout):
    r"""Contracts the history to a short series and reads it with a transformer over time,

    .. math:: h_{tr} = \sum_{n_1 \dots n_d} activity_{t, n_1 \dots n_d} \prod_a f^{(a)}_{n_a r},
              \quad prediction = W\, \mathrm{mean}_t\, \mathrm{Transformer}(h + position) + b.

    With C channels each has factors of its own and h has C·R features. A graph without lattice shape, or one that is read
    at its output ports, gets learned node factors [N, R].

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        rank: R >= 1, the number of features per step.
        layers: transformer layers >= 0; 0 leaves the normalised mean over time.
        heads: attention heads; must divide R (times C).
        dropout: dropout inside the transformer.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Source: the holographic readout of the Lattice Machine Networks repository; Vaswani et al. 2017 for the transformer.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        rank: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        self.rank = _checks.integer("rank", rank, minimum=1)
        width, heads = split_heads("the number of features per step", self.rank * (self.channels or 1), heads)
        dropout = _checks.number("dropout", dropout, minimum=0.0, maximum=1.0)
        sides = sides_read(self, topology) or (self.num_read,)
        self.factors = AxisFactors(sides, width)
        self.norm = nn.LayerNorm(width)
        self.position = nn.Parameter(torch.empty(self.steps, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
            for _ in range(_checks.integer("layers", layers, minimum=0))
        )
        self.linear = nn.Linear(width, self.out_features)
        self._draw()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        self._draw()

    def _draw(self) -> None:
        """Draw factors whose product over the axes has unit variance per node, and small positions."""
        self.factors.draw()
        nn.init.normal_(self.position, std=0.02)

    def node_factors(self) -> Tensor:
        """The product of the factors over the axes, [N, R·C], scaled by N^-1/2."""
        return self.factors.of_nodes()

    def read(self, activity: Tensor) -> Tensor:
        factors = self.node_factors()
        if self.channels is None:
            series = activity @ factors
        else:
            series = torch.einsum("btnc,ncr->btcr", activity, factors.unflatten(1, (self.channels, self.rank))).flatten(2)
        series = self.norm(series) + self.position
        for layer in self.layers:
            series = layer(series)
        return self.linear(series.mean(1))

    def extra_repr(self) -> str:
        return f"rank={self.rank}"
