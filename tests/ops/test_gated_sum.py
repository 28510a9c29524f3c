"""The gated sum: it and its gradients of every order are those of gather, sigmoid and add, in whatever way it is computed."""

from __future__ import annotations

import functools

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch_geometric.data import Data

import topologies
from lmn_graph import Connectivity
from lmn_graph.ops import gated_sum
from lmn_graph.ops.gated import _RANGE, magnitude
from lmn_graph.rules import RelativisticCA


def gathered(connectivity, x, weight, alpha, gate="norm"):
    """The definition: one gate and one message per edge, added up at its target."""
    source, target = connectivity.edge_index
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True) if x.dim() == 3 and gate == "norm" else x.abs()
    if isinstance(alpha, torch.Tensor) and alpha.shape == (x.size(0), 1):
        alpha = alpha.view(-1, *[1] * (x.dim() - 1))
    u = alpha * size
    message = torch.sigmoid(u[target] - u[source]) * weight.view(*weight.shape, *[1] * (x.dim() - weight.dim())) * x[source]
    return message.new_zeros(x.shape).index_add(0, target, message)


def assert_same(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **({"rtol": 1e-10, "atol": 1e-11} | tolerance))


def assert_derived(actual, expected, inputs, factor, **tolerance):
    """The values, and the gradients of their sum times ``factor`` to every input."""
    assert_same(actual, expected, **tolerance)
    found, wanted = (torch.autograd.grad((y * factor).sum(), inputs) for y in (actual, expected))
    for got, want in zip(found, wanted):
        assert_same(got, want, **tolerance)


# [E, …] after the first axis
WEIGHTS = {
    "scalar": {"per edge": (), "per edge, two axes": (1,), "per sample": (3,)},
    "channels": {"per edge": (), "per sample": (3,), "per channel": (1, 2), "of its own": (3, 2)},
}
CASES = [(cell, name) for cell, shapes in WEIGHTS.items() for name in shapes]
STEEP = {"gentle": 1.5, "steep": 50.0}  # the second leaves the range of the ratio
steepness = pytest.mark.parametrize("steep", STEEP.values(), ids=STEEP)


def state(cell, nodes, normal):
    return normal(nodes, 3, *([2] if cell == "channels" else []))


@steepness
@pytest.mark.parametrize("gate", ["norm", "channel"])
@pytest.mark.parametrize(("cell", "form"), CASES, ids=[f"{cell}: {form}" for cell, form in CASES])
def test_values_and_gradients_equal_the_definition(graph, normal, cell, form, gate, steep):
    """Every graph, every shape of state and weights, on both sides of the range of the ratio."""
    connectivity = Connectivity(graph)
    x = state(cell, connectivity.num_nodes, normal).requires_grad_()
    weight = normal(connectivity.num_edges, *WEIGHTS[cell][form]).requires_grad_()
    alpha = torch.tensor(steep, dtype=x.dtype, requires_grad=True)
    actual = gated_sum(connectivity, x, weight, alpha, gate=gate)
    assert actual.shape == x.shape
    assert_derived(actual, gathered(connectivity, x, weight, alpha, gate), (x, weight, alpha), normal(*x.shape))


ALPHAS = {
    "number": lambda n, normal: -0.8,
    "scalar": lambda n, normal: normal(),
    "one entry": lambda n, normal: normal(1),
    "per node": lambda n, normal: normal(n, 1),
    "per channel": lambda n, normal: normal(2),
    "per node, three axes": lambda n, normal: normal(n, 1, 1),
}


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("gate", ["norm", "channel"])
@pytest.mark.parametrize("cell", ["scalar", "channels"])
@pytest.mark.parametrize("name", ALPHAS)
def test_every_form_of_the_steepness(some_graph, normal, name, cell, gate, scale):
    """One number, one per node, one per channel, of either sign; gradients to what is a tensor."""
    if cell == "scalar" and name in ("per channel", "per node, three axes"):
        cell = "channels"  # scalar cells have no such axis
    connectivity = Connectivity(some_graph)
    x, weight = state(cell, connectivity.num_nodes, normal).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    alpha = ALPHAS[name](connectivity.num_nodes, normal)
    alpha = (scale * alpha).requires_grad_() if isinstance(alpha, torch.Tensor) else scale * alpha
    inputs = (x, weight, alpha) if isinstance(alpha, torch.Tensor) else (x, weight)
    actual = gated_sum(connectivity, x, weight, alpha, gate=gate)
    assert_derived(actual, gathered(connectivity, x, weight, alpha, gate), inputs, normal(*x.shape))


