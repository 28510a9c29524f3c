"""Learned queries in one sequence with the patches of a picture."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.projectors._heads import GroupedFactors
from lmn_graph.projectors._patch_tokens import patch_encoder
from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class ConcatenatedQuery(Projector):
    r"""M learned queries are concatenated with the patches, a transformer runs over both, and every query drives a group of nodes:

    .. math:: [z; \cdot] = \mathrm{Transformer}([q; E\,patches + position]), \quad drive_n = \langle factor_n, z_{g(n)} \rangle + b_n .

    Nodes are grouped in their order, :math:`g(n) = \lfloor nM/N \rfloor`: on a lattice a query drives a slab.

    Args:
        in_shape: (height, width), grey; (C, height, width); or (rows, columns, C, p, p), pictures that are cut already.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        queries: M >= 1; as many as there are driven nodes if these are fewer.
        patch: side of a patch in pixels; a last one that is not full is filled up with zeros. None: 8, or that of pictures that are cut
            already, of which it must not be another.
        stem: 3 × 3 convolutions before the picture is cut, each halving it; ``patch`` must be a multiple of 2 to that power.
        width: features of a token.
        layers: transformer layers, >= 1.
        heads: attention heads; must divide ``width``.
        dropout: inside the transformer.

    Raises:
        ValueError: if ``in_shape`` is not that of pictures or an argument is out of range.

    Source: A. Dosovitskiy et al., "An image is worth 16 × 16 words", 2021, with several class tokens; the concatenated-query projector of
    the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        queries: int = 8,
        patch: int | None = None,
        stem: int = 0,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.queries = min(_checks.integer("queries", queries, minimum=1), self.num_driven)
        layers = _checks.integer("layers", layers, minimum=1)
        self.encoder = patch_encoder(
            self.in_shape, self.queries, patch=patch, default=8, stem=stem, width=width, layers=layers, heads=heads, dropout=dropout
        )
        self.nodes = GroupedFactors(self.queries, width, self.num_driven, self.channels)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.encoder.reset_parameters()
        self.nodes.reset_parameters()

    def project(self, x: Tensor) -> Tensor:
        return self.nodes(self.encoder(x)[:, : self.queries])
