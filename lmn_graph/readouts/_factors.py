"""Learned factors of the nodes which are read, of every axis where these are a lattice."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import lattice_shape
from lmn_graph.readouts.base import Readout


def sides_read(readout: Readout, topology: Data) -> tuple[int, ...] | None:
    """The sides of the lattice that a readout reads; None where the graph is none, or is read at its output ports."""
    return lattice_shape(topology) if readout.output_index is None else None


def product_over_axes(factors: Iterable[Tensor]) -> Tensor:
    r"""Factors :math:`\prod_a f^{(a)}_{n_a}` of every node from those of every axis, [L_a, F] each → [N, F]."""
    first, *others = factors
    for factor in others:
        first = (first.unsqueeze(1) * factor).flatten(0, 1)
    return first
