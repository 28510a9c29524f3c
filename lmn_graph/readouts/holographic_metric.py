"""The distance of a history's holographic contraction to the embeddings of the classes."""

from __future__ import annotations

import math

from torch import Tensor

from lmn_graph.readouts.base import READOUTS
from lmn_graph.readouts.holographic_embedding import HolographicEmbedding


@READOUTS.register
class HolographicMetric(HolographicEmbedding):
    r"""The nearer the embedding of a class, the larger its prediction,

    .. math:: prediction_k = -s\, \|z - e_k\|^2 + b_k,

    with the contraction z of the history that :class:`HolographicEmbedding` makes; s > 0 is learned, and b starts where predictions have
    mean zero.

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, K]. The distances come from products of z and e, both relative to the mean
    of e, so no tensor [B, K, R] is made and an offset that all embeddings share costs no digits; the largest tensors are [B, N(, C)] and
    the factors [N, R(·C)].

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

    Source: the holographic metric readout of the Lattice Machine Networks repository; distances to one embedding per class as in J. Snell
    et al., "Prototypical networks for few-shot learning", 2017.
    """

    def start(self) -> tuple[float, float]:
        """Of R features of unit variance in z and in e, the squared distance has mean 2R and variance 6R."""
        scale = 1 / math.sqrt(6 * self.rank)
        return scale, 2 * self.rank * scale

    def similarity(self, z: Tensor, e: Tensor) -> Tensor:
        centre = e.mean(0)
        z, e = z - centre, e - centre
        return 2 * (z @ e.t()) - z.square().sum(1, keepdim=True) - e.square().sum(1)
