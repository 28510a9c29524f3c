"""The spectral radius of the weights of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from topologies._spectrum import spectral_radius as _radius

if TYPE_CHECKING:
    from lmn_graph.connectivity import Connectivity


@torch.no_grad()
def spectral_radius(connectivity: Connectivity, weight: Tensor) -> float:
    r"""max |λ| of the matrix of the weights, :math:`W_{ij} = w_{ij}`.

    Where a state at rest stays at rest and the rule is :math:`\tanh(W x)`, states near it decay if the radius is below 1 and grow if it is
    above; with a leak λ the matrix is :math:`(1 - \lambda) + \lambda W`. Away from rest tanh is flatter, so that a radius below 1 is
    neither necessary nor, under drive, sufficient for a run to forget where it started: :func:`lmn_graph.criticality.lyapunov` measures
    that. An acyclic graph has a radius of 0.

    Args:
        connectivity: the graph, N nodes and E edges.
        weight: [E], in the order of the connectivity.

    Raises:
        ValueError: if ``weight`` does not fit the graph or is not finite, or the iteration does not converge (above 5,000 nodes).

    Source: M. Lukoševičius, H. Jaeger, "Reservoir computing approaches to recurrent neural network training", 2009.
    """
    if not isinstance(weight, Tensor) or weight.shape != (connectivity.num_edges,) or not bool(weight.isfinite().all()):
        got = f"{weight.dtype} {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight must be a finite tensor [{connectivity.num_edges}], got {got}")
    return _radius(connectivity.edge_index.cpu(), weight.detach().cpu(), connectivity.num_nodes)
