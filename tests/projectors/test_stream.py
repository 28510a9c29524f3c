"""Streams: row t drives step t through wires that never learn."""

from __future__ import annotations

import math

import pytest
import torch

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.projectors import Stream
from lmn_graph.readouts import Rate
from lmn_graph.rules import SpikingSOC, TanhLattice
from lmn_graph.training.build import build_machine
from lmn_graph.training.configuration import configure, describe
from lmn_graph.training.files import load_model, save_model
from lmn_graph.training.measure import history


def test_row_t_of_a_picture_drives_step_t_at_the_ports():
    """The wiring of the source: 28 lines of 28 pixels onto the left shore of 28 rows, times the gain; the rest of the raster is silent."""
    graph = topologies.raster(28, 10)
    x = torch.rand(3, 28, 28)
    projector = Stream((28, 28), graph, gain=10.0)
    drive = projector(x)
    assert drive.shape == (3, 28, 280)
    assert torch.equal(drive[:, :, graph.input_index], 10 * x)
    assert drive.count_nonzero() == x.count_nonzero()
    assert torch.equal(Stream((1, 28, 28), graph, gain=10.0)(x.unsqueeze(1)), drive)
    assert not projector.state_dict()


def test_a_line_is_one_number_a_step():
    drive = Stream((5,), topologies.ring(1, radius=1))(torch.arange(5.0)[None])
    assert drive.tolist() == [[[0.0], [1.0], [2.0], [3.0], [4.0]]]


def test_other_features_go_through_a_fixed_matrix(normal):
    """drive_t = g R x_t, step by step; also where the identity would fit and is not wanted."""
    graph = topologies.raster(6, 3)
    for features in (11, 6):
        projector = Stream((4, features), graph, gain=-2.0, wiring="sparse", density=0.5).double()
        x = normal(2, 4, features)
        found = projector(x)[:, :, graph.input_index]
        for t in range(4):
            torch.testing.assert_close(found[:, t], -2 * x[:, t] @ projector.routing.t())
    assert Stream((4, 11), graph).routing.shape == (6, 11)
    assert Stream((4, 6), graph).routing is None
    assert Stream((4, 11), graph, ports=False).routing.shape == (18, 11)


@pytest.mark.parametrize(("features", "density"), [(200, 0.1), (4, 0.1), (50, 1.0)])
def test_the_statistics_of_the_matrix(features, density):
    """A share ``density`` of entries, of variance 1 / max(F density, 1): within five standard errors."""
    routing = Stream((2, features), topologies.ring(2000), density=density).routing
    there = routing[routing != 0]
    share = len(there) / routing.numel()
    assert abs(share - density) <= 5 * math.sqrt(density * (1 - density) / routing.numel())
    assert there.square().mean().item() == pytest.approx(1 / max(features * density, 1), rel=5 * math.sqrt(2 / len(there)))
    assert abs(there.mean().item()) < 5 * there.std().item() / math.sqrt(len(there))


def test_wires_have_no_gradient_and_stay_as_they_are(tmp_path):
    """No parameter, nothing for an optimiser; the machine's reset leaves them; a file restores them. The input has a gradient."""
    graph = topologies.grid(4, 2)

    def machine():
        return LatticeMachine(graph, Stream((3, 5), graph, density=0.5), TanhLattice(graph), Rate(graph, 2, 3), steps=3)

    one, two = machine(), machine()
    projector = one.projector
    assert list(projector.parameters()) == []
    before = projector.routing.clone()
    optimizer = torch.optim.SGD(one.requires_grad_(True).parameters(), lr=0.5, weight_decay=0.5)
    x = torch.rand(4, 3, 5, requires_grad=True)
    one(x).prediction.square().sum().backward()
    optimizer.step()
    assert x.grad.abs().sum() > 0
    assert projector.routing.grad is None
    assert not projector.routing.requires_grad
    one.reset_parameters()
    assert torch.equal(projector.routing, before)
    assert not torch.equal(two.projector.routing, before)
    save_model(one, tmp_path / "model.safetensors")
    load_model(two, tmp_path / "model.safetensors")
    assert torch.equal(two.projector.routing, before)


def test_wires_are_drawn_from_the_seed(lattice):
    torch.manual_seed(3)
    one = Stream((2, 9), lattice).routing
    torch.manual_seed(3)
    assert torch.equal(Stream((2, 9), lattice).routing, one)
    assert not torch.equal(Stream((2, 9), lattice).routing, one)


