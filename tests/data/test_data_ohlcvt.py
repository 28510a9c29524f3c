"""Price bars: files are refused with their line, nothing looks ahead, no bar is in two splits, indicators are those of the books."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from lmn_graph import data
from lmn_graph.data import Encoder, MissingData
from lmn_graph.data._bars import FEATURES, WARM_UP, averages, indicators, log_return, rsi
from lmn_graph.data._ohlcvt import read_bars
from lmn_graph.data._price_windows import PriceWindows
from lmn_graph.training import configure, train
from lmn_graph.training.batches import Batches
from lmn_graph.training.measure import baselines

HOUR = 3600
START = 1_483_308_000


def walk(count: int, seed: int = 0) -> np.ndarray:
    """Bars float64 [count, 7] of a random walk; prices with five digits behind the point, as they are quoted."""
    generator = np.random.default_rng(seed)
    close = np.exp(np.cumsum(generator.normal(0, 0.01, count))).round(5)
    opening = np.concatenate([[1.0], close[:-1]])
    high, low = np.maximum(opening, close) + 0.003, np.minimum(opening, close) - 0.003
    time = START + HOUR * np.arange(count)
    return np.stack([time, opening, high, low, close, generator.exponential(9, count), generator.poisson(3, count)], 1)


def write(path: Path, bars: np.ndarray) -> Path:
    path.write_text("".join(f"{int(row[0])}," + ",".join(map(repr, row[1:].tolist())) + "\n" for row in bars), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "XBTUSD_60.csv", walk(600))


def bar_numbers(path: Path, splits: data.Splits) -> list[np.ndarray]:
    """First bar of each row of the three splits, by looking its first features up among those of every bar."""
    one = data.kraken(str(path), window=1)  # scaled alike only where the training bars are the same
    place = {}
    raw = one.encoder.encode(path).x[:, 0].numpy() * np.float32(one.encoder.scale) + np.float32(one.encoder.mean)
    for number, row in enumerate(raw):
        place[np.float32(row).round(4).tobytes()] = number
    assert len(place) == len(raw)
    encoder = splits.encoder
    found = []
    for part in (splits.train, splits.validation, splits.test):
        rows = part.x[:][:, 0].numpy() * np.float32(encoder.scale) + np.float32(encoder.mean)
        found.append(np.array([place[np.float32(row).round(4).tobytes()] for row in rows]))
    return found


@pytest.mark.parametrize("features", list(FEATURES))
@pytest.mark.parametrize("target", ["direction", "return", "rsi"])
def test_no_input_sees_the_future(tmp_path, features, target):
    """Every bar after t is another: inputs of rows that end at or before t, and the scales, are the same bit for bit."""
    bars = walk(600)
    options = {"features": features, "window": 8, "horizon": 3, "target": target}
    before = data.kraken(str(write(tmp_path / "before.csv", bars)), **options)
    cut = 380  # within the training part, 40 bars before its end
    other = bars.copy()
    other[cut + 1 :] = walk(600, seed=1)[cut + 1 :]
    encoder = before.encoder
    x, names = encoder.encode(tmp_path / "before.csv")
    changed, _ = encoder.encode(write(tmp_path / "after.csv", other))
    ends = np.arange(len(x)) + WARM_UP[features] + 7
    assert torch.equal(x[ends <= cut], changed[ends <= cut])
    assert not (x[ends > cut] == changed[ends > cut]).flatten(1).all(1).any()  # the test can fail
    assert names[0] == str(np.datetime64(int(bars[WARM_UP[features] + 7, 0]), "s").astype("datetime64[m]"))

    later = bars.copy()
    first = 600 - len(before.test.x) - 10  # the test part, in which all bars are others
    later[first:] = walk(600, seed=2)[first:]
    again = data.kraken(str(write(tmp_path / "later.csv", later)), **options)
    assert (again.encoder.mean, again.encoder.scale) == (encoder.mean, encoder.scale)
    assert again.encoder.target == encoder.target
    for part in ("train", "validation"):
        assert torch.equal(getattr(again, part).x[:], getattr(before, part).x[:])
        assert torch.equal(getattr(again, part).y, getattr(before, part).y)
    assert not torch.equal(again.test.y, before.test.y)


@pytest.mark.parametrize(("target", "horizon"), [("direction", 1), ("direction", 4), ("return", 3), ("rsi", 5)])
def test_a_target_is_that_of_the_bar_after_the_horizon(tmp_path, target, horizon):
    """In the file's own numbers; equal closes count as down."""
    bars = walk(500)
    bars[200:210, 4] = bars[200, 4]
    bars[200:210, 2] = bars[200:210, [1, 4]].max(1) + 1
    bars[200:210, 3] = bars[200:210, [1, 4]].min(1) - 0.5
    close = bars[:, 4]
    splits = data.kraken(str(write(tmp_path / "x.csv", bars)), window=6, horizon=horizon, target=target)
    first = WARM_UP["bars"]
    last_seen = np.arange(len(splits.train)) + first + 5
    if target == "direction":
        assert splits.classes == ["down", "up"]
        assert torch.equal(splits.train.y, torch.from_numpy((close[last_seen + horizon] > close[last_seen]).astype(np.int64)))
        assert splits.train.y[(last_seen >= 200) & (last_seen + horizon < 210)].sum() == 0
        return
    wanted = np.log(close[last_seen + horizon] / close[last_seen]) if target == "return" else rsi(close)[last_seen + horizon]
    np.testing.assert_allclose(splits.encoder.target.unscale(splits.train.y)[:, 0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"gap": 40}, {"stride": 5, "horizon": 4}, {"test_fraction": 0.5, "validation_fraction": 0.3}])
