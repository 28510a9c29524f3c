"""Analog filter cells: exact against the loop over a raster and closed forms, on any acyclic graph, in either order."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data

import topologies
from lmn_graph import LatticeMachine, rollout
from lmn_graph.learning import sgd
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.rules import FilterGrid


def raster_loop(rule, x):
    """grid-neurons' own order: time steps, then rows, then columns; x [B, T, rows]."""
    rows, cols = rule.connectivity.shape
    a = torch.exp(-rule.time_step / rule.log_tau.exp())
    zero = torch.zeros(len(x), dtype=x.dtype)
    state, history = [zero] * (rows * cols), []
    for t in range(x.size(1)):
        y = []
        for i in range(rows):
            for j in range(cols):
                k = i * cols + j
                heard = rule.w_left[k] * (y[k - 1] if j else x[:, t, i]) + rule.w_top[k] * (y[k - cols] if i else zero)
                state[k] = a[k] * state[k] + (1 - a[k]) * heard
                y.append(torch.tanh(state[k] + rule.bias[k]))
        history.append(torch.stack(y, 1))
    return torch.stack(history, 1), torch.stack(state)


def drive_of(rule, x):
    return x.new_zeros(*x.shape[:2], rule.num_nodes).index_copy(2, rule.input_index, x)


@pytest.mark.parametrize("how", ["compiled", "plain", "reference", "step by step"])
@pytest.mark.parametrize("shape", [(6, 5), (1, 4), (5, 1), (1, 1)])
def test_a_raster_is_the_plain_loop(shape, how, monkeypatch):
    """Outputs, the final state and all gradients to 1e-12: at once, without a compiler, by PyG's propagate, and one step at a time."""
    if how == "plain":
        monkeypatch.setenv("LMN_COMPILE", "never")
    rule = FilterGrid(topologies.raster(*shape)).double()
    rule.reference = how == "reference"
    x = (2 * torch.randn(3, 9, shape[0], dtype=torch.float64)).requires_grad_()
    activity, state = raster_loop(rule, x)
    if how == "step by step":
        carried, steps = rule.initial_state(3), []
        for t in range(9):
            carried, y = rule(carried, drive_of(rule, x)[:, t].t())
            steps.append(y.t())
        found, last = torch.stack(steps, 1), carried.s
    else:
        trajectory = rollout(rule, drive_of(rule, x), steps=9)
        found, last = trajectory.activity, trajectory.state.s
    torch.testing.assert_close(found, activity, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, state, rtol=0, atol=1e-12)
    weight = torch.randn_like(activity)
    wanted = [x, *rule.parameters()]
    for got, want in zip(
        *(torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True, materialize_grads=True) for y in (found, activity))
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_a_cell_is_the_exact_filter_of_a_held_input():
    """One cell with constant input x: s(t) = w x (1 − exp(−tΔt/τ)), the step response of a first-order low-pass, at any step width."""
    graph = topologies.raster(1, 1)
    for time_step in (1e-4, 1e-3, 0.5):
        rule = FilterGrid(graph, time_step=time_step, tau=(5e-3, 5e-3), bias=0).double()
        torch.nn.init.constant_(rule.w_left, 0.8)
        found = rollout(rule, torch.full((1, 1), 0.5, dtype=torch.float64), steps=20, record=("s",))
        times = time_step * torch.arange(1, 21, dtype=torch.float64)
        torch.testing.assert_close(found.recorded["s"].flatten(), 0.4 * (1 - torch.exp(-times / rule.log_tau.exp().detach())))
        torch.testing.assert_close(found.activity, torch.tanh(found.recorded["s"]))


def test_the_raster_of_the_source_has_1120_parameters_of_which_the_dead_ones_are_kept():
    rule = FilterGrid(topologies.raster(28, 10))
    assert {name: tuple(p.shape) for name, p in rule.named_parameters()} == dict.fromkeys(("log_tau", "bias", "w_left", "w_top"), (280,))
    assert sum(p.numel() for p in rule.parameters()) == 1120
    x = torch.randn(2, 5, 28)
    gradients = torch.autograd.grad(rollout(rule, drive_of(rule, x), steps=5).activity.sum(), [rule.w_left, rule.w_top])
    assert bool((gradients[0] != 0).all())
    assert bool((gradients[1][:10] == 0).all())  # nothing above the first row
    assert bool((gradients[1][10:] != 0).all())


