"""Rings and all-to-all graphs."""

from __future__ import annotations

import torch
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import LIMIT, assemble, refuse_too_large
from topologies._lattice import Boundary, grid


def ring(n: int, radius: int = 1, *, boundary: Boundary = "periodic") -> Data:
    r"""The 1-D lattice in which every cell hears the ``radius`` cells on either side of it.

    .. math:: \mathcal{N}(i) = \{\, i + o \bmod n : 1 \le |o| \le radius \,\}

    A line where the boundary is open. It is ``grid(n, 1, radius)`` under a name of its own, with the same fields and the same rule for
    n ≤ 2·radius, where offsets wrap onto one source.

    Args:
        n: number of cells (≥ 1).
        radius: neighbours on either side (≥ 1).
        boundary: "periodic" or "open".

    Returns:
        Data with ``edge_index`` [2, E], ``edge_attr`` [E, 1] (the displacement o), ``edge_type`` [E] (the rank of o), ``pos`` [n, 1],
        ``shape`` (n,) and ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> ring(5).edge_index[0].view(5, 2).tolist()  # whom each of the five hears
        [[1, 4], [0, 2], [1, 3], [2, 4], [0, 3]]
    """
    n = _checks.integer("n", n, minimum=1, maximum=LIMIT)
    radius = _checks.integer("radius", radius, minimum=1)
    _checks.choice("boundary", boundary, ("periodic", "open"))
    reach = min(radius, n - 1)
    edges = n * min(2 * reach, n - 1) if boundary == "periodic" else reach * (2 * n - reach - 1)
    refuse_too_large(f"n={n}, radius={radius}", nodes=n, edges=edges)
    data = grid(n, 1, radius, boundary=boundary)
    data.name = "ring"
    return data


def complete(n: int, *, self_loops: bool = False) -> Data:
    r"""The graph in which every node hears every other: a dense n × n weight matrix, written as edges.

    .. math:: \mathcal{N}(i) = \{\, j : j \ne i \,\}

    Args:
        n: number of nodes (≥ 1).
        self_loops: every node hears itself as well.

    Returns:
        Data with ``edge_index`` [2, n(n − 1)], or [2, n²] with self-loops, and ``name``. Row i of the weight matrix is the edges
        n·i … n·i + n − 1 where there are self-loops.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 edges.

    Example:
        >>> complete(3).edge_index.tolist()
        [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    """
    n = _checks.integer("n", n, minimum=1, maximum=LIMIT)
    heard = n if _checks.flag("self_loops", self_loops) else n - 1
    refuse_too_large(f"n={n}", edges=n * heard)
    target, source = torch.arange(n)[:, None], torch.arange(heard)
    edge_index = torch.empty(2, n * heard, dtype=torch.long)
    sources, targets = edge_index.view(2, n, heard)  # written where they stay: nothing is sorted
    targets.copy_(target)
    if self_loops:
        sources.copy_(source)
    else:
        torch.add(source, source >= target, out=sources)  # from the node itself on, the next one
    return assemble(edge_index, n, "complete")
