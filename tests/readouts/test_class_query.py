"""Class queries that attend to the history: torch's own attention to all keys and values, and maps over time and cells."""

from __future__ import annotations

import copy

import pytest
import torch
from allocations import Allocations
from reading import check_differences, check_gradients_reach_everything, every_kind_of_cell, history, normed
from torch.nn.functional import scaled_dot_product_attention

import topologies
from lmn_graph.readouts import READOUTS, ClassQuery


def in_heads(x, heads):
    """[..., n, D] → [..., H, n, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def test_it_is_registered():
    assert READOUTS["ClassQuery"] is ClassQuery


@every_kind_of_cell
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("skip", [0, 2])
def test_it_is_torchs_attention_of_the_class_queries(skip, direct, channels, random_graph, normal):
    """To the tokens of all steps as one list; every class has a weight per feature and a bias."""
    readout = ClassQuery(random_graph, 7, 5, width=8, heads=2, tokens=3, skip=skip, direct=direct, channels=channels).double()
    torch.nn.init.normal_(readout.attend.position)
    activity = history(normal, random_graph, channels)
    seen = activity[:, skip:]
    steps = [normed(readout.attend.norm, readout.spatial(step.unsqueeze(1))[:, 0]) for step in seen.unbind(1)]
    tokens = torch.cat([step + position for step, position in zip(steps, readout.attend.position, strict=True)], dim=1)
    assert tokens.shape == (2, 3 * (5 - skip), 8)
    key, value = tokens @ readout.attend.key.weight.t(), tokens @ readout.attend.value.weight.t() + readout.attend.value.bias
    parts = (in_heads(x, 2) for x in (readout.attend.query.expand(2, 7, 8), key, value))
    taken = normed(readout.attend.last_norm, scaled_dot_product_attention(*parts).transpose(-2, -3).flatten(-2))
    expected = torch.stack([taken[:, k] @ readout.linear.weight[k] + readout.linear.bias[k] for k in range(7)], 1)
    expected = expected + seen.mean(1).flatten(1) @ readout.direct.weight.t() if direct else expected
    torch.testing.assert_close(readout(activity), expected)


@every_kind_of_cell
def test_its_maps_are_the_shares_of_tokens_times_the_tokens_shares_of_cells(channels, random_graph, normal):
    """Class by class and token by token, in loops; one class more or less changes no other."""
    readout = ClassQuery(random_graph, 5, 4, width=8, heads=2, tokens=3, skip=1, channels=channels).double()
    torch.nn.init.normal_(readout.attend.position)
    activity = history(normal, random_graph, channels, steps=4)
    seen = activity[:, 1:]
    of_cell = readout.spatial.shares(seen)  # [B, T, S, H, P]
    tokens = (normed(readout.attend.norm, readout.spatial(seen)) + readout.attend.position[:, None]).flatten(1, 2)
    expected = torch.zeros(2, 5, 3, 13, dtype=torch.float64)
    for b in range(2):
        for k in range(5):
            scores = torch.stack(
                [(readout.attend.key(tokens[b]) * readout.attend.query[k])[:, 4 * h : 4 * h + 4].sum(1) / 2 for h in range(2)]
            )
            share = scores.softmax(1).mean(0)
            for t in range(3):
                for s in range(3):
                    expected[b, k, t] += share[3 * t + s] * of_cell[b, t, s].mean(0)
    torch.testing.assert_close(readout.attention(activity), expected)
    torch.testing.assert_close(readout.attention(activity, classes=[4, 0, 4]), expected[:, [4, 0, 4]])
    torch.testing.assert_close(readout.attention(activity, torch.tensor([2])), expected[:, [2]])
    assert readout.attention(activity, []).shape == (2, 0, 3, 13)


@every_kind_of_cell
@pytest.mark.parametrize("steps", [1, 5])
def test_a_map_sums_to_one_over_time_and_cells(steps, channels, graph, normal):
    readout = ClassQuery(graph, 6, steps, channels=channels).double()
    maps = readout.attention(history(normal, graph, channels, steps=steps), classes=range(0, 6, 2))
    assert maps.shape == (2, 3, steps, graph.num_nodes)
    assert bool((maps >= 0).all())
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64))


def test_the_order_of_the_classes_is_nothing(lattice, normal):
    """Classes that move together with their queries, weights and biases."""
    one = ClassQuery(lattice, 4, 3).double()
    two, order = copy.deepcopy(one), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        two.attend.query.copy_(one.attend.query[order])
        two.direct.weight.copy_(one.direct.weight[order])
        two.linear.weight.copy_(one.linear.weight[order])
        two.linear.bias.copy_(one.linear.bias[order])
    activity = normal(2, 3, 16)
    torch.testing.assert_close(two(activity), one(activity)[:, order])
    torch.testing.assert_close(two.attention(activity), one.attention(activity)[:, order])


def test_the_order_of_the_cells_is_nothing(random_graph, normal):
    """Cells that move together with their identities."""
    one = ClassQuery(random_graph, 4, 3, direct=False).double()
    two, order = copy.deepcopy(one), torch.randperm(13)
    with torch.no_grad():
        two.spatial.memory.identity.weight.copy_(one.spatial.memory.identity.weight[order])
    activity = normal(2, 3, 13)
    torch.testing.assert_close(two(activity[:, :, order]), one(activity))
    torch.testing.assert_close(two.attention(activity[:, :, order]), one.attention(activity)[..., order])


def test_a_class_reads_what_it_attends_to(lattice, normal):
    """Class 0 looks at the last step only, class 1 at the first; what happens elsewhere does not matter to them."""
    readout = ClassQuery(lattice, 2, 3, direct=False).double()
    with torch.no_grad():
        readout.attend.position.zero_()
        readout.attend.position[2, 0::8], readout.attend.position[0, 0::8] = 1e3, -1e3
        readout.attend.query[0, 0::8], readout.attend.query[1, 0::8] = 10, -10
        readout.attend.key.weight.copy_(torch.eye(32))
    activity = normal(2, 3, 16)
    when = readout.attention(activity).sum(-1)
    torch.testing.assert_close(when, torch.eye(3, dtype=torch.float64)[[2, 0]].expand(2, 2, 3))
    other = activity.clone()
    other[:, 1:] = normal(2, 2, 16).flip(0, 1)
    before, after = readout(activity), readout(other)
    torch.testing.assert_close(after[:, 1], before[:, 1])
    assert not torch.allclose(after[:, 0], before[:, 0])


@pytest.mark.parametrize("identity", ["cell", "axes"])
def test_it_attends_to_output_ports_only(identity, normal):
    graph = topologies.grid((3, 4), 2)
    graph.output_index = torch.tensor([7, 0, 5])
    readout = ClassQuery(graph, 2, 3, identity=identity).double()
    activity = normal(2, 3, 12)
    deaf = activity.clone()
    deaf[:, :, [1, 2, 3, 4, 6, 8, 9, 10, 11]] = 9.0
    assert readout.attention(activity).shape == (2, 2, 3, 3)
    torch.testing.assert_close(readout(deaf), readout(activity))
    torch.testing.assert_close(readout.attention(deaf), readout.attention(activity))


@every_kind_of_cell
def test_every_parameter_and_the_activity_have_first_and_second_gradients(channels, random_graph, normal):
    readout = ClassQuery(random_graph, 3, 3, width=8, heads=2, channels=channels).double()
    activity = history(normal, random_graph, channels, batch=1, steps=3).requires_grad_()
    check_differences(readout, activity)
    check_gradients_reach_everything(readout, activity)


def test_steps_left_out_are_not_read(lattice, normal):
    readout = ClassQuery(lattice, 2, 5, skip=2).double()
    activity = normal(2, 5, 16)
    other = torch.cat([normal(2, 2, 16), activity[:, 2:]], dim=1)
    torch.testing.assert_close(readout(other), readout(activity))
    assert readout.attention(activity).shape == (2, 2, 3, 16)


def test_features_are_left_out_while_training_only(lattice):
    readout = ClassQuery(lattice, 2, 5, dropout=0.5)
    activity = torch.rand(1, 5, 16).expand(2, 5, 16)
    assert not torch.equal(*readout(activity))
    readout.eval()
    torch.testing.assert_close(*readout(activity))


@every_kind_of_cell
def test_nothing_is_larger_than_the_shares(channels):
    """Forward and backward: the shares of the cells where there are few classes, those of the tokens where there are many."""
    ring = topologies.ring(64)
    activity = torch.rand(5, 6, 64, *(() if channels is None else (channels,)), requires_grad=True)
    for classes, largest in ((3, 5 * 6 * 2 * 4 * 64), (900, 5 * 4 * 900 * 12)):
        readout = ClassQuery(ring, classes, 6, channels=channels)
        with Allocations() as made:
            readout(activity).square().sum().backward()
        assert made.largest == 4 * largest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1}, "width must be an integer >= 2, got 1"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"heads": 5}, r"heads must divide width \(32\), got 5"),
        ({"tokens": 0}, "tokens must be an integer >= 1, got 0"),
        ({"identity": "name"}, "identity must be one of 'cell', 'axes', got 'name'"),
        ({"skip": 5}, r"skip must be an integer in \[0, 4\], got 5"),
        ({"dropout": 1.5}, r"dropout must be a finite number in \[0, 1\], got 1.5"),
        ({"direct": 1}, "direct must be True or False, got 1"),
    ],
)
def test_a_bad_option_is_named(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        ClassQuery(lattice, 2, 5, **options)


def test_attention_of_a_class_that_is_not_there_is_refused(lattice):
    readout, activity = ClassQuery(lattice, 2, 5), torch.rand(3, 5, 16)
    for classes, got in (([0, 2], "2"), ([-1], "-1"), ([0.5], "0.5")):
        with pytest.raises(ValueError, match=rf"classes must be an integer in \[0, 1\], got {got}"):
            readout.attention(activity, classes)
    with pytest.raises(ValueError, match=r"activity must have shape \[B, 5, 16\], got \(3, 4, 16\)"):
        readout.attention(activity[:, 1:])
