"""Helena of the AutoML challenge: 65,196 rows, 27 numbers, 100 classes; an .arff file, or OpenML's copy by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topologies import _checks

from . import _openml as openml
from ._arff import ArffFile, read_arff
from ._columns import Column, TableEncoder
from ._specimen import specimen
from ._table import fit_table
from ._target import Target, whole_words
from .base import DATASETS, Splits

OPENML_ID = 41169
FEATURES = tuple(f"V{i}" for i in range(1, 28))
CLASSES = 100


@DATASETS.register
@specimen(lambda options: TableEncoder(Target.classification("class", [str(i) for i in range(CLASSES)]), _columns()))
def helena(
    root: str = "data",
    *,
    path: str | None = None,
    download: bool = False,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Helena, 27 numbers and 100 classes: x float32 [n, 27], scaled on the training rows as any table is.

    Args:
        root: folder that holds (or gets, with download) OpenML's copy in openml/.
        path: an .arff file of it, with the attributes class and V1 … V27 in any order; root and download are of no effect then.
        download: fetch OpenML's copy if it is missing; otherwise nothing is fetched.
        test_fraction: share of all rows, in (0, 0.9].
        validation_fraction: share of the remaining rows, in (0, 0.9].
        seed: seed of the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument, or the files that are missing or damaged and where to get them.
    """
    if not isinstance(root, (str, Path)) or not str(root):
        raise ValueError(f"root must be the name of a folder, got {root!r}")
    _checks.flag("download", download)
    _checks.number("test_fraction", test_fraction, above=0, maximum=0.9)
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    _checks.integer("seed", seed, minimum=0)
    file = _read_openml(Path(root).expanduser(), download) if path is None else read_arff(path, text=["class"])
    if set(file.header) != {"class", *FEATURES}:
        raise ValueError(f"{file.path}: Helena has the attributes class and V1 … V27, got {', '.join(file.header)}"[:300])
    return fit_table(
        "helena",
        file,
        "class",
        task="classification",
        dropped=[],
        categorical=[],
        separator=None,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )


@dataclass(frozen=True)
class _OpenmlFile(ArffFile):
    """Rows that came from OpenML: there is no line of a file to name."""

    def where(self, row: int) -> str:
        return f"{self.path}, row {row}"


def _read_openml(root: Path, download: bool) -> ArffFile:
    import pandas

    bunch = openml.fetch("Helena", OPENML_ID, root, download, "path=, a local .arff file", "float64")
    frame = pandas.DataFrame(bunch.data, columns=list(bunch.feature_names))
    frame["class"] = np.array(whole_words(np.asarray(bunch.target, dtype=np.float64)), dtype=object)
    return _OpenmlFile(root / "openml", ",", list(frame.columns), frame, frozenset(["class"]))


def _columns() -> tuple[Column, ...]:
    return tuple(Column(name, "number") for name in FEATURES)
