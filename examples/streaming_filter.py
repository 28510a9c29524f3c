"""A grid of filter cells learns from a stream without end, one step at a time, with nothing kept of the past but states and traces.

python examples/streaming_filter.py [picture.png] [--steps 6000]

Every few hundred steps of 1 ms the stream changes between tones of three pitches, in noise: which one is playing? A single sample tells
next to nothing. At every step the grid gives its answer first, is then told the right one, and takes one step of gradient descent, for
which SnAP-1 needs the past only through eleven traces a cell. Beside it two from the same start: a grid whose cells keep traces of
themselves alone (SnAP-0), and one that does not learn at all behind a readout that does. A tone is told by the cells' own memory: what
traces of others add is nothing here.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.learning import Online, SnAP
from lmn_graph.projectors import Stream
from lmn_graph.readouts import Rate
from lmn_graph.rules import FilterGrid

PITCHES = (8.0, 30.0, 90.0)  # Hz
ROWS, COLS, WINDOW = 8, 6, 500


def tones(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One sample [1, ROWS] a millisecond, the same tone in different strengths on every row, and the pitch [1]."""
    time, strength = 0, torch.linspace(0.5, 3.0, ROWS)
    while True:
        pitch = torch.randint(len(PITCHES), (1,), generator=generator)
        for _ in range(int(torch.randint(200, 500, (1,), generator=generator))):
            tone = torch.sin(torch.tensor(2 * torch.pi * PITCHES[int(pitch)] * time * 1e-3))
            yield (strength * (tone + 0.3 * torch.randn(ROWS, generator=generator)))[None], pitch
            time += 1


def machine() -> LatticeMachine:
    """Filter cells, and a linear readout of the last rows of the grid."""
    graph = topologies.raster(ROWS, COLS, output_rows=2)
    return LatticeMachine(graph, Stream((1, ROWS), graph), FilterGrid(graph, tau=(1e-3, 50e-3)), Rate(graph, len(PITCHES), 1), steps=1)


def learn(name: str, rule: SnAP, steps: int) -> list[float]:
    """Share of right answers in every window of the stream."""
    torch.manual_seed(0)
    cells = machine()
    if name == "readout alone":
        cells.rule.requires_grad_(False)
    optimizer, online = torch.optim.Adam(cells.parameters(), lr=3e-3), Online(cells, rule)
    right, shares = 0, []
    for t, (x, pitch) in zip(range(1, steps + 1), tones(torch.Generator().manual_seed(1))):
        optimizer.zero_grad()
        right += int(online.step(x, pitch).prediction.argmax()) == int(pitch)
        optimizer.step()
        if t % WINDOW == 0:
            shares.append(right / WINDOW)
            right = 0
    print(f"{name:<14}" + "".join(f"{share:6.2f}" for share in shares))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", default="streaming_filter.png")
    parser.add_argument("--steps", type=int, default=6000)
    arguments = parser.parse_args()
    if arguments.steps < WINDOW:
        parser.error(f"--steps must be at least {WINDOW}, a window of the stream, got {arguments.steps}")
    torch.set_num_threads(1)
    print(f"right answers, of {WINDOW} steps each (by chance {1 / len(PITCHES):.2f})")
    rules = {"SnAP-1": SnAP(1), "SnAP-0": SnAP(0), "readout alone": SnAP(0)}
    found = {name: learn(name, rule, arguments.steps) for name, rule in rules.items()}

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, shares in found.items():
        axes.plot([WINDOW * (n + 1) for n in range(len(shares))], shares, marker="o", label=name)
    axes.axhline(1 / len(PITCHES), color="grey", linestyle=":", label="chance")
    axes.set(xlabel="steps of the stream (ms)", ylabel="right answers", ylim=(0, 1), title="Which pitch is playing? Learned online")
    axes.legend()
    figure.savefig(arguments.picture, dpi=150)
    print(f"drawn in {arguments.picture}")


if __name__ == "__main__":
    main()