def test_parameters_start_as_in_the_source():
    """τ log-uniform in [1, 20] ms, weights normal / √2, biases normal · 0.05."""
    rule = FilterGrid(topologies.raster(100, 100))
    rule.requires_grad_(False)
    tau = rule.log_tau.exp()
    assert 1e-3 <= float(tau.min()) < 1.05e-3
    assert 19e-3 < float(tau.max()) <= 20e-3
    assert float(rule.log_tau.mean()) == pytest.approx((math.log(1e-3) + math.log(20e-3)) / 2, abs=0.03)
    for weight, spread in ((rule.w_left, 2**-0.5), (rule.w_top, 2**-0.5), (rule.bias, 0.05)):
        assert float(weight.std()) == pytest.approx(spread, rel=0.05)
        assert abs(float(weight.mean())) < 4 * spread / 100
    before = rule.w_left.clone()
    rule.reset_parameters()
    assert not torch.equal(before, rule.w_left)


def test_another_graph_has_a_weight_for_every_edge_and_port():
    graph = topologies.tree(2, 3)
    rule = FilterGrid(graph)
    assert {name: p.numel() for name, p in rule.named_parameters()} == {"log_tau": 13, "bias": 13, "weight": 12, "input_weight": 9}
    graph.edge_weight = torch.arange(12.0)
    assert torch.equal(FilterGrid(graph, gain=2.0).weight, 2 * graph.edge_weight)
    raster = topologies.raster(3, 3)
    raster.edge_weight = torch.arange(12.0)
    weighted = FilterGrid(raster)
    assert torch.equal(weighted.learned_weight(), raster.edge_weight)


def test_a_raster_whose_ports_were_moved_is_any_other_graph():
    graph = topologies.raster(3, 3)
    graph.input_index = torch.tensor([4])
    assert dict(FilterGrid(graph).named_parameters()).keys() == {"log_tau", "bias", "weight", "input_weight"}
    graph.input_index = graph.output_index.flip(0)
    assert not FilterGrid(graph).is_raster


def test_only_the_ports_hear_the_drive():
    rule = FilterGrid(topologies.raster(3, 3))
    drive = torch.randn(2, 4, 9)
    elsewhere = drive.clone()
    elsewhere[:, :, [1, 2, 4, 5, 7, 8]] = 100
    assert torch.equal(rollout(rule, drive, steps=4).activity, rollout(rule, elsewhere, steps=4).activity)


def test_synchronous_order_is_the_systolic_form():
    """Without biases a cell i + j hops away does in tick t what it does in step t − i − j of topological order, inputs being as late."""
    rows, cols, steps = 4, 3, 5
    graph = topologies.raster(rows, cols)
    at_once = FilterGrid(graph, bias=0).double()
    by_hops = FilterGrid(graph, order="synchronous").double()
    by_hops.load_state_dict(at_once.state_dict())
    x = torch.randn(2, steps, rows, dtype=torch.float64)
    ticks = steps + rows + cols - 2
    late = torch.zeros(2, ticks, rows, dtype=torch.float64)
    for row in range(rows):
        late[:, row : row + steps, row] = x[:, :, row]
    want = rollout(at_once, drive_of(at_once, x), steps=steps).activity
    found = rollout(by_hops, drive_of(by_hops, late), steps=ticks).activity
    for row in range(rows):
        for col in range(cols):
            here = slice(row + col, row + col + steps)
            torch.testing.assert_close(found[:, here, row * cols + col], want[:, :, row * cols + col])


def test_synchronous_order_takes_graphs_with_cycles():
    graph = topologies.grid(3, 2)
    graph.input_index, graph.output_index = torch.tensor([0]), torch.tensor([8])
    rule = FilterGrid(graph, order="synchronous")
    activity = rollout(rule, torch.randn(2, 9), steps=6).activity
    assert activity.shape == (2, 6, 9)
    with pytest.raises(ValueError, match=r"property 'acyclic' that FilterGrid requires: .* has not, its nodes \d+ (-> \d+ )+are a cycle"):
        FilterGrid(graph)


@pytest.mark.parametrize("options", [{"truncate": 2}, {"checkpoint": 3}, {"inject": "first"}, {"truncate": 3, "checkpoint": 2}])
def test_options_of_a_rollout_do_what_they_do_step_by_step(options):
    """The form at once against the loop of the rollout, values and gradients."""
    rule = FilterGrid(topologies.raster(4, 3)).double()
    constant = "inject" in options
    drive = torch.randn(2, *([] if constant else [7]), 12, dtype=torch.float64)
    found = []
    for reference in (False, True):
        rule.reference = reference
        trajectory = rollout(rule, drive, steps=7, record=("s", "y"), **options)
        total = trajectory.activity.square().sum() + trajectory.state.s.sum() + trajectory.recorded["s"].sum()
        found.append(
            [trajectory.activity, *trajectory.state, *trajectory.recorded.values(), *torch.autograd.grad(total, list(rule.parameters()))]
        )
    for got, want in zip(*found):
        torch.testing.assert_close(got, want)


