"""Readouts: each is its formula, on lattices of any dimension, other graphs, scalar cells and channels."""

from __future__ import annotations

import pytest
import torch
from small_readouts import outputs

import topologies
from lmn_graph.readouts import READOUTS, Holographic, Rate

every_readout = pytest.mark.parametrize("name", list(READOUTS))


@every_readout
@pytest.mark.parametrize("channels", [None, 3])
def test_the_prediction_has_one_row_per_sample(name, channels, graph):
    """Also for one sample and for none, with a gradient to the activity and to every parameter."""
    classes = outputs(name, graph, 2)
    readout = READOUTS[name](graph, classes, 5, channels=channels)
    tail = (5, graph.num_nodes) if channels is None else (5, graph.num_nodes, channels)
    for batch in (4, 1, 0):
        assert readout(torch.rand(batch, *tail)).shape == (batch, classes)
        with torch.no_grad():
            assert readout.eval()(torch.rand(batch, *tail)).shape == (batch, classes)
        readout.train()
    activity = torch.rand(4, *tail, requires_grad=True)
    readout(activity).square().sum().backward()
    assert activity.grad is not None
    assert all(parameter.grad is not None for parameter in readout.parameters())


@every_readout
def test_a_state_dict_restores_the_readout(name, lattice):
    one, two = (READOUTS[name](lattice, 3, 4).eval() for _ in range(2))
    activity = torch.rand(2, 4, 16)
    assert torch.equal(one(activity), two(activity)) == (not one.state_dict())  # some have nothing to learn
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(activity), two(activity))


@every_readout
def test_a_transposed_view_is_read_like_a_copy(name, lattice):
    """Trajectories are views of node-major memory."""
    readout = READOUTS[name](lattice, 3, 4).eval()
    view = torch.rand(4, 16, 2).movedim(2, 0)
    torch.testing.assert_close(readout(view), readout(view.contiguous()))


@pytest.mark.parametrize("skip", [0, 2, 4])
def test_rate_is_a_linear_map_of_the_mean_activity(lattice, normal, skip):
    readout = Rate(lattice, 3, 5, skip=skip).double()
    activity = normal(2, 5, 16)
    expected = activity[:, skip:].mean(1) @ readout.linear.weight.t() + readout.linear.bias
    torch.testing.assert_close(readout(activity), expected)
    wide = Rate(lattice, 3, 5, channels=2, skip=skip).double()
    deep = normal(2, 5, 16, 2)
    torch.testing.assert_close(wide(deep), wide.linear(deep[:, skip:].mean(1).reshape(2, 32)))


def test_rate_leaves_out_nodes_while_training_only(lattice):
    readout = Rate(lattice, 3, 5, dropout=0.9)
    activity = torch.ones(2, 5, 16)
    assert not torch.equal(readout(activity)[0], readout(activity)[1])
    readout.eval()
    assert torch.equal(readout(activity)[0], readout(activity)[1])


EINSUMS = {1: "btx,xr->btr", 2: "btxy,xr,yr->btr", 3: "btxyz,xr,yr,zr->btr"}


def tail_by_hand(readout, series):
    series = torch.nn.functional.layer_norm(series, series.shape[-1:], readout.norm.weight, readout.norm.bias, readout.norm.eps)
    series = series + readout.position
    for layer in readout.layers:
        series = layer(series)
    return readout.linear(series.mean(1))


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("dim", EINSUMS)
def test_holographic_contracts_every_axis_with_its_factors(dim, layers, normal):
    """h[t, r] = N^-1/2 Σ_n activity[t, n1 ... nd] Π_a f_a[n_a, r], then normalisation, position, transformer, mean, linear."""
    sides = (2, 3, 4)[:dim]
    readout = Holographic(topologies.grid(sides, dim, boundary="open"), 3, 5, rank=8, layers=layers, heads=2).double().eval()
    activity = normal(2, 5, readout.num_nodes)
    series = torch.einsum(EINSUMS[dim], activity.view(2, 5, *sides), *readout.factors) / readout.num_nodes**0.5
    torch.testing.assert_close(readout(activity), tail_by_hand(readout, series))


