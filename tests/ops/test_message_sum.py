"""Sums of any message: the same as gather and add, however computed, compiled or not, and never with a tensor of all messages."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from allocations import Allocations
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import _compiled, _slots, gated_sum, message_sum
from lmn_graph.ops._calls import EDGE, SOURCE, TARGET
from lmn_graph.rules import UpdateRule
from lmn_graph.rules.continuous import CellState


def attention(q, k, v):
    """Two values: Σ e^{qk} v and Σ e^{qk}."""
    score = torch.exp((q * k).sum(-1, keepdim=True))
    return score * v, score


def anything(a, b, x, y, length):
    """Two targets, two sources, an attribute of the edge."""
    return torch.tanh(a * x + length) * y, torch.sin(b - y) / (1 + length.square()), x * x


def of_sources(x):
    return torch.cos(x) * x


def of_targets(x):
    return x.exp()


def of_edges(x, w):
    """Does not look at x but for its shape."""
    return w.square() + 0 * x


def scaled(x_i, x_j, w):
    return w * torch.tanh(x_i - 2 * x_j)


def gathered(connectivity, message, target, source, edge=()):
    """The definition: one message per edge, added up at its target."""
    at, of = connectivity.edge_index[1], connectivity.edge_index[0]
    axes = max(t.dim() for t in (*target, *source))
    args = [t.expand(connectivity.num_nodes, *t.shape[1:])[at] for t in target]
    args += [t.expand(connectivity.num_nodes, *t.shape[1:])[of] for t in source]
    args += [t.view(*t.shape, *[1] * (axes - t.dim())) for t in edge]
    values = message(*args)
    values = values if isinstance(values, tuple) else (values,)
    found = tuple(v.new_zeros(connectivity.num_nodes, *v.shape[1:]).index_add(0, at, v.expand(at.numel(), *v.shape[1:])) for v in values)
    return found if len(found) > 1 else found[0]


def assert_same(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-10, "atol": 1e-11} | tolerance))


def derived(values, inputs, order=1):
    """The values, and the gradients of a mixture of them to every input; with order 2 also those of the gradients."""
    values = values if isinstance(values, tuple) else (values,)
    loss = sum((v * torch.linspace(-1, 2, v.numel(), dtype=v.dtype).view(v.shape)).sum() for v in values)
    first = torch.autograd.grad(loss, inputs, create_graph=order > 1, materialize_grads=True)
    if order == 1:
        return [*values, *first]
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs, materialize_grads=True)
    return [*values, *first, *second]


def assert_derived(connectivity, message, target, source, edge=(), *, order=2, compile="auto", **tolerance):
    """``message_sum`` and the definition: the same values and gradients to everything that wants one."""
    inputs = [t for t in (*target, *source, *edge) if t.requires_grad]
    found = derived(message_sum(connectivity, message, target, source, edge, compile=compile), inputs, order)
    expected = derived(gathered(connectivity, message, target, source, edge), inputs, order)
    for got, want in zip(found, expected, strict=True):
        assert_same(got, want, **tolerance)


def case(name, connectivity, normal, dtype=torch.double, columns=3):
    """A message with arguments that fit it, all wanting gradients."""
    n, e = connectivity.num_nodes, connectivity.num_edges
    b = columns
    shapes = {
        "attention": (attention, [(n, b, 2)], [(n, b, 2), (n, b, 4)], []),
        "anything": (anything, [(n, b), (n, 1)], [(n, b), (n, b)], [(e,)]),
        "what all share": (anything, [(1, b), (n, b)], [(n, 1), (n, b)], [(e, b)]),
        "sources alone": (of_sources, [], [(n, b)], []),
        "targets alone": (of_targets, [(n, b)], [], []),
        "edges alone": (of_edges, [(n, b)], [], [(e, b)]),
        "weights per channel": (scaled, [(n, b, 2)], [(n, b, 2)], [(e, 1, 2)]),
        "weights of their own": (scaled, [(n, b, 2)], [(n, b, 2)], [(e, b, 2)]),
    }
    message, *parts = shapes[name]
    return message, *([normal(*shape).to(dtype).requires_grad_() for shape in part] for part in parts)


CASES = (
    "attention", "anything", "what all share", "sources alone", "targets alone", "edges alone", "weights per channel",
    "weights of their own",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_two_orders_of_gradients_equal_the_definition(graph, normal, name):
    connectivity = Connectivity(graph)
    assert_derived(connectivity, *case(name, connectivity, normal))


def test_gradcheck_and_gradgradcheck(some_graph, normal):
    """By finite differences, independent of every formula of torch."""
    connectivity = Connectivity(some_graph)
    message, target, source, edge = case("anything", connectivity, normal, columns=2)

    def summed(a, b, x, y, w):
        return message_sum(connectivity, message, (a, b), (x, y), w)

    assert gradcheck(summed, (*target, *source, *edge), fast_mode=True)
    assert gradgradcheck(summed, (*target, *source, *edge), fast_mode=True)


def test_attention_equals_a_dense_softmax(normal):
    """On the complete graph with self-loops the quotient of the two sums is torch's own attention."""
    connectivity = Connectivity(topologies.complete(7, self_loops=True))
    q, k, v = (normal(7, 2, 3).requires_grad_() for _ in range(3))
    values, norm = message_sum(connectivity, attention, q, (k, v))
    dense = torch.nn.functional.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v)), scale=1.0).transpose(0, 1)
    for got, want in zip(derived(values / norm, [q, k, v]), derived(dense, [q, k, v])):
        assert_same(got, want)


