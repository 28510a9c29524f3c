"""Processes and rules whose criticality is known exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Branching(NamedTuple):
    """A driven branching process, [B, T, 1] each: all spikes A, and those that came from outside, H."""

    activity: Tensor
    forced: Tensor


def driven_branching(m: float, h: float, *, samples: int, steps: int, seed: int, start: float | None = None) -> Branching:
    """A_{t+1} ~ Poisson(m A_t) + H_{t+1}, H ~ Poisson(h), from the stationary mean or from ``start``; float64 counts."""
    generator = torch.Generator().manual_seed(seed)
    level = h / (1 - m) if start is None else start
    forced = torch.poisson(torch.full((steps, samples), h, dtype=torch.float64), generator=generator)
    activity = [torch.poisson(torch.full((samples,), level, dtype=torch.float64), generator=generator)]
    forced[0] = 0
    for step in range(1, steps):
        activity.append(torch.poisson(m * activity[-1], generator=generator) + forced[step])
    return Branching(torch.stack(activity, 1).unsqueeze(2), forced.T.unsqueeze(2))


def thinned(counts: Tensor, p: float, seed: int) -> Tensor:
    """Every spike kept with probability p."""
    generator = torch.Generator().manual_seed(seed)
    return torch.binomial(counts, torch.full_like(counts, p), generator=generator)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over independent samples and its standard error."""
    return float(values.mean()), float(values.std() / values.numel() ** 0.5)


class Cells(NamedTuple):
    s: Tensor


class MapRule(torch.nn.Module):
    """s ← f(W s + drive), node-major, W dense [N, N]; f the identity where None. The smallest rule with a known Jacobian."""

    channels = None
    spiking = False

    def __init__(self, weight: Tensor, f=None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())
        self.f = f

    @property
    def num_nodes(self) -> int:
        return self.weight.shape[0]

    def prepare(self, context=None):
        return self.weight

    def step(self, p, state, drive):
        s = p @ state.s
        s = s if drive is None else s + drive
        s = s if self.f is None else self.f(s)
        return Cells(s), s


class PassOn(torch.nn.Module):
    """Every spike of neuron j reaches the neurons where W[i, j] = 1; a neuron that is reached fires: v' = W s, s = [v ≥ ½]."""

    channels = None
    spiking = True

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.num_nodes = weight.shape[0]

    class Prepared(NamedTuple):
        weight: Tensor
        threshold: Tensor

    def prepare(self, context=None):
        return self.Prepared(self.weight, torch.tensor(0.5))

    def step(self, p, state, drive):
        activity = (state.s >= p.threshold).to(state.s.dtype)
        v = p.weight @ activity
        return Cells(v if drive is None else v + drive), activity

    def flip(self, p, state, node):
        v = state.s.clone()
        at = (node, torch.arange(node.numel()))
        v[at] = torch.where(v[at] >= p.threshold, 0.0, 1.0)
        return Cells(v)
