"""Numbers of a graph, equal to NetworkX's: sparse, batched and, where that has meaning, differentiable in the weights.

Every function reads ``edge_index`` [2, E] as PyG has it: row 0 the source, an undirected graph with both directions of every edge and
each self-loop once. In its place a ``Data``, of which ``edge_index`` and ``num_nodes`` are read, or a ``Connectivity``, whose edges are
sorted. Weights are passed beside either, in the order of its ``edge_index`` (only ``louvain`` and ``leiden`` fall back on those it has);
they may be [B, E], many weightings of one graph. Numbers of a whole graph take ``batch`` for a PyG ``Batch``.
Results have the dtype of the weights, and without weights torch's default or ``dtype``: pass ``torch.float64`` for NetworkX's digits.
"""

from lmn_graph.graph_metrics._clustering import (
    average_clustering,
    clustering,
    excess_clustering,
    shuffled_clustering,
    transitivity,
    triangles,
)
from lmn_graph.graph_metrics._degrees import (
    connected_components,
    degree,
    degree_assortativity,
    density,
    reciprocity,
    rich_club,
    strength,
)
from lmn_graph.graph_metrics._functional import functional_weights
from lmn_graph.graph_metrics._modularity import modularity
from lmn_graph.graph_metrics._paths import average_shortest_path_length, diameter, global_efficiency
from lmn_graph.graph_metrics._small_world import SmallWorld, ring_lattice, small_world
from lmn_graph.graph_metrics._triangles import Triangles
from lmn_graph.graph_metrics.communities import SoftCommunities, lattice_blocks, leiden, louvain

__all__ = [
    "SmallWorld",
    "SoftCommunities",
    "Triangles",
    "average_clustering",
    "average_shortest_path_length",
    "clustering",
    "connected_components",
    "degree",
    "degree_assortativity",
    "density",
    "diameter",
    "excess_clustering",
    "functional_weights",
    "global_efficiency",
    "lattice_blocks",
    "leiden",
    "louvain",
    "modularity",
    "reciprocity",
    "rich_club",
    "ring_lattice",
    "shuffled_clustering",
    "small_world",
    "strength",
    "transitivity",
    "triangles",
]
