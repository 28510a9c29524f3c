"""Lists of picture files: what they must be, and a third party's dataset that is made of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmn_graph import data
from lmn_graph.data import Listed, Listing, Splits, Target

TARGET = Target.classification("class", ("cat", "dog"))


def _listed(*labels: int, kind: Any = np.int64) -> Listed:
    return Listed([Path(f"{i}.png") for i in range(len(labels))], np.array(labels, dtype=kind))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (_listed(), "pets: test has no pictures"),
        (_listed(0, 2), r"pets: test labels must be in 0 … 1, got 0 … 2"),
        (_listed(-1, 0), r"pets: test labels must be in 0 … 1, got -1 … 0"),
        (_listed(0, 1, kind=np.int32), r"pets: test labels must be int64 \[2\], got int32 \[2\]"),
        (Listed([Path("a.png")], np.array([0, 1])), r"pets: test labels must be int64 \[1\], got int64 \[2\]"),
    ],
)
def test_listings_that_are_none(test: Listed, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Listing("pets", _listed(0, 1), _listed(0, 1), test, TARGET)


def test_rows_of_a_list_keep_their_labels() -> None:
    paths, labels = _listed(0, 1, 1, 0).at(np.array([3, 1]))
    assert paths == [Path("3.png"), Path("1.png")]
    assert labels.tolist() == [0, 1]


def _list_pets(root: str, seed: int) -> Listing:
    if seed < 0:
        raise ValueError("seed must be >= 0")
    found = [(path, number) for number, name in enumerate(("cat", "dog")) for path in sorted(Path(root, name).glob("*.png"))]
    order = np.random.default_rng(seed).permutation(len(found))
    all_of_them = Listed([path for path, _ in found], np.array([number for _, number in found], dtype=np.int64))
    parts = (all_of_them.at(rows) for rows in np.split(order, [len(found) - 8, len(found) - 4]))
    return Listing("pets", *parts, TARGET)


@data.listed(_list_pets)
def pets(root: str = "data", *, size: int = 6, mode: str = "RGB", broken: Any = "fatal", memory: bool = True, seed: int = 0) -> Splits:
    data.check_reading(size=size, mode=mode, broken=broken, memory=memory)
    return data.read_listing(_list_pets(root, seed), size=size, mode=mode, broken=broken, memory=memory)


def test_a_third_partys_pictures(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    """Listed with the defaults of the dataset; in memory or not the same rows; broken pictures are skipped; wrong options refused."""
    write_pictures(tmp_path, ("cat", "dog"), 12)
    splits, later = pets(str(tmp_path), seed=2), pets(str(tmp_path), seed=2, memory=False)
    listing = pets.listing(str(tmp_path), seed=2, size=9)
    for part in ("train", "validation", "test"):
        x = splits.encoder.encode(tmp_path).x
        names = splits.encoder.encode(tmp_path).names
        rows = [names.index(f"{path.parent.name}/{path.name}") for path in getattr(listing, part).paths]
        assert torch.equal(getattr(splits, part).x, x[rows])
        assert torch.equal(getattr(later, part).x[:], x[rows])
        assert getattr(later, part).y.tolist() == getattr(splits, part).y.tolist()
    defaults = pets.listing(str(tmp_path))
    assert [path.name for path in defaults.test.paths] != [path.name for path in listing.test.paths]
    assert [path.name for path in defaults.test.paths] == [path.name for path in _list_pets(str(tmp_path), 0).test.paths]
    (tmp_path / "dog" / "1f003.png").write_bytes(b"")
    for memory in (True, False):
        with pytest.warns(UserWarning, match="pets: 1 of 24 pictures cannot be read and are left out"):
            left = pets(str(tmp_path), broken="skip", memory=memory)
        assert len(left.train) + len(left.validation) + len(left.test) == 23
    for options, message in (({"size": 5000}, "size must be"), ({"memory": 1}, "memory must be"), ({"mode": "P"}, "mode must be")):
        with pytest.raises(ValueError, match=message):
            pets("nowhere", **options)
    with pytest.raises(ValueError, match="seed must be >= 0"):
        pets.listing(str(tmp_path), seed=-1)
    with pytest.raises(TypeError, match="sead"):
        pets.listing(str(tmp_path), sead=1)
