"""Spike functions: exact spikes forward, the stated pseudo-derivative backward."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from lmn_graph.surrogates import SURROGATES, Gaussian, Surrogate

CLOSED_FORMS = {
    "Gaussian": lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    "Sigmoid": lambda z: math.exp(-z) / (1 + math.exp(-z)) ** 2,
    "ArcTan": lambda z: 1 / (1 + (math.pi * z) ** 2),
    "FastSigmoid": lambda z: 1 / (1 + abs(z)) ** 2,
    "Triangular": lambda z: max(0.0, 1 - abs(z)),
    "StraightThrough": lambda z: 1.0 if abs(z) <= 1 else 0.0,
}
AREAS = {"Gaussian": 1.0, "Sigmoid": 1.0, "ArcTan": 1.0, "Triangular": 1.0, "StraightThrough": 2.0}  # FastSigmoid's tail is too long


@pytest.mark.parametrize("name", SURROGATES)
def test_forward_is_the_heaviside_step_with_one_at_zero(name):
    tiny = torch.finfo(torch.float32).tiny
    u = torch.tensor([-1e30, -1.0, -tiny, -0.0, 0.0, tiny, 1.0, 1e30])
    spikes = SURROGATES[name]()(u)
    assert spikes.dtype == u.dtype
    assert spikes.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("width", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_backward_is_the_closed_form_at_any_width(name, width):
    u = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    factor = torch.linspace(1, 2, 41, dtype=torch.float64)
    (SURROGATES[name](width=width)(u) * factor).sum().backward()
    expected = [CLOSED_FORMS[name](z / width) / width for z in u.tolist()]
    torch.testing.assert_close(u.grad, factor * torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", AREAS)
def test_the_pseudo_derivative_has_the_same_area_at_every_width(name):
    """``width`` scales u and nothing else: the jump that the derivative stands for stays the same."""
    u = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    for width in (0.5, 2.0):
        area = torch.trapezoid(SURROGATES[name](width).derivative(u), u)
        assert area.item() == pytest.approx(AREAS[name], rel=2e-3)


@pytest.mark.parametrize("name", ["Gaussian", "Sigmoid", "ArcTan", "FastSigmoid"])
def test_the_pseudo_derivative_is_differentiable_again(name):
    """Second-order losses see the derivative of φ, not zero."""
    surrogate = SURROGATES[name](width=0.7)
    u = torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(surrogate(u).sum(), u, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), u)
    step = 1e-6
    expected = (surrogate.derivative(u + step) - surrogate.derivative(u - step)) / (2 * step)
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_is_a_value(name):
    """Equal where its parameters are, hashable, frozen, copied and pickled."""
    surrogate = SURROGATES[name](width=0.5)
    assert surrogate == SURROGATES[name](0.5) != SURROGATES[name](1.0)
    assert copy.deepcopy(surrogate) == pickle.loads(pickle.dumps(surrogate)) == surrogate
    assert hash(surrogate) == hash(SURROGATES[name](0.5))
    assert repr(surrogate) == f"{name}(width=0.5)"
    with pytest.raises(AttributeError):
        surrogate.width = 2.0


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf, "1", None, True])
def test_a_width_that_is_not_positive_and_finite_is_refused(width):
    with pytest.raises(ValueError, match="width must be a finite number > 0, got"):
        Gaussian(width)


def test_a_subclass_needs_only_phi():
    class Box(Surrogate):
        def phi(self, z):
            return (z.abs() < 0.5).to(z.dtype)

    u = torch.tensor([-1.0, 0.2], requires_grad=True)
    Box(width=2.0)(u).sum().backward()
    assert u.grad.tolist() == [0.0, 0.5]
    with pytest.raises(NotImplementedError, match="Surrogate does not define phi"):
        Surrogate().derivative(u)
