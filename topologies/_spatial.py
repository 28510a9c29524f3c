"""Random points in the unit cube, joined by nearness."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._draw import unordered_pair, unordered_slots
from topologies._graph import LIMIT, Seed, assemble, both_directions, generator_of, refuse_too_large
from topologies._lattice import Boundary


def geometric(n: int, radius: float, dim: int = 2, *, boundary: Boundary = "open", seed: Seed = 0) -> Data:
    r"""The random geometric graph: uniform points in the unit cube, joined where they are within ``radius`` of each other.

    .. math:: \mathcal{N}(i) = \{\, j \neq i : \lVert x_j - x_i \rVert \le radius \,\}, \qquad x \sim U[0, 1)^{dim}

    with the Euclidean distance, on a periodic cube (a torus) that of the nearest image.

    Args:
        n: number of nodes (≥ 1).
        radius: > 0, in units of the cube's side.
        dim: dimensions of the cube, 1 to 64.
        boundary: "open" or "periodic".
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with ``edge_index`` [2, E], both directions, sorted by target, then source; ``pos`` [n, dim]; ``edge_attr`` [E, dim], the
        displacement from the target to the source, wrapped to [−½, ½] on a periodic cube; ``name``. Floats have torch's default dtype.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> torus = geometric(200, 0.1, boundary="periodic")
        >>> bool((torus.edge_attr.norm(dim=1) < 0.1001).all())
        True

    Source: Penrose, Random Geometric Graphs, Oxford 2003.
    """
    n = _checks.integer("n", n, minimum=1)
    radius = _checks.number("radius", radius, above=0)
    dim = _checks.integer("dim", dim, minimum=1, maximum=64)
    periodic = _checks.choice("boundary", boundary, get_args(Boundary)) == "periodic"
    generator = generator_of(seed)
    refuse_too_large(f"n={n}", nodes=n)
    from scipy.spatial import cKDTree

    pos = torch.rand(n, dim, dtype=torch.float64, generator=generator)  # the same graph whatever torch's default dtype is
    radius = min(radius, 2.0 * dim)  # beyond every distance
    tree = cKDTree(pos.numpy(), boxsize=1.0 if periodic else None)
    if n * (n - 1) > LIMIT:
        refuse_too_large(f"n={n}, radius={radius}", edges=int(tree.count_neighbors(tree, radius)) - n)
    pairs = torch.from_numpy(tree.query_pairs(radius, output_type="ndarray")).long().view(-1, 2).T
    return _with_displacements(pairs, pos, "geometric", periodic)


def delaunay(n: int, dim: int = 2, *, seed: Seed = 0) -> Data:
    r"""The Delaunay triangulation of uniform points in the unit cube: who shares a face of the Voronoi cells with whom.

    .. math:: \{i, j\} \in E \iff \text{some ball has } x_i, x_j \text{ on its surface and no point inside}

    Undirected, simple, connected; planar for dim = 2. Up to dim + 1 points are joined all to all; on a line each to the next. Work grows
    with n^⌈dim/2⌉.

    Args:
        n: number of nodes (≥ 1).
        dim: dimensions of the cube, 1 to 9.
        seed: an integer, or a ``torch.Generator`` that moves on.

    Returns:
        Data with ``edge_index`` [2, E], both directions, sorted by target, then source; ``pos`` [n, dim]; ``edge_attr`` [E, dim], the
        displacement from the target to the source; ``name``. Floats have torch's default dtype.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes.

    Example:
        >>> delaunay(100).num_edges <= 2 * (3 * 100 - 6)  # planar
        True

    Source: Delaunay, Sur la sphère vide, 1934; Barber, Dobkin and Huhdanpaa, The Quickhull algorithm, ACM TOMS 22, 1996.
    """
    n = _checks.integer("n", n, minimum=1)
    dim = _checks.integer("dim", dim, minimum=1, maximum=9)
    generator = generator_of(seed)
    refuse_too_large(f"n={n}", nodes=n)
    pos = torch.rand(n, dim, dtype=torch.float64, generator=generator)  # the same graph whatever torch's default dtype is
    if n <= dim + 1:
        pairs = unordered_pair(torch.arange(unordered_slots(n, loops=False)), n, loops=False)
    elif dim == 1:
        order = pos[:, 0].argsort(stable=True)
        pairs = torch.stack([order[:-1], order[1:]])
    else:
        pairs = _triangulated(pos)
    return _with_displacements(pairs, pos, "delaunay", periodic=False)


def _triangulated(pos: Tensor) -> Tensor:
    """The sides [2, M] of the simplices, each once."""
    from scipy.spatial import Delaunay

    found = Delaunay(pos.numpy())
    corners = torch.from_numpy(found.simplices).long()
    sides = corners[:, torch.combinations(torch.arange(corners.size(1)))].view(-1, 2)
    left_out = torch.from_numpy(found.coplanar).long()[:, [0, 2]]  # points that rounding puts onto another: joined to their nearest
    low, high = torch.cat([sides, left_out]).aminmax(dim=1)
    key = (low * len(pos) + high).unique()
    return torch.stack([key // len(pos), key % len(pos)])


def _with_displacements(pairs: Tensor, pos: Tensor, name: str, periodic: bool) -> Data:
    source, target = edge_index = both_directions(pairs)
    pos = pos.to(torch.get_default_dtype())
    displacement = pos[source] - pos[target]
    if periodic:
        displacement -= displacement.round()
    return assemble(edge_index, len(pos), name, {"edge_attr": displacement}, pos=pos)
