"""Readouts of regions: windows are torch's convolution, groups and attention between regions are their equations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from allocations import Allocations
from reading import check_differences, every_kind_of_cell, history
from torch.nn import functional

import topologies
from lmn_graph.readouts import READOUTS, MultiHeadAttention, OverlappingGroups
from lmn_graph.readouts._regions import Groups, Windows, convolve, halved

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
SIDES = (5, 4, 6)


def normed(norm, x):
    return functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def as_picture(mean, sides):
    """[B, P(, C)] → [B, C, *sides]."""
    return (mean.unsqueeze(1) if mean.dim() == 2 else mean.transpose(1, 2)).unflatten(2, sides)


@pytest.mark.parametrize("name", ["MultiHeadAttention", "OverlappingGroups"])
def test_it_is_registered(name):
    assert READOUTS[name].__name__ == name


@pytest.mark.parametrize("dim", [4, 5])
def test_a_convolution_over_more_than_three_axes_is_its_sum(dim, normal):
    """Place by place, in loops; values and gradients."""
    sides, window, stride = (3, 4, 3, 2, 3)[:dim], (2, 3, 1, 2, 2)[:dim], (1, 1, 2, 2, 1)[:dim]
    x, weight = normal(2, 3, *sides).requires_grad_(), normal(4, 3, *window).requires_grad_()
    found = convolve(x, weight, stride)
    places = [range((side - k) // s + 1) for side, k, s in zip(sides, window, stride)]
    assert found.shape == (2, 4, *map(len, places))
    expected = torch.stack([
        (x[(slice(None), slice(None), *(slice(i * s, i * s + k) for i, s, k in zip(place, stride, window)))].unsqueeze(1) * weight)
        .flatten(2).sum(2)
        for place in itertools.product(*places)
    ], dim=-1).view_as(found)  # fmt: skip
    torch.testing.assert_close(found, expected)
    weights = normal(*found.shape)
    for one, two in zip(*(torch.autograd.grad((made * weights).sum(), (x, weight)) for made in (found, expected))):
        torch.testing.assert_close(one, two)


@every_kind_of_cell
@pytest.mark.parametrize("dim", CONVOLUTIONS)
@pytest.mark.parametrize(("window", "stride"), [(2, 1), (3, 2), (4, 2), (4, 3)])
def test_overlapping_groups_are_a_convolution(window, stride, dim, channels, normal):
    """The windows of torch's convolution on the mean, with zeros after the last cell where a window goes beyond."""
    sides = SIDES[:dim]
    readout = OverlappingGroups(topologies.grid(sides, dim), 3, 5, window=window, stride=stride, channels=channels, skip=2).double()
    activity = normal(2, 5, math.prod(sides), *(() if channels is None else (channels,)))
    picture = functional.pad(as_picture(activity[:, 2:].mean(1), sides), [0, window] * dim)
    found = CONVOLUTIONS[dim](picture, readout.regions.weight, readout.regions.bias, stride=stride)
    for axis, side in enumerate(sides):  # as many as it takes to see every cell
        found = found.narrow(axis + 2, 0, math.ceil((side - window) / stride) + 1)
    features = functional.gelu(found.flatten(2).transpose(1, 2).flatten(1))
    torch.testing.assert_close(readout(activity), readout.linear(normed(readout.norm, features)))


@every_kind_of_cell
@pytest.mark.parametrize("name", ["OverlappingGroups", "MultiHeadAttention"])
def test_where_there_is_no_lattice_groups_have_node_factors(name, channels, random_graph, normal):
    readout = READOUTS[name](random_graph, 3, 5, channels=channels).double()
    assert isinstance(readout.regions, Groups)
    features = 8 if name == "OverlappingGroups" else 32
    assert readout.regions.factors.shape == (13, 13, features)  # no more groups than nodes
    mean = history(normal, random_graph, channels).mean(1)
    if channels is None:
        expected = torch.einsum("bn,ngf->bgf", mean, readout.regions.factors)
    else:
        expected = torch.einsum("bnc,ngf,cf->bgf", mean, readout.regions.factors, readout.regions.of_channel)
    torch.testing.assert_close(readout.regions(mean), expected + readout.regions.bias)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_second_layer_mixes_the_features_of_a_window(activation, lattice, normal):
    readout = OverlappingGroups(lattice, 3, 5, window=3, activation=activation, mix=True).double()
    act, activity = getattr(functional, activation), normal(2, 5, 16)
    found = act(readout.regions(activity.mean(1)))
    found = found + act(torch.einsum("bgf,hf->bgh", found, readout.mix.weight) + readout.mix.bias)
    assert found.shape == (2, 4, 8)
    torch.testing.assert_close(readout(activity), readout.linear(normed(readout.norm, found.flatten(1))))


