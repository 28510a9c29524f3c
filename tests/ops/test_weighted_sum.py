"""The linear sum over neighbours: it and its gradients of every order are those of gather and add, at the cost of a sparse product."""

from __future__ import annotations

import functools

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import EdgeWeight, _kernels, weighted_sum
from lmn_graph.ops._kernels import Pattern

FORMS = {"tensor": lambda connectivity, weight: weight, "prepared": EdgeWeight}
form = pytest.mark.parametrize("prepare", FORMS.values(), ids=FORMS)


def gathered(connectivity, x, weight):
    """The reference: one message per edge, added up at its target."""
    source, target = connectivity.edge_index
    message = weight.view(-1, *[1] * (x.dim() - 1)) * x[source]
    return torch.zeros_like(message[:0]).new_zeros(x.shape).index_add(0, target, message)


def assert_same(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-11, "atol": 1e-12} | tolerance))


@pytest.mark.parametrize("tail", [(1,), (3,), (8,), (2, 3), (4, 1)], ids=str)
@form
def test_values_and_gradients_equal_gather_and_add(graph, normal, prepare, tail):
    """Every graph, scalar cells and channels, one column, widths on and off the kernel's multiple of eight."""
    connectivity = Connectivity(graph)
    x, weight = normal(connectivity.num_nodes, *tail).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    factor = normal(connectivity.num_nodes, *tail)
    actual = weighted_sum(connectivity, x, prepare(connectivity, weight))
    expected = gathered(connectivity, x, weight)
    assert actual.shape == x.shape
    assert_same(actual, expected)
    for got, want in zip(
        torch.autograd.grad((actual * factor).sum(), (x, weight)), torch.autograd.grad((expected * factor).sum(), (x, weight))
    ):
        assert_same(got, want)


@pytest.mark.parametrize("tail", [(0,), (0, 3), (2, 0)], ids=str)
@form
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(graph, normal, prepare, tail):
    connectivity = Connectivity(graph)
    x, weight = normal(connectivity.num_nodes, *tail).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    y = weighted_sum(connectivity, x, prepare(connectivity, weight))
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert_same(weight.grad, torch.zeros_like(weight))


@form
def test_gradcheck_and_gradgradcheck(some_graph, normal, prepare):
    """First and second derivatives, by finite differences, to both arguments."""
    connectivity = Connectivity(some_graph)
    x, weight = normal(connectivity.num_nodes, 2).requires_grad_(), normal(connectivity.num_edges).requires_grad_()

    def twice(x, weight):
        prepared = prepare(connectivity, weight)
        return weighted_sum(connectivity, torch.tanh(weighted_sum(connectivity, x, prepared)), prepared)

    assert gradcheck(twice, (x, weight), fast_mode=True)
    assert gradgradcheck(twice, (x, weight), fast_mode=True)


@pytest.mark.parametrize("columns", [5, 100, 300])
def test_a_rollout_with_one_prepared_weight_has_the_gradient_of_plain_sums(some_graph, normal, columns):
    """The factors of many steps are collected and multiplied at once, in one piece or several."""
    connectivity = Connectivity(some_graph)
    x, weight = normal(connectivity.num_nodes, columns).requires_grad_(), normal(connectivity.num_edges).requires_grad_()

    def run(summed):
        y = x
        for _ in range(6):
            y = torch.tanh(x + summed(y))
        return torch.autograd.grad(y.square().sum(), (x, weight))

    prepared = EdgeWeight(connectivity, weight)
    found = run(lambda y: weighted_sum(connectivity, y, prepared))
    for got, want in zip(found, run(lambda y: gathered(connectivity, y, weight))):
        assert_same(got, want, rtol=1e-9, atol=1e-9)
    assert prepared.tape.passes == {}


def test_a_rollout_pays_one_sampled_product_per_256_columns(lattice, normal, monkeypatch):
    """Collecting is what makes the gradient of the weights cheap: 20 steps of 32 columns are three products, not twenty."""
    connectivity = Connectivity(lattice)
    calls = []
    kernel = _kernels.sample
    monkeypatch.setattr(_kernels, "sample", lambda *args: calls.append(args[2].size(1)) or kernel(*args))
    weight = normal(connectivity.num_edges).requires_grad_()
    prepared = EdgeWeight(connectivity, weight)
    y = normal(16, 32)
    for _ in range(20):
        y = weighted_sum(connectivity, y, prepared).tanh()
    y.sum().backward()
    assert calls == [256, 256, 128]


