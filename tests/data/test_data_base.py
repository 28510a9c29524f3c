"""Contracts of Splits, Target and Encoder; names and paths; lightness of the import."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmn_graph import data
from lmn_graph.data import ArrayEncoder, Encoder, PictureEncoder, SeriesEncoder, Split, Splits, Target
from lmn_graph.data._splitting import split_rows


def _splits(**changes: Split) -> Splits:
    def part() -> Split:
        return Split(torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))

    parts = {"train": part(), "validation": part(), "test": part()} | changes
    return Splits("toy", encoder=ArrayEncoder(Target("y", ("a", "b")), (3,)), **parts)


@pytest.mark.slow
def test_import_is_light() -> None:
    """`import lmn_graph.data` loads none of the libraries that only some datasets need."""
    code = (
        "import sys, torch_geometric; before = set(sys.modules); import lmn_graph.data;"
        "print([m for m in ('sklearn', 'torchvision', 'PIL', 'pandas', 'lightning') if m in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_registered_names() -> None:
    assert list(data.DATASETS) == [
        "babylm",
        "covertype",
        "digits",
        "domainnet",
        "fashion-mnist",
        "food101",
        "helena",
        "higgs",
        "imagenet",
        "kraken",
        "lorenz",
        "mackey-glass",
        "mnist",
        "synthetic-pictures",
        "timed-bump",
        "tinystories",
        "year-prediction-msd",
    ]
    assert list(data.ENCODERS) == ["arrays", "bars", "pictures", "series", "table", "text", "values"]


def test_splits_say_what_a_model_needs() -> None:
    splits = _splits()
    assert (splits.in_shape, splits.out_features, splits.task, splits.classes) == ((3,), 2, "classification", ["a", "b"])
    assert splits.describe() == "toy: 4 training, 4 validation, 4 test rows; input 3; 2 classes"
    x, y = splits.train[0]
    assert x.shape == (3,)
    assert y.item() == 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), r"test rows have shape \(2,\), the encoder says \(3,\)"),
        (torch.tensor([[0.0] * 3, [0.0, float("nan"), 0.0]]), torch.zeros(2, dtype=torch.int64), "test x row 1 holds NaN or inf"),
        (torch.zeros(4, 3), torch.full((4,), 2), "test y does not fit classification with 2 outputs"),
        (torch.zeros(4, 3), torch.full((4,), -1), "test y does not fit classification with 2 outputs"),
        (torch.zeros(4, 3), torch.zeros(4, 2), "test y does not fit classification with 2 outputs"),
    ],
)
def test_splits_refuse_rows_that_do_not_fit(x: torch.Tensor, y: torch.Tensor, message: str) -> None:
    """A third party's dataset cannot hand wrong shapes, NaN or unknown classes to a model."""
    with pytest.raises(ValueError, match=message):
        _splits(test=Split(x, y))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64), "x must be float32"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), "x must be float32"),
        (torch.zeros(4, 3), torch.zeros(4), "y must be int64"),
        (torch.zeros(4, 3), torch.zeros(3, 1), "same number of rows"),
        (torch.zeros(0, 3), torch.zeros(0, 1), "at least one"),
    ],
)
def test_split_refuses_wrong_tensors(x: torch.Tensor, y: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(x, y)


def test_predictions_return_to_the_users_units() -> None:
    words = Target("kind", ("ant", "bee"))
    assert words.decode(torch.tensor([[0.1, 0.9], [3.0, -1.0]])) == ["bee", "ant"]
    one = Target.regression("price", np.array([[100.0], [300.0]]))
    assert one.decode(torch.tensor([[0.0], [1.0]])) == [200.0, 300.0]
    two = Target.regression("y", np.array([[0.0, 10.0], [2.0, 30.0]]))
    assert two.decode(torch.tensor([[1.0, -1.0]])) == [[2.0, 10.0]]
    torch.testing.assert_close(two.unscale(two.encode_numbers(np.array([[5.0, 7.0]]))).float(), torch.tensor([[5.0, 7.0]]))
    for wrong in (torch.zeros(3), torch.zeros(3, 5)):
        with pytest.raises(ValueError, match="prediction must have shape"):
            words.decode(wrong)
    with pytest.raises(ValueError, match="only regression targets have a scale"):
        words.unscale(torch.zeros(1, 2))


@settings(deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=20).filter(lambda v: np.ptp(v) > 1e-9 + 1e-6 * max(map(abs, v))))
def test_target_scaling_inverts(values: list[float]) -> None:
    """Unscaled targets are the targets, to float32 rounding of z."""
    column = np.array(values)[:, None]
    target = Target.regression("y", column)
    z = target.encode_numbers(column)
    assert torch.isfinite(z).all()
    np.testing.assert_allclose(target.unscale(z).numpy(), column, rtol=1e-5, atol=1e-6 * target.scale[0])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "must be a mapping with a 'kind'"),
        ([1], "must be a mapping with a 'kind'"),
        ({"kind": "tabel"}, "unknown encoder 'tabel'; did you mean 'table'"),
        ({"kind": "table"}, "encoder record of kind 'table' is damaged"),
        ({"kind": "pictures", "target": {"name": "y", "classes": None, "mean": [0], "scale": [1]}, "size": [8]}, "is damaged"),
    ],
)
def test_damaged_encoder_record(record: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder.from_dict(record)  # type: ignore[arg-type]


def test_every_encoder_survives_json() -> None:
    target = Target("y", None, (0.1, 1 / 3), (2.0, 1e-9))
    for encoder in (ArrayEncoder(target, (2, 3), (0.1,), (0.3,)), PictureEncoder(target, (5, 7), "RGB"), SeriesEncoder(target, 9, 2, 1)):
        assert Encoder.from_dict(json.loads(json.dumps(encoder.to_dict()))) == encoder
    assert PictureEncoder(target, (5, 7), "RGB").in_shape == (3, 5, 7)


@settings(deadline=None)
@given(st.lists(st.integers(3, 40), min_size=2, max_size=6), st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.integers(0, 9))
def test_stratified_rows_are_a_partition(sizes: list[int], test: float, validation: float, seed: int) -> None:
    """Every row is in one split, every class in every split, and shares are kept to within one row of each class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = split_rows(
        len(labels), test_fraction=test, validation_fraction=validation, seed=seed, labels=labels, classes="abcdef"[: len(sizes)]
    )
    assert sorted(np.concatenate(rows)) == list(range(len(labels)))
    for part in rows:
        assert set(labels[part]) == set(range(len(sizes)))
    held = np.bincount(labels[rows.test])
    wanted = np.clip(np.array(sizes) * test, 1, np.array(sizes) - 2)
    assert np.all(np.abs(held - wanted) <= 1.5)


@settings(deadline=None)
@given(st.integers(4, 200), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_plain_rows_are_a_partition(count: int, test: float, validation: float) -> None:
    rows = split_rows(count, test_fraction=test, validation_fraction=validation, seed=0)
    assert sorted(np.concatenate(rows)) == list(range(count))
    assert len(rows.train) >= 2
    assert len(rows.validation) >= 1
    assert len(rows.test) == min(max(1, round(count * test)), count - 3)


def test_resolve_prefers_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[str, str], Path]) -> None:
    """A registered name wins over a path of the same name; then the kind of file decides."""
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data.resolve("digits") == (data.digits, {})
    assert data.resolve("./digits") == (data.folder, {"path": "digits"})
    for name in ("a.csv", "B.TSV", "c.csv.gz", "f.arff", "g.ARFF.gz"):
        assert data.resolve(write(name, "")) == (data.table, {"path": str(tmp_path / name)})
    assert data.resolve(str(write("d.npz", ""))) == (data.arrays, {"path": str(tmp_path / "d.npz")})
    assert data.resolve(str(write("d.npy", ""))) == (data.series, {"path": str(tmp_path / "d.npy")})
    with pytest.raises(ValueError, match="is of no known kind; expected a"):
        data.resolve(write("e.xlsx", ""))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("didgits", "neither a dataset nor a path; did you mean 'digits'"),
        ("quux", "neither a dataset nor a path; known: babylm, covertype, digits, domainnet, fashion-mnist, food101, helena, higgs,"),
        ("missing.csv", "'missing.csv' does not exist; expected"),
        ("no/such/folder", "'no/such/folder' does not exist"),
        ("", "data must be the name"),
        (3, "data must be the name"),
        ("a" * 5000, "neither a dataset nor a path"),
    ],
)
def test_unknown_data(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(spec)


def test_unknown_option() -> None:
    with pytest.raises(ValueError, match="'digits' has no option 'sed'; did you mean 'seed'"):
        data.load("digits", sed=3)


@pytest.mark.parametrize("function", [*data.DATASETS.values(), data.table, data.folder, data.arrays, data.series])
def test_options_work_on_a_command_line(function: Callable[..., Splits]) -> None:
    """jsonargparse reads every signature and finds a help text for every option."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(function, "data", skip={"path"})
    option = next(name for name in ("seed", "horizon", "documents") if name in inspect.signature(function).parameters)
    assert parser.parse_args([f"--data.{option}", "3"]).data[option] == 3
    described = inspect.getdoc(function) or ""
    assert all(f"{name}: " in described for name in inspect.signature(function).parameters)
    if function is data.table:
        given = parser.parse_args(["--data.drop", "[id, name]", "--data.target", "7", "--data.task", "regression"]).data
        assert (given.drop, given.target, given.task) == (["id", "name"], "7", "regression")
        assert parser.parse_args(["--data.drop", "id,name"]).data.drop == "id,name"
        assert parser.parse_args(["--data.log", "price,carat"]).data.log == "price,carat"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0}, "test_fraction must be a finite number > 0"),
        ({"test_fraction": 1.0}, "test_fraction must be"),
        ({"validation_fraction": "a"}, "validation_fraction must be"),
        ({"validation_fraction": float("nan")}, "validation_fraction must be"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_bad_split_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load("digits", **options)
