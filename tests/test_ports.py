"""Ports: a topology that names its inputs and outputs is driven and read there only, in their order."""

from __future__ import annotations

import pytest
import torch
from small_projectors import has_steps, sample, small_projector
from torch_geometric.data import Data

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.projectors import PROJECTORS, CPTensor, Linear, Projector
from lmn_graph.readouts import READOUTS, Rate
from lmn_graph.rules import SpikingSOC

INPUTS, OUTPUTS = [5, 0, 9], [11, 3]


@pytest.fixture(params=["lattice", "graph"])
def ported(request):
    graph = topologies.grid((3, 4), 2)
    graph.input_index, graph.output_index = torch.tensor(INPUTS), torch.tensor(OUTPUTS)
    if request.param == "graph":
        del graph.shape
    return graph


@pytest.mark.parametrize("name", list(PROJECTORS))
@pytest.mark.parametrize("channels", [None, 2])
def test_the_drive_is_zero_everywhere_but_at_the_input_ports(name, channels, ported):
    tail = () if channels is None else (channels,)
    x = sample(name, 3)
    drive = small_projector(name, ported, channels=channels)(x)
    steps = [len(x[0])] * has_steps(name)
    assert drive.shape == (3, *steps, 12, *tail)
    assert drive.detach().abs().flatten(0, len(steps)).sum(0).reshape(12, -1).sum(1).nonzero().flatten().tolist() == sorted(INPUTS)
    everywhere = small_projector(name, ported, channels=channels, ports=False)(x)
    assert bool((everywhere != 0).all())


def test_the_rows_of_a_linear_projector_are_the_ports_in_their_order(ported):
    projector, x = Linear((4,), ported), torch.rand(3, 4)
    torch.testing.assert_close(projector(x)[:, INPUTS], projector.linear(x))
    assert projector.linear.out_features == len(INPUTS)


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("steps", [3, 5])
def test_a_drive_per_step_goes_to_the_ports_too(steps, channels, ported):
    """Time comes before the nodes, also where there are as many steps as ports."""
    tail = () if channels is None else (channels,)

    class Given(Projector):
        def project(self, x):
            return x

    x = torch.rand(2, steps, 3, *tail)
    drive = Given((steps, 3, *tail), ported, channels=channels)(x)
    assert drive.shape == (2, steps, 12, *tail)
    assert torch.equal(drive[:, :, INPUTS], x)
    assert drive.count_nonzero() == x.count_nonzero()


def test_cp_tensor_drives_the_ports_as_it_would_drive_the_whole_graph(ported):
    """Same parameters, same values at the ports."""
    one, two = CPTensor((4,), ported), CPTensor((4,), ported, ports=False)
    two.load_state_dict(one.state_dict())
    x = torch.rand(3, 4)
    torch.testing.assert_close(one(x)[:, INPUTS], two(x)[:, INPUTS])


@pytest.mark.parametrize("name", list(READOUTS))
@pytest.mark.parametrize("channels", [None, 4])
def test_a_readout_hears_its_output_ports_only(name, channels, ported):
    tail = () if channels is None else (channels,)
    readout = READOUTS[name](ported, 2, 5, channels=channels).eval()
    activity = torch.rand(3, 5, 12, *tail, requires_grad=True)
    readout(activity).square().sum().backward()
    heard = activity.grad.abs().sum((0, 1)).reshape(12, -1).sum(1)
    assert heard.nonzero().flatten().tolist() == sorted(OUTPUTS)
    of_all = READOUTS[name](ported, 2, 5, channels=channels, ports=False)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (of_all, readout)]
    assert sizes[0] > sizes[1] or not list(of_all.parameters())


def test_a_rate_readout_has_its_columns_in_the_order_of_the_ports(ported):
    readout, activity = Rate(ported, 2, 5), torch.rand(3, 5, 12)
    torch.testing.assert_close(readout(activity), readout.linear(activity.mean(1)[:, OUTPUTS]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([], dtype=torch.long), r"must be a tensor \[P\] of node ids, P >= 1, got torch.int64 \(0,\)"),
        (torch.tensor([[1]]), r"must be a tensor \[P\] of node ids, P >= 1, got torch.int64 \(1, 1\)"),
        (torch.tensor([1.0]), r"must be a tensor \[P\] of node ids, P >= 1, got torch.float32 \(1,\)"),
        ([1, 2], r"must be a tensor \[P\] of node ids, P >= 1, got list"),
        (torch.tensor([0, 12]), r"must hold node ids in \[0, 12\), got 0 to 12"),
        (torch.tensor([-1]), r"must hold node ids in \[0, 12\), got -1 to -1"),
        (torch.tensor([3, 3]), "must hold distinct node ids, got 2 of which 1 differ"),
    ],
)
def test_bad_ports_are_named(value, message, ported):
    ported.input_index = ported.output_index = value
    with pytest.raises(ValueError, match=f"topology.input_index {message}"):
        Linear((4,), ported)
    with pytest.raises(ValueError, match=f"topology.output_index {message}"):
        Rate(ported, 2, 5)
    with pytest.raises(ValueError, match="ports must be True or False, got 1"):
        Linear((4,), ported, ports=1)


def test_a_machine_whose_input_cannot_reach_its_output_is_refused():
    """All its predictions would be the same: a path of four edges needs five steps."""
    path = Data(edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), num_nodes=5)
    path.input_index, path.output_index = torch.tensor([0]), torch.tensor([4])

    def machine(steps):
        return LatticeMachine(path, Linear((3,), path), SpikingSOC(path), Rate(path, 2, steps), steps=steps)

    with torch.no_grad():
        alive = machine(6)
        alive.rule.weight.fill_(2.0)
        alive.projector.linear.weight.fill_(1.0)
        assert alive(torch.ones(2, 3)).trajectory.activity[:, :, 4].tolist() == [[0, 0, 0, 0, 0, 1]] * 2  # just in time
    with pytest.raises(ValueError, match=r"steps must be at least 6 for anything to get from an input port .* to an output port, got 5"):
        machine(5)
    path.edge_index = path.edge_index[:, :3]
    with pytest.raises(ValueError, match="topology must have a path from an input port to an output port"):
        machine(50)
