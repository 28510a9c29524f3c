"""Communities found, cut out and learned; and the functional graph."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nx_graphs import F64, edge_list, sample, symmetric
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.graph_metrics import SoftCommunities, functional_weights, lattice_blocks, leiden, louvain, modularity
from topologies.nulls import DegreePreservingRewire

KARATE = edge_list(nx.Graph(nx.karate_club_graph().edges), np.random.default_rng(0), False)[0]
CLIQUES = symmetric([(u, v) for base in (0, 5) for u in range(base, base + 5) for v in range(base, u)] + [(4, 5)])


def test_louvain_finds_cliques_and_the_karate_clubs():
    """Zachary's network is known to divide into four parts at Q = 0.4198; Louvain comes close from any seed, the same from one."""
    assert louvain(CLIQUES).tolist() == [0] * 5 + [1] * 5
    for seed in range(3):
        labels = louvain(KARATE, seed=seed)
        assert 0.38 < float(modularity(KARATE, None, labels)) < 0.42
        assert torch.equal(labels, louvain(KARATE, seed=seed))
    assert int(louvain(KARATE, resolution=4).max()) > int(louvain(KARATE, resolution=0.2).max())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 5])
def test_louvain_ends_where_gains_are_equal_but_for_rounding(seed):
    """Rewired directed lattices without weights: on several of these NetworkX by itself never comes to an end."""
    lattice = topologies.raster(6, 9)
    for wiring in range(60):
        edges = DegreePreservingRewire(seed=wiring)(lattice).edge_index
        labels = louvain(edges, directed=True, seed=seed, num_nodes=54)
        assert float(modularity(edges, None, labels, directed=True, num_nodes=54)) > 0.25
        assert torch.equal(labels, louvain(edges, directed=True, seed=seed, num_nodes=54))


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(4, 8))
@settings(max_examples=20, deadline=None)
def test_louvain_divides_a_ring_of_cliques_as_networkx_does(seed, count, size):
    """Deciding ties moves no division that is clear, whatever the order of the nodes and the directions."""
    graph = nx.ring_of_cliques(count, size)
    edges = edge_list(graph, np.random.default_rng(seed), False)[0]
    for directed in (False, True):
        labels = louvain(edges, directed=directed, seed=seed)
        parts = nx.community.louvain_communities(graph.to_directed() if directed else graph, seed=seed)
        assert {frozenset((labels == c).nonzero()[:, 0].tolist()) for c in labels.unique()} == set(map(frozenset, parts))
        assert labels.tolist() == [i // size for i in range(count * size)]


def test_louvain_reads_weights_and_directions_of_data_and_connectivity():
    """Two cliques in the pattern, other communities in the weights."""
    left = torch.arange(10) % 2
    weight = torch.where(left[CLIQUES[0]] == left[CLIQUES[1]], 5.0, 0.1)
    data = Data(edge_index=CLIQUES, edge_weight=weight, num_nodes=11)
    labels = louvain(data)
    assert labels.shape == (11,)
    assert float(modularity(CLIQUES, weight, labels, num_nodes=11)) > float(
        modularity(CLIQUES, weight, louvain(CLIQUES, num_nodes=11), num_nodes=11)
    )
    assert torch.equal(louvain(Connectivity(data)), labels)
    assert torch.equal(louvain(data, directed=True) == 0, labels == 0)


@pytest.mark.cuda
@pytest.mark.parametrize("weighted", [False, True])
def test_communities_of_a_graph_on_a_gpu(weighted):
    """They are found on the CPU, and returned where the graph is."""
    weight = torch.ones(CLIQUES.shape[1], device="cuda") if weighted else None
    for method in (louvain, leiden):
        labels = method(CLIQUES.cuda(), weight)
        assert labels.is_cuda
        assert labels.tolist() == [0] * 5 + [1] * 5


def test_leiden_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "leidenalg", None)
    with pytest.raises(ImportError, match=r"pip install 'lmn-graph\[leiden\]'"):
        leiden(KARATE)


