"""Training on streams: windows cover the stream in order, gradients go back just as far as they should, a resume is exact."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.data import Stream, load
from lmn_graph.memory import MemoryToken
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice
from lmn_graph.training import configure, evaluate, open_run, resume, train
from lmn_graph.training.build import build_machine
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.streams import advance, measured, measuring
from lmn_graph.training.windows import StreamBatches


def tokens(count, documents=(0,)):
    """Token i is i: a value is its own place."""
    return Stream(np.arange(count, dtype=np.uint32), np.array(documents), characters=count, words=count)


@pytest.mark.parametrize(
    ("count", "lanes", "window", "shuffle"), [(100, 3, 7, False), (100, 3, 7, True), (50, 1, 49, False), (20, 64, 4, True)]
)
def test_a_row_goes_on_where_it_ended(count, lanes, window, shuffle):
    """Row b is one stretch of the stream, no item twice, every target the next item; the lanes follow each other."""
    batches = StreamBatches(tokens(count), StreamSettings(window), lanes, shuffle=shuffle)
    found = list(batches)
    assert len(found) == len(batches)
    whole = torch.cat([item.x for item in found], 1).squeeze(-1)
    assert torch.equal(whole, whole[:, :1] + torch.arange(whole.size(1)))
    assert len(whole.unique()) == whole.numel()
    assert torch.equal(torch.cat([item.y for item in found], 1), whole + 1)
    assert int(whole.max()) + 1 < count
    assert [item.first for item in found] == [True] + [False] * (len(found) - 1)
    assert all(item.advance == window for item in found)


def test_epochs_begin_elsewhere_and_a_position_is_taken_up():
    batches = StreamBatches(tokens(500), StreamSettings(16), 4, shuffle=True, seed=1)
    epochs = [[item.x for item in batches] for _ in range(6)]
    assert len({int(epoch[0][0, 0]) for epoch in epochs}) > 2
    again = StreamBatches(tokens(500), StreamSettings(16), 4, shuffle=True, seed=1)
    again.load_state_dict({"epoch": 2, "position": 3})
    assert [item.x.tolist() for item in again] == [x.tolist() for x in epochs[2][3:]]
    assert again.state_dict() == {"epoch": 3, "position": 0}


def test_a_measured_stream_is_whole():
    """Every item of the lanes once, the last ones in a shorter window."""
    found = list(measuring(tokens(1000), StreamSettings(30)))
    places = torch.cat([item.y.flatten() for item in found]).sort().values
    assert torch.equal(places, places[0] + torch.arange(len(places)))
    assert len(places) >= 1000 - 32


def test_windows_reach_back():
    """k2 items of input, the last k1 of them with targets, and the start of the next one announced."""
    found = list(StreamBatches(tokens(200), StreamSettings(5, back=15), 2))
    assert [item.x.size(1) for item in found[:4]] == [5, 10, 15, 15]
    assert all(item.y.size(1) == 5 for item in found)
    for one, other in pairwise(found):
        assert int(other.x[0, 0]) - int(one.x[0, 0]) == one.advance
        assert int(other.y[0, 0]) - int(one.y[0, 0]) == 5


def test_documents_are_whole_and_every_one_comes_once_an_epoch():
    """No target beyond a document's end, none missing; those too long are cut."""
    stream = tokens(100, (0, 1, 8, 40, 99))
    settings = StreamSettings(4, by="documents", longest=20)
    seen = []
    for item in StreamBatches(stream, settings, 2, shuffle=True):
        assert item.first
        for x, y in zip(item.x.squeeze(-1), item.y):
            assert torch.equal(y[y >= 0], x[y >= 0] + 1)
            seen.append(y[y >= 0].tolist())
    targets = sorted(chain.from_iterable(seen))
    assert targets == [*range(2, 8), *range(9, 40), *range(41, 99)]
    assert max(map(len, seen)) == 20


