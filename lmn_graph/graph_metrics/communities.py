"""Communities: found by Louvain's or Leiden's method, cut out of a lattice, or learned as soft memberships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity, lattice_shape
from lmn_graph.graph_metrics._edges import Graph, described, read_edges, read_weight, require_symmetric
from topologies import _checks
from topologies._graph import Seed, generator_of

_UNTIE = 1e-9  # how much weights are moved apart, relatively


def louvain(
    graph: Graph,
    edge_weight: Tensor | None = None,
    *,
    resolution: float = 1.0,
    directed: bool = False,
    seed: Seed = 0,
    num_nodes: int | None = None,
) -> Tensor:
    """Communities of high modularity by Louvain's method, as NetworkX has it.

    Every weight is first multiplied by 1 + 10⁻⁹ u, with u uniform in [0, 1): ties between communities, which rounding would decide, are
    decided by these numbers instead. Without them the search of NetworkX can move nodes of a directed graph in circles for ever.

    Args:
        graph: ``edge_index`` [2, E], a PyG ``Data`` or a :class:`~lmn_graph.Connectivity`; undirected with both directions of every edge.
        edge_weight: [E]; that of the ``Data`` or the connectivity if None, else all 1.
        resolution: γ > 0; above 1 it favours smaller communities.
        directed: maximise the directed modularity.
        seed: the order in which nodes are visited, and the decision of ties.
        num_nodes: N; that of ``graph``, or the largest id + 1 if None.

    Returns:
        int64 [N]: labels, numbered by the lowest node of each community.

    Raises:
        ValueError: for arguments of another shape, a total weight that is not positive, or, undirected, edges that are not symmetric.

    Source: V. D. Blondel et al., J. Stat. Mech. P10008 (2008).
    """
    import networkx as nx

    edges, weight, nodes, device = _read(graph, edge_weight, directed, num_nodes)
    resolution = _checks.number("resolution", resolution, above=0)
    generator = generator_of(seed)
    number = _seed_number(generator)
    # NetworkX moves nodes for as long as a gain exceeds another. Where gains are equal but for rounding, as in directed graphs without
    # weights, every move may seem to gain over the one before, round a circle. A relative 1e-9 is far above rounding, and far below
    # what a division is worth.
    weight = weight * (1 + _UNTIE * torch.rand(weight.shape, generator=generator, dtype=weight.dtype))
    found = nx.DiGraph() if directed else nx.Graph()
    found.add_nodes_from(range(nodes))
    found.add_weighted_edges_from((u, v, w) for (u, v), w in zip(edges.t().tolist(), weight.tolist()))
    parts = nx.community.louvain_communities(found, resolution=resolution, seed=number)
    labels = torch.empty(nodes, dtype=torch.long)
    for label, part in enumerate(parts):
        labels[list(part)] = label
    return _by_lowest_node(labels).to(device)


def leiden(
    graph: Graph,
    edge_weight: Tensor | None = None,
    *,
    resolution: float = 1.0,
    directed: bool = False,
    seed: Seed = 0,
    num_nodes: int | None = None,
) -> Tensor:
    """Communities of high modularity by Leiden's method, whose communities are connected; needs ``pip install 'lmn-graph[leiden]'``.

    Arguments, result and errors as in :func:`louvain`; weights must not be negative.

    Raises:
        ImportError: if ``leidenalg`` or ``igraph`` is missing.

    Source: V. A. Traag, L. Waltman and N. J. van Eck, Sci. Rep. 9, 5233 (2019).
    """
    try:
        import igraph
        import leidenalg
    except ImportError as error:
        raise ImportError(f"leiden needs leidenalg and igraph: pip install 'lmn-graph[leiden]' ({error})") from error
    edges, weight, nodes, device = _read(graph, edge_weight, directed, num_nodes)
    resolution = _checks.number("resolution", resolution, above=0)
    number = _seed_number(seed)
    if bool((weight < 0).any()):
        raise ValueError(f"edge_weight must not be negative for leiden, got {float(weight.min()):g}")
    found = igraph.Graph(n=nodes, edges=edges.t().tolist(), directed=directed)
    parts = leidenalg.find_partition(
        found,
        leidenalg.RBConfigurationVertexPartition,
        weights=weight.tolist(),
        resolution_parameter=resolution,
        seed=number,
        n_iterations=-1,  # until nothing improves
    )
    return _by_lowest_node(torch.tensor(parts.membership)).to(device)


def lattice_blocks(topology: Data, blocks: int | Sequence[int]) -> Tensor:
    """Labels of a lattice cut into boxes: cell x is in block ⌊x_d · b_d / L_d⌋ of every axis d.

    Args:
        topology: a lattice, with its sides in ``shape`` and its cells in C order.
        blocks: b, cuts per axis, one int for all or one per axis; at most L_d.

    Returns:
        int64 [N]: 0 … Π b_d − 1, in C order.

    Raises:
        ValueError: if this is no lattice, or an axis has fewer cells than blocks.
    """
    shape = lattice_shape(topology) if isinstance(topology, Data) else None
    if shape is None:
        raise ValueError(f"topology must be a lattice with a shape, got {described(topology)}")
    cuts = [blocks] * len(shape) if not isinstance(blocks, Sequence) or isinstance(blocks, str) else list(blocks)
    if len(cuts) != len(shape):
        raise ValueError(f"blocks must be an int or one per axis ({len(shape)}), got {blocks!r}")
    label = torch.zeros(1, dtype=torch.long)
    for side, cut in zip(shape, cuts):
        cut = _checks.integer("blocks", cut, minimum=1, maximum=side)
        label = (label[:, None] * cut + torch.arange(side) * cut // side).flatten()
    return label


class SoftCommunities(nn.Module):
    """Learned memberships S = softmax(sharpness · logits), to be trained on −modularity or beside another loss.

    Descent finds a local optimum: small steps from nearly equal memberships come closest to the best division (on Zachary's network
    0.39 to 0.42 of at most 0.4198, with Adam at 0.03).

    Args:
        num_nodes: N.
        count: C, the largest number of communities; some may end up empty.
        sharpness: > 0; an optimiser whose steps are all alike, such as Adam, moves memberships so much faster than its learning rate.

    Shapes:
        output: [N, C], rows that sum to 1; ``labels()``: int64 [N], the community of the largest membership.
    """

    def __init__(self, num_nodes: int, count: int, *, sharpness: float = 10.0) -> None:
        super().__init__()
        self.num_nodes = _checks.integer("num_nodes", num_nodes, minimum=1)
        self.count = _checks.integer("count", count, minimum=1)
        self.sharpness = _checks.number("sharpness", sharpness, above=0)
        self.logits = nn.Parameter(torch.empty(self.num_nodes, self.count))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Nearly equal memberships: exactly equal ones are a saddle that no gradient leaves."""
        nn.init.normal_(self.logits, std=0.1 / self.sharpness)

    def forward(self) -> Tensor:
        return (self.sharpness * self.logits).softmax(-1)

    def labels(self) -> Tensor:
        return self.logits.detach().argmax(-1)

    def extra_repr(self) -> str:
        return f"num_nodes={self.num_nodes}, count={self.count}"