def test_what_is_shifted_by_a_stride_is_found_a_window_further(normal):
    """On every axis; the map is the same for all windows."""
    windows = Windows((9, 8), (3, 4), (2, 2), 5).double()
    assert windows.places == (4, 3)
    picture = torch.zeros(2, 9, 8, dtype=torch.float64)
    picture[:, 2:5, 2:5] = normal(2, 3, 3)
    found, moved = (windows(x.flatten(1)).unflatten(1, (4, 3)) for x in (picture, picture.roll((2, 2), (1, 2))))
    torch.testing.assert_close(moved[:, 1:, 1:], found[:, :-1, :-1])
    assert not torch.allclose(moved, found)


@pytest.mark.parametrize("side", range(1, 12))
@pytest.mark.parametrize(("window", "stride"), [(2, 1), (3, 2), (4, 2), (5, 3), (5, 4)])
def test_windows_cover_every_cell_and_start_within_the_lattice(side, window, stride):
    """A short axis has one window; cells that are next to each other share one where the stride is smaller than the window."""
    readout = OverlappingGroups(topologies.grid((side, 2), 2, boundary="open"), 2, 3, window=window, stride=stride)
    (count, _), k = readout.regions.places, min(window, side)
    assert (count == 1) == (side <= window)
    assert (count - 1) * stride < side <= (count - 1) * stride + k
    activity = torch.rand(1, 3, 2 * side, requires_grad=True)
    readout(activity).square().sum().backward()
    assert bool((activity.grad != 0).all())


@pytest.mark.parametrize("sides", [(1,), (7,), (3, 4), (8, 8, 8), (1, 9, 2), (16, 5, 3, 2)])
@pytest.mark.parametrize("most", [1, 2, 5, 16, 64])
def test_boxes_are_no_more_than_were_asked_for_and_tile_the_lattice(sides, most):
    window = halved(sides, most)
    windows = Windows(sides, window, window, 2)
    assert windows.count == math.prod(math.ceil(side / k) for side, k in zip(sides, window)) <= most
    for axis, k in enumerate(window):  # and one more cut would be too many
        finer = [*window[:axis], (k + 1) // 2, *window[axis + 1 :]]
        assert k == 1 or math.prod(math.ceil(side / w) for side, w in zip(sides, finer)) > most
    if most >= math.prod(sides):
        assert window == (1,) * len(sides)


def test_the_regions_of_a_cube_are_cubes():
    assert halved((8, 8, 8), 64) == (2, 2, 2)
    assert halved((8, 8, 8), 16) == (2, 4, 4)
    assert halved((28, 28), 16) == (7, 7)
    assert halved((9,), 3) == (3,)


def in_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


@every_kind_of_cell
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("direct", [False, True])
def test_regions_attend_to_each_other(layers, direct, channels, normal):
    """Boxes by hand, one map, torch's multi-head attention in a pre-norm block by hand, mean, linear."""
    graph = topologies.grid((3, 4), 2)
    options = {"width": 8, "heads": 2, "tokens": 4, "layers": layers, "direct": direct, "skip": 1}
    readout = MultiHeadAttention(graph, 3, 5, channels=channels, **options).double()
    torch.nn.init.normal_(readout.transformer.position)
    activity = history(normal, graph, channels)
    seen = activity[:, 1:].mean(1)
    picture = functional.pad(as_picture(seen, (3, 4)), [0, 0, 0, 1])  # 3 is cut into 2 and 1
    boxes = torch.stack([picture[:, :, i : i + 2, j : j + 2].flatten(1) for i in (0, 2) for j in (0, 2)], dim=1)
    series = normed(readout.norm, boxes @ readout.regions.weight.flatten(1).t() + readout.regions.bias) + readout.transformer.position
    for layer in readout.transformer.layers:
        x = normed(layer.norm1, series)
        made, shares = layer.self_attn(x, x, x, average_attn_weights=False)
        series = series + made
        series = series + layer.linear2(layer.linear1(normed(layer.norm2, series)).relu())
    expected = normed(readout.last_norm, series.mean(1)) @ readout.linear.weight.t() + readout.linear.bias
    expected = expected + seen.flatten(1) @ readout.direct.weight.t() if direct else expected
    torch.testing.assert_close(readout(activity), expected)
    torch.testing.assert_close(readout.attention(activity), shares)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 4, dtype=torch.float64))


