"""Graphs of different kinds side by side in one PyG ``Batch``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from topologies._matrix import edges_of


def batch(graphs: Sequence[Data]) -> Batch:
    """``Batch.from_data_list`` for graphs that need not be alike, such as a lattice of two dimensions beside one of three.

    PyG puts together only what every graph has in one shape. Here what does not fit (``pos`` of two and of three columns, a number beside
    a word, a field that some lack) is left out, except weights: where some graphs have ``edge_weight`` the edges of the others get 1. A
    ``DataLoader`` leaves out what its ``exclude_keys`` names.

    Args:
        graphs: at least one graph with ``edge_index``.

    Returns:
        Batch, in the order of ``graphs``.

    Raises:
        ValueError: if there is no graph, or one is not valid.

    Example:
        >>> batch([grid(4, 2), grid(3, 3)]).num_nodes
        43
    """
    if isinstance(graphs, Data) or not isinstance(graphs, Sequence) or not graphs:
        raise ValueError(f"graphs must be a list of at least one Data, got {graphs!r}")
    numbers = [edges_of(graph)[2] for graph in graphs]
    for i, graph in enumerate(graphs):
        if graph.get("edge_index") is None:
            raise ValueError(f"graphs[{i}] must have edge_index, got {graph}")
    found = [copy.copy(graph) for graph in graphs]
    weights = [graph["edge_weight"].dtype for graph in graphs if graph.get("edge_weight") is not None]
    for graph, count in zip(found, numbers):
        graph.num_nodes = count
        if weights and graph.get("edge_weight") is None:
            graph.edge_weight = torch.ones(graph.edge_index.size(1), dtype=weights[0], device=graph.edge_index.device)
    kept = {key for key in found[0].keys() if all(_fits(found[0], key, found[0][key], graph.get(key)) for graph in found)}  # noqa: SIM118 - a method
    left = {key for graph in found for key in graph.keys()} - kept  # noqa: SIM118
    return Batch.from_data_list(found, exclude_keys=sorted(left))


def _fits(graph: Data, key: str, first: Any, value: Any) -> bool:
    """Whether PyG can put the two together: tensors along the dimension that it chooses for the key, one number beside another."""
    if isinstance(first, Tensor) and isinstance(value, Tensor):
        if first.layout != value.layout or first.dim() != value.dim():
            return False
        joined = graph.__cat_dim__(key, first)  # None: in a new dimension; two: on the diagonal of a sparse matrix
        along = {dim % first.dim() for dim in (joined if isinstance(joined, tuple) else (joined,)) if dim is not None and first.dim()}
        return all(dim in along or first.size(dim) == value.size(dim) for dim in range(first.dim()))
    if isinstance(first, (int, float)) and isinstance(value, (int, float)):
        return True
    if type(first) is not type(value) or value is None:
        return False
    if isinstance(first, Mapping):
        return first.keys() == value.keys() and all(_fits(graph, name, first[name], value[name]) for name in first)
    if isinstance(first, (list, tuple)) and any(isinstance(part, Tensor) for part in (*first, *value)):
        return len(first) == len(value) and all(_fits(graph, key, *pair) for pair in zip(first, value))
    return True