def test_a_run_without_drive_decays():
    """Slower than the slowest time constant once the input is gone, and the same as with an input of zeros."""
    rule = FilterGrid(topologies.raster(3, 2), bias=0, tau=(1e-3, 5e-3)).requires_grad_(False)
    driven = rollout(rule, torch.ones(1, 6), steps=5)
    after = rollout(rule, None, steps=300, state=driven.state)
    assert float(driven.activity[:, -1].abs().max()) > 0.1
    assert float(after.activity[:, -1].abs().max()) < 1e-6
    assert torch.equal(after.activity, rollout(rule, torch.zeros(1, 6), steps=300, state=driven.state).activity)


@pytest.mark.parametrize("cells", [torch.float32, torch.float64])
@pytest.mark.parametrize("driven", [torch.float32, torch.float64])
def test_a_step_takes_cells_and_drive_of_either_precision(cells, driven):
    """By PyG's path as the reference; where one parameter differs from the others too."""
    rule = FilterGrid(topologies.raster(3, 3)).to(cells)
    rule.log_tau.data = rule.log_tau.data.double()
    drive = torch.randn(9, 2, dtype=driven)
    state = rule.initial_state(2)
    for _ in range(3):
        state, activity = rule(state, drive)
        rule.reference = True
        _, want = rule(state, drive)
        rule.reference = False
        _, activity = rule(state, drive)
        torch.testing.assert_close(activity, want)


def test_a_machine_reaches_from_shore_to_shore_in_one_step():
    graph = topologies.raster(5, 4)
    machine = LatticeMachine(graph, PROJECTORS["Stream"]((1, 5), graph), FilterGrid(graph), READOUTS["Shoreline"](graph, 4, 1), steps=1)
    x = torch.randn(2, 1, 5, requires_grad=True)
    assert bool((torch.autograd.grad(machine(x).prediction.sum(), x)[0] != 0).all())
    graph.input_index = graph.input_index[:1]  # the corner alone, four hops from the shore
    by_hops, projector = FilterGrid(graph, order="synchronous"), PROJECTORS["Stream"]((4, 1), graph)
    with pytest.raises(ValueError, match="steps must be at least 5"):
        LatticeMachine(graph, projector, by_hops, READOUTS["Shoreline"](graph, 4, 4), steps=4)


def test_plain_descent_moves_groups_by_their_own_steps_and_keeps_nothing():
    rule = FilterGrid(topologies.raster(3, 3))
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    optimizer = sgd(rule, 0.1)
    for parameter in rule.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, scale in {"w_left": 1, "w_top": 1, "bias": 1 / 20, "log_tau": 4}.items():
        torch.testing.assert_close(getattr(rule, name), before[name] - 0.1 * scale)
    assert not any(value is not None for state in optimizer.state.values() for value in state.values())


def test_bad_input_is_named():
    graph = topologies.raster(3, 3)
    for tau in ((0, 1), (-1, 1), (2e-3, 1e-3), (1e-3,), 1e-3, (1e-3, math.inf), (math.nan, 1)):
        with pytest.raises(ValueError, match="tau must be"):
            FilterGrid(graph, tau=tau)
    for time_step in (0, -1e-3, math.nan):
        with pytest.raises(ValueError, match="time_step must be a finite number > 0"):
            FilterGrid(graph, time_step=time_step)
    with pytest.raises(ValueError, match="order must be one of"):
        FilterGrid(graph, order="causal")
    with pytest.raises(ValueError, match="gain must be"):
        FilterGrid(graph, gain=0)
    no_ports = topologies.from_networkx(nx.path_graph(4, create_using=nx.DiGraph))
    with pytest.raises(ValueError, match=r"'ports' that FilterGrid requires: .* set topology\.input_index and topology\.output_index to"):
        FilterGrid(no_ports)
    no_ports.input_index = torch.tensor([0])
    with pytest.raises(ValueError, match=r"set topology\.output_index to the nodes that are its ports"):
        FilterGrid(no_ports)
    no_ports.output_index = torch.tensor([9])
    with pytest.raises(ValueError, match=r"topology\.output_index must hold node ids in \[0, 4\), got 9 to 9"):
        FilterGrid(no_ports)
    itself = Data(edge_index=torch.tensor([[0, 1], [1, 1]]), num_nodes=2, input_index=torch.tensor([0]), output_index=torch.tensor([1]))
    with pytest.raises(ValueError, match="its nodes 1 -> 1 are a cycle"):
        FilterGrid(itself)
    with pytest.raises(ValueError, match="drive must have shape"):
        rollout(FilterGrid(graph), torch.randn(2, 5), steps=2)
