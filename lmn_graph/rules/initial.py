"""How edge weights are drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lmn_graph.connectivity import Connectivity

_DENSE = 32  # nodes of a complete graph from which a dense matrix without its diagonal is nearly orthogonal


def fan_in(connectivity: Connectivity) -> Tensor:
    """w_ij normal with variance 1/K_i, K_i the in-degree: a sum of K_i independent terms of unit variance has unit variance. [E]."""
    degree = connectivity.in_degree().clamp(min=1).to(torch.get_default_dtype())
    per_edge = degree[connectivity.edge_index[1]]
    return torch.randn_like(per_edge) / per_edge.sqrt()


def orthogonal(connectivity: Connectivity) -> Tensor:
    r"""Weights whose matrix W keeps lengths, :math:`W W^\top = 1`, as far as the graph lets it. [E].

    Where nearly all pairs of 32 or more nodes are connected, W is a random orthogonal matrix (Haar measure) of which only the entries
    without an edge are left out, which changes lengths by about one part in N. On any other graph it is a random signed matching: every
    node hears one neighbour with weight ±1, no neighbour is heard twice, and the other weights start at 0. On a lattice, and wherever the
    graph has a perfect matching, W is a signed permutation, exactly orthogonal; elsewhere nodes that the matching leaves out start unheard
    or deaf, and W is a partial isometry.

    Source: A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", 2014, for orthogonal initialisation; T. A. Keller et al., "Traveling waves encode the recent past", 2024, for shifts.
    """
    n, e = connectivity.num_nodes, connectivity.num_edges
    source, target = connectivity.edge_index.cpu()
    if n >= _DENSE and e >= 0.9 * n * (n - 1):
        matrix = torch.empty(n, n)
        torch.nn.init.orthogonal_(matrix)
        return matrix[target, source].to(connectivity.edge_index.device, torch.get_default_dtype())
    return _matching(source, target, n).to(connectivity.edge_index.device, torch.get_default_dtype())


def _matching(source: Tensor, target: Tensor, n: int) -> Tensor:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    e = source.numel()
    order = torch.randperm(n)  # the matching found depends on the order of the nodes: a random one has no direction
    rows, columns = order[target], order[source]
    matrix = csr_array((torch.ones(e, dtype=torch.int8).numpy(), (rows.numpy(), columns.numpy())), shape=(n, n))
    heard = torch.from_numpy(maximum_bipartite_matching(matrix, perm_type="column")).long()
    chosen = heard[rows] == columns
    key = target[chosen]  # of parallel edges one
    first = torch.full((n,), e, dtype=torch.long).scatter_reduce(0, key, chosen.nonzero().flatten(), "amin")
    weight = torch.zeros(e)
    edges = first[first < e]
    weight[edges] = (torch.randint(2, (edges.numel(),)) * 2 - 1).float()
    return weight


INITS: dict[str, Callable[[Connectivity], Tensor]] = {"fan_in": fan_in, "orthogonal": orthogonal}


def draw(init: str, connectivity: Connectivity, gain: float) -> Tensor:
    """Weights [E] drawn by a named initialisation, times a gain."""
    return gain * INITS[init](connectivity)
