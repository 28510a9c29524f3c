"""Weights that differ between the samples: the sum is that of every sample by itself, whose weights are one sparse matrix."""

from __future__ import annotations

import pytest
import torch

from lmn_graph import Connectivity
from lmn_graph.ops import weighted_sum


@pytest.mark.parametrize("channels", [None, 2])
def test_each_sample_is_a_sparse_product_of_its_own(channels, graph, normal):
    """Values, and the gradients to the state and to the weights, against the einsum of matrices written out, on every graph."""
    connectivity = Connectivity(graph)
    n, e = connectivity.num_nodes, connectivity.num_edges
    tail = () if channels is None else (channels,)
    x, weight = normal(n, 3, *tail).requires_grad_(), normal(e, 3).requires_grad_()
    source, target = connectivity.edge_index
    dense = torch.zeros(n, n, 3, dtype=torch.float64).index_put((target, source), weight, accumulate=True)
    expected = torch.einsum("ijb,jb...->ib...", dense, x)
    found = weighted_sum(connectivity, x, weight)
    torch.testing.assert_close(found, expected)
    factor = normal(*x.shape)
    for got, want in zip(
        torch.autograd.grad((found * factor).sum(), (x, weight)), torch.autograd.grad((expected * factor).sum(), (x, weight))
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("of_state", "of_weight"), [((16, 3), (128, 1)), ((16, 3), (128, 2)), ((16, 3), (128, 3, 1)), ((16, 3, 2), (128, 3, 3))]
)
def test_weights_that_fit_no_state_are_refused(of_state, of_weight, lattice):
    with pytest.raises(
        ValueError, match=r"weight must (fit a state of shape \(16, |be a floating-point tensor \[128, 3\] or \[128\], got)"
    ):
        weighted_sum(Connectivity(lattice), torch.zeros(of_state), torch.zeros(of_weight))
