"""Conv1d: its formula, step by step; windows of several features; what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import topologies
from lmn_graph.projectors import Conv1d


@pytest.fixture
def lattice():
    return topologies.grid(3, 2)


@pytest.mark.parametrize(("shape", "kernel", "layers"), [((9, 3), 3, 2), ((7, 1), 5, 3), ((1, 4), 3, 1), ((2, 2), 1, 2)])
def test_it_is_its_formula(lattice, shape, kernel, layers):
    """Explicit sums over the kernel at every other step, zeros beyond both ends."""
    torch.manual_seed(0)
    projector = Conv1d(shape, lattice, width=4, layers=layers, kernel=kernel).double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    held = x
    for layer in range(layers):
        part = projector.encoder[2 * layer]
        padded = functional.pad(held, (0, 0, kernel // 2, kernel // 2))
        steps = range(0, held.shape[1], 2)
        held = torch.stack(
            [part.bias + sum(padded[:, t + k] @ part.weight[:, :, k].T for k in range(kernel)) for t in steps],
            1,
        )
        held = 0.5 * held * (1 + torch.erf(held / 2**0.5))
    features = held.transpose(1, 2).flatten(1)
    centred = features - features.mean(1, keepdim=True)
    normed = centred / (features.var(1, unbiased=False, keepdim=True) + projector.norm.eps).sqrt()
    wanted = projector.head(normed * projector.norm.weight + projector.norm.bias)
    torch.testing.assert_close(projector(x), wanted)


def test_gradients_are_those_of_differences(lattice):
    torch.manual_seed(0)
    projector = Conv1d((6, 2), lattice, width=3, kernel=3, head="cp", rank=2).double()
    x = torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(projector, (x,))
    projector(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in projector.parameters())


def test_a_series_is_a_window_of_one_feature(lattice):
    """[B, T] as [B, T, 1], with the same weights."""
    one, two = Conv1d((8,), lattice, width=4), Conv1d((8, 1), lattice, width=4)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 8)
    assert torch.equal(one(x), two(x.unsqueeze(-1)))


@pytest.mark.parametrize("head", ["linear", "low-rank", "cp"])
def test_every_head_and_channels(lattice, head):
    projector = Conv1d((8, 3), lattice, width=4, head=head, rank=2, channels=2)
    assert projector(torch.randn(5, 8, 3)).shape == (5, 9, 2)
    before = [parameter.clone() for parameter in projector.parameters()]
    projector.reset_parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, projector.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"layers": 0}, "layers must be"),
        ({"kernel": 4}, "kernel must be odd, got 4"),
        ({"kernel": 0}, "kernel must be"),
        ({"head": "square"}, "head must be one of"),
        ({"rank": 0}, "rank must be"),
    ],
)
def test_wrong_arguments_are_refused(lattice, options, message):
    with pytest.raises(ValueError, match=message):
        Conv1d((8, 3), lattice, **options)
    with pytest.raises(ValueError, match=r"x must have shape \[B, 8, 3\]"):
        Conv1d((8, 3), lattice)(torch.randn(2, 3, 8))
