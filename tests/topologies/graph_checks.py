"""What every topology promises: a valid, sorted, simple graph that a batch takes apart as it was put together."""

from __future__ import annotations

import doctest
import inspect
import math

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import coalesce, is_undirected

import topologies
from lmn_graph import Connectivity

PER_EDGE = ("edge_weight", "edge_attr", "edge_type")
PER_NODE = ("pos", "cell_factors", "column")


def check(data: Data, name: str, *, self_loops: bool = False, undirected: bool = True, acyclic: bool = False) -> None:
    """Fields, dtypes, order, no parallel edges, and the kind of graph."""
    assert data.validate(raise_on_error=True)
    assert data.name == name
    assert data.edge_index.dtype == torch.long
    assert data.edge_index.is_contiguous()
    assert torch.equal(data.edge_index, coalesce(data.edge_index, num_nodes=data.num_nodes, sort_by_row=False))
    assert data.has_self_loops() == self_loops
    assert is_undirected(data.edge_index, num_nodes=data.num_nodes) == (undirected or not data.num_edges)
    assert Connectivity(data).is_acyclic() == (acyclic or not data.num_edges)
    assert all(len(data[key]) == data.num_edges for key in PER_EDGE if key in data)
    assert all(len(data[key]) == data.num_nodes for key in PER_NODE if key in data)
    for key, value in data.to_dict().items():
        if isinstance(value, Tensor):
            assert value.dtype in (torch.long, torch.get_default_dtype()), key
    if "shape" in data:
        assert type(data.shape) is tuple
        assert all(type(side) is int for side in data.shape)
        assert math.prod(data.shape) == data.num_nodes


def check_batch(first: Data, second: Data) -> None:
    """Edges and ports are shifted by the nodes before them, all else is joined, and each graph comes back as it was."""
    batch = Batch.from_data_list([first, second])
    assert batch.num_nodes == first.num_nodes + second.num_nodes
    for key, value in first.to_dict().items():
        if isinstance(value, Tensor):
            shift = first.num_nodes if key in ("edge_index", "input_index", "output_index") else 0
            dim = 1 if key == "edge_index" else 0
            assert torch.equal(batch[key], torch.cat([value, second[key] + shift], dim=dim)), key
    for one, back in zip((first, second), batch.to_data_list()):
        assert sorted(back.keys()) == sorted(one.keys())
        for key, value in one.to_dict().items():
            assert torch.equal(back[key], value) if isinstance(value, Tensor) else back[key] == value, key


def check_registered(*names: str) -> None:
    """By its own name in the registry and in the package, documented, with an example that holds."""
    for name in names:
        function = topologies.GENERATORS[name]
        assert function is getattr(topologies, name)
        assert name in topologies.__all__
        assert function.__name__ == name
        assert all(section in inspect.getdoc(function) for section in ("Args:", "Returns:", "Raises:", "Example:"))
        (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=vars(topologies).copy())
        assert doctest.DocTestRunner().run(example).failed == 0


def as_networkx(data: Data) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(data.num_nodes))
    graph.add_edges_from(data.edge_index.t().tolist())
    return graph


def in_degree(data: Data) -> Tensor:
    return torch.bincount(data.edge_index[1], minlength=data.num_nodes)
