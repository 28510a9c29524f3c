"""Made-up rows that stand in for a dataset whose files are not there: enough to see that everything runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from ._pictures import PictureEncoder
from ._target import Target
from .base import Encoder, Split, Splits

SIZES = (256, 64, 64)  # training, validation and test rows

F = TypeVar("F", bound=Callable[..., Splits])
Drawing = Callable[[np.random.Generator, int], np.ndarray]


def specimen(encoder: Callable[[dict[str, Any]], Encoder], *, draw: Drawing | None = None) -> Callable[[F], F]:
    """Decorator of a dataset: how to make up rows of the same shape, task and classes where its files are missing.

    The dataset raises ``MissingData`` for missing files, after it has checked its options. ::

        @DATASETS.register
        @specimen(lambda options: PictureEncoder(Target.classification("class", ("cat", "dog")), (28, 28)))
        def pets(root: str = "data", *, seed: int = 0) -> Splits: ...

    Args:
        encoder: from the options of the dataset to the encoder that its splits have.
        draw: (generator, n) → x float32 [n, *in_shape], for inputs that are neither pictures nor scaled numbers (token numbers, say).
    """

    def mark(dataset: F) -> F:
        dataset.specimen = lambda name, options: _make_up(name, encoder(options), draw, options.get("seed", 0))  # type: ignore[attr-defined]
        return dataset

    return mark


def _make_up(name: str, encoder: Encoder, draw: Drawing | None, seed: int) -> Splits:
    """Rows around one centre for each class, or targets that are the mean of a row's inputs; pictures in [0, 1], numbers of variance 1."""
    generator = np.random.default_rng(seed)
    count = sum(SIZES)
    target: Target = encoder.target
    x: np.ndarray
    if target.classes is None:
        x = generator.standard_normal((count, *encoder.in_shape), dtype=np.float32)
        goal = x.reshape(count, -1).mean(1, keepdims=True)
        y = torch.from_numpy(goal / goal.std()).expand(count, target.out_features).contiguous()
    else:
        labels = generator.permutation(np.arange(count) % target.out_features)
        known, place = np.unique(labels, return_inverse=True)
        x = generator.standard_normal((len(known), *encoder.in_shape), dtype=np.float32)[place]
        x += generator.standard_normal(x.shape, dtype=np.float32)
        x *= np.float32(0.5**0.5)
        y = torch.from_numpy(labels)
    if isinstance(encoder, PictureEncoder):
        x = 1 / (1 + np.exp(-x, dtype=np.float32))
    if draw is not None:
        x = draw(generator, count)
    inputs = torch.from_numpy(x)
    train, validation, test = (Split(*part) for part in zip(inputs.split(SIZES), y.split(SIZES)))
    return Splits(f"{name} (specimen: made up for --smoke)", train, validation, test, encoder)
