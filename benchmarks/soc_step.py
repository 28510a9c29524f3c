"""Forward and backward of a recurrent spiking rollout: this library, plain message passing, a dense matrix, and the bare kernels.

    python benchmarks/soc_step.py [--side 16] [--radius 2] [--batch 32] [--steps 20] [--repeats 7]

The same SpikingSOC (learned weights, resources, reset to zero) runs on the same weights and drive: in the compiled
loop, step after step with sparse products, as plain message passing and with a dense matrix. Printed first: how many
spikes differ, and the relative error of the weight gradient. Then medians of interleaved, warm repeats, and for each way the peak
memory above what the graph and the weights take, each measured in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import topologies
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import EdgeWeight, _kernels
from lmn_graph.rollout import rollout
from lmn_graph.rules import SpikingSOC


class DenseSOC(SpikingSOC):
    """The same rule with a dense N×N recurrent matrix, as recurrent layers of spiking libraries have."""

    def densify(self) -> DenseSOC:
        source, target = self.connectivity.edge_index
        dense = torch.zeros(self.num_nodes, self.num_nodes)
        dense[target, source] = self.weight.detach()
        self.dense = nn.Parameter(dense)
        return self

    def weighted_sum(self, connectivity: Connectivity, x: Tensor, weight: EdgeWeight) -> Tensor:
        return self.dense @ x


WAYS = ("lmn_graph", "step after step", "PyG propagate", "dense matrix", "bare kernels")


def build(way: str, options: argparse.Namespace) -> tuple[Callable[[], object], SpikingSOC]:
    """The work of one repeat, and the rule it runs."""
    torch.manual_seed(0)
    graph = topologies.grid(options.side, 3, options.radius)
    rule = (DenseSOC if way == "dense matrix" else SpikingSOC)(graph, reset="zero")
    drive = torch.rand(options.batch, rule.num_nodes) * 0.4
    if isinstance(rule, DenseSOC):
        rule.densify()
    rule.reference, rule.compile = way == "PyG propagate", "never" if way == "step after step" else "auto"
    if way == "bare kernels":
        return bare(rule, options), rule

    def work() -> Tensor:
        rule.zero_grad(set_to_none=True)
        activity = rollout(rule, drive, steps=options.steps).activity
        activity.mean().backward()
        return activity.detach()

    return work, rule


def bare(rule: SpikingSOC, options: argparse.Namespace) -> Callable[[], object]:
    """T times the three products of a step, and nothing else."""
    graph, weight = rule.connectivity, rule.weight.detach()
    transposed = weight[graph.perm_t]
    x, g = torch.rand(rule.num_nodes, options.batch), torch.rand(rule.num_nodes, options.batch)

    def work() -> None:
        for _ in range(options.steps):
            _kernels.multiply(graph.rowptr, graph.col, weight, x)
            _kernels.multiply(graph.rowptr_t, graph.col_t, transposed, g)
            _kernels.sample(graph.rowptr, graph.col, g, x)

    return work


def peak_memory(way: str, options: argparse.Namespace) -> None:
    """Print how far one repeat lifts the peak of this process, in MiB."""
    work, _ = build(way, options)
    _kernels.multiply(torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0], dtype=torch.int32), torch.ones(1), torch.ones(1, 1))
    gc.collect()
    with open("/proc/self/clear_refs", "w") as reset:  # the peak of building the graph does not count
        reset.write("5")
    before = _status("VmRSS")
    work()
    print((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check(options: argparse.Namespace) -> None:
    """Spikes and weight gradients of all ways against the first."""
    work, rule = build("lmn_graph", options)
    spikes = work()
    gradient = rule.weight.grad
    print(f"firing rate {float(spikes.mean()):.3f}")
    for way in WAYS[1:4]:
        other, compared = build(way, options)
        differ = int((other() != spikes).sum())
        if isinstance(compared, DenseSOC):
            source, target = compared.connectivity.edge_index
            found = compared.dense.grad[target, source]
        else:
            found = compared.weight.grad
        error = float((found - gradient).norm() / gradient.norm())
        print(f"lmn_graph against {way}: {differ} of {spikes.numel()} spikes differ, relative error of the weight gradient {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("side", 16), ("radius", 2), ("batch", 32), ("steps", 20), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        peak_memory(options.memory, options)
        return
    nodes = options.side**3
    size = f"{options.side}³ nodes, radius {options.radius}, B = {options.batch}, T = {options.steps}"
    print(f"{size}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    check(options)
    works = {way: build(way, options)[0] for way in WAYS}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats + 2):
        for way, work in works.items():
            if way == "PyG propagate" and repeat >= 5:
                continue  # seconds each: three counted repeats are enough
            started = time.perf_counter()
            work()
            if repeat >= 2:
                times[way].append(time.perf_counter() - started)
    ours = statistics.median(times["lmn_graph"])
    arguments = [f"--{name}={getattr(options, name)}" for name in ("side", "radius", "batch", "steps")]
    print(f"{'':16}{'median ms':>10}{'min':>9}{'max':>9}{'× ours':>9}{'peak MiB':>10}")
    for way in WAYS:
        middle = statistics.median(times[way])
        command = [sys.executable, "-W", "ignore", __file__, "--memory", way, *arguments]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        low, high = 1e3 * min(times[way]), 1e3 * max(times[way])
        print(f"{way:16}{1e3 * middle:10.1f}{low:9.1f}{high:9.1f}{middle / ours:9.2f}{peak:10.0f}")
    bare_time = statistics.median(times["bare kernels"])
    print(f"ours / bare kernels = {ours / bare_time:.2f}; a dense N×N matrix of float32 is {nodes**2 / 2**18:.0f} MiB")


if __name__ == "__main__":
    main()