def small_machine(memory=None):
    graph = topologies.grid(3, 2)
    rule = TanhLattice(graph)
    memory = MemoryToken(graph, width=4) if memory else None
    return LatticeMachine(graph, Linear((1,), graph), rule, Rate(graph, 1, steps=2), steps=2, memory=memory).double()


def windows_of(values, settings, lanes=2):
    batches = StreamBatches(Stream(values), settings, lanes)
    return [item._replace(x=item.x.double(), y=item.y.double()) for item in batches]


@pytest.mark.parametrize(("window", "back"), [(4, None), (4, 4), (2, 6), (1, 5), (3, 12)])
def test_truncated_gradients_go_back_just_so_far(window, back):
    """At every window the gradient is that of its losses through exactly ``back`` items, from a state without gradient."""
    machine = small_machine()
    settings = StreamSettings(window, back=back)
    values = np.random.default_rng(0).normal(size=(60, 1)).astype(np.float32)
    state = None
    whole = torch.cat([item.x[:, -window:] for item in windows_of(values, settings)], 1)
    for number, item in enumerate(windows_of(values, settings)):
        output, state = advance(machine, item, state, settings)
        loss = (output.prediction - item.y).square().sum()
        found = torch.autograd.grad(loss, list(machine.parameters()))
        begin = max(0, (number + 1) * window - (back or window))
        with torch.no_grad():
            start = machine.stream(whole[:, :begin]).state if begin else None
        expected = machine.stream(whole[:, begin : (number + 1) * window], start).prediction[:, -window:]
        wanted = torch.autograd.grad((expected - item.y).square().sum(), list(machine.parameters()))
        for one, other in zip(found, wanted):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert state is None or not any(field.requires_grad for field in state)


def test_full_back_propagation_passes_memory_tokens():
    """By documents the gradient of the last window reaches the first one, through memory alone."""
    machine = small_machine(memory=True)
    settings = StreamSettings(3, by="documents", longest=12)
    values = np.random.default_rng(0).normal(size=(13, 1)).astype(np.float32)
    (item,) = windows_of(values, settings, 1)
    item = item._replace(x=item.x.requires_grad_())
    output, _ = advance(machine, item, None, settings)
    (gradient,) = torch.autograd.grad(output.prediction[:, -1].sum(), item.x)
    assert float(gradient[:, :3].abs().sum()) > 0
    # By hand, window after window.
    state, found = None, []
    for first in range(0, 12, 3):
        part = machine.stream(item.x[:, first : first + 3], state)
        state = part.state
        found.append(part.prediction)
    torch.testing.assert_close(torch.cat(found, 1), output.prediction)


def test_a_measure_is_that_of_all_items():
    """Loss, R² and the error of the last value against one pass over the whole stream."""
    machine = small_machine().float().eval()
    values = np.sin(np.arange(400) / 5).astype(np.float32)[:, None]
    stream = Stream(values)
    batches = measuring(stream, StreamSettings(7))
    found = measured(machine, batches, (2.0,))
    lanes, length = batches.lanes, batches.length
    x = torch.from_numpy(values[: lanes * length]).view(lanes, length, 1)
    y = torch.from_numpy(values[1 : lanes * length + 1]).view(lanes, length, 1)
    with torch.no_grad():
        error = (machine.stream(x).prediction - y).double()
    assert found["loss"] == pytest.approx(float(error.square().mean()), rel=1e-5)
    assert found["rmse"] == pytest.approx(2 * math.sqrt(found["loss"]))
    assert found["mae"] == pytest.approx(2 * float(error.abs().mean()), rel=1e-5)
    assert found["r2"] == pytest.approx(1 - found["loss"] / float(y.double().var(unbiased=False)), rel=1e-5)
    assert found["baseline_last_value_rmse"] == pytest.approx(2 * float((x - y).double().square().mean().sqrt()), rel=1e-5)
    assert "lyapunov" in found


STREAM = ["--data", "mackey-glass", "--data.length", "700", "--data.stream", "true", "--projector", "Linear", "--machine.steps", "2"]
STREAM += ["--trainer.epochs", "2", "--trainer.batch_size", "4", "--stream.window", "8", "--topology.L", "4"]


