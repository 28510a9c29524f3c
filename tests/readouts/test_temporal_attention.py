"""A learned query that attends to steps: torch's own attention to keys and values that are made."""

from __future__ import annotations

import pytest
import torch
from allocations import Allocations
from reading import check_differences, check_gradients_reach_everything, every_kind_of_cell, history, normed
from torch.nn.functional import multi_head_attention_forward

import topologies
from lmn_graph.readouts import READOUTS, TemporalAttention


def test_it_is_registered():
    assert READOUTS["TemporalAttention"] is TemporalAttention


@every_kind_of_cell
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("heads", "skip"), [(1, 0), (4, 2)])
def test_it_is_torchs_attention_of_one_query(heads, skip, direct, channels, random_graph, normal):
    """Prediction and shares, with the maps of keys and values handed over."""
    readout = TemporalAttention(random_graph, 3, 5, width=8, heads=heads, skip=skip, direct=direct, channels=channels).double()
    torch.nn.init.normal_(readout.attend.position)
    activity = history(normal, random_graph, channels)
    seen = activity[:, skip:]
    series = normed(readout.attend.norm, seen.flatten(2) @ readout.map.weight.t() + readout.map.bias) + readout.attend.position
    zero, one = torch.zeros(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    pooled, shares = multi_head_attention_forward(
        readout.attend.query.expand(1, 2, 8), *(series.transpose(0, 1),) * 2, 8, heads,
        None, torch.cat([zero, zero, readout.attend.value.bias]), None, None, False, 0.0, one, zero, average_attn_weights=False,
        use_separate_proj_weight=True, q_proj_weight=one,
        k_proj_weight=readout.attend.key.weight, v_proj_weight=readout.attend.value.weight,
    )  # fmt: skip
    expected = normed(readout.attend.last_norm, pooled[0]) @ readout.linear.weight.t() + readout.linear.bias
    expected = expected + seen.mean(1).flatten(1) @ readout.direct.weight.t() if direct else expected
    torch.testing.assert_close(readout(activity), expected)
    torch.testing.assert_close(readout.attention(activity), shares.squeeze(2))


@every_kind_of_cell
@pytest.mark.parametrize("steps", [1, 5])
def test_its_shares_of_the_steps_sum_to_one(steps, channels, graph, normal):
    readout = TemporalAttention(graph, 2, steps, channels=channels).double()
    shares = readout.attention(history(normal, graph, channels, steps=steps))
    assert shares.shape == (2, 4, steps)
    assert bool((shares > 0).all())
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 4, dtype=torch.float64))


def test_the_order_of_steps_is_nothing_but_their_positions(lattice, normal):
    readout = TemporalAttention(lattice, 2, 5, direct=False).double()
    torch.nn.init.normal_(readout.attend.position)
    activity, order = normal(2, 5, 16), torch.tensor([3, 1, 4, 0, 2])
    before, shares = readout(activity), readout.attention(activity)
    assert not torch.allclose(readout(activity[:, order]), before)
    with torch.no_grad():
        readout.attend.position.copy_(readout.attend.position[order])
    torch.testing.assert_close(readout(activity[:, order]), before)
    torch.testing.assert_close(readout.attention(activity[:, order]), shares[..., order])


def test_steps_that_get_no_attention_are_not_read(lattice, normal):
    """A query that finds the position of one step only."""
    readout = TemporalAttention(lattice, 2, 5, direct=False).double()
    with torch.no_grad():
        readout.attend.position.zero_()
        readout.attend.position[3, 0::8] = 1e3  # the first feature of every head
        readout.attend.query[0, 0::8] = 10
        readout.attend.key.weight.copy_(torch.eye(32))
    activity = normal(2, 5, 16)
    shares = readout.attention(activity)
    torch.testing.assert_close(shares, torch.eye(5, dtype=torch.float64)[3].expand_as(shares))
    other, moved = activity.clone(), activity.clone()
    other[:, [0, 1, 2, 4]] += 1
    moved[:, 3] = normal(2, 16).flip(1)
    torch.testing.assert_close(readout(other), readout(activity))
    assert not torch.allclose(readout(moved), readout(activity))


@every_kind_of_cell
def test_every_parameter_and_the_activity_have_first_and_second_gradients(channels, random_graph, normal):
    readout = TemporalAttention(random_graph, 2, 3, width=4, heads=2, channels=channels).double()
    activity = history(normal, random_graph, channels, batch=1, steps=3).requires_grad_()
    check_differences(readout, activity)
    check_gradients_reach_everything(readout, activity)


def test_it_learns_when_a_pulse_came(generator):
    """The same pulse in the first or in the last step: their means over time are equal, so a linear map of them is at chance."""
    label = torch.arange(32) % 2
    activity = 0.1 * torch.randn(32, 3, 8, generator=generator)
    activity[label == 0, 0] += 1
    activity[label == 1, 2] += 1
    readout = TemporalAttention(topologies.ring(8), 2, 3, width=16, direct=False)
    optimiser = torch.optim.Adam(readout.parameters(), lr=0.01)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(readout(activity), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_steps_left_out_are_not_read(lattice, normal):
    readout = TemporalAttention(lattice, 2, 5, skip=2).double()
    activity = normal(2, 5, 16)
    other = torch.cat([normal(2, 2, 16), activity[:, 2:]], dim=1)
    torch.testing.assert_close(readout(other), readout(activity))
    assert readout.attention(activity).shape == (2, 4, 3)


def test_features_are_left_out_while_training_only(lattice):
    readout = TemporalAttention(lattice, 2, 5, dropout=0.5)
    activity = torch.rand(1, 5, 16).expand(2, 5, 16)
    assert not torch.equal(*readout(activity))
    readout.eval()
    torch.testing.assert_close(*readout(activity))


@every_kind_of_cell
def test_nothing_is_larger_than_the_history(channels):
    """Forward and backward; a history is a view of node-major memory, so a product copies it at most."""
    readout = TemporalAttention(topologies.ring(64), 2, 6, channels=channels)
    activity = torch.rand(64, 16, 6, *(() if channels is None else (channels,))).movedim(0, 2).requires_grad_()
    with Allocations() as made:
        readout(activity).square().sum().backward()
    assert made.largest <= activity.nbytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1}, "width must be an integer >= 2, got 1"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"heads": 5}, r"heads must divide width \(32\), got 5"),
        ({"skip": 5}, r"skip must be an integer in \[0, 4\], got 5"),
        ({"dropout": 1.5}, r"dropout must be a finite number in \[0, 1\], got 1.5"),
        ({"direct": 1}, "direct must be True or False, got 1"),
    ],
)
def test_a_bad_option_is_named(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        TemporalAttention(lattice, 2, 5, **options)


def test_attention_to_a_history_of_another_shape_is_refused(lattice):
    with pytest.raises(ValueError, match=r"activity must have shape \[B, 5, 16\], got \(3, 4, 16\)"):
        TemporalAttention(lattice, 2, 5).attention(torch.rand(3, 4, 16))