def test_weights_of_a_type_are_shared_by_its_edges(normal):
    """On open and periodic lattices; the gradient of a type is the sum over its edges; surplus types get none."""
    for graph in (topologies.grid(4, 2), topologies.grid((3, 4), 2, boundary="open")):
        connectivity = Connectivity(graph)
        kinds = int(connectivity.edge_type.max()) + 1
        for tail in ((), (3,)):
            x, weight = normal(connectivity.num_nodes, 3).requires_grad_(), normal(kinds + 1, *tail).requires_grad_()
            actual = gated_sum(connectivity, x, weight, 2.0, per="type")
            expected = gathered(connectivity, x, weight[connectivity.edge_type], 2.0)
            assert_derived(actual, expected, (x, weight), normal(*x.shape))
            (gradient,) = torch.autograd.grad(gated_sum(connectivity, x, weight, 2.0, per="type").sum(), weight)
            assert gradient[:kinds].any()
            assert not gradient[kinds:].any()


@pytest.mark.parametrize("alpha", [0.0, -50.0, 50.0])
def test_fixed_points_of_the_gate(some_graph, normal, alpha):
    """Equal magnitudes open every gate by half, whatever α and the signs; silence gives silence and no gradient but the weights' none."""
    connectivity = Connectivity(some_graph)
    n, e = connectivity.num_nodes, connectivity.num_edges
    source, target = connectivity.edge_index
    weight = normal(e).requires_grad_()
    sign = normal(n, 2).sign()
    half = torch.zeros(n, 2, dtype=torch.double).index_add(0, target, weight[:, None] * 5 * sign[source] / 2)
    assert_same(gated_sum(connectivity, 5 * sign, weight, alpha), half)
    for tail in ((2,), (2, 3)):
        x = torch.zeros(n, *tail, dtype=torch.double, requires_grad=True)
        y = gated_sum(connectivity, x, weight, torch.tensor(alpha, dtype=torch.double, requires_grad=True))
        assert not y.any()
        factor = normal(n, *tail)
        grad_x, grad_weight = torch.autograd.grad((y * factor).sum(), (x, weight))
        # |·| is flat at 0 and every gate is 1/2, so the sum is linear there.
        shaped = weight.detach().view(-1, *[1] * len(tail))
        assert_same(grad_x, torch.zeros_like(x).index_add(0, source, shaped * factor[target] / 2))
        assert not grad_weight.any()


def test_the_two_forms_meet_at_the_end_of_the_range(random_graph, normal):
    """Just within and just beyond it, value and gradients are the definition's, in single precision too."""
    connectivity = Connectivity(random_graph)
    weight, factor = normal(50), normal(13, 4)
    size = torch.linspace(0, 1, 52, dtype=torch.double).view(4, 13).t()
    for alpha in (_RANGE * (1 - 1e-6), _RANGE, _RANGE * (1 + 1e-6)):
        for dtype, tolerance in ((torch.double, {}), (torch.float, {"rtol": 1e-5, "atol": 2e-5})):
            x = (size * normal(13, 4).sign()).to(dtype).requires_grad_()
            w, a = weight.to(dtype).requires_grad_(), torch.tensor(alpha, dtype=dtype, requires_grad=True)
            exact = [tensor.detach().double().requires_grad_() for tensor in (x, w, a)]
            expected = gathered(connectivity, *exact)
            wanted = torch.autograd.grad((expected * factor).sum(), exact)
            found = gated_sum(connectivity, x, w, a)
            grads = torch.autograd.grad((found * factor.to(dtype)).sum(), (x, w, a))
            for got, want in zip((found, *grads), (expected, *wanted)):
                assert_same(got.double(), want, **tolerance)


@pytest.mark.parametrize("alpha", [0.3, 7.9, 50.0])
def test_single_precision_is_right_to_five_digits(lattice, normal, alpha):
    """|x| up to 5: the ratio form spans almost its whole range at 7.9, the sigmoid is taken at 50. Relative to the largest entry."""
    connectivity = Connectivity(lattice)
    x = 5 * torch.tanh(normal(16, 8))
    weight, a, factor = normal(128), torch.full((16, 1), alpha, dtype=torch.double), normal(16, 8)
    single = [tensor.detach().float().requires_grad_() for tensor in (x, weight, a)]
    exact = [tensor.detach().double().requires_grad_() for tensor in single]
    results = []
    for summed, inputs in ((gated_sum, single), (gathered, exact)):
        y = summed(connectivity, *inputs)
        results.append([y, *torch.autograd.grad((y * factor.to(y.dtype)).sum(), inputs)])
    for found, expected in zip(*results):
        error = (found - expected).detach().abs().max() / expected.detach().abs().max()
        assert float(error) < 1e-5