def test_no_bar_is_in_two_splits(file, options):
    """Bars from the first input of a row to its target; between two splits lie at least ``gap`` bars, window + horizon by default."""
    splits = data.kraken(str(file), window=8, **options)
    horizon, stride = options.get("horizon", 1), options.get("stride", 1)
    starts = bar_numbers(file, splits)
    for part, later in pairwise(starts):
        assert later.min() - (part.max() + 8 - 1 + horizon) > options.get("gap", 8 + horizon)
    for part in starts:
        assert (np.diff(part) == stride).all()
    dates = 600 - 2 * options.get("gap", 8 + horizon)
    assert abs(600 - (starts[2].min() + WARM_UP["bars"]) - dates * options.get("test_fraction", 0.2)) <= stride


def test_files_are_cut_at_the_same_dates(tmp_path):
    """A pair that is listed later has no training row before; short ones are left out, with a warning that names the first."""
    write(tmp_path / "AUSD_60.csv", walk(600))
    write(tmp_path / "BUSD_60.csv", walk(600, seed=1)[350:])
    write(tmp_path / "AUSD_15.csv", walk(10))
    (tmp_path / "notes.txt").write_text("no bars")
    both = data.kraken(str(tmp_path), window=8)
    one = data.kraken(str(tmp_path), window=8, pairs="AUSD")
    two = len(both.test) - len(one.test)
    assert two == len(one.test) > 50
    assert len(one.train) > len(both.train) - len(one.train) > 0
    write(tmp_path / "CUSD_60.csv", walk(30))
    with pytest.warns(UserWarning, match="1 of 3 files are too short and are left out; the first: .*CUSD_60.csv, line 30"):
        three = data.kraken(str(tmp_path), window=8)
    assert torch.equal(three.train.x[:], both.train.x[:])
    listed = data.kraken(str(tmp_path), window=8, pairs=["BUSD", "AUSD"])
    assert len(listed.train) == len(both.train)


