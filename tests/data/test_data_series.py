"""Series: windows and targets, a split by time that lets no future through, Mackey-Glass against another integration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from lmn_graph import data
from lmn_graph.data import Encoder, SeriesEncoder, _mackey_glass
from lmn_graph.data._mackey_glass import integrate


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """save(array) -> the path of an .npy file."""

    def _save(array: object, name: str = "series.npy") -> Path:
        np.save(tmp_path / name, np.asarray(array))
        return tmp_path / name

    return _save


def _times(splits: data.Splits, part: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [n, window] and targets [n] in the file's own units; for the series 0, 1, 2, … these are times."""
    target, split = splits.encoder.target, getattr(splits, part)
    x = split.x.double().numpy() * target.scale[0] + target.mean[0]
    return np.rint(x / scale).astype(int), np.rint(target.unscale(split.y).numpy()[:, 0] / scale).astype(int)


def test_a_row_is_a_window_and_the_value_after_it(save: Callable[..., Path]) -> None:
    """On the series 0, 1, 2, … every number is its own time: windows, horizon, stride and order can be read off."""
    splits = data.load(save(np.arange(200)), window=5, horizon=3, stride=2)
    assert (splits.name, splits.in_shape, splits.task, splits.out_features) == ("series.npy", (5,), "regression", 1)
    for part in ("train", "validation", "test"):
        x, y = _times(splits, part)
        assert (np.diff(x, axis=1) == 1).all()
        assert (y == x[:, -1] + 3).all()
        assert (np.diff(x[:, 0]) == 2).all()
    assert _times(splits, "train")[0][0].tolist() == [0, 1, 2, 3, 4]
    assert _times(splits, "test")[1][-1] == 199


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), st.integers(0, 80), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_no_value_is_in_two_splits(
    save: Callable[..., Path], window: int, horizon: int, stride: int, more: int, test: float, validation: float
) -> None:
    """Values of training come before those of validation, and these before those of test; a file of the least length has a row of each."""
    count = 3 * (window + horizon) + stride + more
    splits = data.series(
        save(np.arange(count)), window=window, horizon=horizon, stride=stride, test_fraction=test, validation_fraction=validation
    )
    last = -1
    for part in ("train", "validation", "test"):
        x, y = _times(splits, part)
        assert x.min() > last
        last = y.max()
        assert last >= x.max()
    assert len(splits.train) >= 2
    assert last < count


def test_the_future_reaches_neither_an_input_nor_the_scaler(save: Callable[..., Path]) -> None:
    """Leak test: other values after the training part leave the encoder and every training row as they were, bit for bit."""
    generator = np.random.default_rng(0)
    values = generator.normal(10, 4, 300)
    before = data.series(save(values), window=8, horizon=4)
    end = len(before.train) + 8 + 4 - 1  # the first value that is in no training row
    changed = np.concatenate([values[:end], generator.normal(-1000, 500, 300 - end)])
    after = data.series(save(changed), window=8, horizon=4)
    assert after.encoder == before.encoder
    assert torch.equal(after.train.x, before.train.x)
    assert torch.equal(after.train.y, before.train.y)
    assert not torch.equal(after.validation.x, before.validation.x)
    assert before.encoder.target.mean == pytest.approx((values[:end].mean(),))
    assert before.encoder.target.scale == pytest.approx((values[:end].std(),))
    # Within a split no input holds a value later than its window: a spike is in no window that ends before it.
    spike = values.copy()
    spike[100] = 1e6
    marked = data.series(save(spike), window=8, horizon=4)
    seen = (marked.train.x == marked.train.x.max()).any(1).nonzero().flatten().tolist()
    aimed = (marked.train.y[:, 0] == marked.train.y.max()).nonzero().flatten().tolist()
    assert seen == list(range(93, 101))
    assert aimed == [100 - 4 - 7]


def test_columns_and_predicting_from_a_file(save: Callable[..., Path]) -> None:
    """A column of several; the encoder gives every window of a new file, with the scale of training and the row that is forecast."""
    values = np.random.default_rng(1).normal([0, 50], [1, 9], (120, 2))
    splits = data.load(save(values), window=6, horizon=2, column=1)
    encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
    assert encoder == splits.encoder == SeriesEncoder(splits.encoder.target, 6, 2, 1)
    x, names = encoder.encode(save(values))
    assert x.shape == (115, 6)
    assert torch.equal(x[: len(splits.train)], splits.train.x)
    assert names[0] == "row 7"
    assert names[-1] == "row 121"
    assert encoder.encode(save(values[:6])).x.shape == (1, 6)
    with pytest.raises(ValueError, match="5 values are too few for a window: at least 6 are needed"):
        encoder.encode(save(values[:5]))
    with pytest.raises(ValueError, match=r"column must be an integer in \[0, 0\], the columns of .*, got 1"):
        encoder.encode(save(values[:, 0]))


