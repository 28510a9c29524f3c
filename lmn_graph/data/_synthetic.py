"""Made-up pictures for benchmarks: of any size, any number of classes, and there without a download."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from topologies import _checks

from ._pictures import MODES, PictureEncoder
from ._splitting import divide
from .base import DATASETS, Split, Splits

WAVES = 3  # the shortest wave of a prototype goes three times into a side


@DATASETS.register(name="synthetic-pictures")
def synthetic_pictures(
    *,
    classes: int = 10,
    size: int = 64,
    mode: Literal["L", "RGB"] = "RGB",
    rows: int = 1000,
    noise: float = 0.3,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """A smooth random prototype per class, shifted by a few pixels, plus noise: x float32 [n, size, size] or [n, 3, size, size] in [0, 1].

    A prototype is a sum of plane waves, up to three to a side, with amplitudes that fall as one over their number; its mean is 0.5 and
    its standard deviation 0.2. A row is one of them, rolled by up to a sixteenth of the side, at least a pixel, along either axis, plus
    normal noise, clipped to [0, 1]. Classes have equally many rows, to one.

    Args:
        classes: number of classes, at least two.
        size: height and width in pixels, at least 8.
        mode: "L", grey, or "RGB", a pattern for each colour.
        rows: rows of all splits together, at least three for every class.
        noise: standard deviation of the noise, >= 0.
        test_fraction: share of all rows, in (0, 0.9].
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the prototypes, the rows and the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument.
    """
    _checks.integer("classes", classes, minimum=2, maximum=100_000)
    _checks.integer("size", size, minimum=8, maximum=4096)
    _checks.choice("mode", mode, MODES)
    _checks.integer("rows", rows, minimum=3 * classes)
    noise = _checks.number("noise", noise, minimum=0)
    generator = np.random.default_rng(_checks.integer("seed", seed, minimum=0))
    prototypes = _prototypes(generator, classes, 1 if mode == "L" else 3, size)
    labels = np.arange(rows) % classes
    far = max(1, size // 16)
    shifts = generator.integers(-far, far + 1, (rows, 2))
    x = np.empty((rows, *prototypes.shape[1:]), dtype=np.float32)
    for row, label, (down, right) in zip(x, labels, shifts):
        row[:] = np.roll(prototypes[label], (down, right), axis=(1, 2))
        row += np.float32(noise) * generator.standard_normal(row.shape, dtype=np.float32)
        np.clip(row, 0, 1, out=row)
    pictures = torch.from_numpy(x[:, 0] if mode == "L" else x)
    target, y, parts = divide(
        "class",
        [str(label) for label in labels],
        np.empty((0, 1)),
        classes=[str(label) for label in range(classes)],
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    train, validation, test = (Split(pictures[part], y[part]) for part in parts)
    return Splits("synthetic-pictures", train, validation, test, PictureEncoder(target, (size, size), mode))


def _prototypes(generator: np.random.Generator, classes: int, channels: int, size: int) -> np.ndarray:
    """float32 [classes, channels, size, size], periodic along both axes."""
    waves = np.arange(-WAVES, WAVES + 1)
    number = np.hypot(waves[:, None], waves)
    amplitude = np.divide(1, number, out=np.zeros_like(number), where=number > 0)  # without the constant
    shape = (classes, channels, len(waves), len(waves))
    factors = (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)) * amplitude
    basis = np.exp(2j * np.pi * np.outer(waves, np.arange(size)) / size)
    pattern = np.einsum("ckuv,ui,vj->ckij", factors, basis, basis, optimize=True).real
    return (0.5 + 0.2 * pattern / pattern.std((2, 3), keepdims=True)).astype(np.float32)
