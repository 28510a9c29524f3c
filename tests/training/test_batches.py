"""Batches: every sample once an epoch, in an order that a checkpoint can take up."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from lmn_graph.training.batches import Batches

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


@pytest.mark.parametrize("taken", range(9))
def test_a_state_continues_after_any_number_of_batches(taken):
    """Also where an epoch has just ended."""
    whole = Batches(X, Y, 3, shuffle=True, seed=2)
    everything = epoch(whole) + epoch(whole) + epoch(whole)
    interrupted = Batches(X, Y, 3, shuffle=True, seed=2)
    seen = []
    while len(seen) < taken:
        for _, y in interrupted:
            seen.append(y.tolist())
            if len(seen) == taken:
                break
    resumed = Batches(X, Y, 3, shuffle=True, seed=2)
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
