"""The grid of filter cells on MNIST row by row: the source's settings, better ones at the same size and budget, and larger grids.

    python benchmarks/accuracy.py filter --root DIR --only source-6000 source source-bptt source-sgd --start start.npz
    python benchmarks/accuracy.py filter --root DIR --group search --seeds 2
    python benchmarks/accuracy.py filter --root DIR --group better
    python benchmarks/accuracy.py filter --root DIR --group sizes --seeds 1

Every setting is trained by a plain loop on the publisher's first rows and scored after every epoch on all 10,000 test pictures; the
figure is that of the last epoch, no epoch is chosen. The settings of "search" train on the first of 50,000 training pictures and are
scored on the other 10,000: what is chosen there has not seen the test pictures. Seed s draws the initial parameters and the order of the
pictures; ``--start`` takes both from a file that benchmarks/source/make_start.py made with the source's own code. Times are CPU seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import Tensor

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.learning import BPTT, LearningRule, SnAP, sgd
from lmn_graph.projectors import Stream
from lmn_graph.readouts import Shoreline
from lmn_graph.rules import FilterGrid


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Args:
        text: what is different.
        images, epochs, batch_size, lr: as they are called; with ``sgd`` the step of the weights.
        rule: where gradients come from.
        tau: interval of the time constants in seconds, at a step of 1 ms.
        top: mean of w_top at the start, its deviation, and that of w_left; None: the source's.
        schedule: "constant" or "cosine".
        shape: rows, columns and rows of output ports of the grid.
        epochs_shown: further epochs to report.
        held_out: score on training pictures that are not trained on, the last 10,000, instead of the test pictures.
    """

    text: str
    images: int = 60_000
    epochs: int = 10
    batch_size: int = 32
    lr: float = 3e-3
    optimizer: str = "adam"
    rule: Callable[[], LearningRule] = field(default=lambda: SnAP(1))
    tau: tuple[float, float] = (1e-3, 20e-3)
    top: tuple[float, float, float] | None = None
    gain: float = 10.0
    schedule: str = "constant"
    shape: tuple[int, int, int] = (28, 10, 1)
    epochs_shown: tuple[int, ...] = ()
    held_out: bool = False


SOURCE = Setting("the source: 60,000 pictures, 10 epochs, Adam, SnAP-1")
SHORT, SHORTEST = (0.3e-3, 5e-3), (0.1e-3, 2e-3)
TRIED = replace(SOURCE, images=20_000, epochs=4, schedule="cosine", held_out=True)  # on which one thing is changed after the other
BETTER = replace(SOURCE, tau=SHORTEST, schedule="cosine")
QUICK = replace(BETTER, epochs=3)
GROUPS = {
    "source": {
        "source-6000": replace(SOURCE, text="the source: 6,000 pictures, 5 epochs", images=6000, epochs=5),
        "source": SOURCE,
        "source-bptt": replace(SOURCE, text="the same by BPTT", rule=BPTT),
        "source-sgd": replace(SOURCE, text="the source: plain descent, batch 1", batch_size=1, lr=1e-2, optimizer="sgd", epochs_shown=(3,)),
    },
    "search": {
        "base": replace(TRIED, text="the source's, 20,000 pictures, 4 epochs, cosine schedule"),
        "base-bptt": replace(TRIED, text="BPTT", rule=BPTT),
        "lr-high": replace(TRIED, text="learning rate 0.01", lr=1e-2),
        "gain-low": replace(TRIED, text="input gain 1", gain=1.0),
        "relay": replace(TRIED, text="w_top starts near 1, so that rows pass down", top=(1.0, 0.1, 0.7)),
        "tau-long": replace(TRIED, text="τ from 1 to 100 ms", tau=(1e-3, 0.1)),
        "tau-short": replace(TRIED, text="τ from 0.3 to 5 ms", tau=SHORT),
        "tau-shortest": replace(TRIED, text="τ from 0.1 to 2 ms", tau=SHORTEST),
        "tau-short-bptt": replace(TRIED, text="τ from 0.3 to 5 ms, BPTT", tau=SHORT, rule=BPTT),
        "batch-8": replace(TRIED, text="batches of 8", batch_size=8),
        "tau-short-batch-8": replace(TRIED, text="τ from 0.3 to 5 ms, batches of 8", tau=SHORT, batch_size=8),
        "tau-short-batch-8-bptt": replace(TRIED, text="the same by BPTT", tau=SHORT, batch_size=8, rule=BPTT),
    },
    "better": {
        "better": replace(BETTER, text="τ from 0.1 to 2 ms, cosine schedule"),
        "better-batch-8": replace(BETTER, text="τ from 0.3 to 5 ms, batches of 8, cosine schedule", tau=SHORT, batch_size=8),
        "better-bptt": replace(BETTER, text="the same by BPTT", rule=BPTT),
    },
    "sizes": {
        **{
            f"{rows}x{cols}": replace(QUICK, text=f"{rows} × {cols}, 3 epochs", shape=(rows, cols, 1))
            for rows, cols in ((28, 10), (28, 20), (28, 40), (56, 10), (112, 10))
        },
        "28x20-rows": replace(QUICK, text="28 × 20, the last 4 rows read, 3 epochs", shape=(28, 20, 4)),
    },
}
SETTINGS = {name: setting for group in GROUPS.values() for name, setting in group.items()}