@pytest.mark.parametrize("alpha", [1.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_and_rounded_once(random_graph, normal, dtype, alpha):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 9).to(dtype).requires_grad_(), normal(50).to(dtype).requires_grad_()
    y = gated_sum(connectivity, x, weight, alpha)
    expected = gated_sum(connectivity, x.float(), weight.float(), alpha)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype))
    for got, want in zip(torch.autograd.grad(y.float().sum(), (x, weight)), torch.autograd.grad(expected.sum(), (x, weight))):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want.to(dtype))


def test_mixed_precision_keeps_the_dtype_of_the_state(random_graph, normal):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 3).float().requires_grad_(), normal(50).requires_grad_()
    y = gated_sum(connectivity, x, weight, torch.tensor(1.0, dtype=torch.double))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, gathered(connectivity, x.double(), weight, 1.0).float())
    y.sum().backward()
    assert (x.grad.dtype, weight.grad.dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize("alpha", [1.0, 50.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_heard_by_its_neighbours_alone(normal, value, alpha):
    """A ring: node 3 is broken. It and its two listeners are what the definition says, nobody else notices."""
    connectivity = Connectivity(topologies.grid(9, 1))
    x, weight = normal(9, 2), normal(18)
    x[3, 0] = value
    found, expected = gated_sum(connectivity, x, weight, alpha), gathered(connectivity, x, weight, alpha)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[[0, 1, 5, 6, 7, 8]].isfinite().all()
    assert found[:, 1].isfinite().all()


@pytest.mark.parametrize("tail", [(0,), (0, 3), (2, 0)], ids=str)
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(graph, normal, tail):
    connectivity = Connectivity(graph)
    x, weight = normal(connectivity.num_nodes, *tail).requires_grad_(), normal(connectivity.num_edges).requires_grad_()
    alpha = torch.tensor(1.0, dtype=torch.double, requires_grad=True)
    y = gated_sum(connectivity, x, weight, alpha)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()
    assert alpha.grad == 0


@steepness
@pytest.mark.parametrize("cell", ["scalar", "channels"])
def test_gradcheck_and_gradgradcheck(some_graph, normal, cell, steep):
    """First and second derivatives of two steps, by finite differences, to the state, the weights and the steepness."""
    connectivity = Connectivity(some_graph)
    x = state(cell, connectivity.num_nodes, normal)
    x = (x + 0.1 * x.sign()).requires_grad_()  # away from the kink of |x|
    weight = normal(connectivity.num_edges).requires_grad_()
    alpha = torch.tensor(1.5 if steep < 2 else 25.0, dtype=torch.double, requires_grad=True)

    def summed(x, weight, alpha):
        return gated_sum(connectivity, x, weight, alpha)

    assert gradcheck(summed, (x, weight, alpha), fast_mode=True)
    assert gradgradcheck(summed, (x, weight, alpha), fast_mode=True)


@steepness
def test_third_derivatives_are_those_of_the_definition(random_graph, normal, steep):
    connectivity = Connectivity(random_graph)
    x, weight = normal(13, 2).requires_grad_(), normal(50).requires_grad_()
    alpha = torch.tensor(steep, dtype=torch.double, requires_grad=True)
    inputs = (x, weight, alpha)

    def third(summed):
        loss = summed(connectivity, *inputs).sin().sum()
        for _ in range(2):
            loss = sum(g.sin().sum() for g in torch.autograd.grad(loss, inputs, create_graph=True))
        return torch.autograd.grad(loss, inputs)

    for got, want in zip(third(gated_sum), third(gathered)):
        assert_same(got, want, rtol=1e-7, atol=1e-7)


def test_only_the_gradients_that_are_wanted(random_graph, normal):
    """Any subset of the three needs a gradient: the ones that do get the same."""
    connectivity = Connectivity(random_graph)
    whole = [normal(13, 3), normal(50), normal()]
    factor = normal(13, 3)
    for wanted in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        inputs = [tensor.clone().requires_grad_(at in wanted) for at, tensor in enumerate(whole)]
        live = [inputs[at] for at in wanted]
        assert_derived(gated_sum(connectivity, *inputs), gathered(connectivity, *inputs), live, factor)
    assert not gated_sum(connectivity, *whole).requires_grad


def test_inputs_need_not_be_contiguous(random_graph, normal):
    connectivity = Connectivity(random_graph)
    x, weight, factor = normal(6, 13).t().requires_grad_(), normal(100)[::2].requires_grad_(), normal(1, 6).expand(13, 6)
    actual, expected = gated_sum(connectivity, x, weight, 1.0), gathered(connectivity, x, weight, 1.0)
    assert_derived(actual, expected, (x, weight), factor)


def test_forward_mode_and_transforms_agree_with_the_definition(random_graph, normal):
    """jvp, dual numbers, grad, vmap and hessian: a custom autograd function alone would fail or give zero without a word."""
    connectivity = Connectivity(random_graph)
    primals = (normal(13, 2), normal(50), normal())
    tangents = (normal(13, 2), normal(50), normal())
    ours, definition = functools.partial(gated_sum, connectivity), functools.partial(gathered, connectivity)
    for got, want in zip(torch.func.jvp(ours, primals, tangents), torch.func.jvp(definition, primals, tangents)):
        assert_same(got, want)
    _, expected = torch.func.jvp(definition, primals, tangents)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p, t) for p, t in zip(primals, tangents)]
        assert_same(forward_ad.unpack_dual(ours(*duals)).tangent, expected)
    batch = normal(4, 13, 2)
    each = torch.stack([definition(x, *primals[1:]) for x in batch])
    assert_same(torch.vmap(ours, in_dims=(0, None, None))(batch, *primals[1:]), each)
    for got, want in zip(
        torch.func.grad(lambda *p: ours(*p).sin().sum(), (0, 1, 2))(*primals),
        torch.func.grad(lambda *p: definition(*p).sin().sum(), (0, 1, 2))(*primals),
    ):
        assert_same(got, want)
    hessians = [torch.func.hessian(lambda w, f=f: f(primals[0], w, primals[2]).sin().sum())(primals[1]) for f in (ours, definition)]
    assert_same(*hessians)


@st.composite
def edge_lists(draw):
    """Few nodes with any degrees: hubs, isolated nodes, self-loops, parallel edges."""
    nodes = draw(st.integers(1, 24))
    hub = [(source % nodes, 0) for source in range(draw(st.integers(0, 40)))]
    out = [(0, target % nodes) for target in range(draw(st.integers(0, 20)))]
    others = draw(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=60))
    return nodes, draw(st.permutations(hub + out + others))


