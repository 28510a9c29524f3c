"""Sums with weights of low rank: contracted, or with the weights made at every step or once per rollout.

    OMP_NUM_THREADS=1 python benchmarks/lowrank_step.py [--side 16] [--radius 2] [--batch 32] [--rank 8] [--steps 12] [--repeats 5]
    OMP_NUM_THREADS=1 python benchmarks/lowrank_step.py --table

y_i = Σ_j w_ij x_j on a periodic lattice with w_ij = Σ_r U_ir V_kr (k the offset of the edge), the factors different for every sample,
forward and all gradients (x, U, V); "nodes" is w_ij = Σ_r U_ir V_jr. Printed first: the relative errors of values and gradients against
the weights on the edges in double precision. Then medians of interleaved, warm repeats in milliseconds of processor time: of one step,
and of a rollout, divided by its number of steps; and the peak memory of both above graph and inputs, each in a process of its own. With
``--table`` instead: steps of a rollout by radius and rank, contracted and with weights made once.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import topologies
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import EdgeWeight, LowRankWeight, lowrank, message_sum, weighted_sum

WAYS = ("Fourier", "messages", "W at every step", "W once per rollout", "nodes")
Sum = Callable[[Tensor], Tensor]


def inputs_of(graph: Connectivity, options: argparse.Namespace, per: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, U and V, wanting gradients, and the incoming gradient."""
    generator = torch.Generator().manual_seed(0)
    n, b, r = graph.num_nodes, options.batch, options.rank
    rows = n if per == "node" else int(graph.edge_type.max()) + 1
    shapes = [(n, b), (n, 1 if options.shared else b, r), (rows, 1 if options.shared else b, r), (n, b)]
    *live, g = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return [*(tensor.requires_grad_() for tensor in live), g]


def weighted_message(x_j: Tensor, w: Tensor) -> Tensor:
    """w_ij x_j."""
    return w * x_j


def sum_of(way: str, graph: Connectivity, left: Tensor, right: Tensor) -> Sum:
    """The sum of one step; what is prepared before the first is prepared here."""
    if way in ("Fourier", "messages", "nodes"):
        weight = LowRankWeight(graph, left, right, per="node" if way == "nodes" else "type")
        form = {"Fourier": "fourier", "messages": "messages", "nodes": "node"}[way]
        return lambda x: lowrank._sum(graph, x, weight, form)
    if way == "W once per rollout":
        made = LowRankWeight(graph, left, right).materialise()
        if made.size(1) == 1:
            prepared = EdgeWeight(graph, made.flatten())
            return lambda x: weighted_sum(graph, x, prepared)
        return lambda x: message_sum(graph, weighted_message, (), x, made)
    neighbours = graph.edge_index[0].view(graph.num_nodes, -1)  # of every node equally many, and once in the order of their types
    kinds = graph.edge_type.view(graph.num_nodes, -1)
    neighbours = neighbours.gather(1, kinds.argsort(1))

    def step(x: Tensor) -> Tensor:
        w = torch.einsum("nbr,kbr->bnk", left, right)
        return (w * x.t()[:, neighbours]).sum(-1).t()

    return step


def at_once(way: str, graph: Connectivity, inputs: list[Tensor]) -> list[Tensor]:
    """One forward and backward: the sum, and its gradients to x, U and V."""
    *live, g = inputs
    y = sum_of(way, graph, live[1], live[2])(live[0])
    return [y.detach(), *torch.autograd.grad(y, live, g)]