def config_of(*more):
    return configure("tanh-lattice", [{"topology": "grid"}], [*STREAM, *more])


@pytest.mark.parametrize(
    "more",
    [
        ("--stream.back", "24"),
        *(pytest.param(more, marks=pytest.mark.slow) for more in ((), ("--memory", "MemoryToken"), ("--stream.carry", "false"))),
    ],
)
def test_a_resume_in_the_middle_of_an_epoch_is_exact(tmp_path, more):
    """Parameters, metrics and everything after: equal bit for bit to a run left alone, though the carried state is no buffer."""
    from lightning.pytorch import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 7:
                raise KeyboardInterrupt

    config = config_of("--trainer.checkpoint_every", "5", *more)
    alone = train(config, tmp_path / "alone", progress=False, pictures=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", progress=False, pictures=False, callbacks=[Stop()])
    resumed = resume(tmp_path / "broken", progress=False, pictures=False)
    assert resumed.metrics == alone.metrics
    for name, value in alone.machine().state_dict().items():
        assert torch.equal(value, resumed.machine().state_dict()[name]), name
    assert not any("carried" in name for name in alone.machine().state_dict())


def test_a_run_on_a_stream_is_measured_and_used(tmp_path):
    run = train(config_of(), tmp_path / "run", progress=False)
    assert run.metrics["test/r2"] > 0.5
    assert {"test/rmse", "test/baseline_last_value_rmse", "test/lyapunov"} <= run.metrics.keys()
    again = open_run(tmp_path / "run")
    settings = StreamSettings(**again.config["stream"])
    assert evaluate(again.machine(), again.splits(), stream=settings) == run.metrics


def test_a_stream_with_a_period_is_measured_beside_its_repetition(tmp_path):
    """Exact for a wave that repeats itself, in units of its values; nothing of the kind for a line."""
    for name, values in (("wave", 5 * np.tile(np.random.default_rng(0).normal(size=9), 80)), ("line", np.arange(700.0))):
        np.save(tmp_path / f"{name}.npy", values)
        splits = load(tmp_path / f"{name}.npy", stream=True)
        machine = build_machine(config_of(), splits.in_shape, splits.out_features)
        found = evaluate(machine, splits, "test", stream=StreamSettings(8))
        assert found["test/baseline_last_value_rmse"] > 0.5
        assert found.get("test/baseline_seasonal_rmse", -1.0) == pytest.approx(0.0 if name == "wave" else -1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--stream.window", "0"), "stream.window must be"),
        (("--stream.window", "100000"), "stream.window must be at most"),
        (("--stream.back", "12"), "stream.back must be a multiple of stream.window 8"),
        (("--stream.back", "16", "--stream.carry", "false"), "stream.back must be none"),
        (("--stream.by", "documents", "--stream.back", "8"), "stream.back must be"),
        (("--stream.longest", "1"), "stream.longest must be"),
        (("--loss.every_step", "true"), "every_step must be False for a stream"),
        (("--machine.inject", "state"), "inject must be 'every' or 'first' for a stream"),
        (("--data.length", "4"), "too few"),
    ],
)
def test_bad_settings_leave_nothing_behind(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        train(config_of(*more), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "starts", "message"),
    [
        (np.zeros(1, dtype=np.uint16), [0], "at least two items"),
        (np.zeros(3), [0], r"integers \[n\] or floating-point numbers \[n, F\]"),
        (np.zeros((3, 1)), [1], "starts must be positions"),
        (np.zeros((3, 1)), [0, 3], "starts must be positions"),
        (np.zeros((3, 1)), [0, 2, 1], "starts must be positions"),
        (np.array([[0.0], [np.nan], [0.0]]), [0], "NaN or inf in row 1"),
        ([1, 2, 3], [0], "values must be"),
    ],
)
def test_what_is_no_stream_is_refused(values, starts, message):
    with pytest.raises(ValueError, match=message):
        Stream(values, np.array(starts))
