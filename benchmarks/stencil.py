"""One kernel for all cells of a periodic box: when a convolution, a Fourier transform or running sums beat the sparse product.

    python benchmarks/stencil.py [--batch 32] [--steps 4] [--repeats 5] [--radius 6] [--channels 8] [--nodes 4096]

A DistanceKernelCA runs forward and backward, with the gradients of the drive and the kernel, by every method that applies, on boxes of one,
two and three axes with as many cells each. Printed first for every row: the largest relative difference of the activity and of a gradient
from the sparse form. Then the milliseconds of a step, medians of interleaved, warm repeats (fewer where one takes seconds), and the fastest
method beside the one that "auto" takes. Last the crossover: from how many offsets on the transform is ahead.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import topologies
from lmn_graph.connectivity import Connectivity
from lmn_graph.rollout import rollout
from lmn_graph.rules import DistanceKernelCA

PATIENCE = 4.0  # seconds that the repeats of one method may take together
METHODS = ("sparse", "convolution", "fft", "separable")


def work_of(rule: DistanceKernelCA, drive: Tensor, steps: int) -> Callable[[], list[Tensor]]:
    """Forward and backward of one rollout: the activity and every gradient."""

    def work() -> list[Tensor]:
        given = drive.clone().requires_grad_()
        activity = rollout(rule, given, steps=steps).activity
        return [activity.detach(), *torch.autograd.grad(activity.square().mean(), (given, rule.weight))]

    return work


def measure(connectivity: Connectivity, options: argparse.Namespace, **arguments: Any) -> tuple[dict[str, float], str]:
    """Milliseconds per step of every method, equality checked and printed before; and what "auto" takes."""
    torch.manual_seed(0)
    rules = {}
    for method in (*METHODS, "auto"):
        try:
            rules[method] = DistanceKernelCA(connectivity, **arguments, method=method)
        except ValueError:  # the method does not apply
            continue
        rules[method].load_state_dict(rules["sparse"].state_dict())
    chosen = rules.pop("auto").extra_repr().split("method=")[1].split(",")[0]
    tail = () if rules["sparse"].channels is None else (rules["sparse"].channels,)
    drive = torch.randn(options.batch, connectivity.num_nodes, *tail) * 0.3
    works = {method: work_of(rule, drive, options.steps) for method, rule in rules.items()}
    times: dict[str, list[float]] = {method: [] for method in works}
    repeats, expected, differences = {}, None, {}
    for method, work in works.items():
        work()
        started = time.perf_counter()
        found = work()
        repeats[method] = max(1, min(options.repeats, int(PATIENCE / (time.perf_counter() - started))))
        expected = expected or found
        differences[method] = max(float((got - want).norm() / want.norm()) for got, want in zip(found, expected))
    del found, expected
    print("  differ by " + ", ".join(f"{method} {value:.0e}" for method, value in differences.items() if method != "sparse"), flush=True)
    for repeat in range(options.repeats):
        for method, work in works.items():
            if repeat < repeats[method]:
                started = time.perf_counter()
                work()
                times[method].append(1e3 * (time.perf_counter() - started) / options.steps)
    return {method: statistics.median(values) for method, values in times.items()}, chosen


def table(title: str, options: argparse.Namespace, radii: range, **arguments: Any) -> None:
    """The rows of one kind of kernel, and where the transform overtakes the sparse product."""
    rows, ahead = [], []
    for dim in (1, 2, 3):
        side = round(options.nodes ** (1 / dim))
        for radius in radii:
            if 2 * radius + 1 > side:
                continue
            connectivity = Connectivity(topologies.grid(side, dim, radius))
            count = (2 * radius + 1) ** dim - 1
            print(f"{title}, {side}^{dim}, radius {radius}, {count} offsets")
            found, chosen = measure(connectivity, options, **arguments)
            best = min(found, key=found.__getitem__)
            cells = "".join(f"{found[method]:12.2f}" if method in found else f"{'':>12}" for method in METHODS)
            gain, lag = found["sparse"] / found[best], found[chosen] / found[best]
            rows.append(f"{dim:3}{radius:8}{count:9}{cells}{gain:10.1f}  {best:12}{chosen:12}{lag:9.2f}")
            ahead.append((count, found["fft"] < found["sparse"]))
    head = "".join(f"{method:>12}" for method in METHODS)
    print(f"\n{title}\n{'d':>3}{'radius':>8}{'offsets':>9}{head}  × sparse  fastest     auto        × fastest")
    print("\n".join(rows))
    behind, before = [count for count, first in ahead if not first], [count for count, first in ahead if first]
    print(f"the transform is behind the sparse product at {sorted(behind)} offsets and ahead at {sorted(before)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 32), ("steps", 4), ("repeats", 5), ("radius", 6), ("channels", 8), ("nodes", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    size = f"about {options.nodes} cells, B = {options.batch}, T = {options.steps}"
    print(f"{size}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    radii = range(1, options.radius + 1)
    table("a kernel of many numbers", options, radii, gain=0.5)
    table("one number", options, radii, weight=0.01)
    table(f"{options.channels} channels that mix", options, range(1, min(options.radius, 3) + 1), gain=0.5, channels=options.channels)


if __name__ == "__main__":
    main()
