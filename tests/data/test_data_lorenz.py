"""The Lorenz equations: what scipy integrates, what is known of them, and the same splits as from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lmn_graph import data
from lmn_graph.data._lorenz import integrate

START = np.array([1.0, -0.5, 20.0])


def test_lorenz_is_what_another_integration_gives() -> None:
    """scipy's integrator of order 8, over 6 units of time: an error grows about e^0.9 times in each."""

    def slope(_, u):
        return [10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]]

    expected = solve_ivp(slope, (0, 6), START, method="DOP853", rtol=1e-12, atol=1e-12, t_eval=0.02 * np.arange(300)).y.T
    np.testing.assert_allclose(integrate(300, 0.02, START), expected, rtol=0, atol=1e-4)


def test_lorenz_converges_with_the_fourth_power_of_the_step() -> None:
    """Half the step, a sixteenth of the error."""
    fine = integrate(50, 0.02, START, substeps=64)
    errors = [np.abs(integrate(50, 0.02, START, substeps=substeps) - fine).max() for substeps in (2, 4, 8)]
    assert 10 < errors[0] / errors[1] < 24
    assert 10 < errors[1] / errors[2] < 24


def test_what_is_known_of_lorenz() -> None:
    """Rest at (±√72, ±√72, 27); the z axis is invariant, z = z₀ e^(−8t/3); (x, y) → (−x, −y) maps solutions to solutions; chaos."""
    rest = np.array([72**0.5, 72**0.5, 27.0])
    np.testing.assert_allclose(integrate(50, 0.02, rest), np.tile(rest, (50, 1)), atol=1e-10)
    axis = integrate(50, 0.02, np.array([0.0, 0.0, 20.0]))
    np.testing.assert_allclose(axis[:, 2], 20 * np.exp(-8 / 3 * 0.02 * np.arange(50)), rtol=1e-8)
    mirror = np.array([-1.0, -1.0, 1.0])
    np.testing.assert_array_equal(integrate(500, 0.02, START * mirror), integrate(500, 0.02, START) * mirror)
    apart = np.abs(integrate(1500, 0.02, START + 1e-8) - integrate(1500, 0.02, START)).max(1)
    assert apart[1000:].max() > 1e4 * apart[:50].max()


def test_lorenz_goes_through_the_code_of_series(tmp_path: Path) -> None:
    """The same splits as from a file of its values, component by component; the seed is that of the initial state."""
    start = np.array([1.0, 1.0, 20.0]) + np.random.default_rng(3).uniform(-1, 1, 3)
    values = integrate(600, 0.05, integrate(2, 20.0, start, 10000)[1])
    np.save(tmp_path / "lorenz.npy", values)
    for column, component in enumerate("xyz"):
        one = data.load("lorenz", length=600, dt=0.05, component=component, window=10, horizon=6, seed=3)
        two = data.load(tmp_path / "lorenz.npy", column=column, window=10, horizon=6)
        assert torch.equal(one.test.x, two.test.x)
        assert torch.equal(one.test.y, two.test.y)
    assert not torch.equal(one.test.x, data.lorenz(600, dt=0.05, component="z", window=10, horizon=6, seed=4).test.x)
    assert data.lorenz(600, stream=True).in_shape == (1,)


@pytest.mark.parametrize(
    ("option", "value"), [("length", 0), ("dt", 0), ("dt", 0.2), ("dt", float("nan")), ("component", "w"), ("seed", -1), ("window", 0)]
)
def test_a_wrong_option_of_lorenz_is_refused(option, value) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        data.load("lorenz", **{option: value})
    with pytest.raises(ValueError, match="length=100: 100 values are too few"):
        data.lorenz(100)
