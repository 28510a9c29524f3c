"""Synthetic pictures: classes can be told apart, rows are what the docstring says, the seed is the data."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmn_graph import data
from lmn_graph.data import Encoder, Splits
from lmn_graph.data._synthetic import _prototypes

SMALL = {"classes": 5, "size": 16, "rows": 200}


def _nearest_mean(splits: Splits) -> float:
    """Test accuracy of the nearest mean of the training rows of a class."""
    means = torch.stack([splits.train.x[splits.train.y == k].mean(0) for k in range(splits.out_features)])
    found = torch.cdist(splits.test.x.flatten(1), means.flatten(1)).argmin(1)
    return (found == splits.test.y).float().mean().item()


@pytest.mark.parametrize(("mode", "shape"), [("L", (16, 16)), ("RGB", (3, 16, 16))])
def test_shapes_range_and_shares(mode: str, shape: tuple[int, ...]) -> None:
    """Values fill [0, 1], every class has its share in every split, the encoder takes pictures of that shape."""
    splits = data.load("synthetic-pictures", mode=mode, **SMALL)
    assert splits.in_shape == shape
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (144, 16, 40)
    assert splits.classes == ["0", "1", "2", "3", "4"]
    assert torch.bincount(splits.test.y).tolist() == [8] * 5
    for part in (splits.train, splits.validation, splits.test):
        assert part.x.min() == 0
        assert part.x.max() == 1
    assert Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict()))) == splits.encoder


def test_classes_can_be_told_apart_and_noise_makes_it_harder() -> None:
    """A nearest-mean classifier is far above chance with the default noise, at chance where noise is all there is."""
    options = SMALL | {"rows": 600, "mode": "L"}
    assert _nearest_mean(data.synthetic_pictures(**options)) > 0.9
    assert _nearest_mean(data.synthetic_pictures(noise=1000.0, **options)) < 0.4


def test_rows_without_noise_are_rolled_prototypes() -> None:
    """Every row is its class's prototype rolled by at most two of 32 pixels along each axis, and every roll occurs."""
    splits = data.synthetic_pictures(classes=2, size=32, rows=400, noise=0.0, mode="RGB", seed=4)
    prototypes = torch.from_numpy(_prototypes(np.random.default_rng(4), 2, 3, 32)).clamp(0, 1)
    seen = set()
    for x, y in splits.train:
        rolls = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if torch.equal(x, prototypes[y].roll((i, j), (1, 2)))]
        assert len(rolls) == 1
        seen.update(rolls)
    assert len(seen) == 25


def test_prototypes_are_smooth_and_distinct() -> None:
    """Mean 0.5, deviation 0.2, no wave shorter than a third of the side (by the Fourier transform), classes uncorrelated."""
    found = _prototypes(np.random.default_rng(0), 6, 3, 32)
    np.testing.assert_allclose(found.mean((2, 3)), 0.5, atol=1e-6)
    np.testing.assert_allclose(found.std((2, 3)), 0.2, rtol=1e-5)
    power = np.abs(np.fft.fft2(found)) ** 2
    waves = np.abs(np.fft.fftfreq(32, 1 / 32))
    short = np.maximum(waves[:, None], waves) > 3
    assert power[..., short].max() < 1e-6 * power[..., ~short].max()
    correlation = np.corrcoef(found.reshape(6, -1)) - np.eye(6)
    assert np.abs(correlation).max() < 0.6


def test_the_seed_is_the_data() -> None:
    def rows(**options: Any) -> Tensor:
        return data.synthetic_pictures(**SMALL, **options).test.x

    assert torch.equal(rows(), rows(seed=0))
    assert not torch.equal(rows(), rows(seed=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, r"classes must be an integer in \[2, 100000\], got 1"),
        ({"size": 7}, r"size must be an integer in \[8, 4096\], got 7"),
        ({"mode": "CMYK"}, "mode must be one of 'L', 'RGB', got 'CMYK'"),
        ({"rows": 29}, "rows must be an integer >= 30, got 29"),
        ({"noise": -0.1}, "noise must be a finite number >= 0, got -0.1"),
        ({"noise": "much"}, "noise must be a finite number >= 0, got 'much'"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"test_fraction": 1.0}, "test_fraction must be a finite number"),
        ({"sise": 64}, "data 'synthetic-pictures' has no option 'sise'; did you mean 'size'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load("synthetic-pictures", **options)