@pytest.mark.parametrize("directed", [False, True])
def test_leiden_is_asked_for_the_same_graph(directed, monkeypatch):
    """A stand-in for the two libraries: every undirected edge once, every weight, the resolution, a seed of the seed."""
    asked = {}

    def graph(n, edges, directed):
        return SimpleNamespace(n=n, edges=edges, directed=directed)

    def find_partition(graph, kind, **options):
        asked.update(options, graph=graph)
        return SimpleNamespace(membership=[3, 3, 1, 1, 0][: graph.n])

    monkeypatch.setitem(sys.modules, "igraph", SimpleNamespace(Graph=graph))
    stand_in = SimpleNamespace(find_partition=find_partition, RBConfigurationVertexPartition=object)
    monkeypatch.setitem(sys.modules, "leidenalg", stand_in)
    edges = torch.cat([symmetric([(0, 1), (2, 3)]), torch.tensor([[2], [2]])], 1)
    weight = torch.tensor([1.0, 2.0, 1.0, 2.0, 3.0])
    found = leiden(edges, weight, directed=directed, resolution=1.5, num_nodes=5)
    assert found.tolist() == [0, 0, 1, 1, 2]
    assert asked["graph"].n == 5
    assert asked["graph"].directed == directed
    assert len(asked["weights"]) == len(asked["graph"].edges) == (5 if directed else 3)
    assert sum(asked["weights"]) == (9 if directed else 6)
    assert asked["resolution_parameter"] == 1.5
    with pytest.raises(ValueError, match="edge_weight must not be negative for leiden, got -1"):
        leiden(edges, torch.tensor([1.0, -1.0, 1.0, -1.0, 3.0]), num_nodes=5)


def test_leiden_itself():
    """The best known division of Zachary's network."""
    labels = leiden(KARATE)
    assert float(modularity(KARATE, None, labels)) == pytest.approx(0.4198, abs=1e-4)
    assert torch.equal(labels, leiden(KARATE))


def test_blocks_of_a_lattice():
    found = lattice_blocks(topologies.grid((4, 6), 2), (2, 3)).view(4, 6)
    assert found.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert lattice_blocks(topologies.grid(5, 1), 2).tolist() == [0, 0, 0, 1, 1]
    assert lattice_blocks(topologies.grid(3, 3), 3).tolist() == list(range(27))
    cube = lattice_blocks(topologies.grid(8, 3), 2)
    assert cube.bincount().tolist() == [64] * 8


@given(st.integers(0, 1000))
@settings(max_examples=3, deadline=None)
def test_soft_communities_learn_the_cliques(seed):
    torch.manual_seed(seed)
    soft = SoftCommunities(10, 2)
    assert torch.allclose(soft().sum(1), torch.ones(10))
    optimiser = torch.optim.Adam(soft.parameters(), 0.2)
    for _ in range(60):
        optimiser.zero_grad()
        (-modularity(CLIQUES, None, soft())).backward()
        optimiser.step()
    labels = soft.labels()
    assert (labels[:5] == labels[0]).all()
    assert (labels[5:] == 1 - labels[0]).all()


def test_soft_communities_learn_the_karate_clubs():
    soft = SoftCommunities(34, 4)
    optimiser = torch.optim.Adam(soft.parameters(), 0.03)
    for _ in range(200):
        optimiser.zero_grad()
        (-modularity(KARATE, None, soft())).backward()
        optimiser.step()
    assert float(modularity(KARATE, None, soft.labels())) >= 0.37
    assert repr(soft) == "SoftCommunities(num_nodes=34, count=4)"


def graph_and_activity(seed=1):
    s = sample(seed, True, "none", True, most=14)
    return Connectivity(Data(edge_index=s.edge_index, num_nodes=s.nodes)), torch.from_numpy(s.rng.normal(size=(3, 7, s.nodes)))