def step_twice(connectivity, x, prepared):
    return weighted_sum(connectivity, weighted_sum(connectivity, x, prepared).sin(), prepared).sin().sum()


def expected_gradient(connectivity, x, weight):
    plain = gathered(connectivity, gathered(connectivity, x, weight).sin(), weight).sin().sum()
    return torch.autograd.grad(plain, (x, weight))


@pytest.mark.parametrize("columns", [4, 300])
def test_factors_of_a_pass_that_wanted_other_gradients_do_not_leak(random_graph, normal, columns):
    """Backward for x alone, then for everything: the second pass sees its own factors only."""
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, columns).requires_grad_(), normal(50).requires_grad_()
    prepared = EdgeWeight(connectivity, weight)
    expected_x, expected_weight = expected_gradient(connectivity, x, weight)
    loss = step_twice(connectivity, x, prepared)
    (grad_x,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert_same(grad_x, expected_x)
    (grad_x,) = torch.autograd.grad(loss, x, retain_graph=True, create_graph=True)
    assert_same(grad_x, expected_x)
    loss.backward()
    assert_same(x.grad, expected_x)
    assert_same(weight.grad, expected_weight, rtol=1e-9)
    assert prepared.tape.passes == {}


@pytest.mark.parametrize("columns", [4, 300])
def test_a_second_backward_through_the_same_graph_gives_the_same_gradient(random_graph, normal, columns):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, columns), normal(50).requires_grad_()
    loss = step_twice(connectivity, x, EdgeWeight(connectivity, weight))
    _, expected = expected_gradient(connectivity, x.requires_grad_(), weight)
    for _ in range(3):
        assert_same(torch.autograd.grad(loss, weight, retain_graph=True)[0], expected, rtol=1e-9)


def test_two_losses_of_one_rollout_add_their_gradients(random_graph, normal):
    """One backward of the sum, two backward passes, and passes that reach different numbers of steps agree."""
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 4), normal(50).requires_grad_()
    prepared = EdgeWeight(connectivity, weight)
    early = weighted_sum(connectivity, x, prepared).sin()
    late = weighted_sum(connectivity, early, prepared).cos()
    (together,) = torch.autograd.grad(early.sum() + late.sum(), weight, retain_graph=True)
    early.sum().backward(retain_graph=True)
    late.sum().backward()
    assert_same(weight.grad, together)
    plain = gathered(connectivity, x, weight).sin()
    (expected,) = torch.autograd.grad(plain.sum() + gathered(connectivity, plain, weight).cos().sum(), weight)
    assert_same(together, expected)


def test_a_backward_inside_a_backward_does_not_disturb_it(random_graph, normal):
    """A hook that differentiates through the same prepared weights while their own backward is under way."""
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 4).requires_grad_(), normal(50).requires_grad_()
    prepared = EdgeWeight(connectivity, weight)
    other = step_twice(connectivity, x, prepared)
    middle = weighted_sum(connectivity, x, prepared).sin()
    middle.register_hook(lambda g: torch.autograd.grad(other, weight, retain_graph=True) and None)
    weighted_sum(connectivity, middle, prepared).sin().sum().backward()
    assert_same(weight.grad, expected_gradient(connectivity, x, weight)[1])


def test_create_graph_gives_gradients_that_can_be_differentiated(random_graph, normal):
    """A gradient penalty through prepared weights equals the one through gather and add."""
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 5).requires_grad_(), normal(50).requires_grad_()

    def penalty(loss):
        first = torch.autograd.grad(loss, (x, weight), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight))

    plain = gathered(connectivity, gathered(connectivity, x, weight).sin(), weight).sin().sum()
    for got, want in zip(penalty(step_twice(connectivity, x, EdgeWeight(connectivity, weight))), penalty(plain)):
        assert_same(got, want, rtol=1e-9, atol=1e-10)


def test_fixed_weights_and_fixed_states_need_no_gradient(random_graph, normal):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 3), normal(50)
    for prepare in FORMS.values():
        assert not weighted_sum(connectivity, x, prepare(connectivity, weight)).requires_grad
        live = x.clone().requires_grad_()
        weighted_sum(connectivity, live, prepare(connectivity, weight)).sum().backward()
        assert_same(live.grad, gathered_transpose(connectivity, torch.ones_like(x), weight))


