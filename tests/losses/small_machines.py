"""Small machines, and outputs made from a given raster."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import topologies
from lmn_graph.machine import LatticeMachine, Output
from lmn_graph.projectors import Linear
from lmn_graph.projectors.base import Projector
from lmn_graph.readouts import Rate
from lmn_graph.rollout import Trajectory
from lmn_graph.rules import SpikingSOC
from lmn_graph.rules.base import UpdateRule


class Cells(NamedTuple):
    s: Tensor


class TanhStandIn(UpdateRule):
    """s ← tanh(W s + drive) on the edges of the graph: a rule that does not spike, for tests of the losses alone."""

    def __init__(self, topology, gain: float = 1.0) -> None:
        super().__init__(topology)
        self.weight = torch.nn.Parameter(gain * torch.randn(self.connectivity.num_edges) / 3)

    def initial_state(self, batch_size, *, graph=None):
        return Cells(torch.zeros(self.num_nodes, batch_size))

    def prepare(self, context=None, graph=None):
        return self.weight

    def step(self, p, state, drive):
        target, source = self.connectivity.edge_index[1], self.connectivity.edge_index[0]
        total = torch.zeros_like(state.s).index_add(0, target, p.unsqueeze(1) * state.s[source])
        s = torch.tanh(total if drive is None else total + drive)
        return Cells(s), s


class Given(Projector):
    """The input is the drive: a spiking encoder that has already run."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def project(self, x: Tensor) -> Tensor:
        return x


def machine(rule=None, *, steps: int = 12, projector=None, inject: str = "every", side: int = 4, **options) -> LatticeMachine:
    """A 2-D lattice machine of 8 inputs and 3 outputs."""
    topology = topologies.grid(side, 2)
    rule = SpikingSOC(topology, **options) if rule is None else rule(topology)
    projector = Linear((8,), topology) if projector is None else projector((topology.num_nodes,), topology)
    return LatticeMachine(topology, projector, rule, Rate(topology, 3, steps), steps=steps, inject=inject)


def output_of(raster: Tensor, state=None) -> Output:
    """An output whose activity is ``raster``."""
    return Output(torch.zeros(len(raster), 3), Trajectory(raster, state, {}), state)
