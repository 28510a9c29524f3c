"""A graph from a table of edges in a text file, such as a connectome's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from topologies import _checks
from topologies._delimited import Table, hint, read
from topologies._graph import refuse_too_large
from topologies._merging import PARALLEL, Parallel, build
from topologies._networkx import is_free

_ALSO_CALLED = {  # what other tables call the two ends of an edge
    "pre": ("source", "src", "from", "sender", "presynaptic", "pre_id", "node1", "u"),
    "post": ("target", "tgt", "to", "dst", "dest", "destination", "receiver", "postsynaptic", "post_id", "node2", "v"),
}
_IDENTITY = ("name", "id")  # columns of a table of nodes that can say what an edge means by a node


class _Nodes(NamedTuple):
    """Names in order, what the edges call each node, and the fields of a table of nodes."""

    names: list[str]
    number: dict[str, int]
    fields: dict[str, Any]


def read_edge_table(
    path: str,
    *,
    nodes: str | None = None,
    pre: str = "pre",
    post: str = "post",
    weight: str | None = "weight",
    type: str | None = "type",
    types: Sequence[str] | None = None,
    node_type: str | None = None,
    undirected: bool = False,
    parallel: Parallel = "sum",
    delimiter: str = ",",
    name: str | None = None,
) -> Data:
    """The graph of a table with one edge per row, from ``pre`` to ``post``: a CSV file whose first line names the columns.

    Edges of different types are different edges, also between the same two nodes; self-loops are kept. Without a table of nodes the
    nodes are those named by the edges, in the order in which they appear, ``pre`` before ``post``, also where ``types`` leaves their
    edges out. Files are UTF-8; quoted fields, blank lines, a byte order mark, any line ends and ``.gz`` are understood.

    Args:
        path: the file of edges.
        nodes: a file of nodes, one per row: the column "name", or "id", or both, is what edges call them (one of the two throughout);
            isolated nodes are listed here too. Numeric further columns become tensors [N] of their own names, x, y and perhaps z
            together ``pos``; see also ``node_type``.
        pre: column of the source.
        post: column of the target.
        weight: column of the weight, numbers; None: no weights. The column "weight" may be absent where no other column but those of
            the ends and the type holds numbers.
        type: column of the edge's type, words; None: no types. The column "type" may be absent.
        types: keep only edges of these types; they are numbered in this order.
        node_type: column of the file of nodes that becomes ``node_type``; default: its first further column of words, if any.
        undirected: every edge also runs the other way; one listed both ways is listed twice.
        parallel: what becomes of an edge that is listed twice: "sum" of the weights (1 each where there are none), "error" if the
            weights differ (else it counts once), or "keep" both.
        delimiter: the character between the columns ("tab" for a tab).
        name: the graph's name; default: the file's, without its ending.

    Returns:
        Data with ``edge_index`` sorted by target, then source; ``num_nodes``; ``name``; ``node_names``; ``edge_weight`` [E] where the
        table has weights; ``edge_type`` [E] and the list ``edge_types`` of their names where it has types; ``node_type`` [N] and
        ``node_types`` where the file of nodes has one.

    Raises:
        ValueError: naming the file and the line: a row with too few or too many fields, a weight that is no finite number, an empty or
            unknown node, a node listed twice; or if a file is missing, empty, not text or begins with a comment, a column is missing, what
            may be the weights has another name, or there is no node.

    Example:
        >>> worm = read_edge_table("edges.csv", nodes="nodes.csv", types=["chemical"])  # doctest: +SKIP
    """
    _checks.flag("undirected", undirected)
    _checks.choice("parallel", parallel, PARALLEL)
    if name is not None and not isinstance(name, str):
        raise ValueError(f"name must be a str or None, got {name!r}")
    if nodes is None and node_type is not None:
        raise ValueError(f"node_type must be None without a file of nodes, got {node_type!r}: it is a column of that file")
    table = read(path, "path", delimiter)
    sources, targets = _end(table, pre, "pre"), _end(table, post, "post")
    weights = _optional(table, weight, "weight")
    kinds = _optional(table, type, "type")
    if weights is None and weight == "weight":
        _refuse_other_numbers(table, (pre, post, type, "type"))
    if types is not None and kinds is None:
        raise ValueError(f"types must be None for a table without types: {table.path} has the columns {', '.join(table.columns)}")
    found = _named(table, sources, targets) if nodes is None else _listed(nodes, delimiter, node_type, sources)
    if not found.names:
        raise ValueError(f"{table.path} has no rows: a graph needs at least one node")
    refuse_too_large("path", nodes=len(found.names), edges=len(sources) * (2 if undirected else 1))
    ends = torch.stack([_numbers(table, column, at, found.number, nodes) for column, at in ((sources, pre), (targets, post))])
    value = None if weights is None else _floats(table, weights)
    code, type_names = (None, None) if kinds is None else _codes(table, kinds, types)
    rows = list(range(len(sources)))
    if code is not None and bool((code < 0).any()):
        kept = (code >= 0).nonzero().flatten()
        rows, code, ends = kept.tolist(), code[kept], ends[:, kept]
        value = None if value is None else value[kept]
    data = build(
        ends,
        len(found.names),
        table.path.name.split(".")[0] if name is None else name,
        where=lambda i: table.where(rows[i]),
        weight=value,
        kind=code,
        undirected=undirected,
        parallel=parallel,
    )
    data.node_names = found.names
    if type_names is not None:
        data.edge_types = type_names
    for field, content in found.fields.items():
        data[field] = content
    return data


def _end(table: Table, name: str, argument: str) -> list[str]:
    """The column of an end of the edges."""
    other = next((column for column in table.columns if column.lower() in _ALSO_CALLED[argument]), None)
    if name == argument and name not in table.columns and other is not None:
        found = ", ".join(map(repr, table.columns))
        raise ValueError(f"{table.path}: no column {name!r}; the header has {found}: perhaps {argument}={other!r}")
    return table.column(name, argument)


def _refuse_other_numbers(table: Table, taken: Sequence[str | None]) -> None:
    """A ValueError where a column without a purpose holds numbers: they may be the weights, which nobody should lose unawares."""
    for column in table.columns if table.lines else ():
        if column not in taken and _numeric(table.column(column, "weight")) is not None:
            raise ValueError(
                f"{table.path}: no column 'weight', but {column!r} holds numbers: give weight={column!r}, or weight=None for none"
            )


def _optional(table: Table, name: str | None, argument: str) -> list[str] | None:
    """A column that need not be there as long as it has its usual name."""
    if name is None or name == "":
        return None
    if name == argument and name not in table.columns:
        alike = [column for column in table.columns if column.lower().rstrip("s") == name]
        if not alike:
            return None
        raise ValueError(f"{table.path}: no column {name!r}, but {alike[0]!r}: give {argument}={alike[0]!r}, or None to leave it out")
    return table.column(name, argument)


def _named(table: Table, sources: list[str], targets: list[str]) -> _Nodes:
    """The nodes in the order in which the edges name them."""
    number: dict[str, int] = {}
    for pair in zip(sources, targets):
        for node in pair:
            number.setdefault(node, len(number))
    return _Nodes(list(number), number, {})


def _listed(path: str, delimiter: str, node_type: str | None, sources: list[str]) -> _Nodes:
    """The nodes of a file of nodes, known by the column that holds the first edge's source."""
    table = read(path, "nodes", delimiter)
    columns = [column for column in _IDENTITY if column in table.columns]
    if not columns:
        raise ValueError(f"{table.path}: no column 'name' or 'id'; the header has {', '.join(map(repr, table.columns))}")
    if not table.lines:
        raise ValueError(f"{table.path} has no rows: a graph needs at least one node")
    known = {column: table.column(column, "nodes") for column in columns}
    for column, entries in known.items():
        _refuse_repeated(table, column, entries)
    key = next((column for column in columns if sources and sources[0] in known[column]), columns[0])
    fields: dict[str, Any] = {}
    words = None
    for column in table.columns:
        if column in _IDENTITY:
            continue
        entries = table.column(column, "nodes")
        numeric = _numeric(entries)
        if numeric is None:
            words = words or column
        elif column != node_type and is_free(column):
            fields[column] = numeric
    if {"x", "y"} <= fields.keys():
        axes = [fields.pop(axis) for axis in ("x", "y", "z") if axis in fields]
        fields["pos"] = torch.stack([axis.to(torch.get_default_dtype()) for axis in axes], dim=1)
    chosen = words if node_type is None else node_type
    if chosen is not None:
        code, names = _codes(table, table.column(chosen, "node_type"), None)
        fields |= {"node_type": code, "node_types": names}
    return _Nodes(known[columns[0]], {entry: i for i, entry in enumerate(known[key])}, fields)