def forward(way: str, graph: Connectivity, inputs: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return sum_of(way, graph, inputs[1], inputs[2])(inputs[0])


def rollout(way: str, graph: Connectivity, inputs: list[Tensor], steps: int) -> list[Tensor]:
    """x ← tanh(sum), ``steps`` times, and the gradients of the last state."""
    *live, g = inputs
    total, x = sum_of(way, graph, live[1], live[2]), live[0]
    for _ in range(steps):
        x = torch.tanh(total(x) / 8)
    return [x.detach(), *torch.autograd.grad(x, live, g)]


def per_of(way: str) -> str:
    return "node" if way == "nodes" else "type"


def check(graph: Connectivity, options: argparse.Namespace) -> None:
    """Relative errors, in the norm, against the weights on the edges in double precision, on a quarter of the samples."""
    few = argparse.Namespace(**vars(options) | {"batch": max(1, options.batch // 4)})
    print(f"{'relative error of':20}" + "".join(f"{name:>10}" for name in ("y", "∂x", "∂U", "∂V")))
    exact = {}
    for way in WAYS:
        per = per_of(way)
        if per not in exact:
            *live, g = inputs_of(graph, few, per, torch.float64)
            w = LowRankWeight(graph, live[1], live[2], per=per).materialise()
            source, target = graph.edge_index
            y = torch.zeros_like(live[0]).index_add(0, target, w * live[0][source])
            exact[per] = [y.detach(), *torch.autograd.grad(y, live, g)]
        found = at_once(way, graph, inputs_of(graph, few, per))
        errors = [float((got.double() - want).norm() / want.norm()) for got, want in zip(found, exact[per])]
        print(f"{way:20}" + "".join(f"{error:10.1e}" for error in errors), flush=True)


def timed(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Medians of interleaved repeats after one that warms up, in milliseconds of processor time."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if repeat:
                times[name].append(time.process_time() - started)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def peak_memory(way: str, options: argparse.Namespace) -> None:
    """Print how far one warm step and one warm rollout lift this process, in MiB."""
    small = argparse.Namespace(**vars(options) | {"side": 4, "radius": 1})
    graph = Connectivity(topologies.grid(small.side, 3, small.radius))
    rollout(way, graph, inputs_of(graph, small, per_of(way)), 2)  # loads what is loaded on first use
    graph = Connectivity(topologies.grid(options.side, 3, options.radius))
    inputs = inputs_of(graph, options, per_of(way))
    for work in (partial(at_once, way, graph, inputs), partial(rollout, way, graph, inputs, options.steps)):
        work()
        gc.collect()
        before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        work()
        print((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_of(way: str, options: argparse.Namespace) -> tuple[float, float]:
    arguments = [f"--{name}={getattr(options, name)}" for name in ("side", "radius", "batch", "rank", "steps")]
    command = [sys.executable, "-W", "ignore", __file__, "--memory", way, *arguments]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back, so that the peak is of what lives
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    return float(output[-2]), float(output[-1])


def table(options: argparse.Namespace) -> None:
    """Contracted and made once, per step of a rollout, over radii and ranks."""
    print(f"{'shared' if options.shared else 'per sample'}, B = {options.batch}, {options.steps} steps; ms of a step: contracted / W once")
    ranks = (2, 8, 32)
    print(f"{'K':>6}" + "".join(f"{f'R = {rank}':>18}" for rank in ranks))
    for radius in (1, 2, 3):
        graph = Connectivity(topologies.grid(options.side, 3, radius))
        kinds = int(graph.edge_type.max()) + 1
        cells = []
        for rank in ranks:
            inputs = inputs_of(graph, argparse.Namespace(**vars(options) | {"rank": rank}), "type")
            ways = ("Fourier", "W once per rollout")
            found = timed({way: partial(rollout, way, graph, inputs, options.steps) for way in ways}, options.repeats)
            cells.append(" / ".join(f"{found[way] / options.steps:.1f}" for way in ways))
        print(f"{kinds:6}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("side", 16), ("radius", 2), ("batch", 32), ("rank", 8), ("steps", 12), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shared", action="store_true", help="factors that all samples share")
    parser.add_argument("--table", action="store_true", help="over radii and ranks")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        peak_memory(options.memory, options)
        return
    if options.table:
        table(options)
        return
    graph = Connectivity(topologies.grid(options.side, 3, options.radius))
    sizes = f"{graph.num_nodes} nodes, {graph.num_edges} edges, B = {options.batch}, R = {options.rank}"
    print(f"{graph.name}: {sizes}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    check(graph, options)
    inputs = {way: inputs_of(graph, options, per_of(way)) for way in WAYS}
    steps = {way: partial(at_once, way, graph, inputs[way]) for way in WAYS if way != "W once per rollout"}
    values = {way: partial(forward, way, graph, inputs[way]) for way in steps}
    runs = {way: partial(rollout, way, graph, inputs[way], options.steps) for way in WAYS}
    of_value, of_step, of_run = (timed(works, options.repeats) for works in (values, steps, runs))
    print(f"{'':20}{'forward ms':>11}{'step ms':>9}{'× Fourier':>11}{'rollout/step ms':>17}{'step MiB':>10}{'rollout MiB':>13}")
    for way in WAYS:
        step_memory, run_memory = memory_of(way, options)
        row = f"{of_value[way]:11.1f}{of_step[way]:9.1f}{of_step[way] / of_step['Fourier']:11.2f}" if way in of_step else f"{'':31}"
        print(f"{way:20}{row}{of_run[way] / options.steps:17.1f}{step_memory:10.1f}{run_memory:13.1f}", flush=True)


if __name__ == "__main__":
    main()
