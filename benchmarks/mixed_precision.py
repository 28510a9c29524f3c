"""Training steps in float32 and with matrix products in bfloat16.

    python benchmarks/mixed_precision.py [--device cpu] [--batch 32] [--repeats 5]

A machine with the projector ViT on 64 × 64 pictures, a transformer layer of 64 tokens, and a linear map 768 → 4,096: forward and backward.
Printed first for each: how far the loss and the gradient of bfloat16 are from those of float32; then medians of interleaved, warm repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.projectors import ViT
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice


class Prediction(nn.Module):
    """A machine whose output is its prediction."""

    def __init__(self, machine: LatticeMachine) -> None:
        super().__init__()
        self.machine = machine

    def forward(self, x: Tensor) -> Tensor:
        return self.machine(x).prediction


def works(batch: int) -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    graph = topologies.grid(16, 2)
    machine = LatticeMachine(graph, ViT((3, 64, 64), graph), TanhLattice(graph), Rate(graph, 10, steps=8), steps=8)
    layer = nn.TransformerEncoderLayer(192, 4, 768, dropout=0.0, activation="gelu", batch_first=True)
    return {
        "machine with ViT": (Prediction(machine), torch.rand(batch, 3, 64, 64)),
        "transformer layer, 192 wide": (layer, torch.randn(batch, 64, 192)),
        "linear map": (nn.Linear(768, 4096), torch.randn(batch, 768)),
    }


def step(module: nn.Module, x: Tensor, mixed: bool) -> tuple[float, Tensor]:
    """Loss and gradient."""
    module.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
        found = module(x)
    loss = (found.float() - 1).square().mean()
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"B = {options.batch}, {options.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, (module, x) in works(options.batch).items():
        module, x = module.to(options.device), x.to(options.device)
        (loss, gradient), (other, rounded) = (step(module, x, mixed) for mixed in (False, True))
        error = float((gradient - rounded).norm() / gradient.norm())
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.repeats):
            for mixed in times:
                started = time.perf_counter()
                step(module, x, mixed)
                times[mixed].append(1e3 * (time.perf_counter() - started))
        one, two = (statistics.median(times[mixed]) for mixed in (False, True))
        print(f"{name:30} loss {abs(other - loss) / loss:.0e}, gradient {error:.0e} off; ms: float32 {one:.0f}, bfloat16 {two:.0f}")


if __name__ == "__main__":
    main()
