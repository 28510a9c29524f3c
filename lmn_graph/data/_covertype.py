"""Covertype of the UCI repository: what grows on 30 m × 30 m of forest, from maps."""

from __future__ import annotations

import numpy as np
import torch

from topologies import _checks

from . import _numeric as numeric
from ._columns import TableEncoder
from ._download import check_sha256
from ._specimen import specimen
from ._splitting import divide, hold_out
from ._target import Target
from .base import DATASETS, Split, Splits

# The publisher's file, at the address and with the checksum that scikit-learn has for it.
URL = "https://ndownloader.figshare.com/files/5976039"
SHA256 = "614360d0257557dd1792834a85a1cdebfadc3c4f30b011d56afee7ffb5b15771"
FILES = ("covtype.data", "covtype.data.gz", "covertype.zip")
ROWS = 581_012
NUMBERS = (
    "Elevation",
    "Aspect",
    "Slope",
    "Horizontal_Distance_To_Hydrology",
    "Vertical_Distance_To_Hydrology",
    "Horizontal_Distance_To_Roadways",
    "Hillshade_9am",
    "Hillshade_Noon",
    "Hillshade_3pm",
    "Horizontal_Distance_To_Fire_Points",
)
FLAGS = (*(f"Wilderness_Area{i}" for i in range(1, 5)), *(f"Soil_Type{i}" for i in range(1, 41)))
NAMES = (*NUMBERS, *FLAGS, "Cover_Type")
CLASSES = ("Spruce/Fir", "Lodgepole Pine", "Ponderosa Pine", "Cottonwood/Willow", "Aspen", "Douglas-fir", "Krummholz")


@DATASETS.register
@specimen(lambda options: TableEncoder(Target.classification("Cover_Type", CLASSES), numeric.number_columns(NAMES[:-1])))
def covertype(
    root: str = "data",
    *,
    path: str | None = None,
    download: bool = False,
    rows: int | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Seven kinds of forest on 581,012 patches: x float32 [n, 54], ten numbers scaled on the training rows and 44 that are 0 or 1.

    A user's table has the publisher's columns: Elevation and the other nine numbers, Wilderness_Area1 … 4 and Soil_Type1 … 40.

    Args:
        root: folder that holds (or gets, with download) covtype.data, covtype.data.gz or covertype.zip.
        path: one of these files itself; root and download are of no effect then.
        download: fetch covtype.data.gz (11 MB) if no file is there, and check it; otherwise nothing is fetched.
        rows: number of training rows; None: all that are not for validation or test.
        test_fraction: share of all rows, in (0, 0.9].
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, or the line and column that is wrong.
    """
    numeric.check_source(root, download)
    if rows is not None:
        _checks.integer("rows", rows, minimum=len(CLASSES))
    _checks.number("test_fraction", test_fraction, above=0, maximum=0.9)
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    _checks.integer("seed", seed, minimum=0)
    fetch = numeric.fetcher("Covertype", URL, FILES[1], check_sha256(SHA256), download)
    file = numeric.locate("Covertype", root, path, FILES, url=URL, fetch=fetch, volume="11 MB")

    def _check(line: int, block: np.ndarray) -> None:
        flags, kind = block[:, len(NUMBERS) : -1], block[:, -1:]
        numeric.refuse(file, line, FLAGS, flags, (flags != 0) & (flags != 1), "0 or 1")
        numeric.refuse(file, line, NAMES[-1:], kind, (kind != np.floor(kind)) | (kind < 1) | (kind > len(CLASSES)), "a class from 1 to 7")

    values = numeric.table(file, NAMES, FILES[:2], ROWS, _check)
    words = [CLASSES[number - 1] for number in values[:, -1].astype(np.int64).tolist()]
    target, y, (train, validation, test) = divide(
        "Cover_Type",
        words,
        np.empty((0, 1)),
        classes=CLASSES,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    if rows is not None:
        if rows > len(train):
            raise ValueError(f"rows {rows} must fit into the {len(train)} rows that are not for validation or test")
        _, train = hold_out(train, rows, np.random.default_rng(seed), y.numpy(), leave=0)
    inputs = values[:, :-1]
    mean, scale = numeric.moments_of(inputs, train)
    mean[len(NUMBERS) :], scale[len(NUMBERS) :] = 0, 1
    parts = []
    for part in (train, validation, test):
        x = np.concatenate(list(numeric.scaled(inputs, part, mean, scale)))
        parts.append(Split(torch.from_numpy(x), y[part]))
    encoder = TableEncoder(target, numeric.number_columns(NAMES[:-1], mean, scale))
    return Splits("covertype", parts[0], parts[1], parts[2], encoder)