def test_channels_alternate_in_sign(lattice):
    x = torch.rand(2, 3, 16)
    drive = Stream((3, 16), lattice, channels=3)(x)
    assert torch.equal(drive, torch.stack([x, -x, x], -1))


@pytest.mark.parametrize("channels", [None, 2])
def test_after_the_last_row_the_input_has_ended(lattice, channels):
    x = torch.rand(2, 3, 16)
    short, long = (Stream((3, 16), lattice, channels=channels, steps=steps)(x) for steps in (3, 7))
    assert torch.equal(long[:, :3], short)
    assert long.shape[1] == 7
    assert not long[:, 3:].any()


def test_a_machine_sees_one_row_a_step(lattice):
    """A later row changes nothing before its step; spikes follow a drive one step later."""
    machine = LatticeMachine(lattice, Stream((4, 16), lattice, steps=6), SpikingSOC(lattice), Rate(lattice, 2, 6), steps=6)
    x = torch.rand(1, 4, 16)
    other = x.clone()
    other[:, 2] += 3
    one, two = machine(x).trajectory.activity, machine(other).trajectory.activity
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.equal(one[:, 3], two[:, 3])


CONFIG = (
    *("--data", "digits", "--topology", "grid", "--topology.L", "4", "--topology.dim", "2", "--projector", "Stream"),
    *("--rule", "TanhLattice", "--readout", "Rate"),
)


def config_of(*arguments):
    return configure("tanh-lattice", [], [*CONFIG, *arguments])


def test_the_builder_gives_the_steps_of_the_machine():
    """They are no option of the projector; a picture with more lines than steps, or a drive that enters once, is refused."""
    machine = build_machine(config_of("--machine.steps", "11", "--projector.gain", "3"), (8, 8), 10)
    assert machine.projector.steps == machine.steps == 11
    assert machine(torch.rand(2, 8, 8)).prediction.shape == (2, 10)
    assert history(machine, torch.rand(2, 8, 8), 30).shape == (2, 30, 16)
    shown = describe("tanh-lattice", [], list(CONFIG))
    assert "--projector.density" in shown
    assert "--projector.steps" not in shown
    with pytest.raises(ValueError, match=r"unknown option '--projector\.steps'"):
        config_of("--projector.steps", "9")
    with pytest.raises(ValueError, match=r"steps must be at least 8, one for every row of in_shape \(8, 8\), got 7"):
        build_machine(config_of("--machine.steps", "7"), (8, 8), 10)
    with pytest.raises(ValueError, match=r"machine\.inject must be 'every' where the projector drives step by step, got 'state'"):
        build_machine(config_of("--machine.steps", "8", "--machine.inject", "state"), (8, 8), 10)


def test_a_longer_run_for_pictures_starts_as_the_machine_does_and_ends_without_a_drive(lattice):
    machine = LatticeMachine(lattice, Stream((3, 16), lattice), TanhLattice(lattice), Rate(lattice, 2, 3), steps=3)
    x = torch.rand(2, 3, 16)
    output = machine(x)
    longer = history(machine, x, 5)
    assert torch.equal(longer[:, :3], output.trajectory.activity)
    again = machine.run(torch.zeros(2, 16), output.state, steps=2)
    assert torch.equal(longer[:, 3:], again.activity)


@pytest.mark.parametrize(
    ("in_shape", "options", "message"),
    [
        ((3, 4, 5), {}, r"in_shape must be \(T, F\), \(T,\) or \(1, T, F\) for Stream, got \(3, 4, 5\)"),
        ((1, 1, 4, 5), {}, r"in_shape must be \(T, F\), \(T,\) or \(1, T, F\) for Stream"),
        ((4, 5), {"steps": 3}, r"steps must be at least 4, one for every row of in_shape \(4, 5\), got 3"),
        ((4, 5), {"steps": 4.0}, "steps must be an integer >= 1, got 4.0"),
        ((4, 5), {"gain": float("inf")}, "gain must be a finite number, got inf"),
        ((4, 5), {"wiring": "dense"}, "wiring must be one of None, 'identity', 'sparse', got 'dense'"),
        ((4, 5), {"wiring": "identity"}, "as many as the driven nodes, 5 and 16, got 'identity'"),
        ((4, 5), {"density": 0}, "density must be a finite number > 0 and <= 1, got 0"),
        ((4, 5), {"density": 1.5}, "density must be a finite number > 0 and <= 1, got 1.5"),
    ],
)
def test_bad_options_are_refused_by_name(in_shape, options, message, lattice):
    with pytest.raises(ValueError, match=message):
        Stream(in_shape, lattice, **options)
