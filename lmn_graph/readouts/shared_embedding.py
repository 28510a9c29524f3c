"""Scores of tokens by the table that embeds them at the input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._vectors import TokenTable
from lmn_graph.readouts.base import READOUTS, Readout
from topologies import _checks


@READOUTS.register
class SharedEmbedding(Readout):
    r"""prediction_k = ⟨z, E_k⟩ / √D + b_k with z = norm(A h), h the mean activity and E [K, D] the table of the projector.

    N·D + K weights instead of N·K; D is the width of the table.

    Args:
        topology: the graph that was run.
        out_features: K, the size of the vocabulary.
        steps: T.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.
        embedding: the table, as the projector ``SharedEmbedding`` has it; a machine built from a configuration gives it. None for one of
            its own.
        width: D of a table of its own; None for 64.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a node while training.

    Raises:
        ValueError: if an argument is out of range, or the table is for another vocabulary.

    Source: O. Press, L. Wolf, "Using the output embedding to improve language models", 2017.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        channels: int | None = None,
        ports: bool = True,
        embedding: TokenTable | None = None,
        width: int | None = None,
        skip: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        self.skip = _checks.integer("skip", skip, minimum=0, maximum=self.steps - 1)
        self.dropout = nn.Dropout(_checks.number("dropout", dropout, minimum=0.0, maximum=1.0))
        if embedding is not None and embedding.vocabulary != self.out_features:
            raise ValueError(f"embedding must be for {self.out_features} tokens, got one for {embedding.vocabulary}")
        if embedding is not None and width not in (None, embedding.width):
            raise ValueError(f"width must be that of the shared table, {embedding.width}, or None, got {width}")
        self.table = TokenTable(max(2, self.out_features), width) if embedding is None else embedding
        self.inner = nn.Linear(self.num_read * (self.channels or 1), self.table.width)
        self.norm = nn.LayerNorm(self.table.width)
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    def reset_parameters(self) -> None:
        """Draw every parameter anew, those of the table too."""
        super().reset_parameters()
        nn.init.zeros_(self.bias)

    def read(self, activity: Tensor) -> Tensor:
        z = self.norm(self.inner(self.dropout(activity[:, self.skip :].mean(1).flatten(1))))
        return nn.functional.linear(z / math.sqrt(self.table.width), self.table.weight[: self.out_features], self.bias)
