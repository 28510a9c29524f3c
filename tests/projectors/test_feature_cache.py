"""Features kept on disk: the same numbers, f run once per picture, and nothing that a damaged, full or shared file can break."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from tiny_runs import TINY, assert_same_run, pictures, rows_of
from torch import nn

import topologies
from lmn_graph.projectors import Backbone
from lmn_graph.projectors._feature_cache import FeatureCache, sample_keys
from lmn_graph.training import configure, evaluate, open_run, resume, train
from lmn_graph.training.files import load_model, save_model

SMALL = "shufflenet_v2_x0_5"


def backbone(cache, *, seed=0, shape=(8, 8), **options):
    torch.manual_seed(seed)
    return Backbone(shape, topologies.grid(4, 2), model=SMALL, cache=cache, **options)


def counting(projector):
    """How many pictures each call of f had."""
    calls = []
    projector.network.register_forward_hook(lambda _, given, out: calls.append(len(given[0])))
    return calls


def only_file(folder):
    (found,) = Path(folder).glob("*.sqlite")
    return found


def test_features_are_those_without_a_cache_and_are_computed_once(tmp_path):
    """The first time of the same batch bit for bit, the drive and its gradients too; from then on f is not run at all."""
    plain, cached = backbone(None), backbone(tmp_path / "new" / "folder")
    calls = counting(cached)
    x = torch.rand(6, 8, 8)
    for _ in range(2):
        assert torch.equal(cached.features(x), plain.features(x))
    for projector in (plain, cached):
        projector(x).square().sum().backward()
    assert torch.equal(cached.linear.weight.grad, plain.linear.weight.grad)
    assert calls == [6]
    again = backbone(tmp_path / "new" / "folder")
    calls = counting(again)
    assert torch.equal(again.features(x.flip(0)), plain.features(x).flip(0))
    assert calls == []


def test_only_what_is_not_there_is_computed_at_once(tmp_path):
    """Part of a batch, twice the same picture, one picture, none; in any order."""
    projector = backbone(tmp_path)
    calls = counting(projector)
    x = torch.rand(5, 8, 8)
    plain = backbone(None).features(x)
    projector.features(x[:2])
    found = projector.features(x[[3, 0, 3, 4, 1]])
    torch.testing.assert_close(found, plain[[3, 0, 3, 4, 1]])
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(projector.features(x[2:3]), plain[2:3])
    assert projector.features(x[:0]).shape == (0, 1024)
    assert torch.equal(projector.features(x), projector.features(x))
    assert calls == [2, 2, 1]


def test_more_pictures_than_fit_into_one_question(tmp_path):
    cache = FeatureCache(tmp_path, "many")
    x = torch.arange(1201.0).view(-1, 1)
    for _ in range(2):
        assert torch.equal(cache.features(x, lambda given: torch.cat([given, -given], 1), 2), torch.cat([x, -x], 1))
    assert torch.equal(cache.features(x, lambda given: pytest.fail("asked"), 2)[:, 0], x[:, 0])


def test_keys_tell_bytes_dtype_and_shape_apart_and_nothing_else():
    x = torch.rand(3, 4, 6)
    assert len({*sample_keys(x), *sample_keys(x.double()), *sample_keys(x.view(3, 6, 4)), *sample_keys(x + 1)}) == 12
    strided = torch.rand(3, 6, 4).transpose(1, 2)
    assert sample_keys(strided) == sample_keys(strided.contiguous())
    assert sample_keys(x.flip(0)) == sample_keys(x)[::-1]


def test_everything_that_determines_the_features_has_a_file_of_its_own(tmp_path):
    """Weights, sizes and models; two projectors that differ in W, b or norm share theirs."""
    x = torch.rand(2, 8, 8)
    for options in ({}, {"seed": 1}, {"size": 16}, {"size": 17}):
        projector = backbone(tmp_path, **options)
        calls = counting(projector)
        projector.features(x)
        assert calls == [2], options
    other = Backbone((8, 8), topologies.grid(4, 2), model="mobilenet_v3_small", cache=tmp_path)
    other.features(x)
    assert len(list(tmp_path.glob("*.sqlite"))) == 5
    shared = backbone(tmp_path, norm="batch")
    shared.reset_parameters()
    calls = counting(shared)
    shared.features(x)
    assert calls == []


def test_weights_that_change_are_noticed(tmp_path):
    """A loaded model, a conversion there and back, a change in place: never the features of other weights."""
    x = torch.rand(3, 8, 8)
    one, two = backbone(tmp_path), backbone(tmp_path, seed=1)
    first, second = one.features(x), two.features(x)
    assert not torch.equal(first, second)
    save_model(one, tmp_path / "model.safetensors")
    load_model(two, tmp_path / "model.safetensors")
    calls = counting(two)
    assert torch.equal(two.features(x), first)
    assert calls == []
    rounded = copy.deepcopy(one).half().float()
    calls = counting(rounded)
    assert not torch.equal(rounded.features(x), first)
    assert calls == [3]
    next(iter(one.network.buffers())).mul_(1.5)
    plain = copy.deepcopy(one)
    plain.cache = None
    assert torch.equal(one.features(x), plain.features(x))


def test_gradients_and_double_precision_go_past_the_cache(tmp_path):
    """Where x wants a gradient it gets the true one; nothing of float64 is rounded; autocast does not reach what is kept."""
    projector, plain = backbone(tmp_path), backbone(None)
    x = torch.rand(2, 8, 8)
    projector.features(x)
    calls = counting(projector)
    gradients = [torch.autograd.grad(part.features(x.requires_grad_()).sum(), x)[0] for part in (projector, plain)]
    assert torch.equal(*gradients)
    assert calls == [2]
    with torch.no_grad():
        projector.features(x)
    assert calls == [2]
    doubles = [copy.deepcopy(part).double().features(x.detach().double()) for part in (projector, plain)]
    assert torch.equal(*doubles)
    assert doubles[0].dtype == torch.float64
    y = torch.rand(2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = projector.features(y)
        assert projector(y).dtype == torch.bfloat16
    assert torch.equal(mixed, plain.features(y))
    with torch.inference_mode():
        assert torch.equal(projector.features(y), mixed)


def test_copies_and_pickles_go_on_with_the_same_file(tmp_path):
    projector = backbone(tmp_path)
    x = torch.rand(2, 8, 8)
    expected = projector.features(x)
    assert "cache" not in " ".join(projector.state_dict())
    for other in (copy.deepcopy(projector), pickle.loads(pickle.dumps(projector))):
        calls = counting(other)
        assert torch.equal(other.features(x), expected)
        assert calls == []


# Files that are not as they should be


def test_a_damaged_row_is_computed_again_and_mended(tmp_path):
    """One flipped bit, a value that was cut, a value of another type: never other numbers."""
    projector = backbone(tmp_path)
    x = torch.rand(4, 8, 8)
    expected = projector.features(x)
    calls = counting(projector)
    with sqlite3.connect(only_file(tmp_path)) as connection:
        rows = connection.execute("SELECT rowid, value FROM features").fetchall()
        for (row, value), damaged in zip(rows, (_flipped(rows[0][1]), rows[1][1][:-4], "text")):
            assert value != damaged
            connection.execute("UPDATE features SET value = ? WHERE rowid = ?", (damaged, row))
    connection.close()
    torch.testing.assert_close(projector.features(x), expected)
    assert calls == [3]
    projector.features(x)
    assert calls == [3]


def _flipped(value):
    return bytes([value[0] ^ 1]) + value[1:]


def test_a_value_that_belongs_to_another_picture_is_not_believed(tmp_path):
    """The checksum is of key and value together."""
    projector = backbone(tmp_path)
    x = torch.rand(2, 8, 8)
    expected = projector.features(x)
    with sqlite3.connect(only_file(tmp_path)) as connection:
        (one, *_), (two, *_) = connection.execute("SELECT value FROM features ORDER BY rowid").fetchall()
        connection.execute("UPDATE features SET value = ? WHERE value = ?", (two, one))
        assert one != two
    connection.close()
    torch.testing.assert_close(projector.features(x), expected)


@pytest.mark.parametrize("damage", ["text", "cut", "overwritten", "other table"])
def test_a_damaged_file_is_refused_by_name(damage, tmp_path):
    projector = backbone(tmp_path)
    projector.features(torch.rand(40, 8, 8))
    path = only_file(tmp_path)
    size = path.stat().st_size
    if damage == "text":
        path.write_bytes(b"This is no database, and was never one." * 200)
    elif damage == "cut":
        with path.open("r+b") as file:
            file.truncate(size // 2)
    elif damage == "overwritten":
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 8192))
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE features (something TEXT)")
        connection.close()
    with pytest.raises(ValueError, match=r"cache file '.*\.sqlite' is damaged \(.*\); delete it: its features are then computed anew"):
        projector.features(torch.rand(40, 8, 8))
    path.unlink()
    for rest in tmp_path.glob("*.sqlite-*"):
        rest.unlink()
    torch.manual_seed(1)
    x = torch.rand(2, 8, 8)
    assert torch.equal(projector.features(x), backbone(None).features(x))


def test_an_empty_file_is_a_new_one(tmp_path):
    """As a process leaves it that was killed when it had only just made it."""
    projector = backbone(tmp_path)
    projector.features(torch.rand(1, 8, 8))
    path = only_file(tmp_path)
    path.unlink()
    path.touch()
    x = torch.rand(2, 8, 8)
    projector.features(x)
    calls = counting(projector)
    projector.features(x)
    assert calls == []


def test_a_folder_that_is_a_file_or_no_name_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache must be None or a folder, got '.*file', which is a file"):
        backbone(tmp_path / "file")
    for bad in ("", 3):
        with pytest.raises(ValueError, match="cache must be None or a folder, got "):
            backbone(bad)


class Failing:
    """A connection whose writes fail as SQLite says it on a full disk."""

    def __init__(self, connection, code):
        self.connection, self.code = connection, code

    def executemany(self, *_):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = self.code
        raise error

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def __enter__(self):
        return self.connection.__enter__()

    def __exit__(self, *error):
        return self.connection.__exit__(*error)


def test_a_full_disk_costs_one_warning(tmp_path, monkeypatch):
    """The run goes on, with what is there already and without keeping more; nothing half-written is left."""
    projector = backbone(tmp_path)
    kept, x = torch.rand(2, 8, 8), torch.rand(3, 8, 8)
    projector.features(kept)
    original = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: Failing(original(*given, **more), sqlite3.SQLITE_FULL))
    calls = counting(projector)
    with pytest.warns(RuntimeWarning, match=r"cannot be used \(database or disk is full\): features are computed and not kept"):
        expected = projector.features(x)
    assert torch.equal(projector.features(x), expected)
    projector.features(kept)
    assert calls == [3, 3]
    monkeypatch.undo()
    with sqlite3.connect(only_file(tmp_path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM features").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_limit_on_the_size_of_the_file_is_a_full_disk(tmp_path):
    """SQLite's own error, from its own limit, not one that is made up."""
    projector = backbone(tmp_path)
    projector.features(torch.rand(1, 8, 8))
    original = sqlite3.connect

    def small(*given, **more):
        connection = original(*given, **more)
        connection.execute("PRAGMA max_page_count = 8")
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        x = torch.rand(40, 8, 8)
        with pytest.warns(RuntimeWarning, match="cannot be used .database or disk is full."):
            found = projector.features(x)
    assert torch.equal(found, backbone(None).features(x))


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path, monkeypatch):
    """As below a folder that may only be read."""
    projector = backbone(tmp_path / "closed" / "cache")

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    x = torch.rand(2, 8, 8)
    with pytest.warns(RuntimeWarning, match=r"cannot be used \(.*Permission denied.*\): features are computed and not kept"):
        expected = projector.features(x)
    assert torch.equal(projector.features(x), expected)


