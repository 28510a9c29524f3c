"""Small machines of filter cells, with and without a C++ compiler."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.rules import FilterGrid


def random_dag() -> Data:
    """13 nodes, edges only upwards, so that paths of different lengths lead to the same node; unsorted; some hear nothing."""
    generator = torch.Generator().manual_seed(5)
    pairs = torch.combinations(torch.arange(13))
    edges = pairs[torch.randperm(len(pairs), generator=generator)[:26]].t()
    return Data(
        edge_index=edges,
        num_nodes=13,
        input_index=torch.tensor([0, 4, 2]),
        output_index=torch.tensor([12, 9, 11, 5]),
        name="dag",
    )


def weighted_chain() -> Data:
    graph = topologies.from_networkx(nx.path_graph(5, create_using=nx.DiGraph))
    graph.edge_weight = torch.tensor([0.5, -1.0, 2.0, 1.5])
    graph.input_index, graph.output_index = torch.tensor([0]), torch.tensor([4, 1])
    return graph


def isolated() -> Data:
    """A port that is input and output at once, and no edge at all."""
    none = torch.empty(2, 0, dtype=torch.long)
    return Data(edge_index=none, num_nodes=3, input_index=torch.tensor([1]), output_index=torch.tensor([1, 2]), name="isolated")


def one_node() -> Data:
    none = torch.empty(2, 0, dtype=torch.long)
    return Data(edge_index=none, num_nodes=1, input_index=torch.tensor([0]), output_index=torch.tensor([0]), name="one node")


CIRCUITS = {
    "raster": lambda: topologies.raster(5, 4),
    "one row": lambda: topologies.raster(1, 4),
    "one column": lambda: topologies.raster(4, 1),
    "tree": lambda: topologies.tree(2, 3),
    "dag": random_dag,
    "chain": weighted_chain,
    "isolated": isolated,
    "one node": one_node,
}


@pytest.fixture(params=list(CIRCUITS))
def circuit(request: pytest.FixtureRequest) -> Data:
    """Every acyclic graph with ports in turn."""
    return CIRCUITS[request.param]()


@pytest.fixture(params=["compiled", "plain"])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the compiled loops, and as where there is no compiler."""
    if request.param == "plain":
        monkeypatch.setenv("LMN_COMPILE", "never")
    return request.param


@pytest.fixture
def machine_on():
    """``machine_on(topology, steps)``: a machine of filter cells in double precision, its classes the output ports."""

    def build(topology: Data, steps: int = 5, readout: str = "Shoreline", **options) -> LatticeMachine:
        ports, classes = topology.input_index.numel(), topology.output_index.numel()
        projector = PROJECTORS["Stream"]((steps, ports), topology, gain=2.0)
        rule = FilterGrid(topology, **options)
        return LatticeMachine(topology, projector, rule, READOUTS[readout](topology, classes, steps), steps=steps).double()

    return build


@pytest.fixture
def batch_for():
    """``batch_for(machine)``: inputs and targets; class numbers where there are several classes, else values."""

    def draw(machine: LatticeMachine, size: int = 3):
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(size, *machine.projector.in_shape, generator=generator, dtype=torch.float64)
        classes = machine.readout.out_features
        if classes == 1:
            return x, torch.randn(size, 1, generator=generator, dtype=torch.float64)
        return x, torch.randint(classes, (size,), generator=generator)

    return draw


@pytest.fixture
def gradients_by():
    """``gradients_by(rule, machine, x, y)`` → the gradient of every parameter by name."""

    def run(rule, machine, x, y, **options):
        machine.zero_grad()
        rule.gradients(machine, x, y, **options)
        return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in machine.named_parameters()}

    return run
