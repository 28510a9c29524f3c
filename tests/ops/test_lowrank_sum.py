"""Sums with weights of low rank: those with the weights written on every edge, in values and derivatives, however they are made."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import pytest
import torch
from allocations import Allocations
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import LowRankWeight, Stencil, _contracted, gated_sum, lowrank, lowrank_sum, pays_to_materialise


def _network() -> Data:
    """Weighted, undirected, without types."""
    graph = nx.karate_club_graph()
    return topologies.from_networkx(graph, dtype=torch.float64)


def _typed() -> Data:
    """Directed, with parallel edges, self-loops, an isolated node, unsorted, a type that no edge has, and weights."""
    edges = torch.tensor([[4, 0, 0, 2, 2, 1, 0, 3, 2, 5], [0, 1, 1, 2, 2, 0, 1, 4, 3, 4]])
    kinds = torch.tensor([0, 0, 3, 1, 1, 4, 0, 3, 0, 1])
    weight = torch.linspace(-1, 1, 10, dtype=torch.float64)
    return Data(edge_index=edges, num_nodes=7, edge_type=kinds, edge_weight=weight, name="typed")


GRAPHS = {
    "periodic": lambda: topologies.grid((4, 5), 2),
    "open": lambda: topologies.grid((3, 2, 3), 3, metric="manhattan", boundary="open"),
    "mixed": lambda: topologies.grid((3, 6), 2, 2, boundary=("open", "periodic"), self_loops=True),
    "aliased": lambda: topologies.grid((4, 3), 2, 2),
    "one wide": lambda: topologies.grid((1, 6, 1), 3, 2),
    "hexagonal": lambda: topologies.hexagonal(3, 4),
    "triangular": lambda: topologies.triangular(3, 4),
    "directed": _typed,
    "network": _network,
    "isolated": lambda: Data(edge_index=torch.tensor([[5, 2, 4, 5, 2], [4, 1, 1, 2, 4]]), num_nodes=7, name="isolated"),
    "one node": lambda: Data(edge_index=torch.tensor([[0], [0]]), num_nodes=1, name="one node"),
    "no edges": lambda: Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=4, name="no edges"),
}
every_graph = pytest.mark.parametrize("name", GRAPHS)


def kinds_of(graph):
    return 1 if graph.edge_type is None else int(graph.edge_type.max()) + 1


def written(graph, left, right, per, scale):
    """The weights on the edges: gathered factors, multiplied and added over the rank."""
    source, target = graph.edge_index
    kinds = torch.zeros_like(source) if graph.edge_type is None else graph.edge_type
    heard = right[source if per == "node" else kinds]
    axes = max(left.dim(), right.dim())
    left, right = (part.unsqueeze(2) if part.dim() < axes else part for part in (left[target], heard))
    weight = torch.einsum("ebr,ebr->eb" if axes == 3 else "ebcr,ebcr->ebc", *torch.broadcast_tensors(left, right))
    return weight if scale is None else weight * scale.view(-1, *[1] * (weight.dim() - 1))


def summed(graph, x, left, right, per, scale):
    """The truth: one message per edge, added up at its target."""
    source, target = graph.edge_index
    weight = written(graph, left, right, per, scale)
    weight = weight.unsqueeze(-1) if weight.dim() < x.dim() else weight
    return torch.zeros_like(x).index_add(0, target, weight * x[source])


def shapes(n, k, per, channels):
    """Factors of every sample or shared, with and without channels: (x, left, right)."""
    rows, b, c, r = (k if per == "type" else n), 3, 2, 3
    if not channels:
        return [((n, b), (n, left, r), (rows, right, r)) for left in (1, b) for right in (1, b)]
    return [
        ((n, b, c), (n, b, r), (rows, b, r)),
        ((n, b, c), (n, b, c, r), (rows, b, c, r)),
        ((n, b, c), (n, 1, c, r), (rows, b, r)),
        ((n, b, c), (n, b, 1, r), (rows, 1, c, r)),
        ((n, b, c), (n, b, r), (rows, 1, 1, r)),
        ((n, b, c), (n, 1, r), (rows, b, c, r)),
    ]


def cases(graph, normal, *, channels=(False, True)):
    """Every kind of weight on a graph: (x, left, right, per, scale), all wanting gradients."""
    k = kinds_of(graph)
    for per in ("type", "node"):
        for with_channels in channels:
            for x, left, right in shapes(graph.num_nodes, k, per, with_channels):
                for scale in (None, normal(graph.num_edges).requires_grad_()):
                    yield *(normal(*shape).requires_grad_() for shape in (x, left, right)), per, scale


def forms_of(graph, weight, x):
    """The forms that can make this sum."""
    shared = math.prod(weight.right.shape[1:-1]) == 1
    if weight.per == "node":
        return ["node", "messages", "definition", None]
    can = ["messages", "definition", None]
    can += ["one"] if kinds_of(graph) == 1 else []
    can += ["fourier"] if weight.scale is None and Stencil.of(graph) is not None else []
    return can + (["products"] if shared else [])


def derived(y, inputs, order):
    """The values and the gradients of a mixture of them, and with order 2 those of the gradients."""
    inputs = [tensor for tensor in inputs if tensor is not None]
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)).sum()
    first = torch.autograd.grad(loss, inputs, create_graph=order > 1, materialize_grads=True)
    if order == 1:
        return [y, *first]
    return [y, *first, *torch.autograd.grad(sum(g.sin().sum() for g in first), inputs, materialize_grads=True)]


def assert_same(found, expected, **tolerance):
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, **({"rtol": 1e-10, "atol": 1e-11} | tolerance))


def assert_every_form(graph, x, left, right, per, scale, order):
    """All forms that can make this sum, against the weights on the edges."""
    inputs = (x, left, right, scale)
    expected = derived(summed(graph, x, left, right, per, scale), inputs, order)
    for form in forms_of(graph, LowRankWeight(graph, left, right, per=per, scale=scale), x):
        weight = LowRankWeight(graph, left, right, per=per, scale=scale)
        assert_same(derived(lowrank._sum(graph, x, weight, form), inputs, order), expected)


@every_graph
def test_every_form_equals_the_weights_on_the_edges(name, normal):
    """Values and all gradients; factors shared and per sample, with channels, scaled."""
    graph = Connectivity(GRAPHS[name]())
    for case in cases(graph, normal):
        assert_every_form(graph, *case, order=1)


@every_graph
def test_second_derivatives_equal_those_of_the_weights_on_the_edges(name, normal):
    """Losses that differentiate the dynamics differentiate twice."""
    graph = Connectivity(GRAPHS[name]())
    for x, left, right, per, scale in cases(graph, normal):
        if left.dim() == right.dim() == x.dim() + 1 and left.size(1) == 3:
            assert_every_form(graph, x, left, right, per, scale, order=2)


@pytest.mark.parametrize("name", ["mixed", "directed", "network"])
def test_ranks_and_samples_are_made_in_blocks_of_any_size(name, normal, monkeypatch):
    graph = Connectivity(GRAPHS[name]())
    monkeypatch.setattr(lowrank, "_TOGETHER", 2)
    for block in (1, 2 * 3 * graph.num_nodes):  # one rank of one sample; two ranks
        monkeypatch.setattr(_contracted, "_BLOCK", block)
        monkeypatch.setattr(_contracted.Adjacency, "columns", 1)
        for case in itertools.islice(cases(graph, normal), 0, None, 3):
            assert_every_form(graph, *case, order=1)


def test_between_them_the_graphs_put_every_form_to_work(normal):
    """Otherwise the tests above could compare nothing."""
    found = set()
    for make in GRAPHS.values():
        graph = Connectivity(make())
        for x, left, right, per, scale in cases(graph, normal):
            found |= set(forms_of(graph, LowRankWeight(graph, left, right, per=per, scale=scale), x))
    assert found == {"node", "one", "fourier", "products", "messages", "definition", None}


@every_graph
def test_materialised_weights_are_the_products_of_the_factors(name, normal):
    graph = Connectivity(GRAPHS[name]())
    for _, left, right, per, scale in cases(graph, normal):
        weight = LowRankWeight(graph, left, right, per=per, scale=scale)
        assert_same([weight.materialise()], [written(graph, left, right, per, scale)])
        assert weight.rank == 3


def rolled(graph, x, weights):
    """A step with each of the weights."""
    for weight in weights:
        x = torch.tanh(lowrank_sum(graph, x, weight))
    return x


def rolled_plainly(graph, x, factors):
    for left, right, per, scale in factors:
        x = torch.tanh(summed(graph, x, left, right, per, scale))
    return x


@pytest.mark.parametrize("name", ["periodic", "open", "directed", "network"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_rollout_with_weights_prepared_once(name, order, normal):
    """Over three steps, gradients are collected where the weights were prepared."""
    graph = Connectivity(GRAPHS[name]())
    for x, left, right, per, scale in itertools.islice(cases(graph, normal, channels=(False,)), 0, None, 3):
        inputs = (x, left, right, scale)
        found = derived(rolled(graph, x, [LowRankWeight(graph, left, right, per=per, scale=scale)] * 3), inputs, order)
        assert_same(found, derived(rolled_plainly(graph, x, [(left, right, per, scale)] * 3), inputs, order))


@pytest.mark.parametrize("name", ["periodic", "directed", "network"])
@pytest.mark.parametrize("per", ["type", "node"])
def test_another_left_factor_shares_what_the_right_one_has_prepared(name, per, normal):
    graph = Connectivity(GRAPHS[name]())
    n, rows = graph.num_nodes, kinds_of(graph) if per == "type" else graph.num_nodes
    x, right = normal(n, 3).requires_grad_(), normal(rows, 3, 2).requires_grad_()
    lefts = [normal(n, 3, 2).requires_grad_() for _ in range(3)]
    first = LowRankWeight(graph, lefts[0], right, per=per)
    weights = [first, *(first.with_left(left) for left in lefts[1:])]
    found = derived(rolled(graph, x, weights), (x, right, *lefts), 1)
    assert_same(found, derived(rolled_plainly(graph, x, [(left, right, per, None) for left in lefts]), (x, right, *lefts), 1))
    assert weights[2]._kept_right is first._kept_right
    with pytest.raises(ValueError, match="left must be a floating-point tensor"):
        first.with_left(normal(n + 1, 3, 2))


@pytest.mark.parametrize("name", ["periodic", "directed", "network"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_some_samples_of_the_batch(name, steps, normal):
    """Chosen before anything was prepared or after; what all samples share stays."""
    graph = Connectivity(GRAPHS[name]())
    samples = torch.tensor([2, 0])
    for x, left, right, per, scale in itertools.islice(cases(graph, normal), 0, None, 2):
        inputs = (x, left, right, scale)
        weight = LowRankWeight(graph, left, right, per=per, scale=scale)
        rest = weight.select(samples) if steps == 0 else None
        for _ in range(steps):
            lowrank_sum(graph, x, weight)
        rest = rest or weight.select(samples)
        found = derived(rolled(graph, x[:, samples], [rest] * 2), inputs, 1)
        cut = [part[:, samples] if part.size(1) > 1 else part for part in (left, right)]
        assert_same(found, derived(rolled_plainly(graph, x[:, samples], [(*cut, per, scale)] * 2), inputs, 1))
    with pytest.raises(ValueError, match=r"samples must be numbers in \[0, 3\), got 0 to 3"):
        LowRankWeight(graph, normal(graph.num_nodes, 3, 2), normal(kinds_of(graph), 1, 2)).select(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="samples must be an int64 tensor"):
        weight.select(torch.tensor([0.0]))


@pytest.mark.parametrize("name", ["periodic", "directed", "network"])
@pytest.mark.parametrize("per", ["type", "node"])
def test_weights_first_met_without_gradients_or_changed_in_place(name, per, normal):
    """An evaluation before the training, an optimiser's step: what was prepared is not used where it no longer fits."""
    graph = Connectivity(GRAPHS[name]())
    n, rows = graph.num_nodes, kinds_of(graph) if per == "type" else graph.num_nodes
    x, left, right, scale = (part.requires_grad_() for part in (normal(n, 3), normal(n, 3, 2), normal(rows, 3, 2), normal(graph.num_edges)))
    for a in (None, scale):
        weight = LowRankWeight(graph, left, right, per=per, scale=a)
        for guard in (torch.inference_mode, torch.no_grad, torch.enable_grad):
            for _ in range(2):
                with guard():
                    rolled(graph, x.detach(), [weight] * 2)
        with torch.no_grad():
            for part in (left, right, scale):
                part.mul_(-1.5)
        inputs = (x, left, right, a)
        found = derived(rolled(graph, x, [weight] * 2), inputs, 1)
        assert_same(found, derived(rolled_plainly(graph, x, [(left, right, per, a)] * 2), inputs, 1))


