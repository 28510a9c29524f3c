"""Losses on the structure of a graph: NetworkX's numbers, a gradient that does what it says, and what cannot be measured."""

from __future__ import annotations

import copy
import itertools
import pickle

import networkx as nx
import numpy as np
import pytest
import torch
from small_machines import TanhStandIn, machine, output_of
from torch import nn

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.graph_metrics import functional_weights, lattice_blocks, louvain
from lmn_graph.losses import ClusteringLoss, ModularityLoss, StructuralLoss, TotalLoss
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import SpikingSOC

STRUCTURAL = (ClusteringLoss, ModularityLoss)
every_loss = pytest.mark.parametrize("loss", STRUCTURAL)


def evaluate(term, m, x=None):
    term.prepare(m)
    x = torch.randn(5, 8) if x is None else x
    return term(m(x), machine=m, x=x)


def graph_of(m, weight):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(m.rule.num_nodes))
    graph.add_weighted_edges_from((u, v, w) for (u, v), w in zip(m.rule.connectivity.edge_index.T.tolist(), weight.tolist()))
    return graph


def test_clustering_loss_is_networkx_clustering_less_its_mean_over_all_shuffles():
    """On a triangle with a tail, whose 8 weights are few enough to draw many shuffles of: the mean over shuffles is met closely."""
    graph = topologies.from_edges([(0, 1), (1, 2), (2, 0), (2, 3)], undirected=True)
    rule = SpikingSOC(graph).double()
    with torch.no_grad():
        rule.weight.copy_(torch.linspace(-1, 2, 8))
    m = LatticeMachine(graph, Linear((8,), graph).double(), rule, Rate(graph, 3, 4).double(), steps=4)
    found = float(evaluate(ClusteringLoss(), m, torch.randn(2, 8, dtype=torch.float64)).detach())
    magnitude = rule.weight.detach().abs()
    own = nx.average_clustering(graph_of(m, magnitude), weight="weight")
    # Each product of a triangle needs three different edges: their expectation over all ordered triples, by brute force.
    scaled = np.cbrt((magnitude / magnitude.max()).numpy())
    triple = np.mean([np.prod(scaled[list(t)]) for t in itertools.permutations(range(8), 3)])
    plain = nx.average_clustering(graph_of(m, torch.ones(8)))
    assert found == pytest.approx(-(own - plain * triple), abs=1e-12)


@pytest.mark.parametrize("kind", ["blocks", "louvain", "given", "soft"])
def test_modularity_loss_is_networkx_modularity(kind):
    m = machine().double()
    graph = graph_of(m, m.rule.weight.detach().abs())
    known = {"blocks": lattice_blocks(m.topology, 2), "louvain": louvain(m.topology, directed=True, resolution=1.5)}
    labels = known.get(kind, torch.arange(16) % 3)
    given = {"given": labels, "soft": nn.functional.one_hot(labels).double()}.get(kind, kind)
    term = ModularityLoss(communities=given, count=2, resolution=1.5)
    parts = [set((labels == c).nonzero().flatten().tolist()) for c in labels.unique()]
    expected = nx.community.modularity(graph, parts, resolution=1.5)
    assert float(evaluate(term, m, torch.randn(5, 8, dtype=torch.float64)).detach()) == pytest.approx(-expected, abs=1e-12)


@every_loss
@pytest.mark.parametrize("on", ["weights", "activity"])
def test_a_few_steps_of_descent_raise_the_number(loss, on):
    """On weights and on co-activity; the target stops it there."""
    m, x = machine(TanhStandIn), torch.randn(20, 8)
    term = loss(on)
    term.prepare(m)
    optimizer = torch.optim.Adam([*m.parameters(), *term.parameters()], lr=0.02)
    first = float(evaluate(term, m, x).detach())
    for _ in range(40):
        optimizer.zero_grad()
        evaluate(term, m, x).backward()
        optimizer.step()
    last = float(evaluate(term, m, x).detach())
    assert last < first - 0.02
    aimed = loss(on, target=0.5)
    if loss is ModularityLoss:
        aimed.soft = term.soft
    assert float(evaluate(aimed, m, x).detach()) == pytest.approx((last + 0.5) ** 2, rel=1e-4)


def test_activity_is_the_positive_part_of_the_correlations_of_neighbours():
    raster = torch.rand(4, 6, 16, dtype=torch.float64)
    m = machine()
    correlation = np.corrcoef(raster.flatten(0, 1).T.numpy())
    source, target = m.rule.connectivity.edge_index
    expected = torch.tensor(correlation[source, target]).clamp(min=0)
    torch.testing.assert_close(ModularityLoss("activity").edge_weight(output_of(raster), m), expected)


def test_channels_are_more_samples_of_the_same_cells():
    m = machine()
    m.rule.channels = 3
    raster = torch.rand(4, 6, 16, 3, dtype=torch.float64)
    expected = functional_weights(m.rule.connectivity, raster.permute(0, 3, 1, 2).flatten(0, 1)).relu()
    torch.testing.assert_close(ClusteringLoss("activity").edge_weight(output_of(raster), m), expected)


@every_loss
def test_every_sample_has_the_loss_of_the_batch(loss):
    m, x = machine(), torch.randn(5, 8)
    term = loss()
    term.prepare(m)
    values = term.per_sample(m(x), machine=m, x=x)
    assert values.shape == (5,)
    assert values.unique().numel() == 1