def build(setting: Setting) -> LatticeMachine:
    """The machine of a setting, its parameters drawn from the global generator."""
    rows, cols, ports = setting.shape
    graph = topologies.raster(rows, cols, output_rows=ports)
    rule = FilterGrid(graph, tau=setting.tau)
    if setting.top is not None:
        mean, spread, left = setting.top
        with torch.no_grad():
            rule.w_top.normal_(mean, spread)
            rule.w_left.normal_(0, left)
    return LatticeMachine(graph, Stream((28, 28), graph, gain=setting.gain), rule, Shoreline(graph, 10, 28), steps=28)


def train(
    setting: Setting, data: dict[str, Tensor], seed: int, start: dict[str, np.ndarray] | None, say: Callable[[str], None]
) -> list[float]:
    """Test accuracy after every epoch."""
    torch.manual_seed(seed)
    machine, rule = build(setting), setting.rule()
    orders = None
    if start is not None:
        with torch.no_grad():
            for name in ("log_tau", "w_left", "w_top", "bias"):
                getattr(machine.rule, name).copy_(torch.from_numpy(start[name]))
        orders = start[f"orders_{setting.images}"]
    x, y = data["train_x"][: setting.images], data["train_y"][: setting.images]
    part = "train" if setting.held_out else "test"
    scored_x, scored_y = data[f"{part}_x"][-10_000:], data[f"{part}_y"][-10_000:]
    adam = setting.optimizer == "adam"
    optimizer = torch.optim.Adam(machine.parameters(), lr=setting.lr) if adam else sgd(machine, setting.lr)
    batches = len(x) // setting.batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches * setting.epochs) if setting.schedule == "cosine" else None
    found = []
    for epoch in range(setting.epochs):
        known = orders is not None and epoch < len(orders)
        order = torch.from_numpy(orders[epoch]).long() if known else torch.randperm(len(x))
        for rows in order[: batches * setting.batch_size].split(setting.batch_size):
            optimizer.zero_grad()
            rule.gradients(machine, x[rows], y[rows])
            optimizer.step()
            if schedule is not None:
                schedule.step()
        found.append(float((machine.predict(scored_x).argmax(1) == scored_y).float().mean()))
        say(f"epoch {epoch + 1}: {100 * found[-1]:.1f}")
    return found


def load(root: str) -> dict[str, Tensor]:
    """The publisher's files by torchvision."""
    from torchvision.datasets import MNIST

    train_set, test_set = (MNIST(root, train=part) for part in (True, False))
    return {
        "train_x": train_set.data.float() / 255,
        "train_y": train_set.targets,
        "test_x": test_set.data.float() / 255,
        "test_y": test_set.targets,
    }


def baselines(data: dict[str, Tensor], parameters: int) -> list[tuple[str, int, float, float]]:
    """Name, parameters, accuracy and CPU seconds of classifiers that see the whole picture at once, on all 60,000."""
    x, y, test = data["train_x"].flatten(1).numpy(), data["train_y"].numpy(), data["test_x"].flatten(1).numpy()
    pooled = [torch.nn.functional.avg_pool2d(data[part][:, None], 4).flatten(1).numpy() for part in ("train_x", "test_x")]
    hidden = max(1, round((parameters - 10) / (49 + 1 + 10)))
    found = []
    for name, model, inputs in (
        (f"MLP, {hidden} hidden units on 7 × 7 means", MLPClassifier((hidden,), max_iter=20, random_state=0), pooled),
        ("logistic regression", LogisticRegression(max_iter=200, tol=1e-2), [x, test]),
    ):
        started = time.process_time()
        model.fit(inputs[0], y)
        size = sum(part.size for part in (*model.coefs_, *model.intercepts_)) if "MLP" in name else model.coef_.size + model.intercept_.size
        found.append((name, size, float(model.score(inputs[1], data["test_y"].numpy())), time.process_time() - started))
    return found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--group", choices=GROUPS, default="source")
    parser.add_argument("--only", nargs="*", choices=SETTINGS, help="these settings, of any group")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--start", type=Path, help="initial parameters and orders of the source, in place of seeds")
    options = parser.parse_args(arguments)
    start = None if options.start is None else dict(np.load(options.start))
    data = load(options.root)
    print("| setting | parameters | test accuracy, % | seeds | CPU seconds |\n| --- | --- | --- | --- | --- |", flush=True)
    for name in options.only or GROUPS[options.group]:
        setting, runs = SETTINGS[name], []
        started = time.process_time()
        for seed in range(1 if start is not None else options.seeds):
            say = lambda text, seed=seed, name=name: print(f"{name}, seed {seed}, {text}", file=sys.stderr, flush=True)  # noqa: E731
            runs.append(train(setting, data, seed, start, say))
        seconds = (time.process_time() - started) / len(runs)
        size = sum(p.numel() for p in build(setting).parameters())
        for epochs in (*setting.epochs_shown, setting.epochs):
            last = [100 * run[epochs - 1] for run in runs]
            spread = f" ± {statistics.stdev(last):.1f}" if len(last) > 1 else ""
            text = setting.text + (f", {epochs} epochs" if setting.epochs_shown else "")
            print(f"| `{name}`: {text} | {size:,} | {statistics.mean(last):.1f}{spread} | {len(last)} | {seconds:.0f} |", flush=True)
    if options.only or options.group == "search":
        return
    for name, size, accuracy, seconds in baselines(data, 1120):
        print(f"| {name} | {size:,} | {100 * accuracy:.1f} | 1 | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
