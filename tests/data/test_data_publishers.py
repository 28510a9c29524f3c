"""year-prediction-msd, covertype and higgs from small files in the publishers' formats; HIGGS without ever holding its rows."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lmn_graph import data
from lmn_graph.data import Encoder, Splits, _covertype, _higgs, _numeric, _year_prediction_msd
from lmn_graph.data import base as data_base
from lmn_graph.training.splits import digest

YEAR_ROWS = (400, 60)
SMALL = {"year-prediction-msd": {}, "covertype": {}, "higgs": {"test_rows": 300}}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row counts of the small files in place of the published ones, and blocks of which they have several."""
    monkeypatch.setattr(_year_prediction_msd, "TRAIN_ROWS", YEAR_ROWS[0])
    monkeypatch.setattr(_year_prediction_msd, "TEST_ROWS", YEAR_ROWS[1])
    monkeypatch.setattr(_covertype, "ROWS", 700)
    monkeypatch.setattr(_numeric, "BLOCK", 20_000)
    monkeypatch.setattr(_numeric, "CHUNK", 64)


@functools.cache
def _year_text(seed: int = 0) -> str:
    """As the publisher writes them: the year, then numbers with five decimals, no spaces, no header."""
    generator = np.random.default_rng(seed)
    count = sum(YEAR_ROWS)
    years = np.clip(2011 - generator.exponential(12, count).astype(int), 1922, 2011)
    timbre = generator.normal(0, 1, (count, 90)) * np.geomspace(5, 5000, 90) + np.linspace(-50, 50, 90) + years[:, None] / 10
    return "".join(f"{year},{','.join(f'{value:.5f}' for value in row)}\n" for year, row in zip(years.tolist(), timbre.tolist()))


@functools.cache
def _covertype_text(seed: int = 0) -> str:
    """As the publisher writes them: whole numbers, four and forty columns of which one is 1, the class 1 … 7."""
    generator = np.random.default_rng(seed)
    rows = []
    for kind in generator.permutation(np.arange(700) % 7 + 1).tolist():
        flags = np.zeros(44, dtype=int)
        flags[[generator.integers(4), 4 + generator.integers(40)]] = 1
        numbers = (generator.normal(0, 1, 10) * np.geomspace(10, 1000, 10)).astype(int) + 100 * kind
        rows.append(",".join(map(str, [*numbers.tolist(), *flags.tolist(), kind])))
    return "\n".join(rows) + "\n"


