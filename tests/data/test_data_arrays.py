"""The user's .npz: tasks, scaling, given test rows, and errors that name the array."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmn_graph import data
from lmn_graph.data import ArrayEncoder, Encoder

X = np.random.default_rng(0).normal(5, 3, (60, 4))
Y = np.arange(60) % 3


def _save(path: Path, **arrays: object) -> Path:
    np.savez(path / "a.npz", **arrays)  # type: ignore[arg-type]
    return path / "a.npz"


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        (Y, "classification", ["0", "1", "2"]),
        (Y.astype(np.uint8) + 9, "classification", ["9", "10", "11"]),
        (np.array(["cat", "dog", "ox"])[Y], "classification", ["cat", "dog", "ox"]),
        (np.array([b"cat", b"dog", b"ox"])[Y], "classification", ["cat", "dog", "ox"]),
        (Y == 1, "classification", ["False", "True"]),
        (Y.astype(float), "classification", ["0", "1", "2"]),
        (Y[:, None], "classification", ["0", "1", "2"]),
        (X[:, 0], "regression", None),
        (X[:, :1], "regression", None),
        (X[:, :2], "regression", None),
        (np.stack([Y, Y + 1], 1), "regression", None),
    ],
)
def test_task_is_inferred(tmp_path: Path, y: np.ndarray, task: str, classes: list[str] | None) -> None:
    splits = data.load(_save(tmp_path, x=X, y=y))
    assert (splits.task, splits.classes) == (task, classes)
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (48, 12)
    if task == "regression":
        assert splits.out_features == (1 if y.ndim == 1 else y.shape[1])
        assert splits.train.y.double().mean(0).abs().max() < 1e-6


def test_task_can_be_set(tmp_path: Path) -> None:
    assert data.arrays(_save(tmp_path, x=X, y=Y), task="regression").out_features == 1
    assert data.arrays(_save(tmp_path, x=X, y=np.arange(60) // 2 % 30 / 2), task="regression").task == "regression"
    assert data.arrays(_save(tmp_path, x=X, y=(np.arange(60) % 2) / 2), task="classification").classes == ["0", "0.5"]


def test_scaling_is_fitted_on_training_rows(tmp_path: Path) -> None:
    """Leak test, and the two kinds of scale: by feature for [n, F], one for all of a picture."""
    x = X.copy()
    x[:, 3] = np.arange(60)
    before = data.arrays(_save(tmp_path, x=x, y=Y))
    assert before.train.x.mean(0).abs().max() < 1e-6
    assert (before.train.x.std(0, correction=0) - 1).abs().max() < 1e-5
    assert isinstance(before.encoder, ArrayEncoder)
    for part in (before.test, before.validation):
        held = (part.x[:, 3].double() * before.encoder.scale[3] + before.encoder.mean[3]).round().long().numpy()
        x[held, :3] = 1e6
    after = data.arrays(_save(tmp_path, x=x, y=Y))
    assert after.encoder == before.encoder
    assert torch.equal(after.train.x, before.train.x)
    assert (after.test.x[:, 0] > 1e5).all()

    pictures = np.random.default_rng(1).integers(0, 256, (60, 5, 6), dtype=np.uint8)
    splits = data.arrays(_save(tmp_path, x=pictures, y=Y))
    assert isinstance(splits.encoder, ArrayEncoder)
    assert splits.in_shape == (5, 6)
    assert len(splits.encoder.mean) == 1
    assert abs(splits.train.x.double().std(correction=0) - 1) < 1e-6
    plain = data.arrays(_save(tmp_path, x=pictures, y=Y), scale="none")
    assert set(np.unique(plain.train.x)) <= set(range(256))


def test_constant_features_stay_finite(tmp_path: Path) -> None:
    x = X.copy()
    x[:, 1] = 0.1
    assert data.arrays(_save(tmp_path, x=x, y=Y)).train.x[:, 1].abs().max() < 1e-6


def test_given_test_rows_are_kept(tmp_path: Path) -> None:
    """x_test and y_test are the test split, whole and in order; the rest is training and validation."""
    splits = data.arrays(_save(tmp_path, x=X, y=Y, x_test=X[:7] + 1, y_test=Y[:7]))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 6, 7)
    assert splits.test.y.tolist() == Y[:7].tolist()
    assert torch.equal(splits.test.x, splits.encoder.encode(_save(tmp_path, x=X[:7] + 1)).x)
    several = data.arrays(_save(tmp_path, x=X, y=X[:, :2], x_test=X[:3], y_test=X[:3, 2:]))
    np.testing.assert_allclose(several.encoder.target.unscale(several.test.y), X[:3, 2:], rtol=1e-5)


def test_predicting_from_the_file_gives_the_training_encoding(tmp_path: Path) -> None:
    x = np.concatenate([np.arange(60)[:, None], X], 1)
    path = _save(tmp_path, x=x, y=Y)
    splits = data.arrays(path)
    encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
    assert encoder == splits.encoder
    assert isinstance(encoder, ArrayEncoder)
    inputs = encoder.encode(path)
    assert inputs.names[59] == "row 59"
    for part in (splits.train, splits.validation, splits.test):
        rows = (part.x[:, 0].double() * encoder.scale[0] + encoder.mean[0]).round().long()
        assert torch.equal(inputs.x[rows], part.x)


BAD = X.copy()
BAD[17, 2] = np.nan
HUGE = X.copy()
HUGE[3, 0] = 1e39


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "array 'y': there is no array 'y'; known: x"),
        ({"X": X, "y": Y}, "array 'x': there is no array 'x'; did you mean 'X'"),
        ({"x": X, "y": Y[:50]}, r"array 'y' must have shape \[60\] or \[60, k\], one row for each of x, got \[50\]"),
        ({"x": X, "y": np.zeros((60, 2, 2))}, r"array 'y' must have shape"),
        ({"x": X, "y": np.zeros((60, 0))}, r"array 'y' must have shape"),
        ({"x": X[:, 0], "y": Y}, r"array 'x' must have shape \[n, ...\], got \[60\]"),
        ({"x": np.zeros((0, 4)), "y": Y[:0]}, r"array 'x' must have shape \[n, ...\], got \[0, 4\]"),
        ({"x": np.float64(3), "y": Y}, r"array 'x' must have shape"),
        ({"x": X, "y": np.float64(3)}, r"array 'y' must have shape"),
        ({"x": X + 1j, "y": Y}, "array 'x' must hold numbers, got dtype complex128"),
        ({"x": X.astype(str), "y": Y}, "array 'x' must hold numbers, got dtype <U"),
        ({"x": X.astype(object), "y": Y}, "array 'x': .*[Oo]bject arrays cannot be loaded"),
        ({"x": BAD, "y": Y}, "array 'x' holds NaN, inf or a number beyond float32 in row 17, column 2"),
        ({"x": HUGE, "y": Y}, "array 'x' holds NaN, inf or a number beyond float32 in row 3"),
        ({"x": X, "y": BAD[:, 2]}, "array 'y' holds NaN, inf or a number beyond float32 in row 17$"),
        ({"x": X, "y": np.zeros(60)}, "at least two classes, got '0'"),
        ({"x": X, "y": np.stack([X[:, 0], Y * 0 + 3], 1)}, r"target 'y' is constant in the training split \(3\)"),
        ({"x": X, "y": np.arange(60)}, "class '0' has 1 row.*set task to regression"),
        ({"x": X[:3], "y": X[:3, 0]}, "3 row.s. are too few to split"),
        ({"x": X, "y": Y, "x_test": X}, "x_test and y_test belong together, got only x_test"),
        ({"x": X, "y": Y, "y_test": Y}, "x_test and y_test belong together, got only y_test"),
        ({"x": X, "y": Y, "x_test": X[:, :3], "y_test": Y}, r"array 'x_test' must have shape \[n, 4\], got \[60, 3\]"),
        ({"x": X, "y": Y, "x_test": BAD, "y_test": Y}, "array 'x_test' holds NaN, inf or a number beyond float32 in row 17"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y[:3]}, r"array 'y_test' must have shape \[60\]"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "row 2 of the test split is of class '3', but no training row is"),
        ({"x": X, "y": X[:, :2], "x_test": X, "y_test": X[:, 0]}, "'y_test' must have as many columns as 'y'"),
        ({"x": X, "y": X[:, 0], "x_test": X, "y_test": X[:, 0].astype(str)}, "array 'y_test' must hold numbers, got dtype <U"),
        ({"x": X, "y": Y, "x_test": X, "y_test": X[:, :2]}, r"array 'y_test' must have shape \[n\] for classification"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.arrays(_save(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sort"}, "task must be one of"),
        ({"scale": "minmax"}, "scale must be one of 'standard', 'none'"),
        ({"validation_fraction": 0}, "validation_fraction must be"),
        ({"seed": None}, "seed must be an integer"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(_save(tmp_path, x=X, y=Y), **options)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "text.npz").write_bytes(b"hello")
    (tmp_path / "empty.npz").touch()
    for name in ("one.npz", "text.npz", "empty.npz"):
        with pytest.raises(ValueError, match=f"{name} is not an .npz file, or damaged"):
            data.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        data.arrays(tmp_path)


def test_files_to_predict(tmp_path: Path) -> None:
    encoder = data.arrays(_save(tmp_path, x=X, y=Y)).encoder
    for arrays, message in (
        ({"z": X}, "there is no array 'x'"),
        ({"x": X[:, :2]}, r"array 'x' must have shape \[n, 4\], got \[60, 2\]"),
        ({"x": BAD}, "row 17"),
        ({"x": X * 1e39}, "holds NaN, inf or a number beyond float32 in row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.encode(_save(tmp_path, **arrays))
    np.savez(tmp_path / "narrow.npz", x=X * 1e-30, y=Y)
    narrow = data.arrays(tmp_path / "narrow.npz").encoder
    with pytest.raises(ValueError, match="too large for the scale of the training rows"):
        narrow.encode(_save(tmp_path, x=X * 1e9))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 100_000), st.binary(min_size=1, max_size=8), st.booleans(), st.booleans())
def test_any_damage_is_a_value_error(tmp_path: Path, place: int, noise: bytes, cut: bool, packed: bool) -> None:
    """Overwritten or truncated anywhere, an .npz is either read or refused; nothing is ever unpickled."""
    path = tmp_path / "a.npz"
    (np.savez_compressed if packed else np.savez)(path, x=X, y=Y)
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + noise + (b"" if cut else whole[place + len(noise) :]))
    try:
        splits = data.arrays(path)
    except ValueError as error:
        assert "a.npz" in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(splits.train.x).all()