def test_numbers_that_all_share_may_be_scalars(random_graph, normal):
    connectivity = Connectivity(random_graph)
    scale, x, w = normal().requires_grad_(), normal(13, 2).requires_grad_(), normal(50)
    found = message_sum(connectivity, scaled, scale, x, w)
    for got, want in zip(derived(found, [scale, x]), derived(gathered(connectivity, scaled, [scale.view(1, 1)], [x], [w]), [scale, x])):
        assert_same(got, want)


def test_a_gradient_of_one_of_several_values(random_graph, normal):
    """The others have none: nothing is made up for them."""
    connectivity = Connectivity(random_graph)
    message, target, source, edge = case("anything", connectivity, normal)
    inputs = [*target, *source, *edge]
    for which in range(3):
        found = message_sum(connectivity, message, target, source, edge)[which]
        expected = gathered(connectivity, message, target, source, edge)[which]
        for got, want in zip(derived(found, inputs, 2), derived(expected, inputs, 2)):
            assert_same(got, want)


@hypothesis.given(
    st.integers(1, 20), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=80), st.sampled_from([1, 1 << 5, 1 << 17])
)
def test_any_edge_list_in_any_order_and_blocks_of_any_size(nodes, edges, block):
    """A hub on top of drawn edges: many different degrees, which are written in binary; isolated nodes, loops, parallel edges."""
    edges = [(source % nodes, target % nodes) for source, target in edges] + [(i % nodes, 0) for i in range(len(edges))]
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    connectivity = Connectivity(Data(edge_index=index, num_nodes=nodes))
    generator = torch.Generator().manual_seed(len(edges))
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.double)
    x, w = draw(nodes, 2).requires_grad_(), draw(len(edges)).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmn_graph.ops._evaluate._BLOCK", block)
        assert_derived(connectivity, scaled, [x], [x], [w], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("exact", [0, 8])
def test_slots_hold_every_edge_once(graph, exact, monkeypatch):
    """Whether degrees are few or written in binary; tiles too, but for what fills the last one up."""
    monkeypatch.setattr(_slots, "_EXACT", exact)
    connectivity = Connectivity(graph)
    slots = _slots.slots_of(connectivity)
    for held, end in ((TARGET, 1), (SOURCE, 0)):
        side, other = slots.side(held), SOURCE if held == TARGET else TARGET
        seen, tiled = [], []
        for bucket in side.buckets:
            for rows, part, place in bucket.blocks(5):
                nodes = torch.arange(connectivity.num_nodes)[part] if rows is None else rows
                edges = side.at(EDGE, place)
                assert torch.equal(connectivity.edge_index[end][edges], nodes.expand_as(edges))
                assert torch.equal(connectivity.edge_index[1 - end][edges], side.at(other, place))
                seen.append(edges.flatten())
            others, edges = (bucket.tiles(what).transpose(1, 2).flatten(0, 1)[: bucket.count].long() for what in (other, EDGE))
            assert torch.equal(connectivity.edge_index[1 - end][edges], others)
            tiled.append(edges.flatten())
        for found in (seen, tiled):
            found = torch.cat(found) if found else torch.empty(0)
            assert torch.equal(found.sort().values, torch.arange(connectivity.num_edges))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_rounded_once(random_graph, normal, dtype):
    connectivity = Connectivity(random_graph)
    x, w = normal(13, 9).to(dtype), normal(50).to(dtype)
    found = message_sum(connectivity, scaled, x, x, w)
    assert found.dtype == dtype
    torch.testing.assert_close(found, message_sum(connectivity, scaled, x.float(), x.float(), w.float()).to(dtype))


def test_transforms_take_the_definition(random_graph, normal):
    connectivity = Connectivity(random_graph)
    x, w, dx = normal(13, 2), normal(50), normal(13, 2)

    def ours(x):
        return message_sum(connectivity, scaled, x, x, w)

    def definition(x):
        return gathered(connectivity, scaled, [x], [x], [w])

    for got, want in zip(torch.func.jvp(ours, (x,), (dx,)), torch.func.jvp(definition, (x,), (dx,))):
        assert_same(got, want)
    assert_same(torch.func.jacrev(ours)(x), torch.func.jacrev(definition)(x))
    assert_same(torch.func.jacfwd(ours)(x), torch.func.jacrev(definition)(x))


def returns_rank(x):
    return x.sum(-1)


def returns_number(x):
    return 1.0


def returns_integers(x):
    return x.long()


def returns_nothing(x):
    return ()


def multiplies_wrongly(x):
    return x @ torch.ones(77, 3)


_held = torch.nn.Parameter(torch.ones(1))


def holds_a_parameter(x):
    return _held * x


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


BAD = {
    "rank": ({"message": returns_rank}, r"message must return floating-point tensors with 2 axes, got torch.float32 \(0,\)"),
    "number": ({"message": returns_number}, r"message must return floating-point tensors with 2 axes, got float"),
    "integers": ({"message": returns_integers}, r"message must return floating-point tensors with 2 axes, got torch.int64 \(0, 2\)"),
    "nothing": ({"message": returns_nothing}, r"message must return at least one tensor, got none"),
    "too few arguments": ({"message": scaled}, r"message must take tensors of shapes \[\(0, 2\)\]: .*missing"),
    "wrong product": ({"message": multiplies_wrongly}, r"message must take tensors of shapes \[\(0, 2\)\]: mat1 and mat2"),
    "a parameter of its own": ({"message": holds_a_parameter}, r"message must depend on its arguments alone"),
    "not a function": ({"message": "mean"}, r"message must be a hashable function of tensors, got 'mean'"),
    "not hashable": ({"message": Unhashable()}, r"message must be a hashable function of tensors, got .*Unhashable"),
    "nodes": ({"source": torch.ones(12, 2)}, r"source\[0\] must have shape \[13, B\], \[13, 1\], got \(12, 2\)"),
    "a vector": ({"source": torch.ones(13)}, r"source\[0\] must have shape .* got \(13,\)"),
    "four axes": ({"target": (torch.ones(13, 2), torch.ones(13, 2, 2, 2))}, r"target\[1\] must have shape .* got \(13, 2, 2, 2\)"),
    "integer nodes": ({"source": torch.ones(13, 2).int()}, r"source\[0\] must be a floating-point tensor .* got torch.int32 \(13, 2\)"),
    "a list of numbers": ({"source": [1.0]}, r"source\[0\] must be a floating-point tensor .* got float"),
    "edges": ({"edge": torch.ones(49)}, r"edge\[0\] must have shape \[50\], \[50, B\], got \(49,\)"),
    "no nodes": ({"source": (), "edge": torch.ones(50)}, r"target and source must hold at least one tensor between them, got none"),
    "compile": ({"compile": True}, r"compile must be one of 'auto', 'always', 'never', got True"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(random_graph, name):
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        message_sum(Connectivity(random_graph), **({"message": of_sources, "target": (), "source": torch.ones(13, 2)} | change))


def watch_memory(connectivity, columns, compile):
    """Allocations of all gradients of two steps, once and twice differentiated, after the slots and kernels have been made."""
    x = torch.rand(connectivity.num_nodes, columns).sub_(0.5).requires_grad_()
    weight = torch.randn(connectivity.num_edges, requires_grad=True)
    alpha = torch.tensor(1.5, requires_grad=True)
    inputs = (x, weight, alpha)

    def once():
        return torch.autograd.grad(gated_sum(connectivity, x, weight, alpha, compile=compile).sin().sum(), inputs)

    def twice():
        loss = gated_sum(connectivity, x, weight, alpha, compile=compile).sin().sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        return torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)

    found = {}
    for work in (once, twice):
        work()
        with Allocations() as found[work.__name__]:
            work()
    return found


def test_the_watch_sees_a_tensor_of_all_messages():
    """What the memory tests below rely on."""
    connectivity = Connectivity(topologies.grid(10, 3))
    x, weight = torch.rand(1000, 8, requires_grad=True), torch.randn(26_000)
    with Allocations() as watched:
        gathered(connectivity, scaled, [x], [x], [weight]).sum().backward()
    assert watched.largest >= 4 * 26_000 * 8
    assert watched.peak > 3 * watched.largest


@pytest.mark.parametrize("name", ["lattice", "hubs"])
def test_no_tensor_of_all_messages_exists_in_blocks(name, monkeypatch):
    """Neither whole nor in part: nothing is larger than an array of the state, the weights or a block, and only few of them live."""
    monkeypatch.setattr("lmn_graph.ops._evaluate._BLOCK", 1 << 12)
    connectivity = Connectivity(topologies.grid(10, 3) if name == "lattice" else topologies.scale_free(800, 16, seed=0))
    columns = 16
    all_messages = 4 * connectivity.num_edges * columns
    found = watch_memory(connectivity, columns, "never")
    for watched in found.values():
        assert watched.largest <= 8 * max(connectivity.num_nodes * columns, connectivity.num_edges, 1 << 12)
        assert watched.largest < all_messages / 8
    assert found["once"].peak < all_messages


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lattice", "open lattice", "hubs"])
def test_no_tensor_of_all_messages_exists_in_compiled_code(name):
    """The same of the buffers that compiled functions ask for."""
    make = {
        "lattice": lambda: topologies.grid(12, 3, 2),
        "open lattice": lambda: topologies.grid(10, 3, 2, boundary="open"),
        "hubs": lambda: topologies.scale_free(1500, 60, seed=0),
    }
    connectivity = Connectivity(make[name]())
    columns = 32
    all_messages = 4 * connectivity.num_edges * columns
    found = watch_memory(connectivity, columns, "always")
    assert not _compiled._failed
    assert found["once"].largest < all_messages / 16
    assert found["once"].peak < all_messages / 4
    assert found["twice"].largest < all_messages / 16


@pytest.fixture
def fresh(monkeypatch):
    """Nothing compiled, nothing failed, no cached look at the environment."""
    monkeypatch.setattr(_compiled, "_kernels", {})
    monkeypatch.setattr(_compiled, "_refused", set())
    monkeypatch.setattr(_compiled, "_failed", [])
    _compiled._is_there.cache_clear()
    yield
    _compiled._is_there.cache_clear()


def several_degrees():
    """An open lattice: nodes of several degrees, more than one tile of them, the last one filled up."""
    return topologies.grid((9, 8), 2, boundary="open")


def test_a_compiled_loop_gives_the_same_values_and_gradients(fresh, normal):
    """Two tiles, the last one filled up; the sum, a gradient by gathering from the other side, and one per edge."""
    connectivity = Connectivity(topologies.grid((6, 7), 2))
    x, w = normal(42, 3).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    assert_derived(connectivity, scaled, [x.detach()], [x], [w], order=1, compile="always")
    assert len(_compiled._kernels) == (3 if _compiled.has_compiler() else 0)
    assert not _compiled._failed
    assert not _compiled._refused


@pytest.mark.slow
def test_compiled_loops_of_several_buckets(fresh, normal):
    connectivity = Connectivity(several_degrees())
    x, w = normal(72, 3).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    assert_derived(connectivity, scaled, [x], [x], [w], order=1, compile="always")
    assert not _compiled._failed
    assert not _compiled._refused


SIZES = {
    "periodic lattice": lambda side: topologies.grid(side + 2, 2),
    "open lattice": lambda side: topologies.grid((side + 1, 4), 2, metric="manhattan", boundary="open"),
    "hubs": lambda side: topologies.scale_free(12 * side + 4, 3, seed=side),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SIZES)
def test_one_compiled_loop_serves_ten_graphs(fresh, caplog, name, dtype):
    """Sizes with and without coincidences (B = K, B = 32, one tile), without a failure or a fallback."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, dtype=dtype)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    columns = [3, 8, 4, 32, 5, 4, 16, 24, 32, 7]
    with caplog.at_level(logging.WARNING, logger="lmn_graph"):
        for side, width in zip(range(1, 11), columns):
            connectivity = Connectivity(SIZES[name](side))
            x, w = draw(connectivity.num_nodes, width).requires_grad_(), draw(connectivity.num_edges).requires_grad_()
            alpha = torch.tensor(1.0, dtype=dtype, requires_grad=True)
            results = [derived(gated_sum(connectivity, x, w, alpha, compile=how), [x, w, alpha], order=1) for how in ("always", "never")]
            for got, want in zip(*results):
                assert_same(got, want, **close)
    assert not _compiled._failed
    assert not _compiled._refused
    assert not [record for record in caplog.records if record.name.startswith("lmn_graph")]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiled_loops_of_every_kind_of_message(fresh, normal, name):
    connectivity = Connectivity(topologies.grid((6, 7), 2))
    assert_derived(connectivity, *case(name, connectivity, normal), order=1, compile="always", rtol=1e-9, atol=1e-9)
    assert not _compiled._failed
    assert not _compiled._refused


@pytest.mark.slow
@pytest.mark.parametrize("steep", [1.0, 60.0])
def test_compiled_second_derivatives_of_the_gate(fresh, normal, steep):
    """Both forms, to the state and the weights."""
    connectivity = Connectivity(topologies.grid((6, 7), 2))
    x, w = normal(42, 3).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    results = [derived(gated_sum(connectivity, x, w, steep, compile=how), [x, w], order=2) for how in ("always", "never")]
    for got, want in zip(*results):
        assert_same(got, want, rtol=1e-9, atol=1e-9)
    assert not _compiled._failed
    assert not _compiled._refused


def test_sizes_that_were_equal_by_chance_do_not_use_up_the_compiled_forms(fresh, monkeypatch):
    """Where torch gives up on a function because it has compiled it too often, the next form is a new function."""
    calls = []

    def compile(function, **options):
        left = [2]

        def run(*args):
            calls.append(function)
            left[0] -= 1
            if left[0] < 0:
                raise torch._dynamo.exc.FailOnRecompileLimitHit("too often")
            return function(*args)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(_compiled, "has_compiler", lambda: True)
    connectivity = Connectivity(topologies.grid(9, 1))
    x = torch.randn(9, 2)
    for _ in range(5):
        found = message_sum(connectivity, of_sources, (), x, compile="always")
        torch.testing.assert_close(found, gathered(connectivity, of_sources, [], [x]))
    assert len(calls) == 7  # five, and the two that were refused
    assert not _compiled._failed


def test_weights_changed_in_any_way_are_put_in_order_anew(random_graph, normal):
    """In place, through .data, by another tensor at the same address, by views of one storage, in inference mode and out of it."""
    slots = _slots.slots_of(Connectivity(random_graph))
    bucket = slots.side(SOURCE).buckets[0]
    edges = bucket.tiles(EDGE).long()

    def check(weight):
        known = slots.ordered(weight)
        if bucket not in known:
            known[bucket] = bucket.ordered(weight)
        assert torch.equal(known[bucket], weight[edges])

    weight = normal(50).requires_grad_()
    check(weight.detach())
    with torch.no_grad():
        weight.mul_(-2)
    check(weight.detach())
    weight.data.copy_(normal(50))
    check(weight.detach())
    memory = normal(50).numpy()
    for _ in range(3):  # what a tensor that was freed leaves to the next one: another tensor, the same address
        memory[:] = normal(50)
        check(torch.from_numpy(memory))
    both = normal(2, 50)
    check(both[0])
    check(both[1])
    check(normal(50, 2)[:, 1])
    with torch.inference_mode():
        check(weight)
        check(normal(50))
    check(weight.detach())
    assert len(slots._kept) == _slots._KEPT


def test_the_order_of_weights_is_kept_as_long_as_they_are_the_same(random_graph, normal):
    slots = _slots.slots_of(Connectivity(random_graph))
    first, second = normal(50), normal(50)
    kept = slots.ordered(first)
    assert slots.ordered(second) is not kept
    assert slots.ordered(first) is kept
    assert slots.ordered(first.view(50)) is kept
    first[0] += 1
    assert slots.ordered(first) is not kept


@pytest.mark.slow
def test_a_training_with_averaged_weights_compiled(fresh, normal):
    """Steps of an optimiser, weights swapped through .data and an evaluation in inference mode: every sum has the weights of its time."""
    connectivity = Connectivity(topologies.grid(6, 2))
    x, weight = normal(36, 3), torch.nn.Parameter(normal(connectivity.num_edges))
    optimiser = torch.optim.Adam([weight], lr=0.1, fused=True)

    def check():
        found = gated_sum(connectivity, x, weight, 1.0, compile="always")
        assert_same(found, gated_sum(connectivity, x, weight, 1.0, compile="never"))
        return found

    for _ in range(3):
        optimiser.zero_grad()
        check().square().sum().backward()
        optimiser.step()
        average = weight.detach() / 2
        kept = weight.data.clone()
        weight.data.copy_(average)
        check()
        with torch.inference_mode():
            check()
        weight.data.copy_(kept)
    assert not _compiled._failed


@pytest.mark.parametrize("environment", [{"LMN_COMPILE": "never"}, {"CXX": "/nowhere/g++"}, {"CXX": "", "PATH": "/nowhere"}], ids=str)
def test_without_a_compiler_sums_are_made_in_blocks(fresh, monkeypatch, normal, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not _compiled.has_compiler()
    connectivity = Connectivity(topologies.grid(6, 2))
    x, w = normal(36, 3).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    assert_derived(connectivity, scaled, [x], [x], [w], compile="always")
    assert not _compiled._kernels


BROKEN = """
import logging, torch, topologies
from lmn_graph import Connectivity
from lmn_graph.ops import gated_sum
logging.basicConfig(level=logging.WARNING, format="%(name)s|%(message)s")
graph = Connectivity(topologies.grid(6, 2))
x, w = torch.linspace(-1, 1, 72).view(36, 2).requires_grad_(), torch.linspace(0, 1, graph.num_edges).requires_grad_()
results = []
for how in ("always", "never", "always"):
    y = gated_sum(graph, x, w, 1.0, compile=how)
    results.append([y, *torch.autograd.grad(y.square().sum(), (x, w))])
for found in results[1:]:
    for got, want in zip(found, results[0]):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
print("done")
"""


@pytest.mark.slow
def test_a_compiler_that_fails_is_reported_once_and_not_asked_again(tmp_path):
    environment = os.environ | {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment.pop("LMN_COMPILE", None)
    result = subprocess.run([sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "done\n"
    ours = [line for line in result.stderr.splitlines() if line.startswith("lmn_graph")]
    assert len(ours) == 1
    assert ours[0].startswith("lmn_graph.ops._compiled|sums over neighbours run uncompiled: ")


def fails_on_edges(x):
    if x.size(0):
        raise KeyError("of the message")
    return x


def cannot_be_traced(x):
    return torch.from_numpy(x.clone().detach().numpy()) if x.dim() == 2 else x * float(x.sum() < 1e9)


@pytest.mark.parametrize("compile", ["always", "never"])
def test_an_error_inside_a_message_comes_through_as_itself(fresh, lattice, compile):
    with pytest.raises(KeyError, match="of the message"):
        message_sum(Connectivity(lattice), fails_on_edges, (), torch.ones(16, 2), compile=compile)


def test_a_message_that_cannot_be_compiled_stops_no_other(fresh, lattice, caplog):
    """It runs in blocks, after one line in the log; the compiler stays in use."""
    connectivity, x = Connectivity(lattice), torch.randn(16, 2)
    with caplog.at_level(logging.WARNING, logger="lmn_graph"):
        for _ in range(2):
            found = message_sum(connectivity, cannot_be_traced, (), x, compile="always")
            torch.testing.assert_close(found, gathered(connectivity, cannot_be_traced, [], [x]))
    ours = [record for record in caplog.records if record.name.startswith("lmn_graph")]
    assert len(ours) == (1 if _compiled.has_compiler() else 0)
    assert not _compiled._failed


class Mixing(UpdateRule):
    """A user's rule: a message of both ends and two features of the edges."""

    def __init__(self, topology):
        super().__init__(topology)
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, self.connectivity.num_edges, dtype=torch.double))

    def initial_state(self, batch_size, *, graph=None):
        return CellState(torch.zeros(self.num_nodes, batch_size, dtype=torch.double))

    def prepare(self, context=None, graph=None):
        return self.resolve(graph), self.weight

    def step(self, p, state, drive):
        connectivity, weight = p
        a = self.message_sum(connectivity, x=state.x, y=state.x.square(), weight=weight)
        x = torch.tanh(a if drive is None else a + drive)
        return CellState(x), x

    @staticmethod
    def message(x_i, x_j, y_j, weight):
        return weight * torch.sin(x_i - x_j) + y_j


