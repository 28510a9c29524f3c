"""Projectors: each is its formula, on lattices of any dimension, other graphs, scalar cells and channels."""

from __future__ import annotations

import pytest
import torch
from small_projectors import TOKENS, has_steps, sample, small_projector
from torch_geometric.data import Data

import topologies
from lmn_graph.projectors import PROJECTORS, CPTensor, Linear

every_projector = pytest.mark.parametrize("name", list(PROJECTORS))


@every_projector
@pytest.mark.parametrize("channels", [None, 3])
def test_the_drive_has_one_entry_per_node_and_channel(name, channels, graph):
    """At every step where it makes a drive per step; also for one sample, for none, and with gradients to the input and all parameters."""
    projector = small_projector(name, graph, (2, 3), channels=channels)
    tail = (*[2] * has_steps(name), graph.num_nodes, *([] if channels is None else [channels]))
    for batch in (4, 1, 0):
        assert projector(sample(name, batch, (2, 3))).shape == (batch, *tail)
    x = sample(name, 4, (2, 3)).requires_grad_()
    sum(part.square().sum() for part in projector.inputs(x) if part is not None).backward()
    assert name in TOKENS or bool(x.grad.any())
    assert all(parameter.grad is not None for parameter in projector.parameters())


@every_projector
def test_a_state_dict_restores_the_projector(name, lattice):
    one, two = (small_projector(name, lattice) for _ in range(2))
    x = sample(name, 2)
    assert not torch.equal(one(x), two(x))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(x), two(x))


EINSUMS = {1: "brx->bx", 2: "brx,bry->bxy", 3: "brx,bry,brz->bxyz", 4: "brx,bry,brz,brw->bxyzw"}


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("dim", EINSUMS)
def test_cp_tensor_is_the_einsum_of_its_factors(dim, rank, normal):
    """drive[b, n1 ... nd] = R^-1/2 Σ_r Π_a f_a[b, r, n_a] + bias, on a box with different sides: nodes in the lattice's order."""
    sides = (2, 3, 4, 2)[:dim]
    projector = CPTensor((5,), topologies.grid(sides, dim, boundary="open"), rank=rank).double()
    torch.nn.init.normal_(projector.bias)
    x = normal(4, 5)
    factors = [factor(x).view(4, rank, side) for factor, side in zip(projector.factors, sides)]
    expected = torch.einsum(EINSUMS[dim], *factors).flatten(1) / rank**0.5 + projector.bias
    torch.testing.assert_close(projector(x), expected)
    assert sum(p.numel() for p in projector.parameters()) == 6 * rank * sum(sides) + projector.num_nodes


@pytest.mark.parametrize("dim", EINSUMS)
def test_cp_tensor_gives_every_channel_its_own_factors(dim, normal):
    sides = (2, 3, 4, 2)[:dim]
    projector = CPTensor((5,), topologies.grid(sides, dim, boundary="open"), rank=2, channels=3).double()
    torch.nn.init.normal_(projector.bias)
    x = normal(4, 5)
    factors = [factor(x).view(4, 3, 2, side) for factor, side in zip(projector.factors, sides)]
    for channel in range(3):
        expected = torch.einsum(EINSUMS[dim], *(f[:, channel] for f in factors)).flatten(1) / 2**0.5 + projector.bias[channel]
        torch.testing.assert_close(projector(x)[..., channel], expected)


@pytest.mark.parametrize("channels", [None, 2])
def test_cp_tensor_learns_node_factors_where_there_is_no_lattice(random_graph, normal, channels):
    """drive = R^-1/2 f(x) F + bias."""
    projector = CPTensor((5,), random_graph, rank=3, channels=channels).double()
    assert projector.nodes.shape == (3, 13)
    x = normal(4, 5)
    coefficients = projector.factors[0](x).view(4, channels or 1, 3)
    expected = torch.einsum("bcr,rn->bnc", coefficients, projector.nodes) / 3**0.5
    torch.testing.assert_close(projector(x), expected if channels else expected[..., 0])


@pytest.mark.parametrize("graph", [topologies.grid(12, 1), topologies.grid(6, 2), topologies.grid(6, 3), Data(num_nodes=200)], ids=str)
def test_cp_tensor_starts_with_a_drive_of_moderate_size(graph):
    """Neither silent nor saturated from the first step, whatever the dimension and the rank."""
    for rank in (1, 64):
        drives = torch.stack([CPTensor((64,), graph, rank=rank)(torch.randn(8, 64)).detach() for _ in range(20)])
        assert 0.25 < drives.std() < 1.5


def test_linear_is_one_affine_map(lattice, normal):
    projector = Linear((2, 3), lattice).double()
    x = normal(4, 2, 3)
    torch.testing.assert_close(projector(x), x.flatten(1) @ projector.linear.weight.t() + projector.linear.bias)
    assert Linear((6,), lattice, bias=False).linear.bias is None
    wide = Linear((6,), lattice, channels=3).double()
    torch.testing.assert_close(wide(x.flatten(1)).flatten(1), wide.linear(x.flatten(1)))


@every_projector
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_shape": ()}, r"in_shape must be a non-empty sequence of integers, got \(\)"),
        ({"in_shape": 5}, "in_shape must be a non-empty sequence of integers, got 5"),
        ({"in_shape": 5.5}, "in_shape must be a non-empty sequence of integers, got 5.5"),
        ({"in_shape": None}, "in_shape must be a non-empty sequence of integers, got None"),
        ({"in_shape": "64"}, "in_shape must be a non-empty sequence of integers, got '64'"),
        ({"in_shape": (3, 0)}, "in_shape must be an integer >= 1, got 0"),
        ({"in_shape": (3, 1.5)}, "in_shape must be an integer >= 1, got 1.5"),
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"topology": None}, "topology.num_nodes must be an integer >= 1, got None"),
    ],
)
def test_a_bad_argument_is_named(name, arguments, message, lattice):
    with pytest.raises(ValueError, match=message):
        PROJECTORS[name](**({"in_shape": (5,), "topology": lattice} | arguments))


@every_projector
def test_input_of_another_shape_is_refused(name, lattice):
    projector = small_projector(name, lattice, (2, 3))
    for x, got in ((torch.rand(4, 3, 2), r"\(4, 3, 2\)"), (torch.rand(6), r"\(6,\)"), (torch.tensor(1.0), r"\(\)"), ([1.0], "list")):
        with pytest.raises(ValueError, match=rf"x must have shape \[B, 2, 3\], got {got}"):
            projector(x)


def test_cp_tensor_needs_a_rank(lattice):
    with pytest.raises(ValueError, match="rank must be an integer >= 1, got 0"):
        CPTensor((5,), lattice, rank=0)
    assert repr(CPTensor((5,), lattice, rank=2)).startswith("CPTensor(\n  rank=2")


def test_a_linear_projector_starts_scaled(lattice):
    """The gain scales what torch draws, also when it is drawn anew."""
    torch.manual_seed(0)
    plain = Linear((9,), lattice)
    torch.manual_seed(0)
    scaled = Linear((9,), lattice, gain=3.0)
    x = torch.rand(4, 9)
    torch.testing.assert_close(scaled(x), 3 * plain(x))
    scaled.reset_parameters()
    assert 2.5 < float(scaled.linear.weight.detach().abs().max()) * 3 <= 3.0
    with pytest.raises(ValueError, match="gain must be a finite number > 0, got 0"):
        Linear((9,), lattice, gain=0)
