"""SnAP-k and RTRL: exact where they must be, closer to back-propagation as k grows, the same in every form, and constant in memory."""

from __future__ import annotations

import math

import pytest
import torch
from allocations import Allocations
from torch_geometric.data import Data

import topologies
from lmn_graph.learning import BPTT, RTRL, Perturbation, SnAP, compare
from lmn_graph.learning._table import TraceTable
from lmn_graph.losses import TaskLoss, TotalLoss
from lmn_graph.readouts import READOUTS
from lmn_graph.rules import FilterGrid, TanhLattice


def assert_same(got, want, **tolerance):
    assert got.keys() == want.keys()
    for name in got:
        torch.testing.assert_close(got[name], want[name], msg=lambda text, name=name: f"{name}: {text}", **(tolerance or TIGHT))


TIGHT = {"rtol": 1e-10, "atol": 1e-13}


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_single_step_is_back_propagation(circuit, machine_on, batch_for, gradients_by, k, every_step, compiler):
    """Messages within a step are exact: only memory is approximated."""
    machine = machine_on(circuit, steps=1)
    x, y = batch_for(machine)
    loss = TotalLoss(TaskLoss("regression" if y.is_floating_point() else "classification"), {}, every_step=every_step)
    assert_same(gradients_by(SnAP(k), machine, x, y, loss=loss), gradients_by(BPTT(), machine, x, y, loss=loss))


@pytest.mark.parametrize("chunk", [64, 3])
@pytest.mark.parametrize("readout", ["Shoreline", "Rate"])
def test_real_time_recurrent_learning_is_back_propagation_over_a_sequence(
    circuit, machine_on, batch_for, gradients_by, readout, chunk, compiler
):
    machine = machine_on(circuit, steps=7, readout=readout)
    x, y = batch_for(machine)
    assert_same(gradients_by(RTRL(chunk=chunk), machine, x, y), gradients_by(BPTT(), machine, x, y))


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_every_form_of_a_rule_is_the_same(circuit, machine_on, batch_for, gradients_by, monkeypatch, k, every_step):
    """The sweep against the edges, compiled traces, traces of torch, and all of these over chunks."""
    machine = machine_on(circuit, steps=8)
    x, y = batch_for(machine)
    loss = TotalLoss(TaskLoss("regression" if y.is_floating_point() else "classification"), {}, every_step=every_step)
    found = [gradients_by(SnAP(k, chunk=chunk), machine, x, y, loss=loss) for chunk in (64, 3)]
    monkeypatch.setenv("LMN_COMPILE", "never")
    found += [gradients_by(SnAP(k, chunk=chunk), machine, x, y, loss=loss) for chunk in (64, 3)]
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_rule_is_its_definition(circuit, machine_on, batch_for, gradients_by, k, compiler):
    """SnAP-k by autograd from what it leaves out, for the parameters of one cell after the other."""
    machine = machine_on(circuit, steps=4)
    x, y = batch_for(machine, 2)
    assert_same(gradients_by(SnAP(k), machine, x, y), by_definition(machine, x, y, k))


def by_definition(machine, x, y, k):
    """For the parameters of cell i only cells at most k edges away remember, and they remember nothing that came through others."""
    rule, drive = machine.rule, machine.drive(x)
    names, parameters = zip(*rule.named_parameters())
    owners = {"weight": rule.connectivity.edge_index[1], "input_weight": rule.input_index}
    task = TaskLoss("regression" if y.is_floating_point() else "classification")
    found = {f"rule.{name}": torch.zeros_like(parameter) for name, parameter in zip(names, parameters)}
    for cell in range(rule.num_nodes):
        near = within(rule.connectivity, cell, k)
        state, history = [torch.zeros(len(x), dtype=torch.float64)] * rule.num_nodes, []
        for t in range(machine.steps):
            history.append(torch.stack(walk(rule, state, drive[:, t], set())[1], 1))
            carried, _ = walk(rule, state, drive[:, t], set(range(rule.num_nodes)) - near)
            state = [s if d in near else s.detach() for d, s in enumerate(carried)]
        loss = task(machine.readout(torch.stack(history, 1)), y)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        for name, gradient in zip(names, gradients):
            mine = owners.get(name, torch.arange(rule.num_nodes)) == cell
            found[f"rule.{name}"][mine] = gradient[mine]
    return found