def test_a_rule_with_a_message_of_its_own_equals_propagate(graph, normal):
    """Fast and through PyG's propagate: two steps, values and gradients; edges given in any order."""
    rule = Mixing(graph)
    x = normal(rule.num_nodes, 3).requires_grad_()
    results = []
    for reference in (False, True):
        rule.reference = reference
        state, activity = rule(CellState(x), normal(0, 3).sum() + torch.ones(rule.num_nodes, 3, dtype=torch.double))
        state, activity = rule(state)
        results.append(derived(activity, [x, rule.weight]))
    for got, want in zip(*results):
        assert_same(got, want)


def test_who_watches_messages_sees_them(multigraph, normal, monkeypatch):
    """Hooks, explanations and decomposed layers go through propagate, others do not; the values are the same."""
    calls = []
    propagate = Mixing.propagate
    monkeypatch.setattr(Mixing, "propagate", lambda self, *args, **keywords: calls.append(1) or propagate(self, *args, **keywords))
    rule, x = Mixing(multigraph), normal(5, 2)
    expected, _ = rule(CellState(x))
    assert not calls
    seen = []
    handle = rule.register_message_forward_hook(lambda module, inputs, message: seen.append(message))
    assert_same(rule(CellState(x))[0].x, expected.x)
    assert len(calls) == 1
    # In the order in which the edges were given, as masks and attributes of edges are.
    source, target = multigraph.edge_index
    weight = rule.weight[rule.connectivity.inverse]
    assert_same(seen[0], Mixing.message(x[target], x[source], x.square()[source], weight[:, None]))
    handle.remove()
    assert_same(rule(CellState(x))[0].x, expected.x)
    assert len(calls) == 1
    rule.explain = True
    rule._edge_mask, rule._loop_mask, rule._apply_sigmoid = torch.ones(9, dtype=torch.double), torch.ones(9, dtype=torch.bool), False
    assert_same(rule(CellState(x))[0].x, expected.x)
    assert len(calls) == 2


