"""Readouts that attend: each is its equation with every key and value made, and shows whom it attended to."""

from __future__ import annotations

import copy

import pytest
import torch
from reading import check_gradients_reach_everything, every_kind_of_cell, history, normed
from torch.nn.functional import scaled_dot_product_attention, silu

import topologies
from lmn_graph.ports import ports_of
from lmn_graph.readouts import READOUTS, Attention, DynamicAttention, SpatioTemporal

READERS = {"Attention": Attention, "DynamicAttention": DynamicAttention, "SpatioTemporal": SpatioTemporal}
every_reader = pytest.mark.parametrize("name", READERS)


def in_heads(x, heads):
    """[..., n, D] → [..., H, n, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def materialised(memory, activity):
    """Every key and every value, [B, T, P, D], cell by cell."""
    x = activity.unsqueeze(-1) if memory.channels is None else activity
    gain = (1 + x @ memory.gain).repeat_interleave(memory.width // memory.heads, dim=-1)
    e = memory.identities()
    return e @ memory.key + x @ memory.key_of_activity, gain * (e @ memory.value) + x @ memory.value_of_activity


def attended(query, key, value, heads):
    """torch's own attention of queries [..., M, D] to keys and values [..., P, D]."""
    parts = (in_heads(x, heads) for x in (query, key, value))
    return scaled_dot_product_attention(*parts).transpose(-2, -3).flatten(-2)


def decoded(readout, features, activity):
    prediction = features @ readout.linear.weight.t() + readout.linear.bias
    return prediction if readout.direct is None else prediction + activity.mean(1).flatten(1) @ readout.direct.weight.t()


@every_reader
def test_it_is_registered(name):
    assert READOUTS[name] is READERS[name]


@every_kind_of_cell
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("pool", "skip"), [("mean", 0), ("mean", 2), ("last", 4)])
def test_attention_is_its_equation(channels, direct, pool, skip, random_graph, normal):
    options = {"width": 8, "heads": 2, "queries": 3, "direct": direct, "pool": pool, "skip": skip}
    readout = Attention(random_graph, 3, 5, channels=channels, **options).double()
    activity = history(normal, random_graph, channels)
    seen = activity[:, skip:]
    key, value = materialised(readout.spatial.memory, seen.mean(1, keepdim=True) if pool == "mean" else seen[:, -1:])
    tokens = attended(readout.spatial.query.expand(2, 3, 8), key.squeeze(1), value.squeeze(1), 2)
    torch.testing.assert_close(readout(activity), decoded(readout, normed(readout.norm, tokens).flatten(1), seen))


@every_kind_of_cell
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("skip", [0, 2])
def test_dynamic_attention_is_its_equation(channels, direct, skip, random_graph, normal):
    """Cells and steps are one list, and every sample asks it its own questions."""
    options = {"width": 8, "heads": 2, "queries": 3, "rank": 5, "direct": direct, "skip": skip}
    readout = DynamicAttention(random_graph, 3, 5, channels=channels, **options).double()
    torch.nn.init.normal_(readout.position)
    activity = history(normal, random_graph, channels)
    seen = activity[:, skip:]
    summary = normed(readout.summary_norm, seen.mean(1).flatten(1) @ readout.summary.weight.t() + readout.summary.bias)
    query = (silu(summary) @ readout.query.weight.t() + readout.query.bias).view(2, 3, 8)
    key, value = materialised(readout.memory, seen)
    tokens = attended(query, (key + readout.position[:, None]).flatten(1, 2), value.flatten(1, 2), 2)
    torch.testing.assert_close(readout(activity), decoded(readout, normed(readout.norm, tokens).flatten(1), seen))


