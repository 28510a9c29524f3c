"""Shards: the numbers of decoding in memory, interruption, damage, full disks, other arguments."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from lmn_graph import data
from lmn_graph.data import Encoder, _preprocess
from lmn_graph.data._pictures import decode as decode_pictures
from lmn_graph.data._shards import read_record
from lmn_graph.patches import patchify
from lmn_graph.training.splits import digest

Pictures = Callable[..., None]
PARTS = ("train", "validation", "test")


@pytest.fixture
def photos(tmp_path: Path, write_pictures: Pictures) -> Path:
    """25 + 25 pictures."""
    write_pictures(tmp_path / "photos", ("cat", "dog"), 25, size=12)
    return tmp_path / "photos"


def make(photos: Path, out: Path, **options: object) -> Path:
    return data.preprocess(data.folder.listing(photos), out, **{"size": 10, "mode": "RGB", "shard_size": 8, **options})


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("patch", [None, 4, 5], ids=["whole", "with a margin", "without"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_shards_hold_the_numbers_of_decoding(mode: str, patch: int | None, photos: Path, tmp_path: Path) -> None:
    """Every form, mapped and in memory, in any order, bit for bit; new pictures become the rows that training saw."""
    held = data.load(photos, size=10, mode=mode)
    out = make(photos, tmp_path / "out", mode=mode, patch=patch)
    for memory in (False, True):
        for form in ("auto", "pictures", *(("patches",) if patch else ())):
            read = data.load(out, memory=memory, form=form, verify=memory)
            cut = patch is not None and form != "pictures"
            assert isinstance(read.train.x, torch.Tensor) == memory
            assert (read.name, read.classes) == (held.name, held.classes)
            assert read.encoder == Encoder.from_dict(json.loads(json.dumps(read.encoder.to_dict())))
            for part in PARTS:
                one, two = getattr(held, part), getattr(read, part)
                expected = patchify(one.x, patch) if cut else one.x
                order = torch.randperm(len(one), generator=torch.Generator().manual_seed(0))
                found = two.x[order]
                assert found.is_contiguous()
                assert torch.equal(found, expected[order])
                assert torch.equal(one.y, two.y)
            new = read.encoder.encode(photos / "cat").x
            assert {row.numpy().tobytes() for row in new} <= {row.numpy().tobytes() for part in PARTS for row in getattr(read, part).x[:]}


def test_patches_of_arrays_and_of_records_before_there_were_patches(tmp_path: Path, photos: Path) -> None:
    """An .npz of whole pictures is cut; the record of whole pictures says nothing of patches, and older ones are read."""
    encoder = data.load(make(photos, tmp_path / "out", patch=4)).encoder
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 10, 10), dtype=np.uint8)
    np.savez(tmp_path / "new.npz", x=x)
    expected = torch.zeros(3, 3, 12, 12)
    expected[:, :, :10, :10] = torch.from_numpy((x / 255).astype(np.float32))
    found = encoder.encode(tmp_path / "new.npz").x
    assert found.shape == (3, *encoder.in_shape) == (3, 3, 3, 3, 4, 4)
    assert torch.equal(found[1, 2, 0, 1], expected[1, 1, 8:12, 0:4])
    whole = data.load(photos).encoder
    assert "patch" not in whole.to_dict()
    assert Encoder.from_dict(whole.to_dict()) == whole
    with pytest.raises(ValueError, match=r"damaged.*patch must be an integer >= 1"):
        Encoder.from_dict({**encoder.to_dict(), "patch": 0})


def test_rows_and_files_are_where_the_record_says(photos: Path, tmp_path: Path) -> None:
    """Shards of eight rows, the last one smaller, as plain safetensors."""
    out = make(photos, tmp_path / "out")
    splits = data.load(photos, size=10, mode="RGB")
    assert sorted(content(out)) == sorted(
        ["shards.json", *(f"train-0000{i}.safetensors" for i in range(5)), "validation-00000.safetensors"]
        + [f"test-0000{i}.safetensors" for i in range(2)]
    )
    last = load_file(out / "train-00004.safetensors")
    assert last["x"].shape == (4, 3, 10, 10)
    assert last["x"].dtype == np.uint8
    assert torch.equal(torch.from_numpy(last["x"]).float() / 255, splits.train.x[32:])
    assert last["y"].tolist() == splits.train.y[32:].tolist()


def test_nothing_is_kept_open_and_nothing_written(photos: Path, tmp_path: Path) -> None:
    out = make(photos, tmp_path / "out", shard_size=1)
    before = content(out)
    opened = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    splits = data.load(out)
    x = splits.train.x[:]
    x.zero_()
    if opened:
        assert len(os.listdir("/proc/self/fd")) == opened
    assert splits.train.x[:].max() > 0
    assert content(out) == before


class Interrupt:
    """Lets so many calls of a function through, then raises; counts them."""

    def __init__(self, function: Callable, calls: int, error: BaseException | None = None) -> None:
        self.function, self.calls, self.error, self.made = function, calls, error, 0

    def __call__(self, *arguments: object, **options: object) -> object:
        if self.made == self.calls and self.error is not None:
            raise self.error
        self.made += 1
        return self.function(*arguments, **options)


@pytest.mark.parametrize("calls", [0, 1, 4, 7])
def test_what_was_interrupted_goes_on(calls: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the shards that are missing are decoded, and the folder is that of an undisturbed run, byte for byte."""
    alone = make(photos, tmp_path / "alone")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(_preprocess, "decode", Interrupt(_preprocess.decode, calls, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            make(photos, out)
    assert not list(out.glob(".*"))
    if calls:
        with pytest.raises(ValueError, match="is not finished; run lmn preprocess"):
            data.load(out)
    with monkeypatch.context() as patch:
        counted = Interrupt(_preprocess.decode, -1)
        patch.setattr(_preprocess, "decode", counted)
        make(photos, out)
    assert counted.made == 8 - calls
    assert content(out) == content(alone)


def test_what_is_finished_is_left_as_it_is(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make(photos, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    monkeypatch.setattr(_preprocess, "decode", Interrupt(_preprocess.decode, 0, AssertionError("decoded again")))
    make(photos, out, verify=True)
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[-90] ^= 1
    path.write_bytes(held)


def _swap(path: Path) -> None:
    other = path.with_name("train-00002.safetensors")
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def _head(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"train-00001\.safetensors is damaged \(\d+ bytes, \d+ were expected\); run lmn preprocess"),
        (_swap, r"train-00001\.safetensors is damaged \(its header is not that of train-00001\.safetensors\); run lmn preprocess"),
        (_head, r"train-00001\.safetensors is damaged .*; run lmn preprocess"),
        (Path.unlink, r"train-00001\.safetensors is missing; run lmn preprocess"),
        (_flip, ""),
    ],
)
def test_a_damaged_shard_is_named_and_made_anew(damage: Callable[[Path], None], message: str, photos: Path, tmp_path: Path) -> None:
    """Sizes and headers are looked at by every load, every byte on request; the same command makes the same shard again."""
    out = make(photos, tmp_path / "out")
    before, known = content(out), digest(data.load(out))
    damage(out / "train-00001.safetensors")
    if message:
        with pytest.raises(ValueError, match=message):
            data.load(out)
    for check in (lambda: data.load(out, verify=True), lambda: data.verify_shards(out)):
        with pytest.raises(ValueError, match=r"train-00001\.safetensors is (damaged \(SHA-256 .*|damaged \(\d+ bytes.*|missing); run lmn"):
            check()
    make(photos, out)
    assert content(out) == before
    assert digest(data.load(out)) == known
    assert data.verify_shards(out).complete


def test_a_shard_of_other_tensors_is_refused(photos: Path, tmp_path: Path) -> None:
    """One whose size, name and checksum are right, and whose tensors are not those of the record."""
    out = make(photos, tmp_path / "out")
    path, file = out / "test-00001.safetensors", out / "shards.json"
    held = load_file(path)
    save_file({"x": held["x"].reshape(len(held["x"]), 3, 4, 25), "y": held["y"]}, path, {"name": path.name})
    record = json.loads(file.read_text())
    record["splits"]["test"][1]["size"] = path.stat().st_size
    file.write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"test-00001\.safetensors is damaged \(x is torch\.uint8 \[2, 3, 4, 25\], torch\.uint8 \[2, 3, 10, 10\] was"
    ):
        data.load(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 11}, r"holds shards made with size=10, now it is 11: choose another folder, or delete this one"),
        ({"mode": "L"}, "mode='RGB', now it is 'L'"),
        ({"patch": 5}, "patch=None, now it is 5"),
        ({"shard_size": 9}, "shard_size=8, now it is 9"),
        ({"broken": "skip"}, "broken='fatal', now it is 'skip'"),
        ({"size": 0}, "size must be an integer in"),
        ({"patch": 0}, "patch must be an integer >= 1, got 0"),
        ({"shard_size": 0}, "shard_size must be an integer >= 1, got 0"),
        ({"verify": "yes"}, "verify must be True or False, got 'yes'"),
    ],
)
def test_other_arguments_are_refused(options: dict, message: str, photos: Path, tmp_path: Path) -> None:
    out = make(photos, tmp_path / "out")
    before = content(out)
    with pytest.raises(ValueError, match=message):
        make(photos, out, **options)
    assert content(out) == before


