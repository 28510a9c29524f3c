"""The dot product of a sample's embedding with those of the classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import normalize
from torch_geometric.data import Data

from lmn_graph.readouts._embedded import Embedded
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class EmbeddingDot(Embedded):
    r"""Compares an embedding of the mean activity with one of every class,

    .. math:: z = \mathrm{norm}(W \bar x + w) \in \mathbb{R}^D, \quad prediction_k = s \langle z, e_k \rangle + b_k,

    or, with ``cosine``, :math:`s \langle z, e_k \rangle / (\|z\| \|e_k\|) + b_k`; s > 0 is learned.

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, K]. The largest tensor that is made is the mean activity, [B, N(, C)].

    Args:
        topology: the graph that was run.
        out_features: K, number of classes or of regression targets.
        steps: T.
        width: D >= 2, features of an embedding.
        cosine: compare directions only; 1/s is then the temperature.
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

    Source: the embedding dot product readout of the Lattice Machine Networks repository; frozen word embeddings of classes as in A. Frome
    et al., "DeViSE", 2013.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 64,
        cosine: bool = False,
        skip: int = 0,
        dropout: float = 0.0,
        table: Tensor | None = None,
        vectors: str | None = None,
        vector_words: str | None = None,
        words: Sequence[str] | None = None,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        self.cosine = _checks.flag("cosine", cosine)
        super().__init__(
            topology,
            out_features,
            steps,
            width=width,
            skip=skip,
            dropout=dropout,
            table=table,
            vectors=vectors,
            vector_words=vector_words,
            words=words,
            channels=channels,
            ports=ports,
        )
        self.map = nn.Linear(self.num_read * (self.channels or 1), width)

    def node_factors(self) -> Tensor:
        """W as what a unit of activity of every node adds to the embedding before it is normalised, [P, D], or [P, C, D] with channels."""
        factors = self.map.weight.t()
        return factors if self.channels is None else factors.unflatten(0, (self.num_read, self.channels))

    def embed(self, activity: Tensor) -> Tensor:
        return self.map(activity.mean(1).flatten(1))

    def start(self) -> tuple[float, float]:
        scale, bias = super().start()
        return (1 / scale if self.cosine else scale), bias  # the cosine of two random directions has variance 1/D

    def similarity(self, z: Tensor, e: Tensor) -> Tensor:
        return super().similarity(normalize(z, dim=-1), normalize(e, dim=-1)) if self.cosine else super().similarity(z, e)