@pytest.mark.parametrize("dim", EINSUMS)
def test_holographic_gives_every_channel_its_own_factors(dim, normal):
    sides = (2, 3, 4)[:dim]
    readout = Holographic(topologies.grid(sides, dim, boundary="open"), 3, 5, rank=4, channels=2, heads=2).double().eval()
    activity = normal(2, 5, readout.num_nodes, 2)
    parts = []
    for channel in range(2):
        factors = [factor[:, 4 * channel : 4 * channel + 4] for factor in readout.factors]
        parts.append(torch.einsum(EINSUMS[dim], activity[..., channel].reshape(2, 5, *sides), *factors))
    torch.testing.assert_close(readout(activity), tail_by_hand(readout, torch.cat(parts, -1) / readout.num_nodes**0.5))


def test_holographic_learns_node_factors_where_there_is_no_lattice(random_graph, normal):
    readout = Holographic(random_graph, 3, 5, rank=8).double().eval()
    assert [factor.shape for factor in readout.factors] == [(13, 8)]
    activity = normal(2, 5, 13)
    torch.testing.assert_close(readout(activity), tail_by_hand(readout, activity @ readout.factors[0] / 13**0.5))


def test_holographic_reads_the_order_of_time(lattice, normal):
    """The transformer sees positions: a reversed history is another input, and a mean alone would not tell."""
    readout = Holographic(lattice, 3, 5, rank=8).double().eval()
    torch.nn.init.normal_(readout.position)
    activity = normal(2, 5, 16)
    assert not torch.allclose(readout(activity), readout(activity.flip(1)))


@every_readout
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_features": 0}, "out_features must be an integer >= 1, got 0"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer >= 1, got 2.5"),
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"topology": None}, "topology.num_nodes must be an integer >= 1, got None"),
    ],
)
def test_a_bad_argument_is_named(name, arguments, message, lattice):
    with pytest.raises(ValueError, match=message):
        READOUTS[name](**({"topology": lattice, "out_features": 2, "steps": 5} | arguments))


@pytest.mark.parametrize(
    ("readout", "options", "message"),
    [
        (Rate, {"skip": 5}, r"skip must be an integer in \[0, 4\], got 5"),
        (Rate, {"dropout": 1.5}, r"dropout must be a finite number in \[0, 1\], got 1.5"),
        (Holographic, {"rank": 0}, "rank must be an integer >= 1, got 0"),
        (Holographic, {"rank": 6}, r"heads must divide the number of features per step \(6\), got 4"),
        (Holographic, {"heads": 0}, "heads must be an integer >= 1, got 0"),
        (Holographic, {"layers": -1}, "layers must be an integer >= 0, got -1"),
        (Holographic, {"dropout": -0.5}, r"dropout must be a finite number in \[0, 1\], got -0.5"),
    ],
)
def test_a_bad_option_is_named(readout, options, message, lattice):
    with pytest.raises(ValueError, match=message):
        readout(lattice, 2, 5, **options)


@every_readout
def test_a_history_of_another_shape_is_refused(name, lattice):
    readout = READOUTS[name](lattice, 2, 5)
    for activity, got in ((torch.rand(3, 4, 16), r"\(3, 4, 16\)"), (torch.rand(3, 5, 16, 1), r"\(3, 5, 16, 1\)"), ([1.0], "list")):
        with pytest.raises(ValueError, match=rf"activity must have shape \[B, 5, 16\], got {got}"):
            readout(activity)
    with pytest.raises(ValueError, match=r"activity must have shape \[B, 5, 16, 2\], got \(3, 5, 16\)"):
        READOUTS[name](lattice, 2, 5, channels=2)(torch.rand(3, 5, 16))


def test_the_multiplier_scales_the_prediction_but_for_the_bias(lattice):
    torch.manual_seed(0)
    plain = Rate(lattice, 3, 4)
    torch.manual_seed(0)
    scaled = Rate(lattice, 3, 4, multiplier=0.25)
    activity = torch.rand(5, 4, 16)
    bias = plain.linear.bias
    torch.testing.assert_close(scaled(activity) - bias, 0.25 * (plain(activity) - bias))
    with pytest.raises(ValueError, match="multiplier must be a finite number > 0, got 0"):
        Rate(lattice, 3, 4, multiplier=0)