def test_windows_are_cut_when_they_are_asked_for(file):
    """The same rows from memory and from a map of a file, in the shuffled order of training; another file is other data."""
    held, mapped = (data.kraken(str(file), window=8, memory=memory) for memory in (True, False))
    assert isinstance(held.train.x, PriceWindows)
    assert isinstance(mapped.train.x.values, np.memmap)
    assert held.train.x.values.shape == (600, 13)  # every bar once, not once a window
    for (x, y), (z, w) in zip(*(Batches(each.train.x, each.train.y, 50, shuffle=True, seed=3) for each in (held, mapped))):
        assert torch.equal(x, z)
        assert torch.equal(y, w)
    assert held.train.x.fingerprint() == mapped.train.x.fingerprint() != held.test.x.fingerprint()
    bars = walk(600)
    bars[300, 5] += 1e-3
    assert data.kraken(str(write(file, bars)), window=8).train.x.fingerprint() != held.train.x.fingerprint()
    x = held.train.x[:]
    assert x.mean((0, 1)).abs().max() < 0.15  # of windows, not of bars: those at the ends count less
    assert (x.std((0, 1)) - 1).abs().max() < 0.15


def test_the_encoder_of_a_run_reads_a_file_as_training_did(file):
    splits = data.kraken(str(file), window=8, target="return")
    encoder = Encoder.from_dict(splits.encoder.to_dict())
    assert encoder == splits.encoder
    x, names = encoder.encode(file)
    assert torch.equal(x[: len(splits.train)], splits.train.x[:])
    assert torch.equal(x[-1 - len(splits.test) : -1], splits.test.x[:])  # the last window has no target in the file
    assert len(names) == len(x)
    record = splits.encoder.to_dict()
    with pytest.raises(ValueError, match=r"damaged: .*must have 13 numbers"):
        Encoder.from_dict({**record, "mean": record["mean"][1:]})


def test_the_index_is_wilders(tmp_path):
    """Values of TA-Lib for the closes of a textbook, whose first is 70.46; a series that rises is 100, one that rests 50."""
    close = [44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28, 46.00, 46.03]
    close += [46.41, 46.22, 45.64, 46.21, 46.25, 45.71, 46.45, 45.78, 45.35, 44.03, 44.18, 44.22, 44.57, 43.42, 42.66, 43.13]
    found = rsi(np.array(close))
    assert np.isnan(found[:14]).all()
    wanted = [70.464135, 66.249619, 66.480942, 69.346853, 66.294713, 57.915021, 62.880718, 63.208789, 56.011585, 62.339929]
    wanted += [54.670971, 50.386815, 40.019424, 41.492635, 41.902430, 45.499497, 37.322778, 33.090483, 37.788772]
    np.testing.assert_allclose(found[14:], wanted, atol=1e-6)
    assert (rsi(np.arange(1.0, 40))[14:] == 100).all()
    assert (rsi(np.arange(40.0, 1, -1))[14:] == 0).all()
    assert (rsi(np.ones(40))[14:] == 50).all()


def test_averages_and_features_are_their_formulas(file):
    """Each of one bar, by hand from the bars before it."""
    bars = read_bars(file, 60, "split", 72)
    close, t = bars.close, 321
    rows = averages(close)
    for k in (2, 3, 50, 101):
        assert rows[t, k - 2] == pytest.approx(close[t] / close[t - k + 1 : t + 1].mean() - 1, abs=1e-12)
    found = dict(zip(FEATURES["bars"], indicators(bars)[t]))
    changes = np.log(close[1:] / close[:-1])
    fast = close[0]
    for value in close[1 : t + 1]:
        fast += 2 / 13 * (value - fast)
    moment = pandas.Timestamp(int(bars.time[t]), unit="s")
    wanted = {
        "return": math.log(close[t] / close[t - 1]),
        "high": math.log(bars.high[t] / close[t]),
        "low": math.log(bars.low[t] / close[t]),
        "volume": math.log(0.5 + bars.volume[t] / (2 * bars.volume[t - 19 : t + 1].mean())),
        "trades": math.log(0.5 + bars.trades[t] / (2 * bars.trades[t - 19 : t + 1].mean())),
        "rsi": rsi(close)[t] / 50 - 1,
        "fast": close[t] / fast - 1,
        "volatility": changes[t - 20 : t].std(),
        "hour_sin": math.sin(2 * math.pi * moment.hour / 24),
        "hour_cos": math.cos(2 * math.pi * moment.hour / 24),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-10), name
    assert len(found) == 13
    np.testing.assert_allclose(log_return(close, 5)[5:], np.log(close[5:] / close[:-5]), atol=1e-14)