def test_other_pictures_and_other_folders_are_refused(photos: Path, tmp_path: Path, write_pictures: Pictures) -> None:
    out = make(photos, tmp_path / "out")
    write_pictures(photos, ("cat",), 1, size=12, seed=5)
    with pytest.raises(ValueError, match=r"holds shards made with pictures='\w+', now it is '\w+'"):
        make(photos, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "full" / ".film.part").write_text("half")
    with pytest.raises(ValueError, match=r"full' must not exist, be empty, or hold shards of the same pictures"):
        make(photos, tmp_path / "full")
    with pytest.raises(ValueError, match=r"thesis\.txt' cannot be made or written"):
        make(photos, tmp_path / "full" / "thesis.txt")
    assert content(tmp_path / "full") == {"thesis.txt": b"years of work", ".film.part": b"half"}


def test_a_write_that_fails_leaves_whole_shards(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full after three shards: the path, nothing half written, and the same command goes on."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Interrupt(os.fsync, 6, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(
            ValueError, match=r"train-00003\.safetensors cannot be written: No space left on device; .* the same again goes on"
        ):
            make(photos, out)
    assert sorted(content(out)) == ["shards.json", "train-00000.safetensors", "train-00001.safetensors", "train-00002.safetensors"]
    make(photos, out)
    assert content(out) == content(make(photos, tmp_path / "alone"))


