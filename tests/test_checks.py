"""Argument checks: what passes, and that every refusal is a ValueError naming the argument, what came and what was expected."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from topologies import _checks

HUGE = pytest.param(10**400, id="beyond float")


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_integer_takes_every_kind_of_integer_and_returns_an_int(value):
    result = _checks.integer("L", value, minimum=1)
    assert result == 3
    assert type(result) is int


@pytest.mark.parametrize(
    "value", [0, 6, 2.0, "3", None, True, math.nan, [3], np.array([1, 2]), np.bool_(True), torch.tensor(2.0), torch.tensor([1, 2]), int]
)
def test_integer_refuses_with_name_value_and_range(value):
    with pytest.raises(ValueError, match=r"^L must be an integer in \[1, 5\], got "):
        _checks.integer("L", value, minimum=1, maximum=5)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2.0)])
def test_number_takes_every_kind_of_real_number(value):
    result = _checks.number("width", value, above=0.0)
    assert result == 2.0
    assert type(result) is float


@pytest.mark.parametrize(
    "value", [0.0, -1, math.nan, "2", b"2", True, np.bool_(True), torch.tensor(True), None, [1.0], 1j, torch.ones(2), np.ones(2), HUGE]
)
def test_number_refuses_with_name_value_and_range(value):
    with pytest.raises(ValueError, match=r"^width must be a finite number > 0, got "):
        _checks.number("width", value, above=0.0)


def test_number_states_both_bounds():
    assert _checks.number("p", 1.0, minimum=0, maximum=1) == 1.0
    with pytest.raises(ValueError, match=r"p must be a finite number in \[0, 1\], got 1.5"):
        _checks.number("p", 1.5, minimum=0, maximum=1)
    with pytest.raises(ValueError, match=r"p must be a finite number <= 1, got 1.5"):
        _checks.number("p", 1.5, maximum=1)
    with pytest.raises(ValueError, match=r"p must be a finite number >= 2, got 1.5"):
        _checks.number("p", 1.5, minimum=2)
    with pytest.raises(ValueError, match=r"p must be a finite number > 0 and <= 1, got 1.5"):
        _checks.number("p", 1.5, above=0, maximum=1)


def test_flag_takes_only_booleans():
    assert _checks.flag("learn", True) is True
    for value in (1, 0, "yes", None, torch.tensor(True)):
        with pytest.raises(ValueError, match=r"^learn must be True or False, got "):
            _checks.flag("learn", value)


def test_choice_lists_the_options():
    assert _checks.choice("reset", "zero", ("none", "zero")) == "zero"
    for value in ("zer", None, ["zero"], {}, 0, torch.ones(2)):
        with pytest.raises(ValueError, match=r"^reset must be one of 'none', 'zero', got "):
            _checks.choice("reset", value, ("none", "zero"))
