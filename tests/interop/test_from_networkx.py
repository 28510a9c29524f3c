"""NetworkX graphs of every class come in and go out as they were: nodes, names, edges, weights, attributes."""

from __future__ import annotations

import fractions

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import ToSparseTensor

from topologies import from_networkx, grid, to_networkx, to_scipy

CLASSES = (nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph)
NAMES = st.one_of(
    st.integers(-9, 9), st.text("abé ", max_size=2), st.tuples(st.integers(0, 2), st.integers(0, 2)), st.frozensets(st.integers(0, 2))
)
WEIGHTS = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def graphs(draw, classes=CLASSES, weights=(None, "some", "all")):
    """Any small graph: any class, any hashable names, isolated nodes, self-loops, parallel edges, weights on none, some or all edges."""
    G = draw(st.sampled_from(classes))()
    names = draw(st.lists(NAMES, min_size=1, max_size=7, unique=True))
    if draw(st.booleans()):
        names = list(range(len(names)))
    G.add_nodes_from(names)
    kind = draw(st.sampled_from(weights))
    node = st.sampled_from(names)
    for u, v in draw(st.lists(st.tuples(node, node), max_size=14)):
        weighted = kind == "all" or (kind == "some" and draw(st.booleans()))
        G.add_edge(u, v, **({"weight": draw(WEIGHTS)} if weighted else {}))
    return G


def edges(G):
    """Every edge with its weight, ends of undirected ones in the order of the nodes; a missing weight counts 1 if another is there."""
    rank = {node: i for i, node in enumerate(G)}
    weighted = any("weight" in attributes for *_, attributes in G.edges(data=True))
    found = []
    for u, v, attributes in G.edges(data=True):
        ends = (rank[u], rank[v])
        found.append((*(ends if G.is_directed() else sorted(ends)), attributes.get("weight", 1.0) if weighted else None))
    return sorted(found, key=repr)


@hypothesis.given(graphs())
def test_a_networkx_graph_comes_back(G):
    """Class, nodes in order with their names, edges and weights, bit for bit, in double precision."""
    H = to_networkx(from_networkx(G, dtype=torch.float64, parallel="keep"))
    assert H.is_directed() == G.is_directed()
    assert list(H) == list(G)
    assert [type(node) for node in H] == [type(node) for node in G]
    assert edges(H) == edges(G)
    assert H.is_multigraph() == any(G.number_of_edges(u, v) > 1 for u, v in G.edges())


@hypothesis.given(graphs())
def test_a_data_comes_back(G):
    data = from_networkx(G, dtype=torch.float64)
    back = from_networkx(to_networkx(data), dtype=torch.float64)
    assert set(back.keys()) == set(data.keys())
    assert torch.equal(back.edge_index, data.edge_index)
    for key in set(data.keys()) - {"edge_index"}:
        assert torch.equal(back[key], data[key]) if isinstance(data[key], torch.Tensor) else back[key] == data[key]


@st.composite
def datas(draw):
    """Any Data that is no product of this library: unsorted, parallel edges, with weights or without."""
    nodes = draw(st.integers(1, 6))
    node = st.integers(0, nodes - 1)
    pairs = torch.tensor(draw(st.lists(st.tuples(node, node), max_size=14)), dtype=torch.long).reshape(-1, 2).t()
    data = Data(edge_index=pairs, num_nodes=nodes)
    if pairs.size(1) and draw(st.booleans()):
        data.edge_weight = torch.tensor(draw(st.lists(st.sampled_from([-1.0, 0.5, 2.0]), min_size=pairs.size(1), max_size=pairs.size(1))))
    return data


def columns(data):
    weight = [None] * data.num_edges if data.edge_weight is None else data.edge_weight.tolist()
    return sorted(zip(*data.edge_index.tolist(), weight), key=repr)


@hypothesis.given(datas(), st.sampled_from([None, True]))
def test_any_data_goes_out_and_comes_back(data, directed):
    """Also a multigraph; undirected where and only where it is its own transpose."""
    G = to_networkx(data, directed=directed)
    back = from_networkx(G, parallel="keep")
    assert back.num_nodes == data.num_nodes
    assert columns(back) == columns(data)
    turned = sorted(((v, u, w) for u, v, w in columns(data)), key=repr)
    assert G.is_directed() == (directed is True or turned != columns(data))