@every_kind_of_cell
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("layers", "skip"), [(0, 0), (2, 1)])
def test_spatio_temporal_is_its_equation(channels, direct, layers, skip, random_graph, normal):
    options = {"width": 8, "heads": 2, "queries": 3, "layers": layers, "direct": direct, "skip": skip}
    readout = SpatioTemporal(random_graph, 3, 5, channels=channels, **options).double().eval()
    torch.nn.init.normal_(readout.temporal.position)
    activity = history(normal, random_graph, channels)
    seen = activity[:, skip:]
    tokens = attended(readout.spatial.query.expand(2, 5 - skip, 3, 8), *materialised(readout.spatial.memory, seen), 2)
    series = normed(readout.norm, tokens).flatten(2) @ readout.merge.weight.t() + readout.merge.bias + readout.temporal.position
    for layer in readout.temporal.layers:
        series = layer(series)
    torch.testing.assert_close(readout(activity), decoded(readout, normed(readout.last_norm, series.mean(1)), seen))


SHAPES = {"Attention": (2, 3, 2), "DynamicAttention": (2, 4, 3, 2), "SpatioTemporal": (2, 4, 3, 2)}


@every_reader
@every_kind_of_cell
def test_its_attention_sums_to_one(name, channels, graph, normal):
    """Over the cells, or over cells and steps together; a step left out gets none."""
    readout = READERS[name](graph, 2, 5, width=8, heads=2, queries=3, skip=1, channels=channels).double()
    shares = readout.attention(history(normal, graph, channels))
    assert shares.shape == (*SHAPES[name], graph.num_nodes)
    assert bool((shares >= 0).all())
    total = shares.sum((1, -1)) if name == "DynamicAttention" else shares.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


@every_reader
@every_kind_of_cell
def test_its_attention_is_that_of_the_prediction(name, channels, random_graph, normal):
    """Without the direct path the values of a cell that gets no attention do not matter, those of one that gets all are the token."""
    readout = READERS[name](random_graph, 2, 1, width=8, heads=2, queries=3, direct=False, channels=channels).double().eval()
    memory = readout.memory if name == "DynamicAttention" else readout.spatial.memory
    activity = history(normal, random_graph, channels, steps=1)
    with torch.no_grad():
        memory.key.copy_(torch.eye(8))
        memory.key_of_activity.zero_()
        memory.identity.weight[:, 0::4] = -50  # the first feature of both heads decides
        memory.identity.weight[6, 0::4] = 50
        if name == "DynamicAttention":
            readout.query.weight.zero_()
            readout.query.bias.view(3, 8)[:, 0::4] = 10
        else:
            readout.spatial.query[:, 0::4] = 10
    shares = readout.attention(activity).flatten(0, -2)
    torch.testing.assert_close(shares, torch.eye(13, dtype=torch.float64)[6].expand_as(shares))
    others = activity.clone()
    others[:, :, torch.arange(13) != 6] += 1
    moved = activity.clone()
    moved[:, :, 6] += 1
    torch.testing.assert_close(readout(others), readout(activity))
    assert not torch.allclose(readout(moved), readout(activity))


@every_reader
@every_kind_of_cell
def test_the_order_of_the_cells_is_nothing(name, channels, random_graph, normal):
    """Cells that move together with their identities, and their columns of the linear maps, are read as before."""
    one = READERS[name](random_graph, 2, 5, channels=channels).double().eval()
    two, order = copy.deepcopy(one), torch.randperm(13)
    columns = order if channels is None else (3 * order[:, None] + torch.arange(3)).flatten()
    with torch.no_grad():
        for source, target in zip(one.modules(), two.modules(), strict=True):
            if isinstance(source, torch.nn.Linear) and source.in_features == columns.numel():
                target.weight.copy_(source.weight[:, columns])
            if type(source).__name__ == "CellEmbedding":
                target.weight.copy_(source.weight[order])
    activity = history(normal, random_graph, channels)
    torch.testing.assert_close(two(activity[:, :, order]), one(activity))
    torch.testing.assert_close(two.attention(activity[:, :, order]), one.attention(activity)[..., order])


@every_reader
@pytest.mark.parametrize("identity", ["cell", "axes"])
def test_it_attends_to_output_ports_only(name, identity, normal):
    """Both kinds of identity: predictions and attention are those of the ports, in their order."""
    lattice = topologies.grid((3, 4), 2)
    lattice.output_index = torch.tensor([7, 0, 5])
    readout = READERS[name](lattice, 2, 5, identity=identity).double().eval()
    activity = normal(2, 5, 12)
    assert readout.attention(activity).shape[-1] == 3
    deaf = activity.clone()
    deaf[:, :, [1, 2, 3, 4, 6, 8, 9, 10, 11]] = 9.0
    torch.testing.assert_close(readout(deaf), readout(activity))
    torch.testing.assert_close(readout.attention(deaf), readout.attention(activity))
    assert torch.equal(ports_of(lattice, "output_index"), readout.output_index)