def test_a_file_that_is_too_short_says_what_it_needs(save: Callable[..., Path]) -> None:
    message = "series.npy: 69 values are too few for window 20, horizon 3 and stride 1: at least 70 are needed"
    with pytest.raises(ValueError, match=message):
        data.series(save(np.arange(69)), window=20, horizon=3)
    splits = data.series(save(np.arange(70)), window=20, horizon=3)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b"], "must hold numbers, got dtype"),
        (np.zeros((3, 4, 5)), r"must have shape \[n\] or \[n, k\], got \[3, 4, 5\]"),
        (np.zeros((0,)), r"must have shape \[n\] or \[n, k\], got \[0\]"),
        ([1.0] * 300 + [np.nan], "holds NaN, inf or a number beyond float32 in row 300"),
        ([1e39, *range(300)], "holds NaN, inf or a number beyond float32 in row 0"),
        (np.ones(400), "target 'value' is constant in the training split"),
        (np.array([{}, {}], dtype=object), "is not an .npy file of numbers, or damaged"),
    ],
)
def test_wrong_arrays(save: Callable[..., Path], values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(save(values))


def test_damaged_files(tmp_path: Path, save: Callable[..., Path]) -> None:
    """Cut off, empty, text, an archive: a ValueError that names the file."""
    whole = save(np.arange(300.0)).read_bytes()
    np.savez(tmp_path / "archive.npz", x=np.arange(3))
    for content in (whole[:-9], whole[:30], b"", b"1\n2\n3\n", (tmp_path / "archive.npz").read_bytes()):
        (tmp_path / "bad.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.npy is not an \.npy file of numbers, or damaged"):
            data.load(tmp_path / "bad.npy")


@pytest.mark.parametrize("name", ["series", "mackey-glass"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("window", 0), ("horizon", 0), ("stride", 0), ("test_fraction", 0), ("validation_fraction", 1), ("window", 2.5)],
)
def test_bad_options(save: Callable[..., Path], name: str, option: str, value: object) -> None:
    spec = save(np.arange(300)) if name == "series" else name
    with pytest.raises(ValueError, match=f"{option} must be"):
        data.load(spec, **{option: value})


def test_what_does_not_fit_into_memory_is_refused(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**28})())
    with pytest.raises(ValueError, match=r"window=3000, stride=1 would take 0.6 GiB of memory"):
        data.series(save(np.arange(50_000)), window=3000)


def test_the_laser_is_forecast_better_by_its_past_than_by_its_mean(real: Path | None, save: Callable[..., Path]) -> None:
    """A line fitted to the training windows explains most of the test targets: inputs and targets belong together."""
    path = real / "series" / "santafe_laser.npy" if real else save(np.sin(np.arange(2000) / 5)[:, None] * 100)
    splits = data.load(path, window=16)
    x, y = (torch.cat([part.x, torch.ones(len(part), 1)], 1).double() for part in (splits.train, splits.test))
    weights = torch.linalg.lstsq(x, splits.train.y.double()).solution
    assert ((y @ weights - splits.test.y) ** 2).mean() < 0.3 * splits.test.y.var()


def test_a_run_on_a_series_predicts_from_a_new_one(
    lmn: Callable[..., tuple[int, str, str]], save: Callable[..., Path], tmp_path: Path
) -> None:
    tiny = ("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "4", "--smoke", "--quiet")
    path = save(np.sin(np.arange(300) / 4))
    assert lmn("train", "--data", path, "--data.window", "12", *tiny, "--out", tmp_path / "run")[0] == 0
    code, out, _ = lmn("predict", tmp_path / "run", save(np.sin(np.arange(14) / 4), "new.npy"))
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()] == ["input", "row 12", "row 13", "row 14"]