def gathered_transpose(connectivity, g, weight):
    source, target = connectivity.edge_index
    return torch.zeros_like(g).index_add(0, source, weight[:, None] * g[target])


@hypothesis.given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=15), st.integers(1, 4))
def test_any_edge_list_in_any_order(nodes, edges, columns):
    """Unsorted and parallel edges: the weights given with them end at their edges, and parallel ones add up."""
    edges = [(source % nodes, target % nodes) for source, target in edges]
    generator = torch.Generator().manual_seed(len(edges))
    weight = torch.randn(len(edges), generator=generator, dtype=torch.float64)
    x = torch.randn(nodes, columns, generator=generator, dtype=torch.float64)
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    connectivity = Connectivity(Data(edge_index=index, num_nodes=nodes, edge_weight=weight))
    dense = torch.zeros(nodes, nodes, dtype=torch.float64)
    for (source, target), value in zip(edges, weight):
        dense[target, source] += value
    for prepare in FORMS.values():
        assert_same(weighted_sum(connectivity, x, prepare(connectivity, connectivity.edge_weight)), dense @ x)


@pytest.mark.parametrize("columns", [511, 512, 513, 640, 700])
def test_wide_batches_go_block_by_block(random_graph, normal, columns):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, columns).requires_grad_(), normal(50)
    y = weighted_sum(connectivity, x, EdgeWeight(connectivity, weight))
    assert y.is_contiguous()
    assert_same(y, gathered(connectivity, x, weight))
    factor = normal(13, columns)
    (y * factor).sum().backward()
    assert_same(x.grad, gathered_transpose(connectivity, factor, weight))


def test_inputs_need_not_be_contiguous(random_graph, normal):
    connectivity = Connectivity(random_graph)
    x, weight, factor = normal(6, 13).t().requires_grad_(), normal(100)[::2].requires_grad_(), normal(1, 6).expand(13, 6)
    for prepare in FORMS.values():
        y = weighted_sum(connectivity, x, prepare(connectivity, weight))
        expected = gathered(connectivity, x, weight)
        assert_same(y, expected)
        for got, want in zip(
            torch.autograd.grad((y * factor).sum(), (x, weight)), torch.autograd.grad((expected * factor).sum(), (x, weight))
        ):
            assert_same(got, want)


@form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_rounded_once(random_graph, normal, prepare, dtype):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 9).to(dtype).requires_grad_(), normal(50).to(dtype).requires_grad_()
    y = weighted_sum(connectivity, x, prepare(connectivity, weight))
    expected = weighted_sum(connectivity, x.float(), weight.float())
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    for got, want in zip(torch.autograd.grad(y.float().sum(), (x, weight)), torch.autograd.grad(expected.sum(), (x, weight))):
        assert got.dtype == dtype
        assert torch.equal(got, want.to(dtype))


@form
def test_mixed_precision_keeps_the_dtype_of_the_state(random_graph, normal, prepare):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 3).float().requires_grad_(), normal(50).requires_grad_()
    y = weighted_sum(connectivity, x, prepare(connectivity, weight))
    assert y.dtype == torch.float32
    assert torch.equal(y, gathered(connectivity, x.double(), weight).float())
    y.sum().backward()
    assert x.grad.dtype == torch.float32
    assert weight.grad.dtype == torch.float64


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_fallback_for_devices_without_kernels(graph, normal, monkeypatch, chunk, columns):
    """Gather and add in bounded blocks of edges: the same sums, values and gradients, for one block or many."""
    monkeypatch.setattr(_kernels, "_CHUNK", chunk)
    monkeypatch.setattr(_kernels, "has_kernel", lambda x: False)
    connectivity = Connectivity(graph)
    x, weight = normal(connectivity.num_nodes, columns).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    for prepare in FORMS.values():
        prepared = prepare(connectivity, weight)
        y = weighted_sum(connectivity, weighted_sum(connectivity, x, prepared), prepared)
        expected = gathered(connectivity, gathered(connectivity, x, weight), weight)
        assert_same(y, expected)
        for got, want in zip(torch.autograd.grad(y.sin().sum(), (x, weight)), torch.autograd.grad(expected.sin().sum(), (x, weight))):
            assert_same(got, want)


