"""One step of learning on a grid of filter cells: SnAP-1 beside its source in JAX, RTRL and back-propagation through time.

    OMP_NUM_THREADS=1 python benchmarks/filter_grid.py [--batches 32 1] [--threads 1 2] [--steps 28] [--repeats 20] [--root DIR]
    python benchmarks/filter_grid.py --source DIR --source-python PYTHON
    python benchmarks/filter_grid.py --angle | --memory

The grid is 28 × 10, the input a row of a digit at a step times 10, the loss the cross-entropy of the summed bottom row, the parameters
those at the start; float32. Digits are MNIST's where ``--root`` (or LMN_DATA) holds them, else noise of their density.

Printed first: how far the gradients lie from the source's SnAP-1 and from back-propagation in double precision, max |difference| / max
|gradient|. Then the least and the median time of a gradient, and the least time of a whole step (with Adam; of one sample with plain
gradient descent), in milliseconds of the clock, beside the least processor time. DIR is a checkout of the source, grid-neurons; PYTHON
one that has what it requires, see ``source/make_fixture.py``. "by hand" is the grid as one writes it in PyTorch, for autograd:
cell by cell, or one anti-diagonal of independent cells after the other.

With ``--angle`` instead: the angle between the gradient of a rule of learning and that of back-propagation, over numbers of steps. With
``--memory``: the peak of what PyTorch allocates for one gradient, over numbers of steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import topologies
from lmn_graph.machine import LatticeMachine
from lmn_graph.projectors import Stream
from lmn_graph.readouts import Shoreline
from lmn_graph.rules import FilterGrid

ROWS, COLS = 28, 10
PARAMETERS = ("log_tau", "w_left", "w_top", "bias")
TIME_STEP = 1e-3
SOURCE = "the source, JAX"
Gradients = dict[str, Tensor]


def machine_of(steps: int, dtype: torch.dtype = torch.float32) -> LatticeMachine:
    """The machine, with the same parameters at every call."""
    torch.manual_seed(0)
    graph = topologies.raster(ROWS, COLS)
    rule = FilterGrid(graph, time_step=TIME_STEP, tau=(1e-3, 20e-3))
    parts = Stream((min(steps, ROWS), ROWS), graph, steps=steps, gain=1.0), rule, Shoreline(graph, COLS, steps)
    return LatticeMachine(graph, *parts, steps=steps).to(dtype)


def samples(options: argparse.Namespace, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """x [B, min(steps, 28), 28] in [0, 10], and the classes [B]."""
    root = Path(options.root) / "MNIST" / "raw"
    if options.root and root.is_dir():
        pictures = np.fromfile(root / "train-images-idx3-ubyte", np.uint8, 16 + 784 * batch)[16:].reshape(batch, 28, 28)
        x, y = torch.from_numpy(pictures) / 255, torch.from_numpy(np.fromfile(root / "train-labels-idx1-ubyte", np.uint8, 8 + batch)[8:])
    else:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(batch, 28, 28, generator=generator) * (torch.rand(batch, 28, 28, generator=generator) < 0.2)
        y = torch.randint(COLS, (batch,), generator=generator)
    return 10 * x[:, :steps], y.long()


def cell_by_cell(rule: FilterGrid, x: Tensor) -> Tensor:
    """The bottom row summed over time, [B, cols]; x [B, T, rows]."""
    a = torch.exp(-TIME_STEP / rule.log_tau.exp())
    s = [x.new_zeros(len(x))] * (ROWS * COLS)
    total = x.new_zeros(len(x), COLS)
    zero = x.new_zeros(len(x))
    for t in range(x.size(1)):
        y: list[Tensor] = []
        for k in range(ROWS * COLS):
            i, j = divmod(k, COLS)
            drive = rule.w_left[k] * (y[k - 1] if j else x[:, t, i]) + rule.w_top[k] * (y[k - COLS] if i else zero)
            s[k] = a[k] * s[k] + (1 - a[k]) * drive
            y.append(torch.tanh(s[k] + rule.bias[k]))
        total = total + torch.stack(y[-COLS:], -1)
    return total


def by_diagonals(rule: FilterGrid, x: Tensor) -> Tensor:
    """The same, one anti-diagonal i + j = d at a time, entry i of a vector its cell (i, d − i); 0 where that is no cell."""
    i, d = torch.meshgrid(torch.arange(ROWS), torch.arange(ROWS + COLS - 1), indexing="ij")
    inside = (d >= i) & (d - i < COLS)
    index = (i * COLS + d - i).clamp(0, ROWS * COLS - 1)
    log_tau, w_left, w_top, bias = (torch.where(inside, getattr(rule, name)[index], 0).unbind(1) for name in PARAMETERS)
    a = [torch.exp(-TIME_STEP / value.exp()) for value in log_tau]
    entering = torch.diag_embed(x)  # [B, T, rows, rows]: at diagonal d < rows input d, for its cell (d, 0)
    s = [x.new_zeros(len(x), ROWS)] * len(a)
    total = x.new_zeros(len(x), COLS)
    for t in range(x.size(1)):
        y, shore = x.new_zeros(len(x), ROWS), []
        for level in range(len(a)):
            left = y + entering[:, t, level] if level < ROWS else y
            drive = w_left[level] * left + w_top[level] * functional.pad(y, (1, -1))
            s[level] = a[level] * s[level] + (1 - a[level]) * drive
            y = torch.tanh(s[level] + bias[level])
            if level >= ROWS - 1:
                shore.append(y[:, -1])
        total = total + torch.stack(shore, -1)
    return total


def by_hand(forward: Callable[[FilterGrid, Tensor], Tensor]) -> Callable[[LatticeMachine, Tensor, Tensor], None]:
    def gradients(machine: LatticeMachine, x: Tensor, y: Tensor) -> None:
        machine.zero_grad()
        assert isinstance(machine.rule, FilterGrid)
        functional.cross_entropy(forward(machine.rule, x), y).backward()

    return gradients


def back_propagated(machine: LatticeMachine, x: Tensor, y: Tensor) -> None:
    machine.zero_grad()
    functional.cross_entropy(machine(x).prediction, y).backward()


WAYS: dict[str, Callable[[LatticeMachine, Tensor, Tensor], object]] = {
    "back-propagation": back_propagated,
    "by hand, diagonals": by_hand(by_diagonals),
    "by hand, cells": by_hand(cell_by_cell),
}


def gradients_of(way: str, machine: LatticeMachine, x: Tensor, y: Tensor) -> Gradients:
    WAYS[way](machine, x, y)
    return {name: getattr(machine.rule, name).grad.clone() for name in PARAMETERS}


def apart(found: Gradients, wanted: Gradients) -> float:
    """max |difference| / max |gradient|, over all parameters."""
    largest = max(float(value.abs().max()) for value in wanted.values())
    return max(float((found[name].double() - wanted[name].double()).abs().max()) for name in PARAMETERS) / largest


def of_source(options: argparse.Namespace, machine: LatticeMachine, x: Tensor, y: Tensor, *, threads: int, repeats: int) -> dict:
    """What ``source/time_gradients.py`` finds, in a process of its own."""
    parameters = {name: getattr(machine.rule, name).detach().numpy() for name in PARAMETERS}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": str(threads)}
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "given.npz"), Path(folder, "found.npz")
        np.savez(given, x=x.numpy(), y=y.numpy(), dt=TIME_STEP, repeats=repeats, **parameters)
        script = Path(__file__).parent / "source" / "time_gradients.py"
        subprocess.run([options.source_python, script, options.source, given, found], check=True, env=environment)
        return dict(np.load(found))


def from_source(found: dict) -> Gradients:
    return {name: torch.from_numpy(found[name]) for name in PARAMETERS}


def agreement(options: argparse.Namespace, batch: int) -> None:
    """How far the gradients of one batch lie from each other."""
    print(f"batch {batch}: max |difference| / max |gradient| from")
    exact_machine, machine = machine_of(options.steps, torch.float64), machine_of(options.steps)
    x, y = samples(options, batch, options.steps)
    wide = (exact_machine, x.double(), y)
    exact = {"back-propagation, float64": gradients_of("by hand, diagonals", *wide)}
    rows = {f"{way}, float64": gradients_of(way, *wide) for way in WAYS if batch == 1 or way != "by hand, cells"}
    if options.source:
        exact["the source, float64"] = from_source(of_source(options, *wide, threads=1, repeats=1))
        rows["the source, float32"] = from_source(of_source(options, machine, x, y, threads=1, repeats=1))
    rows |= {f"{way}, float32": gradients_of(way, machine, x, y) for way in WAYS if batch == 1 or way != "by hand, cells"}
    print(f"{'':30}" + "".join(f"{name:>28}" for name in exact))
    for name, found in rows.items():
        print(f"  {name:28}" + "".join(f"{apart(found, wanted):28.1e}" for wanted in exact.values()), flush=True)


class Times:
    """Seconds of the clock and of the processors of one work's calls."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def add(self, work: Callable[[], object]) -> None:
        started, busy = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - started)
        self.processor.append(time.process_time() - busy)


