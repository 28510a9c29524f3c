"""Numbers of a graph of 10⁵ edges: this library against NetworkX, on a random graph and on a lattice.

    python benchmarks/graph_metrics.py [--pairs 100000] [--degree 20] [--repeats 7] [--sources 20]

Printed first: how far the values are from NetworkX's; more than 1e-10 ends the run. Then the times of interleaved repeats (NetworkX: two
of them), every one with the checks of its arguments and everything built anew; the times where the triangles or the connectivity are
kept, as in a loss, forward and backward, with the peak memory of both above the graph and its weights, each in a process of its own. A
graph of 50 edges comes last, where NetworkX is mostly faster. Times of NetworkX leave out making its graph. Shortest paths start from
``--sources`` nodes in both.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

import topologies
from lmn_graph.connectivity import Connectivity
from lmn_graph.graph_metrics import (
    Triangles,
    average_shortest_path_length,
    clustering,
    excess_clustering,
    functional_weights,
    global_efficiency,
    modularity,
    rich_club,
    transitivity,
)

GRAPHS = ("random", "lattice")
COMMUNITIES = 20
SAME = 1e-10
F64 = torch.float64


class Subject(NamedTuple):
    """A graph as an edge list, with symmetric weights and labels."""

    edge_index: Tensor
    edge_weight: Tensor
    nodes: int
    labels: Tensor

    @property
    def options(self) -> dict[str, int]:
        return {"num_nodes": self.nodes}


def subject(name: str, options: argparse.Namespace) -> Subject:
    generator = torch.Generator().manual_seed(0)
    if name == "lattice":
        graph = topologies.grid(math.isqrt(options.pairs // 4), 2)
        pairs, nodes = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]], graph.num_nodes
    else:
        nodes = 2 * options.pairs // options.degree
        ends = torch.randint(nodes, (2, int(1.1 * options.pairs)), generator=generator)
        ends = ends[:, ends[0] != ends[1]].sort(0).values
        key = torch.unique(ends[0] * nodes + ends[1])
        key = key[torch.randperm(key.numel(), generator=generator)[: options.pairs]]
        pairs = torch.stack([key // nodes, key % nodes])
    weight = torch.rand(pairs.shape[1], generator=generator, dtype=F64)
    return Subject(torch.cat([pairs, pairs.flip(0)], 1), torch.cat([weight, weight]), nodes, torch.arange(nodes) * COMMUNITIES // nodes)


def to_networkx(s: Subject, *, directed: bool = False) -> nx.Graph:
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(range(s.nodes))
    graph.add_weighted_edges_from((u, v, w) for (u, v), w in zip(s.edge_index.t().tolist(), s.edge_weight.tolist()))
    return graph


class Pair(NamedTuple):
    """The same number by both."""

    name: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], object]


def contest(s: Subject, options: argparse.Namespace) -> list[Pair]:
    graph = to_networkx(s)
    half = s._replace(edge_index=s.edge_index[:, : -options.pairs // 2], edge_weight=s.edge_weight[: -options.pairs // 2])
    directed = to_networkx(half, directed=True)
    sets = [set((s.labels == label).nonzero()[:, 0].tolist()) for label in range(COMMUNITIES)]
    one = {"dtype": F64, **s.options}
    drawn = torch.randperm(s.nodes, generator=torch.Generator().manual_seed(1))[: options.sources].tolist()
    paths = {"sources": options.sources, "seed": 1, **one}

    def their_paths() -> float:
        rows = [nx.single_source_shortest_path_length(graph, source) for source in drawn]
        return sum(sum(row.values()) for row in rows) / sum(len(row) - 1 for row in rows)

    def their_efficiency() -> float:
        rows = [nx.single_source_shortest_path_length(graph, source) for source in drawn]
        return sum(1 / d for row in rows for d in row.values() if d) / (len(drawn) * (s.nodes - 1))

    return [
        Pair(
            "clustering, weighted",
            lambda: clustering(s.edge_index, s.edge_weight, **s.options),
            lambda: list(nx.clustering(graph, weight="weight").values()),
        ),
        Pair("clustering", lambda: clustering(s.edge_index, **one), lambda: list(nx.clustering(graph).values())),
        Pair(
            "clustering, directed weighted",
            lambda: clustering(half.edge_index, half.edge_weight, directed=True, **s.options),
            lambda: list(nx.clustering(directed, weight="weight").values()),
        ),
        Pair("transitivity", lambda: transitivity(s.edge_index, **one), lambda: nx.transitivity(graph)),
        Pair(
            "modularity, weighted",
            lambda: modularity(s.edge_index, s.edge_weight, s.labels, **s.options),
            lambda: nx.community.modularity(graph, sets, weight="weight"),
        ),
        Pair(
            "modularity, directed weighted",
            lambda: modularity(half.edge_index, half.edge_weight, s.labels, directed=True, **s.options),
            lambda: nx.community.modularity(directed, sets, weight="weight"),
        ),
        Pair("mean path length", lambda: average_shortest_path_length(s.edge_index, **paths), their_paths),
        Pair("global efficiency", lambda: global_efficiency(s.edge_index, **paths), their_efficiency),
        Pair(
            "rich club",
            lambda: rich_club(s.edge_index, **one),
            lambda: list(nx.rich_club_coefficient(graph, normalized=False).values()),
        ),
    ]


def compare(s: Subject, options: argparse.Namespace) -> None:
    pairs = contest(s, options)
    print("largest difference to NetworkX:")
    for pair in pairs:
        difference = float(np.abs(pair.ours().numpy() - np.asarray(pair.theirs())).max())
        print(f"  {pair.name:32}{difference:9.1e}")
        if not difference <= SAME:  # NaN included
            raise SystemExit(f"{pair.name} differs from NetworkX by {difference:.1e}, more than {SAME:g}: no times of different numbers")
    times: dict[str, tuple[list[float], list[float]]] = {pair.name: ([], []) for pair in pairs}
    for repeat in range(options.repeats):
        for pair in pairs:
            for side, work in enumerate((pair.ours, pair.theirs)):
                if side and repeat >= 2 and options.pairs > 1000:
                    continue  # seconds each
                started = time.perf_counter()
                work()
                times[pair.name][side].append(time.perf_counter() - started)
    print(f"{'':34}{'ours ms':>10}{'min':>9}{'NetworkX ms':>14}{'min':>9}{'ratio':>8}{'of minima':>11}")
    for name, (ours, theirs) in times.items():
        middle, other = 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs)
        low, least = 1e3 * min(ours), 1e3 * min(theirs)
        lost = "" if other > middle else "   slower than NetworkX"
        print(f"  {name:32}{middle:10.2f}{low:9.2f}{other:14.1f}{least:9.1f}{other / middle:8.1f}{least / low:11.1f}{lost}")


def kept(s: Subject) -> dict[str, Callable[[], Tensor]]:
    """What a training step evaluates, forward: everything that does not depend on the weights is at hand."""
    found = Triangles(s.edge_index, s.nodes)
    graph = Connectivity(Data(edge_index=s.edge_index, num_nodes=s.nodes))
    weight = s.edge_weight.clone().requires_grad_()
    memberships = torch.rand(s.nodes, 8, dtype=F64, requires_grad=True)
    activity = torch.rand(8, 20, s.nodes, dtype=F64, requires_grad=True)
    return {
        "clustering, triangles kept": lambda: clustering(found, weight).sum(),
        "excess over shuffled weights": lambda: excess_clustering(found, weight).sum(),
        "modularity, 20 labels": lambda: modularity(s.edge_index, weight, s.labels, num_nodes=s.nodes),
        "modularity, 8 soft": lambda: modularity(graph, weight[graph.permutation], memberships.softmax(1), directed=True),
        "functional weights, 160 values": lambda: functional_weights(graph, activity).sum(),
    }


def measured_apart(name: str, way: str, options: argparse.Namespace) -> float:
    """Peak memory in MiB, in a process whose allocator hands every large block back at once: none hides in what was freed before."""
    arguments = [f"--{key}={getattr(options, key)}" for key in ("pairs", "degree")]
    command = [sys.executable, "-W", "ignore", __file__, "--memory", name, way, *arguments]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def differentiate(name: str, s: Subject, options: argparse.Namespace) -> None:
    print(f"{'in a training step':34}{'forward ms':>12}{'+ backward':>12}{'peak MiB':>10}")
    for way, work in kept(s).items():
        forward, both = [], []
        for repeat in range(options.repeats + 1):
            started = time.perf_counter()
            value = work()
            middle = time.perf_counter()
            value.backward()
            if repeat:
                forward.append(middle - started)
                both.append(time.perf_counter() - started)
        peak = measured_apart(name, way, options)
        print(f"  {way:32}{1e3 * statistics.median(forward):12.2f}{1e3 * statistics.median(both):12.2f}{peak:10.1f}")
    peak = measured_apart(name, "triangles", options)
    found = Triangles(s.edge_index, s.nodes)
    print(f"  finding {found.count} triangles lifts the peak by {peak:.1f} MiB; a dense N×N matrix is {s.nodes**2 / 2**17:.0f} MiB")


def peak_memory(name: str, way: str, options: argparse.Namespace) -> None:
    """Print how far one evaluation, with its backward pass, lifts the peak of this process, in MiB."""
    tiny = argparse.Namespace(pairs=64, degree=4)
    for size in (tiny, options):  # the first loads the code
        s = subject(name, size)
        work = (lambda s=s: Triangles(s.edge_index, s.nodes)) if way == "triangles" else kept(s)[way]
        gc.collect()
        with open("/proc/self/clear_refs", "w") as reset:  # the peak of building the graph does not count
            reset.write("5")
        before = _status("VmRSS")
        found = work()
        if isinstance(found, Tensor):
            found.backward()
    print((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pairs", 100_000), ("degree", 20), ("repeats", 7), ("sources", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        peak_memory(*options.memory, options)
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, networkx {nx.__version__}")
    for name in GRAPHS:
        s = subject(name, options)
        print(f"\n{name}: {s.nodes} nodes, {s.edge_index.shape[1] // 2} edges ({s.edge_index.shape[1]} directed ones)")
        compare(s, options)
        differentiate(name, s, options)
    small = argparse.Namespace(pairs=50, degree=4, repeats=20 * options.repeats, sources=10)
    s = subject("random", small)
    print(f"\nwhere the fixed costs of a call decide: {s.nodes} nodes, {s.edge_index.shape[1] // 2} edges")
    compare(s, small)


if __name__ == "__main__":
    main()
