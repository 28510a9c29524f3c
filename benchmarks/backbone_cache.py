"""Training on the features of a frozen network: f run in every epoch, and its features kept on disk.

    python benchmarks/backbone_cache.py FOLDER [--weights FILE] [--model mobilenet_v2] [--size 64] [--pictures 1000] [--batch 50]
        [--epochs 3] [--times]

FOLDER holds a folder of pictures per class. The same machine (W of the features drives 16 × 16 tanh cells, 8 steps) is trained from the
same start with and without a cache, its batches in the same order. Printed first: how far features, losses and learned weights differ;
then the seconds of every epoch, of the wall clock and of the processor, and the size of the cache. ``--times`` also prints where the
time of a batch goes: f, keys, storing, looking up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import topologies
from lmn_graph import LatticeMachine, data
from lmn_graph.projectors import Backbone
from lmn_graph.projectors._feature_cache import sample_keys
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice


def build(options: argparse.Namespace, classes: int, cache: str | None) -> LatticeMachine:
    torch.manual_seed(0)
    graph = topologies.grid(16, 2)
    shape = (3, options.size, options.size)
    projector = Backbone(shape, graph, model=options.model, weights=options.weights, cache=cache)
    return LatticeMachine(graph, projector, TanhLattice(graph), Rate(graph, classes, steps=8), steps=8)


def train(machine: LatticeMachine, x: Tensor, y: Tensor, options: argparse.Namespace) -> tuple[list[tuple[float, float]], list[float]]:
    """Seconds of every epoch (wall clock, processor), and all losses."""
    optimizer = torch.optim.AdamW((p for p in machine.parameters() if p.requires_grad), lr=3e-3)
    seconds, losses = [], []
    for epoch in range(options.epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        started, used = time.perf_counter(), time.process_time()
        for index in order.split(options.batch):
            loss = torch.nn.functional.cross_entropy(machine(x[index]).prediction, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        seconds.append((time.perf_counter() - started, time.process_time() - used))
    return seconds, losses


def milliseconds(work: Callable[[Tensor], object], batches: list[Tensor]) -> float:
    """Median over the batches."""
    found = []
    for batch in batches:
        started = time.perf_counter()
        work(batch)
        found.append(time.perf_counter() - started)
    return 1e3 * statistics.median(found)


def print_times(options: argparse.Namespace, classes: int, x: Tensor) -> None:
    batches = list(x.split(options.batch))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        plain, cached = (build(options, classes, cache).projector for cache in (None, folder))
        f = milliseconds(plain.features, batches)
        keys = milliseconds(sample_keys, batches)
        first, then = milliseconds(cached.features, batches), milliseconds(cached.features, batches)
    print(f"a batch of {options.batch}, ms: f {f:.0f}, keys {keys:.1f}, f and storing {first:.0f}, looking up {then:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--weights")
    parser.add_argument("--model", default="mobilenet_v2")
    for name, default in (("size", 64), ("pictures", 1000), ("batch", 50), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    splits = data.load(options.folder, size=options.size, mode="RGB")
    x, y = splits.train.x[: options.pictures], splits.train.y[: options.pictures]
    print(f"{len(x)} pictures {options.size} × {options.size}, {options.model}, batches of {options.batch}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        machines = {name: build(options, splits.out_features, cache) for name, cache in (("without", None), ("cache", folder))}
        found = {name: train(machine, x, y, options) for name, machine in machines.items()}
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        with torch.no_grad():
            one, two = (machine.projector.features(x[: options.batch]) for machine in machines.values())
    difference = float((one - two).abs().max() / one.abs().max())
    losses = max(abs(a - b) for a, b in zip(found["without"][1], found["cache"][1]))
    weights = [machine.projector.linear.weight.detach() for machine in machines.values()]
    moved = float((weights[0] - weights[1]).norm() / weights[0].norm())
    print(f"largest difference: features {difference:.1e}, a loss {losses:.1e}, weights after {options.epochs} epochs {moved:.1e}")
    print(f"{'seconds of an epoch, wall (processor)':40}" + "".join(f"{epoch + 1:>16}" for epoch in range(options.epochs)))
    for name, (seconds, _) in found.items():
        print(f"{name:40}" + "".join(f"{wall:>8.2f} ({used:.2f})".rjust(16) for wall, used in seconds))
    print(f"the cache takes {size / 2**20:.1f} MiB")
    if options.times:
        print_times(options, splits.out_features, x)


if __name__ == "__main__":
    main()
