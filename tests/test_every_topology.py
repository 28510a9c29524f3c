"""Every registered rule, projector and readout on every registered topology. Whatever is registered is tested by being registered."""

from __future__ import annotations

import functools
import inspect
import itertools
import pickle
from typing import NamedTuple

import pytest
import torch
from small_projectors import TOKENS, sample, small_projector
from small_readouts import outputs, pairs
from small_topologies import arguments_of, small
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.datasets.graph_generator import GraphGenerator

import topologies
from lmn_graph import TOPOLOGIES, Connectivity, LatticeMachine, ops, rollout
from lmn_graph.readouts import READOUTS
from lmn_graph.rules import RULES, SpikingSOC, TanhLattice, UpdateRule
from lmn_graph.rules.base import _PROPERTIES

STEPS = 4


class LeakyState(NamedTuple):
    x: Tensor


class LeakyParameters(NamedTuple):
    connectivity: Connectivity
    weight: ops.EdgeWeight


class LeakyChannels(UpdateRule):
    """x ← (x + tanh(W x + drive)) / 2 with two channels: what rules with channels must find in every topology."""

    channels = 2

    def __init__(self, topology):
        super().__init__(topology)
        self.weight = torch.nn.Parameter(torch.randn(self.connectivity.num_edges))

    def initial_state(self, batch_size, *, graph=None):
        return LeakyState(self.weight.new_zeros(self.num_nodes, batch_size, 2))

    def prepare(self, context=None, graph=None):
        connectivity = self.resolve(graph)
        return LeakyParameters(connectivity, ops.EdgeWeight(connectivity, self.weight))

    def step(self, p, state, drive):
        a = self.weighted_sum(p.connectivity, state.x, p.weight)
        x = (state.x + torch.tanh(a if drive is None else a + drive)) / 2
        return LeakyState(x), x


class FeedForwardOnly(LeakyChannels):
    """A rule that half of the topologies have to refuse."""

    requires = frozenset({"acyclic", "sinks"})


KINDS = {**RULES, "LeakyChannels": LeakyChannels, "FeedForwardOnly": FeedForwardOnly}
every_topology = pytest.mark.parametrize("topology", list(TOPOLOGIES))


def test_rules_that_ask_for_much_run_on_something(tmp_path):
    """The feed-forward topologies are there, and the others are refused above."""
    met = {name for name in TOPOLOGIES if all(_PROPERTIES[p](Connectivity(small(name, tmp_path))) for p in FeedForwardOnly.requires)}
    assert {"raster", "tree"} <= met < set(TOPOLOGIES)


def run(rule, drive):
    """Activity and final state, and the gradients of a random functional of them to the drive and every parameter."""
    drive = drive.clone().requires_grad_()
    found = rollout(rule, drive, steps=STEPS)
    values = [found.activity, *found.state]
    generator = torch.Generator().manual_seed(5)
    loss = sum((value * torch.randn(value.shape, generator=generator, dtype=value.dtype)).sum() for value in values)
    wanted = [drive, *rule.parameters()]
    return values, torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)


