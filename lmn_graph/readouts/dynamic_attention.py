"""Queries that are made from the sample attend to cells and steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.attention import CellMemory, Identity
from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class DynamicAttention(Attending):
    r"""Queries made from the sample attend to cells and steps,

    .. math:: q = Q\, \mathrm{silu}(\mathrm{norm}(L \bar x)) + q_0, \quad
              token_m = \sum_{tn} \mathrm{softmax}_{tn}(q_m \cdot (key_{tn} + p_t) / \sqrt{d})\, value_{tn},
              \quad prediction = W\, \mathrm{norm}(token) + W' \bar x + b,

    with the mean activity x̄, a low-rank map L, learned positions p of the steps, and keys and values that are affine in the activity
    and know which cell it is (:class:`lmn_graph.attention.CellMemory`).

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        width: features of a token.
        heads: attention heads; must divide ``width``.
        queries: number of tokens.
        rank: features of the summary that the queries are made from.
        identity: "cell" for one learned identity per cell, "axes" for one learned row per axis value of a lattice.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training.
        direct: also add a linear map W' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: the dynamic multi-head attention readout of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        queries: int = 1,
        rank: int = 16,
        identity: Identity = "cell",
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
        self.memory = CellMemory(topology, width, heads=heads, channels=channels, identity=identity, index=self.output_index)
        self.summary = nn.Linear(self.num_read * (self.channels or 1), _checks.integer("rank", rank, minimum=1))
        self.summary_norm = nn.LayerNorm(rank)
        self.query = nn.Linear(rank, features)
        self.position = nn.Parameter(torch.empty(self.steps - self.skip, width))
        self.norm = nn.LayerNorm(width)
        self._draw()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        self._draw()

    def _draw(self) -> None:
        """Queries start with a part that all samples share and a part of their own, both of about unit variance."""
        nn.init.normal_(self.query.weight, std=1.7 / math.sqrt(self.query.in_features))  # silu(standard normal) has mean square 0.36
        nn.init.normal_(self.query.bias)
        nn.init.normal_(self.position, std=0.02)

    def shares(self, activity: Tensor) -> Tensor:
        """[B, T - skip, queries, heads, P]; the sum over the steps and the P cells that are read is 1."""
        summary = self.summary_norm(self.summary(activity.mean(1).flatten(1)))
        query = self.query(nn.functional.silu(summary)).unflatten(1, (-1, self.memory.width))
        of_step = torch.einsum("bmhd,thd->btmh", *(part.unflatten(-1, (self.memory.heads, -1)) for part in (query, self.position)))
        scores = self.memory.scores(query, activity) + of_step.unsqueeze(-1) / math.sqrt(self.memory.width // self.memory.heads)
        together = scores.permute(0, 2, 3, 1, 4)
        return torch.softmax(together.flatten(3), dim=-1).view_as(together).permute(0, 3, 1, 2, 4)

    def features(self, activity: Tensor) -> Tensor:
        return self.norm(self.memory.read(self.shares(activity), activity).sum(1)).flatten(1)