def test_a_file_that_may_only_be_read_costs_one_warning(tmp_path, monkeypatch):
    """SQLite's own refusal to write."""
    projector = backbone(tmp_path)
    known, x = torch.rand(2, 8, 8), torch.rand(2, 8, 8)
    projector.features(known)
    original = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **more: original(f"file:{path}?mode=ro", uri=True, **more))
    calls = counting(projector)
    with pytest.warns(RuntimeWarning, match="cannot be used .attempt to write a readonly database."):
        projector.features(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        projector.features(torch.cat([known, x]))
    assert calls == [2, 2]


# Several processes


WRITERS = """
import os, pathlib, signal, sys, time, torch
from lmn_graph.projectors._feature_cache import FeatureCache
torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
x = torch.arange(600.0).view(-1, 1)
shared = FeatureCache(folder / "shared", "one")  # taken along by every fork

def write(cache, seed, done):
    for part in torch.randperm(600, generator=torch.Generator().manual_seed(seed)).split(7):
        cache.features(x[part], lambda given: given.square() + torch.zeros(1, 2000), 2000)
        os.write(done, b".")

def fork(*arguments):
    pid = os.fork()
    if pid == 0:
        try:
            write(*arguments)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return pid

shared.features(x[:1], lambda given: given.square() + torch.zeros(1, 2000), 2000)
reading, writing = os.pipe()
pids = [fork(FeatureCache(folder / "fresh", "one") if seed % 2 else shared, seed, writing) for seed in range(6)]
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
killed = []
for round in range(8):
    reading, writing = os.pipe()
    pid = fork(FeatureCache(folder / "killed", "one"), round, writing)
    for _ in range(5 + 3 * round):
        os.read(reading, 1)
    time.sleep(0.0007 * round)
    os.kill(pid, signal.SIGKILL)
    killed.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(codes, killed)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder that six processes have written into at once, three a file, and eight more that were killed, one after the other."""
    folder = tmp_path_factory.mktemp("written")
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", WRITERS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stdout == f"{[0] * 6} {[-signal.SIGKILL] * 8}\n", done.stdout + done.stderr
    return folder


def checked(path):
    """How many features a file holds; they are right, and SQLite finds nothing wrong."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT COUNT(*) FROM features").fetchone()
    connection.close()
    computed, x = [], torch.arange(600.0).view(-1, 1)

    def f(given):
        computed.append(len(given))
        return given.square() + torch.zeros(1, 2000)

    found = FeatureCache(path.parent, path.stem).features(x, f, 2000)
    assert torch.equal(found, x.square().expand(-1, 2000))
    assert sum(computed) == 600 - count
    return count


@pytest.mark.slow
def test_processes_share_a_file(written):
    """Whether they were forked with the cache or opened it at the same moment, with nothing there: in the end every sample is."""
    assert checked(written / "shared" / "one.sqlite") == 600
    assert checked(written / "fresh" / "one.sqlite") == 600


@pytest.mark.slow
def test_killed_processes_leave_a_file_that_works(written):
    """Whatever each had finished is there, and nothing is damaged."""
    assert 7 * (5 + 3 * 7) <= checked(written / "killed" / "one.sqlite") < 600


# In a run


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("lmn_graph.report.plots.save_all", lambda *_: [])


BACKBONE = ("--projector", "Backbone", "--projector.model", SMALL, "--projector.cache")


def config_of(folder, cache, *more):
    data = ("--data", str(folder), "--data.size", "8", "--loss.burn_in", "0", "--trainer.checkpoint_every", "2")
    return configure("soc-lattice", [], [*data, *TINY, *BACKBONE, str(cache), *more])


def test_a_run_computes_every_picture_once_and_goes_on_from_anywhere(tmp_path, monkeypatch):
    """Its numbers are those of a run without a cache; the folder is kept whole in the configuration; stopped, it goes on bit for bit."""
    from lightning.pytorch import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 3:
                raise RuntimeError("stopped")

    seen = []
    original = Backbone._features
    monkeypatch.setattr(Backbone, "_features", lambda self, x: (seen.append(len(x)), original(self, x))[1])
    folder = pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = train(config_of(folder, "alone"), tmp_path / "run", progress=False)
    assert run.config["projector"]["cache"] == str(tmp_path / "alone")
    splits = run.splits()
    assert sum(seen) == len(splits.train) + len(splits.validation) + len(splits.test)
    plain = train(config_of(folder, "null"), tmp_path / "plain", progress=False)
    assert plain.config["projector"]["cache"] is None
    for one, two in zip(rows_of(run.folder), rows_of(plain.folder), strict=True):
        assert one["train/loss"] == pytest.approx(two["train/loss"], rel=1e-3)
    seen.clear()
    monkeypatch.chdir("/")
    assert evaluate(open_run(run.folder).machine(), splits) == run.metrics
    assert seen == []
    (tmp_path / "alone").rename(tmp_path / "before")
    with pytest.raises(RuntimeError, match="stopped"):
        train(config_of(folder, tmp_path / "alone"), tmp_path / "again", progress=False, callbacks=[Stop()])
    resume(tmp_path / "again", progress=False)
    assert_same_run(run.folder, tmp_path / "again")


def test_a_file_of_weights_is_kept_whole_too(tmp_path, monkeypatch):
    """A run that was given a relative name is used from another folder."""
    torch.save(torchvision.models.get_model(SMALL, weights=None).state_dict(), tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    config = config_of(pictures(tmp_path), "null", "--projector.weights", "weights.pth")
    run = train(config, tmp_path / "run", smoke=True, progress=False)
    assert run.config["projector"]["weights"] == str(tmp_path / "weights.pth")
    monkeypatch.chdir("/")
    assert isinstance(open_run(run.folder).machine().projector, Backbone)


def test_pictures_that_are_augmented_are_not_kept(tmp_path):
    """None of them comes again; said before anything is written."""
    config = config_of(pictures(tmp_path), tmp_path / "cache", "--augment", "Pictures", "--augment.crop", "1")
    with pytest.raises(ValueError, match=r"projector\.cache must be None with augment: no picture is ever the same again, got '.*cache'"):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_a_file_of_another_architecture_names_the_first_difference(tmp_path):
    """A ResNet's weights for a MobileNet: told by the first tensor that the one has and the other has not."""
    torch.save(torchvision.models.get_model("resnet18", weights=None).state_dict(), tmp_path / "resnet18.pth")
    assert isinstance(torchvision.models.get_model("mobilenet_v2", weights=None).features[0][0], nn.Conv2d)
    message = r"weights '.*resnet18\.pth' are of another model: 'features\.0\.0\.weight' is missing"
    with pytest.raises(ValueError, match=message):
        Backbone((3, 32, 32), topologies.grid(4, 2), model="mobilenet_v2", weights=tmp_path / "resnet18.pth")
