"""What the readouts share that compare a sample's embedding with those of the classes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from lmn_graph._vectors import vectors_for
from lmn_graph.readouts.base import Readout
from topologies import _checks


class Embedded(Readout):
    r"""Embeds a sample and compares it with an embedding of every class,

    .. math:: z = \mathrm{norm}(\mathrm{embed}(x)) \in \mathbb{R}^D, \quad
              prediction_k = s\, \mathrm{similarity}(z, e_k) + b_k, \quad s = \log(1 + e^\sigma) > 0,

    where e_k is learned, or a learned map of row k of a given table.

    Args:
        topology: the graph that was run.
        out_features: K, number of classes or of regression targets.
        steps: T.
        width: D >= 2: one number alone has no direction.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature of z while training.
        table: fixed embeddings of the classes, [K, W], kept in the state; None learns them.
        vectors: a file of them instead, for ``lmn_graph._vectors.vectors_for``; classes without a vector get a random one of the same size.
        vector_words: the words of a matrix.
        words: the classes as words.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.
    """

    table: Tensor | None
    paths: ClassVar[tuple[str, ...]] = ("vectors", "vector_words")
    stored_vectors: ClassVar[str | None] = "table"

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int,
        skip: int,
        dropout: float,
        table: Tensor | None,
        vectors: str | Tensor | None,
        vector_words: str | None,
        words: Sequence[str] | None,
        channels: int | None,
        ports: bool,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        self.skip = _checks.integer("skip", skip, minimum=0, maximum=self.steps - 1)
        self.dropout = nn.Dropout(_checks.number("dropout", dropout, minimum=0.0, maximum=1.0))
        self.norm = nn.LayerNorm(_checks.integer("width", width, minimum=2))
        if vectors is not None:
            if table is not None:
                raise ValueError(f"vectors must be None with a table, got {str(vectors)!r}")
            table = vectors if isinstance(vectors, Tensor) else _read(vectors, vector_words, words, self.out_features)
        elif vector_words is not None:
            raise ValueError(f"vector_words must be None without vectors, got {str(vector_words)!r}")
        table = None if table is None else _checked(table, self.out_features)
        self.register_buffer("table", table)
        self.embedding = nn.Parameter(torch.empty(self.out_features if table is None else table.size(1), width))
        self.raw_scale = nn.Parameter(torch.empty(()))  # σ
        self.bias = nn.Parameter(torch.empty(self.out_features))
        self._draw_comparison()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        self._draw_comparison()

    def _draw_comparison(self) -> None:
        """Embeddings of about unit variance per feature, and predictions of about unit variance around zero."""
        std = 1.0 if self.table is None else 1 / float(self.table.square().sum(1).mean().sqrt())
        nn.init.normal_(self.embedding, std=std)
        scale, bias = self.start()
        nn.init.constant_(self.raw_scale, math.log(math.expm1(scale)))
        nn.init.constant_(self.bias, bias)

    @property
    def scale(self) -> Tensor:
        """s > 0."""
        return functional.softplus(self.raw_scale)

    def class_factors(self) -> Tensor:
        """e, the embeddings of the classes, [K, D]."""
        return self.embedding if self.table is None else self.table @ self.embedding

    @abstractmethod
    def node_factors(self) -> Tensor:
        """What a unit of activity of every node adds to the embedding before it is normalised, [P, D], or [P, C, D] with channels."""

    @abstractmethod
    def embed(self, activity: Tensor) -> Tensor:
        """The embedding [B, D], not normalised, for a checked history of the steps after ``skip`` and the nodes which are read."""

    def start(self) -> tuple[float, float]:
        """s and b at the start: z and e have about unit variance per feature, and so has s⟨z, e⟩."""
        return 1 / math.sqrt(self.embedding.size(1)), 0.0

    def similarity(self, z: Tensor, e: Tensor) -> Tensor:
        """[B, D], [K, D] → [B, K]."""
        return z @ e.t()

    def read(self, activity: Tensor) -> Tensor:
        z = self.dropout(self.norm(self.embed(activity[:, self.skip :])))
        return self.scale * self.similarity(z, self.class_factors()) + self.bias


def _read(vectors: str, vector_words: str | None, words: Sequence[str] | None, classes: int) -> Tensor:
    """A table of embeddings from a file; rows that it does not have are drawn, as long as those that it has."""
    if words is None:
        if vector_words is not None or not str(vectors).endswith(".npy"):
            raise ValueError(f"vectors of words need classes that are words, got {str(vectors)!r} for outputs 0 … {classes - 1}")
        words = [str(number) for number in range(classes)]
    elif len(words) != classes or len(set(words)) != classes:
        raise ValueError(f"words must be {classes} different words, one per class, got {len(words)}, of which {len(set(words))} differ")
    table, known = vectors_for(words, vectors, words=vector_words)
    table[~known] = torch.randn(int((~known).sum()), table.size(1)) * table[known].square().mean().sqrt()
    return table


def _checked(table: Tensor, classes: int) -> Tensor:
    """A copy of a table of embeddings in the default floating-point type."""
    fits = isinstance(table, Tensor) and table.is_floating_point() and table.dim() == 2 and table.size(0) == classes and table.size(1) > 0
    if not fits:
        got = f"{table.dtype} {tuple(table.shape)}" if isinstance(table, Tensor) else type(table).__name__
        raise ValueError(f"table must be a floating-point tensor [{classes}, W], W >= 1, got {got}")
    if not bool(table.isfinite().all()) or not bool(table.any()):
        raise ValueError(f"table must be finite and not all zero, got values from {float(table.min()):g} to {float(table.max()):g}")
    return table.detach().to(torch.get_default_dtype(), copy=True)
