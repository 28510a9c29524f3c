"""Attention over the cells of every step, then over the steps."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.attention import Identity, SpatialAttention, TemporalAttention
from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class SpatioTemporal(Attending):
    r"""Learned queries attend to the cells of every step, then the steps attend to each other,

    .. math:: h_t = M\, \mathrm{norm}(\mathrm{SpatialAttention}(x_t)), \quad
              prediction = W\, \mathrm{norm}(\mathrm{mean}_t\, \mathrm{TemporalAttention}(h)_t) + W' \bar x + b,

    with :class:`lmn_graph.attention.SpatialAttention` and :class:`lmn_graph.attention.TemporalAttention`.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        width: features of a token and of a step.
        heads: attention heads of both; must divide ``width``.
        queries: number of tokens per step.
        layers: transformer layers over time >= 0.
        identity: "cell" for one learned identity per cell, "axes" for one learned row per axis value of a lattice.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training; also inside the transformer.
        direct: also add a linear map W' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: spatial, then temporal attention of the implicit network of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        queries: int = 2,
        layers: int = 1,
        identity: Identity = "cell",
        skip: int = 0,
        dropout: float = 0.0,
        direct: bool = True,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        width = _checks.integer("width", width, minimum=1)
        super().__init__(
            topology, out_features, steps, features=width, skip=skip, dropout=dropout, direct=direct, channels=channels, ports=ports
        )
        self.spatial = SpatialAttention(
            topology, width, queries=queries, heads=heads, channels=channels, identity=identity, index=self.output_index
        )
        self.norm = nn.LayerNorm(width)
        self.merge = nn.Linear(self.spatial.query.numel(), width)
        self.temporal = TemporalAttention(width, self.steps - self.skip, layers=layers, heads=heads, dropout=dropout)
        self.last_norm = nn.LayerNorm(width)

    def shares(self, activity: Tensor) -> Tensor:
        """[B, T - skip, queries, heads, P]; the sum over the P cells that are read is 1."""
        return self.spatial.shares(activity)

    def features(self, activity: Tensor) -> Tensor:
        tokens = self.norm(self.spatial(activity)).flatten(2)
        return self.last_norm(self.temporal(self.merge(tokens)).mean(1))
