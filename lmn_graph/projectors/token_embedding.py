"""Tokens as rows of a table: learned, from a file of vectors, or fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._vectors import TokenTable
from lmn_graph.ops._kernels import is_watched
from lmn_graph.projectors._heads import Head, make_head
from lmn_graph.projectors.base import PROJECTORS, Projector


@PROJECTORS.register
class TokenEmbedding(Projector):
    r"""drive = head(E_{x_1}, …, E_{x_L}): a row of E [V, D] for every one of L tokens, one after the other into a head.

    x [B, *in_shape] are integers in 0 … V − 1; whole floating-point numbers are taken as such.

    Args:
        in_shape: shape of L tokens, such as (L,); a stream of tokens has L = 1.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        vocabulary: V >= 2. A machine built from a configuration gives the number of classes.
        words: the tokens as words, to look up ``vectors``. A machine built from a configuration gives its classes.
        width: D; None for that of ``vectors``, or 64.
        vectors: a file of vectors, ``word v1 … vD`` a line as GloVe has them, or an .npy matrix [W, D]; a tensor [V, D]; None draws E.
        vector_words: the words of a matrix, one a line, such as BERT's ``vocab.txt``; None where its rows are those of the tokens.
        frozen: E is not learned: given vectors stay, and what there is no vector for stays as it was drawn. In a machine built from a
            configuration, a readout with a ``table`` of class embeddings, such as ``HolographicMetric``, is given it too.
        head: "linear"; "low-rank" or "cp", canonical polyadic factors per lattice axis, of rank ``rank``.
        rank: R >= 1.
        dropout: probability of leaving out a feature of an embedding while training.

    Raises:
        ValueError: if an argument is out of range, a file does not fit, or x holds what is no token.

    Source: the token projectors of the Lattice Machine Networks repository; J. Pennington, R. Socher, C. Manning, "GloVe", 2014.
    """

    paths: ClassVar[tuple[str, ...]] = ("vectors", "vector_words")
    stored_vectors: ClassVar[str | None] = "table.weight"
    takes_tokens: ClassVar[bool] = True

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        vocabulary: int = 256,
        words: Sequence[str] | None = None,
        width: int | None = None,
        vectors: str | None = None,
        vector_words: str | None = None,
        frozen: bool = False,
        head: Head = "linear",
        rank: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.table = TokenTable(vocabulary, width, words=words, vectors=vectors, vector_words=vector_words, frozen=frozen)
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(head, self.in_features * self.table.width, topology, rank=rank, channels=channels, ports=ports)

    @property
    def fixed(self) -> Tensor | None:
        """E where it is not learned, for readouts that compare with embeddings of the classes; else None."""
        return self.table.weight if self.table.frozen else None

    def reset_parameters(self) -> None:
        """Draw every parameter anew; given vectors are what they were."""
        self.table.reset_parameters()
        self.head.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return self._headed(self.head, self.tokens(x))

    def project(self, x: Tensor) -> Tensor:
        return self._headed(self.head.project, self.tokens(x))

    def _headed(self, head: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """The head on the embeddings of ``tokens`` [B, L]; where one token is all there is, on each that occurs once."""
        if self.in_features == 1 and not (self.training and self.dropout.p) and not is_watched(self.table.weight):
            found, place = tokens.flatten().unique(return_inverse=True)
            if 2 * len(found) <= len(tokens):
                return head(nn.functional.embedding(found, self.table.weight)).index_select(0, place)
        return head(self.dropout(nn.functional.embedding(tokens, self.table.weight)).flatten(1))

    def tokens(self, x: Tensor) -> Tensor:
        """x as int64, checked."""
        if x.dtype == torch.bool or x.is_complex() or (x.is_floating_point() and not bool((x == x.round()).all())):
            found = x[x != x.round()][0].item() if x.is_floating_point() else x.dtype
            raise ValueError(f"x must hold tokens, whole numbers in 0 … {self.table.vocabulary - 1}, got {found}")
        # On a GPU the check would wait for the device, and the device checks by itself.
        if x.device.type == "cpu" and x.numel() and not 0 <= int(x.min()) <= int(x.max()) < self.table.vocabulary:
            raise ValueError(f"x must hold tokens in 0 … {self.table.vocabulary - 1}, got {int(x.min())} … {int(x.max())}")
        return x.long()


@PROJECTORS.register
class SharedEmbedding(TokenEmbedding):
    """A ``TokenEmbedding`` whose table is also that of the readout ``SharedEmbedding`` of the same machine: one table, in and out.

    Args:
        in_shape, topology, channels, ports, vocabulary, words, width, vectors, vector_words, frozen, head, rank, dropout: as there.

    Source: O. Press, L. Wolf, "Using the output embedding to improve language models", 2017; the shared embedding of the Lattice Machine
    Networks repository.
    """

    @property
    def embedding(self) -> TokenTable:
        """The table, for the readout."""
        return self.table
