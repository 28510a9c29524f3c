"""Attention over cells and steps: equal to torch's own with every key and value made, to second derivatives, in less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

import topologies
from lmn_graph.attention import CellMemory, SpatialAttention, TemporalAttention

every_kind_of_cell = pytest.mark.parametrize("channels", [None, 1, 3])


def materialised(memory, activity):
    """Every key and every value, [B, T, P, D], cell by cell from the equation."""
    x = activity.unsqueeze(-1) if memory.channels is None else activity
    gain = (1 + x @ memory.gain).repeat_interleave(memory.width // memory.heads, dim=-1)
    e = memory.identities()
    return e @ memory.key + x @ memory.key_of_activity, gain * (e @ memory.value) + x @ memory.value_of_activity


def in_heads(x, heads):
    """[..., n, D] → [..., H, n, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def cells(normal, graph, channels, batch=2, steps=3):
    return normal(batch, steps, graph.num_nodes, *(() if channels is None else (channels,)))


@every_kind_of_cell
@pytest.mark.parametrize("of_every_sample", [False, True])
def test_the_tokens_are_those_of_torch_with_keys_and_values_made(channels, of_every_sample, graph, normal):
    """Values and all gradients, with one set of queries or one per sample."""
    memory = CellMemory(graph, 12, heads=3, channels=channels).double()
    query = normal(*((2,) if of_every_sample else ()), 5, 12).requires_grad_()
    activity = cells(normal, graph, channels).requires_grad_()
    found = memory.read(torch.softmax(memory.scores(query, activity), -1), activity)
    key, value = (in_heads(made, 3) for made in materialised(memory, activity))
    every_step = query.unsqueeze(1).expand(2, 3, 5, 12) if of_every_sample else query.expand(2, 3, 5, 12)
    tokens = scaled_dot_product_attention(in_heads(every_step, 3), key, value).transpose(-2, -3).flatten(-2)
    torch.testing.assert_close(found, tokens)
    weight, inputs = normal(*found.shape), (query, activity, *memory.parameters())
    for one, two in zip(*(torch.autograd.grad((made * weight).sum(), inputs) for made in (found, tokens)), strict=True):
        torch.testing.assert_close(one, two)


@every_kind_of_cell
@pytest.mark.parametrize("identity", ["cell", "axes"])
def test_shares_and_tokens_are_those_of_multihead_attention(channels, identity, lattice, normal):
    spatial = SpatialAttention(lattice, 8, queries=3, heads=2, channels=channels, identity=identity).double()
    activity = cells(normal, lattice, channels)
    whole = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        whole.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        whole.out_proj.weight.copy_(torch.eye(8))
    key, value = (made.flatten(0, 1) for made in materialised(spatial.memory, activity))
    tokens, shares = whole(spatial.query.expand(6, 3, 8), key, value, average_attn_weights=False)
    torch.testing.assert_close(spatial(activity).flatten(0, 1), tokens)
    torch.testing.assert_close(spatial.shares(activity).flatten(0, 1), shares.transpose(1, 2))


@every_kind_of_cell
def test_shares_of_the_cells_sum_to_one(channels, graph, normal):
    """Also for activities whose exponentials no float holds."""
    spatial = SpatialAttention(graph, 8, queries=3, heads=2, channels=channels).double()
    for scale in (1, 1e5):
        shares = spatial.shares(scale * cells(normal, graph, channels))
        assert shares.shape == (2, 3, 3, 2, graph.num_nodes)
        assert bool((shares >= 0).all())
        torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3, 3, 2, dtype=torch.float64))


@every_kind_of_cell
def test_the_order_of_the_cells_is_nothing(channels, random_graph, normal):
    """Cells that move with their identities are the same cells; a cell that leaves its identity behind is another."""
    one = SpatialAttention(random_graph, 8, queries=3, heads=2, channels=channels).double()
    order = torch.randperm(13)
    two = copy.deepcopy(one)
    with torch.no_grad():
        two.memory.identity.weight.copy_(one.memory.identity.weight[order])
    activity = cells(normal, random_graph, channels)
    torch.testing.assert_close(two(activity[:, :, order]), one(activity))
    assert not torch.allclose(one(activity[:, :, order]), one(activity))