@hypothesis.given(edge_lists(), st.sampled_from([1.0, 80.0]), st.sampled_from([1, 1 << 4, 1 << 17]))
def test_any_graph_and_any_order_of_its_nodes(listed, alpha, block):
    """Values and gradients are the definition's for blocks of any size, and another numbering of the nodes numbers the sums so too."""
    nodes, edges = listed
    generator = torch.Generator().manual_seed(len(edges))
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    given = torch.randn(len(edges), generator=generator, dtype=torch.double)
    x, factor = torch.randn(2, nodes, 2, generator=generator, dtype=torch.double)
    order = torch.randperm(nodes, generator=generator)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmn_graph.ops._evaluate._BLOCK", block)
        for number in (torch.arange(nodes), order):  # node i is called number[i]
            connectivity = Connectivity(Data(edge_index=number[index], num_nodes=nodes, edge_weight=given))
            at = number.argsort()
            inputs = x[at].requires_grad_(), connectivity.edge_weight.clone().requires_grad_()
            y, expected = gated_sum(connectivity, *inputs, alpha), gathered(connectivity, *inputs, alpha)
            assert_derived(y, expected, inputs, factor[at], rtol=1e-9, atol=1e-9)
            results.append(y[number])
    assert_same(*results, rtol=1e-9, atol=1e-9)