@pytest.mark.parametrize("features", list(FEATURES))
def test_what_is_not_traded_is_finite(tmp_path, features):
    """No volume, no trades, prices that rest, then leap; the scale of what is constant is 1."""
    bars = walk(600)
    bars[:, 5:] = 0
    bars[150:300, 1:5] = 1.0
    bars[500, 5] = 1e30
    bars[400, 4], bars[400, 2] = 1e6, 1e6
    splits = data.kraken(str(write(tmp_path / "x.csv", bars)), features=features, window=4)
    for part in (splits.train, splits.validation, splits.test):
        assert part.x[:].isfinite().all()
    if features == "bars":
        volume = list(FEATURES["bars"]).index("volume")
        assert (splits.encoder.mean[volume], splits.encoder.scale[volume]) == (0, 1)


def test_a_unit_of_price_or_volume_changes_nothing(tmp_path):
    """Features are free of scale, by powers of two so that nothing is rounded."""
    bars = walk(400)
    other = bars * np.array([1, 8, 8, 8, 8, 4, 1])
    one, two = (data.kraken(str(write(tmp_path / f"{i}.csv", each)), window=4) for i, each in enumerate((bars, other)))
    torch.testing.assert_close(one.train.x[:], two.train.x[:], atol=1e-4, rtol=1e-4)


def test_no_row_spans_a_longer_gap(tmp_path):
    """Bars are missing from 250 on: up to the longest gap rows go across, beyond it features begin anew."""
    bars = np.delete(walk(700), range(250, 330), axis=0)
    path = write(tmp_path / "x.csv", bars)
    across = data.kraken(str(path), window=8, longest_gap=81)
    apart = data.kraken(str(path), window=8, longest_gap=80)
    lost = len(across.train) - len(apart.train)
    assert lost == 8 + WARM_UP["bars"]  # rows whose bars are on both sides, and those that begin before the features have settled
    with pytest.raises(ValueError, match=r"x.csv, line 251: 80 bar\(s\) are missing before time"):
        data.kraken(str(path), window=8, missing="refuse")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{t},1,2,0.5,1,3", r"line 301: expected time,open,high,low,close,volume,trades, 7 columns, got 6"),
        ("{t},1,2,0.5,1,3,4,5", r"line 301: expected .* 7 columns, got 8"),
        ("{t},1,2,0.5,1,3,4,5,6", r"line 301: expected .* 7 columns, got 9"),
        ("{t},1,2,0.5,one,3,4", r"line 301: close must be a finite number within float32, got 'one'"),
        ("{t},1,2,0.5,nan,3,4", r"line 301: close must be a finite number within float32, got 'nan'"),
        ("{t},1,2,0.5,,3,4", r"line 301: close must be a finite number within float32, got ''"),
        ("{t},1,2,0.5,1,1e300,4", r"line 301: volume must be a finite number within float32"),
        ("{t}.5,1,2,0.5,1,3,4", r"line 301: time must be whole seconds"),
        ("{t},1,2,0,1,3,4", r"line 301: prices must be > 0, got 0"),
        ("{t},1,0.4,0.5,1,3,4", r"line 301: high must be >= low, got high 0.4, low 0.5"),
        ("{t},1,2,0.5,1,-3,4", r"line 301: volume must be >= 0, got -3"),
        ("{t},1,2,0.5,1,3,-4", r"line 301: trades must be >= 0, got -4"),
        ("{before},1,2,0.5,1,3,4", r"line 301: the bar of time \d+ is there twice"),
        ("{long},1,2,0.5,1,3,4", r"line 301: bars must be in order of time, got \d+ after \d+"),
        ("{uneven},1,2,0.5,1,3,4", r"line 301: bars must be whole intervals of 3600 seconds apart, got 3660 seconds"),
    ],
)
def test_a_bad_line_is_named(file, line, message):
    lines = file.read_text().splitlines()
    t = START + 300 * HOUR
    lines[300] = line.format(t=t, before=t - HOUR, long=t - 50 * HOUR, uneven=t + 60)
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"XBTUSD_60.csv, {message}"):
        data.kraken(str(file))