@functools.cache
def _higgs_text(count: int = 2000, seed: int = 0) -> str:
    """As the publisher writes them: the label, then numbers of single precision, all with 18 decimals."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, count)
    values = generator.lognormal(0, 0.5, (count, 28)).astype(np.float32) + label[:, None].astype(np.float32)
    stream = io.StringIO()
    np.savetxt(stream, np.column_stack([label, values]), fmt="%.18e", delimiter=",")
    return stream.getvalue()


TEXTS: dict[str, tuple[str, Callable[[], str]]] = {
    "year-prediction-msd": ("YearPredictionMSD.txt", _year_text),
    "covertype": ("covtype.data", _covertype_text),
    "higgs": ("HIGGS.csv", _higgs_text),
}


@pytest.fixture(params=list(TEXTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _load(name: str, folder: Path, **options: Any) -> Splits:
    return data.load(name, **({"root": str(folder)} | SMALL[name] | options))


def _write(name: str, root: Path) -> tuple[Path, np.ndarray]:
    file, text = TEXTS[name]
    (root / file).write_text(text())
    return root / file, np.array([[float(word) for word in line.split(",")] for line in text().splitlines()])


def test_files_packed_or_not_are_the_same_data(name: str, tmp_path: Path) -> None:
    """The text, a .gz, a .zip of the text and, as UCI packs HIGGS, a .zip of the .gz; by root and by path."""
    file, _ = _write(name, tmp_path)
    plain = _load(name, tmp_path)
    packed = {"a.gz": gzip.compress(file.read_bytes())}
    for archive, member, content in (("a.zip", file.name, file.read_bytes()), ("b.zip", f"{file.name}.gz", packed["a.gz"])):
        with zipfile.ZipFile(tmp_path / archive, "w", zipfile.ZIP_DEFLATED) as writer:
            writer.writestr("readme.txt", "")
            writer.writestr(member, content)
    (tmp_path / "a.gz").write_bytes(packed["a.gz"])
    for other in ("a.gz", "a.zip", *(["b.zip"] if name != "year-prediction-msd" else [])):
        splits = _load(name, tmp_path / "nowhere", path=str(tmp_path / other))
        assert splits.encoder == plain.encoder
        assert all(torch.equal(a, b) for part in ("train", "validation", "test") for a, b in _pairs(splits, plain, part))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as writer:
        writer.writestr("readme.txt", "")
    with pytest.raises(ValueError, match=r"c.zip holds none of .*, but readme.txt"):
        _load(name, tmp_path, path=str(tmp_path / "c.zip"))


def _pairs(one: Splits, two: Splits, part: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(getattr(one, part).tensors, getattr(two, part).tensors, strict=True)


def test_year_prediction_keeps_the_publishers_split(tmp_path: Path) -> None:
    """The last rows are the test split, in order; all is scaled by what scikit-learn finds on the training rows; years come back."""
    from sklearn.preprocessing import StandardScaler

    _, values = _write("year-prediction-msd", tmp_path)
    splits = _load("year-prediction-msd", tmp_path)
    assert splits.task == "regression"
    assert splits.in_shape == (90,)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (360, 40, 60)
    years = np.round(splits.encoder.decode(splits.train.y)).astype(int)
    np.testing.assert_allclose(splits.encoder.decode(splits.test.y), values[400:, 0], rtol=1e-6)
    x = (splits.train.x.double() * _scales(splits)[1] + _scales(splits)[0]).numpy()
    rows = [int(np.abs(values[:400, 1:] - row).max(1).argmin()) for row in x]
    assert len(set(rows)) == 360, "every training row is one of the publisher's training rows"
    assert years.tolist() == values[rows, 0].astype(int).tolist()
    scaler = StandardScaler().fit(values[rows, 1:])
    np.testing.assert_allclose(splits.test.x, scaler.transform(values[400:, 1:]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(splits.encoder.target.mean, values[rows, 0].mean(), rtol=1e-12)


def _scales(splits: Splits) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(splits.encoder, data.TableEncoder)
    columns = splits.encoder.columns
    return torch.tensor([column.mean for column in columns]).double(), torch.tensor([column.scale for column in columns]).double()


def test_covertype_scales_numbers_and_leaves_flags(tmp_path: Path) -> None:
    """Ten columns of mean 0 and variance 1 over the training rows, 44 as they are, and seven classes in every split."""
    _, values = _write("covertype", tmp_path)
    splits = _load("covertype", tmp_path)
    assert splits.classes == list(_covertype.CLASSES)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (504, 56, 140)
    x = splits.train.x.double()
    assert x[:, :10].mean(0).abs().max() < 1e-6
    assert (x[:, :10].std(0, correction=0) - 1).abs().max() < 1e-6
    assert set(splits.train.x[:, 10:].unique().tolist()) == {0.0, 1.0}
    mean, scale = _scales(splits)
    seen = np.concatenate(
        [
            np.column_stack([(p.x.double() * scale + mean).round().numpy(), p.y.numpy() + 1])
            for p in (splits.train, splits.validation, splits.test)
        ]
    )
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, values.tolist())), "every row is in one split, with its class"
    for part in (splits.train, splits.validation, splits.test):
        assert torch.bincount(part.y, minlength=7).min() == len(part) // 7
    few = _load("covertype", tmp_path, rows=70)
    assert torch.bincount(few.train.y).tolist() == [10] * 7
    assert torch.equal(few.test.y, splits.test.y)
    assert abs(few.train.x[:, :10].double().mean()) < 1e-6
    with pytest.raises(ValueError, match="rows 505 must fit into the 504 rows"):
        _load("covertype", tmp_path, rows=505)


def test_higgs_keeps_the_publishers_split(tmp_path: Path) -> None:
    """The last rows are the test split, in order; numbers are the float32 that the file was written from, scaled on training rows."""
    _, frame = _write("higgs", tmp_path)
    splits = _load("higgs", tmp_path)
    assert splits.classes == ["background", "signal"]
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1615, 85, 300)
    mean, scale = _scales(splits)
    torch.testing.assert_close(splits.test.x, ((torch.tensor(frame[1700:, 1:]) - mean) / scale).float(), rtol=1e-6, atol=1e-6)
    assert splits.test.y.tolist() == frame[1700:, 0].astype(int).tolist()
    assert splits.train.x.double().mean(0).abs().max() < 1e-6
    assert (splits.train.x.double().std(0, correction=0) - 1).abs().max() < 1e-6
    drawn = []
    for part in (splits.train, splits.validation):
        for x, y in zip((part.x.double() * scale + mean).numpy(), part.y.tolist()):
            drawn.append(int(np.abs(frame[:1700, 1:] - x).max(1).argmin()))
            assert frame[drawn[-1], 0] == y
    assert sorted(drawn) == list(range(1700)), "every other row is in one of the two, with its label"
    few = _load("higgs", tmp_path, rows=190)
    assert (len(few.train), len(few.validation), len(few.test)) == (190, 10, 300)
    assert few.train.x.double().mean(0).abs().max() < 1e-6
    assert torch.equal(few.test.y, splits.test.y)


def test_the_seed_draws_the_validation_rows(name: str, tmp_path: Path) -> None:
    _write(name, tmp_path)
    first, again, other = (_load(name, tmp_path, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert not torch.equal(first.validation.y, other.validation.y)
    assert set(
        np.round(first.encoder.decode(first.test.y), 3).tolist() if name.startswith("year") else first.encoder.decode(_one_hot(first))
    )


def _one_hot(splits: Splits) -> torch.Tensor:
    return torch.nn.functional.one_hot(splits.test.y, splits.out_features).float()


def test_a_users_table_becomes_what_training_saw(name: str, tmp_path: Path) -> None:
    """The encoder of a run, back from JSON, turns a table with the columns' names into the scaled rows."""
    file, _ = _write(name, tmp_path)
    splits = _load(name, tmp_path)
    encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
    assert encoder == splits.encoder
    header = {"year-prediction-msd": _year_prediction_msd.NAMES, "covertype": _covertype.NAMES, "higgs": _higgs.NAMES}[name]
    (tmp_path / "new.csv").write_text(",".join(header) + "\n" + file.read_text())
    x = encoder.encode(tmp_path / "new.csv").x
    if name == "covertype":
        nearest = torch.cdist(splits.test.x, x, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        assert nearest.max() < 1e-5
    else:
        torch.testing.assert_close(x[-len(splits.test) :], splits.test.x, rtol=1e-4, atol=1e-5)


def test_missing_files_are_named_with_where_to_get_them(name: str, tmp_path: Path) -> None:
    file, _ = TEXTS[name]
    with pytest.raises(
        data.MissingData, match=rf"holds none of {file}, .*; pass download=True to fetch https://.* \(.*B\), or path=, the file"
    ):
        _load(name, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="is a folder, a file of"):
        _load(name, tmp_path, path=str(tmp_path))
    with pytest.raises(ValueError, match="does not exist"):
        _load(name, tmp_path, path=str(tmp_path / "none"))
    made_up = data.make_specimen(name)
    assert made_up is not None
    assert made_up.in_shape == (len({"y": _year_prediction_msd.NAMES, "c": _covertype.NAMES, "h": _higgs.NAMES}[name[0]]) - 1,)


@pytest.mark.parametrize(
    ("option", "value"),
    [("root", ""), ("download", 1), ("rows", 1), ("validation_fraction", 0), ("validation_fraction", 0.95), ("seed", -1)],
)
def test_options_are_checked_before_files_are_looked_for(name: str, tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option} must be") as caught:
        _load(name, tmp_path, **{option: value})
    assert not isinstance(caught.value, data.MissingData)


def _changed(line: int, column: int, word: str) -> Callable[[list[list[str]]], None]:
    return lambda rows: rows[line - 1].__setitem__(column - 1, word)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed(120, 3, "x"), "line 120: column {2} must be a finite number, got 'x'"),
        (_changed(120, 3, ""), "line 120: column {2} must be a finite number, got ''"),
        (_changed(1, 4, "NaN"), "line 1: column {3} must be a finite number, got 'NaN'"),
        (_changed(250, 2, "-inf"), "line 250: column {1} must be a finite number, got '-inf'"),
        (_changed(250, 2, "1e39"), "line 250: column {1} must be a finite number, got '1e39'"),
        (_changed(250, 2, '"1"'), "line 250: column {1} must be a finite number, got '\"1\"'"),
        (_changed(250, 2, "1,2"), r"line 250: \d+ values, \d+ were expected"),
        (lambda rows: rows[249].pop(), r"line 250: \d+ values, \d+ were expected"),
        (lambda rows: rows[0].pop(), r"line 1: \d+ values, \d+ were expected"),
        (lambda rows: rows.insert(249, []), r"line 250: no values, \d+ were expected"),
        (lambda rows: [rows.pop() for _ in range(len(rows))], "is empty|holds 0 rows"),
    ],
)
def test_line_and_column_of_what_is_wrong(name: str, tmp_path: Path, change: Callable[[list[list[str]]], None], message: str) -> None:
    file, text = TEXTS[name]
    rows = [line.split(",") for line in text().splitlines()]
    change(rows)
    (tmp_path / file).write_text("".join(",".join(row) + "\n" for row in rows))
    names = {"y": _year_prediction_msd.NAMES, "c": _covertype.NAMES, "h": _higgs.NAMES}[name[0]]
    for i in (1, 2, 3):
        message = message.replace(f"{{{i}}}", repr(names[i]))
    with pytest.raises(ValueError, match=message):
        _load(name, tmp_path)
    assert not list(tmp_path.glob("higgs-cache/*")), "nothing is kept of a file that cannot be read"