def within(graph, cell, k):
    near = {cell}
    for _ in range(k):
        near |= {int(target) for source, target in graph.edge_index.t() if int(source) in near}
    return near


def walk(rule, state, drive, cut):
    """One step, cell by cell from the equations; the outputs of cells in ``cut`` pass no gradient on."""
    cells, graph, n = rule.cells(), rule.connectivity, rule.num_nodes
    states, outputs = [None] * n, [None] * n
    for i in rule.circuit().order.nodes.tolist():
        heard = torch.zeros_like(state[i])
        for e in (graph.edge_index[1] == i).nonzero().flatten().tolist():
            j = int(graph.edge_index[0, e])
            heard = heard + cells.weight[e] * (outputs[j].detach() if j in cut else outputs[j])
        for p in (rule.input_index == i).nonzero().flatten().tolist():
            heard = heard + cells.input_weight[p] * drive[:, i]
        a = torch.exp(-rule.time_step / torch.exp(cells.log_tau[i]))
        states[i] = a * state[i] + (1 - a) * heard
        outputs[i] = torch.tanh(states[i] + cells.bias[i])
    return states, outputs


def test_the_rule_becomes_real_time_recurrent_learning_as_k_grows(machine_on, batch_for):
    """The angle to the exact gradient shrinks, and is none when traces reach over the longest path of the raster, 7 edges."""
    machine = machine_on(topologies.raster(5, 4), steps=12)
    x, y = batch_for(machine, 8)
    cosines = [compare(machine, x, y, SnAP(k))[-1].cosine for k in range(8)]
    assert cosines[7] == pytest.approx(1, abs=1e-12)
    assert cosines[0] < cosines[2] < cosines[4] < cosines[6]
    assert cosines[1] < 1 - 1e-6


def test_a_cell_of_a_raster_holds_eleven_traces():
    """Three of its own and four about each of its two descendants, as the source counts; at the right and lower shores one or none."""
    rows, cols = 28, 10
    rule = FilterGrid(topologies.raster(rows, cols))
    table = TraceTable(rule.circuit(), 1)
    own, about = torch.zeros(rows * cols), torch.zeros(rows * cols)
    owner = torch.cat([rule.connectivity.edge_index[1], rule.input_index, *[torch.arange(rows * cols)] * 2])[table.parameter]
    kind = torch.repeat_interleave(torch.arange(4), torch.tensor(table.sizes))[table.parameter]
    descendant = table.node != owner
    own.index_add_(0, owner[~descendant & (kind < 3)], torch.ones(int((~descendant & (kind < 3)).sum())))
    about.index_add_(0, owner[descendant], torch.ones(int(descendant.sum())))
    own, about = own.view(rows, cols), about.view(rows, cols)
    assert bool((own[1:] == 3).all())  # w_left, w_top, τ
    assert bool((own[0] == 2).all())  # nothing above
    assert bool((about[1:-1, :-1] == 8).all())
    assert bool((own + about)[1:-1, :-1].eq(11).all())
    assert bool((about[1:-1, -1] == 4).all())
    assert bool((about[-1, :-1] == 4).all())
    assert float(about[-1, -1]) == 0


