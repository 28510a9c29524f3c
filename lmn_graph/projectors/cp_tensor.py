"""A low-rank drive: canonical polyadic factors, one per lattice axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import lattice_shape
from lmn_graph.ops._kernels import contiguous_gradient
from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class CPTensor(Projector):
    r"""Canonical polyadic drive on a lattice with sides :math:`L_1 \dots L_d`,

    .. math:: drive_{n_1 \dots n_d} = \frac{1}{\sqrt{R}} \sum_{r=1}^{R} \prod_{a=1}^{d} f^{(a)}_r(x)_{n_a} + b_n,

    with :math:`f^{(a)}` linear maps of the input to [R, L_a]: R·Σ L_a outputs instead of Π L_a. A graph without lattice shape gets
    learned node factors F [R, N] in their place: :math:`drive = R^{-1/2}\, f(x)\, F + b`.

    Args:
        in_shape: shape of one sample; it is flattened.
        topology: the graph to drive.
        rank: R >= 1.
        ports: drive the topology's input ports only, where it has them; the other entries of the tensor are left out.
        channels: None for scalar cells, else C; every channel has factors of its own.

    Source: Hitchcock 1927; the CP projector of the Lattice Machine Networks repository.
    """

    def __init__(self, in_shape: Sequence[int], topology: Data, *, rank: int = 16, channels: int | None = None, ports: bool = True) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.rank = _checks.integer("rank", rank, minimum=1)
        copies = self.channels or 1
        self.shape = lattice_shape(topology)
        widths = self.shape or (1,)
        self.factors = nn.ModuleList(nn.Linear(self.in_features, copies * self.rank * width) for width in widths)
        self.nodes = None if self.shape else nn.Parameter(torch.empty(self.rank, self.num_nodes))
        self.bias = nn.Parameter(torch.empty(copies, self.num_nodes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the factors so that the drive of a unit-variance input has a standard deviation of about one half."""
        for factor in self.factors:
            assert isinstance(factor, nn.Linear)
            nn.init.normal_(factor.weight, std=math.sqrt(1 / self.in_features) * 0.5 ** (1 / len(self.factors)))
            nn.init.normal_(factor.bias, std=0.5)
        if self.nodes is not None:
            nn.init.normal_(self.nodes)
        nn.init.zeros_(self.bias)

    def project(self, x: Tensor) -> Tensor:
        flat, copies = x.flatten(1), self.channels or 1
        parts = [factor(flat).unflatten(1, (copies, self.rank, width)) for factor, width in zip(self.factors, self.shape or (1,))]
        if self.nodes is not None:
            drive = parts[0].squeeze(-1) @ self.nodes
        else:
            # The product over the axes with the sum over r left for last: one batched matrix product.
            first = parts[0]
            for part in parts[1:-1]:
                first = (first.unsqueeze(-1) * part.unsqueeze(-2)).flatten(-2)
            drive = first.sum(2) if len(parts) == 1 else contiguous_gradient(first.transpose(-1, -2) @ parts[-1]).flatten(-2)
        drive = drive / math.sqrt(self.rank) + self.bias
        if self.input_index is not None:
            drive = drive[..., self.input_index]
        return drive.squeeze(1) if self.channels is None else drive.transpose(1, 2)

    def extra_repr(self) -> str:
        return f"rank={self.rank}"