def test_blank_lines_are_counted(file):
    lines = file.read_text().splitlines()
    lines[300] = f"{START + 300 * HOUR},1,0.4,0.5,1,3,4"
    file.write_text("\n\n" + "\n".join(lines))
    with pytest.raises(ValueError, match="line 303: high must be"):
        data.kraken(str(file))


def test_other_files_are_refused(tmp_path, file):
    header = tmp_path / "header.csv"
    header.write_text("time,open,high,low,close,volume,trades\n" + file.read_text())
    with pytest.raises(ValueError, match=r"header.csv, line 1: time must be a finite number .*; the file has no header line"):
        data.kraken(str(header))
    for content in (b"", b"\n\n"):
        (tmp_path / "empty.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"empty.csv is empty"):
            data.kraken(str(tmp_path / "empty.csv"))
    (tmp_path / "latin.csv").write_bytes(b"1483308000,1,2,0.5,1,3,\xe9\n")
    with pytest.raises(ValueError, match=r"latin.csv, line 1: not UTF-8"):
        data.kraken(str(tmp_path / "latin.csv"))
    with pytest.raises(ValueError, match=r"line 60: the file ends after 60 bars; a window takes 85 bars"):
        data.kraken(str(write(tmp_path / "short.csv", walk(60))))
    with pytest.raises(ValueError, match=r"100 dates are too few|part is too short"):
        data.kraken(str(write(tmp_path / "shortish.csv", walk(100))))
    with pytest.raises(ValueError, match=r"line 30: the file ends after 30 bars; a window takes 84 bars"):
        data.kraken(str(file)).encoder.encode(write(tmp_path / "short.csv", walk(30)))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("interval", 0, "interval must be"),
        ("interval", 15, "interval must be that of XBTUSD_60.csv, 60, got 15"),
        ("window", 0, "window must be"),
        ("horizon", 0, "horizon must be"),
        ("stride", 0, "stride must be"),
        ("gap", 32, "gap must be an integer >= 33, got 32"),
        ("period", 0, "period must be an integer >= 1"),
        ("longest_gap", 0, "longest_gap must be"),
        ("features", "bar", "features must be one of 'bars', 'moving-averages'"),
        ("target", "close", "target must be one of"),
        ("missing", "fill", "missing must be one of"),
        ("memory", 1, "memory must be True or False"),
        ("test_fraction", 0, "test_fraction must be"),
        ("validation_fraction", 1, "validation_fraction must be"),
        ("pairs", "", "pairs must be names of pairs"),
        ("pairs", [], "pairs must be names of pairs"),
    ],
)
def test_a_wrong_option_is_refused(file, option, value, message):
    with pytest.raises(ValueError, match=message):
        data.kraken(str(file), **{option: value})


