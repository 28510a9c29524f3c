"""Streams without end: memory of truncated training over 10⁵ items, and tokens a second by the size of the lattice.

    python benchmarks/streaming.py memory [--items 100000]
    python benchmarks/streaming.py speed

The first trains a lattice on one stream, window after window, and prints the resident memory as it goes: it must not grow. The second
compares windows as one rollout with a call of the machine per item, after it has checked that both predict the same.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.data import Stream
from lmn_graph.projectors import TokenEmbedding
from lmn_graph.readouts import Rate
from lmn_graph.rules import SpikingSOC
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.streams import advance
from lmn_graph.training.windows import StreamBatches

VOCABULARY, STEPS = 80, 2


def machine(side: int, dim: int = 3) -> LatticeMachine:
    """Spiking neurons on a periodic lattice of radius 1, two steps a token."""
    graph = topologies.grid(side, dim)
    rule = SpikingSOC(graph, reset="zero")
    projector = TokenEmbedding((1,), graph, vocabulary=VOCABULARY)
    return LatticeMachine(graph, projector, rule, Rate(graph, VOCABULARY, steps=STEPS, skip=1), steps=STEPS)


def resident() -> float:
    """MB that the process holds now, or the most that it ever held where the system does not say."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def memory(items: int) -> None:
    """Train on one lane of ``items`` tokens, truncated at 50, and print memory ten times."""
    torch.manual_seed(0)
    model = machine(5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    settings = StreamSettings(50)
    batches = StreamBatches(Stream(np.random.default_rng(0).integers(0, VOCABULARY, items + 1).astype(np.uint16)), settings, 1)
    state, tenth = None, len(batches) // 10
    print("| items | resident memory, MB |\n|---|---|")
    for number, window in enumerate(batches, 1):
        output, state = advance(model, window, state, settings)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(output.prediction.flatten(0, 1), window.y.flatten()).backward()
        optimizer.step()
        if number % tenth == 0:
            gc.collect()
            print(f"| {number * settings.window:,} | {resident():,.1f} |", flush=True)


def item_by_item(model: LatticeMachine, x: Tensor) -> Tensor:
    """A call of the machine for each item."""
    state, found = None, []
    for item in x.unbind(1):
        output = model(item, state)
        state = output.state
        found.append(output.prediction)
    return torch.stack(found, 1)


def speed() -> None:
    """CPU seconds of a training step on 32 streams of 64 tokens, least of three."""
    lines = ["| lattice | nodes | tokens a second | … a call per item | ratio |", "|---|---|---|---|---|"]
    for side in (4, 6, 8, 10, 13, 16):
        torch.manual_seed(0)
        model = machine(side)
        x = torch.randint(0, VOCABULARY, (32, 64, 1))
        y = torch.randint(0, VOCABULARY, (32 * 64,))
        ways = {"stream": lambda model=model, x=x: model.stream(x).prediction, "items": lambda model=model, x=x: item_by_item(model, x)}
        with torch.no_grad():
            difference = float((ways["stream"]() - ways["items"]()).abs().max())
        print(f"{side}³: largest difference {difference:.1e}", flush=True)
        taken = {name: float("inf") for name in ways}
        for _ in range(3):
            for name, way in ways.items():
                started = time.process_time()
                torch.nn.functional.cross_entropy(way().flatten(0, 1), y).backward()
                taken[name] = min(taken[name], time.process_time() - started)
        rates = [x.numel() / taken[name] for name in ways]
        lines.append(f"| {side}³ | {side**3:,} | {rates[0]:,.0f} | {rates[1]:,.0f} | {rates[0] / rates[1]:.2f} |")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "speed"))
    parser.add_argument("--items", type=int, default=100_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    memory(given.items) if given.what == "memory" else speed()


if __name__ == "__main__":
    main()
