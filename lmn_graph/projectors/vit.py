"""Patches of a picture, gathered by a transformer in one token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.projectors._heads import Head, make_head
from lmn_graph.projectors._patch_tokens import patch_encoder
from lmn_graph.projectors.base import PROJECTORS, Projector


@PROJECTORS.register
class ViT(Projector):
    r"""drive = head(z), z the CLS token after a transformer over it and the patches of the picture.

    Args:
        in_shape: (height, width), grey; (C, height, width); or (rows, columns, C, p, p), pictures that are cut already.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        patch: side of a patch in pixels; a last one that is not full is filled up with zeros. None: 7, or that of pictures that are cut
            already, of which it must not be another.
        stem: 3 × 3 convolutions before the picture is cut, each halving it; ``patch`` must be a multiple of 2 to that power.
        width: features of a token.
        layers: transformer layers, >= 0.
        heads: attention heads; must divide ``width``.
        dropout: inside the transformer.
        head: from z to the drive: "cp", canonical polyadic factors per lattice axis as in :class:`CPTensor` (learned node factors where
            there is no lattice), "low-rank" as in :class:`LowRank`, or "linear".
        rank: R of "cp" and "low-rank".

    Raises:
        ValueError: if ``in_shape`` is not that of pictures or an argument is out of range.

    Source: A. Dosovitskiy et al., "An image is worth 16 × 16 words", 2021; the patch aggregator of the Lattice Machine Networks repository;
    for the stem, T. Xiao et al., "Early convolutions help transformers see better", 2021.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        patch: int | None = None,
        stem: int = 0,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        head: Head = "cp",
        rank: int = 16,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        shape, sizes = self.in_shape, {"width": width, "layers": layers, "heads": heads}
        self.encoder = patch_encoder(shape, 1, patch=patch, default=7, stem=stem, dropout=dropout, **sizes)
        self.head = make_head(head, width, topology, rank=rank, channels=channels, ports=ports)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.encoder.reset_parameters()
        self.head.reset_parameters()  # type: ignore[operator]

    def project(self, x: Tensor) -> Tensor:
        return self.head.project(self.encoder(x)[:, 0])