def _refuse_repeated(table: Table, column: str, entries: list[str]) -> None:
    seen: dict[str, int] = {}
    for row, entry in enumerate(entries):
        if not entry:
            raise ValueError(f"{table.where(row)}: the {column} is empty")
        if (first := seen.setdefault(entry, row)) != row:
            raise ValueError(f"{table.where(row)}: the {column} {entry!r} is already on line {table.lines[first]}")


def _numbers(table: Table, entries: list[str], column: str, number: dict[str, int], nodes: str | None) -> Tensor:
    found = [number.get(entry, -1) if entry else -1 for entry in entries]
    for row, node in enumerate(found) if -1 in found else ():
        if node < 0:
            what = f"unknown node {entries[row]!r}, not in {nodes}{hint(entries[row], list(number))}" if entries[row] else "no node"
            raise ValueError(f"{table.where(row)}: column {column!r}: {what}")
    return torch.tensor(found, dtype=torch.long)


def _floats(table: Table, entries: list[str]) -> Tensor:
    values = []
    for row, entry in enumerate(entries):
        try:
            values.append(math.nan if "_" in entry else float(entry))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise ValueError(f"{table.where(row)}: weight must be a finite number, got {entry!r}")
    return torch.tensor(values, dtype=torch.float64)


def _numeric(entries: list[str]) -> Tensor | None:
    """Integers as int64, other finite numbers in torch's default dtype, None for words."""
    try:
        values = [float(entry) for entry in entries if "_" not in entry]
    except ValueError:
        return None
    if len(values) < len(entries) or not all(map(math.isfinite, values)):
        return None
    if all(entry.lstrip("+-").isdigit() and abs(value) < 2**53 for entry, value in zip(entries, values)):
        return torch.tensor(values, dtype=torch.float64).long()
    return torch.tensor(values)


def _codes(table: Table, entries: list[str], chosen: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """Numbers of words: in the order of ``chosen``, −1 for others; or in the order in which they appear."""
    names = list(dict.fromkeys(entries))
    if chosen is not None:
        if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen or not all(isinstance(one, str) for one in chosen):
            raise ValueError(f"types must be a list of types, got {chosen!r}")
        for one in chosen:
            if one not in names:
                raise ValueError(f"types: {table.path} has no edge of type {one!r}; it has {', '.join(map(repr, names))}{hint(one, names)}")
        names = list(dict.fromkeys(chosen))
    number = {word: i for i, word in enumerate(names)}
    return torch.tensor([number.get(entry, -1) for entry in entries], dtype=torch.long), names