BAD = {
    "state of another graph": ({"x": torch.zeros(12, 2)}, r"x must be .* N = 13, got .*\(12, 2\)"),
    "vector": ({"x": torch.zeros(13)}, r"x must be .* got torch.float32 \(13,\)"),
    "integers": ({"x": torch.zeros(13, 2, dtype=torch.long)}, r"x must be a floating-point tensor .* got torch.int64"),
    "no tensor": ({"x": 1.0}, r"x must be .* got float 1.0"),
    "weights of another graph": ({"weight": torch.ones(49)}, r"weight must have one entry per edge \(50\), got shape \(49,\)"),
    "weights of another batch": ({"weight": torch.ones(50, 3)}, r"weight must fit a state of shape \(13, 2\) .* got \(50, 3\)"),
    "weights with channels": ({"weight": torch.ones(50, 1, 2)}, r"weight must fit a state of shape \(13, 2\) .* got \(50, 1, 2\)"),
    "number for weights": ({"weight": 1.0}, r"weight must be a floating-point tensor, one entry per edge, got float"),
    "integer weights": ({"weight": torch.ones(50, dtype=torch.int)}, r"weight must be a floating-point tensor, .* got torch.int32 \(50,\)"),
    "weights of types": ({"per": "type"}, r"weight per type needs a graph with edge_type, got Connectivity"),
    "unknown per": ({"per": "node"}, r"per must be one of 'edge', 'type', got 'node'"),
    "unknown gate": ({"gate": "sum"}, r"gate must be one of 'norm', 'channel', got 'sum'"),
    "unknown compile": ({"compile": "yes"}, r"compile must be one of 'auto', 'always', 'never', got 'yes'"),
    "alpha of text": ({"alpha": "steep"}, r"alpha must be .*number.*'steep'"),
    "alpha infinite": ({"alpha": float("inf")}, r"alpha must be .*inf"),
    "alpha NaN": ({"alpha": torch.tensor(float("nan"))}, r"alpha must be finite, got NaN or infinity"),
    "alpha per sample": ({"alpha": torch.ones(2)}, r"alpha must be .* shape \[\], \[N, 1\] or \[C\], got torch.float32 \(2,\)"),
    "alpha of integers": ({"alpha": torch.tensor(1)}, r"alpha must be .* floating-point tensor .* got torch.int64 \(\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(random_graph, case):
    change, message = BAD[case]
    given = {"x": torch.ones(13, 2), "weight": torch.ones(50), "alpha": 1.0} | change
    with pytest.raises(ValueError, match=message):
        gated_sum(Connectivity(random_graph), **given)


def test_too_few_types_are_refused(lattice):
    with pytest.raises(ValueError, match=r"weight must have one entry per edge type \(8\), got shape \(7,\)"):
        gated_sum(Connectivity(lattice), torch.ones(16, 2), torch.ones(7), 1.0, per="type")


def test_the_magnitude_is_a_norm_without_a_kink_in_its_derivative(normal):
    x = normal(5, 2, 3)
    assert_same(magnitude(x), torch.linalg.vector_norm(x, dim=-1, keepdim=True))
    assert_same(magnitude(x, "channel"), x.abs())
    silent = torch.zeros(2, 1, 3, dtype=torch.double, requires_grad=True)
    (first,) = torch.autograd.grad(magnitude(silent).sum(), silent, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), silent)
    assert not first.any()
    assert not second.any()


# dynamo looks at .grad of what is no leaf and hides the warning from everyone but those for whom warnings are errors
own_warning = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@own_warning
def test_a_traced_step_equals_the_eager_one_on_three_graphs(some_graph, normal):
    """A whole step of the rule without a graph break, and another batch size without tracing anew; values and gradients."""
    torch.compiler.reset()
    check_traced_step(some_graph, normal, "aot_eager")


@own_warning
@pytest.mark.slow
def test_a_compiled_step_equals_the_eager_one(random_graph, normal):
    """The same through the default backend, which generates and compiles C++."""
    torch.compiler.reset()
    check_traced_step(random_graph, normal, "inductor")


def check_traced_step(graph, normal, backend):
    rule = RelativisticCA(graph, leak=None, alpha=2.0).double()
    compiled = torch.compile(rule.step, fullgraph=True, dynamic=True, backend=backend)
    for number, columns in enumerate((3, 5)):
        x, drive, factor = (normal(rule.num_nodes, columns) for _ in range(3))
        results = []
        for step in (rule.step, compiled):
            start = rule.initial_state(columns)._replace(x=x.clone().requires_grad_())
            with torch._dynamo.config.patch(error_on_recompile=number > 0):
                state, activity = step(rule.prepare(), start, drive)
            inputs = (start.x, *rule.parameters())
            results.append([state.x, activity, *torch.autograd.grad((activity * factor).sum(), inputs)])
        for eager, found in zip(*results):
            assert_same(found, eager)
