"""Degrees and what follows from them: assortativity, density, reciprocity, components, the rich club."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lmn_graph.graph_metrics._edges import Graph, read_batch, read_dtype, read_edges, read_weight, require_symmetric
from topologies import _checks

Direction = Literal["total", "in", "out"]


def degree(edge_index: Graph, *, directed: bool = False, direction: Direction = "total", num_nodes: int | None = None) -> Tensor:
    """int64 [N]: the number of edges at each node, as ``networkx`` counts: a self-loop twice, parallel edges each.

    Args:
        edge_index: [2, E], row 0 the source; an undirected graph with both directions of every edge and each self-loop once.
        directed: "total" is then in plus out; otherwise every ``direction`` is the same number.
        direction: "total", "in" or "out", of a directed graph.
        num_nodes: N; the largest id + 1 if None.

    Raises:
        ValueError: for arguments of another shape or, undirected, an edge without its opposite.
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    return _strength(edges, None, nodes, directed, direction).long()


def strength(
    edge_index: Graph,
    edge_weight: Tensor | None = None,
    *,
    directed: bool = False,
    direction: Direction = "total",
    num_nodes: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """[N], or [B, N] for weights [B, E]: the sum of the weights at each node; :func:`degree` with weights, and its arguments.

    Differentiable. Without weights the degree, in ``dtype`` or torch's default.
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    weight = read_weight(edge_weight, edges)
    result = read_dtype(dtype) if weight is None else weight.dtype
    return _strength(edges, weight, nodes, directed, direction).to(result)


def _strength(edges: Tensor, weight: Tensor | None, nodes: int, directed: Any, direction: Any) -> Tensor:
    _checks.choice("direction", direction, get_args(Direction))
    if not _checks.flag("directed", directed):
        require_symmetric(edges, weight, nodes)
    values = torch.ones(edges.shape[1], dtype=torch.float64, device=edges.device) if weight is None else weight
    total = values.new_zeros(*values.shape[:-1], nodes)
    if not directed:
        loop = edges[0] == edges[1]
        return total.index_add(-1, edges[0], torch.where(loop, 2 * values, values))
    if direction != "in":
        total = total.index_add(-1, edges[0], values)
    return total if direction == "out" else total.index_add(-1, edges[1], values)


def degree_assortativity(
    edge_index: Graph,
    edge_weight: Tensor | None = None,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Pearson's correlation of the degrees of the two ends of an edge, over the edge list; directed, of out- and in-degree.

    As ``networkx.degree_assortativity_coefficient``: weights enter the degrees, every edge counts once, a self-loop (twice in the
    degree) once. NaN where the degrees at one end do not vary, as in a regular graph. Differentiable in the weights.

    Args:
        edge_index, directed, num_nodes, dtype: as in :func:`strength`.
        edge_weight: [E], or [B, E].

    Returns:
        A scalar, or [B].

    Source: M. E. J. Newman, Phys. Rev. E 67, 026126 (2003).
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    weight = read_weight(edge_weight, edges)
    result = read_dtype(dtype) if weight is None else weight.dtype
    values = None if weight is None else weight.double()
    ends = [
        _strength(edges, values, nodes, directed, direction).index_select(-1, end)
        for direction, end in (("out", edges[0]), ("in", edges[1]))
    ]
    (x, constant_x), (y, constant_y) = (_deviation(end) for end in ends)
    constant = constant_x | constant_y
    variance = (x.square().sum(-1) * y.square().sum(-1)).masked_fill(constant, 1)
    return ((x * y).sum(-1) / variance.sqrt()).masked_fill(constant, torch.nan).to(result)


def _deviation(end: Tensor) -> tuple[Tensor, Tensor]:
    """The deviation from the mean over the last dimension, and whether it is one of rounding alone."""
    if end.shape[-1] == 0:
        return end, torch.ones(end.shape[:-1], dtype=torch.bool, device=end.device)
    deviation = end - end.mean(-1, keepdim=True)
    rounding = 16 * torch.finfo(end.dtype).eps * end.detach().abs().amax(-1)
    return deviation, deviation.detach().abs().amax(-1) <= rounding


def reciprocity(edge_index: Graph, *, num_nodes: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """The fraction of the edges of a directed graph whose opposite exists too, self-loops counted among the edges only.

    As ``networkx.reciprocity``; parallel edges count once.

    Raises:
        ValueError: if there is no edge.
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    if edges.shape[1] == 0:
        raise ValueError("edge_index must hold at least one edge, got none")
    key = torch.unique(edges[0] * nodes + edges[1])
    source, target = key // nodes, key % nodes
    returned = torch.isin(target * nodes + source, key, assume_unique=True) & (source != target)
    return (returned.sum().double() / key.numel()).to(read_dtype(dtype))


def density(
    edge_index: Graph,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Edges over possible edges, N(N−1) directed ones or half as many pairs; 0 for one node. Self-loops count as edges.

    As ``networkx.density``; a scalar, or [G] with ``batch``. Arguments and errors as in :func:`degree`.
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    graphs = read_batch(batch, edges, nodes)
    if not _checks.flag("directed", directed):
        require_symmetric(edges, None, nodes)
    ones = torch.ones(edges.shape[1], dtype=torch.float64, device=edges.device)
    size = graphs.sum(torch.ones(nodes, dtype=torch.float64, device=edges.device), of="node")
    count = graphs.sum(ones if directed else torch.where(edges[0] == edges[1], 2 * ones, ones))
    value = torch.where(size > 1, count / (size * (size - 1)).clamp(min=1), 0)
    return graphs.squeeze(value).to(read_dtype(dtype))


def connected_components(edge_index: Graph, *, connection: Literal["weak", "strong"] = "weak", num_nodes: int | None = None) -> Tensor:
    """int64 [N]: the number of the component of every node, counted from 0.

    Args:
        edge_index: [2, E].
        connection: "weak" ignores directions; "strong" asks for a path each way.
        num_nodes: N; the largest id + 1 if None.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components as label

    edges, nodes = read_edges(edge_index, num_nodes)
    _checks.choice("connection", connection, ("weak", "strong"))
    ones = torch.ones(edges.shape[1]).numpy()
    matrix = csr_array((ones, tuple(edges.cpu().numpy())), shape=(nodes, nodes))
    _, labels = label(matrix, directed=True, connection=connection)
    return torch.from_numpy(labels).long().to(edges.device)


def rich_club(
    edge_index: Graph,
    *,
    references: Sequence[Graph] | None = None,
    num_nodes: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""How densely the nodes of high degree are linked among themselves.

    .. math:: \phi(k) = \frac{2 E_{>k}}{N_{>k} (N_{>k} - 1)}, \qquad k = 0, 1, \dots

    as long as two nodes have a degree above k: ``networkx.rich_club_coefficient(normalized=False)``, entry k of a tensor.

    Args:
        edge_index: [2, E], an undirected graph, both directions of every edge; weights and disconnected parts do not matter.
        references: graphs of the same degrees (see ``topologies.nulls.DegreePreservingRewire``); φ is then divided by its mean over
            them (NaN or infinite where that is 0).
        num_nodes: N; the largest id + 1 if None.
        dtype: of the result; torch's default if None.

    Returns:
        [K]; empty for a graph without edges.

    Raises:
        ValueError: for self-loops, an edge without its opposite, or references of other degrees.

    Source: J. J. McAuley, L. da Fontoura Costa and T. S. Caetano, Appl. Phys. Lett. 91, 084103 (2007).
    """
    edges, nodes = read_edges(edge_index, num_nodes)
    value, degrees = _rich_club(edges, nodes)
    if references is not None:
        others = []
        for reference in references:
            phi, found = _rich_club(read_edges(reference, nodes)[0].to(edges.device), nodes)
            if not torch.equal(found.sort().values, degrees.sort().values):
                raise ValueError("references must have the degrees of the graph, got a graph with others")
            others.append(phi)
        if not others:
            raise ValueError("references must hold at least one graph, got none")
        value = value / torch.stack(others).mean(0)
    return value.to(read_dtype(dtype))


def _rich_club(edges: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """φ(k), float64 [K], and the degrees."""
    loop = edges[0] == edges[1]
    if bool(loop.any()):
        raise ValueError(f"edge_index must not hold self-loops, got one at node {int(edges[0][loop][0])}")
    require_symmetric(edges, None, nodes)
    degrees = torch.bincount(edges[0], minlength=nodes)
    if edges.shape[1] == 0:
        return torch.zeros(0, dtype=torch.float64, device=edges.device), degrees
    rich = nodes - torch.bincount(degrees).cumsum(0)  # nodes with a degree above k
    lower = torch.minimum(degrees[edges[0]], degrees[edges[1]])
    links = edges.shape[1] - torch.bincount(lower, minlength=rich.numel()).cumsum(0)  # both directions
    kept = rich > 1
    return links[kept].double() / (rich * (rich - 1))[kept], degrees
