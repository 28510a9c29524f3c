"""Batches: every sample once an epoch, in an order that a checkpoint can take up, also where a thread reads ahead."""

from __future__ import annotations

import gc
import threading
from itertools import chain, count

import numpy as np
import pytest
import torch

from lmn_graph.data import Rows
from lmn_graph.training.batches import Batches, ahead

X, Y = torch.arange(10.0).view(10, 1), torch.arange(10)


def epoch(batches):
    return [y.tolist() for _, y in batches]


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own():
    batches = Batches(X, Y, 3, shuffle=True, seed=1)
    first, second = epoch(batches), epoch(batches)
    assert len(batches) == len(first) == 4
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second


def test_the_order_depends_on_seed_and_epoch_alone_and_draws_nothing():
    before = torch.get_rng_state()
    one, two = Batches(X, Y, 3, shuffle=True, seed=5), Batches(X, Y, 3, shuffle=True, seed=5)
    epoch(one)
    two.load_state_dict({"epoch": 1, "position": 0})
    assert epoch(one) == epoch(two)
    assert epoch(Batches(X, Y, 3, shuffle=True, seed=6)) != epoch(Batches(X, Y, 3, shuffle=True, seed=5))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("taken", range(9))
def test_a_state_continues_after_any_number_of_batches(taken, prefetch):
    """Also where an epoch has just ended; batches that were read ahead do not count."""
    whole = Batches(X, Y, 3, shuffle=True, seed=2)
    everything = epoch(whole) + epoch(whole) + epoch(whole)
    interrupted = Batches(X, Y, 3, shuffle=True, seed=2, prefetch=prefetch)
    seen = []
    while len(seen) < taken:
        for _, y in interrupted:
            seen.append(y.tolist())
            if len(seen) == taken:
                break
    resumed = Batches(X, Y, 3, shuffle=True, seed=2, prefetch=prefetch)
    resumed.load_state_dict(interrupted.state_dict())
    while len(seen) < 12:
        seen += epoch(resumed)
    assert seen == everything


def test_unshuffled_batches_keep_their_order():
    assert list(chain(*epoch(Batches(X, Y, 4)))) == list(range(10))


@pytest.mark.parametrize(("x", "y", "size"), [(X, Y[:3], 2), (X[:0], Y[:0], 2), (X, Y, 0), (X, Y, 2.0)])
def test_what_makes_no_batches_is_refused(x, y, size):
    with pytest.raises(ValueError, match=r"x and y must|batch_size must be an integer >= 1"):
        Batches(x, y, size)


class Read(Rows):
    """Row i holds i; says which thread read it, and how many batches were read."""

    def __init__(self, broken=None):
        super().__init__(10, (1,))
        self.broken, self.threads, self.batches = broken, set(), []

    def take(self, rows):
        self.threads.add(threading.current_thread())
        self.batches.append(rows.tolist())
        if self.broken in rows:
            raise ValueError(f"row {self.broken} cannot be read")
        return torch.from_numpy(rows).float()[:, None]

    def fingerprint(self):
        return "read"


def reading():
    """Threads that read ahead."""
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 7, None])
def test_batches_that_are_read_ahead_are_the_same(prefetch):
    """Of a tensor and of rows, over two epochs, and the threads end with them."""
    expected = [(x.tolist(), y.tolist()) for batches in [Batches(X, Y, 3, shuffle=True, seed=4)] for _ in range(2) for x, y in batches]
    for x in (X, Read()):
        batches = Batches(x, Y, 3, shuffle=True, seed=4, prefetch=prefetch)
        assert [(x.tolist(), y.tolist()) for _ in range(2) for x, y in batches] == expected
    assert reading() == []


def test_rows_are_read_in_the_background_and_tensors_are_not():
    rows = Read()
    assert Batches(rows, Y, 3).prefetch == 2
    assert Batches(X, Y, 3).prefetch == 0
    epoch(Batches(rows, Y, 3))
    assert threading.main_thread() not in rows.threads
    epoch(Batches(rows, Y, 3, prefetch=0))
    assert threading.main_thread() in rows.threads


def test_no_more_is_read_ahead_than_was_asked_for():
    """Two batches beside the one that is worked on, no matter how long that takes."""
    rows, read = Read(), threading.Semaphore(0)
    batches = Batches(rows, Y, 1, prefetch=2)
    rows.take = lambda numbers, take=rows.take: (take(numbers), read.release())[0]
    source = iter(batches)
    for taken in range(1, 7):
        next(source)
        read.acquire()
        if taken == 1:
            read.acquire(), read.acquire()
        assert not read.acquire(timeout=0.05)  # a fourth batch would be read by now
        assert len(rows.batches) == taken + 2
    batches.close()
    assert reading() == []


@pytest.mark.parametrize("prefetch", [0, 3])
def test_an_error_comes_where_its_batch_would_have(prefetch):
    """Also one that is no Exception; the batches before it were handed out, and the next call is the end."""
    batches = Batches(Read(broken=7), Y, 3, prefetch=prefetch)
    seen = []
    with pytest.raises(ValueError, match="row 7 cannot be read"):
        seen.extend(y.tolist() for _, y in batches)
    assert seen == [[0, 1, 2], [3, 4, 5]]
    assert batches.state_dict() == {"epoch": 0, "position": 2}
    assert reading() == []

    def stop():
        yield 1
        raise KeyboardInterrupt

    source = ahead(stop(), 2)
    assert next(source) == 1
    with pytest.raises(KeyboardInterrupt):
        next(source)
    assert list(source) == []


@pytest.mark.parametrize("end", ["close", "break", "collect", "error"])
def test_a_broken_off_epoch_leaves_no_thread(end):
    batches = Batches(Read(), Y, 1, prefetch=2)
    if end == "break":
        for _ in batches:
            break
    elif end == "error":
        with pytest.raises(RuntimeError, match="step"):  # noqa: PT012
            for _ in batches:
                raise RuntimeError("step")
    else:
        source = iter(batches)
        next(source)
        assert len(reading()) == 1
        if end == "close":
            batches.close()
            batches.close()
            assert next(source, None) is None
        del source
    gc.collect()
    assert reading() == []


def test_reading_ahead_takes_no_end_for_granted():
    """An endless source, and one without items."""
    source = ahead(count(), 3)
    assert [next(source) for _ in range(5)] == [0, 1, 2, 3, 4]
    source.close()
    assert list(ahead(iter([]), 3)) == []
    assert reading() == []


@pytest.mark.parametrize("prefetch", [-1, 1.5, True, "2"])
def test_prefetch_is_a_number_of_batches(prefetch):
    with pytest.raises(ValueError, match="prefetch must be an integer >= 0"):
        Batches(X, Y, 3, prefetch=prefetch)


def test_the_numbers_of_an_epoch_are_numbers_of_rows():
    """Rows are asked for by int64 numbers, each once."""
    rows = Read()
    epoch(Batches(rows, Y, 4, shuffle=True, seed=3))
    assert sorted(chain(*rows.batches)) == list(range(10))
    assert np.array_equal(rows[torch.tensor([2, 5])], [[2], [5]])
