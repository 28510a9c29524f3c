"""What edge types hold in a sum of messages: the same as spread over the edges, with all its gradients, and never a number per edge."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from allocations import Allocations
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import _compiled, _slots, gated_sum, message_sum
from lmn_graph.ops._calls import EDGE, KIND, SOURCE, TARGET


def everything(a, x, w, k, q):
    """All four holders, none of them linearly."""
    return torch.tanh(a * x + w) * k + torch.sin(x - q) * a * k


def two_values(a, x, k):
    return k * torch.cos(a - x), k * k * x


def linear(x, k):
    return k * x


def of_kinds(x, k):
    """Does not look at x but for its shape."""
    return k.exp() + 0 * x


@dataclass(frozen=True)
class LowRank:
    """Σ_r l_r v_r x, its factors one argument for each rank."""

    rank: int

    def __call__(self, *args):
        left, x, right = args[: self.rank], args[self.rank], args[self.rank + 1 :]
        return sum(u * v for u, v in zip(left, right)) * x


def spread(connectivity, message, target, source, edge=(), kind=()):
    """The definition: what types hold is given to every edge, then one message per edge, added up at its target."""
    of, at = connectivity.edge_index
    axes = max(t.dim() for t in (*target, *source))
    args = [t[at] for t in target] + [t[of] for t in source]
    held = [*edge, *(t[connectivity.edge_type] for t in kind)]
    values = message(*args, *(t.view(*t.shape, *[1] * (axes - t.dim())) for t in held))
    values = values if isinstance(values, tuple) else (values,)
    found = tuple(v.new_zeros(connectivity.num_nodes, *v.shape[1:]).index_add(0, at, v.expand(at.numel(), *v.shape[1:])) for v in values)
    return found if len(found) > 1 else found[0]


def assert_same(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-10, "atol": 1e-11} | tolerance))


def derived(values, inputs, order=2):
    """The values, and the gradients of a mixture of them to every input; with order 2 also those of the gradients."""
    values = values if isinstance(values, tuple) else (values,)
    loss = sum((v * torch.linspace(-1, 2, v.numel(), dtype=v.dtype).view(v.shape)).sum() for v in values)
    first = torch.autograd.grad(loss, inputs, create_graph=order > 1, materialize_grads=True)
    if order == 1:
        return [*values, *first]
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs, materialize_grads=True)
    return [*values, *first, *second]


def assert_derived(connectivity, message, target, source, edge=(), kind=(), *, order=2, compile="auto", **tolerance):
    inputs = [*target, *source, *edge, *kind]
    found = derived(message_sum(connectivity, message, target, source, edge, kind, compile=compile), inputs, order)
    expected = derived(spread(connectivity, message, target, source, edge, kind), inputs, order)
    for got, want in zip(found, expected, strict=True):
        assert_same(got, want, **tolerance)


def typed(edges, types, nodes):
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    return Data(edge_index=index, num_nodes=nodes, edge_type=torch.tensor(types, dtype=torch.long))


def directed():
    """Unsorted; types of 0 to 17 edges, 2 and 5 with none."""
    generator = torch.Generator().manual_seed(5)
    edge = torch.randperm(13 * 13, generator=generator)[:50]
    kind = torch.tensor([0, 1, 1, 3, 3, 3, 4, 6])[torch.randint(0, 8, (50,), generator=generator)]
    return Data(edge_index=torch.stack([edge // 13, edge % 13]), num_nodes=13, edge_type=kind)


GRAPHS = {
    "periodic": lambda: topologies.grid((5, 4), 2),
    "open": lambda: topologies.grid((3, 2, 3), 3, metric="manhattan", boundary="open"),
    "aliasing": lambda: topologies.grid((4, 5), 2, 2),
    "hexagonal": lambda: topologies.hexagonal(4, 4),
    "directed": directed,
    "isolated": lambda: typed([(5, 4), (2, 1), (4, 1), (5, 2), (2, 4)], [1, 0, 1, 1, 3], 7),
    "multigraph": lambda: typed([(4, 0), (0, 1), (0, 1), (2, 2), (2, 2), (1, 0), (0, 1)], [0, 1, 2, 2, 2, 0, 1], 5),
    "one node": lambda: typed([(0, 0)], [2], 1),
    "no edges": lambda: typed([], [], 4),
}
every_graph = pytest.mark.parametrize("name", GRAPHS)


def graph_of(name):
    """A connectivity and how many types its edges have."""
    connectivity = Connectivity(GRAPHS[name]())
    return connectivity, int(connectivity.edge_type.max()) + 1 if connectivity.num_edges else 0


# the axes of a state without the first, and those of two tensors of the types
SHAPES = {
    "numbers": ((3,), (), (1,)),
    "per sample": ((3,), (3,), ()),
    "both per sample": ((3,), (3,), (3,)),
    "per channel": ((3, 2), (1, 2), (3,)),
    "of their own": ((3, 2), (3, 2), (3, 1)),
}


@pytest.mark.parametrize("piece", [2, 128])
@pytest.mark.parametrize("shape", SHAPES)
@every_graph
def test_values_and_two_orders_of_gradients_equal_the_definition(normal, monkeypatch, name, shape, piece):
    """One more type than there are: its gradient is zero, as it is of types without edges."""
    monkeypatch.setattr(_slots, "_PIECE", piece)
    connectivity, kinds = graph_of(name)
    tail, first, second = SHAPES[shape]
    n, e = connectivity.num_nodes, connectivity.num_edges
    a, x, w = normal(n, *tail).requires_grad_(), normal(n, *tail).requires_grad_(), normal(e).requires_grad_()
    k, q = normal(kinds, *first).requires_grad_(), normal(kinds + 1, *second).requires_grad_()
    assert_derived(connectivity, everything, [a], [x], [w], [k, q])


@every_graph
def test_several_values_and_messages_of_types_alone(normal, name):
    connectivity, kinds = graph_of(name)
    a, x, k = (normal(n, 3).requires_grad_() for n in (connectivity.num_nodes, connectivity.num_nodes, kinds))
    assert_derived(connectivity, two_values, [a], [x], [], [k])
    assert_derived(connectivity, of_kinds, [], [x], [], [k])


@pytest.mark.parametrize("name", ["open", "directed", "multigraph"])
def test_gradcheck_and_gradgradcheck(normal, name):
    """By finite differences, independent of every formula of torch."""
    connectivity, kinds = graph_of(name)
    shapes = (connectivity.num_nodes, 2), (connectivity.num_nodes, 2), (connectivity.num_edges,), (kinds, 2), (kinds,)
    inputs = [normal(*shape).requires_grad_() for shape in shapes]

    def summed(a, x, w, k, q):
        return message_sum(connectivity, everything, a, x, w, (k, q))

    assert gradcheck(summed, inputs, fast_mode=True)
    assert gradgradcheck(summed, inputs, fast_mode=True)


def test_third_derivatives_are_those_of_the_definition(normal):
    connectivity, kinds = graph_of("directed")
    inputs = [normal(13, 2).requires_grad_(), normal(13, 2).requires_grad_(), normal(kinds, 2).requires_grad_()]

    def third(summed):
        loss = sum(v.sin().sum() for v in summed(connectivity, two_values, inputs[:1], inputs[1:2], [], inputs[2:]))
        for _ in range(2):
            loss = sum(g.sin().sum() for g in torch.autograd.grad(loss, inputs, create_graph=True))
        return torch.autograd.grad(loss, inputs)

    for got, want in zip(third(message_sum), third(spread)):
        assert_same(got, want, rtol=1e-8, atol=1e-8)


def test_a_kernel_of_a_periodic_lattice_is_a_convolution(normal):
    """Another library: circular padding and conv2d, a kernel for each sample in a group of its own; values and gradients."""
    data = topologies.grid((6, 7), 2)
    connectivity = Connectivity(data)
    x, kernel = normal(42, 3).requires_grad_(), normal(8, 3).requires_grad_()
    offset = torch.zeros(8, 2, dtype=torch.long).index_copy(0, connectivity.edge_type, connectivity.edge_attr.long())
    dense = torch.zeros(3, 1, 3, 3, dtype=torch.double).index_put(
        (torch.arange(3)[None], torch.tensor(0), *(offset.t()[..., None] + 1)), kernel
    )
    image = torch.nn.functional.pad(x.t().view(1, 3, 6, 7), (1, 1, 1, 1), mode="circular")
    expected = torch.nn.functional.conv2d(image, dense, groups=3).view(3, 42).t()
    found = message_sum(connectivity, linear, (), x, (), kernel)
    for got, want in zip(derived(found, [x, kernel], 1), derived(expected, [x, kernel], 1)):
        assert_same(got, want)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", ["periodic", "open", "directed"])
def test_weights_of_low_rank_equal_the_product_of_their_factors(normal, name, rank):
    """Factors held by targets and types, against all weights made by einsum."""
    connectivity, kinds = graph_of(name)
    left, right, x = (
        normal(*shape).requires_grad_() for shape in ((connectivity.num_nodes, 3, rank), (kinds, 3, rank), (connectivity.num_nodes, 3))
    )
    inputs = (left, right, x)
    found = message_sum(connectivity, LowRank(rank), left.unbind(-1), x, (), right.unbind(-1))
    source, target = connectivity.edge_index
    weight = torch.einsum("nbr,kbr->nkb", left, right)[target, connectivity.edge_type]
    expected = torch.zeros_like(x).index_add(0, target, weight * x[source])
    for got, want in zip(derived(found, inputs), derived(expected, inputs)):
        assert_same(got, want)


# [K, …] after the first axis
WEIGHTS = {
    "scalar": ((3,), [(), (1,), (3,)]),
    "channels": ((3, 2), [(), (3,), (1, 2), (3, 2), (3, 1)]),
}


@pytest.mark.parametrize("alpha", [1.5, 50.0])
@pytest.mark.parametrize("cell", WEIGHTS)
@pytest.mark.parametrize("name", ["periodic", "open", "directed", "isolated", "one node", "no edges"])
def test_the_gated_sum_by_type_is_that_by_edge(normal, name, cell, alpha):
    """Both forms of the gate; the weight of every type given to its edges is the definition."""
    connectivity, kinds = graph_of(name)
    tail, forms = WEIGHTS[cell]
    x, steep = normal(connectivity.num_nodes, *tail).requires_grad_(), torch.tensor(alpha, dtype=torch.double, requires_grad=True)
    for form in forms:
        weight = normal(kinds + 1, *form).requires_grad_()
        inputs = (x, weight, steep)
        found = gated_sum(connectivity, x, weight, steep, per="type")
        expected = gated_sum(connectivity, x, weight[connectivity.edge_type], steep)
        for got, want in zip(derived(found, inputs), derived(expected, inputs)):
            assert_same(got, want, rtol=1e-9, atol=1e-9)


@hypothesis.given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(0, 6)), max_size=80),
    st.sampled_from([1, 1 << 5, 1 << 17]),
    st.sampled_from([1, 4, 128]),
)
def test_any_edge_list_in_any_order_and_blocks_and_pieces_of_any_size(nodes, edges, block, piece):
    connectivity = Connectivity(
        typed([(source % nodes, target % nodes) for source, target, _ in edges], [kind for *_, kind in edges], nodes)
    )
    generator = torch.Generator().manual_seed(len(edges))
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.double)
    a, x, k = (draw(n, 2).requires_grad_() for n in (nodes, nodes, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmn_graph.ops._evaluate._BLOCK", block)
        patch.setattr(_slots, "_PIECE", piece)
        assert_derived(connectivity, two_values, [a], [x], [], [k], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("piece", [2, 8, 128])
@every_graph
def test_slots_of_types_hold_every_edge_once(name, piece, monkeypatch):
    """Pieces and what is left over, written in binary; tiles too, but for what fills the last one up."""
    monkeypatch.setattr(_slots, "_PIECE", piece)
    connectivity, kinds = graph_of(name)
    side = _slots.slots_of(connectivity).side(KIND)
    assert side.count == kinds
    seen, tiled = [], []
    for bucket in side.buckets:
        for rows, _, place in bucket.blocks(5):
            edges = side.at(EDGE, place)
            assert torch.equal(connectivity.edge_type[edges], rows.expand_as(edges))
            assert torch.equal(connectivity.edge_index[0][edges], side.at(SOURCE, place))
            assert torch.equal(connectivity.edge_index[1][edges], side.at(TARGET, place))
            seen.append(edges.flatten())
        source, target, edges = (bucket.tiles(what).transpose(1, 2).flatten(0, 1)[: bucket.count].long() for what in (SOURCE, TARGET, EDGE))
        assert torch.equal(connectivity.edge_index[:, edges], torch.stack([source, target]))
        tiled.append(edges.flatten())
    for found in (seen, tiled):
        found = torch.cat(found) if found else torch.empty(0)
        assert torch.equal(found.sort().values, torch.arange(connectivity.num_edges))


def test_pieces_of_types_are_no_more_than_nodes():
    """What is summed piece by piece takes no more memory than the state, whatever the degree."""
    for data in (topologies.grid(16, 2, 3), topologies.complete(40), topologies.grid(200, 1, 40)):
        data.edge_type = torch.arange(data.num_edges) % 3
        connectivity = Connectivity(data)
        pieces = sum(bucket.count for bucket in _slots.slots_of(connectivity).side(KIND).buckets)
        assert pieces <= connectivity.num_nodes + 8 * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_rounded_once(normal, dtype):
    connectivity, kinds = graph_of("periodic")
    x, k = normal(20, 5).to(dtype).requires_grad_(), normal(kinds, 5).to(dtype).requires_grad_()
    found, expected = message_sum(connectivity, linear, (), x, (), k), message_sum(connectivity, linear, (), x.float(), (), k.float())
    torch.testing.assert_close(found, expected.to(dtype))
    for got, want in zip(torch.autograd.grad(found.float().sum(), (x, k)), torch.autograd.grad(expected.sum(), (x, k))):
        torch.testing.assert_close(got, want.to(dtype))


def test_transforms_take_the_definition(normal):
    """jvp, dual numbers, vmap and jacrev, to the types too."""
    connectivity, kinds = graph_of("directed")
    primals, tangents = (normal(13, 2), normal(kinds, 2)), (normal(13, 2), normal(kinds, 2))

    def ours(x, k):
        return message_sum(connectivity, two_values, x, x, (), k)[0]

    def definition(x, k):
        return spread(connectivity, two_values, [x], [x], [], [k])[0]

    expected = torch.func.jvp(definition, primals, tangents)
    for got, want in zip(torch.func.jvp(ours, primals, tangents), expected):
        assert_same(got, want)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p, t) for p, t in zip(primals, tangents)]
        assert_same(forward_ad.unpack_dual(ours(*duals)).tangent, expected[1])
    for got, want in zip(torch.func.jacrev(ours, (0, 1))(*primals), torch.func.jacrev(definition, (0, 1))(*primals)):
        assert_same(got, want)
    batch = normal(4, kinds, 2)
    assert_same(torch.vmap(ours, in_dims=(None, 0))(primals[0], batch), torch.stack([definition(primals[0], k) for k in batch]))


def test_a_traced_sum_is_one_graph(normal):
    torch.compiler.reset()
    connectivity, kinds = graph_of("open")
    x, k = normal(18, 3).requires_grad_(), normal(kinds, 3).requires_grad_()

    def step(x, k):
        return gated_sum(connectivity, x, k, 1.5, per="type")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for got, want in zip(derived(compiled(x, k), [x, k], 1), derived(step(x, k), [x, k], 1)):
        assert_same(got, want)


def test_types_that_change_are_ordered_anew(normal):
    connectivity, kinds = graph_of("directed")
    x, k = normal(13, 2).requires_grad_(), normal(kinds, 2).requires_grad_()
    for kind in (connectivity.edge_type, connectivity.edge_type.flip(0), torch.zeros(50, dtype=torch.int32)):
        connectivity.edge_type = kind
        assert_derived(connectivity, linear, [], [x], [], [k])


BAD = {
    "no types": ({"graph": topologies.complete(20)}, r"kind needs a graph with edge_type, got Connectivity\(complete.*"),
    "negative": ({"types": -1}, r"connectivity.edge_type must be integers >= 0 \[160\], got .*-1"),
    "not integers": ({"types": 0.5}, r"connectivity.edge_type must be integers >= 0 \[160\], got .*0.5"),
    "too few": ({"kind": torch.ones(7, 2)}, r"kind\[0\] must have shape \[K\], \[K, B\] with K >= 8, got \(7, 2\)"),
    "too few of several": ({"kind": (torch.ones(8), torch.ones(7))}, r"kind\[1\] must have shape .* got \(7,\)"),
    "three axes": ({"kind": torch.ones(8, 2, 2)}, r"kind\[0\] must have shape \[K\], \[K, B\] with K >= 8, got \(8, 2, 2\)"),
    "a number": ({"kind": torch.tensor(1.0)}, r"kind\[0\] must have shape .* got \(\)"),
    "integer weights": ({"kind": torch.ones(8).int()}, r"kind\[0\] must be a floating-point tensor .* got torch.int32 \(8,\)"),
    "no tensor": ({"kind": [1.0]}, r"kind\[0\] must be a floating-point tensor .* got float"),
    "another batch": ({"kind": torch.ones(8, 3)}, r"message must take tensors of shapes \[\(0, 2\), \(0, 3\)\]: "),
    "mixes edges": (
        {"message": lambda x, k: x * k / k.sum()},
        r"message must work on every edge by itself, got one whose values depend on which edges come together",
    ),
    "writes": ({"message": lambda x, k: x * k.mul_(2)}, r"message must not change its arguments"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    change, message = BAD[case]
    data = change.get("graph") or topologies.grid((5, 4), 2)
    if "types" in change:
        data.edge_type = torch.full((data.num_edges,), change["types"])
    with pytest.raises(ValueError, match=message):
        message_sum(Connectivity(data), change.get("message", linear), (), torch.ones(20, 2), (), change.get("kind", torch.ones(8, 2)))


def watch_memory(connectivity, kinds, columns, compile):
    """Allocations of all gradients of a gated sum with weights per type and sample, once and twice differentiated, all prepared."""
    x = torch.rand(connectivity.num_nodes, columns).sub_(0.5).requires_grad_()
    weight = torch.randn(kinds, columns, requires_grad=True)
    inputs = (x, weight)

    def once():
        return torch.autograd.grad(gated_sum(connectivity, x, weight, 1.5, per="type", compile=compile).sin().sum(), inputs)

    def twice():
        loss = gated_sum(connectivity, x, weight, 1.5, per="type", compile=compile).sin().sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        return torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)

    found = {}
    for work in (once, twice):
        work()
        with Allocations() as found[work.__name__]:
            work()
    return found


def test_the_watch_sees_weights_spread_over_the_edges():
    """What the memory tests below rely on."""
    connectivity = Connectivity(topologies.grid(10, 3))
    x, weight = torch.rand(1000, 16), torch.randn(26, 16, requires_grad=True)
    with Allocations() as watched:
        spread(connectivity, linear, [], [x], [], [weight]).sum().backward()
    assert watched.largest >= 4 * 26_000 * 16


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_no_weight_per_edge_exists_in_blocks(boundary, monkeypatch):
    """Forward, backward and twice: nothing is larger than the state or a block, and only few of them live."""
    monkeypatch.setattr("lmn_graph.ops._evaluate._BLOCK", 1 << 12)
    connectivity = Connectivity(topologies.grid(10, 3, boundary=boundary))
    columns = 16
    found = watch_memory(connectivity, 26, columns, "never")
    for watched in found.values():
        assert watched.largest <= 8 * max(connectivity.num_nodes * columns, 1 << 12)
    assert found["once"].peak < 4 * connectivity.num_edges * columns / 2


@pytest.fixture
def fresh(monkeypatch):
    """Nothing compiled, nothing failed."""
    monkeypatch.setattr(_compiled, "_kernels", {})
    monkeypatch.setattr(_compiled, "_refused", set())
    monkeypatch.setattr(_compiled, "_failed", [])


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_no_weight_per_edge_exists_in_compiled_code(fresh, boundary):
    connectivity = Connectivity(topologies.grid(12, 3, 2, boundary=boundary))
    columns = 32
    found = watch_memory(connectivity, 124, columns, "always")
    assert not _compiled._failed
    assert found["once"].largest <= 8 * connectivity.num_nodes * columns
    assert found["once"].peak < 4 * connectivity.num_edges * columns / 4
    assert found["twice"].largest <= 8 * connectivity.num_nodes * columns


COMPILED = {
    "periodic": lambda: topologies.grid((12, 12), 2),
    "open": lambda: topologies.grid((13, 13), 2, boundary="open"),
    "four types": lambda: topologies.liquid((5, 5, 4), seed=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_loops_give_the_same_values_and_gradients(fresh, normal, name):
    """Pieces of one length, what is left over, and types that are too few for a tile."""
    connectivity = Connectivity(COMPILED[name]())
    kinds = int(connectivity.edge_type.max()) + 1
    x, k = normal(connectivity.num_nodes, 3).requires_grad_(), normal(kinds, 3).requires_grad_()
    assert_derived(connectivity, two_values, [x], [x], [], [k], order=1, compile="always", rtol=1e-9, atol=1e-9)
    assert not _compiled._failed
    assert not _compiled._refused


@pytest.mark.slow
def test_compiled_second_derivatives_to_types(fresh, normal):
    connectivity = Connectivity(topologies.grid((12, 12), 2))
    x, k = normal(144, 3).requires_grad_(), normal(8, 3).requires_grad_()
    results = [derived(gated_sum(connectivity, x, k, 1.5, per="type", compile=how), [x, k]) for how in ("always", "never")]
    for got, want in zip(*results):
        assert_same(got, want, rtol=1e-9, atol=1e-9)
    assert not _compiled._failed
    assert not _compiled._refused


def test_without_a_compiler_sums_are_made_in_blocks(fresh, monkeypatch, normal):
    monkeypatch.setenv("LMN_COMPILE", "never")
    connectivity, kinds = graph_of("periodic")
    x, k = normal(20, 3).requires_grad_(), normal(kinds, 3).requires_grad_()
    assert_derived(connectivity, two_values, [x], [x], [], [k], compile="always")
    assert not _compiled._kernels
