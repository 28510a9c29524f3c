"""Regions of the mean activity attend to each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from lmn_graph.attention import TemporalAttention
from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts._factors import sides_read
from lmn_graph.readouts._regions import Groups, Windows, halved
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class MultiHeadAttention(Attending):
    r"""Regions of the mean activity become tokens, which attend to each other,

    .. math:: u_g = \mathrm{norm}(W \bar x_{region(g)} + w) + p_g, \quad
              prediction = V\, \mathrm{norm}(\mathrm{mean}_g\, \mathrm{Transformer}(u)_g) + V' \bar x + v,

    with learned positions p. The regions tile a lattice with equal boxes (cells after the last of an axis count as zero) that one map W
    reads. A graph without lattice shape, or one that is read at its output ports, has groups of all nodes in place of the boxes, with
    learned node factors [N, G·D].

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, out_features]. The largest tensors that are made are the mean [B, N(, C)],
    the attention of a layer [B, heads, G, G] and its hidden features [B, G, 2D]; with C channels those of the groups are [B, C, G, D].

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        width: D >= 2, features of a token.
        heads: attention heads; must divide ``width``.
        tokens: the largest number of regions G. Boxes have their longest side halved for as long as there are no more of them than that;
            groups are no more than the nodes that are read.
        layers: transformer layers >= 1.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training; also inside the transformer.
        direct: also add a linear map V' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: the multi-head attention readout of the Lattice Machine Networks repository; regions as tokens as in Dosovitskiy et al., "An
    image is worth 16x16 words", 2021.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        tokens: int = 16,
        layers: int = 1,
        skip: int = 0,
        dropout: float = 0.0,
        direct: bool = True,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        width = _checks.integer("width", width, minimum=2)
        super().__init__(
            topology, out_features, steps, features=width, skip=skip, dropout=dropout, direct=direct, channels=channels, ports=ports
        )
        tokens = _checks.integer("tokens", tokens, minimum=1)
        layers = _checks.integer("layers", layers, minimum=1)
        sides = sides_read(self, topology)
        self.regions: Windows | Groups
        if sides is None:
            self.regions = Groups(self.num_read, min(tokens, self.num_read), width, channels=self.channels)
        else:
            window = halved(sides, tokens)
            self.regions = Windows(sides, window, window, width, channels=self.channels)
        self.norm = nn.LayerNorm(width)
        self.transformer = TemporalAttention(width, self.regions.count, layers=layers, heads=heads, dropout=dropout)
        self.last_norm = nn.LayerNorm(width)

    def shares(self, activity: Tensor) -> Tensor:
        """The attention of the last layer, [B, heads, G, G]; the sum over the last axis, the regions that are attended to, is 1."""
        series = self._tokens(activity) + self.transformer.position
        *layers, last = self.transformer.layers
        for layer in layers:
            series = layer(series)
        assert isinstance(last, nn.TransformerEncoderLayer)
        maps = last.self_attn
        mapped = functional.linear(last.norm1(series), maps.in_proj_weight, maps.in_proj_bias)
        query, key, _ = mapped.unflatten(-1, (3, self.transformer.heads, -1)).permute(2, 0, 3, 1, 4)
        return torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.size(-1)), dim=-1)

    def features(self, activity: Tensor) -> Tensor:
        return self.last_norm(self.transformer(self._tokens(activity)).mean(1))

    def _tokens(self, activity: Tensor) -> Tensor:
        return self.norm(self.regions(activity.mean(1)))
