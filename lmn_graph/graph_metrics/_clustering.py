"""Clustering coefficients: unweighted, Onnela's weighted, Fagiolo's directed; and what shuffled weights would give."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from lmn_graph.graph_metrics._edges import Graph, Graphs, agreed, read_batch, read_dtype, read_weight
from lmn_graph.graph_metrics._triangles import Triangles
from topologies import _checks

_FLAT = 1e-4  # of the largest weight: below it the slope of the cube root is held, as it would be infinite at 0

Edges: TypeAlias = Graph | Triangles


def clustering(
    edge_index: Edges,
    edge_weight: Tensor | None = None,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""How far the neighbours of a node are neighbours of each other, per node.

    .. math:: c_i = \frac{(\hat W^3)_{ii}}{d_i (d_i - 1)}, \qquad
              c_i = \frac{\big((\hat W + \hat W^T)^3\big)_{ii}}{2 \left( d_i (d_i - 1) - 2 d_i^{\leftrightarrow} \right)}

    undirected (Onnela; all weights 1 without weights) and directed (Fagiolo), with Ŵ the entrywise real cube root of w / max w, negative
    for negative weights; the largest (not largest absolute) weight of the whole graph, self-loops included. d counts neighbours (in plus
    out, directed), d↔ those linked both ways; weights do not enter there, and an edge of weight zero is an edge. Self-loops are ignored
    otherwise; a node that can have no triangle has 0; disconnected parts and isolated nodes are valid. Equal to ``networkx.clustering``.

    Differentiable once in the weights, through the products and the scale max w: multiplying all weights changes nothing, so that
    Σ_e w_e ∂c_i/∂w_e = 0. Edges that share the largest weight share its derivative; degrees are constants of the pattern. The slope of
    the cube root, infinite at 0, is held below |w| = 10⁻⁴ max w; values stay exact. Cost: O(E^{3/2}) to find the triangles, O(M) for M
    of them afterwards, in bounded memory beside the list.

    Args:
        edge_index: [2, E], row 0 the source, without parallel edges; an undirected graph with both directions of every edge. Or
            the :class:`Triangles` made of it, where many weights follow.
        edge_weight: [E], or [B, E] for many weightings of one graph, or None.
        directed: Fagiolo's coefficient; otherwise edges and weights must be symmetric (up to rounding).
        num_nodes: N; the largest id + 1 if None.
        batch: [N], the graph of every node, for a PyG ``Batch``: the largest weight is then that of each graph.
        dtype: of the result where there are no weights; torch's default if None.

    Returns:
        [N], or [B, N] for weights [B, E], in the dtype of the weights.

    Raises:
        ValueError: for arguments of another shape, parallel edges, no positive weight, or, undirected, an edge without its opposite
            or with another weight.

    Source: J.-P. Onnela et al., Phys. Rev. E 71, 065103 (2005); G. Fagiolo, Phys. Rev. E 76, 026107 (2007); signed weights:
    G. Costantini and M. Perugini, PLoS ONE 9, e88669 (2014).
    """
    found, weight, graphs = _read(edge_index, edge_weight, directed, num_nodes, batch)
    if weight is None:
        result = read_dtype(dtype)
        return found.unweighted(directed).to(result, copy=True)
    return _observed(found, _roots(found, weight, graphs, directed), directed)


