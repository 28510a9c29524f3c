"""YearPredictionMSD of the UCI repository: the year of a song from averages and covariances of its timbre."""

from __future__ import annotations

import numpy as np
import torch

from topologies import _checks

from . import _numeric as numeric
from ._columns import TableEncoder
from ._download import check_zip
from ._specimen import specimen
from ._target import Target
from .base import DATASETS, Split, Splits

URL = "https://archive.ics.uci.edu/static/public/203/yearpredictionmsd.zip"
FILES = ("YearPredictionMSD.txt", "yearpredictionmsd.zip", "YearPredictionMSD.txt.zip")
FEATURES = (*(f"average {i}" for i in range(1, 13)), *(f"covariance {i}" for i in range(1, 79)))
NAMES = ("year", *FEATURES)
TRAIN_ROWS = 463_715  # the publisher's: no artist is among these and among the rows that follow
TEST_ROWS = 51_630


@DATASETS.register(name="year-prediction-msd")
@specimen(lambda options: TableEncoder(Target("year", None, (1998.0,), (11.0,)), numeric.number_columns(FEATURES)))
def year_prediction_msd(
    root: str = "data",
    *,
    path: str | None = None,
    download: bool = False,
    rows: int | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Release years 1922 … 2011 of 515,345 songs, a regression on 90 numbers: x float32 [n, 90], scaled on the training rows.

    The publisher's last 51,630 rows are the test split; validation rows are drawn from the others. Predictions come back as years. A
    user's table has the columns average 1 … average 12 and covariance 1 … covariance 78 of the timbre, in the publisher's order.

    Args:
        root: folder that holds (or gets, with download) YearPredictionMSD.txt, or the .zip with it.
        path: one of these files itself; root and download are of no effect then.
        download: fetch UCI's .zip (about 200 MB) if no file is there, and check it; otherwise nothing is fetched.
        rows: number of training rows; None: all that are not for validation.
        validation_fraction: share of training and validation rows together, in (0, 0.9].
        seed: seed of the choice of rows.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, or the line and column that is wrong.
    """
    numeric.check_source(root, download)
    if rows is not None:
        _checks.integer("rows", rows, minimum=2)
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    _checks.integer("seed", seed, minimum=0)
    fetch = numeric.fetcher("YearPredictionMSD", URL, FILES[1], check_zip, download)
    file = numeric.locate("YearPredictionMSD", root, path, FILES, url=URL, fetch=fetch, volume="about 200 MB")
    train, validation = numeric.draw(TRAIN_ROWS, rows=rows, validation_fraction=validation_fraction, seed=seed)

    def _check(line: int, block: np.ndarray) -> None:
        year = block[:, :1]
        numeric.refuse(file, line, NAMES, block, (year != np.floor(year)) | (year < 1000) | (year > 3000), "a year")

    values = numeric.table(file, NAMES, FILES[:1], TRAIN_ROWS + TEST_ROWS, _check)
    years, timbre = values[:, :1].astype(np.float64), values[:, 1:]
    target = Target.regression("year", years[train])
    mean, scale = numeric.moments_of(timbre, train)
    parts = []
    for part in (train, validation, np.arange(TRAIN_ROWS, len(values))):
        x = np.concatenate(list(numeric.scaled(timbre, part, mean, scale)))
        parts.append(Split(torch.from_numpy(x), target.encode_numbers(years[part])))
    encoder = TableEncoder(target, numeric.number_columns(FEATURES, mean, scale))
    return Splits("year-prediction-msd", parts[0], parts[1], parts[2], encoder)