@every_reader
def test_steps_left_out_are_not_read(name, lattice, normal):
    readout = READERS[name](lattice, 2, 5, skip=2).double().eval()
    activity = normal(2, 5, 16)
    other = torch.cat([normal(2, 2, 16), activity[:, 2:]], dim=1)
    torch.testing.assert_close(readout(other), readout(activity))
    torch.testing.assert_close(readout.attention(other), readout.attention(activity))


@every_reader
@every_kind_of_cell
def test_every_parameter_and_the_activity_have_first_and_second_gradients(name, channels, random_graph, normal):
    readout = READERS[name](random_graph, 2, 3, width=8, heads=2, channels=channels).double()
    activity = history(normal, random_graph, channels, steps=3).requires_grad_()
    check_gradients_reach_everything(readout, activity)


@every_reader
def test_features_are_left_out_while_training_only(name, lattice):
    readout = READERS[name](lattice, 2, 5, dropout=0.5)
    activity = torch.rand(1, 5, 16).expand(2, 5, 16)
    assert not torch.equal(*readout(activity))
    readout.eval()
    torch.testing.assert_close(*readout(activity))


@pytest.mark.parametrize("name", ["DynamicAttention", "SpatioTemporal"])
def test_it_learns_the_order_of_steps(name, generator):
    """A pulse through three cells or its reverse: their means over time are equal, so a linear map of them is at chance."""
    ring = topologies.ring(8)
    forth = torch.nn.functional.one_hot(torch.tensor([1, 2, 3]), 8).float()
    label = torch.arange(32) % 2
    activity = torch.where(label.view(-1, 1, 1).bool(), forth, forth.flip(0)) + 0.1 * torch.randn(32, 3, 8, generator=generator)
    readout = READERS[name](ring, 2, 3, width=16, direct=False)
    optimiser = torch.optim.Adam(readout.parameters(), lr=0.01)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(readout(activity), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


@every_reader
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"heads": 5}, r"heads must divide width \(32\), got 5"),
        ({"queries": 0}, "queries must be an integer >= 1, got 0"),
        ({"identity": "name"}, "identity must be one of 'cell', 'axes', got 'name'"),
        ({"identity": "axes"}, r"topology must have cell_factors \[N, d\] or the shape of a lattice"),
        ({"skip": 5}, r"skip must be an integer in \[0, 4\], got 5"),
        ({"dropout": 1.5}, r"dropout must be a finite number in \[0, 1\], got 1.5"),
        ({"direct": 1}, "direct must be True or False, got 1"),
    ],
)
def test_a_bad_option_is_named(name, options, message, random_graph):
    with pytest.raises(ValueError, match=message):
        READERS[name](random_graph, 2, 5, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Attention", {"pool": "max"}, "pool must be one of 'mean', 'last', got 'max'"),
        ("DynamicAttention", {"rank": 0}, "rank must be an integer >= 1, got 0"),
        ("SpatioTemporal", {"layers": -1}, "layers must be an integer >= 0, got -1"),
    ],
)
def test_a_bad_option_of_its_own_is_named(name, options, message, lattice):
    with pytest.raises(ValueError, match=message):
        READERS[name](lattice, 2, 5, **options)


@every_reader
def test_attention_to_a_history_of_another_shape_is_refused(name, lattice):
    readout = READERS[name](lattice, 2, 5)
    for activity, got in ((torch.rand(3, 4, 16), r"\(3, 4, 16\)"), (torch.rand(3, 5, 16, 1), r"\(3, 5, 16, 1\)"), ([1.0], "list")):
        with pytest.raises(ValueError, match=rf"activity must have shape \[B, 5, 16\], got {got}"):
            readout.attention(activity)