@hypothesis.given(graphs())
def test_the_matrix_is_networkxs(G):
    """Parallel edges are added up, edges without a weight count 1, an undirected self-loop is there once."""
    expected = nx.to_scipy_sparse_array(G, dtype=float, format="csr").toarray()
    np.testing.assert_allclose(to_scipy(from_networkx(G, dtype=torch.float64)).toarray(), expected, rtol=1e-12, atol=1e-9)


@hypothesis.given(graphs())
def test_the_edges_are_simple_and_sorted(G):
    data = from_networkx(G)
    key = data.edge_index[1] * data.num_nodes + data.edge_index[0]
    assert bool((key.diff() > 0).all())
    assert data.directed == G.is_directed()
    assert data.is_undirected() or G.is_directed()


def test_weights_are_there_only_where_they_mean_something():
    path = nx.path_graph(3)
    assert "edge_weight" not in from_networkx(path)
    path[0][1]["weight"] = 3
    found = from_networkx(path)
    assert found.edge_weight.dtype == torch.get_default_dtype()
    assert found.edge_weight.tolist() == [3, 3, 1, 1]
    assert "edge_weight" not in from_networkx(path, weight=None)
    path[1][2]["length"] = 2.5
    assert from_networkx(path, weight="length", dtype=torch.float64).edge_weight.tolist() == [1, 1, 2.5, 2.5]
    multi = nx.MultiDiGraph([(0, 1), (0, 1), (1, 0)])
    assert from_networkx(multi).edge_weight.tolist() == [1, 2]
    assert "edge_weight" not in from_networkx(multi, parallel="keep")
    assert from_networkx(multi, parallel="keep").num_edges == 3


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), fractions.Fraction(2)])
def test_any_real_number_is_a_weight(value):
    G = nx.DiGraph()
    G.add_edge("a", "b", weight=value)
    assert to_networkx(from_networkx(G)).edges["a", "b"] == {"weight": 2.0}


def test_names_are_kept_unless_they_are_the_numbers():
    assert "node_names" not in from_networkx(nx.path_graph(4))
    assert from_networkx(nx.Graph([(1, 0)])).node_names == [1, 0]
    assert from_networkx(nx.Graph([(False, True)])).node_names == [False, True]
    G = nx.grid_2d_graph(2, 2)
    assert from_networkx(G).node_names == [(0, 0), (0, 1), (1, 0), (1, 1)]
    part = from_networkx(G).subgraph(torch.tensor([1, 3]))
    assert sorted(to_networkx(part).edges) == [((0, 1), (1, 1))]


def test_attributes_become_tensors_and_come_back():
    G = nx.DiGraph(name="three")
    G.add_node("a", pos=(0, 1), rank=1, tag="x", on=True, only=1)
    G.add_node("b", pos=(2, 3), rank=2, tag="y", on=False)
    G.add_node("c", pos=(4, 5), rank=3, tag="z", on=True)
    G.add_edge("a", "b", weight=0.5, delay=1, rank=9, flow=(1.0, 2.0))
    G.add_edge("c", "a", weight=1.5, delay=2, rank=8, flow=(3.0, 4.0), note=None)
    G.add_edge("b", "a", weight=2.5, delay=3, rank=7, flow=(5.0, 6.0))  # as many edges as nodes: sizes do not tell them apart
    data = from_networkx(G)
    assert data.pos.dtype == torch.get_default_dtype()
    assert data.pos.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data["rank"].tolist() == [1, 2, 3]
    assert data["rank"].dtype == torch.long
    assert data["on"].dtype == torch.bool
    assert data.edge_index.tolist() == [[1, 2, 0], [0, 0, 1]]
    assert data.delay.tolist() == [3, 2, 1]
    assert data.edge_rank.tolist() == [7, 8, 9]
    assert data.flow.tolist() == [[5, 6], [3, 4], [1, 2]]
    assert not {"tag", "only", "note"} & set(data.keys())
    H = to_networkx(data)
    assert H.name == data.name == "three"
    assert dict(H.nodes(data=True)) == {node: {key: G.nodes[node][key] for key in ("pos", "rank", "on")} for node in G}
    for u, v, attributes in G.edges(data=True):
        expected = {"weight": attributes["weight"], "delay": attributes["delay"], "flow": attributes["flow"]}
        assert {key: H[u][v][key] for key in expected} == expected


def test_positions_may_stand_at_the_graph():
    G = nx.path_graph(3)
    G.graph["pos"] = nx.circular_layout(G)
    np.testing.assert_allclose(from_networkx(G).pos, np.stack(list(G.graph["pos"].values())), rtol=1e-6)
    assert from_networkx(nx.random_geometric_graph(9, 0.4, seed=1)).pos.shape == (9, 2)


