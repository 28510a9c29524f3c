"""Timed bumps: each row is its closed form plus half-normal noise, and a saved array of such rows can be predicted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmn_graph import data
from lmn_graph.data import Encoder


@pytest.mark.parametrize(
    ("options", "start", "end"),
    [
        ({}, 4, 23),  # 28 steps: 4.2 and 23.8, rounded down
        ({"classes": 3, "steps": 40, "channels": 2, "gain": -2.0, "width": 1.5}, 6, 34),
        ({"classes": 4, "steps": 7, "channels": 1}, 1, 5),
        ({"classes": 3, "width": 1e-300}, 4, 23),
    ],
)
def test_rows_without_noise_are_the_closed_form(options: dict[str, Any], start: int, end: int) -> None:
    """gain exp(−½ ((t − centre) / width)²) in channel 0, silence in the others."""
    splits = data.load("timed-bump", noise=0.0, rows=60, **options)
    classes, steps, channels, gain, width = (
        options.get(name, value) for name, value in (("classes", 10), ("steps", 28), ("channels", 28), ("gain", 5.0), ("width", 4.0))
    )
    assert splits.in_shape == (steps, channels)
    assert splits.out_features == classes
    for x, y in splits.train:
        centre = start + (end - start) * (int(y) + 0.5) / classes
        expected = [gain * math.exp(-0.5 * min(abs(t - centre) / width, 1e9) ** 2) for t in range(steps)]
        torch.testing.assert_close(x[:, 0], torch.tensor(expected))
        assert not x[:, 1:].any()


def test_noise_is_half_normal() -> None:
    """Mean σ√(2/π) and mean square σ², never below 0; in channel 0 on top of the bump."""
    noisy, clean = (data.load("timed-bump", noise=noise).train for noise in (0.5, 0.0))
    assert torch.equal(noisy.y, clean.y)
    background = (noisy.x - clean.x).double()
    assert background.min() >= -1e-6
    for values in (background[:, :, 1:], background[:, :, 0]):
        error = 5 / math.sqrt(values.numel())
        assert values.mean().item() == pytest.approx(0.5 * math.sqrt(2 / math.pi), abs=0.5 * 0.61 * error)
        assert values.square().mean().item() == pytest.approx(0.25, abs=0.25 * math.sqrt(2) * error)


def test_every_class_has_its_share_and_the_seed_is_the_data() -> None:
    splits = data.load("timed-bump", rows=200)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (144, 16, 40)
    assert torch.bincount(splits.test.y).tolist() == [4] * 10
    assert splits.classes == [str(number) for number in range(10)]
    assert torch.equal(data.timed_bump(rows=200).test.x, splits.test.x)
    assert not torch.equal(data.timed_bump(rows=200, seed=1).test.x, splits.test.x)


def test_the_time_of_the_largest_value_tells_the_class() -> None:
    """With the default noise it does so far above chance, though neighbouring bumps overlap; channels of noise do not."""
    splits = data.load("timed-bump")
    weight = splits.test.x[:, :, 0].square()
    time = (weight * torch.arange(28)).sum(1) / weight.sum(1)
    guess = ((time - 4) / 19 * 10 - 0.5).round().clamp(0, 9)
    assert (guess == splits.test.y).float().mean() > 0.5
    means = torch.stack([splits.train.x[splits.train.y == k, :, 1:].mean(0) for k in range(10)])
    assert (torch.cdist(splits.test.x[:, :, 1:].flatten(1), means.flatten(1)).argmin(1) == splits.test.y).float().mean() < 0.25


def test_a_trained_run_predicts_an_array_of_such_rows(
    tmp_path: Path, lmn: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmn_graph.report.plots.save_all", lambda *_: [])
    splits = data.load("timed-bump", steps=8, channels=4, rows=60)
    assert Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict()))) == splits.encoder
    np.savez(tmp_path / "new.npz", x=splits.test.x.numpy())
    found = splits.encoder.encode(tmp_path / "new.npz")
    assert torch.equal(found.x, splits.test.x)
    options = ("--data.steps", "8", "--data.channels", "4", "--data.rows", "60", "--topology.L", "4", "--machine.steps", "8")
    arguments = ("--data", "timed-bump", *options, "--projector", "Stream", "--readout", "Shoreline", "--trainer.epochs", "1")
    assert lmn("train", "tanh-lattice", *arguments, "--quiet", "--out", tmp_path / "run")[0] == 0
    code, out, _ = lmn("predict", tmp_path / "run", tmp_path / "new.npz")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "input,class,probability"
    assert len(lines) == 1 + len(splits.test)
    assert {line.split(",")[1] for line in lines[1:]} <= set(splits.classes or ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, r"classes must be an integer in \[2, 100000\], got 1"),
        ({"steps": 0}, r"steps must be an integer in \[1, 100000\], got 0"),
        ({"channels": 1.5}, r"channels must be an integer in \[1, 100000\], got 1.5"),
        ({"gain": float("inf")}, "gain must be a finite number"),
        ({"noise": -0.1}, "noise must be a finite number in"),
        ({"width": 0}, "width must be a finite number > 0, got 0"),
        ({"rows": 29}, "rows must be an integer >= 30, got 29"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"test_fraction": 1.0}, "test_fraction must be a finite number"),
        ({"chanels": 3}, "data 'timed-bump' has no option 'chanels'; did you mean 'channels'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load("timed-bump", **options)
