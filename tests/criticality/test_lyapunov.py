"""Largest exponents that are known in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from known_processes import Cells, MapRule
from torch import Tensor

from lmn_graph.criticality import lyapunov


def map_rule(f, n: int = 1) -> MapRule:
    return MapRule(torch.eye(n, dtype=torch.float64), f)


def start(n: int, samples: int, dtype=torch.float64) -> Cells:
    return Cells(torch.rand(n, samples, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1)


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_map_has_the_log_of_its_spectral_radius(radius, dtype, generator):
    """Symmetric W: ln|λ_max| once the difference has turned to that direction."""
    q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator)).Q
    weight = q @ torch.diag(radius * torch.tensor([1, 0.6, -0.5, 0.3, 0.2, 0.1], dtype=torch.float64)) @ q.T
    found = lyapunov(MapRule(weight.to(dtype)), Cells(torch.zeros(6, 3, dtype=dtype)), None, steps=60, discard=40, generator=generator)
    tolerance = 2e-3 if dtype == torch.float32 else 1e-6
    torch.testing.assert_close(found, torch.full((3,), math.log(radius), dtype=dtype), atol=tolerance, rtol=0)


def test_rotation_is_neutral(generator):
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]], dtype=torch.float64)
    found = lyapunov(MapRule(turn), start(2, 4), None, steps=50, generator=generator)
    torch.testing.assert_close(found, torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("slope", [1.3, 1.9, 1.999])
def test_tent_map_has_the_log_of_its_slope(slope, generator):
    """|f'| is the same everywhere, so λ = ln(slope) on every orbit; 1.999 is within 5e-4 of ln 2."""
    found = lyapunov(map_rule(lambda x: slope * torch.minimum(x, 1 - x)), start(1, 5), None, steps=500, generator=generator)
    torch.testing.assert_close(found, torch.full((5,), math.log(slope), dtype=torch.float64), atol=2e-3, rtol=0)


def test_logistic_map_has_ln_2(generator):
    """x ← 4x(1 − x): ln 2, to 3 standard errors over 40 orbits of 2,000 steps, tight enough to reject log base 2 or a half."""
    found = lyapunov(map_rule(lambda x: 4 * x * (1 - x)), start(1, 40), None, steps=2000, generator=generator)
    error = float(found.std() / 40**0.5)
    assert error < 2e-3
    assert abs(float(found.mean()) - math.log(2)) < 3 * error


class Pair(NamedTuple):
    s: Tensor
    fast: Tensor
    clock: Tensor


class TwoSpeeds(MapRule):
    """The growth sits in the second field; the third is an integer."""

    def step(self, p, state, drive):
        return Pair(0.5 * state.s, 1.2 * state.fast, state.clock + 1), state.s


def test_every_floating_field_is_perturbed(generator):
    zero = torch.zeros(2, 3, dtype=torch.float64)
    found = lyapunov(
        TwoSpeeds(torch.eye(2)), Pair(zero, zero.clone(), torch.zeros(2, 3, dtype=torch.long)), None, discard=40, generator=generator
    )
    torch.testing.assert_close(found, torch.full((3,), math.log(1.2), dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rule_that_forgets_at_once_is_finite(dtype, generator):
    """The difference is exactly 0: ½ ln ε, the documented floor, and no nan."""
    found = lyapunov(MapRule(torch.zeros(3, 3, dtype=dtype)), start(3, 2, dtype), None, generator=generator)
    floor = 0.5 * math.log(torch.finfo(dtype).eps)
    torch.testing.assert_close(found, torch.full((2,), floor, dtype=dtype))


def test_drive_reaches_both_copies(generator):
    """A drive moves the tanh map off its steep point: the exponent of the driven fixed point, from both forms of drive."""
    rule = map_rule(torch.tanh)
    drive = torch.full((3, 1), 0.7, dtype=torch.float64)
    point = torch.tensor(0.9, dtype=torch.float64)
    for _ in range(200):
        point = torch.tanh(point + 0.7)
    expected = torch.log(1 - point**2).expand(3)
    for given in (drive, drive.unsqueeze(1).expand(3, 110, 1)):
        found = lyapunov(rule, start(1, 3), given, steps=60, discard=50, generator=generator)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_run_that_diverges_is_named():
    with pytest.raises(ValueError, match=r"left the range of torch\.float64 at step"):
        lyapunov(map_rule(lambda x: x**3 + 2), start(1, 2), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"discard": -1}, "discard must be"),
        ({"drive": torch.zeros(2, 50, 1)}, "drive must cover 110 steps"),
    ],
)
def test_bad_input_is_named(options, message):
    options = {"drive": None, **options}
    with pytest.raises(ValueError, match=message):
        lyapunov(map_rule(None), start(1, 2), **options)
