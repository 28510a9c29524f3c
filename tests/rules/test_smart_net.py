"""Columns step by themselves; attention after every step is the only way from one to another."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch_geometric.data import Data

import topologies
from lmn_graph import rollout
from lmn_graph.rules import RelativisticCA, SmartNet, SpikingSOC, TanhLattice

COLUMNS = topologies.columns(3, topologies.grid(4, 1))


def mixing(rule):
    with torch.no_grad():
        rule.attention.outward.normal_(generator=torch.Generator().manual_seed(3))
    return rule


@pytest.mark.parametrize("cell", ["RelativisticCA", TanhLattice, partial(RelativisticCA, leak=0.5)], ids=str)
def test_before_attention_is_learned_it_is_the_rule_inside(cell, normal):
    rule = SmartNet(COLUMNS, cell=cell).double()
    drive = normal(2, 12)
    assert torch.equal(rollout(rule, drive, steps=4).activity, rollout(rule.inner, drive, steps=4).activity)


def test_nothing_but_attention_passes_between_columns(normal):
    drive = normal(2, 12)
    other = drive.clone()
    other[:, :4] += 1  # column 0
    for rule, passes in ((SmartNet(COLUMNS).double(), False), (mixing(SmartNet(COLUMNS).double()), True)):
        difference = (rollout(rule, drive, steps=3).activity - rollout(rule, other, steps=3).activity).abs()
        assert bool((difference[:, :, 4:] > 0).any()) == passes
        assert bool((difference[:, :, :4] > 0).any())


def test_a_step_is_the_rule_and_then_attention_over_columns(normal):
    rule = mixing(SmartNet(COLUMNS, heads=2).double())
    state = rule.initial_state(3)._replace(x=normal(12, 3))
    _, h = rule.inner(state, None)
    tokens = torch.stack([h[4 * c : 4 * c + 4].t() for c in range(3)], 1)  # [B, columns, cells]
    expected = h + torch.cat([part.t() for part in rule.attention(tokens).unbind(1)])
    after, activity = rule(state)
    torch.testing.assert_close(activity, expected)
    assert torch.equal(after.x, activity)


def test_columns_may_be_numbered_in_any_order(normal):
    """The tokens are the columns as the graph numbers them, wherever their nodes are."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))  # new number of every node
    column = torch.empty(12, dtype=torch.long).scatter(0, order, COLUMNS.column)
    moved = Data(edge_index=order[COLUMNS.edge_index], num_nodes=12, column=column)
    rule = mixing(SmartNet(moved).double())
    x = normal(12, 2)
    expected = rule.inner(rule.inner.initial_state(2)._replace(x=x), None)[1].detach()
    mixed = rule.attention(torch.stack([expected[moved.column == c].t() for c in range(3)], 1))
    for c in range(3):
        expected[moved.column == c] += mixed[:, c].t()
    torch.testing.assert_close(rule(rule.initial_state(2)._replace(x=x))[1], expected)


def test_a_graph_without_columns_is_one(lattice, normal):
    assert SmartNet(lattice).members.shape == (1, 16)


def test_gradients_reach_the_rule_and_the_attention(normal):
    rule = mixing(SmartNet(COLUMNS).double())
    rollout(rule, normal(2, 12), steps=3).activity.square().sum().backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in rule.parameters())
    assert rule.learned_weight() is rule.inner.weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "TanhLatice"}, "cell must be the name of a rule, got 'TanhLatice'; did you mean 'TanhLattice'"),
        ({"cell": SpikingSOC}, "cell must be the name or class of a rule of scalar cells that does not spike"),
        ({"cell": partial(TanhLattice, channels=2)}, "cell must be the name or class of a rule of scalar cells"),
        ({"cell": 3}, "cell must be the name or class of a rule of scalar cells that does not spike.*got 3"),
        ({"heads": 5, "width": 4}, r"heads must divide the width of attention \(4\), got 5"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        SmartNet(COLUMNS, **options)


def test_columns_of_different_sizes_are_refused():
    graph = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3, column=torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match=r"topology\.column must make columns of one size, got sizes 1 to 2"):
        SmartNet(graph)
    graph.column = torch.tensor([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"topology\.column must hold an integer per node \[3\], got torch.float32 \(3,\)"):
        SmartNet(graph)
