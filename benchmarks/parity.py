"""Cumulative parity on a path, learned on short paths and tested on long ones: how many steps a machine that halts comes to take.

    OMP_NUM_THREADS=1 python benchmarks/parity.py [--seeds 0 1 2] [--iterations 1000] [--halting_iterations 200] [--lengths 5 10 20 50 100]

The bits x₁ … xₙ stand on the nodes of a path and the target at node i is the parity of x₁ … xᵢ. Node i cannot know it before i steps,
and a sample should stop once its last node does. One kernel of three offsets between cells of 16 channels (``DistanceKernelCA``) is shared
by all nodes, so that it runs on a path of any length; the drive is a linear map of the bit and of marks on the first and the last node;
a linear map of the state is the output of a node. The halting unit is pooled by "min": a cell at a time says whether it is ready, and the
last one decides.

Trained on paths of 2 to 10 nodes alone, with noise on the drive of every step, which only dynamics close to discrete ones survive:

1. without halting, 3n + 8 steps of a path, the length growing with success. Loss: cross-entropy of the outputs over the last n steps, and
   cross-entropy of the unit's cells, whose target is 1 from the step on after which their output is right in every sample of the batch.
   Paths without a mark on the first node, in which no cell may ever call itself ready, teach the cells to wait longer than any short path
   takes.
2. with halting as published: cross-entropy of the output of the weighted mean state, and 0.01 per step as the ponder cost.

Printed for each length, on 256 new samples: right bits, samples right in every bit, steps, and the line that steps over lengths follow.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import topologies
from lmn_graph import Connectivity, rollout
from lmn_graph.halting import HaltingUnit
from lmn_graph.rollout import Trajectory
from lmn_graph.rules import DistanceKernelCA

LONGEST = 10  # nodes of a path in training
_PATHS: dict[int, Connectivity] = {}


def path(n: int) -> Connectivity:
    """A path of n nodes that also hear themselves."""
    if n not in _PATHS:
        _PATHS[n] = Connectivity(topologies.grid(n, 1, boundary="open", self_loops=True))
    return _PATHS[n]


class Parity(nn.Module):
    """Shared cells on a path, from bits to a logit per node; the parameters fit a path of any length from 2 on."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.rule = DistanceKernelCA(path(LONGEST), channels=channels)
        self.halting = HaltingUnit(path(LONGEST), channels=channels, pool="min", bias=0.0)
        self.drive = nn.Linear(3, channels)
        self.head = nn.Linear(channels, 1)

    def run(self, bits: Tensor, steps: int, *, noise: float = 0.0, halts: bool = True, marked: bool = True) -> Trajectory:
        """The trajectory of a batch of bits [B, n]; noise is the standard deviation of what is added to the drive of every step."""
        features = bits.new_zeros(*bits.shape, 3)
        features[..., 0] = 2 * bits - 1
        features[:, 0, 1], features[:, -1, 2] = float(marked), 1.0
        drive = self.drive(features)
        if noise:
            drive = drive[:, None] + noise * torch.randn(drive.size(0), steps, *drive.shape[1:])
        return rollout(self.rule, drive, steps=steps, graph=path(bits.size(1)), halting=self.halting if halts else None)

    def ready(self, activity: Tensor) -> Tensor:
        """What the halting unit thinks of every cell, [B, T, n] for an activity [B, T, n, C]."""
        return activity @ self.halting.weight + self.halting.bias

    def forward(self, bits: Tensor, steps: int, *, noise: float = 0.0) -> tuple[Tensor, Trajectory]:
        """A logit per node, [B, n], of the weighted mean state."""
        found = self.run(bits, steps, noise=noise)
        return self.head(found.state.x).squeeze(-1).t(), found


def drawn(samples: int, n: int) -> tuple[Tensor, Tensor]:
    """Bits and their cumulative parity, each [samples, n]."""
    bits = torch.randint(0, 2, (samples, n)).float()
    return bits, bits.cumsum(1) % 2