def _by_steps(length: int, tau: int, history: float) -> np.ndarray:
    """Mackey-Glass by the method of steps: on each interval of length τ the delayed value is known, and scipy's DOP853 does the rest."""
    pieces: list[Callable[[float], np.ndarray]] = [lambda t: np.array([history])]
    values, start = [np.array([history])], np.array([history])
    for k in range(-(-(length - 1) // tau)):

        def slope(t: float, x: np.ndarray, past: Callable[[float], np.ndarray] = pieces[-1]) -> np.ndarray:
            delayed = past(t - tau)
            return 0.2 * delayed / (1 + delayed**10) - 0.1 * x

        interval = (k * tau, (k + 1) * tau)
        found = solve_ivp(slope, interval, start, method="DOP853", rtol=1e-11, atol=1e-12, dense_output=True, max_step=0.5)
        values.append(found.sol(np.arange(k * tau + 1, (k + 1) * tau + 1))[0])
        start = found.y[:, -1]
        pieces.append(found.sol)
    return np.concatenate(values)[:length]


@pytest.mark.parametrize(("tau", "history"), [(17, 0.9), (5, 1.2), (30, 0.5)])
def test_mackey_glass_is_what_another_integration_gives(tau: int, history: float) -> None:
    """The method of steps with scipy's integrator of order 8; errors grow along the chaotic orbit, so 200 units of time are compared."""
    np.testing.assert_allclose(integrate(200, tau, history), _by_steps(200, tau, history), rtol=0, atol=2e-6)


def test_mackey_glass_converges_with_the_fourth_power_of_the_step() -> None:
    """Half the step, a sixteenth of the error."""
    fine = integrate(60, 17, 0.9, substeps=160)
    errors = [np.abs(integrate(60, 17, 0.9, substeps=substeps) - fine).max() for substeps in (5, 10, 20)]
    assert 10 < errors[0] / errors[1] < 24
    assert 10 < errors[1] / errors[2] < 24


def test_what_is_known_of_mackey_glass() -> None:
    """The fixed point is (β/γ − 1)^(1/n) = 1; λ = −0.1 − 0.4 exp(−λτ) there, stable for τ < arccos(−1/4) / √0.15 = 4.71; chaos at 17."""
    for history in (0.5, 1.3):
        assert np.abs(integrate(1500, 4, history)[-50:] - 1).max() < 1e-3
    assert np.ptp(integrate(3000, 5, 0.9)[-50:]) > 0.1
    cycle = integrate(3000, 6, 0.9)[2000:]
    assert np.ptp(cycle) > 0.2
    period = np.flatnonzero((cycle[1:-1] > cycle[:-2]) & (cycle[1:-1] >= cycle[2:]))
    assert np.ptp(np.diff(period)) <= 1  # one maximum a period, and always the same period
    chaos = integrate(4000, 17, 0.9)[500:]
    assert 0.2 < chaos.min() < 0.5
    assert 1.2 < chaos.max() < 1.4
    assert chaos.mean() == pytest.approx(0.93, abs=0.03)
    near = integrate(2000, 17, 0.9 + 1e-8)
    apart = np.abs(near - integrate(2000, 17, 0.9))
    assert apart[1500:].max() > 100 * apart[:100].max()  # the largest exponent is about 0.006 per unit of time


def test_mackey_glass_goes_through_the_code_of_series(save: Callable[..., Path]) -> None:
    """The same splits as from a file of its values; the seed is that of the history."""
    one = data.load("mackey-glass", length=600, tau=20, window=10, horizon=6, seed=3)
    history = np.random.default_rng(3).uniform(0.5, 1.3)
    values = integrate(_mackey_glass.WARM_UP + 600, 20, history)[_mackey_glass.WARM_UP :]
    two = data.load(save(values), window=10, horizon=6)
    assert one.encoder == two.encoder
    assert torch.equal(one.test.x, two.test.x)
    assert torch.equal(one.test.y, two.test.y)
    assert not torch.equal(one.test.x, data.mackey_glass(600, tau=20, window=10, horizon=6, seed=4).test.x)
    with pytest.raises(
        ValueError, match=r"length=100: 100 values are too few for window 64, horizon 1 and stride 1: at least 196 are needed"
    ):
        data.mackey_glass(100)
    for option, value in (("length", 0), ("tau", 0), ("tau", 1.5), ("seed", -1)):
        with pytest.raises(ValueError, match=f"{option} must be an integer"):
            data.load("mackey-glass", **{option: value})


def test_a_period_is_found_where_there_is_one():
    """Of a wave with noise its period; none of a random walk, a constant or a few values."""
    from lmn_graph.data._seasons import period_of, season

    generator = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * np.arange(2000) / 24) + 0.1 * generator.normal(size=2000)
    assert period_of(wave[:, None]) % 24 == 0
    assert period_of(np.cumsum(np.ones(500))[:, None]) is None
    assert period_of(np.ones((50, 1))) is None
    assert period_of(np.ones((1, 1))) is None
    assert season([1.0, 4.0, 9.0, 2.0, 5.0]) == 3
    assert season([1.0, 2.0, 3.0]) is None
    assert season([3.0, 2.0, 1.0]) == 2


def test_a_series_with_a_period_has_the_value_a_period_ago_as_a_baseline(tmp_path):
    """In a window of forty values of period twelve, three steps ahead: exact, unlike the last value."""
    np.save(tmp_path / "wave.npy", np.tile(np.random.default_rng(0).normal(size=12), 60))
    splits = data.load(tmp_path / "wave.npy", window=40, horizon=3)
    found = splits.encoder.baselines(splits.test, splits.train)
    torch.testing.assert_close(found["seasonal"], splits.test.y)
    assert not torch.allclose(found["last_value"], splits.test.y)
    np.save(tmp_path / "line.npy", np.arange(700.0))
    splits = data.load(tmp_path / "line.npy", window=40, horizon=3)
    assert set(splits.encoder.baselines(splits.test, splits.train)) == {"mean", "last_value"}