def test_a_message_may_be_a_function_of_any_name(multigraph, normal):
    """PyG looks a message up by the name of its function; a function written elsewhere, or a lambda, has another."""

    class Borrowed(Mixing):
        message = staticmethod(lambda x_i, x_j, y_j, weight: weight * torch.sin(x_i - x_j) + y_j)

    rule, written = Borrowed(multigraph), Mixing(multigraph)
    rule.load_state_dict(written.state_dict())
    x = normal(rule.num_nodes, 3)
    for reference in (False, True):
        rule.reference = reference
        assert_same(rule(CellState(x))[0].x, written(CellState(x))[0].x)


def test_a_name_that_pyg_fills_in_is_refused(lattice):
    class Sized(Mixing):
        @staticmethod
        def message(size_i, x_j, weight):
            return weight * x_j * size_i

    rule, x = Sized(lattice), torch.ones(16, 2)
    with pytest.raises(ValueError, match=r"Sized.message must not have an argument 'size_i': PyG fills that name in itself"):
        rule.message_sum(rule.connectivity, size=x, x=x, weight=rule.weight)


def test_decomposed_layers_go_through_propagate(multigraph, normal):
    rule = Mixing(multigraph)
    x = normal(5, 4)
    expected = rule(CellState(x))[0].x
    rule.decomposed_layers = 2
    assert rule._is_propagated()
    assert_same(rule(CellState(x))[0].x, expected)


