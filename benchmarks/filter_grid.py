"""One step of learning on a grid of filter cells: SnAP-1 beside its source in JAX, RTRL and back-propagation through time.

    OMP_NUM_THREADS=1 python benchmarks/filter_grid.py [--batches 32 1] [--threads 1 2] [--steps 28] [--repeats 20] [--root DIR]
    python benchmarks/filter_grid.py --source DIR --source-python PYTHON
    python benchmarks/filter_grid.py --angle | --memory

The grid is 28 × 10, the input a row of a digit at a step times 10, the loss the cross-entropy of the summed bottom row, the parameters
those at the start; float32. Digits are MNIST's where ``--root`` (or LMN_DATA) holds them, else noise of their density.

Printed first: how far the gradients lie from the source's SnAP-1 and from back-propagation in double precision, max |difference| / max
|gradient|. Then the least and the median time of a gradient, and the least time of a whole step (with Adam; of one sample with plain
gradient descent), in milliseconds of the clock, beside the least processor time. DIR is a checkout of the source, grid-neurons; PYTHON
one that has what it requires, see ``source/make_fixture.py``. "SnAP-1" takes the sweep that gives the numbers of the
traces; "in chunks" of 14 steps it carries the traces forward. "by hand" is the grid as one writes it in PyTorch, for autograd: cell by
cell, or one anti-diagonal of independent cells after the other. On a busy machine the least processor times say most.

With ``--angle`` instead: the angle between the gradient of a rule of learning and that of back-propagation, over numbers of steps. With
``--memory``: the peak of what PyTorch allocates for one gradient, over numbers of steps.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import topologies
from lmn_graph.learning import BPTT, RTRL, SnAP, sgd
from lmn_graph.machine import LatticeMachine
from lmn_graph.projectors import Stream
from lmn_graph.readouts import Shoreline
from lmn_graph.rules import FilterGrid

ROWS, COLS = 28, 10
PARAMETERS = ("log_tau", "w_left", "w_top", "bias")
TIME_STEP = 1e-3
SOURCE = "the source, JAX"
CHUNK = 14
Found = dict[str, Tensor]
Gradients = Callable[[LatticeMachine, Tensor, Tensor], object]


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


def by_hand(forward: Callable[[FilterGrid, Tensor], Tensor]) -> Gradients:
    def gradients(machine: LatticeMachine, x: Tensor, y: Tensor) -> None:
        assert isinstance(machine.rule, FilterGrid)
        x = functional.pad(x, (0, 0, 0, machine.steps - x.size(1)))
        functional.cross_entropy(forward(machine.rule, x), y).backward()

    return gradients


WAYS: dict[str, Gradients] = {
    "SnAP-1": SnAP(1).gradients,
    "SnAP-1, in chunks": SnAP(1, chunk=CHUNK).gradients,
    "SnAP-2": SnAP(2).gradients,
    "SnAP-4": SnAP(4).gradients,
    "RTRL": RTRL().gradients,
    "back-propagation": BPTT().gradients,
    "by hand, diagonals": by_hand(by_diagonals),
    "by hand, cells": by_hand(cell_by_cell),
}


def gradients_of(gradients: Gradients, machine: LatticeMachine, x: Tensor, y: Tensor) -> Found:
    machine.zero_grad()
    gradients(machine, x, y)
    return {name: getattr(machine.rule, name).grad.clone() for name in PARAMETERS}


def apart(found: Found, wanted: Found) -> float:
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


def agreement(options: argparse.Namespace, batch: int) -> None:
    """How far the gradients of one batch lie from the source's and from back-propagation by hand, both in float64."""
    x, y = samples(options, batch, options.steps)
    wide, narrow = (machine_of(options.steps, torch.float64), x.double(), y), (machine_of(options.steps), x, y)

    def line(name: str, wanted: Found, *found: Found) -> None:
        print(f"  {name:22}" + "".join(f"{apart(one, wanted):10.1e}" for one in found), flush=True)

    print(f"batch {batch}, max |difference| / max |gradient|\n{'':24}{'float64':>10}{'float32':>10}")
    if options.source:
        sources = [of_source(options, *given, threads=1, repeats=1) for given in (wide, narrow)]
        own = [{name: torch.from_numpy(found[name]) for name in PARAMETERS} for found in sources]
        print("from the source in float64")
        line("the source", own[0], *own)
        for way in ("SnAP-1", "SnAP-1, in chunks"):
            line(way, own[0], *(gradients_of(WAYS[way], *given) for given in (wide, narrow)))
    print("from back-propagation by hand in float64")
    exact = gradients_of(WAYS["by hand, diagonals"], *wide)
    for way in ("by hand, diagonals", "back-propagation", "RTRL", "SnAP-4", "SnAP-2", "SnAP-1"):
        line(way, exact, *(gradients_of(WAYS[way], *given) for given in (wide, narrow)))


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
    """Interleaved calls; three of a work that would take longer than ``budget`` seconds.

    Each comes right after an untimed call of the same work, as in training, and as the source's calls follow each other: after another
    work's call nothing is in the caches, which doubles the time of a single sample.
    """
    found = {name: Times() for name in works}
    for name, work in works.items():
        work()
        found[name].add(work)
    calls = {name: repeats if times.wall[0] * repeats < budget else 3 for name, times in found.items()}
    for repeat in range(1, repeats):
        for name, work in works.items():
            if repeat < calls[name]:
                work()
                found[name].add(work)
    return found


