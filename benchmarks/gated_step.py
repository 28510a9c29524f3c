"""Forward and backward of the gated sum: this library with and without a compiler, slots and plain autograd, plain message passing.

    python benchmarks/gated_step.py [--graph lattice] [--side 16] [--radius 2] [--batch 32] [--alpha 1.5] [--repeats 7]

y_i = Σ_j σ(α(|x_i| − |x_j|)) w_ij x_j and its gradients to x, w and α, on a periodic lattice or, with ``--graph scale_free``, on a graph
of hubs with about as many edges. Printed first: the relative errors of values and gradients of every way against plain message passing
in double precision. Then medians of interleaved, warm repeats, and for each way the peak memory above its inputs, measured in a process
of its own, also as a share of one tensor [E, B]. What is prepared once per graph is not part of that peak and printed by itself.
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

import torch
from torch import Tensor

import topologies
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops import gated_sum
from lmn_graph.rules import RelativisticCA

WAYS = ("compiled", "blocks", "eager slots", "PyG propagate")


def build_graph(options: argparse.Namespace) -> Connectivity:
    lattice = topologies.grid(options.side, 3, options.radius)
    if options.graph == "lattice":
        return Connectivity(lattice)
    nodes = options.side**3
    return Connectivity(topologies.scale_free(nodes, round(lattice.num_edges / 2 / nodes), seed=0))


def inputs_of(graph: Connectivity, options: argparse.Namespace, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, w and α, wanting gradients, and the incoming gradient."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(graph.num_nodes, options.batch, generator=generator) - 1
    weight = torch.randn(graph.num_edges, generator=generator)
    g = torch.randn(x.shape, generator=generator)
    live = [tensor.to(dtype).requires_grad_() for tensor in (x, weight, torch.tensor(options.alpha))]
    return [*live, g.to(dtype)]


def slots(graph: Connectivity) -> tuple[Tensor, Tensor]:
    """Neighbours and edges [K, N] of a graph whose nodes all have K."""
    edges = torch.arange(graph.num_edges).view(graph.num_nodes, -1).t().contiguous()
    return graph.edge_index[0][edges], edges


def eager_slots(places: tuple[Tensor, Tensor], x: Tensor, weight: Tensor, alpha: Tensor) -> Tensor:
    """[K, N, B] messages at once, differentiated by autograd."""
    neighbours, edges = places
    u = alpha * x.abs()
    return (torch.sigmoid(u - u[neighbours]) * weight[edges].unsqueeze(-1) * x[neighbours]).sum(0)


def build(way: str, graph: Connectivity, inputs: list[Tensor]) -> Callable[[], list[Tensor]]:
    """One forward and backward: the sum, and its gradients to x, w and α."""
    *live, g = inputs
    x, weight, alpha = live
    if way == "eager slots":
        places = slots(graph)
        forward = lambda: eager_slots(places, x, weight, alpha)  # noqa: E731
    elif way == "PyG propagate":
        rule = RelativisticCA(graph, weight=weight.detach(), learn_weight=False)
        rule.reference = True
        forward = lambda: rule.message_sum(graph, u=alpha * x.abs(), x=x, weight=weight)  # noqa: E731
    else:
        compile = "always" if way == "compiled" else "never"
        forward = lambda: gated_sum(graph, x, weight, alpha, compile=compile)  # noqa: E731

    def work() -> list[Tensor]:
        y = forward()
        return [y.detach(), *torch.autograd.grad(y, live, g)]

    return work


def ways_on(graph: Connectivity) -> tuple[str, ...]:
    """Slots without padding are only there where all degrees are equal."""
    degree = graph.in_degree()
    return WAYS if bool((degree == degree[0]).all()) else tuple(way for way in WAYS if way != "eager slots")


def peak_memory(way: str, options: argparse.Namespace) -> None:
    """Print how far preparing the graph, and then one warm repeat, lift this process, in MiB."""
    options_small = argparse.Namespace(**vars(options) | {"side": 4, "radius": 1, "graph": "lattice"})
    small = build_graph(options_small)
    build(way, small, inputs_of(small, options_small))()  # compiles, loads what is loaded on first use
    graph = build_graph(options)
    inputs = inputs_of(graph, options)
    work = build(way, graph, inputs)
    gc.collect()
    unprepared = _status("VmRSS")
    work()
    gc.collect()
    prepared = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:  # the peak of building the graph does not count
        reset.write("5")
    work()
    print((prepared - unprepared) / 1024, (_status("VmHWM") - prepared) / 1024)


def _status(field: str) -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check(graph: Connectivity, options: argparse.Namespace) -> None:
    """Relative errors, in the norm, against message passing in double precision."""
    exact = build("PyG propagate", graph, inputs_of(graph, options, torch.float64))()
    print(f"{'relative error of':18}" + "".join(f"{name:>10}" for name in ("y", "∂x", "∂w", "∂α")))
    for way in ways_on(graph):
        found = build(way, graph, inputs_of(graph, options))()
        errors = [float((got.double() - want).norm() / want.norm()) for got, want in zip(found, exact)]
        print(f"{way:18}" + "".join(f"{error:10.1e}" for error in errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", choices=("lattice", "scale_free"), default="lattice")
    for name, default in (("side", 16), ("radius", 2), ("batch", 32), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--alpha", type=float, default=1.5)
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        peak_memory(options.memory, options)
        return
    graph = build_graph(options)
    n, e, b = graph.num_nodes, graph.num_edges, options.batch
    print(f"{graph.name}: {n} nodes, {e} edges, B = {b}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    check(graph, options)
    works = {way: build(way, graph, inputs_of(graph, options)) for way in ways_on(graph)}
    times: dict[str, list[float]] = {way: [] for way in works}
    for repeat in range(options.repeats + 2):
        for way, work in works.items():
            started = time.perf_counter()
            work()
            if repeat >= 2:
                times[way].append(time.perf_counter() - started)
    ours = statistics.median(times["compiled"])
    arguments = [f"--{name}={getattr(options, name)}" for name in ("graph", "side", "radius", "batch", "alpha")]
    whole = 4 * e * b / 2**20
    print(f"{'':16}{'median ms':>10}{'min':>9}{'max':>9}{'× compiled':>12}{'peak MiB':>10}{'of [E, B]':>11}{'prepared MiB':>14}")
    for way in works:
        middle, low, high = (1e3 * value for value in (statistics.median(times[way]), min(times[way]), max(times[way])))
        command = [sys.executable, "-W", "ignore", __file__, "--memory", way, *arguments]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back, so that the peak is of what lives
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        prepared, peak = (float(word) for word in output.split()[-2:])
        times_ours = middle / 1e3 / ours
        print(f"{way:16}{middle:10.1f}{low:9.1f}{high:9.1f}{times_ours:12.2f}{peak:10.1f}{peak / whole:11.0%}{prepared:14.1f}")
    print(f"one tensor [E, B] takes {whole:.0f} MiB; a dense [N, N, B] one, which broadcasting makes, {4 * n * n * b / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
