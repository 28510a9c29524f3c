"""Lists of edges: what is parallel, what is undirected, and errors that name the edge."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex

from topologies import from_edges, to_networkx, to_scipy

TRIPLES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([-1.0, 0.5, 2.0])), min_size=1, max_size=15)


def columns(data):
    return sorted(zip(*data.edge_index.tolist(), data.edge_weight.tolist()))


@hypothesis.given(TRIPLES, st.booleans())
def test_sum_and_keep_are_networkxs_multigraph(triples, undirected):
    """Both the matrix of sums and the parallel edges that are kept are those of a multigraph that is given the same edges."""
    G = nx.MultiGraph() if undirected else nx.MultiDiGraph()
    G.add_nodes_from(range(6))
    G.add_weighted_edges_from(triples)
    expected = nx.to_scipy_sparse_array(G, dtype=float).toarray()
    for parallel in ("sum", "keep"):
        data = from_edges(triples, num_nodes=6, parallel=parallel, undirected=undirected)
        np.testing.assert_array_equal(to_scipy(data).toarray(), expected)
        key = data.edge_index[1] * 6 + data.edge_index[0]
        assert bool((key.diff() >= (1 if parallel == "sum" else 0)).all())
    both = 2 * sum(u != v for u, v, _ in triples) + sum(u == v for u, v, _ in triples)
    assert data.num_edges == (both if undirected else len(triples))


@hypothesis.given(TRIPLES, st.booleans())
def test_error_takes_what_agrees_and_only_that(triples, undirected):
    known = {}
    for u, v, w in triples:
        known.setdefault((min(u, v), max(u, v)) if undirected else (u, v), set()).add(w)
    if any(len(weights) > 1 for weights in known.values()):
        with pytest.raises(ValueError, match="parallel='sum' adds them up, parallel='keep' keeps both"):
            from_edges(triples, undirected=undirected)
        return
    expected = {(u, v, *weights) for (u, v), weights in known.items()}
    expected |= {(v, u, w) for u, v, w in expected} if undirected else set()
    assert columns(from_edges(triples, undirected=undirected)) == sorted(expected)


@hypothesis.given(TRIPLES)
def test_every_form_of_the_list_is_the_same_graph(triples):
    """Pairs, triples, tensors and arrays either way up, EdgeIndex."""
    triples = list({(u, v): (u, v, w) for u, v, w in triples}.values())
    expected = columns(from_edges(triples))
    pairs, weight = [(u, v) for u, v, _ in triples], [w for *_, w in triples]
    index = torch.tensor(pairs).t()
    forms = [pairs, map(list, pairs), index, index.int(), index.numpy(), EdgeIndex(index.contiguous()), np.array(pairs, dtype=np.uint16).T]
    if len(pairs) != 2:  # a 2 × 2 tensor is read as [2, E]
        forms += [index.t(), index.t().numpy(), list(np.array(pairs))]
    for form in forms:
        for values in (weight, np.array(weight), torch.tensor(weight, requires_grad=True), iter(weight)):
            data = from_edges(form if not isinstance(form, map) else list(map(list, pairs)), weight=values)
            assert columns(data) == expected
    assert "edge_weight" not in from_edges(pairs)


def test_two_by_two():
    """A list is a list of edges, a tensor has a row of sources."""
    assert from_edges([[0, 1], [2, 3]]).edge_index.tolist() == [[0, 2], [1, 3]]
    assert from_edges(torch.tensor([[0, 1], [2, 3]])).edge_index.tolist() == [[0, 1], [2, 3]]
    assert from_edges([[0, 1, 2, 0], [1, 2, 0, 2]]).edge_index.tolist() == [[2, 0, 0, 1], [0, 1, 2, 2]]
    assert from_edges([(0, 1, 2), (1, 2, 0)]).edge_weight.tolist() == [2, 0]


def test_nodes_without_edges_and_self_loops():
    assert from_edges([], num_nodes=3).num_nodes == 3
    assert from_edges(torch.empty(2, 0, dtype=torch.long), num_nodes=1).num_edges == 0
    loops = from_edges([(1, 1), (0, 1)], num_nodes=4, undirected=True)
    assert loops.edge_index.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert to_networkx(loops).edges == nx.Graph([(0, 1), (1, 1)]).edges


def test_weights_of_parallel_edges_without_weights():
    assert "edge_weight" not in from_edges([(0, 1), (0, 1)])
    assert from_edges([(0, 1), (0, 1), (1, 0)], parallel="sum").edge_weight.tolist() == [1, 2]
    assert from_edges([(0, 1), (1, 0)], parallel="sum", undirected=True).edge_weight.tolist() == [2, 2]
    assert from_edges([(0, 1), (0, 1)], parallel="keep").num_edges == 2
    assert from_edges([(0, 1, 0.1)], dtype=torch.float64).edge_weight.item() == 0.1


@pytest.mark.parametrize("node", [1.0, 1.5, True, "1", None, float("nan"), [1]])
def test_a_node_that_is_no_integer_is_named(node):
    with pytest.raises(ValueError, match=r"^edge 1 \(0, .*\): nodes must be integers, got"):
        from_edges([(0, 1), (0, node)])


LIST = [(0, 1), (2, 1)]
BAD = {
    "negative": ({"edges": [(0, 1), (1, -1)]}, r"^edge 1 \(1 → -1\): nodes must be integers >= 0"),
    "out of range": ({"edges": LIST, "num_nodes": 2}, r"^edge 1 \(2 → 1\): nodes must be integers in \[0, 2\)"),
    "out of range, tensor": ({"edges": torch.tensor([[0, 9], [1, 1]]), "num_nodes": 2}, r"^edge 1 \(9 → 1\): nodes must be .* \[0, 2\)"),
    "enormous": ({"edges": [(0, 2**70)]}, r"^edge 0 .*nodes must be integers below 2\*\*31"),
    "large": ({"edges": [(0, 2**31 + 5)]}, r"nodes must be integers below 2\*\*31"),
    "large array": ({"edges": np.array([[2**64 - 1], [0]], dtype=np.uint64)}, r"must hold node numbers below 2\*\*31"),
    "no node": ({"edges": []}, "edges must have at least one node, got none: say num_nodes"),
    "no node, tensor": ({"edges": torch.empty(2, 0, dtype=torch.long)}, "edges must have at least one node"),
    "floats": ({"edges": torch.tensor([[0.0, 1.5], [1.0, 2.0]])}, r"edges must hold integers, got torch.float32: edge 1 is \(1.5, 2\)"),
    "whole floats": ({"edges": np.zeros((2, 3))}, "edges must hold integers, got float64$"),
    "half": ({"edges": torch.zeros(2, 3, dtype=torch.bfloat16)}, "edges must hold integers, got torch.bfloat16"),
    "bools": ({"edges": torch.zeros(2, 3, dtype=torch.bool)}, "edges must hold integers, got torch.bool"),
    "shape": ({"edges": torch.zeros(3, 3, dtype=torch.long)}, r"edges must be a tensor or array \[2, E\] or \[E, 2\], got \(3, 3\)"),
    "flat": ({"edges": torch.zeros(4, dtype=torch.long)}, r"\[2, E\] or \[E, 2\], got \(4,\)"),
    "sparse": ({"edges": torch.eye(2).to_sparse()}, "edges must be a list of edges, got a sparse tensor"),
    "number": ({"edges": 3}, "edges must be a list of pairs or triples"),
    "mapping": ({"edges": {(0, 1): 7.0}}, r"edges must be a list, got a mapping.*: give list\(edges\), weight=list\(edges\.values\(\)\)"),
    "numbers": ({"edges": [1, 2]}, "edges must be a list of pairs or triples"),
    "mixed": ({"edges": [(0, 1), (0, 1, 2.0)]}, r"got edge 1: \(0, 1, 2.0\)"),
    "four": ({"edges": [(0, 1, 2, 3)]}, r"edges must be pairs .* got edge 0: \(0, 1, 2, 3\)"),
    "two lists of three": ({"edges": [[0, 1, 2], [1, 2, 0]]}, "could be two triples or three pairs: give tuples, or a tensor"),
    "nan": ({"edges": [(0, 1, 1.0), (1, 0, float("nan"))]}, r"^edge 1 \(1 → 0\): weight must be a finite number, got nan"),
    "infinite": ({"edges": LIST, "weight": torch.tensor([1.0, torch.inf])}, r"^edge 1 \(2 → 1\): weight must be a finite number, got inf"),
    "too large": ({"edges": LIST, "weight": [1, 10**400]}, r"^edge 1: weight must be a finite number, got an integer too large"),
    "beyond float32": ({"edges": [(0, 1, 1e300)], "dtype": torch.float32}, r"^edge 0 \(0 → 1\): weight .* in torch.float32, got inf"),
    "text": ({"edges": [(0, 1, "3")]}, "^edge 0: weight must be a finite number, got '3'"),
    "bool": ({"edges": LIST, "weight": [1.0, True]}, "^edge 1: weight must be a finite number, got True"),
    "complex": ({"edges": LIST, "weight": [1j, 1]}, "^edge 0: weight must be a finite number, got 1j"),
    "short weights": ({"edges": LIST, "weight": [1.0]}, r"weight must be one number per edge \(2\), got 1"),
    "one weight": ({"edges": LIST, "weight": 1.0}, r"weight must be one number per edge \(2\), got 1.0"),
    "weight matrix": ({"edges": LIST, "weight": torch.ones(2, 2)}, "^edge 0: weight must be a finite number, got"),
    "weights twice": ({"edges": [(0, 1, 2.0)], "weight": [1.0]}, "weight must be None where the edges are triples"),
    "disagree": ({"edges": [(0, 1, 2.0), (3, 3, 1.0), (0, 1, 4.0)]}, r"^edge 2 \(0 → 1\): weight 4 where edge 0 \(0 → 1\) has 2 between"),
    "disagree both ways": (
        {"edges": [(0, 1, 2.0), (1, 0, 4.0)], "undirected": True},
        r"^edge 1 \(1 → 0\): weight 4 where edge 0 \(0 → 1\) has 2 between the same nodes; parallel='sum'",
    ),
    "num_nodes": ({"edges": LIST, "num_nodes": 0}, "num_nodes must be an integer"),
    "num_nodes float": ({"edges": LIST, "num_nodes": 3.0}, "num_nodes must be an integer"),
    "parallel": ({"edges": LIST, "parallel": "mean"}, "parallel must be one of 'error', 'sum', 'keep', got 'mean'"),
    "undirected": ({"edges": LIST, "undirected": 1}, "undirected must be True or False, got 1"),
    "name": ({"edges": LIST, "name": None}, "name must be a str, got None"),
    "dtype": ({"edges": LIST, "dtype": torch.long}, "dtype must be a floating-point"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        from_edges(**arguments)


def test_sums_that_overflow_are_refused():
    """The sum has no line of its own: the first of the edges is named."""
    with pytest.raises(ValueError, match=r"^edge 0 \(0 → 1\): weight must be a finite number in torch.float32, got inf"):
        from_edges([(0, 1, 3e38), (0, 1, 3e38)], parallel="sum", dtype=torch.float32)