def optimiser_of(rule: FilterGrid, batch: int) -> torch.optim.Optimizer:
    """Adam; for one sample plain gradient descent, steps of the weights 1e-2, of log τ four times that, of biases a twentieth."""
    if batch > 1:
        return torch.optim.Adam(rule.parameters(), 3e-3)
    return sgd(rule, 1e-2)


def race(options: argparse.Namespace, batch: int, threads: int) -> None:
    """The times of one batch with some number of threads."""
    torch.set_num_threads(threads)
    x, y = samples(options, batch, options.steps)
    machine = machine_of(options.steps)
    works: dict[str, Callable[[], object]] = {}
    ways = [way for way in options.ways if threads == 1 or way != "by hand, cells"]
    for way in ways:
        gradients = WAYS[way]
        trained = machine_of(options.steps)
        assert isinstance(trained.rule, FilterGrid)
        optimiser = optimiser_of(trained.rule, batch)

        def gradient(gradients: Gradients = gradients) -> None:
            machine.zero_grad()
            gradients(machine, x, y)

        def step(gradients: Gradients = gradients, trained: LatticeMachine = trained, optimiser: torch.optim.Optimizer = optimiser) -> None:
            optimiser.zero_grad()
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
    print(f"{'':20}{'gradient':>31}{'step':>20}" + f"{'source / gradient':>23}{'source / step':>20}" * bool(options.source))
    print(f"{'':20}{'clock':>10}{'median':>10}{'processor':>11}" + f"{'clock':>9}{'processor':>11}" * (1 + 2 * bool(options.source)))
    for way in ([SOURCE] if options.source else []) + ways:
        one, both = times[f"{way} gradient"], times[f"{way} step"]
        least = [1e3 * min(values) for values in (one.wall, one.processor, both.wall, both.processor)]
        row = f"{least[0]:10.2f}{1e3 * statistics.median(one.wall):10.2f}{least[1]:11.2f}{least[2]:9.2f}{least[3]:11.2f}"
        if options.source:
            one, both = times[f"{SOURCE} gradient"], times[f"{SOURCE} step"]
            beside = [1e3 * min(values) for values in (one.wall, one.processor, both.wall, both.processor)]
            row += "".join(f"{other / own:{width}.2f}" for other, own, width in zip(beside, least, (9, 11, 9, 11)))
        print(f"{way:20}{row}", flush=True)


