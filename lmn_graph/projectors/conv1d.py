"""A convolutional network along time before the drive."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._reset import reset_parts
from lmn_graph.projectors._heads import Head, make_head
from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class Conv1d(Projector):
    r"""drive = head(norm(h_L)), :math:`h_{l+1} = \mathrm{GELU}(W_l * h_l + b_l)`, each convolution along time, every other step of it.

    x is [B, T, F] with T steps of F features, or [B, T] with one.

    Args:
        in_shape: (T, F) or (T,); another shape is taken as (F₁, F₂ ⋯).
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        width: features of every layer.
        layers: L >= 1.
        kernel: steps that a convolution sees, odd.
        head: "linear"; "low-rank" or "cp", canonical polyadic factors per lattice axis, of rank ``rank``.
        rank: R >= 1.

    Raises:
        ValueError: if an argument is out of range.

    Source: the 1-D CNN encoder of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        width: int = 32,
        layers: int = 2,
        kernel: int = 5,
        head: Head = "linear",
        rank: int = 32,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        _checks.integer("width", width, minimum=1)
        _checks.integer("layers", layers, minimum=1)
        if _checks.integer("kernel", kernel, minimum=1) % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        time = self.in_shape[0]
        features = self.in_features // time
        parts: list[nn.Module] = []
        for layer in range(layers):
            parts += [nn.Conv1d(width if layer else features, width, kernel, stride=2, padding=kernel // 2), nn.GELU()]
            time = (time + 1) // 2
        self.encoder = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(width * time)
        self.head = make_head(head, width * time, topology, rank=rank, channels=channels, ports=ports)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        reset_parts(self)

    def project(self, x: Tensor) -> Tensor:
        steps = x.reshape(len(x), self.in_shape[0], self.in_features // self.in_shape[0])
        return self.head.project(self.norm(self.encoder(steps.transpose(1, 2)).flatten(1)))
