"""Filter cells in topological order: levels, the scan in both forms, gradients of two orders, against the equations cell by cell."""

from __future__ import annotations

import copy

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops._order import Order
from lmn_graph.ops.filter_scan import BLOCK, Cells, Circuit, by_level, filter_scan, pull_back, scan


def dag(nodes, density, seed):
    """A random acyclic graph whose numbers say nothing about the order."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(nodes)) if nodes > 1 else torch.empty(0, 2, dtype=torch.long)
    kept = pairs[torch.rand(len(pairs), generator=generator) < density]
    names = torch.randperm(nodes, generator=generator)
    edges = names[kept][torch.randperm(len(kept), generator=generator)].t()
    return Data(edge_index=edges.contiguous().view(2, -1), num_nodes=nodes)


def cells_for(circuit, generator, dtype=torch.float64):
    n, e, p = circuit.connectivity.num_nodes, circuit.connectivity.num_edges, len(circuit.input_index)
    drawn = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (e, p, n, n))
    weight, input_weight, log_tau, bias = (part.to(dtype).requires_grad_() for part in drawn)
    return Cells(weight, input_weight, log_tau, bias, 0.7)


def by_the_equations(circuit, cells, start, x):
    """A loop over steps, and in each over cells."""
    graph = circuit.connectivity
    order = nx.topological_sort(nx.MultiDiGraph([(int(i), int(j)) for i, j in graph.edge_index.t()])) if graph.num_edges else []
    order = [*order, *(set(range(graph.num_nodes)) - set(graph.edge_index.flatten().tolist()))]
    state, states, outputs = list(start), [], []
    for t in range(x.size(1)):
        y = [None] * graph.num_nodes
        for i in order:
            heard = torch.zeros_like(start[0])
            for e in (graph.edge_index[1] == i).nonzero().flatten().tolist():
                heard = heard + cells.weight[e] * y[int(graph.edge_index[0, e])]
            for p in (circuit.input_index == i).nonzero().flatten().tolist():
                heard = heard + cells.input_weight[p] * x[p, t]
            a = torch.exp(-cells.time_step / torch.exp(cells.log_tau[i]))
            state[i] = a * state[i] + (1 - a) * heard
            y[i] = torch.tanh(state[i] + cells.bias[i])
        states.append(torch.stack(state))
        outputs.append(torch.stack(y))
    return torch.stack(states, 1), torch.stack(outputs, 1)


def case(topology, ports, steps, batch_size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    circuit = Circuit(Connectivity(topology), torch.tensor(ports))
    cells = cells_for(circuit, generator)
    start = torch.randn(circuit.connectivity.num_nodes, batch_size, generator=generator, dtype=torch.float64).requires_grad_()
    x = torch.randn(len(ports), steps, batch_size, generator=generator, dtype=torch.float64).requires_grad_()
    return circuit, cells, start, x


def derivatives(outputs, wanted, weights):
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights))
    return torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)


CASES = {
    "raster": lambda: case(topologies.raster(4, 3), [0, 3, 6, 9], 5),
    "tree": lambda: case(topologies.tree(3), list(range(7, 15)), 4),
    "dag": lambda: case(dag(15, 0.25, 1), [3, 11], 6),
    "dense dag": lambda: case(dag(9, 1.0, 2), [0], 3),
    "parallel edges": lambda: case(Data(edge_index=torch.tensor([[0, 0, 1], [1, 1, 2]]), num_nodes=4), [0, 3], 3),
    "no edges": lambda: case(Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=3), [1], 3),
    "one node": lambda: case(Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=1), [0], 1, 1),
    "longer than a block": lambda: case(topologies.raster(2, 2), [0, 2], BLOCK + 7, 1),
}
every_case = pytest.mark.parametrize("made", [pytest.param(made, id=name) for name, made in CASES.items()])
forms = pytest.mark.parametrize("form", [filter_scan, by_level])


@forms
@every_case
def test_states_outputs_and_all_gradients_are_those_of_the_equations(made, form):
    """To 1e-12 in double precision: of weights, input weights, time constants, biases, the start and the input; of both outputs."""
    circuit, cells, start, x = made()
    wanted = [*cells[:4], start, x]
    expected = by_the_equations(circuit, cells, start, x)
    found = form(circuit, cells, start, x)
    weights = [torch.randn(part.shape, dtype=torch.float64) for part in expected]
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for chosen in (slice(0, 1), slice(1, 2), slice(0, 2)):  # states alone, outputs alone, both
        pairs = zip(
            derivatives(form(circuit, cells, start, x)[chosen], wanted, weights[chosen]),
            derivatives(expected[chosen], wanted, weights[chosen]),
        )
        for got, want in pairs:
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)
        expected = by_the_equations(circuit, cells, start, x)


@settings(max_examples=25)
@given(nodes=st.integers(1, 12), density=st.floats(0, 1), steps=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_any_acyclic_graph(nodes, density, steps, seed):
    circuit, cells, start, x = case(dag(nodes, density, seed), [seed % nodes], steps, seed=seed)
    expected = by_the_equations(circuit, cells, start, x)
    weights = [torch.randn(part.shape, dtype=torch.float64) for part in expected]
    wanted = [*cells[:4], start, x]
    want = derivatives(expected, wanted, weights)
    for form in (filter_scan, by_level):
        found = form(circuit, cells, start, x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(derivatives(found, wanted, weights), want, rtol=1e-10, atol=1e-11)


@forms
def test_second_derivatives(form):
    circuit, cells, start, x = case(topologies.raster(2, 3), [0, 3], 3)
    inputs = [*cells[:4], start, x]

    def outputs(*tensors):
        return form(circuit, Cells(*tensors[:4], cells.time_step), *tensors[4:])

    assert torch.autograd.gradcheck(outputs, inputs)
    assert torch.autograd.gradgradcheck(outputs, inputs)


def test_the_sweep_over_all_hops_is_back_propagation():
    """Memory of as many cells as a path has is all memory there is."""
    circuit, cells, start, x = case(topologies.raster(4, 3), [0, 3, 6, 9], 6)
    with torch.no_grad():
        s, y = scan(circuit, cells, start, x)
        grad = torch.randn_like(y)
        whole = pull_back(circuit, cells, start, x, s, y, grad)
        torch.testing.assert_close(pull_back(circuit, cells, start, x, s, y, grad, hops=5), whole)
        short = pull_back(circuit, cells, start, x, s, y, grad, hops=0)
    assert not torch.allclose(short.weight, whole.weight)


def test_single_precision_is_as_good_as_it_can_be():
    """Against double precision, 28 × 10 over 28 steps with inputs of 10."""
    circuit, cells, start, x = case(topologies.raster(28, 10), list(range(0, 280, 10)), 28, 4)
    exact = filter_scan(circuit, cells, start, 10 * x)[1]
    single = filter_scan(circuit, cells.to(torch.float32), start.float(), 10 * x.float())[1]
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_half_precision_empty_batches_vmap_and_tangents_take_the_plain_way():
    circuit, cells, start, x = case(topologies.raster(2, 2), [0, 2], 3)
    want = filter_scan(circuit, cells, start, x)[1]
    many = torch.stack([x, 2 * x]).detach()
    mapped = torch.vmap(lambda one: filter_scan(circuit, cells, start, one)[1])(many)
    torch.testing.assert_close(mapped[0], want)
    along = torch.randn_like(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(filter_scan(circuit, cells, start, forward_ad.make_dual(x, along))[1]).tangent
    step = 1e-6
    ends = [filter_scan(circuit, cells, start, x + sign * step * along)[1] for sign in (1, -1)]
    torch.testing.assert_close(tangent, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-8)
    copy.deepcopy(circuit)  # nothing of a transform stays in it
    half = filter_scan(circuit, cells.to(torch.bfloat16), start.bfloat16(), x.bfloat16())[1]
    torch.testing.assert_close(half.double(), want, rtol=0, atol=0.1)
    assert filter_scan(circuit, cells, start[:, :0], x[:, :, :0])[1].shape == (4, 3, 0)


def test_what_was_given_is_not_changed_and_need_not_be_contiguous():
    circuit, cells, start, x = case(topologies.raster(3, 2), [0, 2, 4], 4)
    with torch.no_grad():
        transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
        kept = [part.clone() for part in (*cells[:4], start, transposed)]
        torch.testing.assert_close(filter_scan(circuit, cells, start, transposed), filter_scan(circuit, cells, start, x))
        for part, before in zip((*cells[:4], start, transposed), kept):
            assert torch.equal(part, before)


@pytest.mark.parametrize("compiler", ["auto", "never"])
def test_a_circuit_first_run_in_inference_mode_can_be_trained(compiler, monkeypatch):
    monkeypatch.setenv("LMN_COMPILE", compiler)
    circuit, cells, start, x = case(topologies.raster(3, 2), [0, 2, 4], 3)
    with torch.inference_mode():
        by_level(circuit, cells, start, x)
        value = filter_scan(circuit, cells, start, x)[1].clone()
    found = filter_scan(circuit, cells, start, x)[1]
    torch.testing.assert_close(found.detach(), value)
    (gradient,) = torch.autograd.grad(found.square().sum(), cells.weight, create_graph=True)
    assert bool((torch.autograd.grad(gradient.sum(), x)[0] != 0).any())


def test_autocast_does_not_round():
    circuit, cells, start, x = case(topologies.raster(3, 2), [0, 2, 4], 3)
    single = cells.to(torch.float32), start.float(), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = [filter_scan(circuit, *single), by_level(circuit, *single)]
    for s, y in found[:1]:
        torch.testing.assert_close((s, y), by_level(circuit, *single), rtol=0, atol=1e-6)


@pytest.mark.parametrize("log_tau", [-100.0, 60.0])
def test_extreme_time_constants_leave_finite_gradients(log_tau):
    """A cell that forgets at once, one that never changes."""
    circuit, cells, start, x = case(topologies.raster(2, 2), [0, 2], 3)
    cells = Cells.of([part.detach().float().requires_grad_() for part in cells[:4]], cells.time_step)
    with torch.no_grad():
        cells.log_tau.fill_(log_tau)
    for form in (filter_scan, by_level):
        y = form(circuit, cells, start.detach().float(), x.detach().float())[1]
        for gradient in torch.autograd.grad(y.sum(), cells[:4]):
            assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"weight": torch.zeros(3)}, r"weight must be torch.float64 \[4\] for this circuit, got torch.float32 \[3\]"),
        ({"log_tau": torch.zeros(4)}, r"log_tau must be torch.float64 \[4\] for this circuit, got torch.float32 \[4\]"),
        ({"start": torch.zeros(4, 5, dtype=torch.float64)}, r"start must be torch.float64 \[4, 2\]"),
        ({"x": torch.zeros(3, 3, 2, dtype=torch.float64)}, r"x must have shape \[2, T, B\] with T >= 1, got \(3, 3, 2\)"),
        ({"x": torch.zeros(2, 0, 2, dtype=torch.float64)}, r"x must have shape \[2, T, B\] with T >= 1"),
    ],
)
def test_what_does_not_fit_is_named(broken, message):
    """Loops in C++ look at nothing themselves."""
    circuit, cells, start, x = case(topologies.raster(2, 2), [0, 2], 3)
    parts = {**cells._asdict(), "start": start, "x": x, **broken}
    start, x = parts.pop("start"), parts.pop("x")
    with pytest.raises(ValueError, match=message):
        filter_scan(circuit, Cells(**parts), start, x)


def test_an_integer_time_step_is_a_number_like_any_other():
    circuit, cells, start, x = case(topologies.raster(2, 2), [0, 2], 3)
    found = filter_scan(circuit, cells._replace(time_step=1), start, x)
    torch.testing.assert_close(found, by_level(circuit, cells._replace(time_step=1.0), start, x))


@pytest.mark.parametrize("seed", range(4))
def test_levels_are_networkxs_generations(seed):
    graph = dag(20, 0.15, seed)
    order = Order.of(Connectivity(graph))
    expected = nx.DiGraph([(int(i), int(j)) for i, j in graph.edge_index.t()])
    expected.add_nodes_from(range(20))
    assert [sorted(part) for part in nx.topological_generations(expected)] == [part.tolist() for part in order.nodes.split(order.sizes)]
    assert torch.equal(order.nodes[order.place], torch.arange(20))
    spans = {order.level[int(j)] - order.level[int(i)] for i, j in graph.edge_index.t()}
    assert order.is_graded == (spans <= {1})


def test_rasters_and_trees_are_graded_and_a_shortcut_is_not():
    assert Order.of(Connectivity(topologies.raster(5, 4))).is_graded
    assert Order.of(Connectivity(topologies.tree(3, 3))).is_graded
    assert not Order.of(Connectivity(Data(edge_index=torch.tensor([[0, 1, 0], [1, 2, 2]]), num_nodes=3))).is_graded


def test_a_cycle_is_named():
    graph = Data(edge_index=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 1, 0]]), num_nodes=5)
    with pytest.raises(ValueError, match=r"topology must have no cycle, got (1 -> 2 -> 3 -> 1|2 -> 3 -> 1 -> 2|3 -> 1 -> 2 -> 3)$"):
        Order.of(Connectivity(graph))
