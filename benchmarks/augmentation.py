"""Augmentation of a batch: microseconds a picture.

    python benchmarks/augmentation.py [--batch 64] [--repeats 7]

Printed first: how far the affine map of a batch is from torchvision's, picture by picture, by the same numbers. Then medians of processor
time for each option by itself, on grey and on colour pictures, and for torchvision's ``RandomAffine`` of one picture after the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from lmn_graph.augment import Pictures, affine

MOVED: dict[str, Any] = {"degrees": 10, "translate": 0.1, "scale": (0.9, 1.1), "shear": 5}
OPTIONS: dict[str, dict[str, Any]] = {
    "affine map": MOVED,
    "crop": {"crop": 3},
    "mirror image": {"flip": 0.5},
    "colours": {"brightness": 0.2, "contrast": 0.2},
    "covered": {"erase": 0.5},
    "trivial": {"policy": "trivial"},
    "rand": {"policy": "rand"},
    "augmix": {"policy": "augmix"},
}
SHAPES = ((28, 28), (3, 64, 64), (3, 224, 224))


def check() -> None:
    x, draw = torch.rand(16, 3, 28, 28), torch.rand(6, 16)
    angle, shift, scale, shear = 90 * draw[0], (5 * draw[1], -4 * draw[2]), 0.5 + draw[3], (30 * draw[4], -20 * draw[5])
    worst = 0.0
    for row, found in enumerate(affine(x, angle, shift, scale, shear)):
        numbers = float(angle[row]), [float(t[row]) for t in shift], float(scale[row]), [float(s[row]) for s in shear]
        expected = v2.functional.affine(x[row], *numbers, interpolation=v2.InterpolationMode.BILINEAR, fill=None)
        worst = max(worst, float((found - expected).abs().max()))
    print(f"affine map against torchvision's: largest difference {worst:.0e}")


def microseconds(work: Callable[[Tensor], object], x: Tensor, repeats: int) -> float:
    work(x)
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work(x)
        found.append(time.process_time() - started)
    return 1e6 * statistics.median(found) / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    check()
    print(f"{'microseconds a picture':24}" + "".join(f"{' × '.join(map(str, shape)):>16}" for shape in SHAPES))
    pictures = [torch.rand(options.batch, *shape) for shape in SHAPES]
    for name, given in OPTIONS.items():
        times = [microseconds(Pictures(shape, **given), x, options.repeats) for shape, x in zip(SHAPES, pictures)]
        print(f"{name:24}" + "".join(f"{found:16.0f}" for found in times))
    one = v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), [-5, 5, -5, 5], interpolation=v2.InterpolationMode.BILINEAR)
    times = [
        microseconds(lambda x: torch.stack([one(picture) for picture in x.view(len(x), -1, *x.shape[-2:])]), x, options.repeats)
        for x in pictures
    ]
    print(f"{'RandomAffine, one by one':24}" + "".join(f"{found:16.0f}" for found in times))


if __name__ == "__main__":
    main()
