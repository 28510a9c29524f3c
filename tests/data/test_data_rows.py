"""Rows that are read when they are asked for: the numbers of the same pictures in memory, in bounded memory, and a fingerprint."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lmn_graph import data
from lmn_graph.data import PictureEncoder, Rows, Split, Splits, Target, _listing
from lmn_graph.data._rows import ByteRows, FileRows, files_digest
from lmn_graph.data.base import chunks

Pictures = Callable[..., None]
TARGET = Target("class", ("cat", "dog"))


class Untouched(Rows):
    """Rows that nobody may read."""

    def take(self, rows: np.ndarray) -> torch.Tensor:
        raise AssertionError("rows were read")

    def fingerprint(self) -> str:
        return "untouched"


class Counted(Rows):
    """Row i is filled with i; remembers the largest number of rows that were asked for together."""

    largest = 0

    def take(self, rows: np.ndarray) -> torch.Tensor:
        self.largest = max(self.largest, len(rows))
        return torch.from_numpy(rows).float().view(-1, *[1] * (self.dim() - 1)).expand(-1, *self.shape[1:]).clone()

    def fingerprint(self) -> str:
        return "counted"


INDICES = {
    "all": slice(None),
    "slice": slice(3, 9),
    "every second": slice(2, 9, 2),
    "nothing": slice(5, 5),
    "beyond": slice(8, 99),
    "numbers": torch.tensor([7, 0, 7, -1]),
    "no numbers": torch.empty(0, dtype=torch.int64),
    "mask": torch.arange(11) % 3 == 0,
    "number": 4,
    "last": -1,
}


@pytest.mark.parametrize("index", list(INDICES.values()), ids=list(INDICES))
def test_rows_are_indexed_as_a_tensor_is(index: slice | torch.Tensor | int) -> None:
    """A slice, numbers, a mask, one number: what the tensor of the same rows gives."""
    rows = Counted(11, (2, 3))
    tensor = torch.arange(11.0).view(11, 1, 1).expand(11, 2, 3)
    assert torch.equal(rows[index], tensor[index])
    assert (len(rows), rows.dim(), rows.size(1), rows.shape, rows.dtype) == (11, 3, 2, tensor.shape, tensor.dtype)


@pytest.mark.parametrize(
    "index", [11, -12, torch.tensor([0, 11]), torch.tensor([0.5]), torch.tensor([[1]]), torch.ones(3, dtype=torch.bool)]
)
def test_rows_that_are_not_there_are_refused(index: torch.Tensor | int) -> None:
    with pytest.raises(IndexError, match=r"row numbers must be in 0 … 10|rows are taken by a number, a slice, numbers \[m\] or a mask"):
        Counted(11, (2, 3))[index]


def test_chunks_and_pieces_hold_every_row_once() -> None:
    rows = Counted(11, (2, 3))
    assert torch.equal(torch.cat(list(rows.split(4))), rows[:])
    assert [len(piece) for piece in rows.split(4)] == [4, 4, 3]
    large = Counted(9, (700, 700))
    assert [int(row) for chunk in chunks(large) for row in chunk[:, 0, 0]] == list(range(9))
    assert large.largest == 2  # 2²⁰ numbers at a time


def test_splits_are_made_without_reading_a_row() -> None:
    """Also of a Split as a plain dataset of torch."""
    parts = [Split(Untouched(4, (5, 5)), torch.tensor([0, 1, 0, 1])) for _ in range(3)]
    splits = Splits("pets", *parts, PictureEncoder(TARGET, (5, 5)))
    assert splits.describe() == "pets: 4 training, 4 validation, 4 test rows; input 5 × 5; 2 classes"
    with pytest.raises(ValueError, match=r"train rows have shape \(5, 5\), the encoder says \(6, 5\)"):
        Splits("pets", *parts, PictureEncoder(TARGET, (6, 5)))
    with pytest.raises(ValueError, match="same number of rows"):
        Split(Untouched(4, (5, 5)), torch.tensor([0]))
    loader = torch.utils.data.DataLoader(Split(Counted(4, (2, 2)), torch.arange(4)), batch_size=3, generator=torch.Generator())
    assert [x[:, 0, 0].tolist() for x, _ in loader] == [[0, 1, 2], [3]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_from_their_files_are_those_in_memory(mode: str, emoji_folder: Path) -> None:
    """The first of every split, bit for bit, in another order."""
    listing = data.folder.listing(emoji_folder)
    held, read = (_listing.read_first(listing, 30, size=9, mode=mode, memory=memory) for memory in (True, False))
    assert read.describe() == held.describe()
    assert read.encoder == held.encoder
    for part in ("train", "validation", "test"):
        one, two = getattr(held, part), getattr(read, part)
        order = torch.randperm(len(one), generator=torch.Generator().manual_seed(0))
        assert isinstance(two.x, FileRows)
        assert torch.equal(one.x[order], two.x[order])
        assert torch.equal(one.y, two.y)


def test_broken_pictures_are_skipped_or_named(tmp_path: Path, write_pictures: Pictures) -> None:
    """Skipped: the rows and the name that reading into memory gives. Fatal: an error when the batch asks."""
    write_pictures(tmp_path, ("cat", "dog"), 12)
    (tmp_path / "cat" / "1f003.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"1 of 24 pictures cannot be read and are left out; the first: .*1f003\.png") as first:
        held = data.load(tmp_path, size=4, broken="skip")
    with pytest.warns(UserWarning, match=r"1 of 24 pictures cannot be read and are left out; the first: .*1f003\.png") as second:
        read = data.load(tmp_path, size=4, broken="skip", memory=False)
    with pytest.warns(UserWarning, match="1 of 24 pictures") as third:
        data.folder(tmp_path, size=4, broken="skip")
    assert {warning.filename for found in (first, second, third) for warning in found} == {__file__}
    assert read.name == held.name
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(held, part).x, getattr(read, part).x[:])
        assert torch.equal(getattr(held, part).y, getattr(read, part).y)
    late = data.load(tmp_path, size=4, memory=False)
    with pytest.raises(ValueError, match=r"1f003\.png is not a picture that can be read"):
        [part.x[:] for part in (late.train, late.validation, late.test)]
    with pytest.raises(ValueError, match="memory must be True or False, got 'no'"):
        data.load(tmp_path, memory="no")


def test_the_fingerprint_is_that_of_the_files(tmp_path: Path, write_pictures: Pictures) -> None:
    """The same wherever the folder is and whatever the times; another if a file has other bytes, or if the order is another."""
    write_pictures(tmp_path / "one", ("cat",), 4)
    paths = sorted((tmp_path / "one").rglob("*.png"))
    first = FileRows(paths, (4, 4), "L").fingerprint()
    assert FileRows(paths, (4, 4), "L").fingerprint() == first
    assert FileRows(paths[::-1], (4, 4), "L").fingerprint() != first
    (tmp_path / "one").rename(tmp_path / "two")
    paths = sorted((tmp_path / "two").rglob("*.png"))
    assert FileRows(paths, (4, 4), "L").fingerprint() == first
    os.utime(paths[2], ns=(0, 0))
    assert FileRows(paths, (4, 4), "L").fingerprint() == first
    before = paths[2].read_bytes()
    for other in (before + b" ", before[:-1] + b" "):
        paths[2].write_bytes(other)
        assert FileRows(paths, (4, 4), "L").fingerprint() != first
    paths[0].unlink()
    with pytest.raises(ValueError, match=r"1f000\.png cannot be read: No such file"):
        FileRows(paths, (4, 4), "L").fingerprint()


def test_the_fingerprint_of_names_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are names of files too, and two of them are two."""
    names = [tmp_path / "caf\udce9.png", tmp_path / "caf\udce8.png"]
    for path in names:
        path.write_bytes(b"the same")
    one, other = (files_digest([path]) for path in names)
    assert one != other


def test_bytes_of_several_arrays_are_their_value_over_255() -> None:
    """All 256 values, of arrays of different lengths, one of them empty: the correctly rounded quotient."""
    values = np.arange(256, dtype=np.uint8).reshape(64, 2, 2)
    rows = ByteRows([values[:5], values[5:5], values[5:]], PictureEncoder(TARGET, (2, 2)), "key")
    exact = torch.tensor([value / 255 for value in range(256)], dtype=torch.float64).float().view(64, 2, 2)
    assert torch.equal(rows[:], exact)
    assert torch.equal(rows[torch.tensor([63, 5, 4, 0])], exact[[63, 5, 4, 0]])


def test_reading_takes_the_memory_of_what_is_asked_for(tmp_path: Path, write_pictures: Pictures) -> None:
    """Batch by batch over everything: at most four times what a batch has, of which the whole has twenty."""
    write_pictures(tmp_path, ("cat", "dog"), 100, size=20)
    splits = data.load(tmp_path, size=64, mode="RGB", memory=False)
    batch = 4 * 10 * 3 * 64 * 64
    splits.train.x[:1]
    tracemalloc.start()
    try:
        for _ in splits.train.x.split(10):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(splits.train) == 144
    assert batch < peak < 4 * batch
