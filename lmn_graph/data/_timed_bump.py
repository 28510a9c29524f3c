"""A bump whose time is its class, in noise: the smallest task that needs time scales."""

from __future__ import annotations

import numpy as np
import torch

from topologies import _checks

from ._npz import ArrayEncoder
from ._splitting import divide
from .base import DATASETS, Split, Splits

START, END = 0.15, 0.85  # share of the steps between which centres lie


@DATASETS.register(name="timed-bump")
def timed_bump(
    *,
    classes: int = 10,
    steps: int = 28,
    channels: int = 28,
    gain: float = 5.0,
    noise: float = 0.2,
    width: float = 4.0,
    rows: int = 2000,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    r"""When does channel 0 rise? x float32 [n, T, channels],

    .. math:: x_{t, k} = g\, [k = 0]\, e^{-\frac12 ((t - m_c) / w)^2} + |\mathcal{N}(0, \sigma^2)|, \qquad
              m_c = a + (b - a) (c + \tfrac12) / classes, \quad a = \lfloor 0.15\, T \rfloor, \; b = \lfloor 0.85\, T \rfloor.

    Row t is step t of a stream (``--projector Stream``). Classes have equally many rows, to one.

    Args:
        classes: number of classes, at least two.
        steps: T, at least one.
        channels: numbers a step; all but the first are noise.
        gain: g, height of the bump.
        noise: σ, >= 0.
        width: w, standard deviation of the bump in steps, > 0.
        rows: rows of all splits together, at least three for every class.
        test_fraction: share of all rows, in (0, 0.9].
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the noise and the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument.

    Source: the synthetic benchmark of grid-neurons (github.com/ThomasPluck/grid-neurons).
    """
    _checks.integer("classes", classes, minimum=2, maximum=100_000)
    _checks.integer("steps", steps, minimum=1, maximum=100_000)
    _checks.integer("channels", channels, minimum=1, maximum=100_000)
    gain = _checks.number("gain", gain, minimum=-1e6, maximum=1e6)
    noise = _checks.number("noise", noise, minimum=0, maximum=1e6)
    width = _checks.number("width", width, above=0)
    _checks.integer("rows", rows, minimum=3 * classes)
    generator = np.random.default_rng(_checks.integer("seed", seed, minimum=0))
    labels = np.arange(rows) % classes
    x = generator.standard_normal((rows, steps, channels), dtype=np.float32)
    np.abs(x, out=x)
    x *= np.float32(noise)
    x[:, :, 0] += (gain * bumps(classes, steps, width)).astype(np.float32)[labels]
    names = [str(label) for label in range(classes)]
    target, y, parts = divide(
        "class",
        [names[label] for label in labels],
        np.empty((0, 1)),
        classes=names,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    inputs = torch.from_numpy(x)
    train, validation, test = (Split(inputs[part], y[part]) for part in parts)
    return Splits("timed-bump", train, validation, test, ArrayEncoder(target, (steps, channels)))


def bumps(classes: int, steps: int, width: float) -> np.ndarray:
    """The bump of every class at every step, float64 [classes, steps], with height 1."""
    start, end = int(steps * START), int(steps * END)
    centres = start + (end - start) * (np.arange(classes) + 0.5) / classes
    with np.errstate(over="ignore"):  # far from a bump that is very narrow
        return np.exp(-0.5 * ((np.arange(steps) - centres[:, None]) / width) ** 2)