def test_a_static_message_is_needed_and_every_argument_of_it(lattice):
    rule = Mixing(lattice)
    with pytest.raises(ValueError, match=r"features must hold a tensor 'y' for the argument 'y_j' of Mixing.message"):
        rule.message_sum(rule.connectivity, x=torch.ones(16, 2), weight=rule.weight)

    class Bound(Mixing):
        def message(self, x_j, weight):
            return weight * x_j

    with pytest.raises(ValueError, match=r"Bound.message must be a static method of tensors, to be summed by message_sum"):
        Bound(lattice)(CellState(torch.ones(16, 2, dtype=torch.double)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda x_j, w: torch.softmax(x_j, 0) * w, "must work on every edge by itself"),
        (lambda x_j, w: w * (x_j - x_j.mean()), "must work on every edge by itself"),
        (lambda x_j, w: (w * x_j).transpose(0, 1), "must (work on every edge by itself|take any number of leading axes)"),
        (lambda x_j, w: w * x_j * torch.rand_like(x_j), "must give the same values for the same tensors"),
        (lambda x_j, w: torch.nn.functional.dropout(w * x_j, 0.5), "must give the same values for the same tensors"),
        (lambda x_j, w: x_j.mul_(w), "must not change its arguments"),
    ],
)
def test_a_message_that_is_no_function_of_one_edge_is_refused(message, reason, lattice, normal):
    """Summed in blocks it would silently be something else, or its gradient would."""
    connectivity = Connectivity(lattice)
    with pytest.raises(ValueError, match=f"message {reason}"):
        message_sum(connectivity, message, (), normal(16, 3), normal(128))