@every_kind_of_cell
@pytest.mark.parametrize("identity", ["cell", "axes"])
def test_cells_that_are_not_listed_are_not_attended_to(channels, identity, normal):
    """The listed ones in their order; axes keep the rows of the whole lattice."""
    lattice, listed = topologies.grid((3, 4), 2), torch.tensor([7, 0, 5])
    some = SpatialAttention(lattice, 8, queries=2, heads=2, channels=channels, identity=identity, index=listed).double()
    whole = SpatialAttention(lattice, 8, queries=2, heads=2, channels=channels, identity=identity).double()
    activity = cells(normal, lattice, channels)
    shares = some.shares(activity[:, :, listed])
    assert shares.shape == (2, 3, 2, 2, 3)
    state = some.state_dict()
    if identity != "axes":
        assert state["memory.identity.weight"].shape == (3, 8)
        state["memory.identity.weight"] = torch.randn(12, 8).double().index_copy(0, listed, state["memory.identity.weight"])
    whole.load_state_dict(state)
    kept = whole.shares(activity)[..., listed]
    torch.testing.assert_close(shares, kept / kept.sum(-1, keepdim=True))


def test_identities_of_axes_cost_one_row_per_axis_value():
    spatial = SpatialAttention(topologies.grid((3, 4, 5), 3), 8, identity="axes")
    assert spatial.memory.identity.weight.shape == (12, 8)
    assert spatial.memory.identities().shape == (60, 8)


@every_kind_of_cell
def test_first_and_second_derivatives(channels, normal):
    """To the activity and to every parameter, by finite differences."""
    ring = topologies.ring(4)
    spatial = SpatialAttention(ring, 4, queries=2, heads=2, channels=channels).double()
    names, values = zip(*((name, value.detach().requires_grad_()) for name, value in spatial.named_parameters()))

    def tokens(activity, *values):
        return torch.func.functional_call(spatial, dict(zip(names, values)), (activity,))

    inputs = (cells(normal, ring, channels, steps=1).requires_grad_(), *values)
    assert torch.autograd.gradcheck(tokens, inputs)
    assert torch.autograd.gradgradcheck(tokens, inputs)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.untyped_storage().nbytes() // one.element_size())
        return found


@every_kind_of_cell
def test_nothing_is_larger_than_the_shares(channels):
    """Forward and backward: no keys or values [B, T, P, D] of every sample and step, here eight times as large."""
    ring = topologies.ring(64)
    spatial = SpatialAttention(ring, 32, queries=2, heads=2, channels=channels)
    activity = torch.rand(5, 6, 64, *(() if channels is None else (channels,)), requires_grad=True)
    with Largest() as largest:
        spatial(activity).square().sum().backward()
    assert largest.elements == 5 * 6 * 2 * 2 * 64


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_steps_attend_to_each_other(layers, normal):
    """x + position, then x + Attention(norm(x)) and x + MLP(norm(x)), written out."""
    temporal = TemporalAttention(8, 5, layers=layers, heads=2).double().eval()
    torch.nn.init.normal_(temporal.position)
    series = normal(3, 5, 8)
    expected = series + temporal.position
    for layer in temporal.layers:
        q, k, v = (
            in_heads(part, 2)
            for part in (layer.norm1(expected) @ layer.self_attn.in_proj_weight.t() + layer.self_attn.in_proj_bias).chunk(3, -1)
        )
        seen = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        expected = expected + layer.self_attn.out_proj(seen.transpose(-2, -3).flatten(-2))
        expected = expected + layer.linear2(layer.linear1(layer.norm2(expected)).relu())
    torch.testing.assert_close(temporal(series), expected)


def test_attention_over_time_has_second_derivatives(normal):
    temporal = TemporalAttention(4, 3, layers=1, heads=2).double()
    series = normal(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(temporal, (series,))
    assert torch.autograd.gradgradcheck(temporal, (series,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"width": 2.5}, "width must be an integer >= 1, got 2.5"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"heads": 3}, r"heads must divide width \(8\), got 3"),
        ({"queries": 0}, "queries must be an integer >= 1, got 0"),
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"identity": "name"}, "identity must be one of 'cell', 'axes', got 'name'"),
        ({"topology": None}, "topology must be a torch_geometric.data.Data, got NoneType"),
        ({"identity": "axes"}, r"topology must have cell_factors \[N, d\] or the shape of a lattice"),
    ],
)
def test_a_bad_argument_of_spatial_attention_is_named(options, message, random_graph):
    arguments = {"topology": random_graph, "width": 8} | options
    with pytest.raises(ValueError, match=message):
        SpatialAttention(arguments.pop("topology"), arguments.pop("width"), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"heads": 3}, r"heads must divide width \(8\), got 3"),
        ({"layers": -1}, "layers must be an integer >= 0, got -1"),
        ({"dropout": 2}, r"dropout must be a finite number in \[0, 1\], got 2"),
    ],
)
def test_a_bad_argument_of_temporal_attention_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        TemporalAttention(**({"width": 8, "steps": 5} | options))
