"""The spectral radius of edge weights is that of the dense matrix."""

from __future__ import annotations

import pytest
import torch

import topologies
from lmn_graph import Connectivity, criticality


def test_it_is_the_largest_eigenvalue_of_the_matrix(graph, normal):
    connectivity = Connectivity(graph)
    weight = normal(connectivity.num_edges)
    source, target = connectivity.edge_index
    n = connectivity.num_nodes
    dense = torch.zeros(n, n, dtype=torch.float64).index_put((target, source), weight, accumulate=True)
    expected = float(torch.linalg.eigvals(dense).abs().max())
    assert criticality.spectral_radius(connectivity, weight) == pytest.approx(expected, abs=1e-9)


def test_a_feed_forward_graph_has_none():
    connectivity = Connectivity(topologies.raster(3, 4))
    assert criticality.spectral_radius(connectivity, torch.ones(connectivity.num_edges)) == 0


def test_weights_that_do_not_fit_are_refused(lattice):
    connectivity = Connectivity(lattice)
    with pytest.raises(ValueError, match=r"weight must be a finite tensor \[128\], got torch.float32 \(3,\)"):
        criticality.spectral_radius(connectivity, torch.ones(3))
    with pytest.raises(ValueError, match=r"weight must be a finite tensor \[128\]"):
        criticality.spectral_radius(connectivity, torch.full((128,), float("nan")))