def test_missing_files_say_where_they_are_from(tmp_path):
    with pytest.raises(MissingData, match=r"PAIR_60.csv are missing in .*nowhere \(Kraken offers them"):
        data.kraken(str(tmp_path / "nowhere"))
    write(tmp_path / "XBTUSD_15.csv", walk(200))
    with pytest.raises(MissingData, match="PAIR_60"):
        data.kraken(str(tmp_path))
    with pytest.raises(ValueError, match=r"pairs: .* has no file XBTUSB_15.csv.*XBTUSD"):
        data.kraken(str(tmp_path), interval=15, pairs="XBTUSB")


def test_baselines_are_what_the_bars_say(tmp_path):
    """The return or index at the last bar of the window, and a period before the target; of directions the more frequent one."""
    bars = walk(500)
    path = str(write(tmp_path / "x.csv", bars))
    close = bars[:, 4]
    for target, of in (("return", lambda e: np.log(close[e] / close[e - 2])), ("rsi", lambda e: rsi(close)[e])):
        splits = data.kraken(path, window=6, horizon=2, target=target, period=24)
        found = splits.encoder.baselines(splits.train, splits.train)
        assert list(found) == ["mean", "last_value", "seasonal"]
        end = np.arange(len(splits.train)) + WARM_UP["bars"] + 7
        unscale = splits.encoder.target.unscale
        np.testing.assert_allclose(unscale(found["last_value"])[:, 0], of(end - 2), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(unscale(found["seasonal"])[:, 0], of(end - 24), rtol=1e-4, atol=1e-7)
        assert found["mean"].abs().max() < 1e-5
    splits = data.kraken(path, window=6)
    majority = splits.encoder.baselines(splits.test, splits.train)["majority"]
    assert majority.shape == (len(splits.test), 2)
    assert set(majority.argmax(1).tolist()) == {int(splits.train.y.double().mean() > 0.5)}


@pytest.mark.parametrize(("target", "out_features"), [("direction", 2), ("rsi", 1), ("return", 1)])
def test_the_specimen_is_a_random_walk_of_the_same_shape(target, out_features):
    splits = data.make_specimen("kraken", window=5, target=target, features="moving-averages", stride=3)
    assert (splits.in_shape, splits.out_features, len(splits.train), len(splits.test)) == ((5, 100), out_features, 256, 64)
    with pytest.raises(ValueError, match="window must be"):
        data.make_specimen("kraken", window=0)


def test_a_run_writes_its_baselines(file, tmp_path):
    """Beside the machine's own error, in the units of the target; of a series too."""
    settings = ["--topology.L", "3", "--topology.dim", "2", "--machine.steps", "2", "--trainer.epochs", "1", "--projector", "Linear"]
    options = ["--data", "kraken", "--data.root", str(file), "--data.target", "rsi", "--data.window", "4", "--data.period", "24"]
    run = train(configure("soc-lattice", [], [*options, *settings]), tmp_path / "run", progress=False, pictures=False)
    splits = data.kraken(str(file), target="rsi", window=4, period=24)
    index = splits.encoder.target.unscale(splits.test.y)
    for name, guess in splits.encoder.baselines(splits.test, splits.train).items():
        error = float((splits.encoder.target.unscale(guess) - index).square().mean().sqrt())
        assert run.metrics[f"test/baseline_{name}_rmse"] == pytest.approx(error, rel=1e-5)
    assert {name for name in run.metrics if "baseline" in name} == {f"test/baseline_{n}_rmse" for n in ("mean", "last_value", "seasonal")}
    direction = data.kraken(str(file), window=4)
    share = float((direction.test.y == direction.train.y.bincount().argmax()).double().mean())
    assert baselines(direction, "test") == {"baseline_majority": share}
    values = data.mackey_glass(300, window=8)
    goal, last = (values.encoder.target.unscale(part) for part in (values.test.y, values.test.x[:, -1:]))
    assert baselines(values, "test")["baseline_last_value_rmse"] == pytest.approx(float((goal - last).square().mean().sqrt()), rel=1e-5)
    assert baselines(data.load("digits"), "test") == {}