def _read(graph: Any, edge_weight: Any, directed: Any, num_nodes: Any) -> tuple[Tensor, Tensor, int, torch.device]:
    """Edges and weights on the CPU, where the methods work, N and where the graph is; an undirected graph with each edge once."""
    if isinstance(graph, (Data, Connectivity)):
        edge_weight = graph.edge_weight if edge_weight is None else edge_weight
    edges, nodes = read_edges(graph, num_nodes)
    device, edges = edges.device, edges.cpu()
    given = read_weight(edge_weight.cpu() if isinstance(edge_weight, Tensor) else edge_weight, edges)
    if given is not None and given.ndim != 1:
        raise ValueError(f"edge_weight must have shape [{edges.shape[1]}], got {described(given)}")
    weight = torch.ones(edges.shape[1], dtype=torch.float64) if given is None else given.detach().double()
    if not float(weight.sum()) > 0:
        raise ValueError(f"edge_weight must have a positive total, got {float(weight.sum()):g}")
    if not _checks.flag("directed", directed):
        require_symmetric(edges, given, nodes)
        once = edges[0] <= edges[1]
        edges, weight = edges[:, once], weight[once]
    if torch.unique(edges, dim=1).shape[1] < edges.shape[1]:  # parallel edges add up
        key, slot = torch.unique(edges[0] * nodes + edges[1], return_inverse=True)
        weight = weight.new_zeros(key.numel()).index_add_(0, slot, weight)
        edges = torch.stack([key // nodes, key % nodes])
    return edges, weight, nodes, device


def _seed_number(seed: Any) -> int:
    """A number for a library that has a generator of its own."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator_of(seed)))


def _by_lowest_node(labels: Tensor) -> Tensor:
    present, label = torch.unique(labels, return_inverse=True)
    first = torch.full_like(present, labels.numel()).scatter_reduce_(0, label, torch.arange(labels.numel()), "amin")
    return first.argsort().argsort()[label]