@every_topology
@pytest.mark.parametrize("rule", list(KINDS))
def test_every_rule_runs_on_every_topology_or_names_what_it_requires(rule, topology, tmp_path):
    """Forward and backward, finite, the fast path equal to PyG's own in double precision: values and all gradients."""
    graph = small(topology, tmp_path)
    kind = KINDS[rule]
    if not all(_PROPERTIES[needed](Connectivity(graph)) for needed in kind.requires):
        with pytest.raises(ValueError, match=f"that {rule} requires"):
            kind(graph)
        return
    built = kind(graph).double()
    tail = () if built.channels is None else (built.channels,)
    drive = 1.5 * torch.rand(2, built.num_nodes, *tail, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, gradients = run(built, drive)
    assert all(bool(value.isfinite().all()) for value in (*values, *gradients))
    assert bool(gradients[0].any())
    built.reference = True
    for fast, plain in zip((*values, *gradients), itertools.chain(*run(built, drive)), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-11)


def check_machine(graph: Data, rule: UpdateRule, projector: str, readout: str, steps: int) -> bool:
    """Its prediction has its shape and is finite, its gradient to the input or the tokens too; returns whether that is not zero."""
    classes = outputs(readout, graph, 3)
    parts = (
        small_projector(projector, graph, steps=steps, channels=rule.channels),
        rule,
        READOUTS[readout](graph, classes, steps, channels=rule.channels),
    )
    x = sample(projector, 2).requires_grad_()
    prediction = LatticeMachine(graph, *parts, steps=steps)(x).prediction
    assert prediction.shape == (2, classes)
    prediction.square().sum().backward()
    assert bool(prediction.isfinite().all())
    if projector in TOKENS:
        return bool(parts[0].table.weight.grad.any())
    assert x.grad.isfinite().all()
    return bool(x.grad.any())


@every_topology
def test_every_projector_and_readout_works_on_every_topology(topology, tmp_path):
    """Lattice shape or none, ports or none: the prediction is finite and has a gradient to the input."""
    graph = small(topology, tmp_path)
    steps = graph.num_nodes + 2  # enough to cross it
    found = {pair: check_machine(graph, TanhLattice(graph), *pair, steps) for pair in pairs(list(TOPOLOGIES).index(topology))}
    assert all(found.values()), found


@pytest.mark.parametrize("topology", ["grid", "raster", "small_world"])
@pytest.mark.parametrize("rule", list(KINDS))
def test_every_projector_and_readout_works_with_every_rule(rule, topology, tmp_path):
    """On a lattice, a graph with ports and one with neither: scalar cells and channels, whatever a rule has."""
    graph, kind = small(topology, tmp_path), KINDS[rule]
    if not all(_PROPERTIES[needed](Connectivity(graph)) for needed in kind.requires):
        with pytest.raises(ValueError, match=f"that {rule} requires"):
            kind(graph)
        return
    found = [check_machine(graph, kind(graph), *pair, graph.num_nodes + 2) for pair in pairs(list(KINDS).index(rule))]
    assert all(found) or kind is SpikingSOC  # whose cells may all be silent


@every_topology
def test_every_topology_is_a_sorted_named_graph_that_documents_itself(topology, tmp_path):
    """Edges by target, then source; every [E] field in their order; the docstring has Args, Returns and Raises; the graph batches."""
    graph = small(topology, tmp_path)
    graph.validate(raise_on_error=True)
    assert isinstance(graph.name, str)
    assert Connectivity(graph).permutation is None
    for field in ("edge_weight", "edge_type", "edge_attr"):
        assert graph.get(field) is None or graph[field].size(0) == graph.num_edges
    text = inspect.getdoc(TOPOLOGIES[topology])
    for part in ("Args:", "Returns:", "Raises:"):
        assert part in text, part
    batch = Batch.from_data_list([graph, graph])
    again = Connectivity(batch)
    assert (again.num_nodes, again.num_edges) == (2 * graph.num_nodes, 2 * graph.num_edges)
    for field in ("input_index", "output_index"):
        if field in graph:
            assert torch.equal(batch[field], torch.cat([graph[field], graph[field] + graph.num_nodes]))
    torch.testing.assert_close(batch.get_example(1).edge_index, graph.edge_index)


@every_topology
def test_every_topology_is_the_same_when_made_again_and_leaves_the_global_generator_alone(topology, tmp_path):
    before = torch.random.get_rng_state()
    one, two = (small(topology, tmp_path) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.keys() == two.keys()
    assert torch.equal(one.edge_index, two.edge_index)


@every_topology
def test_every_topology_is_a_generator_for_pygs_datasets(topology, tmp_path):
    """A random one makes another graph at every call, the same series for every object made alike."""
    function = TOPOLOGIES[topology]

    def generator():
        return topologies.TopologyGenerator(function, **arguments_of(topology, tmp_path))

    assert isinstance(generator(), GraphGenerator)
    assert GraphGenerator.resolve(made := generator()) is made
    assert repr(made).startswith(f"TopologyGenerator({topology}")
    first, second = generator(), generator()
    series = [[graph.edge_index.tolist() for graph in (one(), one(), one(), one())] for one in (first, second)]
    assert series[0] == series[1]
    assert isinstance(first(), Data)
    is_random = "seed" in inspect.signature(function).parameters
    assert (len({str(edges) for edges in series[0]}) > 1) == is_random


def test_a_generator_refuses_what_its_topology_does_not_take():
    with pytest.raises(ValueError, match="topology must be a function that returns a Data, got 'grid'"):
        topologies.TopologyGenerator("grid", 3)
    with pytest.raises(ValueError, match=r"grid cannot be called with these arguments: missing a required argument: 'dim'"):
        topologies.TopologyGenerator(topologies.grid, 3)
    with pytest.raises(ValueError, match="seed must be an integer"):
        topologies.TopologyGenerator(topologies.small_world, 30, seed="x")


def test_pygs_explainer_dataset_takes_a_generator():
    from torch_geometric.datasets import ExplainerDataset

    worlds = topologies.TopologyGenerator(topologies.small_world, 30, k=4, p=0.2, seed=3)
    dataset = ExplainerDataset(worlds, motif_generator="house", num_motifs=2, num_graphs=3)
    assert len(dataset) == 3
    assert all(graph.num_nodes == 40 for graph in dataset)
    assert not torch.equal(dataset[0].edge_index, dataset[1].edge_index)


def test_a_generator_takes_its_seed_in_any_way():
    """By position, by default, within a partial, as a generator: always a series."""

    def world(n, seed=3):
        return topologies.small_world(n, p=0.5, seed=seed)

    ways = [
        topologies.TopologyGenerator(world, 30, 3),
        topologies.TopologyGenerator(world, 30),
        topologies.TopologyGenerator(world, seed=torch.Generator().manual_seed(3), n=30),
        topologies.TopologyGenerator(functools.partial(topologies.small_world, p=0.5, seed=3), 30),
        pickle.loads(pickle.dumps(topologies.TopologyGenerator(topologies.small_world, 30, p=0.5, seed=3))),
    ]
    series = [[str(make().edge_index.tolist()) for _ in range(3)] for make in ways]
    assert len(set(series[0])) == 3
    assert all(one == series[0] for one in series)
    assert repr(ways[0]) == "TopologyGenerator(world, 30, 3)"
    assert repr(ways[3]) == "TopologyGenerator(small_world, 30)"


def test_a_topology_without_a_name_is_refused_by_what_it_is():
    class Maker:
        def __call__(self, n):
            return topologies.ring(n)

        def __repr__(self):
            return "a maker"

    assert repr(topologies.TopologyGenerator(Maker(), 4)) == "TopologyGenerator(a maker, 4)"
    with pytest.raises(ValueError, match="a maker cannot be called with these arguments"):
        topologies.TopologyGenerator(Maker())


@pytest.mark.parametrize("topology", [name for name, function in TOPOLOGIES.items() if "seed" in inspect.signature(function).parameters])
def test_a_seed_is_the_same_graph_under_every_default_dtype(topology, tmp_path):
    """Random numbers are drawn in double precision whatever the floats of the graph are; bfloat16 works as well."""
    found = {}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            found[dtype] = [TOPOLOGIES[topology](**{**arguments_of(topology, tmp_path), "seed": seed}) for seed in range(3)]
        finally:
            torch.set_default_dtype(torch.float32)
    for one, *others in zip(*found.values()):
        for other in others:
            assert torch.equal(other.edge_index, one.edge_index)
            if one.pos is not None:
                torch.testing.assert_close(other.pos, one.pos, check_dtype=False, rtol=1e-2, atol=1e-2)
    assert all(data.pos is None or data.pos.dtype == dtype for dtype, graphs in found.items() for data in graphs)


class Elsewhere(torch.Generator):
    """A generator of another device, on a machine that has none."""

    device = torch.device("cuda", 0)


def test_a_generator_of_another_device_is_refused():
    for make in (
        lambda seed: topologies.small_world(9, seed=seed),
        lambda seed: topologies.DegreePreservingRewire(seed=seed),
        lambda seed: topologies.TopologyGenerator(topologies.liquid, seed=seed),
    ):
        with pytest.raises(ValueError, match=r"^seed must be an integer or a torch\.Generator of the CPU.*got one of cuda:0"):
            make(Elsewhere())