def average_clustering(
    edge_index: Edges,
    edge_weight: Tensor | None = None,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
    count_zeros: bool = True,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The mean over nodes of :func:`clustering`, as ``networkx.average_clustering``.

    Args:
        edge_index, edge_weight, directed, num_nodes, batch, dtype: as there.
        count_zeros: False averages over nodes with c ≠ 0 only, and gives 0 where there is none.

    Returns:
        A scalar; [G] with ``batch``; with a leading B for weights [B, E].
    """
    found = _triangles(edge_index, num_nodes)
    values = clustering(found, edge_weight, directed=directed, batch=batch, dtype=dtype)
    graphs = read_batch(batch, found.edge_index, found.num_nodes)
    counted = torch.ones_like(values) if _checks.flag("count_zeros", count_zeros) else (values != 0).to(values.dtype)
    mean = graphs.sum(values, of="node") / graphs.sum(counted, of="node").clamp(min=1)
    return graphs.squeeze(mean)


def transitivity(
    edge_index: Edges, *, num_nodes: int | None = None, batch: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Three times the triangles over the connected triples, Σ d(d−1)/2: a scalar, or [G] with ``batch``; 0 where there is no triple.

    As ``networkx.transitivity`` of an undirected graph: self-loops and weights are ignored. Arguments and errors as in :func:`clustering`.
    """
    found, _, graphs = _read(edge_index, None, False, num_nodes, batch)
    closed = graphs.sum(2 * found.per_node(), of="node").double()
    triples = graphs.sum(found.neighbours * (found.neighbours - 1), of="node").double()
    return graphs.squeeze(closed / triples.clamp(min=1)).to(read_dtype(dtype))


def triangles(edge_index: Edges, *, num_nodes: int | None = None) -> Tensor:
    """int64 [N]: the number of triangles at each node of an undirected graph, as ``networkx.triangles``; self-loops are ignored."""
    return _read(edge_index, None, False, num_nodes, None)[0].per_node()


def shuffled_clustering(
    edge_index: Edges,
    edge_weight: Tensor,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
) -> Tensor:
    r"""The mean of :func:`clustering` over all permutations of the weights over the edges, exactly.

    .. math:: E[c_i] = c_i^{unweighted} \cdot \frac{p_1^3 - 3 p_1 p_2 + 2 p_3}{M (M - 1)(M - 2)}, \qquad p_k = \sum_e \hat w_e^{k/3}

    over the M edges without self-loops (undirected: pairs): the sides of a triangle are three different edges, so each product has the
    same expectation, that over ordered triples without repetition. What a weight-shuffle null converges to, at the cost of one sum.
    Differentiable as :func:`clustering`; arguments, result and errors are those of it (with ``batch``, weights stay in their graph).
    """
    found, weight, graphs = _read_weighted(edge_index, edge_weight, directed, num_nodes, batch)
    return _expected(found, _roots(found, weight, graphs, directed), graphs, directed)


def excess_clustering(
    edge_index: Edges,
    edge_weight: Tensor,
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    batch: Tensor | None = None,
) -> Tensor:
    """:func:`clustering` − :func:`shuffled_clustering`, per node: what the places of the weights add to what their values would give.

    Both share their checks and the roots of the weights, which makes this cheaper than the two of them. Arguments, gradient, result and
    errors are those of :func:`shuffled_clustering`.
    """
    found, weight, graphs = _read_weighted(edge_index, edge_weight, directed, num_nodes, batch)
    root = _roots(found, weight, graphs, directed)
    return _observed(found, root, directed) - _expected(found, root, graphs, directed)


def _read_weighted(edge_index: Any, edge_weight: Any, directed: Any, num_nodes: Any, batch: Any) -> tuple[Triangles, Tensor, Graphs]:
    found, weight, graphs = _read(edge_index, edge_weight, directed, num_nodes, batch)
    if weight is None:
        raise ValueError("edge_weight must be a tensor [E] or [B, E], got None")
    return found, weight, graphs


def _read(edge_index: Any, edge_weight: Any, directed: Any, num_nodes: Any, batch: Any) -> tuple[Triangles, Tensor | None, Graphs]:
    directed = _checks.flag("directed", directed)
    found = _triangles(edge_index, num_nodes)
    weight = read_weight(edge_weight, found.edge_index)
    graphs = read_batch(batch, found.edge_index, found.num_nodes)
    if not directed:
        found.require_symmetric(weight)
    return found, weight, graphs


def _triangles(edge_index: Any, num_nodes: Any) -> Triangles:
    if not isinstance(edge_index, Triangles):
        return Triangles(edge_index, num_nodes)
    agreed(num_nodes, edge_index.num_nodes, "triangles")
    return edge_index


def _roots(found: Triangles, weight: Tensor, graphs: Graphs, directed: bool) -> Tensor:
    """The cube roots ŵ, […, E] of the edges if directed, […, P] of the pairs otherwise."""
    scaled = _scaled(found, weight, graphs)
    return _CubeRoot.apply(scaled if directed else found.per_pair(scaled) / 2)


def _observed(found: Triangles, root: Tensor, directed: bool) -> Tensor:
    return 2 * found.sum(found.per_pair(root) if directed else root) / found.wedges(directed).to(root.dtype)


def _expected(found: Triangles, root: Tensor, graphs: Graphs, directed: bool) -> Tensor:
    """Over all permutations of the weights."""
    of_graph = None
    if directed:
        of_graph = graphs.edge
        if found.joining is not None:
            root = root.index_select(-1, found.joining)
            of_graph = None if of_graph is None else of_graph.index_select(0, found.joining)
    elif graphs.node is not None:
        of_graph = graphs.node.index_select(0, found.low)
    groups = Graphs(graphs.number, of_graph, of_graph)
    count = groups.sum(torch.ones_like(root))
    p1, p2, p3 = (groups.sum(power) for power in (root, root**2, root**3))
    triple = (p1**3 - 3 * p1 * p2 + 2 * p3) / (count * (count - 1) * (count - 2)).clamp(min=1)
    return found.unweighted(directed).to(root.dtype) * (triple if graphs.node is None else triple[..., graphs.node])


def _scaled(found: Triangles, weight: Tensor, graphs: Graphs) -> Tensor:
    """The weights over the largest of their graph; of several largest ones each has its share of the gradient."""
    if found.num_edges == 0:
        return weight
    if graphs.edge is None:
        largest = weight.amax(-1, keepdim=True)
    else:
        index = graphs.edge.expand_as(weight)
        largest = weight.new_full((*weight.shape[:-1], graphs.number), -torch.inf).scatter_reduce(-1, index, weight, "amax")
    used = largest.detach()[largest > -torch.inf]  # a graph without edges has no scale, and needs none
    if not bool((used > 0).all()):
        raise ValueError(f"edge_weight must have a positive maximum in every graph, got {float(used.min()):g}")
    return weight / (largest if graphs.edge is None else largest[..., graphs.edge])


class _CubeRoot(torch.autograd.Function):
    """The real cube root, with a slope that is held below ``_FLAT``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.abs().pow_(1 / 3).copysign_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.abs().clamp(min=_FLAT).pow(-2 / 3) / 3
