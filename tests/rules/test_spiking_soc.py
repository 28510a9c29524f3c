"""SpikingSOC: a textbook neuron where it should be one, its own equations elsewhere, values and gradients."""

from __future__ import annotations

import copy
import pickle

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer, ModelConfig
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import MaxAggregation

import topologies
from lmn_graph import Connectivity, ops, rollout
from lmn_graph.rules import SOCState, SpikingSOC, as_conv
from lmn_graph.surrogates import ArcTan, FastSigmoid, Gaussian, Sigmoid

LEARNED = {"threshold": None, "decay": None, "utilisation": None, "recovery": None}
FIXED = {"decay": 0.9, "utilisation": 0.1, "recovery": 30.0}


def dense(connectivity, weight):
    """W with rows of targets, parallel edges added up."""
    n = connectivity.num_nodes
    flat = connectivity.edge_index[1] * n + connectivity.edge_index[0]
    return weight.new_zeros(n * n).index_add(0, flat, weight).view(n, n)


def lif(W, drive, beta, theta, surrogate, detach):
    """Leaky integrate-and-fire with hard reset in six lines, batch-first: drive [B, T, N] -> spikes [B, T, N]."""
    v = s = torch.zeros_like(drive[:, 0])
    spikes = []
    for x_t in drive.unbind(1):
        v = beta * v + x_t + s @ W.t()
        s = surrogate(v - theta)
        v = v * (1 - (s.detach() if detach else s))
        spikes.append(s)
    return torch.stack(spikes, 1)


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("per_step", [True, False], ids=["per step", "constant"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certificate_against_leaky_integrate_and_fire(seed, per_step, detach, dtype):
    """Activity t is the textbook neuron's at t - 1, and in double precision the gradients agree to 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    B, T, N, beta, theta = 3, 20, 27, 0.9, 1.0
    index = torch.cartesian_prod(torch.arange(N), torch.arange(N)).t().flip(0)  # complete, with self-loops, sorted
    weight = 0.3 * torch.randn(N * N, generator=generator, dtype=dtype)
    drive = 0.6 * torch.rand(B, T if per_step else 1, N, generator=generator, dtype=dtype)
    factor = torch.randn(B, T, N, generator=generator, dtype=dtype)
    surrogate = FastSigmoid(width=0.1)
    rule = SpikingSOC(
        Data(edge_index=index, num_nodes=N), decay=beta, threshold=theta, weight=weight, reset="zero", detach_reset=detach,
        resources=False, surrogate=surrogate,
    ).to(dtype)  # fmt: skip
    given = drive.clone().requires_grad_()
    activity = rollout(rule, given if per_step else given[:, 0], steps=T + 1).activity if not per_step else run_one_more(rule, given)
    W, known = weight.view(N, N).clone().requires_grad_(), drive.clone().requires_grad_()
    expected = lif(W, known.expand(B, T, N), beta, theta, surrogate, detach)

    assert torch.equal(activity[:, 0], torch.zeros(B, N, dtype=dtype))
    assert int((activity[:, 1:] != expected).sum()) == 0
    assert 0.1 < expected.mean() < 0.6  # neither silent nor saturated
    found = torch.autograd.grad((activity[:, 1:] * factor).sum(), (rule.weight, given))
    wanted = torch.autograd.grad((expected * factor).sum(), (W, known))
    for got, want in zip(found, wanted):
        error = (got.view(want.shape) - want).norm() / want.norm()
        assert error < (1e-6 if dtype == torch.float64 else 1e-4)


def run_one_more(rule, drive):
    """T drives and the step after them, which shows the spikes that the last drive caused."""
    last = torch.zeros_like(drive[:, :1])
    return rollout(rule, torch.cat([drive, last], 1), steps=drive.size(1) + 1).activity


def reference_loop(rule, drive, steps, W):
    """The equations of the docstring, dense, one line each; drive [N, B]."""
    theta, decay, u, tau = rule.threshold(), rule.decay(), rule.utilisation(), rule.recovery()
    v, r = torch.zeros_like(drive), torch.ones_like(drive)
    spikes, membranes, resources = [], [], []
    for _ in range(steps):
        s = rule.surrogate(v - theta)
        a = W @ (s * r)
        fed_back = s.detach() if rule.detach_reset else s
        v = {"none": v, "zero": v * (1 - fed_back), "subtract": v - theta * fed_back}[rule.reset] * decay + a + drive
        if rule.resources:
            # torch.clamp at 1 gives a resting neuron (r = 1) a gradient of 1 or of 0, depending on torch's version; 1 is never passed.
            r = (r - u * s + (1 - r) / tau).relu()
        for values, value in zip((spikes, membranes, resources), (s, v, r)):
            values.append(value)
    return [torch.stack(values).movedim(2, 0) for values in (spikes, membranes, resources)]


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("resources", [True, False], ids=["resources", "no resources"])
@pytest.mark.parametrize("reset", ["none", "zero", "subtract"])
@pytest.mark.parametrize("compiled", ["never", "always"])
def test_every_reset_equals_the_equations(some_graph, normal, reset, resources, detach, compiled):
    """Spikes, membranes, resources and the gradients of every parameter and of the drive, against a dense loop."""
    some_graph.edge_weight = None
    rule = SpikingSOC(some_graph, **LEARNED, reset=reset, resources=resources, detach_reset=detach, surrogate=Gaussian(0.5)).double()
    rule.compile = compiled  # step after step, and in one loop
    perturb(rule, normal)
    n = rule.num_nodes
    drive = (0.5 + 0.3 * normal(3, n)).requires_grad_()
    parameters = [p for name, p in rule.named_parameters() if resources or not name.startswith(("utilisation", "recovery"))]
    found = rollout(rule, drive, steps=12, record=("v", "r"))
    wanted = reference_loop(rule, drive.t(), 12, dense(rule.connectivity, rule.weight))
    factors = [normal(3, 12, n) for _ in range(3)]
    results = [found.activity, found.recorded["v"], found.recorded["r"]]
    assert torch.equal(results[0], wanted[0])
    assert 0 < results[0].mean() < 1
    for got, want in zip(results, wanted):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    losses = [sum((factor * value).sum() for factor, value in zip(factors, values)) for values in (results, wanted)]
    for got, want in zip(*(torch.autograd.grad(loss, [drive, *parameters]) for loss in losses)):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def perturb(rule, normal):
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter += 0.3 * normal(*parameter.shape)


def test_the_last_drive_reaches_only_the_returned_state(lattice, normal):
    rule = SpikingSOC(lattice).double()
    drives = normal(2, 5, 16)
    changed = drives.clone()
    changed[:, -1] += 10
    one, two = rollout(rule, drives, steps=5), rollout(rule, changed, steps=5)
    assert torch.equal(one.activity, two.activity)
    torch.testing.assert_close(two.state.v - one.state.v, torch.full((16, 2), 10.0, dtype=torch.float64))


def test_learned_parameters_stay_in_their_intervals(lattice):
    """However far the optimiser pushes."""
    rule = SpikingSOC(lattice, **LEARNED)
    intervals = {"threshold": (0.1, 10), "decay": (0.4, 0.99), "utilisation": (0.01, 0.5), "recovery": (10, 100)}
    starts = {"threshold": 1.0, "decay": 0.9, "utilisation": 0.1, "recovery": 30.0}
    for name, (low, high) in intervals.items():
        part = getattr(rule, name)
        assert part.raw.shape == (16, 1)
        torch.testing.assert_close(part(), torch.full((16, 1), starts[name]))
        for raw in (-1e4, -3.0, 3.0, 1e4):
            torch.nn.init.constant_(part.raw, raw)
            assert bool((part() >= low * (1 - 1e-6)).all())
            assert bool((part() <= high * (1 + 1e-6)).all())
        part.reset_parameters()
        torch.testing.assert_close(part(), torch.full((16, 1), starts[name]))


def test_resources_stay_between_zero_and_one_and_deplete(lattice):
    rule = SpikingSOC(lattice, utilisation=0.9, recovery=10.0, weight=1.0)
    r = rollout(rule, torch.full((1, 16), 5.0), steps=30, record=("r",)).recorded["r"]
    assert bool(((r >= 0) & (r <= 1)).all())
    assert r.min() < 0.2
    frozen = rollout(SpikingSOC(lattice, resources=False), torch.full((1, 16), 5.0), steps=5, record=("r",)).recorded["r"]
    assert bool((frozen == 1).all())


def test_h_of_zero_is_one(lattice):
    """A membrane exactly at the threshold fires."""
    rule = SpikingSOC(lattice, threshold=0.7, **FIXED)
    state = rule.initial_state(1)
    _, spikes = rule(SOCState(torch.full_like(state.v, 0.7), state.r))
    assert bool((spikes == 1).all())
    _, spikes = rule(SOCState(torch.nextafter(torch.full_like(state.v, 0.7), torch.tensor(0.0)), state.r))
    assert bool((spikes == 0).all())


@pytest.mark.parametrize("options", [{}, LEARNED, {"threshold": 1e-3}, {"threshold": 300.0}], ids=["default", "learned", "low", "high"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flip_flips_exactly_one_spike_of_every_sample(random_graph, normal, dtype, options):
    rule = SpikingSOC(random_graph, **options).to(dtype)
    theta = rule.threshold()[0].item()
    state = SOCState((theta + normal(13, 40)).to(dtype), torch.ones(13, 40, dtype=dtype))
    state.v[:, 0] = theta
    node = torch.arange(40) % 13
    p = rule.prepare()
    flipped = rule.flip(p, state, node)
    before, after = rule.step(p, state, None)[1], rule.step(p, flipped, None)[1]
    expected = torch.zeros(13, 40, dtype=dtype)
    expected[node, torch.arange(40)] = 1
    assert torch.equal((before - after).abs(), expected)
    assert torch.equal(flipped.v[expected == 0], state.v[expected == 0])
    assert torch.equal(flipped.r, state.r)


class TestWeights:
    """The four ways of giving edge weights, learned and fixed."""

    def test_none_takes_the_weights_of_the_graph(self, random_graph):
        rule = SpikingSOC(random_graph)
        assert isinstance(rule.weight, torch.nn.Parameter)
        assert torch.equal(rule.weight, rule.connectivity.edge_weight.float())
        rule.weight.data.zero_()
        assert bool((rule.connectivity.edge_weight != 0).all())  # a copy
        fixed = SpikingSOC(random_graph, learn_weight=False)
        assert not isinstance(fixed.weight, torch.nn.Parameter)
        assert "weight" in fixed.state_dict()

    def test_none_without_graph_weights_draws_them_around_half_a_mean(self):
        rule = SpikingSOC(topologies.grid(20, 2))
        incoming = rule.weight * 8
        assert incoming.mean().item() == pytest.approx(0.5, abs=0.05)
        assert incoming.std().item() == pytest.approx(0.5, abs=0.05)

    def test_a_tensor_is_in_the_order_in_which_the_edges_were_given(self, random_graph):
        """As ``edge_weight`` would be: of data in their own order, of a connectivity in its sorted order."""
        weight = torch.randn(50)
        as_field = random_graph.clone()
        as_field.edge_weight = weight
        assert torch.equal(SpikingSOC(random_graph, weight=weight).weight, SpikingSOC(as_field).weight)
        sorted_ = SpikingSOC(Connectivity(random_graph), weight=weight)
        assert torch.equal(sorted_.weight, weight)
        assert sorted_.weight.data_ptr() != weight.data_ptr()

    def test_reset_parameters_makes_a_rule_new(self, random_graph):
        torch.manual_seed(5)
        rule = SpikingSOC(random_graph, threshold=None)
        fresh = {name: value.clone() for name, value in rule.state_dict().items()}
        with torch.no_grad():
            for parameter in rule.parameters():
                parameter.fill_(7.0)
        torch.manual_seed(5)
        as_conv(rule, 3).reset_parameters()
        for name, value in rule.state_dict().items():
            assert torch.equal(value, fresh[name]), name

    def test_nothing_is_learned_about_resources_that_are_not_used(self, lattice):
        """Unused parameters would stop data-parallel training at its second step."""
        rule = SpikingSOC(lattice, resources=False)
        activity = rollout(rule, torch.rand(2, 16), steps=5).activity
        gradients = torch.autograd.grad(activity.sum(), list(rule.parameters()))
        assert len(gradients) == 2  # decay and weights
        assert SpikingSOC(lattice, resources=False, decay=0.9, weight=1.0, learn_weight=False).shared

    def test_a_number_is_a_gain(self, random_graph, lattice):
        assert torch.equal(SpikingSOC(lattice, weight=0.3).weight, torch.full((128,), 0.3))
        learned = SpikingSOC(random_graph, weight=2)
        torch.testing.assert_close(learned.weight, 2 * learned.connectivity.edge_weight.float())
        fixed = SpikingSOC(random_graph, weight=2, learn_weight=False)
        assert fixed.weight is None
        torch.testing.assert_close(fixed.prepare().weight.value, learned.weight.detach())

    @pytest.mark.parametrize("learn", [True, False])
    def test_only_learned_weights_get_gradients(self, lattice, learn):
        rule = SpikingSOC(lattice, learn_weight=learn)
        rollout(rule, torch.ones(1, 16), steps=4).state.v.sum().backward()
        assert {name for name, p in rule.named_parameters() if p.grad is not None and p.grad.any()} >= ({"weight"} if learn else set())
        assert ("weight" in dict(rule.named_parameters())) == learn


def test_a_rule_without_node_parameters_runs_on_another_graph(lattice, random_graph, normal):
    """Shared parameters: the same module on a graph given at the call equals a rule built on that graph."""
    rule = SpikingSOC(lattice, **FIXED, weight=0.5, learn_weight=False)
    assert rule.shared
    there = SpikingSOC(random_graph, **FIXED, weight=0.5, learn_weight=False)
    drive = normal(2, 13).float().abs()
    for graph in (random_graph, Connectivity(random_graph)):
        assert torch.equal(rollout(rule, drive, steps=6, graph=graph).activity, rollout(there, drive, steps=6).activity)
    for bound in (SpikingSOC(lattice), SpikingSOC(lattice, **FIXED), SpikingSOC(lattice, weight=0.5, learn_weight=False)):
        assert not bound.shared
        with pytest.raises(ValueError, match="graph must be the one that this SpikingSOC is bound to"):
            rollout(bound, drive, steps=1, graph=random_graph)


@pytest.mark.parametrize("options", [{}, {"weight": 0.5, "learn_weight": False}, {"learn_weight": False}], ids=str)
def test_copies_pickles_and_state_dicts_are_the_same_rule(random_graph, normal, options):
    rule = SpikingSOC(random_graph, surrogate=Sigmoid(0.3), **options)
    perturb(rule, lambda *shape: normal(*shape).float())
    drive = normal(2, 13).float()
    expected = rollout(rule, drive, steps=8, record=("v",)).recorded["v"]
    rebuilt = SpikingSOC(random_graph, surrogate=Sigmoid(0.3), **options)
    rebuilt.load_state_dict(rule.state_dict())
    for other in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule)), rebuilt):
        assert torch.equal(rollout(other, drive, steps=8, record=("v",)).recorded["v"], expected)


def test_double_runs_in_double(random_graph, normal):
    rule = SpikingSOC(random_graph).double()
    found = rollout(rule, normal(2, 13), steps=3, record=("v", "r"))
    assert {found.activity.dtype, *(value.dtype for value in found.recorded.values()), *(f.dtype for f in found.state)} == {torch.float64}
    assert {field.dtype for field in rule.initial_state(2)} == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(random_graph, dtype):
    """Without sparse kernels for it: the sum falls back by itself, forward and backward."""
    rule = SpikingSOC(random_graph).to(dtype)
    found = rollout(rule, torch.ones(2, 13, dtype=dtype), steps=4)
    assert found.activity.dtype == dtype
    found.state.v.float().sum().backward()
    assert bool(rule.weight.grad.isfinite().all())
    assert bool(rule.weight.grad.any())


def test_a_surrogate_may_be_any_callable(lattice):
    def relu_like(u):
        soft = (u / 2 + 0.5).clamp(0, 1)
        return soft + ((u >= 0).to(u.dtype) - soft).detach()

    rule = SpikingSOC(lattice, surrogate=relu_like)
    activity = rollout(rule, torch.full((1, 16), 0.5), steps=8).activity
    assert set(activity.detach().unique().tolist()) <= {0.0, 1.0}
    activity.sum().backward()
    assert bool(rule.weight.grad.any())


class TestMessages:
    """PyG's own path: same numbers, and whoever asks to see the messages sees them."""

    @staticmethod
    def run(rule, drive):
        return rollout(rule, drive, steps=5, record=("v",)).recorded["v"]

    def test_the_class_uses_pygs_generated_propagate(self, lattice):
        """A type hint that PyG cannot resolve would silently put the class on a slow generic path."""
        assert SpikingSOC(lattice).propagate.__module__.endswith("_propagate")

    def test_hooks_see_and_change_messages(self, random_graph, normal):
        rule, drive = SpikingSOC(random_graph, threshold=0.3), normal(2, 13).float().abs()
        expected = self.run(rule, drive)
        seen = []
        for register in ("message_forward_pre", "message_forward", "aggregate_forward_pre", "aggregate_forward", "propagate_forward"):
            handle = getattr(rule, f"register_{register}_hook")(lambda *args: seen.append(args[1]) and None)
            torch.testing.assert_close(self.run(rule, drive), expected)
            handle.remove()
            assert len(seen) == 5, register
            seen.clear()
        handle = rule.register_message_forward_hook(lambda module, inputs, output: 0 * output)
        silent = self.run(rule, drive)
        handle.remove()
        assert not torch.allclose(silent, expected)
        rule.weight.data.zero_()
        torch.testing.assert_close(silent, self.run(rule, drive))

    def test_decomposed_layers(self, random_graph, normal, monkeypatch):
        """PyG's own way to save memory goes through the messages, not through the sparse product."""
        rule, drive = SpikingSOC(random_graph, threshold=0.3), normal(4, 13).float().abs()
        expected = self.run(rule, drive)
        rule.decomposed_layers = 2
        monkeypatch.setattr(ops, "weighted_sum", None)
        torch.testing.assert_close(self.run(rule, drive), expected)

    def test_an_edge_mask_has_its_effect(self, random_graph, normal):
        """What ``torch_geometric.explain`` does: masked edges carry nothing, and the mask gets a gradient."""
        rule, drive = SpikingSOC(random_graph, threshold=0.3).double(), normal(2, 13).abs()
        expected = self.run(rule, drive)
        mask = torch.ones(50, dtype=torch.float64, requires_grad=True)
        rule.explain, rule._edge_mask, rule._loop_mask, rule._apply_sigmoid = True, mask, torch.ones(50, dtype=torch.bool), False
        found = self.run(rule, drive)
        torch.testing.assert_close(found, expected)
        found.sum().backward()
        assert bool(mask.grad.any())
        rule._edge_mask = torch.zeros(50, dtype=torch.float64)
        assert not torch.allclose(self.run(rule, drive), expected)
        rule.explain = False
        torch.testing.assert_close(self.run(rule, drive), expected)

    def test_pygs_explainer_explains_a_rule(self, random_graph):
        """GNNExplainer on the rule as a layer: an importance for every edge, not all alike."""
        rule = SpikingSOC(random_graph, threshold=0.3, surrogate=ArcTan(1.0))
        explainer = Explainer(
            as_conv(rule, steps=4), GNNExplainer(epochs=5), explanation_type="model", node_mask_type="object", edge_mask_type="object",
            model_config=ModelConfig(mode="regression", task_level="node", return_type="raw"),
        )  # fmt: skip
        explanation = explainer(torch.ones(13, 3), rule.connectivity.edge_index)
        assert explanation.edge_mask.shape == (50,)
        assert explanation.edge_mask.std() > 0


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(st.permutations(range(13)), st.sampled_from(["none", "zero", "subtract"]))
def test_relabelling_the_nodes_permutes_the_result(permutation, reset):
    """Node i of the relabelled graph is node ``order[i]`` of the other: parameters and drive moved along, so does the activity."""
    generator = torch.Generator().manual_seed(1)
    order = torch.tensor(permutation)
    place = order.argsort()
    edge = torch.randperm(169, generator=generator)[:50]
    index, weight = torch.stack([edge // 13, edge % 13]), torch.randn(50, generator=generator, dtype=torch.float64)
    options = LEARNED | {"reset": reset}
    rule = SpikingSOC(Data(edge_index=index, edge_weight=weight, num_nodes=13), **options).double()
    other = SpikingSOC(Data(edge_index=place[index], edge_weight=weight, num_nodes=13), **options).double()
    with torch.no_grad():
        for name in LEARNED:
            raw = getattr(rule, name).raw
            raw += torch.randn(raw.shape, generator=generator, dtype=torch.float64)
            getattr(other, name).raw.copy_(raw[order])
    drive = torch.rand(2, 13, generator=generator, dtype=torch.float64)
    one, two = rollout(rule, drive, steps=10, record=("v", "r")), rollout(other, drive[:, order], steps=10, record=("v", "r"))
    assert torch.equal(two.activity, one.activity[:, :, order])
    for name in ("v", "r"):
        torch.testing.assert_close(two.recorded[name], one.recorded[name][:, :, order], rtol=1e-12, atol=1e-12)


BAD = {
    "threshold": [0.0, -1.0, "1", float("nan")],
    "decay": [-0.1, 1.1, True],
    "utilisation": [-0.1, 1.1],
    "recovery": [0.5, float("inf")],
    "weight": [torch.ones(3), torch.ones(50, dtype=torch.long), torch.full((50,), torch.nan), float("nan"), "1"],
    "learn_weight": [1, None],
    "reset": ["soft", None, 0],
    "detach_reset": ["no"],
    "resources": [1],
    "surrogate": [None, "ArcTan"],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_named(random_graph, name):
    for value in BAD[name]:
        with pytest.raises(ValueError, match=f"^{name} must be "):
            SpikingSOC(random_graph, **{name: value})


# dynamo looks at .grad of what is no leaf and hides the warning from everyone but those for whom warnings are errors
own_warning = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@pytest.mark.slow
@own_warning
@pytest.mark.parametrize(("name", "reset"), [("lattice", "none"), ("random_graph", "zero"), ("multigraph", "subtract")])
def test_a_traced_step_equals_the_eager_one_on_three_graphs(request, normal, name, reset):
    """``fullgraph=True``: no part of a step leaves the graph; values and gradients as without it."""
    torch.compiler.reset()
    check_compiled_step(request.getfixturevalue(name), normal, reset, "aot_eager")


@own_warning
@pytest.mark.slow
def test_a_compiled_step_equals_the_eager_one(random_graph, normal):
    """The same through the default backend, which generates and compiles C++."""
    torch.compiler.reset()
    check_compiled_step(random_graph, normal, "none", "inductor")


def check_compiled_step(graph, normal, reset, backend):
    rule = SpikingSOC(graph, **LEARNED, reset=reset).double()
    state = SOCState(1 + normal(rule.num_nodes, 3), torch.ones(rule.num_nodes, 3, dtype=torch.float64))
    drive = normal(rule.num_nodes, 3).requires_grad_()
    factors = normal(2, rule.num_nodes, 3)
    results = []
    for step in (rule.step, torch.compile(rule.step, fullgraph=True, dynamic=True, backend=backend)):
        (v, r), s = step(rule.prepare(), state, drive)
        (v, r), s = step(rule.prepare(), SOCState(v, r), drive)
        with torch._dynamo.config.patch(error_on_recompile=True):  # the next rollout, which prepares anew, reuses what is compiled
            step(rule.prepare(), SOCState(v, r), drive)
        grads = torch.autograd.grad((factors[0] * v + factors[1] * r + s).sum(), [drive, *rule.parameters()])
        results.append([v, r, s, *grads])
    for eager, compiled in zip(*results):
        torch.testing.assert_close(compiled, eager, rtol=1e-10, atol=1e-12)


@pytest.mark.cuda
def test_a_gpu_gives_the_spikes_of_the_cpu(some_graph, normal):
    rule, drive = SpikingSOC(some_graph).double(), normal(2, some_graph.num_nodes).abs()
    expected = rollout(rule, drive, steps=10)
    expected.state.v.sum().backward()
    gradient = rule.weight.grad.clone()
    rule.zero_grad()
    found = rollout(rule.cuda(), drive.cuda(), steps=10)
    found.state.v.sum().backward()
    torch.testing.assert_close(found.activity.cpu(), expected.activity)
    torch.testing.assert_close(rule.weight.grad.cpu(), gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resources_stay_between_zero_and_one(dtype):
    """The step has no upper clamp: recovery must not carry a resource past 1, nor use below 0, not even by rounding."""
    for recovery in (1.0, 1.5, 10.0, 33.3, 100.0):
        rule = SpikingSOC(topologies.grid(5, 2), recovery=recovery, utilisation=0.7, reset="zero").to(dtype)
        drive = torch.rand(8, 25, dtype=dtype) * 1.5
        with torch.no_grad():
            r = rollout(rule, drive, steps=300, record=("r",)).recorded["r"]
        assert 0 <= float(r.min()) < 0.4
        assert float(r.max()) == 1.0


def test_the_representation_names_graph_and_options():
    rule = SpikingSOC(topologies.grid(4, 2), reset="zero", surrogate=Gaussian(0.5))
    expected = "SpikingSOC(grid, num_nodes=16, num_edges=128, reset='zero', resources=True, surrogate=Gaussian(width=0.5))"
    assert str(rule) == expected


def test_masking_an_edge_is_removing_it_also_where_edges_are_not_sorted():
    """Masks of an explainer are in the order of the edges as given; PyG's datasets are sorted by source, rules by target."""
    edge_index = torch.tensor([[1, 3, 0, 2, 3], [2, 0, 1, 3, 1]])
    shared = {"threshold": 0.3, "decay": 0.9, "utilisation": 0.1, "recovery": 30.0, "weight": 1.0, "learn_weight": False, "reset": "zero"}
    layer, x = as_conv(SpikingSOC(Data(edge_index=edge_index, num_nodes=4), **shared), 9), torch.tensor([[0.0], [0.0], [0.0], [0.2]])
    heard = 0
    for edge in range(5):
        mask = torch.full((5,), 20.0)
        mask[edge] = -20.0
        set_masks(layer, mask, edge_index)
        masked = layer(x, edge_index)
        clear_masks(layer)
        rest = edge_index[:, torch.arange(5) != edge]
        without = as_conv(SpikingSOC(Data(edge_index=rest, num_nodes=4), **shared), 9)
        assert torch.equal(masked, without(x, rest)), edge
        heard += not torch.equal(masked, layer(x, edge_index))
    assert heard >= 3


class Louder(SpikingSOC):
    """A layer extended in PyG's own way: by its message."""

    def message(self, x_j, weight):
        return 2 * super().message(x_j, weight)


def test_a_message_of_ones_own_and_another_aggregation_are_honoured(lattice):
    torch.manual_seed(0)
    plain = SpikingSOC(lattice, threshold=0.3)
    louder = Louder(lattice, threshold=0.3)
    louder.load_state_dict(plain.state_dict())
    drive = torch.rand(2, 16)
    found = rollout(louder, drive, steps=8).activity
    louder.reference = True
    assert torch.equal(found, rollout(louder, drive, steps=8).activity)
    expected = rollout(plain, drive, steps=8).activity
    assert not torch.equal(found, expected)
    plain.aggr_module = MaxAggregation()
    assert not torch.equal(rollout(plain, drive, steps=8).activity, expected)