@pytest.mark.parametrize("seed", range(5))
def test_functional_weights_are_correlations(seed):
    """Against NumPy, in the order of the connectivity; a node that does not vary has none."""
    graph, activity = graph_and_activity(seed)
    found = functional_weights(graph, activity + 100)
    if graph.num_nodes > 1:
        expected = np.corrcoef(activity.reshape(-1, graph.num_nodes).numpy().T)
        assert np.abs(found.numpy() - expected[tuple(graph.edge_index.numpy())]).max(initial=0) <= 1e-12
    activity[..., 0] = 0.1
    still = functional_weights(graph, activity)
    silent = (graph.edge_index == 0).any(0)
    assert (still[silent] == 0).all()
    assert torch.allclose(still[~silent], found[~silent], atol=1e-12)


def test_functional_weights_gradient():
    graph, activity = graph_and_activity(3)
    assert torch.autograd.gradcheck(lambda a: functional_weights(graph, a), activity.requires_grad_())
    still = torch.zeros_like(activity, requires_grad=True)
    functional_weights(graph, still).sum().backward()
    assert (still.grad == 0).all()


def test_functional_weights_serve_as_weights_of_an_undirected_graph():
    """Both directions agree, so that the undirected numbers take them, in float32 as well; spikes may be booleans."""
    lattice = topologies.grid(6, 2)
    spikes = torch.rand(4, 30, 36) < 0.3
    weight = functional_weights(lattice, spikes)
    assert weight.dtype == torch.float32
    assert torch.allclose(weight.double(), functional_weights(lattice, spikes.double()), atol=1e-6)
    assert torch.isfinite(modularity(lattice.edge_index, weight.relu(), torch.arange(36) // 18))
    assert functional_weights(lattice, spikes.half()).dtype == torch.float32


LATTICE = topologies.grid(3, 2)
BAD = {
    "louvain one way": (louvain, (torch.tensor([[0], [1]]),), {}, r"both directions"),
    "louvain total": (louvain, (CLIQUES, -torch.ones(CLIQUES.shape[1])), {}, r"edge_weight must have a positive total, got -42"),
    "louvain rows": (louvain, (CLIQUES, torch.ones(2, CLIQUES.shape[1])), {}, r"edge_weight must have shape"),
    "louvain resolution": (louvain, (CLIQUES,), {"resolution": 0}, r"resolution must be a finite number > 0"),
    "louvain seed": (louvain, (CLIQUES,), {"seed": "x"}, r"seed must be an integer"),
    "blocks of no lattice": (lattice_blocks, (Data(edge_index=CLIQUES, num_nodes=10), 2), {}, r"topology must be a lattice"),
    "blocks": (lattice_blocks, (LATTICE, 4), {}, r"blocks must be an integer in \[1, 3\], got 4"),
    "blocks per axis": (lattice_blocks, (LATTICE, (1, 2, 3)), {}, r"blocks must be an int or one per axis \(2\)"),
    "soft nodes": (SoftCommunities, (0, 2), {}, r"num_nodes must be an integer >= 1"),
    "soft count": (SoftCommunities, (4, 0), {}, r"count must be an integer >= 1"),
    "activity shape": (functional_weights, (LATTICE, torch.zeros(2, 3, 8)), {}, r"activity must be a real tensor \[B, T, 9\]"),
    "activity short": (functional_weights, (LATTICE, torch.zeros(1, 1, 9)), {}, r"at least two values per node, got \(1, 1, 9\)"),
    "activity list": (functional_weights, (LATTICE, [1.0]), {}, r"activity must be .* got list"),
    "activity complex": (functional_weights, (LATTICE, torch.zeros(2, 3, 9, dtype=torch.complex64)), {}, r"got torch.complex64"),
    "activity NaN": (functional_weights, (LATTICE, torch.full((2, 3, 9), torch.nan)), {}, r"activity must be finite"),
    "graph": (functional_weights, (CLIQUES, torch.zeros(2, 3, 9)), {}, r"topology must be a torch_geometric.data.Data"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input(case):
    function, arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function(*arguments, **options)


def test_parallel_edges_add_up_for_louvain():
    doubled = torch.cat([CLIQUES, CLIQUES], 1)
    assert torch.equal(louvain(doubled, torch.full((doubled.shape[1],), 0.5, dtype=F64)), louvain(CLIQUES))