def timed(works: dict[str, Callable[[], object]], repeats: int, budget: float = 8.0) -> dict[str, Times]:
    """Interleaved calls after two that warm up; three of a work that would take longer than ``budget`` seconds."""
    calls, found = {}, {name: Times() for name in works}
    for name, work in works.items():
        work()
        started = time.perf_counter()
        work()
        calls[name] = repeats if (time.perf_counter() - started) * repeats < budget else 3
    for repeat in range(repeats):
        for name, work in works.items():
            if repeat < calls[name]:
                found[name].add(work)
    return found


def optimiser_of(rule: FilterGrid, batch: int) -> torch.optim.Optimizer:
    """Adam; for one sample plain gradient descent, steps of the weights 1e-2, of log τ four times that, of biases a twentieth."""
    if batch > 1:
        return torch.optim.Adam(rule.parameters(), 3e-3)
    groups = [{"params": [value], "lr": 1e-2 * rule.lr_scales.get(name, 1.0)} for name, value in rule.named_parameters()]
    return torch.optim.SGD(groups)


def race(options: argparse.Namespace, batch: int, threads: int) -> None:
    """The times of one batch with some number of threads."""
    torch.set_num_threads(threads)
    x, y = samples(options, batch, options.steps)
    machine = machine_of(options.steps)
    works: dict[str, Callable[[], object]] = {}
    for way, gradients in WAYS.items():
        trained = machine_of(options.steps)
        assert isinstance(trained.rule, FilterGrid)
        optimiser = optimiser_of(trained.rule, batch)

        def gradient(gradients: Callable = gradients) -> None:
            gradients(machine, x, y)

        def step(gradients: Callable = gradients, trained: LatticeMachine = trained, optimiser: torch.optim.Optimizer = optimiser) -> None:
            gradients(trained, x, y)
            optimiser.step()

        works |= {f"{way} gradient": gradient, f"{way} step": step}
    times = {}
    if options.source:
        found = of_source(options, machine, x, y, threads=threads, repeats=options.repeats)
        for work in ("gradient", "step"):
            times[f"{SOURCE} {work}"] = measured = Times()
            measured.wall, measured.processor = found[f"{work}_wall"].tolist(), found[f"{work}_processor"].tolist()
    times |= timed(works, options.repeats)
    print(f"\nbatch {batch}, {options.steps} steps, {threads} thread{'s'[: threads > 1]}; ms, least of {options.repeats} (slow ones: of 3)")
    ratios = f"{'source/it':>11}{'step':>8}" if options.source else ""
    print(f"{'':22}{'gradient':>10}{'median':>9}{'processor':>11}{'step':>9}{'processor':>11}{ratios}")
    for way in ([SOURCE] if options.source else []) + list(WAYS):
        one, both = times[f"{way} gradient"], times[f"{way} step"]
        row = f"{1e3 * min(one.wall):10.2f}{1e3 * statistics.median(one.wall):9.2f}{1e3 * min(one.processor):11.2f}"
        row += f"{1e3 * min(both.wall):9.2f}{1e3 * min(both.processor):11.2f}"
        if options.source:
            row += "".join(f"{min(times[f'{SOURCE} {work}'].wall) / min(times[f'{way} {work}'].wall):{width}.2f}" for work, width in RATIOS)
        print(f"{way:22}{row}", flush=True)


RATIOS = (("gradient", 11), ("step", 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads(), os.cpu_count() or 1}))
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--root", default=os.environ.get("LMN_DATA", ""), help="the folder that holds MNIST/raw")
    parser.add_argument("--source", help="a checkout of grid-neurons")
    parser.add_argument("--source-python", help="a Python with its requirements")
    options = parser.parse_args()
    if bool(options.source) != bool(options.source_python):
        parser.error("--source and --source-python go together")
    load = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors" if hasattr(os, "getloadavg") else ""
    print(f"{ROWS} × {COLS} cells, torch {torch.__version__}{load}")
    if not options.source:
        print("without the source: pass --source and --source-python, see the head of benchmarks/source/make_fixture.py")
    for batch in options.batches:
        agreement(options, batch)
    for batch in options.batches:
        for threads in options.threads:
            race(options, batch, threads)


if __name__ == "__main__":
    main()
