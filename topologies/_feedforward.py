"""Graphs without a cycle, with an input and an output side: trees and rasters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import LIMIT, assemble, refuse_too_large


def tree(depth: int, branching: int = 2) -> Data:
    r"""The full tree whose edges lead from every child to its parent, and so from the leaves to the root.

    .. math:: \mathcal{N}(i) = \{\, b\,i + 1, \dots, b\,i + b \,\}, \qquad N = \sum_{k=0}^{depth} b^k

    The root is node 0 and nodes are numbered level by level, as in ``networkx.balanced_tree(branching, depth)``.

    Args:
        depth: levels below the root (≥ 1).
        branching: b, children per node (≥ 1; with 1 the tree is a chain).

    Returns:
        Data with ``edge_index`` [2, N − 1]; ``edge_type`` [N − 1], which child of its target the source is, 0 … b − 1; ``input_index``
        [b^depth], the leaves in order; ``output_index`` [1], the root; ``pos`` [N, 2]: x, a unit from leaf to leaf and parents in the
        middle of their children, and height over the leaves; ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes.

    Example:
        >>> data = tree(2)
        >>> data.edge_index.tolist(), data.input_index.tolist(), data.output_index.tolist()
        ([[1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2]], [3, 4, 5, 6], [0])
    """
    depth = _checks.integer("depth", depth, minimum=1, maximum=LIMIT)
    branching = _checks.integer("branching", branching, minimum=1, maximum=LIMIT)
    leaves = branching ** min(depth, 31)  # 2**31 is too large already: nobody waits for the digits of 2**depth
    num_nodes = depth + 1 if branching == 1 else (leaves * branching - 1) // (branching - 1)
    if num_nodes > LIMIT:
        raise ValueError(f"depth={depth}, branching={branching} must give at most {LIMIT:,} nodes, got more: choose smaller ones")
    child = torch.arange(num_nodes - 1)
    return assemble(
        torch.stack([child + 1, child // branching]),
        num_nodes,
        "tree",
        {"edge_type": child % branching},
        pos=_tree_positions(depth, branching, num_nodes),
        input_index=torch.arange(num_nodes - leaves, num_nodes),
        output_index=torch.zeros(1, dtype=torch.long),
    )


def _tree_positions(depth: int, branching: int, num_nodes: int) -> Tensor:
    if branching == 1:
        return torch.stack([torch.zeros(num_nodes), torch.arange(depth, -1, -1, dtype=torch.get_default_dtype())], dim=1)
    pos = torch.empty(num_nodes, 2)
    first = 0
    for level in range(depth + 1):
        count, spread = branching**level, branching ** (depth - level)
        place = torch.arange(count, dtype=torch.float64) * spread + (spread - 1) / 2
        pos[first : first + count, 0] = place.to(pos.dtype)
        pos[first : first + count, 1] = depth - level
        first += count
    return pos


def raster(rows: int, cols: int, *, output_rows: int = 1) -> Data:
    r"""The feed-forward rectangle: every cell hears the cell to its left and the cell above it.

    .. math:: \mathcal{N}(i, j) = \{\, (i, j - 1),\; (i - 1, j) \,\} \cap \{0 \dots rows - 1\} \times \{0 \dots cols - 1\}

    What enters at the left shore leaves at the bottom shore: cells of the first row hear nothing from above, and what the last column
    would pass on to the right is dropped.

    Args:
        rows: cells from top to bottom (≥ 1).
        cols: cells from left to right (≥ 1).
        output_rows: rows of output ports at the bottom (1 … rows).

    Returns:
        Data with N = rows·cols nodes in C order; ``edge_index`` [2, E]; ``edge_type`` [E], 0 for the left neighbour and 1 for the upper
        one; ``edge_attr`` [E, 2], the displacement source − target: (0, −1) and (−1, 0); ``pos`` [N, 2], (row, column); ``shape``
        (rows, cols); ``input_index`` [rows], the first column from top to bottom; ``output_index`` [output_rows·cols], the last rows in C
        order (their first cells are ports of both); ``name``.

    Raises:
        ValueError: a bad argument, or more than 2³¹ − 1 nodes or edges.

    Example:
        >>> data = raster(2, 3)
        >>> data.edge_index.tolist(), data.edge_type.tolist()
        ([[0, 1, 0, 1, 3, 2, 4], [1, 2, 3, 4, 4, 5, 5]], [0, 0, 1, 1, 0, 1, 0])
    """
    rows = _checks.integer("rows", rows, minimum=1, maximum=LIMIT)
    cols = _checks.integer("cols", cols, minimum=1, maximum=LIMIT)
    output_rows = _checks.integer("output_rows", output_rows, minimum=1, maximum=rows)
    refuse_too_large(f"rows={rows}, cols={cols}", nodes=rows * cols, edges=2 * rows * cols - rows - cols)
    cell = torch.arange(rows * cols).view(rows, cols)
    left, top = cell[:, 1:].flatten(), cell[1:].flatten()  # the cells that have such a neighbour
    edge_type = torch.cat([torch.zeros_like(left), torch.ones_like(top)])
    steps = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])
    return assemble(
        torch.stack([torch.cat([left - 1, top - cols]), torch.cat([left, top])]),
        rows * cols,
        "raster",
        {"edge_type": edge_type, "edge_attr": steps[edge_type]},
        pos=torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).to(steps.dtype),
        shape=(rows, cols),
        input_index=cell[:, 0].clone(),
        output_index=cell[-output_rows:].flatten().clone(),
    )