def test_attributes_of_a_name_with_another_meaning_stay_out():
    """An attribute cannot overwrite the graph, a method of Data, or an argument on the way."""
    G = nx.path_graph(3)
    names = ("edge_index", "num_nodes", "directed", "batch", "subgraph", "keys", "_store", "weight", "edges", "dtype", "self", "name")
    nx.set_node_attributes(G, {node: dict.fromkeys(names, 7) for node in G})
    nx.set_edge_attributes(G, {edge: dict.fromkeys(names[:-5], 7) for edge in G.edges})
    data = from_networkx(G)
    assert data.num_nodes == 3
    assert data.edge_index.shape == (2, 4)
    assert callable(data.subgraph)
    assert {"weight", "edges", "dtype"} <= set(data.keys())
    assert data.directed is False
    assert "self" not in data


def test_ragged_and_odd_attributes_stay_out():
    G = nx.path_graph(2)
    for key, values in {
        "ragged": ([1], [1, 2]),
        "text": ("a", 1),
        "none": (None, 1),
        "dict": ({}, {}),
        "huge": (2**70, 1),
        "complex": (1j, 1),
    }.items():
        nx.set_node_attributes(G, dict(zip(G, values)), key)
    assert set(from_networkx(G).keys()) == {"edge_index", "num_nodes", "name", "directed"}


def test_undirected_graphs_carry_only_attributes_that_agree(lattice):
    """Displacements of a lattice point the other way on the way back: they cannot belong to an undirected edge."""
    G = to_networkx(lattice)
    assert type(G) is nx.Graph
    assert nx.is_isomorphic(G, nx.compose(nx.grid_2d_graph(4, 4, periodic=True), _diagonals(4)))
    assert G.nodes[5] == {"pos": (1, 1)}
    assert G.edges[0, 1] == {}
    H = to_networkx(lattice, directed=True)
    assert type(H) is nx.DiGraph
    assert set(H.edges[0, 1]) == {"edge_attr", "edge_type"}


def _diagonals(side):
    cells = [(i, j) for i in range(side) for j in range(side)]
    return nx.Graph([((i, j), ((i + 1) % side, (j + d) % side)) for i, j in cells for d in (-1, 1)])


def test_direction_is_remembered_found_or_forced():
    both = nx.DiGraph([(0, 1), (1, 0)])
    data = from_networkx(both)
    assert type(to_networkx(data)) is nx.DiGraph
    assert type(to_networkx(data, directed=False)) is nx.Graph
    del data.directed
    assert type(to_networkx(data)) is nx.Graph
    data.edge_weight = torch.tensor([1.0, 2.0])
    assert type(to_networkx(data)) is nx.DiGraph
    data.directed = False  # weights that were learned since
    assert to_networkx(data)[1][0]["weight"] == 1
    with pytest.raises(ValueError, match=r"directed must not be False: edge 0 → 1 has no reverse of the same weight"):
        to_networkx(data, directed=False)
    with pytest.raises(ValueError, match="edge 'b' → 'c' has no reverse"):
        to_networkx(from_networkx(nx.DiGraph([("a", "b"), ("b", "a"), ("b", "c")])), directed=False)


def test_a_batch_and_a_sparse_adjacency_go_out():
    names = from_networkx(nx.Graph([("a", "b")]))
    assert list(to_networkx(Batch.from_data_list([names, names])).edges) == [(0, 1), (2, 3)]
    G = nx.DiGraph()
    G.add_weighted_edges_from([(0, 1, 2.0), (2, 1, 0.5), (2, 0, 4.0)])
    H = nx.DiGraph()
    H.add_nodes_from(range(3))
    H.add_edges_from(G.edges(data=True))
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        sparse = ToSparseTensor(layout=torch.sparse_coo)(from_networkx(H))
    assert nx.utils.graphs_equal(to_networkx(sparse), H)


def test_gradients_and_views_do_not_matter():
    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2, edge_weight=torch.ones(1, requires_grad=True))
    assert to_networkx(data)[0][1] == {"weight": 1.0}
    G = nx.path_graph(5, create_using=nx.DiGraph)
    assert from_networkx(G.reverse(copy=False)).edge_index.tolist() == [[1, 2, 3, 4], [0, 1, 2, 3]]
    assert from_networkx(G.subgraph([3, 1, 2])).node_names == [1, 2, 3]
    assert from_networkx(nx.empty_graph(3)).edge_index.shape == (2, 0)
    assert to_networkx(from_networkx(nx.empty_graph(3))).number_of_nodes() == 3