def test_memory_does_not_grow_with_the_sequence(machine_on, gradients_by):
    """What is allocated beside the input: the same for 40 steps and for 400, where back-propagation takes ten times as much."""
    peaks = {}
    for rule in (SnAP(1, chunk=16), RTRL(chunk=16), BPTT()):
        for steps in (40, 400):
            machine = machine_on(topologies.raster(4, 3, output_rows=4), steps=steps)  # every node is read
            machine.readout = READOUTS["Shoreline"](machine.topology, 3, steps)
            x, y = torch.randn(2, steps, 4, dtype=torch.float64), torch.tensor([0, 2])
            rule.gradients(machine, x, y)
            with Allocations() as watched:
                rule.gradients(machine, x, y)
            peaks[repr(rule), steps] = watched.peak
    inputs = 2 * 400 * 4 * 8  # bytes of x itself, which is put into the order of the cells
    for rule in ("SnAP(1)", "RTRL()"):
        assert peaks[rule, 400] < peaks[rule, 40] + 4 * inputs
    assert peaks["BPTT()", 400] > 5 * peaks["BPTT()", 40]


def test_gradients_add_up_and_leave_alone_what_does_not_learn(machine_on, batch_for, gradients_by):
    machine = machine_on(topologies.raster(3, 3))
    x, y = batch_for(machine)
    once = gradients_by(SnAP(1), machine, x, y)
    SnAP(1).gradients(machine, x, y)
    for name, parameter in machine.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])
    machine.rule.log_tau.requires_grad_(False)
    again = gradients_by(SnAP(1), machine, x, y)
    assert machine.rule.log_tau.grad is None
    torch.testing.assert_close(again["rule.w_left"], once["rule.w_left"])
    # dead parameters stay where they are: nothing is above the first row
    assert bool((once["rule.w_top"][:3] == 0).all())


def test_hooks_and_parametrised_weights_get_the_gradient_as_from_a_backward_pass(machine_on, batch_for, gradients_by):
    """A weight that is twice a parameter, a gradient that a hook changes, a hook that waits for it."""

    class Twice(torch.nn.Module):
        def forward(self, w):
            return 2 * w

    machine, seen = machine_on(topologies.raster(4, 3)), []
    torch.nn.utils.parametrize.register_parametrization(machine.rule, "log_tau", Twice())
    machine.rule.bias.register_hook(lambda gradient: -gradient)
    machine.rule.w_left.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.clone()))
    x, y = batch_for(machine)
    assert_same(gradients_by(RTRL(), machine, x, y), gradients_by(BPTT(), machine, x, y))
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_noise_is_drawn_from_the_global_generator_and_is_as_large_as_asked(machine_on, batch_for, gradients_by, compiler):
    """The mean over many draws is the clean gradient, since noise enters linearly; the spread grows with σ."""
    machine = machine_on(topologies.raster(4, 3), steps=4)
    x, y = batch_for(machine, 2)
    clean = gradients_by(SnAP(1), machine, x, y)["rule.w_left"]
    for field in ("trace_noise", "message_noise"):
        noisy = {}
        for sigma in (0.01, 0.1):
            rule = SnAP(1, perturbation=Perturbation(**{field: sigma}))
            noisy[sigma] = torch.stack([gradients_by(rule, machine, x, y)["rule.w_left"] for _ in range(200)])
        error = noisy[0.1].std(0) / math.sqrt(200)
        assert bool(((noisy[0.1].mean(0) - clean).abs() <= 5 * error + 1e-12).all()), field
        ratio = float(noisy[0.1].std(0).norm() / noisy[0.01].std(0).norm())
        assert 8 < ratio < 12, field
        torch.manual_seed(1)
        one = gradients_by(rule, machine, x, y)["rule.w_left"]
        torch.manual_seed(1)
        assert torch.equal(gradients_by(rule, machine, x, y)["rule.w_left"], one)


def test_noise_of_messages_is_measured_where_they_enter(machine_on, batch_for, gradients_by):
    """A readout of other nodes than the ports of the graph has noise all the same."""
    machine = machine_on(topologies.raster(4, 3), steps=3)
    x, y = batch_for(machine, 2)
    machine.readout.output_index = torch.tensor([3, 7, 8])
    noisy = SnAP(1, perturbation=Perturbation(message_noise=1.0))
    assert not torch.equal(gradients_by(noisy, machine, x, y)["rule.w_left"], gradients_by(noisy, machine, x, y)["rule.w_left"])


