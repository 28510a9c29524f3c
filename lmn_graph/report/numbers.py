"""The numbers of a topology beside those of rewired graphs of equal degrees, as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, is_undirected

from lmn_graph import graph_metrics
from lmn_graph.connectivity import Connectivity
from topologies import _checks
from topologies.nulls import DegreePreservingRewire

_SOURCES = 2000  # nodes that paths start from; all of them up to here, in a second or two
_LOUVAIN = 200_000  # edges up to which communities are sought; NetworkX takes a second for 10⁵


def topology_numbers(topology: Data) -> dict[str, float]:
    """Sizes, degrees, paths, clustering and modularity of a graph.

    Weights do not matter. All numbers but that of the edges are of the graph without parallel edges. Paths start from 2,000 nodes, drawn
    with a fixed seed, where there are more, and their names say so. Modularity is that of Louvain's communities, left out above 200,000
    edges.
    """
    graph = Connectivity(topology)
    edges, nodes = coalesce(graph.edge_index, num_nodes=graph.num_nodes), graph.num_nodes
    symmetric = is_undirected(edges, num_nodes=nodes)
    degree = torch.bincount(edges[1], minlength=nodes).double()
    component = torch.bincount(graph_metrics.connected_components(edges, num_nodes=nodes))
    found = {
        "nodes": float(nodes),
        "edges": float(graph.num_edges),
        **({"edges, parallel ones once": float(edges.size(1))} if edges.size(1) < graph.num_edges else {}),
        "self-loops": float((edges[0] == edges[1]).sum()),
        "in-degree, mean": float(degree.mean()),
        "in-degree, least": float(degree.min()),
        "in-degree, largest": float(degree.max()),
        "components": float(len(component)),
        "nodes in the largest": float(component.max()),
    }
    if graph.num_edges:
        found["density"] = float(graph_metrics.density(edges, directed=True, num_nodes=nodes))
        found["reciprocity"] = float(graph_metrics.reciprocity(edges, num_nodes=nodes, dtype=torch.float64))
        found |= _of_shape(edges, nodes, directed=not symmetric)
    return found


def _of_shape(edges: Tensor, nodes: int, directed: bool) -> dict[str, float]:
    """What rewiring changes, in double precision."""
    dtype = torch.float64
    of: dict[str, Any] = {"directed": directed, "num_nodes": nodes}
    triangles = graph_metrics.Triangles(edges, nodes)
    sampled = f" from {_SOURCES:,} nodes" if nodes > _SOURCES else ""
    paths = {**of, "sources": _SOURCES if nodes > _SOURCES else None}
    found = {
        "clustering": graph_metrics.average_clustering(triangles, directed=directed, dtype=dtype),
        f"path length{sampled}": graph_metrics.average_shortest_path_length(edges, **paths, dtype=dtype),
        f"efficiency{sampled}": graph_metrics.global_efficiency(edges, **paths, dtype=dtype),
        "assortativity": graph_metrics.degree_assortativity(edges, **of, dtype=dtype),
    }
    if edges.size(1) <= _LOUVAIN:
        labels = graph_metrics.louvain(edges, directed=directed, num_nodes=nodes)
        ones = torch.ones(edges.size(1), dtype=dtype)
        found["modularity (Louvain)"] = graph_metrics.modularity(edges, ones, labels, directed=directed, num_nodes=nodes)
    return {name: float(value) for name, value in found.items()}


def numbers_table(topology: Data, *, nulls: int = 3) -> str:
    """:func:`topology_numbers` as text, with the mean ± standard deviation over rewired graphs beside them.

    Args:
        topology: the graph.
        nulls: number of degree-preserving rewires, ≥ 0.

    Raises:
        ValueError: if the graph is not valid.
    """
    count = _checks.integer("nulls", nulls, minimum=0)
    own = topology_numbers(topology)
    rewired: list[dict[str, float]] = []
    if count and "clustering" in own:
        edges = coalesce(Connectivity(topology).edge_index, num_nodes=topology.num_nodes)
        rewire = DegreePreservingRewire(seed=0)
        bare = Data(edge_index=edges, num_nodes=topology.num_nodes)
        directed = not is_undirected(edges, num_nodes=bare.num_nodes)
        rewired = [_of_shape(rewire(bare).edge_index, bare.num_nodes or 0, directed) for _ in range(count)]
    rows = [("", "this graph", f"rewired, {count} ×" if rewired else "")]
    for name, value in own.items():
        others = [found[name] for found in rewired if name in found]
        rows.append((name, _number(value), _spread(others)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join((row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]))).rstrip() for row in rows)


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value == round(value) and abs(value) >= 2 else f"{value:.4g}"


def _spread(values: list[float], number: Callable[[float], str] = _number) -> str:
    if not values:
        return ""
    mean = number(statistics.mean(values))
    return mean if len(values) == 1 or mean == "–" else f"{mean} ± {statistics.stdev(values):.2g}"