@pytest.mark.parametrize(
    ("name", "column", "word", "message"),
    [
        ("year-prediction-msd", 1, "1999.5", "line 90: column 'year' must be a year, got 1999.5"),
        ("year-prediction-msd", 1, "-3.2", "line 90: column 'year' must be a year, got -3.2"),
        ("covertype", 55, "8", "line 90: column 'Cover_Type' must be a class from 1 to 7, got 8"),
        ("covertype", 20, "2", "line 90: column 'Soil_Type6' must be 0 or 1, got 2"),
        ("higgs", 1, "2", "line 90: column 'label' must be 0 or 1, got 2"),
    ],
)
def test_what_a_column_may_hold(tmp_path: Path, name: str, column: int, word: str, message: str) -> None:
    file, text = TEXTS[name]
    rows = [line.split(",") for line in text().splitlines()]
    rows[89][column - 1] = word
    (tmp_path / file).write_text("".join(",".join(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=message):
        _load(name, tmp_path)


def test_files_that_are_cut_off(name: str, tmp_path: Path) -> None:
    """At a line's end, or within what is packed; blank lines at the end and Windows line ends are no matter."""
    file, _ = _write(name, tmp_path)
    whole, packed = file.read_bytes(), gzip.compress(file.read_bytes())
    plain = _load(name, tmp_path)
    file.write_bytes(whole.replace(b"\n", b"\r\n") + b"\r\n\n" * 9000)
    assert torch.equal(_load(name, tmp_path).test.x, plain.test.x)
    for content, message in (
        (packed[:-2000], "is damaged or cannot be read"),
        (packed[:-8] + b"01234567", "is damaged or cannot be read"),
        (b"nothing of the kind", "is damaged or cannot be read"),
    ):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            _load(name, tmp_path, path=str(tmp_path / "a.gz"))
    (tmp_path / "a.zip").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is damaged or cannot be read"):
        _load(name, tmp_path, path=str(tmp_path / "a.zip"))
    if name != "higgs":
        file.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
        with pytest.raises(ValueError, match=r"holds \d+ rows, the publisher's file has \d+: it is cut off"):
            _load(name, tmp_path)
        file.write_bytes(whole + whole.splitlines(keepends=True)[0])
        with pytest.raises(ValueError, match=r"holds more than the \d+ rows"):
            _load(name, tmp_path)


def test_rows_and_fractions_must_fit(tmp_path: Path) -> None:
    _write("year-prediction-msd", tmp_path)
    assert len(_load("year-prediction-msd", tmp_path, rows=360).train) == 360
    with pytest.raises(ValueError, match=r"rows 361 with validation_fraction 0.1 must fit into 400 training rows"):
        _load("year-prediction-msd", tmp_path, rows=361)
    _write("higgs", tmp_path)
    for options, message in (
        ({"test_rows": 1998}, "HIGGS.csv holds 2,000 rows: test_rows 1,998 must leave at least 3 of them"),
        ({"test_rows": 500_000}, "holds 2,000 rows: test_rows 500,000 must leave"),
        ({"test_rows": 0}, "test_rows must be an integer >= 1"),
        ({"rows": 1616}, "rows 1616 with validation_fraction 0.05 must fit into 1700 training rows"),
        ({"cache": ""}, "cache must be the name of a folder"),
        ({"cache": str(tmp_path / "HIGGS.csv")}, "cannot be written: .*; cache= is the folder"),
    ):
        with pytest.raises(ValueError, match=message):
            _load("higgs", tmp_path, **options)
    assert len(_load("higgs", tmp_path, test_rows=1500).train) == 475


def test_higgs_needs_both_classes(tmp_path: Path) -> None:
    text = "\n".join("0" + line[line.index(",") :] for line in _higgs_text(600).splitlines())
    (tmp_path / "HIGGS.csv").write_text(text)
    with pytest.raises(ValueError, match=r"no training row is of class 'signal' \(1\)"):
        _load("higgs", tmp_path)


def test_higgs_reads_its_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other options scale the copy again, the same ones nothing; another file is another key; a cache may lie elsewhere."""
    file, _ = _write("higgs", tmp_path)
    read: list[Path] = []
    blocks = _numeric.blocks
    monkeypatch.setattr(_numeric, "blocks", lambda path, *rest: read.append(path) or blocks(path, *rest))
    first = _load("higgs", tmp_path)
    again = _load("higgs", tmp_path)
    _load("higgs", tmp_path, seed=3)
    assert len(read) == 1
    assert torch.equal(first.train.x, again.train.x)
    assert first.encoder == again.encoder
    kept = sorted(each.name for each in (tmp_path / "higgs-cache").iterdir())
    assert [each.split("-")[0] for each in kept] == ["rows", "scaled", "scaled"]
    file.write_text(_higgs_text(2000, seed=1))
    assert not torch.equal(_load("higgs", tmp_path, cache=str(tmp_path / "else" / "where")).test.x, first.test.x)
    assert len(read) == 2
    assert len(list((tmp_path / "else" / "where").iterdir())) == 2


def test_what_is_written_to_a_split_stays_in_memory(tmp_path: Path) -> None:
    """The splits are maps that nobody else sees: the copy on disk is not touched."""
    _write("higgs", tmp_path)
    splits = _load("higgs", tmp_path)
    before = splits.train.x[0].clone()
    splits.train.x[0] = 7
    assert torch.equal(_load("higgs", tmp_path).train.x[0], before)


@pytest.mark.parametrize("stage", ["_convert", "_scale"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing_that_would_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: BaseException
) -> None:
    """Ctrl-C or a full disk half-way through either copy; afterwards everything is as if it had not been."""
    _write("higgs", tmp_path)
    expected = _load("higgs", tmp_path, cache=str(tmp_path / "other"))
    write = _higgs._write

    def _break(path: Path, width: int, dtype: type, chunks: Any) -> int:
        def _some() -> Iterator[np.ndarray]:
            for number, chunk in enumerate(chunks):
                if number == 3:
                    raise error
                yield chunk

        stages = {"rows.npy": "_convert", "x.npy": "_scale"}
        return write(path, width, dtype, _some() if stages.get(path.name) == stage else chunks)

    with monkeypatch.context() as patch:
        patch.setattr(_higgs, "_write", _break)
        with pytest.raises((KeyboardInterrupt, ValueError)) as caught:
            _load("higgs", tmp_path)
        assert error is KeyboardInterrupt or "cannot be written: [Errno 28]" in str(caught.value)
    kept = [each.name.split("-")[0] for each in (tmp_path / "higgs-cache").iterdir()]
    assert kept == ([] if stage == "_convert" else ["rows"])
    splits = _load("higgs", tmp_path)
    assert all(torch.equal(a, b) for part in ("train", "validation", "test") for a, b in _pairs(splits, expected, part))


def test_a_damaged_copy_is_named(tmp_path: Path) -> None:
    _write("higgs", tmp_path)
    _load("higgs", tmp_path)
    folder = next((tmp_path / "higgs-cache").glob("scaled-*"))
    for file in ("x.npy", "y.npy", "record.json"):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"scaled-.* is damaged .*; delete its? ?(folder )?(and it is)"):
            _load("higgs", tmp_path)
        (folder / file).write_bytes(content)
    (folder / "record.json").write_text(json.dumps({"rows": [1, 2, 3], "mean": [0.0] * 28, "scale": [1.0] * 28}))
    with pytest.raises(ValueError, match="is damaged"):
        _load("higgs", tmp_path)


class _Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operation makes anew; views share their memory and do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not function.is_view:
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


@contextmanager
def _peak() -> Iterator[list[int]]:
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_higgs_is_never_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 20,000 rows, 2.3 MB as float32 and 14 MB as text: converting, scaling, checking and the digest of a run take no more
    than blocks and eight bytes a row, neither in numpy's memory nor in torch's."""
    rows = 20_000
    text = _higgs_text(1000)
    with open(tmp_path / "HIGGS.csv", "w") as file:
        for _ in range(rows // 1000):
            file.write(text)
    size = 4 * 28 * rows
    monkeypatch.setattr(_numeric, "BLOCK", 100_000)
    monkeypatch.setattr(data_base, "CHUNK", 10_000)
    _load("higgs", tmp_path, rows=100, cache=str(tmp_path / "warm"))  # what pandas and numpy set up once does not count
    with _peak() as peak:
        splits = _load("higgs", tmp_path)
        before = digest(splits)
    with _Largest() as made:
        _load("higgs", tmp_path)
        digest(splits)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == rows
    assert peak[0] < size / 2 + 8 * rows, f"{peak[0]} bytes at once, the rows have {size}"
    assert 0 < made.bytes <= 4 * 10_000, "the checks look at a chunk at a time"
    copies = [data.Split(part.x.clone(), part.y.clone()) for part in (splits.train, splits.validation, splits.test)]
    assert before == digest(Splits(splits.name, copies[0], copies[1], copies[2], splits.encoder))


def test_downloads_go_where_the_files_are_looked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only on request, only if nothing is there, from the address that the message names, with the publisher's checks."""
    asked: list[tuple[str, Path, Any, Any]] = []

    def _download(url: str, path: Path, *, what: str, check: Any, size: int | None) -> Path:
        asked.append((url, path, check, size))
        content = TEXTS[name][1]().encode()
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(content))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(TEXTS[name][0], content)
        return path

    monkeypatch.setattr(_numeric, "download", _download)
    splits = _load(name, tmp_path, download=True)
    (url, path, check, size) = asked[0]
    assert path == tmp_path / {"y": "yearpredictionmsd.zip", "c": "covtype.data.gz", "h": "HIGGS.csv.gz"}[name[0]]
    with pytest.raises(data.MissingData, match=url):
        _load(name, tmp_path / "other")
    if name.startswith("year"):
        check(path)
    else:
        with pytest.raises(ValueError, match=r"SHA-256 .* was expected"):
            check(path)
    assert size == (2_816_407_858 if name == "higgs" else None)
    assert torch.equal(_load(name, tmp_path, download=True).test.x, splits.test.x)
    assert len(asked) == 1
