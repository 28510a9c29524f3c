"""Learned factors of the nodes which are read, of every axis where these are a lattice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import lattice_shape
from lmn_graph.readouts.base import Readout


def sides_read(readout: Readout, topology: Data) -> tuple[int, ...] | None:
    """The sides of the lattice that a readout reads; None where the graph is none, or is read at its output ports."""
    return lattice_shape(topology) if readout.output_index is None else None


class AxisFactors(nn.ParameterList):
    r"""Learned factors [L_a, F] of every axis, whose products :math:`\prod_a f^{(a)}_{n_a}` are the factors of the nodes.

    Args:
        sides: L_1 … L_d; the number of nodes alone where there is no lattice.
        width: F.
    """

    def __init__(self, sides: tuple[int, ...], width: int) -> None:
        super().__init__(torch.empty(side, width) for side in sides)

    def draw(self) -> None:
        """Draw them so that their product has unit variance per node."""
        for factor in self:
            nn.init.normal_(factor)

    def of_nodes(self) -> Tensor:
        """The products, scaled by N^-1/2, [N, F]."""
        first, *others = self
        for factor in others:
            first = (first.unsqueeze(1) * factor).flatten(0, 1)
        return first / math.sqrt(len(first))
