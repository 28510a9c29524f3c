"""Learned queries attend to the cells."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.attention import Identity, SpatialAttention
from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class Attention(Attending):
    r"""Learned queries attend to the cells,

    .. math:: token_m = \sum_n \mathrm{softmax}_n(q_m \cdot key_n / \sqrt{d})\, value_n,
              \quad prediction = W\, \mathrm{norm}(token) + W' \bar x + b,

    where a cell's key and value are affine in its activity, averaged over time, and know which cell it is
    (:class:`lmn_graph.attention.CellMemory`).

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        width: features of a token.
        heads: attention heads; must divide ``width``.
        queries: number of tokens.
        identity: "cell" for one learned identity per cell, "axes" for one learned row per axis value of a lattice.
        pool: "mean" attends to the activity's mean over time, "last" to the last step.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training.
        direct: also add a linear map W' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: the attention readout of the emitter and listener network of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        queries: int = 4,
        identity: Identity = "cell",
        pool: Literal["mean", "last"] = "mean",
        skip: int = 0,
        dropout: float = 0.0,
        direct: bool = True,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        features = _checks.integer("queries", queries, minimum=1) * _checks.integer("width", width, minimum=1)
        super().__init__(
            topology, out_features, steps, features=features, skip=skip, dropout=dropout, direct=direct, channels=channels, ports=ports
        )
        self.pool = _checks.choice("pool", pool, ("mean", "last"))
        self.spatial = SpatialAttention(
            topology, width, queries=queries, heads=heads, channels=channels, identity=identity, index=self.output_index
        )
        self.norm = nn.LayerNorm(width)

    def shares(self, activity: Tensor) -> Tensor:
        """[B, queries, heads, P]; the sum over the P cells that are read is 1."""
        return self.spatial.shares(self._pooled(activity)).squeeze(1)

    def features(self, activity: Tensor) -> Tensor:
        return self.norm(self.spatial(self._pooled(activity))).flatten(1)

    def _pooled(self, activity: Tensor) -> Tensor:
        return activity.mean(1, keepdim=True) if self.pool == "mean" else activity[:, -1:]
