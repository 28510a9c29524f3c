"""Modularity of a division into communities, hard or soft."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.graph_metrics._edges import (
    Graph,
    Graphs,
    described,
    read_batch,
    read_dtype,
    read_edges,
    read_weight,
    require_device,
    require_symmetric,
)
from lmn_graph.ops import _kernels
from topologies import _checks

_CLOSE = 1e-3  # how far from 1 the memberships of a node may add up


def modularity(
    edge_index: Graph,
    edge_weight: Tensor | None,
    communities: Tensor,
    *,
    resolution: float = 1.0,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""How much more weight lies inside communities than the strengths of the nodes alone would put there.

    .. math:: Q = \frac{1}{m} \sum_e w_e \langle S_{s(e)}, S_{t(e)} \rangle
              - \frac{\gamma}{m^2} \sum_c (S^T k^{out})_c \, (S^T k^{in})_c, \qquad m = \sum_e w_e

    over the edge list; S is one-hot for hard communities. An undirected self-loop, listed once, counts twice, as it does in a degree.
    Equal to ``networkx.community.modularity``, negative weights included (they enter with their sign). Differentiable in the weights and
    in soft communities, to any order; sums are taken in float64 and rounded once. Cost O(E) for hard communities, O(E·C) in one sparse
    product for soft ones; nothing of size N×N or E×C exists at any time. Parallel edges add up; disconnected parts and isolated nodes
    are valid.

    Args:
        edge_index: [2, E], row 0 the source; an undirected graph with both directions of every edge and each self-loop once. A
            :class:`~lmn_graph.Connectivity` spares soft communities the sorting; ``edge_weight`` is then in its order.
        edge_weight: [E], or [B, E] for many weightings of one graph, or None for all 1.
        communities: [N] integer labels (any integers), or [N, C] memberships ≥ 0 whose rows sum to 1.
        resolution: γ ≥ 0; above 1 it favours smaller communities.
        directed: Leicht and Newman's form for directed graphs; otherwise edges and weights must be symmetric (up to rounding).
        num_nodes: N; the largest id + 1 if None.
        batch: [N], the graph of every node, for a PyG ``Batch``: one value per graph. A label in two graphs is two communities.
        dtype: of the result where there are no weights; torch's default if None.

    Returns:
        A scalar; [G] with ``batch``; with a leading B for weights [B, E].

    Raises:
        ValueError: for arguments of another shape, memberships below 0 or not summing to 1, a total weight (of any graph) that is not
            positive, or, undirected, an edge without its opposite or with another weight.

    Source: M. E. J. Newman, Phys. Rev. E 70, 056131 (2004); E. A. Leicht and M. E. J. Newman, Phys. Rev. Lett. 100, 118703 (2008);
    J. Reichardt and S. Bornholdt, Phys. Rev. E 74, 016110 (2006).
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    given = read_weight(edge_weight, edges)
    resolution = _checks.number("resolution", resolution, minimum=0)
    graphs = read_batch(batch, edges, nodes)
    soft = _read_communities(communities, edges, nodes)
    result = read_dtype(dtype) if given is None else given.dtype
    if not _checks.flag("directed", directed):
        require_symmetric(edges, given, nodes)
    weight = torch.ones(edges.shape[1], dtype=torch.float64, device=edges.device) if given is None else given.double()
    if not directed:
        loop = edges[0] == edges[1]
        weight = torch.where(loop, 2 * weight, weight) if bool(loop.any()) else weight
    total = graphs.sum(weight)
    if not bool((total > 0).all()):
        raise ValueError(f"edge_weight must have a positive total in every graph, got {float(total.min()):g}")
    terms = _soft if soft else _hard
    within, expected = terms(edge_index, edges, weight, communities, graphs, directed)
    value = within / total - resolution * expected / total.square()
    return graphs.squeeze(value).to(result)


def _read_communities(communities: Any, edges: Tensor, nodes: int) -> bool:
    """Whether they are soft."""
    expected = f"integer labels [{nodes}] or memberships [{nodes}, C]"
    if not isinstance(communities, Tensor) or communities.ndim not in (1, 2) or communities.shape[0] != nodes:
        raise ValueError(f"communities must be {expected}, got {described(communities)}")
    soft = communities.ndim == 2
    if communities.is_complex() or communities.is_floating_point() != soft or communities.numel() == 0:
        raise ValueError(f"communities must be {expected}, got {described(communities)}")
    require_device("communities", communities, edges)
    if soft:
        values = communities.detach()
        if not bool((values >= 0).all()):  # NaN included
            raise ValueError(f"communities must be memberships >= 0, got {float(values.min()):g}")
        sums = values.double().sum(1)
        worst = int((sums - 1).abs().argmax())
        if not bool((sums[worst] - 1).abs() <= _CLOSE):
            raise ValueError(f"communities must have rows that sum to 1, got {float(sums[worst]):g} in row {worst}")
    return soft


def _hard(_: Any, edges: Tensor, weight: Tensor, labels: Tensor, graphs: Graphs, directed: bool) -> tuple[Tensor, Tensor]:
    """Weight inside communities and Σ_c K_out K_in, […, G]."""
    label, of_community = _numbered(labels, graphs)
    count = of_community.numel()
    of_source, of_target = label.index_select(0, edges[0]), label.index_select(0, edges[1])
    within = graphs.sum(weight * (of_source == of_target))
    outgoing = _strengths(weight, edges[0], label, count)
    incoming = _strengths(weight, edges[1], label, count) if directed else outgoing
    products = outgoing * incoming
    if graphs.node is None:
        return within, products.sum(-1, keepdim=True)
    return within, products.new_zeros(within.shape).index_add(-1, of_community, products)


def _strengths(weight: Tensor, end: Tensor, label: Tensor, count: int) -> Tensor:
    """Strengths of communities, by way of the nodes: adding all edges to a few places, each addition would wait for the one before."""
    of_node = weight.new_zeros(*weight.shape[:-1], label.numel()).index_add(-1, end, weight)
    return weight.new_zeros(*weight.shape[:-1], count).index_add(-1, label, of_node)


def _numbered(labels: Tensor, graphs: Graphs) -> tuple[Tensor, Tensor]:
    """Communities numbered through all graphs, [N], and the graph of each."""
    label = labels.long()
    low, high = (int(bound) for bound in torch.aminmax(label))
    if low < 0 or high >= 2 * label.numel():  # any integers are labels: as many numbers as there are communities
        present, label = torch.unique(label, return_inverse=True)
        high = present.numel() - 1
    if graphs.node is None:
        return label, label.new_zeros(high + 1)
    present, label = torch.unique(graphs.node * (high + 1) + label, return_inverse=True)
    return label, present // (high + 1)


def _soft(edge_index: Any, edges: Tensor, weight: Tensor, memberships: Tensor, graphs: Graphs, directed: bool) -> tuple[Tensor, Tensor]:
    """The same for memberships [N, C]: the first through one sparse product, the second through the strengths of the nodes."""
    nodes = memberships.shape[0]
    bound = edge_index if isinstance(edge_index, Connectivity) else Connectivity(Data(edge_index=edges, num_nodes=nodes))
    sort = bound.permutation if not isinstance(edge_index, Connectivity) else None
    pattern = _kernels.Pattern.of(bound)
    share = memberships.double()
    results = []
    for values in torch.atleast_2d(weight):
        heard = _kernels.spmm(*pattern, values if sort is None else values[sort], share, False)
        within = graphs.sum((share * heard).sum(1), of="node")
        outgoing = _per_graph(values.new_zeros(nodes).index_add(0, edges[0], values), share, graphs)
        incoming = _per_graph(values.new_zeros(nodes).index_add(0, edges[1], values), share, graphs) if directed else outgoing
        results.append((within, (outgoing * incoming).sum(1)))
    shape = (*weight.shape[:-1], graphs.number)
    within, expected = (torch.stack(part).reshape(shape) for part in zip(*results))
    return within, expected


def _per_graph(strength: Tensor, share: Tensor, graphs: Graphs) -> Tensor:
    """Sᵀk of every graph, [G, C]."""
    if graphs.node is None:
        return (strength @ share)[None]
    return share.new_zeros(graphs.number, share.shape[1]).index_add(0, graphs.node, strength[:, None] * share)