def angle(found: Found, wanted: Found) -> float:
    """Degrees between two gradients, all parameters together; also of tiny angles."""
    u, v = (torch.cat([value.double() for value in gradient.values()]) for gradient in (found, wanted))
    u, v = u / u.norm(), v / v.norm()
    return math.degrees(2 * math.atan2(float((u - v).norm()), float((u + v).norm())))


def angles(options: argparse.Namespace) -> None:
    """Angles to the gradient of back-propagation, over numbers of steps."""
    batch = options.batches[0]
    rules = {f"SnAP-{k}": SnAP(k) for k in (0, 1, 2, 4, 8)} | {"RTRL": RTRL()}
    print(f"degrees (cosine) to the gradient of back-propagation, mean of {batch} samples, float64; after row {ROWS} the input is 0")
    print(f"{'steps':>5}" + "".join(f"{name:>16}" for name in rules))
    for steps in options.angle_steps:
        machine, (x, y) = machine_of(steps, torch.float64), samples(options, batch, steps)
        exact = gradients_of(BPTT().gradients, machine, x.double(), y)
        found = [angle(gradients_of(rule.gradients, machine, x.double(), y), exact) for rule in rules.values()]
        cells = (f"{degrees:.2f} ({math.cos(math.radians(degrees)):.4f})" if degrees >= 0.01 else f"{degrees:.0e}" for degrees in found)
        print(f"{steps:5}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def peak(work: Callable[[], object]) -> float:
    """The most that PyTorch holds at once of what it allocates during a call, in MiB, by its profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it speaks of every start and stop
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return float(held.max()) / 2**20


def memory(options: argparse.Namespace) -> None:
    """Peaks of the memory of one gradient, over numbers of steps."""
    batch = options.batches[0]
    ways = [way for way in WAYS if way != "by hand, cells"]
    print(f"MiB that one gradient allocates at most, batch {batch}, float32; chunks of {CHUNK} steps, where not said of 64")
    print(f"{'steps':>5}" + "".join(f"{way:>20}" for way in ways))
    for steps in options.memory_steps:
        machine, (x, y) = machine_of(steps), samples(options, batch, steps)
        row = []
        for way in ways:
            if way == "by hand, diagonals" and steps > 56:
                row.append(f"{'':>20}")  # hundreds of thousands of small tensors
                continue
            work = partial(gradients_of, WAYS[way], machine, x, y)
            work()
            row.append(f"{peak(work):20.2f}")
        print(f"{steps:5}" + "".join(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads(), os.cpu_count() or 1}))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="what is timed")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--angle", action="store_true", help="angles to the gradient of back-propagation instead")
    parser.add_argument("--angle_steps", type=int, nargs="+", default=[1, 2, 4, 7, 10, 14, 20, 28, 42, 56])
    parser.add_argument("--memory", action="store_true", help="memory of a gradient instead")
    parser.add_argument("--memory_steps", type=int, nargs="+", default=[7, 14, 28, 56, 112, 224])
    parser.add_argument("--root", default=os.environ.get("LMN_DATA", ""), help="the folder that holds MNIST/raw")
    parser.add_argument("--source", help="a checkout of grid-neurons")
    parser.add_argument("--source-python", help="a Python with its requirements")
    options = parser.parse_args()
    if bool(options.source) != bool(options.source_python):
        parser.error("--source and --source-python go together")
    load = f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors" if hasattr(os, "getloadavg") else ""
    print(f"{ROWS} × {COLS} cells, torch {torch.__version__}{load}")
    if options.angle or options.memory:
        torch.set_num_threads(1)
        if options.angle:
            angles(options)
        if options.memory:
            memory(options)
        return
    if not options.source:
        print("without the source: pass --source and --source-python, see the head of benchmarks/source/make_fixture.py")
    for batch in options.batches:
        agreement(options, batch)
    for batch in options.batches:
        for threads in options.threads:
            race(options, batch, threads)


if __name__ == "__main__":
    main()