def test_many_parallel_edges_are_as_many_weights(machine_on, batch_for, gradients_by, compiler):
    """256 of them: counted in eight bits they would be none."""
    edges = torch.tensor([[0] * 256 + [1], [1] * 256 + [2]])
    graph = Data(edge_index=edges, num_nodes=3, input_index=torch.tensor([0]), output_index=torch.tensor([2, 1]))
    machine = machine_on(graph, gain=0.1)
    x, y = batch_for(machine)
    assert_same(gradients_by(RTRL(), machine, x, y), gradients_by(BPTT(), machine, x, y))


def test_bad_input_is_named(machine_on, batch_for):
    machine = machine_on(topologies.raster(3, 3))
    x, y = batch_for(machine)
    with pytest.raises(ValueError, match="k must be an integer >= 0, got -1"):
        SnAP(-1)
    with pytest.raises(ValueError, match="chunk must be an integer >= 1, got 0"):
        RTRL(chunk=0)
    with pytest.raises(ValueError, match="perturbation must be a Perturbation, got dict"):
        SnAP(1, perturbation={"leak": 0.1})
    with pytest.raises(ValueError, match=r"leak must be a number in \[0, 1\), got 1"):
        Perturbation(leak=1)
    with pytest.raises(ValueError, match="trace_noise must be a finite number >= 0, got -1"):
        Perturbation(trace_noise=-1)
    with pytest.raises(ValueError, match=r"x must have shape \[B, 5, 3\]"):
        SnAP(1).gradients(machine, x[:, :4], y)
    with pytest.raises(ValueError, match="x must be finite"):
        SnAP(1).gradients(machine, x * torch.nan, y)
    with pytest.raises(ValueError, match=r"x must hold a sample at least, got shape \(0, 5, 3\)"):
        SnAP(1).gradients(machine, x[:0], y[:0])
    with pytest.raises(ValueError, match="loss must be finite, got nan"):
        SnAP(1).gradients(machine, x, torch.full((3, 3), math.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match="machine must be a LatticeMachine, got Linear"):
        SnAP(1).gradients(torch.nn.Linear(1, 1), x, y)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"outside of torch\.inference_mode"):
        SnAP(1).gradients(machine, x, y)
    with pytest.raises(ValueError, match="rule must be a LearningRule such as SnAP"):
        compare(machine, x, y, "snap1")
    machine.truncate = 2
    with pytest.raises(ValueError, match=r"machine\.truncate must be None for RTRL, got 2"):
        RTRL().gradients(machine, x, y)
    machine.truncate = None
    tanh = type(machine)(machine.topology, machine.projector, TanhLattice(machine.topology), machine.readout, steps=5)
    with pytest.raises(ValueError, match=r"machine\.rule must be a FilterGrid in topological order for SnAP, got TanhLattice"):
        SnAP(1).gradients(tanh, x, y)
    with pytest.raises(ValueError, match=r"got FilterGrid\(order='synchronous'\)"):
        RTRL().gradients(machine_on(topologies.raster(3, 3), order="synchronous"), x, y)


def test_what_a_local_rule_cannot_train_is_refused(machine_on, batch_for):
    from lmn_graph.losses import Activity
    from lmn_graph.projectors import PROJECTORS

    machine = machine_on(topologies.raster(3, 3))
    x, y = batch_for(machine)
    with pytest.raises(ValueError, match="loss must be on the task alone for SnAP, got the terms activity"):
        SnAP(1).gradients(machine, x, y, loss=TotalLoss(TaskLoss(), {"activity": Activity()}))
    learning = PROJECTORS["Linear"]((5, 3), machine.topology)
    driven = type(machine)(machine.topology, learning, machine.rule, machine.readout, steps=5)
    with pytest.raises(ValueError, match=r"machine\.projector must have no parameters that learn for SnAP"):
        SnAP(1).gradients(driven, x.float(), y)
