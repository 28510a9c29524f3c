"""A message, update or aggregate of one's own, however it is written, equals the equation; PyG's propagate gets what they ask for."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import softmax

import topologies
from lmn_graph.rules import TanhLattice
from lmn_graph.rules.continuous import CellState


class Own(TanhLattice):
    """A rule whose step is one sum of its own."""

    def step(self, p, state, drive):
        found = self.heard(p, state.x)
        return CellState(found), found


class Attentive(Own):
    """Arguments that PyG fills in, without the types by which it could write a propagate for this class."""

    def message(self, x_i, x_j, index, ptr, size_i):
        return softmax(x_i * x_j, index, ptr, size_i) * x_j

    def heard(self, p, x):
        return self.propagated(p.connectivity, x=x)


class Shifted(Own):
    """An update with an argument that no message has."""

    def update(self, inputs, shift):
        return inputs + shift

    def heard(self, p, x):
        return self.propagated(p.connectivity, x=x, weight=p.weight.value, shift=torch.arange(20, dtype=x.dtype)[:, None])


class ShiftedAgain(Shifted):
    """A subclass of a subclass with another message."""

    def message(self, x_i, x_j, weight):
        return weight * (x_j - x_i)


class Differences:
    """A message that a rule gets from a class that is no rule."""

    @staticmethod
    def message(v_i, v_j, x_j):
        return torch.sigmoid(v_i - v_j) * x_j


class Mixed(Differences, Own):
    def heard(self, p, x):
        return self.message_sum(p.connectivity, v=x.square(), x=x)


def attention(x, w, edge):
    e = (x[:, None] * x[None]).exp() * edge[..., None]  # [target, source, B]
    return (e * x[None]).sum(1) / e.sum(1)


EXPECTED = {  # of the states [N, B], the dense weights and the dense adjacency, rows the targets
    Attentive: attention,
    Shifted: lambda x, w, edge: w @ x + torch.arange(20, dtype=x.dtype)[:, None],
    ShiftedAgain: lambda x, w, edge: w @ x - w.sum(1, keepdim=True) * x + torch.arange(20, dtype=x.dtype)[:, None],
    Mixed: lambda x, w, edge: (torch.sigmoid(x.square()[:, None] - x.square()[None]) * x[None] * edge[..., None]).sum(1),
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", EXPECTED)
def test_it_equals_the_equation(kind, shuffled, normal):
    TanhLattice(topologies.grid(3, 1))  # PyG has written the parent a propagate by now
    graph = topologies.grid((4, 5), 2, 1)
    if shuffled:
        order = torch.randperm(graph.edge_index.size(1), generator=torch.Generator().manual_seed(0))
        graph = Data(edge_index=graph.edge_index[:, order], num_nodes=20)
    x = normal(20, 3)
    rule = kind(graph).double()
    source, target = rule.connectivity.edge_index
    dense, edge = x.new_zeros(20, 20), x.new_zeros(20, 20)
    dense[target, source], edge[target, source] = rule.weight.detach(), 1.0
    for reference in (False, True):
        rule.reference = reference
        torch.testing.assert_close(rule(CellState(x))[1], EXPECTED[kind](x, dense, edge))