@every_loss
def test_a_graph_without_any_weight_gives_nothing_and_no_nan(loss):
    """Silent neurons have no co-activity; weights may all be zero."""
    m, term = machine(), loss("activity")
    term.prepare(m)
    assert float(term(output_of(torch.zeros(2, 5, 16)), machine=m, x=None)) == 0
    with torch.no_grad():
        m.rule.weight.zero_()
    value = evaluate(loss(), m)
    value.backward()
    assert float(value.detach()) == 0
    assert m.rule.weight.grad.isfinite().all()


@every_loss
def test_what_cannot_be_measured_is_named(loss):
    fixed = machine(learn_weight=False)
    with pytest.raises(ValueError, match=f"machine.rule must learn a weight per edge for {loss.__name__} on 'weights'"):
        evaluate(loss(), fixed)
    evaluate(loss("activity"), fixed)
    with pytest.raises(ValueError, match="on must be one of 'weights', 'activity', got 'spikes'"):
        loss("spikes")
    with pytest.raises(ValueError, match="target must be a finite number, got nan"):
        loss(target=float("nan"))
    lonely = machine(side=1)
    with pytest.raises(ValueError, match="machine must have a topology with edges"):
        evaluate(loss(), lonely)


def test_bad_communities_are_named():
    m = machine()
    kinds = r"communities must be one of 'learned', 'blocks', 'louvain', or a tensor \[N\] or \[N, C\]"
    with pytest.raises(ValueError, match=f"{kinds}, got 'leiden'"):
        ModularityLoss(communities="leiden")
    with pytest.raises(ValueError, match=rf"{kinds}, got '\[0, 0,"):
        ModularityLoss(communities=[0] * 60)
    with pytest.raises(ValueError, match="count must be an integer >= 1, got 0"):
        ModularityLoss(count=0)
    with pytest.raises(ValueError, match="resolution must be a finite number > 0, got 0"):
        ModularityLoss(resolution=0)
    with pytest.raises(ValueError, match=r"communities must have one entry per node, 16, got \(5,\)"):
        evaluate(ModularityLoss(communities=torch.zeros(5, dtype=torch.long)), m)
    with pytest.raises(ValueError, match=r"communities are learned: call prepare\(machine\)"):
        ModularityLoss()(m(torch.randn(2, 8)), machine=m, x=None)
    graph = topologies.complete(5)
    m = LatticeMachine(graph, Linear((8,), graph), SpikingSOC(graph), Rate(graph, 3, 4), steps=4)
    with pytest.raises(ValueError, match="topology must be a lattice with a shape"):
        evaluate(ModularityLoss(communities="blocks"), m)


@pytest.mark.parametrize(("kind", "loss"), [("louvain", ModularityLoss), ("blocks", ModularityLoss), (None, ClusteringLoss)])
def test_what_is_kept_of_one_graph_is_not_used_for_another(kind, loss):
    """A term that has measured one machine measures the next as a fresh one does, of the same size or not."""
    options = {} if kind is None else {"communities": kind, "count": 2}
    term = loss(**options)
    machines = [machine(side=4), machine(side=4), machine(side=6)]
    other = topologies.small_world(16, k=4, p=0.3)
    other.shape = (4, 4)
    rule = SpikingSOC(other)
    machines.insert(1, LatticeMachine(other, Linear((8,), other), rule, Rate(other, 3, 4), steps=4))
    for m in machines:
        assert torch.equal(evaluate(term, m), evaluate(loss(**options), m))


@pytest.mark.cuda
@every_loss
@pytest.mark.parametrize("on", ["weights", "activity"])
def test_a_structural_loss_is_the_same_on_a_gpu(loss, on):
    m, x = machine(), torch.randn(5, 8)
    terms = [loss(on)] if loss is ClusteringLoss else [loss(on, communities=kind, count=2) for kind in ("learned", "blocks", "louvain")]
    for term in terms:
        value = float(evaluate(term, m, x).detach())
        moved, there = copy.deepcopy(m).cuda(), copy.deepcopy(term).cuda()
        assert float(evaluate(there, moved, x.cuda()).detach()) == pytest.approx(value, abs=1e-4)


def test_learned_communities_are_parameters_of_the_total_loss():
    """Prepared before an optimiser is built; saved and loaded with it."""
    m = machine()
    total = TotalLoss(terms={"modularity": ModularityLoss(count=3)})
    assert not list(total.parameters())
    total.prepare(m)
    (logits,) = total.parameters()
    assert logits.shape == (16, 3)
    total.prepare(m)
    assert next(total.parameters()) is logits
    again = TotalLoss(terms={"modularity": ModularityLoss(count=3)})
    again.prepare(m)
    again.load_state_dict(total.state_dict())
    assert torch.equal(next(again.parameters()), logits)


@every_loss
def test_copies_and_pickles_measure_the_same(loss):
    m, x = machine(), torch.randn(5, 8)
    term = loss()
    value = evaluate(term, m, x)
    for other in (copy.deepcopy(term), pickle.loads(pickle.dumps(term))):
        assert torch.equal(evaluate(other, m, x), value)


def test_a_structural_loss_of_ones_own_needs_a_value_only():
    class Total(StructuralLoss):
        """The sum of the weights."""

        def value(self, weight, machine):
            return weight.sum()

    m = machine()
    assert float(evaluate(Total(), m).detach()) == pytest.approx(-float(m.rule.weight.abs().sum().detach()), rel=1e-5)
    assert repr(Total("activity", 2.0)) == "Total(on='activity', target=2)"
