"""The user's CSV: types, scaling fitted on training rows alone, errors with line numbers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmn_graph import data
from lmn_graph.data import Encoder, Splits, TableEncoder, Target
from lmn_graph.data._csv import read
from lmn_graph.data._target import infer_task

Write = Callable[[str, str], Path]


def _mixed(rows: int = 60, seed: int = 0, target: str = "number") -> list[list[str]]:
    """id (a row number), size (numbers, some missing), hue (words), open (true, false, some missing), y."""
    generator = np.random.default_rng(seed)
    lines = []
    for i in range(rows):
        size = "" if i % 7 == 3 else f"{generator.normal(50, 10):.3f}"
        hue, flag = generator.choice(["red", "green", "blue"]), "" if i % 11 == 5 else generator.choice(["true", "FALSE"])
        y = f"{generator.normal(-1000, 300):.2f}" if target == "number" else ["cat", "dog", "ox"][i % 3]
        lines.append([f"{i}.5", size, str(hue), str(flag), y])
    return lines


HEADER = ["id", "size", "hue", "open", "y"]


def _text(lines: list[list[str]], header: list[str] = HEADER) -> str:
    return "\n".join(",".join(line) for line in [header, *lines]) + "\n"


def _table(encoder: Encoder) -> TableEncoder:
    assert isinstance(encoder, TableEncoder)
    return encoder


def _file_rows(splits: Splits, part: str) -> list[int]:
    """Row numbers of a split, read back from its id feature."""
    column = next(each for each in _table(splits.encoder).columns if each.name == "id")
    x = getattr(splits, part).x[:, _table(splits.encoder).features.index("id")].double().numpy()
    return np.rint(x * column.scale + column.mean - 0.5).astype(int).tolist()


@pytest.mark.parametrize("target", ["number", "word"])
def test_types_are_inferred(write: Write, target: str) -> None:
    splits = data.load(write("a.csv", _text(_mixed(target=target))), target="y")
    encoder = _table(splits.encoder)
    assert {column.name: column.kind for column in encoder.columns} == {
        "id": "number",
        "size": "number",
        "hue": "category",
        "open": "boolean",
    }
    assert encoder.features == [
        "id",
        "size",
        "size is missing",
        "hue=blue",
        "hue=green",
        "hue=red",
        "hue=other",
        "open",
        "open is missing",
    ]
    assert splits.in_shape == (9,)
    assert splits.task == ("regression" if target == "number" else "classification")
    assert splits.classes == (None if target == "number" else ["cat", "dog", "ox"])
    assert splits.out_features == (1 if target == "number" else 3)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (43, 5, 12) if target == "number" else (42, 6, 12)


def test_training_rows_are_standardised(write: Write) -> None:
    """Over the training rows every numeric feature and the target have mean 0 and variance 1; medians stand in for missing values."""
    lines = _mixed()
    splits = data.table(write("a.csv", _text(lines)), target="y")
    encoder, x = _table(splits.encoder), splits.train.x.double()
    for name in ("id", "size", "open"):
        column = x[:, encoder.features.index(name)]
        assert abs(column.mean()) < 1e-6
        assert abs(column.std(correction=0) - 1) < 1e-6
    assert abs(splits.train.y.double().mean()) < 1e-6
    assert abs(splits.train.y.double().std(correction=0) - 1) < 1e-6
    rows = _file_rows(splits, "train")
    known = [float(lines[row][1]) for row in rows if lines[row][1]]
    size = next(column for column in encoder.columns if column.name == "size")
    assert size.fill == np.median(known)
    lost = x[:, encoder.features.index("size is missing")]
    assert lost.tolist() == [float(lines[row][1] == "") for row in rows]
    np.testing.assert_allclose(encoder.target.unscale(splits.train.y).flatten(), [float(lines[row][4]) for row in rows], rtol=1e-5)


def test_the_encoder_never_sees_test_rows(write: Write) -> None:
    """Leak test: whatever stands in validation and test rows, the encoder and the training rows stay the same."""
    lines = _mixed()
    before = data.table(write("a.csv", _text(lines)), target="y")
    held = _file_rows(before, "test") + _file_rows(before, "validation")
    assert sorted(held + _file_rows(before, "train")) == list(range(60))
    for row in held:
        lines[row] = [lines[row][0], "1e9", "violet", "", "77777"]
    after = data.table(write("a.csv", _text(lines)), target="y")
    assert after.encoder == before.encoder
    assert torch.equal(after.train.x, before.train.x)
    assert torch.equal(after.train.y, before.train.y)
    other = _table(after.encoder).features.index("hue=other")
    assert torch.equal(after.test.x[:, other - 3 : other + 1], torch.tensor([0.0, 0, 0, 1]).expand(12, 4))


def test_splits_are_fixed_by_the_seed(write: Write) -> None:
    path = write("a.csv", _text(_mixed(target="word")))
    first, again, other = (data.table(path, target="y", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(first.test.y, again.test.y)
    assert set(_file_rows(first, "test")) != set(_file_rows(other, "test"))
    for part in (first.train, first.validation, first.test):
        assert np.ptp(torch.bincount(part.y).numpy()) <= 1, "classes of equal size have equal shares"


@pytest.mark.parametrize("target", ["number", "word"])
def test_predicting_from_the_file_gives_the_training_encoding(write: Write, target: str) -> None:
    """The record that a run keeps, back from JSON, turns the file with or without target, in any column order, into the same rows."""
    lines = _mixed(target=target)
    splits = data.table(write("a.csv", _text(lines)), target="y")
    encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
    assert encoder == splits.encoder
    x, names = encoder.encode(write("b.csv", _text([line[:4][::-1] for line in lines], HEADER[:4][::-1])))
    assert names[0] == "line 2"
    for part in ("train", "validation", "test"):
        assert torch.equal(x[_file_rows(splits, part)], getattr(splits, part).x)
    assert torch.equal(encoder.encode(write("a.csv", _text(lines))).x, x)


def test_one_row_and_unseen_words(write: Write) -> None:
    """A file of a single row is read as the same types, whatever it looks like by itself."""
    encoder = data.table(write("a.csv", _text(_mixed())), target="y").encoder
    x, names = encoder.encode(write("b.csv", "extra,id,size,hue,open\n\n9,0.5,,7,\n"))
    assert names == ["line 3"]
    assert x[0, 2:9].tolist() == [1.0, 0.0, 0.0, 0.0, 1.0, x[0, 7].item(), 1.0]
    seen = encoder.encode(write("c.csv", "id,size,hue,open\n0.5,,NA,TRUE\n")).x
    assert seen[0, 6] == 1, "a missing word is the last feature too"
    assert seen[0, 7] > 0 > encoder.encode(write("d.csv", "id,size,hue,open\n0.5,,red,false\n")).x[0, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,size,hue\n1,2,red\n", "b.csv lacks the column.s. 'open'; it has 'id', 'size', 'hue'"),
        ("id,size,hue,open\n1,2,red,true\n1,x,red,true\n", "b.csv, line 3: column 'size' must be a finite number, got 'x'"),
        ("id,size,hue,open\n1,2,red,maybe\n", "b.csv, line 2: column 'open' must be true or false, got 'maybe'"),
        ("id,size,hue,open\n1,1e39,red,true\n", "b.csv, line 2: column 'size' must be a finite number, got '1e"),
        ("id,size,hue,open\n1,2,red,true,9\n", "b.csv, line 2: 5 fields, the header names 4"),
        ("id,size,hue,open\n", "b.csv has column names but no rows"),
        ("", "b.csv is empty"),
    ],
)
def test_bad_files_to_predict(write: Write, text: str, message: str) -> None:
    encoder = data.table(write("a.csv", _text(_mixed())), target="y").encoder
    with pytest.raises(ValueError, match=message):
        encoder.encode(write("b.csv", text))


def _broken(change: Callable[[list[list[str]]], object], target: str = "number") -> str:
    lines = _mixed(target=target)
    change(lines)
    return _text(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_broken(lambda rows: rows[7].append("9")), r"a.csv, line 9: 6 fields, the header names 5"),
        (_broken(lambda rows: rows[0].append("9")), r"a.csv, line 2: 6 fields, the header names 5"),
        (_broken(lambda rows: [row.append("9") for row in rows]), r"a.csv, line 2: 6 fields, the header names 5"),
        (_broken(lambda rows: rows[7].pop()), r"a.csv, line 9: 4 fields, the header names 5"),
        (_broken(lambda rows: rows[20].__setitem__(1, "12,5")), r"a.csv, line 22: 6 fields"),
        (
            _broken(lambda rows: rows[20].__setitem__(1, "fifty")),
            r"a.csv, line 22: column 'size' is numeric, got 'fifty'; write a number, or",
        ),
        (_broken(lambda rows: rows[20].__setitem__(4, "cheap")), r"a.csv, line 22: column 'y' is numeric, got 'cheap'.*set task"),
        (_broken(lambda rows: rows[20].__setitem__(1, "inf")), r"a.csv, line 22: column 'size' must be a finite number, got 'inf'"),
        (_broken(lambda rows: rows[20].__setitem__(4, "-inf")), r"a.csv, line 22: column 'y' must be a finite number, got '-inf'"),
        (_broken(lambda rows: rows[20].__setitem__(4, "")), r"a.csv, line 22: the target 'y' is missing"),
        (_broken(lambda rows: rows[20].__setitem__(4, "NaN"), "word"), r"a.csv, line 22: the target 'y' is missing"),
        (_broken(lambda rows: rows[20].__setitem__(2, 'a "\nb')), r"a.csv, line 22: 3 fields"),
        (_broken(lambda rows: rows[20].__setitem__(2, '"red')), r"a.csv, line 22: 3 fields"),
        (_broken(lambda rows: [row.__setitem__(4, "3") for row in rows]), r"target 'y' is constant \(3\)"),
        (_broken(lambda rows: [row.__setitem__(4, "red") for row in rows]), r"target 'y' must have at least two classes, got 'red'"),
        (_broken(lambda rows: rows[20].__setitem__(4, "elk"), "word"), r"class 'elk' has 1 row\(s\), at least 3 are needed"),
        ("", r"a.csv is empty"),
        ("\n\n", r"a.csv is empty"),
        ("id,y\n", r"a.csv has column names but no rows"),
        ("id,y\n1,2.5\n", r"target 'y' is constant"),
        ("id,y\n1,2.5\n2,3.5\n", r"2 row\(s\) are too few to split: at least 4 are needed"),
        ("id,y\n1,cat\n", r"target 'y' must have at least two classes"),
        ("y\n1.5\n2\n3\n4\n5\n", r"a.csv has no column to predict 'y' from: there is no other column"),
        ("id,y\n7,1.5\n7,2\n7,3\n7,4\n7,5\n", r"no column to predict 'y' from: \[\('id', 'the same in every training row'\)\]"),
        ("id,y,id\n1,2,3\n", r"a.csv, line 1: the column 'id' is there 2 times"),
        ("\n1,2,3\n4,5,6\n", r"a.csv, line 2: column names were expected, got the numbers 1, 2, 3"),
        ("id;y\n1;2\n", r"a.csv, line 1: one column 'id;y'; give the character between the columns as separator"),
        ("id,size\n1,2\n3,4\n", r"target: .*a.csv has no column 'y'; known: id, size"),
    ],
)
def test_bad_tables(write: Write, text: str, message: str) -> None:
    """Each says where: the line of the file, as an editor counts."""
    with pytest.raises(ValueError, match=message):
        data.table(write("a.csv", text), target="y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "target must name the column to predict, one of 'id', 'size', 'hue', 'open', 'y'"),
        ({"target": "Y "}, "no column 'Y '; did you mean 'y'"),
        ({"target": 3}, "no column 3"),
        ({"target": "y", "drop": "sizes"}, "drop: .* has no column 'sizes'; did you mean 'size'"),
        ({"target": "y", "drop": ["y"]}, "drop must not hold the target 'y'"),
        ({"target": "y", "drop": [1]}, "drop must be a list of column names"),
        ({"target": "y", "categorical": "hues"}, "categorical: .* did you mean 'hue'"),
        ({"target": "y", "log": "ide"}, "log: .* has no column 'ide'; did you mean 'id'"),
        ({"target": "y", "log": [1]}, "log must be a list of column names"),
        ({"target": "y", "log": "id", "drop": "id"}, "log and drop must not both hold 'id'"),
        ({"target": "y", "log": "id", "categorical": "id"}, "log and categorical must not both hold 'id'"),
        ({"target": "y", "log": "hue"}, "log: column 'hue' of .*a.csv holds categories, only numbers have a logarithm"),
        ({"target": "y", "log": "open"}, "log: column 'open' of .*a.csv holds true and false, only numbers"),
        ({"target": "y", "log": "y"}, r"a.csv, line 2: column 'y' must be > 0 for its logarithm, got '-\d"),
        ({"target": "y", "log": "y", "task": "classification"}, "log must not hold the target 'y', which is a class"),
        ({"target": "hue", "log": "hue"}, "line 2: column 'hue' must be a finite number, got"),
        ({"target": "y", "task": "ranking"}, "task must be one of 'auto'"),
        ({"target": "y", "separator": ";;"}, "separator must be one character"),
        ({"target": "y", "separator": 3}, "separator must be one character"),
        ({"target": "y", "test_fraction": 0.95}, "test_fraction must be"),
        ({"target": "hue", "task": "regression"}, "line 2: column 'hue' must be a finite number"),
        ({"target": "y", "task": "classification"}, r"class '-\d.*' has 1 row\(s\).*set task to regression"),
    ],
)
def test_bad_table_options(write: Write, options: dict[str, object], message: str) -> None:
    path = write("a.csv", _text(_mixed()))
    with pytest.raises(ValueError, match=message):
        data.load(path, **options)


def test_unreadable_files(tmp_path: Path, write: Write) -> None:
    for name, content, message in (
        ("a.csv", _text(_mixed()).encode().replace(b"blue", b"bl\xfc"), r"a.csv, line \d+: not UTF-8 text"),
        ("b.csv", b"PK\x03\x04\xff\xfe\xfa", r"b.csv, line 1: not UTF-8 text"),
        ("c.csv.gz", b"not gzip", r"c.csv.gz cannot be read"),
        ("d.csv.gz", gzip.compress(_text(_mixed()).encode())[:-30], r"d.csv.gz cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            data.load(tmp_path / name, target="y")
    late = _text(_mixed()).encode().replace(b"\n50.5", b"\n\xff50.5")
    (tmp_path / "e.csv").write_bytes(late)
    with pytest.raises(ValueError, match=r"e.csv, line 52: not UTF-8 text"):
        data.load(tmp_path / "e.csv", target="y")
    with pytest.raises(ValueError, match="is a folder, a text file was expected"):
        data.table(tmp_path, target="y")
    with pytest.raises(ValueError, match="does not exist"):
        data.table(tmp_path / "none.csv", target="y")


def test_the_same_table_in_other_dress(tmp_path: Path, write: Write) -> None:
    """Tabs, semicolons, gzip, a byte-order mark, Windows line ends, spaces and blank lines change nothing."""
    text = _text(_mixed())
    plain = data.table(write("a.csv", text), target="y")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    write("d.tsv", text.replace(",", "\t"))
    write("e.csv", text.replace(",", ", ").replace("\n", "\n\n"))
    for name in ("b.csv.gz", "c.csv", "d.tsv", "e.csv"):
        splits = data.load(tmp_path / name, target="y")
        assert splits.encoder == plain.encoder
        assert torch.equal(splits.test.x, plain.test.x)
    semicolons = data.load(write("f.csv", text.replace(",", ";")), target="y", separator=";")
    assert torch.equal(semicolons.train.x, plain.train.x)
    assert torch.equal(semicolons.encoder.encode(tmp_path / "f.csv").x, plain.encoder.encode(tmp_path / "a.csv").x)


def test_columns_that_say_nothing_are_left_out(write: Write) -> None:
    """Constant, empty, nameless and all-different word columns; drop and categorical override."""
    lines = [["", str(i), f"name {i}", "5", "", *line[1:]] for i, line in enumerate(_mixed())]
    header = ["", "zip", "name", "five", "void", *HEADER[1:]]
    splits = data.table(write("a.csv", _text(lines, header)), target="y", drop="size, hue", categorical=["zip"])
    encoder = _table(splits.encoder)
    assert dict(encoder.ignored) == {
        "size": "dropped",
        "hue": "dropped",
        "unnamed column 1": "no name",
        "zip": "a different word in every training row",
        "name": "a different word in every training row",
        "five": "the same in every training row",
        "void": "missing in every training row",
    }
    assert encoder.features == ["open", "open is missing"]


def test_codes_as_categories(write: Write) -> None:
    """A declared category keeps its digits as written, in a file that holds nothing else, too."""
    lines = [[f"0{i % 3}", f"{i}.5", f"{i * 1.25}"] for i in range(40)]
    encoder = data.table(write("a.csv", _text(lines, ["code", "v", "y"])), target="y", categorical="code").encoder
    assert _table(encoder).features[:4] == ["code=00", "code=01", "code=02", "code=other"]
    assert encoder.encode(write("b.csv", "v,code\n1,01\n2,\n")).x[:, :4].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_many_words_keep_the_hundred_most_frequent(write: Write) -> None:
    lines = [[f"w{i % 150}" if i < 2000 else "w149", f"{i * 1.25}"] for i in range(3000)]
    encoder = _table(data.table(write("a.csv", _text(lines, ["word", "y"])), target="y").encoder)
    assert len(encoder.features) == 101
    assert "word=w149" in encoder.features


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([f"{i % 3}" for i in range(30)], "classification", ["0", "1", "2"]),
        ([f"{10 - i % 3}.0" for i in range(30)], "classification", ["8", "9", "10"]),
        ([f"{i % 21}" for i in range(210)], "regression", None),
        ([f"{i}" for i in range(15)], "regression", None),
        ([f"{i % 3}.5" for i in range(30)], "regression", None),
        (["true", "false"] * 10, "classification", ["false", "true"]),
        (["None", "null"] * 10, "classification", ["None", "null"]),
    ],
)
def test_task_is_inferred(write: Write, values: list[str], task: str, classes: list[str] | None) -> None:
    """Words are classes; whole numbers are, if at most 20 differ and each has three rows on average."""
    path = write("a.csv", _text([[str(i * i), value] for i, value in enumerate(values)], ["x", "y"]))
    splits = data.table(path, target="y")
    assert (splits.task, splits.classes) == (task, classes)
    if task == "classification" and values[0].isdigit():
        assert data.table(path, target="y", task="regression").task == "regression"


@settings(deadline=None)
@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=60))
def test_inferred_classes_can_be_counted(values: list[int]) -> None:
    distinct = len(set(values))
    assert (infer_task(np.array(values, dtype=float)) == "classification") == (distinct <= 20 and len(values) >= 3 * distinct)


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=("Cs", "Zs", "Cc")), max_size=6)
cells = st.one_of(words, st.sampled_from(["1", "2.5", "", "a,b", 'say "no"', "two\nlines", "NA", "true"]))


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=12))
def test_lines_are_those_of_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    """Whatever the csv module writes, the line of each row is the one on which it begins."""
    text, expected = io.StringIO(), []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "a", "b"])
    for i, row in enumerate(rows):
        expected.append(text.getvalue().count("\n") + 1)
        writer.writerow([f"k{i}", *row])
    path = tmp_path_factory.mktemp("lines") / "a.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    file = read(path, text=["key"])
    assert file.lines == expected
    assert file.words("key").tolist() == [f"k{i}" for i in range(len(rows))]


@settings(deadline=None)
@given(st.text(st.sampled_from('ab1,\n". ;\r-e\0'), max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """No input leads to another exception than ValueError, or to numbers that are not finite."""
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_text("x,y\n" + text, encoding="utf-8", newline="")
    try:
        splits = data.table(path, target="y")
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        assert torch.isfinite(splits.train.x).all()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(width=32) | st.just(float("nan")), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=30
    )
)
def test_any_numbers_are_scaled_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]]) -> None:
    """Huge, tiny and missing numbers never become inf or NaN."""
    path = tmp_path_factory.mktemp("numbers") / "a.csv"
    path.write_text("x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows))
    try:
        splits = data.table(path, target="y")
    except ValueError as error:
        assert "a.csv" in str(error) or "target" in str(error) or "row(s)" in str(error)  # noqa: PT017
    else:
        assert all(torch.isfinite(part.x).all() and torch.isfinite(part.y).all() for part in (splits.train, splits.test))


def test_letter(letter_csv: Path) -> None:
    """A published table of integer features and letters: 26 classes in every split, one row in 20 exact by hand."""
    splits = data.load(letter_csv, target="letter")
    assert splits.classes == [chr(65 + i) for i in range(26)]
    assert splits.in_shape == (16,)
    assert {column.kind for column in _table(splits.encoder).columns} == {"number"}
    for part in (splits.train, splits.validation, splits.test):
        assert len(torch.unique(part.y)) == 26
    first = letter_csv.read_text().splitlines()[1].split(",")
    by_hand = [(float(v) - c.mean) / c.scale for v, c in zip(first, _table(splits.encoder).columns, strict=False)]
    np.testing.assert_allclose(splits.encoder.encode(letter_csv).x[0], by_hand, rtol=1e-5, atol=1e-6)


def test_diamonds(diamonds_csv: Path) -> None:
    """A published table of numbers and words with a price, sorted in parts: shuffled, one-hot, back in dollars."""
    splits = data.load(diamonds_csv, target="price")
    encoder = _table(splits.encoder)
    assert splits.task == "regression"
    assert {column.name for column in encoder.columns if column.kind == "category"} == {"cut", "color", "clarity"}
    assert encoder.ignored == ()
    start = [encoder.features.index(f"cut={word}") for word in ("Fair", "Good", "Ideal", "Premium", "Very Good", "other")]
    assert torch.equal(splits.test.x[:, start].sum(1), torch.ones(len(splits.test)))
    assert abs(splits.train.y.mean() - splits.test.y.mean()) < 0.5
    prices = encoder.decode(splits.test.y)
    assert min(prices) > 300
    assert isinstance(prices[0], float)


def _sales(rows: int = 60) -> list[list[str]]:
    """weight (numbers > 0, some missing), hue, price (a power of the weight): what belongs on logarithmic axes."""
    generator = np.random.default_rng(3)
    lines = []
    for i in range(rows):
        weight = generator.lognormal(0, 1)
        lines.append(["" if i % 9 == 4 else f"{weight:.4f}", ["red", "blue"][i % 2], f"{300 * weight**1.7:.2f}"])
    return lines


def test_logarithms(write: Write) -> None:
    """The encoding of the logged columns is that of a file in which somebody else took the logarithms; prices come back as prices."""
    lines = _sales()
    logged = [[a and repr(math.log(float(a))), b, repr(math.log(float(c)))] for a, b, c in lines]
    header = ["weight", "hue", "price"]
    splits = data.load(write("a.csv", _text(lines, header)), target="price", log="price, weight")
    other = data.load(write("b.csv", _text(logged, header)), target="price")
    for part in ("train", "validation", "test"):
        torch.testing.assert_close(getattr(splits, part).x, getattr(other, part).x)
        torch.testing.assert_close(getattr(splits, part).y, getattr(other, part).y)
    assert _table(splits.encoder).features == ["log weight", "weight is missing", "hue=blue", "hue=red", "hue=other"]
    assert splits.describe().endswith("regression of log price")
    target = splits.encoder.target
    np.testing.assert_allclose(target.scale, other.encoder.target.scale)
    np.testing.assert_allclose(splits.encoder.decode(splits.test.y), np.exp(other.encoder.decode(other.test.y)), rtol=1e-6)
    prices = [float(line[2]) for line in lines]
    np.testing.assert_allclose(target.decode(target.encode_numbers(np.array(prices)[:, None])), prices, rtol=1e-5)
    assert target.name == "price"


def test_logarithms_survive_in_a_run(write: Write) -> None:
    """Back from JSON the encoder takes them of a new file, and refuses there what has none; a record without the word has none."""
    lines, header = _sales(), ["weight", "hue", "price"]
    path = write("a.csv", _text(lines, header))
    splits = data.table(path, target="price", log=["weight", "price"])
    encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
    assert encoder == splits.encoder
    x = encoder.encode(path).x
    assert all((x == row).all(1).any() for row in splits.test.x)
    assert encoder.decode(splits.test.y) == splits.encoder.decode(splits.test.y)
    for bad in ("0", "-0.5"):
        with pytest.raises(ValueError, match=rf"b.csv, line 3: column 'weight' must be > 0 for its logarithm, got '{bad}"):
            encoder.encode(write("b.csv", f"weight,hue\n1,red\n{bad},red\n"))
    record = data.table(path, target="price").encoder.to_dict()
    del record["target"]["log"], record["columns"][0]["log"]
    assert Encoder.from_dict(record) == data.table(path, target="price").encoder
    record["target"]["log"] = "yes"
    with pytest.raises(ValueError, match="log must be True or False, got 'yes'"):
        Encoder.from_dict(record)


def test_what_is_too_large_for_the_training_rows_is_named(write: Write) -> None:
    """Within float32 itself, but not on the scale of the training rows: the line and the column of a new file."""
    encoder = data.table(write("a.csv", _text([[f"{i}e-20", f"{i % 7}.5", f"{i * i}.5"] for i in range(40)], ["a", "b", "y"])), target="y")
    with pytest.raises(ValueError, match=r"b.csv, line 3: 'a' is too large for the scale of its column in training"):
        encoder.encoder.encode(write("b.csv", "b,a\n1,1e-19\n1,1e30\n"))


def test_what_has_no_logarithm_is_named(write: Write) -> None:
    lines, header = _sales(), ["weight", "hue", "price"]
    lines[20][0], lines[30][2] = "0.0", "0"
    path = write("a.csv", _text(lines, header))
    with pytest.raises(ValueError, match=r"a.csv, line 22: column 'weight' must be > 0 for its logarithm, got '0.0'"):
        data.table(path, target="price", log="weight")
    with pytest.raises(ValueError, match=r"a.csv, line 32: column 'price' must be > 0 for its logarithm, got '0'"):
        data.table(path, target="price", log="price")
    with pytest.raises(ValueError, match=r"target 'p' must be > 0 for its logarithm, got -2"):
        Target.regression("p", np.array([[1.0], [-2.0]]), log=True)


def test_a_target_with_a_logarithm_is_a_quantity(write: Write) -> None:
    """A few whole numbers are classes, but not if their logarithm is asked for."""
    path = write("a.csv", _text([[f"{i}.5", f"{1 + i % 3}"] for i in range(30)], ["x", "y"]))
    assert data.table(path, target="y").task == "classification"
    assert data.table(path, target="y", log="y").task == "regression"


@pytest.mark.slow
def test_diamonds_on_logarithmic_axes(diamonds_csv: Path) -> None:
    """Price is close to a power of carat: their logarithms correlate more than they do; a few zeros in x, y, z are no matter."""
    plain = data.load(diamonds_csv, target="price")
    logged = data.load(diamonds_csv, target="price", log="price,carat")
    assert torch.equal(plain.train.x[:, 1:], logged.train.x[:, 1:])
    of_plain, of_logged = (float(np.corrcoef(part.train.x[:, 0], part.train.y[:, 0])[0, 1]) for part in (plain, logged))
    assert of_logged > max(of_plain, 0.95)
    np.testing.assert_allclose(logged.encoder.decode(logged.test.y), plain.encoder.decode(plain.test.y), rtol=1e-5, atol=0.01)


def test_target_keeps_its_name() -> None:
    assert Target.regression("price", np.array([[1.0], [2.0]])).name == "price"
