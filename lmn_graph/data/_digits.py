"""The 1,797 handwritten digits that scikit-learn ships (UCI optdigits test set)."""

from __future__ import annotations

import numpy as np
import torch

from ._pictures import PictureEncoder
from ._splitting import divide
from .base import DATASETS, Split, Splits


@DATASETS.register
def digits(*, test_fraction: float = 0.25, validation_fraction: float = 0.1, seed: int = 0) -> Splits:
    """Grey digits 8 × 8 with 17 levels, scaled to [0, 1]: x float32 [n, 8, 8], ten classes.

    Args:
        test_fraction: share of all rows, in (0, 0.9].
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the shuffle; classes keep their shares.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    target, y, rows = divide(
        "digit",
        bunch.target.astype(str).tolist(),
        np.empty((0, 1)),
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    x = torch.from_numpy((bunch.images / 16).astype(np.float32))
    train, validation, test = (Split(x[part], y[part]) for part in rows)
    return Splits("digits", train, validation, test, PictureEncoder(target, (8, 8)))
