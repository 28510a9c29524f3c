"""No sum depends on what is switched on around it: autocast, in the forward or the backward pass, or another default device."""

from __future__ import annotations

import pytest
import torch

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import EdgeWeight, Stencil, gated_sum, message_sum, stencil_sum, typed_sum, weighted_sum


def mixed(x_j, w):
    """A message with a product of matrices, which autocast would round."""
    return w * (x_j @ x_j.mT @ x_j)


# Each takes the graph, a state [N, B, C], a number per edge and a matrix per type.
SUMS = {
    "weighted": lambda graph, x, w, k: weighted_sum(graph, x, w),
    "weighted, prepared": lambda graph, x, w, k: weighted_sum(graph, x, EdgeWeight(graph, w)),
    "message": lambda graph, x, w, k: message_sum(graph, mixed, (), x, w),
    "gated": lambda graph, x, w, k: gated_sum(graph, x, w, 1.5),
    "gated, steep": lambda graph, x, w, k: gated_sum(graph, x, w, 50.0),
    "typed": lambda graph, x, w, k: typed_sum(graph, x, k),
    "convolution": lambda graph, x, w, k: stencil_sum(Stencil.of(graph), x, k, "convolution"),
    "fft": lambda graph, x, w, k: stencil_sum(Stencil.of(graph), x, k, "fft"),
    "separable": lambda graph, x, w, k: stencil_sum(Stencil.of(graph), x, w.mean(), "separable"),
}
every_sum = pytest.mark.parametrize("name", SUMS)


@pytest.fixture
def given(normal):
    graph = Connectivity(topologies.grid((4, 5), 2, 1))
    arguments = (normal(20, 3, 2), normal(graph.num_edges), normal(8, 2, 2))
    return graph, [argument.float().requires_grad_() for argument in arguments]


def gradients(y, arguments):
    return torch.autograd.grad(y.square().sum(), arguments, allow_unused=True, create_graph=True)


def second(found, arguments):
    return torch.autograd.grad(sum(grad.square().sum() for grad in found if grad is not None), arguments, allow_unused=True)


def assert_equal(found, expected):
    for got, want in zip(found, expected, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@every_sum
def test_autocast_rounds_neither_a_sum_nor_its_derivatives(name, given):
    graph, arguments = given
    plain = SUMS[name](graph, *arguments)
    first = gradients(plain, arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = SUMS[name](graph, *arguments)
        found = gradients(y, arguments)
        again = second(found, arguments)
    assert_equal([y, *found, *again], [plain, *first, *second(first, arguments)])


@every_sum
def test_a_sum_is_made_where_its_arguments_are(name, given):
    """Whatever the default device is: one without numbers here, as a GPU cannot be counted on."""
    graph, arguments = given
    plain = SUMS[name](graph, *arguments)
    first = gradients(plain, arguments)
    fresh = Connectivity(topologies.grid((4, 5), 2, 1))  # nothing is known about its edges yet
    with torch.device("meta"):
        y = SUMS[name](fresh, *arguments)
        found = gradients(y, arguments)
    assert_equal([y, *found], [plain, *first])