def test_the_order_of_the_regions_is_nothing_but_their_positions(normal):
    """Boxes that trade places together with their positions are read as before, and not without."""
    readout = MultiHeadAttention(topologies.grid(4, 2), 3, 2, tokens=4, direct=False).double().eval()
    torch.nn.init.normal_(readout.transformer.position)
    activity = normal(2, 2, 16)
    traded = activity.view(2, 2, 4, 4).roll(2, 2).flatten(2)
    assert not torch.allclose(readout(traded), readout(activity))
    before = readout(activity)
    with torch.no_grad():
        readout.transformer.position.copy_(readout.transformer.position.view(2, 2, 32).roll(1, 0).flatten(0, 1))
    torch.testing.assert_close(readout(traded), before)


@every_kind_of_cell
@pytest.mark.parametrize("name", ["OverlappingGroups", "MultiHeadAttention"])
@pytest.mark.parametrize("sides", [(5,), (3, 4), (3, 2, 2, 3), None])
def test_first_and_second_gradients_are_those_of_differences(name, channels, sides, random_graph, normal):
    """Finite differences in double precision, to the activity."""
    graph = random_graph if sides is None else topologies.grid(sides, len(sides))
    options = {"mix": True} if name == "OverlappingGroups" else {"width": 4, "heads": 2, "tokens": 4}
    readout = READOUTS[name](graph, 2, 2, channels=channels, **options).double().eval()
    activity = history(normal, graph, channels, batch=1, steps=2).requires_grad_()
    check_differences(readout, activity)


@pytest.mark.parametrize("name", ["OverlappingGroups", "MultiHeadAttention"])
def test_steps_left_out_are_not_read(name, lattice, normal):
    readout = READOUTS[name](lattice, 2, 5, skip=2).double().eval()
    activity = normal(2, 5, 16)
    other = torch.cat([normal(2, 2, 16), activity[:, 2:]], dim=1)
    torch.testing.assert_close(readout(other), readout(activity))


@pytest.mark.parametrize("name", ["OverlappingGroups", "MultiHeadAttention"])
def test_features_are_left_out_while_training_only(name, lattice):
    readout = READOUTS[name](lattice, 2, 5, dropout=0.5)
    activity = torch.rand(1, 5, 16).expand(2, 5, 16)
    assert not torch.equal(*readout(activity))
    readout.eval()
    torch.testing.assert_close(*readout(activity))


@every_kind_of_cell
@pytest.mark.parametrize("name", ["OverlappingGroups", "MultiHeadAttention"])
def test_nothing_is_larger_than_the_history(name, channels):
    """Forward and backward, on an open lattice of three axes."""
    graph = topologies.grid(8, 3, boundary="open")
    readout = READOUTS[name](graph, 2, 8, channels=channels)
    activity = torch.rand(4, 8, 512, *(() if channels is None else (channels,)), requires_grad=True)
    with Allocations() as made:
        readout(activity).square().sum().backward()
    assert made.largest <= activity.nbytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "window must be an integer >= 2, got 1"),
        ({"window": 3, "stride": 3}, r"stride must be an integer in \[1, 2\], got 3"),
        ({"stride": 0}, r"stride must be an integer in \[1, 3\], got 0"),
        ({"features": 1}, "features must be an integer >= 2, got 1"),
        ({"groups": 0}, "groups must be an integer >= 1, got 0"),
        ({"activation": "tanh"}, "activation must be one of 'gelu', 'relu', got 'tanh'"),
        ({"mix": 1}, "mix must be True or False, got 1"),
        ({"skip": 5}, r"skip must be an integer in \[0, 4\], got 5"),
        ({"dropout": 1.5}, r"dropout must be a finite number in \[0, 1\], got 1.5"),
    ],
)
def test_a_bad_option_of_overlapping_groups_is_named(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        OverlappingGroups(lattice, 2, 5, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1}, "width must be an integer >= 2, got 1"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"heads": 5}, r"heads must divide width \(32\), got 5"),
        ({"tokens": 0}, "tokens must be an integer >= 1, got 0"),
        ({"layers": 0}, "layers must be an integer >= 1, got 0"),
        ({"skip": -1}, r"skip must be an integer in \[0, 4\], got -1"),
        ({"dropout": -0.5}, r"dropout must be a finite number in \[0, 1\], got -0.5"),
        ({"direct": 1}, "direct must be True or False, got 1"),
    ],
)
def test_a_bad_option_of_multi_head_attention_is_named(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(lattice, 2, 5, **options)
