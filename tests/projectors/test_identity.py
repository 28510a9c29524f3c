"""Identity wiring: input p reaches node p and no other."""

from __future__ import annotations

import pytest
import torch

import topologies
from lmn_graph.projectors import Identity


def test_pixels_are_cells():
    """With gains of 1 and no biases the drive is the picture in C order; channels alternate in sign."""
    graph = topologies.grid((3, 4), 2)
    x = torch.rand(5, 3, 4)
    assert torch.equal(Identity((3, 4), graph, learn=False)(x), x.flatten(1))
    assert torch.equal(
        Identity((3, 4), graph, learn=False, channels=2, gain=2.0)(x), torch.stack([2 * x.flatten(1), -2 * x.flatten(1)], -1)
    )


def test_a_line_reaches_its_ports_in_order():
    graph = topologies.line_to_cube(7, 2)
    drive = Identity((7,), graph, learn=False)(torch.arange(1.0, 8)[None])
    assert torch.equal(drive[0, graph.input_index], torch.arange(1.0, 8))
    assert float(drive.sum()) == 28


def test_only_the_diagonal_of_the_jacobian_is_there():
    projector = Identity((4,), topologies.ring(6))
    jacobian = torch.autograd.functional.jacobian(lambda x: projector(x[None])[0], torch.rand(4))
    assert torch.equal(jacobian, torch.eye(6)[:, :4])
    assert {name: tuple(p.shape) for name, p in projector.named_parameters()} == {"gain": (4,), "bias": (6,)}


def test_fewer_nodes_than_inputs_share_runs_of_them():
    projector = Identity((2, 4), topologies.ring(3), learn=False)
    drive = projector(torch.ones(1, 2, 4))
    assert drive.tolist() == [[3.0, 3.0, 2.0]]


def test_bad_options_are_refused_by_name():
    with pytest.raises(ValueError, match="gain must be a finite number, got nan"):
        Identity((2,), topologies.ring(3), gain=float("nan"))
    with pytest.raises(ValueError, match="learn must be True or False, got 1"):
        Identity((2,), topologies.ring(3), learn=1)
