"""The summed readout of a shore, and what single steps of a readout predict."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

import topologies
from lmn_graph.readouts import READOUTS, Rate, Readout, Shoreline


def by_hand(activity, ports, classes):
    """Σ_t Σ_p activity_t[p], p voting for p mod K, one number after another; channels are added up."""
    values = activity if activity.dim() == 3 else activity.sum(3)
    expected = values.new_zeros(len(values), classes)
    for place, node in enumerate(ports):
        for t in range(values.shape[1]):
            expected[:, place % classes] += values[:, t, node]
    return expected


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 7])
def test_ports_vote_for_classes_in_turn(classes, channels, normal):
    """Ports in any order, and as many as the classes, a multiple, or neither."""
    graph = topologies.grid(4, 2)
    graph.output_index = torch.tensor([11, 3, 0, 15, 7, 9, 2])
    tail = () if channels is None else (channels,)
    activity = normal(2, 4, 16, *tail)
    readout = Shoreline(graph, classes, 4, channels=channels, multiplier=0.5)
    torch.testing.assert_close(readout(activity), 0.5 * by_hand(activity, graph.output_index.tolist(), classes))
    everywhere = Shoreline(graph, classes, 4, channels=channels, ports=False)
    torch.testing.assert_close(everywhere(activity), by_hand(activity, range(16), classes))


def test_the_shore_of_the_source(normal):
    """Ten cells at the bottom of a raster, ten classes: the sum of their rates over time. There are no parameters."""
    graph = topologies.raster(4, 10)
    activity = normal(3, 5, 40)
    readout = Shoreline(graph, 10, 5)
    torch.testing.assert_close(readout(activity), activity[:, :, 30:].sum(1))
    assert not list(readout.parameters())
    assert not readout.state_dict()


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_prediction_is_the_sum_of_those_of_single_steps(classes, channels, normal):
    """Each step's is the prediction of a history of that step alone."""
    graph = topologies.raster(3, 5)
    tail = () if channels is None else (channels,)
    activity = normal(4, 6, 15, *tail)
    readout = Shoreline(graph, classes, 6, channels=channels, multiplier=3.0)
    each = readout.each(activity)
    assert each.shape == (4, 6, classes)
    torch.testing.assert_close(each.sum(1), readout(activity))
    one = Shoreline(graph, classes, 1, channels=channels, multiplier=3.0)
    for t in range(6):
        torch.testing.assert_close(each[:, t], one(activity[:, t : t + 1]))


@pytest.mark.parametrize("channels", [None, 2])
def test_the_prediction_of_a_rate_is_the_mean_of_those_of_single_steps(lattice, channels, normal):
    tail = () if channels is None else (channels,)
    activity = normal(4, 6, 16, *tail)
    readout = Rate(lattice, 3, 6, channels=channels, multiplier=0.5, dropout=0.9).double().eval()
    each = readout.each(activity)
    torch.testing.assert_close(each.mean(1), readout(activity))
    torch.testing.assert_close(each[:, 2], 0.5 * activity[:, 2].flatten(1) @ readout.linear.weight.t() + readout.linear.bias)
    with pytest.raises(ValueError, match=r"readout\.skip must be 0 for a prediction at every step, got 2"):
        Rate(lattice, 3, 6, skip=2).each(torch.rand(4, 6, 16))


@pytest.mark.parametrize("name", list(READOUTS))
def test_readouts_have_a_prediction_at_every_step_or_say_that_they_have_none(name, lattice):
    readout = READOUTS[name](lattice, 3, 4).eval()
    if type(readout).read_each is Readout.read_each:
        with pytest.raises(ValueError, match=f"{name} gives no prediction at every step"):
            readout.each(torch.rand(2, 4, 16))
        return
    assert readout.each(torch.rand(2, 4, 16)).shape == (2, 4, 3)
    with pytest.raises(ValueError, match=r"activity must have shape \[B, 4, 16\], got \(2, 5, 16\)"):
        readout.each(torch.rand(2, 5, 16))


def test_fewer_nodes_than_classes_are_refused():
    with pytest.raises(ValueError, match="out_features must be at most 4, the number of nodes that Shoreline reads, got 5"):
        Shoreline(topologies.raster(3, 4), 5, 2)
    assert Shoreline(topologies.raster(3, 4), 5, 2, ports=False).num_read == 12
    with pytest.raises(ValueError, match="out_features must be at most 1, "):
        Shoreline(Data(num_nodes=1), 2, 2)
    with pytest.raises(ValueError, match="multiplier must be a finite number > 0, got 0"):
        Shoreline(topologies.raster(3, 4), 4, 2, multiplier=0)