def test_gradcheck_and_gradgradcheck(normal):
    """By finite differences, independent of every formula of torch."""
    for name, per in (("periodic", "type"), ("directed", "type"), ("directed", "node"), ("network", "type")):
        graph = Connectivity(GRAPHS[name]())
        n, rows = graph.num_nodes, kinds_of(graph) if per == "type" else graph.num_nodes
        scale = None if name == "periodic" else normal(graph.num_edges).requires_grad_()
        inputs = [part.requires_grad_() for part in (normal(n, 2), normal(n, 2, 2), normal(rows, 2, 2))]

        def total(x, left, right, scale=None, graph=graph, per=per):
            return lowrank_sum(graph, x, LowRankWeight(graph, left, right, per=per, scale=scale))

        inputs += [] if scale is None else [scale]
        assert gradcheck(total, inputs, fast_mode=True)
        assert gradgradcheck(total, inputs, fast_mode=True)


@pytest.mark.parametrize("name", ["periodic", "mixed", "directed", "network"])
@pytest.mark.parametrize("per", ["type", "node"])
def test_a_traced_or_transformed_sum_takes_the_definition(name, per, normal):
    graph = Connectivity(GRAPHS[name]())
    n, rows = graph.num_nodes, kinds_of(graph) if per == "type" else graph.num_nodes
    x, left, right = normal(n, 3), normal(n, 3, 2), normal(rows, 3, 2)
    tangents = tuple(torch.randn_like(part) for part in (x, left, right))

    def ours(x, left, right):
        return lowrank_sum(graph, x, LowRankWeight(graph, left, right, per=per))

    def truth(x, left, right):
        return summed(graph, x, left, right, per, None)

    assert_same(torch.func.jvp(ours, (x, left, right), tangents), torch.func.jvp(truth, (x, left, right), tangents))
    with forward_ad.dual_level():
        y = ours(forward_ad.make_dual(x, tangents[0]), left, right)
        assert_same([forward_ad.unpack_dual(y).tangent], [truth(tangents[0], left, right)])
    several = torch.stack([x, 2 * x, x.square()])
    assert_same([torch.func.vmap(lambda x: ours(x, left, right))(several)], [torch.stack([truth(x, left, right) for x in several])])
    weight = LowRankWeight(graph, left, right, per=per)
    compiled = torch.compile(lambda x: lowrank_sum(graph, x, weight), backend="aot_eager", fullgraph=True)
    assert_same([compiled(x)], [truth(x, left, right)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("per", ["type", "node"])
def test_half_precision_is_computed_in_single_and_rounded_once(dtype, per, normal):
    for name in ("periodic", "directed"):
        graph = Connectivity(GRAPHS[name]())
        n, rows = graph.num_nodes, kinds_of(graph) if per == "type" else graph.num_nodes
        x, left, right = normal(n, 4).to(dtype), normal(n, 4, 2).to(dtype), normal(rows, 4, 2).to(dtype)
        found = lowrank_sum(graph, x, LowRankWeight(graph, left, right, per=per))
        assert found.dtype == dtype
        expected = summed(graph, x.double(), left.double(), right.double(), per, None)
        torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)
        mixed = lowrank_sum(graph, x.double(), LowRankWeight(graph, left, right, per=per))
        assert_same([mixed], [expected])  # a state in double precision is not rounded to the factors' dtype


@pytest.mark.parametrize("name", ["periodic", "directed", "network"])
@pytest.mark.parametrize("per", ["type", "node"])
def test_autocast_rounds_neither_a_sum_nor_its_derivatives(name, per, normal):
    graph = Connectivity(GRAPHS[name]())
    n, rows = graph.num_nodes, kinds_of(graph) if per == "type" else graph.num_nodes
    inputs = [part.float().requires_grad_() for part in (normal(n, 3), normal(n, 3, 2), normal(rows, 3, 2))]

    def work():
        x, left, right = inputs
        return derived(rolled(graph, x, [LowRankWeight(graph, left, right, per=per)] * 2), inputs, 2)

    expected = work()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = work()
    assert_same(found, expected, rtol=1e-4, atol=1e-4)


@every_graph
def test_empty_batches_have_zero_gradients(name, normal):
    graph = Connectivity(GRAPHS[name]())
    for per in ("type", "node"):
        rows = kinds_of(graph) if per == "type" else graph.num_nodes
        left, right = normal(graph.num_nodes, 1, 2).requires_grad_(), normal(rows, 1, 2).requires_grad_()
        for tail in ((0,), (0, 2)):
            x = normal(graph.num_nodes, *tail).requires_grad_()
            y = lowrank_sum(graph, x, LowRankWeight(graph, left, right, per=per))
            assert y.shape == x.shape
            grads = torch.autograd.grad(y.sum(), (x, left, right), materialize_grads=True)
            assert [float(g.abs().sum()) for g in grads] == [0, 0, 0]


def test_the_same_tensor_may_be_state_and_factor(normal):
    """Each of its parts has its own share of the gradient, in the second derivative too."""
    graph = Connectivity(GRAPHS["directed"]())
    x = normal(7, 3, 2).requires_grad_()
    for order in (1, 2):
        found = derived(lowrank_sum(graph, x[..., 0], LowRankWeight(graph, x, x, per="node")), [x], order)
        assert_same(found, derived(summed(graph, x[..., 0], x, x, "node", None), [x], order))


@pytest.mark.parametrize("name", ["periodic", "mixed", "directed", "network", "isolated", "one node", "no edges"])
@pytest.mark.parametrize("alpha", [1.5, 50.0])
def test_gated_sums_with_weights_of_low_rank(name, alpha, normal):
    """σ(α(|x_i| − |x_j|)) w_ij x_j on every edge, both where the gate is a ratio of exponentials and where it is not."""
    graph = Connectivity(GRAPHS[name]())
    source, target = graph.edge_index
    steepness = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    for x, left, right, per, scale in itertools.islice(cases(graph, normal), 0, None, 3):
        inputs = (x, left, right, scale, steepness)
        w = written(graph, left, right, per, scale)
        u = steepness * (x.abs() if x.dim() == 2 else x.square().sum(-1, keepdim=True).sqrt())
        message = torch.sigmoid(u[target] - u[source]) * (w.unsqueeze(-1) if w.dim() < x.dim() else w) * x[source]
        expected = derived(torch.zeros_like(x).index_add(0, target, message), inputs, 2)
        found = gated_sum(graph, x, LowRankWeight(graph, left, right, per=per, scale=scale), steepness)
        assert_same(derived(found, inputs, 2), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["box", "typed", "node", "gated"])
def test_no_weight_of_an_edge_exists(name, monkeypatch):
    """Nothing is larger than a factor, its spectrum or a block, forward and backward over two steps; few of them live."""
    monkeypatch.setattr("lmn_graph.ops._evaluate._BLOCK", 1 << 12)
    monkeypatch.setattr(_contracted, "_BLOCK", 1 << 12)
    lattice = topologies.grid(6, 3, 2)
    if name == "typed":  # no box any more
        lattice.shape = None
    graph = Connectivity(lattice)
    n, k, b, r = graph.num_nodes, 124, 8, 3
    rows = n if name == "node" else k
    inputs = [part.requires_grad_() for part in (torch.randn(n, b), torch.randn(n, b, r), torch.randn(rows, b, r))]
    x, left, right = inputs

    def work():
        weight = LowRankWeight(graph, left, right, per="node" if name == "node" else "type")
        y = x
        for _ in range(2):
            y = gated_sum(graph, y, weight, 1.5) if name == "gated" else lowrank_sum(graph, y, weight)
        return torch.autograd.grad(y.square().sum(), inputs)

    work()
    with Allocations() as watched:
        work()
    assert watched.largest <= 8 * n * b * r * 1.2  # a spectrum holds a complex number for half of the frequencies, and some
    assert watched.peak < 4 * k * n * b  # less than one number per edge and sample


@pytest.mark.slow
def test_compiled_loops_give_the_same(normal):
    for make in (lambda: topologies.grid(6, 2), lambda: topologies.grid((4, 5), 2, boundary="open"), GRAPHS["directed"]):
        graph = Connectivity(make())
        for x, left, right, per, scale in itertools.islice(cases(graph, normal, channels=(False,)), 0, None, 5):
            inputs = (x, left, right, scale)
            expected = derived(summed(graph, x, left, right, per, scale), inputs, 1)
            weight = LowRankWeight(graph, left, right, per=per, scale=scale)
            assert_same(derived(lowrank._sum(graph, x, weight, "messages", "always"), inputs, 1), expected)


def test_the_form_that_is_taken(normal, monkeypatch):
    """Transforms on a box of many neighbours or where nothing is compiled, else messages; sparse products of what all share."""
    monkeypatch.setattr("lmn_graph.ops._compiled.has_compiler", lambda: True)
    small, wide = Connectivity(topologies.grid(5, 2)), Connectivity(topologies.grid(9, 2, 4))

    def form(graph, compile="auto", samples=3, **options):
        left, right = normal(graph.num_nodes, 3, 2), normal(kinds_of(graph), samples, 2)
        return lowrank._form_for(LowRankWeight(graph, left, right, **options), normal(graph.num_nodes, 3), compile)

    assert [form(small), form(small, "always"), form(wide, "always")] == ["fourier", "messages", "fourier"]
    scaled = {"scale": normal(small.num_edges)}
    assert [form(small, **scaled), form(small, samples=1, **scaled)] == ["messages", "messages"]
    assert form(Connectivity(GRAPHS["directed"]()), samples=1) == "products"
    assert form(Connectivity(GRAPHS["network"]())) == "one"


def test_where_weights_are_better_made(normal):
    """As docs/performance.md measures it."""
    box, scattered = Connectivity(topologies.grid(7, 2, 2)), Connectivity(topologies.triangular(4, 4))

    def pays(graph, samples, rank, per="type", **options):
        left, right = normal(graph.num_nodes, samples, rank), normal(kinds_of(graph) if per == "type" else graph.num_nodes, samples, rank)
        return pays_to_materialise(LowRankWeight(graph, left, right, per=per), **options)

    assert [rank for rank in range(3, 8) if pays(box, 5, rank)] == [6, 7]  # 24 neighbours
    assert pays(box, 1, 1)
    wide = Connectivity(topologies.grid(9, 2, 4))  # 80
    assert [rank for rank in range(17, 23) if pays(wide, 5, rank)] == [20, 21, 22]
    assert not pays(wide, 1, 1)
    assert [rank for rank in range(8, 14) if pays(scattered, 5, rank)] == [12, 13]
    assert pays(scattered, 1, 1)
    assert [rank for rank in range(2, 7) if pays(box, 5, rank, gated=True)] == [4, 5, 6]
    assert not pays(wide, 5, 64, per="node")  # running sums
    assert not pays(Connectivity(GRAPHS["network"]()), 1, 64)


BAD = {
    "rank 0": ({"left": (20, 3, 0), "right": (8, 3, 0)}, {}, r"left must have rank at least 1, got shape \(20, 3, 0\)"),
    "ranks": ({"right": (8, 3, 3)}, {}, r"right must have the rank of left, 2, got shape \(8, 3, 3\)"),
    "nodes": (
        {"left": (19, 3, 2)},
        {},
        r"left must be a floating-point tensor \[N, B, R\] or \[N, B, C, R\] with N = 20, got .*\(19, 3, 2\)",
    ),
    "axes": ({"right": (8, 2)}, {}, r"right must be a floating-point tensor \[K, B, R\] or \[K, B, C, R\], got .*\(8, 2\)"),
    "types": ({"right": (7, 3, 2)}, {}, r"right must have one row per edge type \(8\), got shape \(7, 3, 2\)"),
    "sources": ({}, {"per": "node"}, r"right must be a floating-point tensor \[N, B, R\].* with N = 20"),
    "samples": ({"right": (8, 2, 2)}, {}, "right must have the samples of left, or 1"),
    "channels": ({"left": (20, 3, 2, 2), "right": (8, 3, 4, 2)}, {}, "right must have the channels of left, or 1"),
    "per": ({}, {"per": "edge"}, "per must be one of 'type', 'node', got 'edge'"),
    "scale": ({}, {"scale": torch.ones(159)}, r"scale must be a floating-point tensor \[160\], got torch.float32 \(159,\)"),
    "integers": ({}, {"left": torch.ones(20, 3, 2).long()}, "left must be a floating-point tensor .* got torch.int64"),
}


@pytest.mark.parametrize("name", BAD)
def test_weights_that_do_not_fit_are_refused(name, normal):
    sizes, others, message = BAD[name]
    graph = Connectivity(GRAPHS["periodic"]())
    factors = {side: normal(*shape) for side, shape in ({"left": (20, 3, 2), "right": (8, 3, 2)} | sizes).items()}
    with pytest.raises(ValueError, match=message):
        LowRankWeight(graph, **(factors | others))


def test_states_that_do_not_fit_are_refused(normal):
    graph, other = Connectivity(GRAPHS["periodic"]()), Connectivity(GRAPHS["periodic"]())
    weight = LowRankWeight(graph, normal(20, 3, 2), normal(8, 3, 2))
    for x, message in (
        (normal(19, 3), r"x must be a floating-point tensor \[N, B\] or \[N, B, C\] with N = 20"),
        (normal(20, 3).long(), "x must be a floating-point tensor"),
        (normal(20, 4), r"x must fit the left factor \(20, 3, 2\) of the weight from its second axis on, got \(20, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lowrank_sum(graph, x, weight)
    with pytest.raises(ValueError, match="weight must be prepared for this very connectivity"):
        lowrank_sum(other, normal(20, 3), weight)
    with pytest.raises(ValueError, match=r"weight must be a LowRankWeight, got torch\.float64"):
        lowrank_sum(graph, normal(20, 3), normal(160))
    with pytest.raises(ValueError, match="x must fit the left factor"):
        lowrank_sum(graph, normal(20, 3), LowRankWeight(graph, normal(20, 3, 1, 2), normal(8, 3, 2)))
    with pytest.raises(ValueError, match=r"right must have one shared row, shape \[1, ...\], on a graph without edge_type"):
        LowRankWeight(Connectivity(GRAPHS["network"]()), normal(34, 3, 2), normal(34, 3, 2))
    assert repr(weight).startswith("LowRankWeight(Connectivity(grid, num_nodes=20, num_edges=160), left=(20, 3, 2), right=(8, 3, 2)")


def test_what_is_kept_is_of_the_factors_as_they_are_now(normal):
    """After a change in place, and after tensors of earlier selections are gone and others have their place in memory."""
    graph = Connectivity(topologies.grid(5, 2))
    left, right, x = normal(25, 4, 2), normal(8, 4, 2), normal(25, 4)
    weight = LowRankWeight(graph, left, right)
    for _ in range(2):
        lowrank_sum(graph, x, weight)
    right.mul_(2)
    some = torch.tensor([0, 2])
    expected = lowrank_sum(graph, x[:, some], LowRankWeight(graph, left[:, some], right[:, some]))
    torch.testing.assert_close(lowrank_sum(graph, x[:, some], weight.select(some)), expected)
    ring = Connectivity(topologies.from_networkx(nx.cycle_graph(9)))
    left, right, x = normal(9, 1, 2), normal(1, 6, 2), normal(9, 6)
    weight, kept = LowRankWeight(ring, left, right), torch.arange(6)
    for _ in range(5):
        samples = torch.arange(kept.numel()).flip(0)
        weight, kept = weight.select(samples), kept.flip(0)
        expected = lowrank_sum(ring, x[:, kept], LowRankWeight(ring, left, right[:, kept]))
        torch.testing.assert_close(lowrank_sum(ring, x[:, kept], weight), expected)
