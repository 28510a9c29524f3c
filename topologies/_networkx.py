"""NetworkX graphs in and out."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._graph import refuse_too_large
from topologies._matrix import edges_of
from topologies._merging import Where, build, floating
from topologies._pairing import undirected_pairs

if TYPE_CHECKING:
    import networkx

# fields with a meaning of their own: no attribute of a node or an edge becomes one, none becomes an attribute
RESERVED = {
    *("edge_index", "edge_weight", "num_nodes", "name", "directed", "node_names", "edge_fields", "shape", "node_types", "edge_types"),
    *("adj", "adj_t", "batch", "ptr", "face", "self"),
}
_OF_DATA = {key for key in dir(Data) if key not in ("x", "y", "pos", "time", "edge_attr")}  # methods: not to be shadowed
_LISTS = ("node_types", "edge_types")  # names of codes: kept as attributes of the graph
_MISSING = object()


def from_networkx(
    G: networkx.Graph,
    *,
    weight: str | None = "weight",
    dtype: torch.dtype | None = None,
    parallel: Literal["sum", "keep"] = "sum",
) -> Data:
    """A NetworkX graph as ``Data``: ``Graph``, ``DiGraph``, ``MultiGraph`` or ``MultiDiGraph``.

    An undirected edge is there in both directions, a self-loop once. Nodes are numbered as G lists them; isolated ones are nodes like
    others. Parallel edges become one whose weight is their sum.

    Carried: numbers, or equally shaped sequences of numbers, that every node (or every edge) has, as tensors [N, …] (or [E, …]) under the
    attribute's own name, ``edge_<name>`` where a node attribute has that name too; ``pos`` is also taken from a mapping ``G.graph["pos"]``.
    Not carried: words and other objects, attributes that some lack, attributes of edges that were summed, edge keys, attributes of the
    graph other than its name and the lists ``node_types`` and ``edge_types``, and names that have another meaning in a ``Data``.

    Args:
        G: the graph.
        weight: the edge attribute that becomes ``edge_weight``; None ignores weights.
        dtype: of floats; default: torch's. With float64 every Python float survives exactly.
        parallel: "sum", or "keep" to leave parallel edges as they are.

    Returns:
        Data with ``edge_index`` sorted by target, then source; ``num_nodes``; ``name``; ``directed``, a bool; ``edge_weight`` [E] if any
        edge has a weight (those without it count 1, as in NetworkX) or parallel edges were summed; ``node_names``, a list, unless the
        nodes are 0, …, N − 1 in this order; ``edge_fields``, the set of the names of further edge attributes, where there are any.
        (PyG's ``sort`` and ``ToSparseTensor`` take any list for one of edges where N = E, and fail: delete ``node_names`` before.)

    Raises:
        ValueError: if there is no node, or the weight of an edge, which is named, is not a finite number.

    Example:
        >>> data = from_networkx(networkx.Graph([("a", "b"), ("b", "c")]))
        >>> data.edge_index.tolist(), data.node_names
        ([[1, 0, 2, 1], [0, 1, 1, 2]], ['a', 'b', 'c'])
    """
    import networkx

    if not isinstance(G, networkx.Graph):
        raise ValueError(f"G must be a networkx graph, got {type(G).__name__}")
    if weight is not None and not isinstance(weight, str):
        raise ValueError(f"weight must be the name of an edge attribute or None, got {weight!r}")
    _checks.choice("parallel", parallel, ("sum", "keep"))
    dtype = floating(dtype)
    names = list(G)
    if not names:
        raise ValueError("G must have at least one node, got none")
    refuse_too_large("G", nodes=len(names), edges=G.number_of_edges() * (1 if G.is_directed() else 2))
    ends, attributes = _adjacency(G, names)

    def where(i: int) -> str:
        source, target = (names[end] for end in ends[:, i].tolist())
        return f"edge {source!r} {'→' if G.is_directed() else '–'} {target!r}"

    nodes = _node_fields(G, dtype)
    edges = {f"edge_{key}" if key in nodes else key: value for key, value in _shared(attributes, dtype, {weight}).items()}
    data = build(
        ends,
        len(names),
        G.name if isinstance(G.name, str) and G.name else "graph",
        where=where,
        weight=None if weight is None else _weights(attributes, weight, where),
        parallel=parallel,
        dtype=dtype,
        edges=edges,
    )
    data.directed = G.is_directed()
    if not all(type(node) is int for node in names) or names != list(range(len(names))):
        data.node_names = names
    for key, value in nodes.items():
        data[key] = value
    for key in _LISTS:
        if isinstance(G.graph.get(key), (list, tuple)):
            data[key] = list(G.graph[key])
    if kept := {key for key in edges if key in data}:
        data.edge_fields = kept
    return data


def is_free(key: Any) -> bool:
    """Whether an attribute of this name can be a field of a ``Data``."""
    return isinstance(key, str) and key != "" and not key.startswith("_") and key not in RESERVED and key not in _OF_DATA


def to_networkx(data: Data, *, weight: str = "weight", directed: bool | None = None) -> networkx.Graph:
    """A graph as NetworkX's: the inverse of :func:`from_networkx`.

    It is undirected where every edge has a reverse of the same weight, unless ``data.directed`` is True; ``data.directed`` False
    cannot make it so where weights have become different. Parallel edges make it a multigraph. Node and edge tensors become
    attributes (numbers, or tuples); of an undirected graph only those that agree in both directions. Nothing else is carried but ``name``
    (unless it is "graph"), ``node_types`` and ``edge_types``, as attributes of the graph.

    Args:
        data: a graph with ``edge_index``, or a sparse ``adj_t``. Nodes are called by its ``node_names``, or 0, …, N − 1 (those of a
            ``Batch`` always).
        weight: the edge attribute for ``edge_weight``; weights become Python floats.
        directed: True or False to have one or the other.

    Returns:
        ``networkx.Graph`` or ``DiGraph``; ``MultiGraph`` or ``MultiDiGraph`` where there are parallel edges.

    Raises:
        ValueError: if this is no graph, ``node_names`` are not N different hashable ones, or ``directed`` is False and an edge, which is
            named, has no reverse of the same weight.
    """
    import networkx

    if not isinstance(weight, str):
        raise ValueError(f"weight must be the name of an edge attribute, got {weight!r}")
    if directed is not None:
        _checks.flag("directed", directed)
    edge_index, edge_weight, num_nodes = edges_of(data)
    names = _names(data, num_nodes)
    pairs = None
    known = data.get("directed")
    known = bool(known) if isinstance(known, Tensor) and known.numel() == 1 else known  # out of a Batch
    if not (directed is True or (directed is None and known is True)):
        pairs, lonely = undirected_pairs(edge_index, edge_weight, num_nodes)
        if pairs is None and directed is False:
            source, target = (names[end] for end in edge_index[:, lonely].tolist())
            raise ValueError(f"directed must not be False: edge {source!r} → {target!r} has no reverse of the same weight")
    nodes, edges = _fields(data, num_nodes, edge_index.size(1))
    if pairs is not None:
        edges = {key: value[pairs.chosen] for key, value in edges.items() if _equal(value[pairs.forward], value[pairs.backward])}
        edge_index = edge_index[:, pairs.chosen]
        edge_weight = None if edge_weight is None else edge_weight[pairs.chosen]
    key = edge_index[1] * num_nodes + edge_index[0]
    multi = len(key.unique()) < len(key)
    kinds = (networkx.Graph, networkx.MultiGraph) if pairs is not None else (networkx.DiGraph, networkx.MultiDiGraph)
    G = kinds[multi]()
    if isinstance(name := data.get("name"), str) and name != "graph":
        G.graph["name"] = name
    G.graph.update({field: list(data[field]) for field in _LISTS if isinstance(data.get(field), (list, tuple))})
    G.add_nodes_from(zip(names, _rows(nodes, num_nodes)))
    if edge_weight is not None:
        edges[weight] = edge_weight.double()
    heads, tails = ([names[end] for end in row] for row in edge_index.tolist())
    G.add_edges_from(zip(heads, tails, _rows(edges, len(key))))
    return G


def _adjacency(G: networkx.Graph, names: list[Any]) -> tuple[Tensor, list[Mapping[str, Any]]]:
    """Source and target of every edge, undirected ones in both directions, and its attributes."""
    number = {node: i for i, node in enumerate(names)}
    degree: list[int] = []
    targets: list[Any] = []
    attributes: list[Mapping[str, Any]] = []
    for _, neighbours in G.adjacency():
        before = len(targets)
        if G.is_multigraph():
            for node, keyed in neighbours.items():
                targets += [node] * len(keyed)
                attributes += keyed.values()
        else:
            targets += neighbours
            attributes += neighbours.values()
        degree.append(len(targets) - before)
    source = np.repeat(np.arange(len(names)), degree)
    target = np.fromiter(map(number.__getitem__, targets), np.int64, len(targets))
    return torch.from_numpy(np.stack([source, target])), attributes


def _weights(attributes: Sequence[Mapping[str, Any]], weight: str, where: Where) -> Tensor | None:
    """float64 [M], or None where no edge has a weight."""
    values = [attribute.get(weight, _MISSING) for attribute in attributes]
    kinds = set(map(type, values))
    if kinds <= {object}:
        return None
    refused = {kind for kind in kinds if kind is not object and (kind in (bool, np.bool_) or not issubclass(kind, numbers.Real))}
    if refused:
        i = next(i for i, value in enumerate(values) if type(value) in refused)
        raise ValueError(f"{where(i)}: weight must be a finite number, got {values[i]!r}")
    try:
        return torch.tensor([1.0 if value is _MISSING else float(value) for value in values], dtype=torch.float64)
    except OverflowError:
        i = next(i for i, value in enumerate(values) if value is not _MISSING and abs(value) > sys.float_info.max)
        raise ValueError(f"{where(i)}: weight must be a finite number, got one too large for a float") from None


def _node_fields(G: networkx.Graph, dtype: torch.dtype) -> dict[str, Tensor]:
    attributes = [attribute for _, attribute in G.nodes(data=True)]
    fields = _shared(attributes, dtype, set())
    positions = G.graph.get("pos")
    if "pos" not in fields and isinstance(positions, Mapping) and all(node in positions for node in G):
        fields.update(_shared([{"pos": positions[node]} for node in G], dtype, set()))
    if "pos" in fields and (fields["pos"].dim() != 2 or fields["pos"].dtype == torch.bool):
        del fields["pos"]
    elif "pos" in fields:
        fields["pos"] = fields["pos"].to(dtype)
    return fields


def _shared(attributes: Sequence[Mapping[Any, Any]], dtype: torch.dtype, skip: set[Any]) -> dict[str, Tensor]:
    """What all of ``attributes`` have and is numeric, as tensors."""
    found = {}
    for key in attributes[0] if attributes else ():
        if key in skip or not is_free(key):
            continue
        values = [attribute.get(key, _MISSING) for attribute in attributes]
        tensor = None if any(value is _MISSING for value in values) else _numeric(values, dtype)
        if tensor is not None:
            found[key] = tensor
    return found


def _numeric(values: list[Any], dtype: torch.dtype) -> Tensor | None:
    """Numbers or equally shaped sequences of them as bool, int64 or ``dtype``; None for anything else."""
    if any(not issubclass(kind, (numbers.Real, np.bool_, Sequence, np.ndarray, Tensor)) or kind is str for kind in set(map(type, values))):
        return None
    try:
        array = np.array(values)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # shapes that differ, tensors that need a gradient
        return None
    if array.dtype.kind == "b":
        return torch.from_numpy(array)
    if array.dtype.kind in "iu" and (not array.size or array.max() < 2**63):
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(array.astype(np.float64)).to(dtype) if array.dtype.kind == "f" else None


def _names(data: Data, num_nodes: int) -> Sequence[Any]:
    names = data.get("node_names")
    if names is None or hasattr(data, "_slice_dict"):  # a Batch: names of different graphs may be the same
        return range(num_nodes)
    try:
        if isinstance(names, (list, tuple)) and len(names) == num_nodes == len(set(names)) and None not in names:
            return names
    except TypeError:  # one cannot be hashed
        pass
    raise ValueError(f"data.node_names must be a list of {num_nodes} different hashable names")


def _fields(data: Data, num_nodes: int, num_edges: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors [N, …] and [E, …] that become attributes; where N = E, ``edge_fields`` tells them apart, then PyG's own rule."""
    nodes: dict[str, Tensor] = {}
    edges: dict[str, Tensor] = {}
    of_edges = data.get("edge_fields")
    of_edges = of_edges if isinstance(of_edges, (set, frozenset, list, tuple)) else ()
    for key, value in data.to_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.dim() < 1 or key in RESERVED or "index" in key:
            continue
        value = value.detach().cpu()
        if value.size(0) == num_edges and (key in of_edges or num_nodes != num_edges or "edge" in key):
            edges[key] = value
        elif value.size(0) == num_nodes:
            nodes[key] = value
    return nodes, edges


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) if not one.is_floating_point() else torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _rows(fields: dict[str, Tensor], count: int) -> Any:
    """One dict of Python numbers, or tuples of them, for each of ``count`` rows."""
    if not fields:
        return ({} for _ in range(count))
    columns = [value.tolist() if value.dim() == 1 else map(tuple, value.tolist()) for value in fields.values()]
    return (dict(zip(fields, row)) for row in zip(*columns))