def test_the_record_is_on_the_disk_as_the_shards_are(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it takes its place: what a crash of the machine leaves is whole."""
    synced, sync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), sync(handle)))
    out = make(photos, tmp_path / "out", shard_size=30)
    assert {path.stat().st_ino for path in out.iterdir()} <= synced


def test_two_at_a_time_are_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second, while the first one decodes; the first goes on, and then the folder is free."""
    out, decode = tmp_path / "out", _preprocess.decode

    def second(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(_preprocess, "decode", decode)
        (out / ".train-00000-1a2b3c4d.part").write_bytes(b"what the first has open")
        with pytest.raises(ValueError, match=r"another lmn preprocess is at work in .*out"):
            make(photos, out)
        assert (out / ".train-00000-1a2b3c4d.part").exists()
        return decode(*arguments, **options)

    monkeypatch.setattr(_preprocess, "decode", second)
    make(photos, out)
    make(photos, out)
    assert content(out) == content(make(photos, tmp_path / "alone"))


def test_names_that_are_no_text(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record keeps what cannot be read, also where its name is not UTF-8."""

    def without_first(paths: list[Path], size: tuple[int, int], mode: str, skip: bool) -> tuple:
        return *decode_pictures(paths[1:], size, mode)[:2], "caf\udce9.png is broken"

    monkeypatch.setattr(_preprocess, "decode", without_first)
    with pytest.warns(UserWarning, match="8 of 50 pictures cannot be read") as found:
        out = make(photos, tmp_path / "out", broken="skip")
    assert {warning.filename for warning in found} == {__file__}
    assert read_record(out).shards["train"][0].error == "caf\udce9.png is broken"


def test_what_killed_processes_left_is_removed(photos: Path, tmp_path: Path) -> None:
    """Of a folder without a single shard, and of one with some."""
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        (out / ".train-00000-1a2b3c4d.part").write_bytes(b"half")
        make(photos, out)
        assert not list(out.glob(".*"))


def test_a_file_that_the_system_cuts_off_is_not_kept(photos: Path, tmp_path: Path) -> None:
    """A real limit on the size of files, in the middle of a shard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(ValueError, match=r"train-00000\.safetensors cannot be written: File too large"):
            make(photos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(tmp_path / "out") == {}


def test_a_disk_that_is_too_small_is_noticed_first(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 14_000))
    with pytest.raises(ValueError, match=r"out' would take 0\.0 GiB more, of which 0\.0 GiB are free there"):
        make(photos, tmp_path / "out")
    make(photos, tmp_path / "grey", mode="L")


def test_broken_pictures(photos: Path, tmp_path: Path) -> None:
    """Fatal: named. Skipped: the rows, the name and the warning of reading into memory; also a shard of nothing else; again and again."""
    for number in range(0, 25, 2):
        (photos / "dog" / f"1f{number:03x}.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"dog/1f\w+\.png is not a picture that can be read"):
        make(photos, tmp_path / "fatal")
    with pytest.warns(UserWarning, match="13 of 50 pictures cannot be read"):
        held = data.load(photos, size=10, mode="RGB", broken="skip")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"13 of 50 pictures cannot be read and are left out; the first: .*dog/1f\w+\.png"):
            out = make(photos, tmp_path / "out", broken="skip", shard_size=1)
    read = data.load(out)
    assert read.name == held.name == "photos (13 broken pictures left out)"
    for part in PARTS:
        assert torch.equal(getattr(read, part).x[:], getattr(held, part).x)
        assert torch.equal(getattr(read, part).y, getattr(held, part).y)


def test_a_class_that_is_broken_altogether_is_refused(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"training picture.* of class 'dog' can be read"):
            make(photos, tmp_path / "out", broken="skip")
    with pytest.raises(ValueError, match="is not finished"):
        data.load(tmp_path / "out")


def _set(*keys: object, value: object) -> Callable[[dict], None]:
    def change(record: dict) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", value=2), "format must be 1, got 2"),
        (_set("encoder", "kind", value="pickle"), "pickle"),
        (_set("encoder", value={}), "encoder record"),
        (_set("encoder", "size", value=[10]), "damaged"),
        (_set("encoder", "size", value=[10.0, 10.0]), r"size must be an integer >= 1, got 10\.0"),
        (_set("encoder", "mode", value="CMYK"), "mode must be one of"),
        (_set("encoder", "target", "classes", value=[1, 2]), r"classes must be a list of names, got \[1, 2\]"),
        (_set("encoder", "target", "classes", value="ab"), r"classes must be a list of names, got \\*'ab"),
        (lambda record: record["splits"]["train"].append(record["splits"]["train"][1]), r"train-00001\.safetensors is listed twice"),
        (_set("complete", value="yes"), "complete must be"),
        (_set("splits", value={}), "splits must be train, validation, test"),
        (_set("splits", "train", 0, "name", value="../../secrets-00000.safetensors"), "is no shard of train"),
        (_set("splits", "train", 0, "name", value="test-00000.safetensors"), "is no shard of train"),
        (_set("splits", "train", 0, "rows", value=-1), "rows must be an integer >= 0"),
        (_set("splits", "train", 0, "rows", value=7), r"x is torch\.uint8 \[8, 3, 10, 10\], torch\.uint8 \[7, 3, 10, 10\] was expected"),
        (_set("splits", "train", 0, "colour", value=1), "colour"),
        (_set("splits", "train", value=[]), r"shards \[\] of train"),
    ],
)
def test_a_damaged_record_is_refused(change: Callable[[dict], None], message: str, photos: Path, tmp_path: Path) -> None:
    out = make(photos, tmp_path / "out")
    record = json.loads((out / "shards.json").read_text())
    change(record)
    (out / "shards.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message) as found:
        data.load(out)
    assert str(out) in str(found.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\xff", "[" * 100_000], ids=["empty", "list", "half", "null", "bytes", "deep"])
def test_a_record_that_is_none_is_refused(text: str, photos: Path, tmp_path: Path) -> None:
    out = make(photos, tmp_path / "out")
    (out / "shards.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"shards\.json is damaged .* make them again"):
        data.load(out)


def test_options_of_shards(photos: Path, tmp_path: Path) -> None:
    out = make(photos, tmp_path / "out")
    with pytest.raises(ValueError, match=r"form must be 'auto' or 'pictures' of .*whole pictures"):
        data.load(out, form="patches")
    with pytest.raises(ValueError, match="form must be one of 'auto', 'pictures', 'patches', got 'tensors'"):
        data.load(out, form="tensors")
    with pytest.raises(ValueError, match="has no option 'memroy'; did you mean 'memory'"):
        data.load(out, memroy=True)
    with pytest.raises(ValueError, match=r"photos is not a folder of shards: shards\.json is missing"):
        data.shards(photos)


def test_making_takes_the_memory_of_a_shard(tmp_path: Path, write_pictures: Pictures) -> None:
    """Not that of all pictures: the peak stays where it is for four times as many."""
    write_pictures(tmp_path / "few", ("cat", "dog"), 10)
    write_pictures(tmp_path / "many", ("cat", "dog"), 40)
    peaks = []
    for name in ("few", "few", "many"):  # the first one also imports
        listing = data.folder.listing(tmp_path / name)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        tracemalloc.start()
        try:
            data.preprocess(listing, tmp_path / "out", size=160, mode="RGB", shard_size=4)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert 4 * 3 * 160 * 160 < peaks[2] < 1.2 * peaks[1]


def test_pixels_of_a_picture_of_known_values(tmp_path: Path) -> None:
    """A grey ramp: value v becomes v / 255 where it stands."""
    ramp = np.arange(100, dtype=np.uint8).reshape(10, 10)
    for name in ("a", "b"):
        (tmp_path / "ramps" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(ramp + 7 * number).save(tmp_path / "ramps" / name / f"{number}.png")
    out = make(tmp_path / "ramps", tmp_path / "out", mode="L")
    rows = torch.cat([getattr(data.load(out), part).x[:] for part in PARTS])
    expected = torch.stack([torch.from_numpy(ramp + 7 * number).double() / 255 for number in range(4)] * 2).float()
    order = rows[:, 0, 0].argsort(stable=True)
    assert torch.equal(rows[order], expected[expected[:, 0, 0].argsort(stable=True)])
