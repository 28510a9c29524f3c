"""ARFF tables against scipy's reader, Helena from the publisher's file and from OpenML's cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import arff

from lmn_graph import data
from lmn_graph.data import Encoder, TableEncoder, _helena
from lmn_graph.data._arff import read_arff

Write = Callable[[str, str], Path]
HEADER = """% a comment
@RELATION things

@ATTRIBUTE size REAL
@attribute 'two words' numeric
@ATTRIBUTE code {1,2,3}
@ATTRIBUTE hue {red,'light blue',green}
@ATTRIBUTE class {yes,no}
@DATA
"""


def _rows(count: int = 60, seed: int = 0) -> list[list[str]]:
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        size = "?" if i % 9 == 4 else f"{generator.normal(3, 2):.4f}"
        hue = "?" if i % 13 == 6 else ["red", "'light blue'", "green"][generator.integers(3)]
        rows.append([size, str(generator.integers(100)), str(generator.integers(1, 4)), hue, "yes" if i % 3 else "no"])
    return rows


def _text(rows: list[list[str]]) -> str:
    return HEADER + "\n".join(map(",".join, rows)) + "\n"


def test_values_are_those_that_scipy_reads(write: Write) -> None:
    """Every number and word, the missing ones included, as scipy.io.arff.loadarff has them."""
    text = _text(_rows())
    file = read_arff(write("a.arff", text))
    reference, meta = arff.loadarff(io.StringIO(text))
    assert file.header == meta.names()
    for name, kind in zip(meta.names(), meta.types()):
        if kind == "numeric":
            np.testing.assert_array_equal(file.frame[name].to_numpy(), reference[name])
        else:
            assert file.words(name).tolist() == ["" if word == b"?" else word.decode() for word in reference[name]]
    assert file.nominal == {name for name, kind in zip(meta.names(), meta.types()) if kind == "nominal"}


def test_nominal_attributes_are_categories_and_numbers_are_numbers(write: Write) -> None:
    """Nominal numbers are names, in the inputs and in the target; what is missing is handled as in a .csv."""
    splits = data.load(write("a.arff", _text(_rows())), target="class")
    encoder = splits.encoder
    assert isinstance(encoder, TableEncoder)
    kinds = {column.name: column.kind for column in encoder.columns}
    assert kinds == {"size": "number", "two words": "number", "code": "category", "hue": "category"}
    assert splits.classes == ["no", "yes"]
    assert "size is missing" in encoder.features
    hue = next(column for column in encoder.columns if column.name == "hue")
    assert hue.categories == ("green", "light blue", "red")
    words = data.load(write("a.arff", _text(_rows())), target="code")
    assert (words.task, words.classes) == ("classification", ["1", "2", "3"])
    assert data.load(write("a.arff", _text(_rows())), target="two words").task == "regression"


def test_arff_and_csv_of_the_same_rows_are_the_same_data(write: Write) -> None:
    """One encoder for both: a run on either predicts from the other."""
    rows = _rows()
    one = data.load(write("a.arff", _text(rows)), target="class")
    lines = [",".join(field.replace("'", "") for field in row) for row in rows]
    table = write("a.csv", "\n".join(["size,two words,code,hue,class", *lines]) + "\n")
    two = data.load(table, target="class", categorical=["code"])
    assert one.encoder == two.encoder
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).x, getattr(two, part).x)
        assert torch.equal(getattr(one, part).y, getattr(two, part).y)
    encoder = Encoder.from_dict(json.loads(json.dumps(one.encoder.to_dict())))
    from_arff, from_csv = encoder.encode(write("a.arff", _text(rows))), encoder.encode(table)
    assert torch.equal(from_arff.x, from_csv.x)
    assert from_arff.names[:2] == ["line 10", "line 11"]


def test_categories_that_the_file_calls_numeric(write: Write) -> None:
    """What the user names in categorical keeps the spelling of the file."""
    text = "@relation r\n@attribute a numeric\n@attribute y {u,v}\n@data\n" + "".join(f"0{i % 3},{'uv'[i % 2]}\n" for i in range(30))
    splits = data.load(write("a.arff", text), target="y", categorical="a")
    assert splits.encoder.columns[0].categories == ("00", "01", "02")  # type: ignore[attr-defined]


def test_quotes_tabs_comments_and_compression(tmp_path: Path) -> None:
    """Both kinds of quotes, escapes, tabs between the values, comments and blank lines among the rows, a .gz."""
    header = "@relation r\n@attribute a {'it\\'s','x, y',\"don't\", z}\n@attribute b integer\n"
    text = header + "@data\n%c\n'it\\'s',1\n\n\"don't\" , 2\nz,3\n'x, y',?\n"
    path = tmp_path / "a.arff.gz"
    path.write_bytes(gzip.compress(text.encode()))
    file = read_arff(path)
    assert file.words("a").tolist() == ["it's", "don't", "z", "x, y"]
    assert file.lines == [6, 8, 9, 10]
    tabs = tmp_path / "b.arff"
    tabs.write_text("@relation r\n@attribute a numeric\n@attribute b numeric\n@data\n1\t2\n3\t4\n")
    assert read_arff(tabs).frame.to_numpy().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size REAL", "size STRING", "line 4: the attribute 'size' is of type string; only numeric and nominal"),
        ("size REAL", 'size DATE "yyyy-MM-dd"', "line 4: the attribute 'size' is of type date"),
        ("size REAL", "size relational", "line 4: the attribute 'size' is of type relational"),
        ("size REAL", "size colour", "line 4: '@ATTRIBUTE size colour' is not an attribute that can be read"),
        ("size REAL", "'two words' REAL", "line 5: the attribute 'two words' is there twice"),
        ("{red,'light", "{red,'light blue,'x", "line 7: .*quotes are not paired"),
        ("@RELATION", "RELATION", "line 2: @relation, @attribute or @data was expected"),
        ("@DATA", "", "line 10: @relation, @attribute or @data was expected"),
        ("1.5,7,1,red,yes", "1.5,7,1,red", "line 10: 4 values, 5 attributes are declared"),
        ("1.5,7,1,red,yes", "1.5,7,1,red,yes,", "line 10: 6 values, 5 attributes"),
        ("1.5,7,1,red,yes", "1.5,7,1,'red,yes", "line 10: quotes are not paired"),
        ("1.5,7,1,red,yes", "1.5,7,1,blue,yes", "line 10: the attribute 'hue' must be one of green, light blue, red; got 'blue'"),
        ("1.5,7,1,red,yes", "1.5,x,1,red,yes", "line 10: the attribute 'two words' must be a finite number, got 'x'"),
        ("1.5,7,1,red,yes", "1.5,inf,1,red,yes", "line 10: the attribute 'two words' must be a finite number, got 'inf'"),
        ("1.5,7,1,red,yes", "1e300,7,1,red,yes", "line 10: column 'size' must be a finite number"),
        ("1.5,7,1,red,yes", "1.5,7,1,red,?", "line 10: the target 'class' is missing"),
        ("1.5,7,1,red,yes", "{0 1.5, 1 7}", "line 10: sparse rows in braces cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(write: Write, old: str, new: str, message: str) -> None:
    text = _text([["1.5", "7", "1", "red", "yes"], *_rows()]).replace(old, new, 1)
    with pytest.raises(ValueError, match=message):
        data.load(write("a.arff", text), target="class")


def test_files_that_are_no_arff(tmp_path: Path, write: Write) -> None:
    for text, message in (("", "has no line @data"), (HEADER, "has attributes but no rows"), ("@data\n1\n", "no @attribute before @data")):
        with pytest.raises(ValueError, match=message):
            data.load(write("a.arff", text), target="class")
    (tmp_path / "b.arff").write_bytes(b"@relation r\n@attribute \xff numeric\n")
    with pytest.raises(ValueError, match=r"b.arff, line 2: not UTF-8"):
        data.load(tmp_path / "b.arff", target="class")
    (tmp_path / "c.arff.gz").write_bytes(b"@relation r\n")
    with pytest.raises(ValueError, match=r"c.arff.gz cannot be read"):
        data.load(tmp_path / "c.arff.gz", target="class")
    with pytest.raises(ValueError, match=r"separator must be None for an \.arff file"):
        data.load(write("a.arff", _text(_rows())), target="class", separator=";")


def test_a_run_on_an_arff_predicts_from_arff_and_csv(lmn: Callable[..., tuple[int, str, str]], write: Write, tmp_path: Path) -> None:
    rows, tiny = _rows(), ("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "4", "--smoke", "--quiet")
    path = write("a.arff", _text(rows))
    assert lmn("train", "--data", path, "--data.target", "class", *tiny, "--out", tmp_path / "run")[0] == 0
    lines = [",".join(field.replace("'", "") for field in row[:4]) for row in rows]
    table = write("new.csv", "\n".join(["size,two words,code,hue", *lines]) + "\n")
    predictions = [lmn("predict", tmp_path / "run", file) for file in (path, table)]
    assert [code for code, _, _ in predictions] == [0, 0]
    words = [[line.split(",")[1:] for line in out.splitlines()[1:]] for _, out, _ in predictions]
    assert words[0] == words[1]
    assert len(words[0]) == 60


def _helena_text(count: int = 600, seed: int = 0) -> str:
    """Rows as OpenML exports the data set: class first, then V1 … V27."""
    generator = np.random.default_rng(seed)
    lines = ["@RELATION helena", "", "@ATTRIBUTE class {" + ",".join(map(str, range(100))) + "}"]
    lines += [*(f"@ATTRIBUTE V{i} REAL" for i in range(1, 28)), "", "@DATA"]
    labels, values = np.arange(count) % 100, generator.normal(5, 3, (count, 27)).round(4)
    lines += [",".join(map(str, [label, *row])) for label, row in zip(labels.tolist(), values.tolist())]
    return "\n".join(lines) + "\n"


def test_helena_from_the_publishers_file(write: Write) -> None:
    splits = data.load("helena", path=str(write("file1c556677f875.arff", _helena_text())))
    assert (splits.name, splits.in_shape, splits.classes) == ("helena", (27,), [str(i) for i in range(100)])
    sizes = [len(part) for part in (splits.train, splits.validation, splits.test)]
    assert sum(sizes) == 600
    assert sizes[2] == 120
    x = splits.train.x.double()
    assert x.mean(0).abs().max() < 1e-6
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-6
    assert splits.encoder.encode(write("new.arff", _helena_text(seed=1))).x.shape == (600, 27)


def test_helena_says_what_is_missing_and_where_it_is_to_be_had(tmp_path: Path, write: Write) -> None:
    message = r"41169.gz is missing; pass download=True to fetch Helena \(data set 41169\) from openml.org, or path=, a local .arff"
    with pytest.raises(data.MissingData, match=message.replace("41169.gz is", "41169.gz.* is")):
        data.helena(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"'nowhere.arff' does not exist"):
        data.helena(path="nowhere.arff")
    with pytest.raises(ValueError, match=r"Helena has the attributes class and V1 … V27, got class, W1"):
        data.helena(path=str(write("a.arff", _helena_text().replace("V1 REAL", "W1 REAL"))))
    bad: dict[str, object] = {"download": 1, "test_fraction": 2, "validation_fraction": 0, "seed": -1, "root": ""}
    for option, value in bad.items():
        with pytest.raises(ValueError, match=f"{option} must be"):
            data.load("helena", **{option: value})


@pytest.fixture
def openml_cache(tmp_path: Path) -> Path:
    """scikit-learn's cache of Helena, 600 rows of it."""
    text = _helena_text().encode()
    base = {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
    features = [{"index": "0", "name": "class", "data_type": "nominal", "is_target": "true"} | base]
    features += [{"index": str(i), "name": f"V{i}", "data_type": "numeric", "is_target": "false"} | base for i in range(1, 28)]
    url = "https://api.openml.org/data/v1/download/19335692/file1c556677f875.arff"
    description = {"id": "41169", "name": "helena", "version": "1", "status": "active", "format": "ARFF", "description": "helena"}
    description |= {"url": url, "file_id": "19335692", "md5_checksum": hashlib.md5(text).hexdigest(), "default_target_attribute": "class"}
    site = tmp_path / "openml" / "openml.org"
    for path, content in {
        "api/v1/json/data/41169.gz": json.dumps({"data_set_description": description}).encode(),
        "api/v1/json/data/features/41169.gz": json.dumps({"data_features": {"feature": features}}).encode(),
        "api/v1/json/data/qualities/41169.gz": b'{"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "600"}]}}',
        "data/v1/download/19335692/file1c556677f875.arff.gz": text,
    }.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(gzip.compress(content))
    return tmp_path


def test_helena_from_openml_is_the_same_as_from_the_file(openml_cache: Path, write: Write) -> None:
    """scikit-learn reads its cache, this package the file: the same splits, the same encoder; no network in either."""
    one = data.helena(str(openml_cache))
    two = data.helena(path=str(write("a.arff", _helena_text())))
    assert one.encoder == two.encoder
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).x, getattr(two, part).x)
        assert torch.equal(getattr(one, part).y, getattr(two, part).y)


def test_helena_asks_openml_for_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With download=True the cache is not asked for first; what OpenML refuses is a ValueError."""
    asked = {}

    def fetch_openml(**options: object) -> None:
        asked.update(options)
        raise OSError("no network")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    with pytest.raises(ValueError, match=r"Helena cannot be had from OpenML into .*: no network"):
        data.helena(str(tmp_path), download=True)
    assert (asked["data_id"], asked["data_home"]) == (_helena.OPENML_ID, str(tmp_path)) == (41169, str(tmp_path))