class Largest(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            # a sparse tensor holds its indices and values, which operations of their own made
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@form
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "fallback"])
def test_neither_a_dense_matrix_nor_a_message_per_edge_is_ever_allocated(monkeypatch, prepare, kernel):
    """Forward, backward and double backward of a rollout stay within the state, the weights and what one flush collects."""
    if not kernel:
        monkeypatch.setattr(_kernels, "has_kernel", lambda x: False)
        monkeypatch.setattr(_kernels, "_CHUNK", 4096)
    connectivity = Connectivity(topologies.grid(10, 3))
    columns = 8
    x, weight = torch.randn(1000, columns, requires_grad=True), torch.randn(26_000, requires_grad=True)
    with Largest() as largest:
        prepared = prepare(connectivity, weight)
        y = weighted_sum(connectivity, weighted_sum(connectivity, x, prepared).sin(), prepared)
        first = torch.autograd.grad(y.sum(), (x, weight), retain_graph=True)
        second = torch.autograd.grad(y.sum(), (x, weight), create_graph=True)
        sum(g.square().sum() for g in second).backward()
    assert first[1].shape == weight.shape
    assert largest.numel <= 2 * connectivity.num_edges
    assert largest.numel < connectivity.num_edges * columns < connectivity.num_nodes**2


BAD = {
    "state of another graph": (lambda x, w: (x[1:], w), r"x must be a floating-point tensor \[N, B\] or .* N = 13, got .*\(12, 2\)"),
    "vector": (lambda x, w: (x[:, 0], w), r"x must be .* got torch.float64 \(13,\)"),
    "four axes": (lambda x, w: (x[..., None, None], w), r"x must be .* got torch.float64 \(13, 2, 1, 1\)"),
    "integers": (lambda x, w: (x.long(), w), r"x must be a floating-point tensor .* got torch.int64"),
    "a list": (lambda x, w: (x.tolist(), w), r"x must be a floating-point tensor .* got list"),
    "short weights": (lambda x, w: (x, w[1:]), r"weight must be a floating-point tensor \[50\], got torch.float64 \(49,\)"),
    "weight column": (lambda x, w: (x, w[:, None]), r"weight must be .* \[50\], got torch.float64 \(50, 1\)"),
    "integer weights": (lambda x, w: (x, w.long()), r"weight must be a floating-point tensor \[50\], got torch.int64"),
    "a number": (lambda x, w: (x, 1.0), r"weight must be a floating-point tensor \[50\], got float 1.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(random_graph, normal, case):
    change, message = BAD[case]
    x, weight = change(normal(13, 2), normal(50))
    with pytest.raises(ValueError, match=message):
        weighted_sum(Connectivity(random_graph), x, weight)


def test_weights_prepared_for_another_graph_are_refused(random_graph, lattice, normal):
    connectivity = Connectivity(lattice)
    prepared = EdgeWeight(connectivity, normal(connectivity.num_edges))
    with pytest.raises(ValueError, match=r"weight must be a floating-point tensor \[50\], got torch.float64 \(128,\)"):
        weighted_sum(Connectivity(random_graph), normal(13, 2), prepared)
    ring = Data(edge_index=torch.stack([torch.arange(50), torch.arange(1, 51) % 50]), num_nodes=50)
    with pytest.raises(ValueError, match="weight must be prepared for this very connectivity, got one for a graph of 50 nodes"):
        weighted_sum(Connectivity(random_graph), normal(13, 2), EdgeWeight(Connectivity(ring), normal(50)))
    with pytest.raises(ValueError, match=r"weight must be a floating-point tensor \[128\]"):
        EdgeWeight(connectivity, normal(3))
    twin = Connectivity(lattice)  # the same size is not the same graph
    with pytest.raises(ValueError, match="this very connectivity"):
        weighted_sum(twin, normal(16, 2), prepared)


def many_graphs():
    return [topologies.grid((side, 3), 2, boundary="open") for side in range(2, 9)] + [
        topologies.grid(3, 3), topologies.grid(5, 1), topologies.grid(4, 2, metric="manhattan")
    ]  # fmt: skip


def pure_step(pattern: Pattern, x, weight, drive):
    """What a compiled step consists of: a module-level function of tensors."""
    return torch.tanh(_kernels.spmm(*pattern, weight, x, False) + drive)


def check_compiled(backend, dtype):
    compiled = torch.compile(pure_step, fullgraph=True, dynamic=True, backend=backend)
    for number, graph in enumerate(many_graphs()):
        connectivity = Connectivity(graph)
        generator = torch.Generator().manual_seed(number)
        draw = functools.partial(torch.randn, generator=generator, dtype=dtype)
        x = draw(connectivity.num_nodes, number + 2).requires_grad_()
        weight, drive = draw(connectivity.num_edges).requires_grad_(), draw(x.shape)
        found = compiled(Pattern.of(connectivity), x, weight, drive)
        expected = torch.tanh(gathered(connectivity, x, weight) + drive)
        torch.testing.assert_close(found, expected)
        for got, want in zip(torch.autograd.grad(found.sum(), (x, weight)), torch.autograd.grad(expected.sum(), (x, weight))):
            torch.testing.assert_close(got, want)


def test_a_traced_step_takes_ten_graphs_without_recompiling_itself_to_death():
    """``fullgraph=True, dynamic=True`` over more graphs than the recompilation limit allows for static shapes."""
    torch.compiler.reset()
    check_compiled("aot_eager", torch.float64)


@pytest.mark.slow
def test_a_compiled_step_takes_ten_graphs():
    """The same through the default backend, which generates and compiles C++."""
    torch.compiler.reset()
    check_compiled("inductor", torch.float32)


def test_the_checked_function_itself_can_be_traced(some_graph, normal):
    """``weighted_sum`` with its argument checks, on plain and on prepared weights, inside a compiled function."""
    torch.compiler.reset()
    connectivity = Connectivity(some_graph)
    x, weight = normal(connectivity.num_nodes, 3).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    compiled = torch.compile(weighted_sum, fullgraph=True, backend="aot_eager")
    expected = gathered(connectivity, x, weight)
    want = torch.autograd.grad(expected.sin().sum(), (x, weight))
    for prepare in FORMS.values():
        found = compiled(connectivity, x, prepare(connectivity, weight))
        assert_same(found, expected)
        for got, reference in zip(torch.autograd.grad(found.sin().sum(), (x, weight)), want):
            assert_same(got, reference)


def test_the_operators_satisfy_torchs_own_checks(random_graph, normal):
    """Schema, fake tensors and autograd registration of both custom operators, as ``torch.library.opcheck`` sees them."""
    connectivity = Connectivity(random_graph)
    pattern = Pattern.of(connectivity)
    x, g, weight = normal(13, 3).requires_grad_(), normal(13, 3).requires_grad_(), normal(50).requires_grad_()
    which = ("test_schema", "test_autograd_registration", "test_faketensor")  # tracing is tested above
    for transpose in (False, True):
        torch.library.opcheck(torch.ops.lmn_graph.spmm.default, (*pattern, weight, x, transpose), test_utils=which)
    torch.library.opcheck(torch.ops.lmn_graph.sddmm.default, (*pattern, g, x), test_utils=which)


@pytest.mark.cuda
@form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_gpu_gives_the_sums_of_the_cpu(graph, normal, prepare, dtype):
    connectivity = Connectivity(graph)
    x, weight = normal(connectivity.num_nodes, 5).to(dtype), normal(connectivity.num_edges).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        here = connectivity.to(device)
        xs, ws = x.to(device).requires_grad_(), weight.to(device).requires_grad_()
        y = weighted_sum(here, xs, prepare(here, ws))
        grads = torch.autograd.grad(y.float().square().sum(), (xs, ws))
        results.append([tensor.cpu() for tensor in (y, *grads)])
    for cpu, gpu in zip(*results):
        torch.testing.assert_close(gpu, cpu)


def test_a_state_that_leaves_the_cache_is_multiplied_block_by_block(random_graph, normal, monkeypatch):
    """Values and gradients are those of one product, whatever the last block's width."""
    graph = Connectivity(random_graph)
    weight = normal(graph.num_edges).requires_grad_()
    x = normal(graph.num_nodes, 2 * _kernels._BLOCK + 5).requires_grad_()
    g = normal(*x.shape)

    def run():
        y = weighted_sum(graph, x, EdgeWeight(graph, weight))
        return [y, *torch.autograd.grad(y, [x, weight], g)]

    whole = run()
    monkeypatch.setattr(_kernels, "_CACHED", 1)
    for blocked, expected in zip(run(), whole):
        torch.testing.assert_close(blocked, expected, rtol=1e-12, atol=1e-12)


def test_prepared_weights_follow_an_optimiser_that_changes_them_in_place(random_graph, normal):
    """The transposed copy is taken anew: values and gradients after a step are those of the new weights."""
    graph = Connectivity(random_graph)
    weight = normal(graph.num_edges).requires_grad_()
    prepared = EdgeWeight(graph, weight)
    x, g = normal(graph.num_nodes, 4).requires_grad_(), normal(graph.num_nodes, 4)
    torch.autograd.grad(weighted_sum(graph, x, prepared), x, g)
    with torch.no_grad():
        weight.mul_(-2)
    (found,) = torch.autograd.grad(weighted_sum(graph, x, prepared), x, g)
    (expected,) = torch.autograd.grad(weighted_sum(graph, x, weight.detach()), x, g)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("prepare", [False, True])
def test_forward_mode_derivatives_are_the_sums_of_the_tangents(random_graph, normal, prepare):
    """torch.func.jvp in the state and in the weights; a custom operator would give zero without a word."""
    graph = Connectivity(random_graph)
    weight, x = normal(graph.num_edges), normal(graph.num_nodes, 3)
    d_weight, d_x = normal(graph.num_edges), normal(graph.num_nodes, 3)

    def run(x, weight):
        return weighted_sum(graph, x, EdgeWeight(graph, weight) if prepare else weight)

    _, tangent = torch.func.jvp(run, (x, weight), (d_x, d_weight))
    torch.testing.assert_close(tangent, run(d_x, weight) + run(x, d_weight))
    _, tangent = torch.func.jvp(lambda x: run(x, weight) + x, (x,), (d_x,))
    torch.testing.assert_close(tangent, run(d_x, weight) + d_x)


@pytest.mark.parametrize("prepare", [False, True])
def test_autocast_leaves_the_sparse_products_alone(random_graph, prepare):
    """There are no sparse products in bfloat16: under autocast the sum and its gradients are still those of float32."""
    graph = Connectivity(random_graph)
    weight, x = torch.rand(graph.num_edges, requires_grad=True), torch.rand(graph.num_nodes, 8, requires_grad=True)
    expected = torch.autograd.grad(weighted_sum(graph, x, weight).square().sum(), [x, weight])
    with torch.autocast("cpu", torch.bfloat16):
        y = weighted_sum(graph, x, EdgeWeight(graph, weight) if prepare else weight)
        assert y.dtype == torch.float32
        found = torch.autograd.grad(y.square().sum(), [x, weight])
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want)


def test_more_edges_than_pairs_of_nodes(normal):
    """Parallel edges may outnumber the entries of a matrix, which the sampled product refuses."""
    graph = Connectivity(Data(edge_index=torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]]), num_nodes=2))
    weight, x, g = normal(5).requires_grad_(), normal(2, 3).requires_grad_(), normal(2, 3)
    found = torch.autograd.grad(weighted_sum(graph, x, EdgeWeight(graph, weight)), [x, weight], g)
    y = torch.zeros_like(x).index_add(0, graph.edge_index[1], x[graph.edge_index[0]] * weight[:, None])
    for got, want in zip(found, torch.autograd.grad(y, [x, weight], g)):
        torch.testing.assert_close(got, want)


def test_without_the_hooks_of_the_engine_every_step_has_its_own_product(random_graph, normal, monkeypatch):
    graph = Connectivity(random_graph)
    weight, x = normal(graph.num_edges).requires_grad_(), normal(graph.num_nodes, 3).requires_grad_()

    def run():
        prepared = EdgeWeight(graph, weight)
        y = weighted_sum(graph, weighted_sum(graph, x, prepared).tanh(), prepared)
        return torch.autograd.grad(y.square().sum(), [x, weight])

    expected = run()
    monkeypatch.setattr("lmn_graph.ops.weighted._COLLECTS", False)
    for got, want in zip(run(), expected):
        torch.testing.assert_close(got, want)