def test_categories_of_nodes_and_edges_stay_named():
    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2, node_type=torch.tensor([1, 0]), node_types=["x", "y"])
    G = to_networkx(data)
    assert G.graph == {"node_types": ["x", "y"]}
    back = from_networkx(G)
    assert back.node_types == ["x", "y"]
    assert back.node_type.tolist() == [1, 0]


def weighted(value):
    G = nx.DiGraph([("a", "b")])
    G.add_edge("b", "c", weight=value)
    return G


BAD_IN = {
    "no graph": ({"G": [(0, 1)]}, "G must be a networkx graph, got list"),
    "no node": ({"G": nx.Graph()}, "G must have at least one node"),
    "text": ({"G": weighted("heavy")}, r"^edge 'b' → 'c': weight must be a finite number, got 'heavy'"),
    "none": ({"G": weighted(None)}, r"^edge 'b' → 'c': weight must be a finite number, got None"),
    "bool": ({"G": weighted(True)}, r"^edge 'b' → 'c': weight must be a finite number, got True"),
    "nan": ({"G": weighted(float("nan"))}, r"^edge 'b' → 'c': weight must be a finite number, got nan"),
    "infinite": ({"G": weighted(float("inf")).to_undirected()}, r"^edge 'b' – 'c': weight must be a finite number, got inf"),
    "too large": ({"G": weighted(10**400)}, r"^edge 'b' → 'c': weight must be a finite number, got one too large"),
    "too large for float32": (
        {"G": weighted(1e300), "dtype": torch.float32},
        r"^edge 'b' → 'c': weight must be .* in torch\.float32, got inf",
    ),
    "weight": ({"G": nx.path_graph(2), "weight": 3}, "weight must be the name of an edge attribute or None, got 3"),
    "dtype": ({"G": nx.path_graph(2), "dtype": torch.int64}, "dtype must be a floating-point torch.dtype or None, got torch.int64"),
    "dtype name": ({"G": nx.path_graph(2), "dtype": "float32"}, "dtype must be a floating-point torch.dtype or None, got 'float32'"),
    "parallel": ({"G": nx.path_graph(2), "parallel": "error"}, "parallel must be one of 'sum', 'keep', got 'error'"),
}


@pytest.mark.parametrize("case", list(BAD_IN))
def test_what_cannot_come_in(case):
    arguments, message = BAD_IN[case]
    with pytest.raises(ValueError, match=message):
        from_networkx(**arguments)


PAIR = torch.tensor([[0], [1]])
BAD_OUT = {
    "no data": ({"data": nx.path_graph(2)}, "data must be a torch_geometric.data.Data, got Graph"),
    "no edges": ({"data": Data(num_nodes=2)}, r"data.edge_index must be a tensor \[2, E\], got None"),
    "floats": ({"data": Data(edge_index=PAIR.float(), num_nodes=2)}, "data.edge_index must hold integers, got torch.float32"),
    "range": ({"data": Data(edge_index=PAIR, num_nodes=1)}, r"node ids in \[0, 1\), got 0 to 1"),
    "weights": ({"data": Data(edge_index=PAIR, edge_weight=torch.ones(2), num_nodes=2)}, r"edge_weight must be a tensor \[1\], got \(2,\)"),
    "names": ({"data": Data(edge_index=PAIR, num_nodes=2, node_names=["a"])}, "node_names must be a list of 2 different hashable names"),
    "same names": ({"data": Data(edge_index=PAIR, num_nodes=2, node_names=["a", "a"])}, "node_names must be a list of 2 different"),
    "unhashable": ({"data": Data(edge_index=PAIR, num_nodes=2, node_names=[[], "a"])}, "node_names must be a list of 2 different"),
    "weight": ({"data": Data(edge_index=PAIR, num_nodes=2), "weight": None}, "weight must be the name of an edge attribute, got None"),
    "directed": ({"data": Data(edge_index=PAIR, num_nodes=2), "directed": 1}, "directed must be True or False, got 1"),
}


@pytest.mark.parametrize("case", list(BAD_OUT))
def test_what_cannot_go_out(case):
    arguments, message = BAD_OUT[case]
    with pytest.raises(ValueError, match=message):
        to_networkx(**arguments)


def test_parts_of_a_lattice_go_out():
    part = grid(4, 2).subgraph(torch.arange(10))
    assert to_networkx(part).number_of_nodes() == 10
