"""Histories to read, and what is asked of every readout's derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

every_kind_of_cell = pytest.mark.parametrize("channels", [None, 3])


def history(normal, graph, channels, batch=2, steps=5) -> Tensor:
    """Activity [B, T, N(, C)] of a graph."""
    return normal(batch, steps, graph.num_nodes, *(() if channels is None else (channels,)))


def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A layer norm from its weights."""
    return layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def check_differences(readout: nn.Module, activity: Tensor) -> None:
    """First and second gradients to the activity are those of finite differences, in double precision."""
    assert torch.autograd.gradcheck(readout, (activity,), fast_mode=True)
    assert torch.autograd.gradgradcheck(readout, (activity,), fast_mode=True)


def check_gradients_reach_everything(readout: nn.Module, activity: Tensor) -> None:
    """First and second gradients to the activity and every parameter are finite and not all zero."""
    inputs = (activity, *readout.parameters())
    gradients = torch.autograd.grad(readout(activity).square().sum(), inputs, create_graph=True)
    again = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs)
    for gradient in (*gradients, *again):
        assert bool(gradient.isfinite().all())
        assert bool(gradient.any())
