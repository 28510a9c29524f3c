"""The dot product of a history's holographic contraction with the embeddings of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.readouts._embedded import Embedded
from lmn_graph.readouts._factors import AxisFactors, sides_read
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class HolographicEmbedding(Embedded):
    r"""Contracts the history with factors of every lattice axis and compares it with an embedding of every class,

    .. math:: h_{tr} = N^{-1/2} \sum_{n_1 \dots n_d} activity_{t, n_1 \dots n_d} \prod_a f^{(a)}_{n_a r}, \quad
              z = \mathrm{norm}\Big(\sum_t \omega_t h_t\Big) \in \mathbb{R}^R, \quad prediction_k = s \langle z, e_k \rangle + b_k,

    where ω_t is 1/T, or learned; s > 0 is learned. With C channels each has factors of its own and h sums over them. A graph without
    lattice shape, or one that is read at its output ports, gets learned node factors [N, R].

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, K]. The sum over time is taken first, so that the largest tensors that are
    made are [B, N(, C)] and the factors [N, R(·C)]; h is not made.

    Args:
        topology: the graph that was run.
        out_features: K, number of classes or of regression targets.
        steps: T.
        rank: R >= 2, features of an embedding.
        pool: "mean" over the steps, or "learned" for one weight ω per step, 1/T at the start.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature of z while training.
        table: fixed embeddings of the classes, [K, W], of which e is a learned linear map; None learns e itself.
        vectors: a file of them instead of ``table``, ``word v1 … vW`` a line as GloVe has them, or an .npy matrix; classes without a
            vector get a random one.
        vector_words: the words of a matrix, one a line; None where row k is that of class k.
        words: the classes as words, to look up ``vectors``. A machine built from a configuration gives them.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range, ``table`` is no finite floating-point tensor with a row per class, or a file
            holds no vectors of the classes.

    Source: the holographic embedding readout of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        rank: int = 64,
        pool: Literal["mean", "learned"] = "mean",
        skip: int = 0,
        dropout: float = 0.0,
        table: Tensor | None = None,
        vectors: str | None = None,
        vector_words: str | None = None,
        words: Sequence[str] | None = None,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        self.rank = _checks.integer("rank", rank, minimum=2)
        self.pool = _checks.choice("pool", pool, ("mean", "learned"))
        super().__init__(
            topology,
            out_features,
            steps,
            width=self.rank,
            skip=skip,
            dropout=dropout,
            table=table,
            vectors=vectors,
            vector_words=vector_words,
            words=words,
            channels=channels,
            ports=ports,
        )
        sides = sides_read(self, topology) or (self.num_read,)
        self.factors = AxisFactors(sides, self.rank * (self.channels or 1))
        self.weight = nn.Parameter(torch.empty(self.steps - self.skip)) if self.pool == "learned" else None
        self._draw()

    def reset_parameters(self) -> None:
        """Draw every parameter anew; weights of the steps are equal."""
        super().reset_parameters()
        self._draw()

    def _draw(self) -> None:
        self.factors.draw()
        if self.weight is not None:
            nn.init.constant_(self.weight, 1 / self.weight.numel())

    def node_factors(self) -> Tensor:
        """The product of the factors over the axes, scaled by N^-1/2, [P, R], or [P, C, R] with channels."""
        factors = self.factors.of_nodes()
        return factors if self.channels is None else factors.unflatten(1, (self.channels, self.rank))

    def embed(self, activity: Tensor) -> Tensor:
        pooled = activity.mean(1) if self.weight is None else torch.einsum("t,bt...->b...", self.weight, activity)
        return pooled.flatten(1) @ self.node_factors().flatten(0, -2)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, pool={self.pool!r}"