def without_halting(model: Parity, n: int, samples: int, noise: float) -> tuple[Tensor, float]:
    """The loss of the first stage on one batch, and the share of outputs that were right in the last n steps."""
    bits, target = drawn(samples, n)
    activity = model.run(bits, 3 * n + 8, noise=noise, halts=False).activity
    output = model.head(activity).squeeze(-1)
    right = (output > 0) == (target[:, None] > 0.5)
    settled = right.all(0).flip(0).long().cumprod(0).flip(0).to(output.dtype)  # [T, n]: right in every sample from here on
    ready = model.ready(activity)
    loss = functional.binary_cross_entropy_with_logits(output[:, -n:], target[:, None].expand(-1, n, -1))
    loss = loss + functional.binary_cross_entropy_with_logits(ready, settled.expand_as(ready))
    return loss, right[:, -n:].double().mean().item()


def unmarked(model: Parity, samples: int, noise: float) -> Tensor:
    """The loss of paths whose first node is not marked: there no cell is ever ready."""
    bits, _ = drawn(samples, int(torch.randint(2, LONGEST + 1, ())))
    activity = model.run(bits, 6 * LONGEST, noise=noise, halts=False, marked=False).activity
    return functional.softplus(model.ready(activity)).mean()


def train(
    model: Parity,
    *,
    iterations: int = 1000,
    halting_iterations: int = 200,
    samples: int = 64,
    noise: float = 0.3,
    price: float = 0.01,
    rate: float = 4e-3,
) -> None:
    """Both stages, with Adam at a rate that falls over the second half."""
    total, longest, success = iterations + halting_iterations, 2, 0.0
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for iteration in range(total):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - iteration / total)) + 1e-5
        n = longest if torch.rand(()) < 0.5 else int(torch.randint(2, longest + 1, ()))
        if iteration < iterations:
            loss, right = without_halting(model, n, samples, noise)
            if iteration % 3 == 0 and success > 0.9:
                loss = loss + unmarked(model, samples // 4, noise)
            if n == longest:
                success = 0.9 * success + 0.1 * right
                if success > 0.97 and longest < LONGEST:
                    longest, success = longest + 1, 0.8
        else:
            bits, target = drawn(samples, n)
            output, found = model(bits, 3 * n + 8, noise=noise)
            assert found.halting is not None
            loss = functional.binary_cross_entropy_with_logits(output, target) + price * found.halting.ponder.mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


class Row(NamedTuple):
    """What a model does on paths of one length: shares of right bits and of samples right in every bit, and steps."""

    bits: float
    samples: float
    mean: float
    least: int
    most: int


@torch.no_grad()
def measured(model: Parity, n: int, samples: int = 256, budget: int = 4) -> Row:
    """On new samples, at most ``budget`` steps a node (and twenty), 32 samples at a time: the history of long paths is large."""
    right, steps = [], []
    for part in range(0, samples, 32):
        bits, target = drawn(min(32, samples - part), n)
        output, found = model(bits, budget * n + 20)
        assert found.halting is not None
        right.append((output > 0) == (target > 0.5))
        steps.append(found.halting.steps)
    ok, taken = torch.cat(right), torch.cat(steps)
    share = ok.all(1).double().mean().item()
    return Row(ok.double().mean().item(), share, taken.double().mean().item(), int(taken.min()), int(taken.max()))


def line(x: list[int], y: list[float]) -> tuple[float, float, float]:
    """Slope, intercept and R² of a least-squares line."""
    a, b = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    slope = float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())
    intercept = float(b.mean() - slope * a.mean())
    return slope, intercept, float(1 - (b - slope * a - intercept).square().sum() / (b - b.mean()).square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--halting_iterations", type=int, default=200)
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--samples", type=int, default=256)
    options = parser.parse_args()
    for seed in options.seeds:
        torch.manual_seed(seed)
        model, start = Parity(), time.process_time()
        train(model, iterations=options.iterations, halting_iterations=options.halting_iterations)
        print(f"seed {seed}: trained on n = 2 … {LONGEST} in {time.process_time() - start:.0f} CPU seconds", flush=True)
        print("    n   right bits, %   right samples, %   steps, mean (least to most)")
        rows = {n: measured(model, n, options.samples) for n in options.lengths}
        for n, row in rows.items():
            print(f"{n:5d} {100 * row.bits:15.3f} {100 * row.samples:18.1f}   {row.mean:.1f} ({row.least} to {row.most})")
        slope, intercept, fit = line(list(rows), [row.mean for row in rows.values()])
        print(f"steps = {slope:.3f} n + {intercept:.2f}, R² = {fit:.5f}\n", flush=True)


if __name__ == "__main__":
    main()
