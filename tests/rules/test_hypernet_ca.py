"""Weights made for every sample: each generator is its formula, weights differ between samples, and the context learns from them."""

from __future__ import annotations

import math
from functools import partial

import networkx as nx
import pytest
import torch
from torch import nn

import topologies
from lmn_graph import LatticeMachine, ops, rollout
from lmn_graph.embeddings import CellEmbedding, FactoredCellEmbedding, cell_coordinates
from lmn_graph.projectors import Hypernetwork, Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import CellState, HypernetCA, RelativisticCA, TanhLattice, as_conv
from lmn_graph.rules.generators import (
    GENERATORS,
    EmitterListener,
    FactoredRouter,
    Factors,
    ImplicitRouter,
    LowRankSiren,
    MLPRouter,
    WeightGenerator,
)

every_generator = pytest.mark.parametrize("name", list(GENERATORS))
H = 5


def weights_of(rule, context, x=None):
    """The generated weights [E, B], made."""
    p = rule.prepare(context)
    weight = p.weight if p.left is None else p.weight.with_left(p.left(x))
    weight = weight.materialise() if isinstance(weight, ops.LowRankWeight) else weight
    return weight.value.unsqueeze(1) if isinstance(weight, ops.EdgeWeight) else weight


def dense(rule, weight):
    """[N, N, B]."""
    source, target = rule.connectivity.edge_index
    n = rule.num_nodes
    full = weight.new_zeros(n, n, weight.size(1))
    return full.index_put((target, source), weight, accumulate=True)


# The rule


@every_generator
@pytest.mark.parametrize("gate", [None, "relativistic"])
def test_a_step_is_its_equation_with_the_weights_written_as_matrices(name, gate, graph, normal):
    rule = HypernetCA(graph, name, context_dim=H, gate=gate, alpha=1.3).double()
    context, drive = normal(3, H), normal(3, rule.num_nodes)
    x, expected = normal(rule.num_nodes, 3) / 2, []
    found = rollout(rule, drive, steps=3, state=CellState(x), context=context).activity
    for _ in range(3):
        gates = torch.sigmoid(rule.alpha * (x.abs()[:, None] - x.abs()[None])) if gate else 1.0
        x = torch.tanh((gates * dense(rule, weights_of(rule, context, x)) * x[None]).sum(1) + drive.t())
        expected.append(x.t())
    torch.testing.assert_close(found, torch.stack(expected, 1))


@every_generator
@pytest.mark.parametrize("gate", [None, "relativistic"])
@pytest.mark.parametrize(("channels", "per_channel"), [(None, False), (2, False), (2, True)])
def test_contracted_made_and_propagated_are_one_rule(name, gate, channels, per_channel, some_graph, normal):
    """Values and the gradients to the drive, the context and every parameter."""
    generator = partial(GENERATORS[name], per_channel=per_channel)
    rule = HypernetCA(some_graph, generator, context_dim=H, gate=gate, channels=channels).double()
    tail = () if channels is None else (channels,)
    drive, context = normal(3, rule.num_nodes, *tail).requires_grad_(), normal(3, H).requires_grad_()
    wanted = [drive, context, *rule.parameters()]
    outcomes = []
    for materialise, reference in (("never", False), ("always", False), ("never", True)):
        rule.materialise, rule.reference = materialise, reference
        activity = rollout(rule, drive, steps=3, context=context).activity
        outcomes.append([activity, *torch.autograd.grad(activity.square().sum(), wanted)])
    for other in outcomes[1:]:
        for got, want in zip(other, outcomes[0], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@every_generator
def test_weights_differ_between_samples_and_the_context_learns(name, lattice, normal):
    """Same state, same drive, another context: another activity, and a gradient that is the finite difference."""
    rule = HypernetCA(lattice, name, context_dim=H).double()
    one = normal(1, H)
    context = torch.cat([one, one, normal(1, H)]).requires_grad_()
    drive = normal(1, 16).expand(3, -1)
    weight = weights_of(rule, context, normal(16, 1).expand(-1, 3)).detach()
    torch.testing.assert_close(weight[:, 0], weight[:, 1])
    assert float((weight[:, 0] - weight[:, 2]).abs().mean()) > 0.01

    def outcome(context):
        return rollout(rule, drive, steps=4, context=context).activity[:, -1].square().sum(1)

    activity = outcome(context)
    torch.testing.assert_close(activity[0], activity[1])
    assert float((activity[0] - activity[2]).detach().abs()) > 1e-3
    (gradient,) = torch.autograd.grad(activity[2], context)
    assert not bool(gradient[:2].any())  # a context is heard by its own sample only
    step = torch.zeros(3, H, dtype=torch.float64)
    step[2] = 1e-6 * normal(H)
    difference = (outcome(context + step) - outcome(context - step))[2] / 2
    torch.testing.assert_close(difference, (gradient * step).sum(), rtol=1e-5, atol=0)


@every_generator
def test_an_order_of_samples_is_an_order_of_results(name, lattice, normal):
    """Selecting samples of prepared weights is preparing the weights of these samples."""
    rule = HypernetCA(lattice, name, context_dim=H, materialise="never").double()
    context, drive = normal(5, H), normal(5, 16)
    samples = torch.tensor([3, 0, 3])
    whole = rule.prepare(context)
    state = CellState(normal(16, 5))
    for materialise in ("never", "always"):
        rule.materialise = materialise
        _, expected = rule.step(rule.prepare(context), state, drive.t())
        some = rule.select(rule.prepare(context), samples)
        _, found = rule.step(some, CellState(state.x[:, samples]), drive.t()[:, samples])
        torch.testing.assert_close(found, expected[:, samples])
    assert rule.select(whole, samples).batch == 3


def test_without_a_context_there_is_one_set_of_weights(lattice, normal):
    """A plain tanh lattice with these weights; they are ordinary edge weights then."""
    rule = HypernetCA(lattice, ImplicitRouter, materialise="always").double()
    p = rule.prepare()
    assert isinstance(p.weight, ops.EdgeWeight)
    drive = normal(3, 16)
    plain = TanhLattice(lattice, weight=p.weight.value.detach(), learn_weight=False).double()
    torch.testing.assert_close(rollout(rule, drive, steps=4).activity, rollout(plain, drive, steps=4).activity)
    assert rule.select(p, torch.tensor([0])) is p


def test_with_fixed_weights_and_a_gate_it_is_the_relativistic_automaton(random_graph, normal):
    """A function that returns [1, E] in the order of the data, which is unsorted."""
    weight = normal(50)
    rule = HypernetCA(random_graph, lambda context: weight[None], gate="relativistic", alpha=0.7).double()
    plain = RelativisticCA(random_graph, weight=weight, alpha=0.7).double()
    drive = normal(3, 13)
    torch.testing.assert_close(rollout(rule, drive, steps=4).activity, rollout(plain, drive, steps=4).activity)


def test_generated_weights_start_at_unit_gain(normal):
    """√K times a weight has a variance near 1 whatever the generator, so that the field of unit-variance cells has one too."""
    graph = topologies.grid(12, 2, 2)
    torch.manual_seed(0)
    for name in GENERATORS:
        rule = HypernetCA(graph, name, context_dim=H)
        weight = weights_of(rule, torch.randn(64, H), torch.randn(144, 64)).detach()
        assert 0.4 < math.sqrt(24) * float(weight.std()) < 2.5, name
        twice = HypernetCA(graph, name, context_dim=H, gain=2.0)
        twice.load_state_dict(rule.state_dict())
        torch.testing.assert_close(
            weights_of(twice, torch.ones(1, H), torch.ones(144, 1)), 2 * weights_of(rule, torch.ones(1, H), torch.ones(144, 1))
        )


def test_a_weighted_graph_scales_its_weights(random_graph, normal):
    """w = a_ij / √Σ_j a_ij² times what is generated; a common factor of the graph's weights cancels."""
    rule = HypernetCA(random_graph, EmitterListener).double()
    doubled = random_graph.clone()
    doubled.edge_weight = 2 * doubled.edge_weight
    other = HypernetCA(doubled, EmitterListener).double()
    other.load_state_dict(rule.state_dict())
    torch.testing.assert_close(weights_of(rule, None), weights_of(other, None))
    a, target = rule.connectivity.edge_weight, rule.connectivity.edge_index[1]
    norm = torch.zeros(13, dtype=torch.float64).index_add(0, target, a.square()).sqrt()
    plain = topologies.from_edges(random_graph.edge_index, num_nodes=13)
    bare = HypernetCA(plain, EmitterListener).double()
    bare.load_state_dict(rule.state_dict())
    degree = rule.connectivity.in_degree()[target].double().sqrt()
    torch.testing.assert_close(weights_of(rule, None)[:, 0] / a * norm[target], weights_of(bare, None)[:, 0] * degree)


def test_the_router_of_all_cells_takes_another_graph(normal):
    """It was trained on 4 × 4 cells and runs on 6 × 6; a learned leak or an identity binds it."""
    rule = HypernetCA(topologies.grid(4, 2), MLPRouter, context_dim=H).double()
    larger = topologies.grid(6, 2)
    native = HypernetCA(larger, MLPRouter, context_dim=H).double()
    native.load_state_dict(rule.state_dict())
    context, drive = normal(2, H), normal(2, 36)
    found = rollout(rule, drive, steps=3, context=context, graph=larger).activity
    torch.testing.assert_close(found, rollout(native, drive, steps=3, context=context).activity)
    with pytest.raises(ValueError, match=r"graph must have the 8 edge types of .* with 24 edge types"):
        rule.prepare(normal(2, H), topologies.grid(6, 2, 2))
    with pytest.raises(ValueError, match=r"graph must have the 8 edge types .* with 4 edge types"):  # whose numbers mean other offsets
        rule.prepare(normal(2, H), topologies.grid(6, 2, metric="manhattan"))
    with pytest.raises(ValueError, match="with no edge_type"):
        rule.prepare(normal(2, H), topologies.from_networkx(nx.path_graph(6)))
    for bound in (HypernetCA(topologies.grid(4, 2), MLPRouter, leak=None), HypernetCA(topologies.grid(4, 2), FactoredRouter)):
        with pytest.raises(ValueError, match="graph must be the one"):
            bound.prepare(None, larger)


def test_the_graph_of_a_call_may_have_its_edges_in_another_order(random_graph, normal):
    """Weights of a function are in the order of the topology that the rule was built on, whatever graph is passed."""
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    other = random_graph.clone()
    other.edge_index, other.edge_weight = other.edge_index[:, order], other.edge_weight[order]
    context, drive = normal(3, H), normal(3, 13)
    for generator in (Edges(50), *GENERATORS):
        rule = HypernetCA(random_graph, generator, context_dim=H).double()
        expected = rollout(rule, drive, steps=3, context=context).activity
        torch.testing.assert_close(rollout(rule, drive, steps=3, context=context, graph=other).activity, expected)


@every_generator
def test_weights_of_the_graph_of_a_call_are_heard(name, random_graph, normal):
    """They scale what is generated, so other ones give another rule: that of a graph which had them from the start."""
    other = random_graph.clone()
    other.edge_weight = torch.linspace(1, 2, 50, dtype=torch.float64)
    rule, native = HypernetCA(random_graph, name).double(), HypernetCA(other, name).double()
    native.load_state_dict(rule.state_dict())
    drive = normal(3, 13)
    found = rollout(rule, drive, steps=3, graph=other).activity
    torch.testing.assert_close(found, rollout(native, drive, steps=3).activity)
    assert float((found - rollout(rule, drive, steps=3).activity).detach().abs().max()) > 1e-3


@every_generator
@pytest.mark.parametrize("gate", [None, "relativistic"])
@pytest.mark.parametrize("materialise", ["never", "auto"])
def test_checkpointed_segments_give_the_same_gradients(name, gate, materialise, some_graph, normal):
    """What sums keep for later steps is not made in one segment and looked for in another."""
    rule = HypernetCA(some_graph, name, context_dim=H, gate=gate, materialise=materialise).double()
    drive, context = normal(3, rule.num_nodes), normal(3, H).requires_grad_()
    wanted = [context, *rule.parameters()]
    found = []
    for checkpoint in (None, 2):
        activity = rollout(rule, drive, steps=5, context=context, checkpoint=checkpoint).activity
        found.append([activity, *torch.autograd.grad(activity.square().sum(), wanted)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_laplacian_coordinates_belong_to_a_saved_rule():
    """The eigenvectors of a ring are not unique: a rule that is loaded elsewhere must not find others."""
    graph = topologies.from_networkx(nx.cycle_graph(12))
    rule, other = (HypernetCA(graph, LowRankSiren) for _ in range(2))
    other.generator.coordinates.values.neg_()
    other.load_state_dict(rule.state_dict())
    assert torch.equal(other.generator.coordinates(), rule.generator.coordinates())


# Generators, each against its formula


def slots(rule, weight):
    """[E, B] as [N, K, B] on a lattice."""
    kind, target = rule.connectivity.edge_type, rule.connectivity.edge_index[1]
    table = weight.new_zeros(rule.num_nodes, int(kind.max()) + 1, weight.size(1))
    return table.index_put((target, kind), weight)


def test_the_mlp_router_is_a_perceptron_of_state_and_context(lattice, normal):
    rule = HypernetCA(lattice, partial(MLPRouter, hidden=6, layers=2), context_dim=H).double()
    generator, context, x = rule.generator, normal(3, H), normal(16, 3)
    inputs = torch.cat([x[..., None], context.expand(16, -1, -1)], -1)  # [N, B, 1 + H]
    first = torch.cat([generator.state, generator.context.weight.t()])
    h = torch.tanh(inputs @ first + generator.context.bias)
    h = torch.tanh(generator.deeper[0](h))
    expected = h @ generator.slots[:, :-1].t() + generator.slots[:, -1]
    torch.testing.assert_close(slots(rule, weights_of(rule, context, x)), expected.transpose(1, 2) / math.sqrt(8))


@pytest.mark.parametrize("identity", ["cell", "factored"])
def test_the_factored_router_is_identity_times_context(identity, normal):
    graph = topologies.router_cells((4, 3), 2, boundary="open")
    rule = HypernetCA(graph, partial(FactoredRouter, rank=4, identity=identity), context_dim=H).double()
    generator, context = rule.generator, normal(3, H)
    assert isinstance(generator.identity, CellEmbedding if identity == "cell" else FactoredCellEmbedding)
    f = generator.cells(torch.tanh(generator.identity()))
    g = 1 + context @ generator.context.weight.t() + generator.context.bias
    expected = torch.einsum("nr,br,kr->nkb", f, g, generator.slots) / 2
    degree = rule.connectivity.in_degree().double().sqrt()
    made = weights_of(rule, context)
    torch.testing.assert_close(
        made, expected[rule.connectivity.edge_index[1], rule.connectivity.edge_type] / degree[rule.connectivity.edge_index[1], None]
    )


def test_the_implicit_router_is_a_network_of_coordinates(lattice, normal):
    rule = HypernetCA(lattice, partial(ImplicitRouter, hidden=7), context_dim=H).double()
    generator, context = rule.generator, normal(3, H)
    p = lattice.pos.double() / 3 * 2 - 1
    h = torch.sin(6 * (p @ generator.first.weight.t() + generator.first.bias)) @ generator.second.weight.t()
    h = torch.tanh(h[:, None] + context @ generator.context.weight.t() + generator.context.bias)
    expected = h @ generator.slots[:, :-1].t() + generator.slots[:, -1]
    torch.testing.assert_close(slots(rule, weights_of(rule, context)), expected.transpose(1, 2) / math.sqrt(8))


def siren(network, p, context):
    """γ(c) ω₀ (W h + b) + β(c), sample by sample."""
    found = []
    for c in context:
        h = p
        for layer, film in zip(network.layers[:-1], network.films):
            gamma, beta = (film.weight @ c).chunk(2)
            h = torch.sin((1 + gamma) * 30 * (h @ layer.weight.t() + layer.bias) + beta)
        found.append(30 * (h @ network.layers[-1].weight.t() + network.layers[-1].bias))
    return torch.stack(found, 1)


def test_the_low_rank_siren_is_a_sum_of_products_of_modulated_sines(lattice, normal):
    """W[b, c, n, k] = R^-1/2 Σ_r U[b, c, n, r] V[b, c, k, r], of offsets and coordinates within the unit cube."""
    rule = HypernetCA(lattice, partial(LowRankSiren, rank=3, per_channel=True), context_dim=H, channels=2).double()
    generator, context = rule.generator, normal(3, H)
    u = siren(generator.u, lattice.pos.double() / 3 * 2 - 1, context).unflatten(-1, (2, 3))
    offsets = torch.tensor([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j], dtype=torch.float64)
    v = siren(generator.v, offsets, context).unflatten(-1, (2, 3))
    expected = torch.einsum("nbcr,kbcr->nkbc", u, v) / math.sqrt(3 * 8)
    kind, target = rule.connectivity.edge_type, rule.connectivity.edge_index[1]
    torch.testing.assert_close(weights_of(rule, context), expected[target, kind], rtol=1e-4, atol=1e-5)  # offsets are in single precision


def test_a_siren_starts_as_published():
    """First layer within 1/in, the others within √(6/in)/ω₀; then every layer's argument is near standard normal, its output arcsine."""
    torch.manual_seed(0)
    generator = LowRankSiren(topologies.grid(16, 2), width=256, layers=3)
    first, second, third, last = generator.u.layers
    assert first.weight.abs().max().item() == pytest.approx(1 / 2, rel=0.02)
    for layer in (second, third, last):
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 256) / 30, rel=0.02)
    h = torch.sin(30 * first(generator.coordinates()))
    for layer in (second, third):
        argument = 30 * layer(h)
        h = torch.sin(argument)
        assert float((argument - 30 * layer.bias).detach().std()) == pytest.approx(1, abs=0.25)
        assert float(h.detach().std()) == pytest.approx(math.sqrt(0.5), abs=0.12)
    assert float(generator.u(generator.coordinates(), None).detach().std()) == pytest.approx(1, abs=0.3)


def test_the_emitter_and_the_listener_meet_on_every_edge(random_graph, normal):
    """w[b, i, j] = R^-1/2 ⟨listen_i, emit_j⟩ on a graph without coordinates or types."""
    rule = HypernetCA(random_graph, partial(EmitterListener, rank=4), context_dim=H).double()
    generator, context = rule.generator, normal(3, H)

    def voice(part):
        e = part.identity.weight[:, None] + context @ part.context.weight.t() + part.context.bias
        return part.linear(torch.tanh(e))

    full = torch.einsum("ibr,jbr->ijb", voice(generator.listener), voice(generator.emitter)) / 2
    source, target = rule.connectivity.edge_index
    a = rule.connectivity.edge_weight
    norm = torch.zeros(13, dtype=torch.float64).index_add(0, target, a.square()).sqrt()
    torch.testing.assert_close(weights_of(rule, context), full[target, source] * (a / norm[target])[:, None])


@every_generator
def test_every_parameter_of_a_generator_learns_and_is_reset(name, normal):
    graph = topologies.router_cells(4, 2)
    rule = HypernetCA(graph, name, context_dim=H, gate="relativistic").double()
    activity = rollout(rule, normal(3, 16), steps=3, context=normal(3, H)).activity
    activity.square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in rule.parameters())
    before = {key: value.clone() for key, value in rule.state_dict().items()}
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.fill_(3.0)
    rule.reset_parameters()
    assert rule.alpha.item() == 1
    for key, value in rule.state_dict().items():
        assert bool((value - before[key]).abs().max() < 10)
        assert not bool((value == 3).all())


# A function of the user's own


class Edges(nn.Module):
    def __init__(self, edges):
        super().__init__()
        self.linear = nn.Linear(H, edges)

    def forward(self, context):
        return self.linear(context)


def test_a_module_of_ones_own_makes_the_weights(random_graph, normal):
    rule = HypernetCA(random_graph, Edges(50), context_dim=H).double()
    context, drive = normal(3, H), normal(3, 13)
    w = rule.generator.function.linear(context)  # [B, E] in the order of the data
    source, target = random_graph.edge_index
    x = torch.zeros(3, 13, dtype=torch.float64)
    for _ in range(3):
        x = torch.tanh(torch.zeros_like(x).index_add(1, target, w * x[:, source]) + drive)
    found = rollout(rule, drive, steps=3, context=context).activity[:, -1]
    torch.testing.assert_close(found, x)
    found.sum().backward()
    assert rule.generator.function.linear.weight.grad.abs().sum() > 0
    rule.reset_parameters()


@pytest.mark.parametrize("shape", [(3, 16, 8), (1, 16, 8), (3, 1, 8), (1, 1, 8)])
def test_a_function_may_give_weights_by_edge_type(shape, lattice, normal):
    weight, drive, context = normal(*shape), normal(3, 16), normal(3, H)
    rule = HypernetCA(lattice, lambda context: weight, context_dim=H).double()
    table = weight.expand(3, 16, 8)
    box = normal(16, 3)
    total = torch.zeros(4, 4, 3, dtype=torch.float64)
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    for kind, (i, j) in enumerate(offsets):
        total += table[..., kind].t().reshape(4, 4, 3) * box.view(4, 4, 3).roll((-i, -j), (0, 1))
    _, found = rule.step(rule.prepare(context), CellState(box), drive.t())
    torch.testing.assert_close(found, torch.tanh(total.view(16, 3) + drive.t()))


@pytest.mark.parametrize(
    ("shape", "channels"), [((3, 7), None), ((2, 128), None), ((3, 16, 7), None), ((3, 15, 8), None), ((3, 16, 8, 3), 2), ((3,), None)]
)
def test_a_function_whose_weights_do_not_fit_is_named(shape, channels, lattice):
    rule = HypernetCA(lattice, lambda context: torch.zeros(shape), context_dim=H, channels=channels)
    with pytest.raises(ValueError, match=r"generator must return weights \[3 or 1, 128\] per edge or .* got shape \(") as error:
        rule.prepare(torch.zeros(3, H))
    assert str(shape) in str(error.value)
    with pytest.raises(ValueError, match=r"generator must return a floating-point tensor .* got NoneType"):
        HypernetCA(lattice, lambda context: None).prepare()
    with pytest.raises(ValueError, match="generator must return finite weights"):
        HypernetCA(lattice, lambda context: torch.full((1, 128), math.nan)).prepare()


def test_a_function_written_in_c_and_layers_in_a_row_are_functions(lattice):
    """The first has no signature; the layers are drawn anew with the rule, and get a context in their own precision."""
    assert HypernetCA(lattice, torch.tanh, context_dim=128).prepare(torch.ones(2, 128)).weight.shape == (128, 2)
    rule = HypernetCA(lattice, nn.Sequential(nn.Linear(H, 4), nn.Linear(4, 128)), context_dim=H).double()
    assert rule.prepare(torch.ones(2, H)).weight.dtype == torch.float64
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.fill_(7.0)
    rule.reset_parameters()
    assert not any(bool((parameter == 7).all()) for parameter in rule.parameters())


@pytest.mark.parametrize("kinds", [[0, -1], [1.5, 0.0], [0, 10**9]])
def test_edge_types_that_are_no_numbers_of_types_are_refused(kinds):
    graph = topologies.from_edges(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    graph.edge_type = torch.tensor(kinds)
    for generator in (MLPRouter, torch.tanh):
        with pytest.raises(ValueError, match=r"topology\.edge_type must be"):
            HypernetCA(graph, generator)


# A generator of the user's own


class Wrong(WeightGenerator):
    found: Factors | None = None

    def factors(self, context):
        return self.found


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (None, "Wrong.factors must return Factors, got NoneType"),
        (Factors(None, torch.zeros(8, 1, 2)), "Wrong.factors must return a left factor, got None"),
        (
            Factors(torch.zeros(16, 1, 2), torch.zeros(7, 1, 2)),
            r"right must be a floating-point tensor \[8, 3 or 1, R\], got shape \(7, 1, 2\)",
        ),
        (
            Factors(torch.zeros(16, 2, 2), torch.zeros(8, 1, 2)),
            r"left must be a floating-point tensor \[16, 3 or 1, R\], got shape \(16, 2, 2\)",
        ),
        (Factors(torch.zeros(16, 1, 0), torch.zeros(8, 1, 0)), r"right must be .* got shape \(8, 1, 0\)"),
        (Factors(torch.zeros(16, 2), torch.zeros(8, 2)), r"right must be .* got shape \(8, 2\)"),
        (Factors(torch.zeros(16, 1, 2), torch.zeros(8, 1, 2, dtype=torch.long)), "right must be .* got torch.int64"),
        (Factors(torch.zeros(16, 1, 2), torch.zeros(8, 1, 3)), "right must have the rank of left, 2, got"),
        (Factors(torch.zeros(16, 1, 2), torch.zeros(8, 1, 2), per="edge"), "per must be one of 'type', 'node', got 'edge'"),
    ],
)
def test_a_generator_whose_factors_do_not_fit_is_named(factors, message, lattice):
    rule = HypernetCA(lattice, Wrong, context_dim=H)
    rule.generator.found = factors
    with pytest.raises(ValueError, match=message):
        rule.prepare(torch.zeros(3, H))


# Bad input


class NoChannels(WeightGenerator):
    def __init__(self, topology, context_dim=0):
        super().__init__(topology, context_dim)

    def factors(self, context):
        raise AssertionError


def test_a_missing_or_wrong_context_is_refused(lattice, normal):
    rule = HypernetCA(lattice, context_dim=H)
    drive = torch.zeros(3, 16)
    with pytest.raises(ValueError, match=r"context must be a tensor \[B, 5\], as this rule has context_dim=5, got None"):
        rollout(rule, drive, steps=2)
    for wrong in (torch.zeros(3, 4), torch.zeros(3, 5, dtype=torch.long), torch.zeros(5), [1.0] * 5):
        with pytest.raises(ValueError, match=r"context must be a floating-point tensor \[B, 5\], got"):
            rollout(rule, drive, steps=2, context=wrong)
    for name in GENERATORS:
        with pytest.raises(ValueError, match="context must have one row per sample of the state, 3, got 2"):
            rollout(HypernetCA(lattice, name, context_dim=H), drive, steps=2, context=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="context must be finite, got NaN or infinity"):
        rollout(rule, drive, steps=2, context=torch.full((3, 5), math.nan))
    with pytest.raises(ValueError, match="rule must need no context, got HypernetCA with context_dim=5"):
        as_conv(rule, 3)
    with pytest.raises(ValueError, match="context must be None for a rule with context_dim=0"):
        rollout(HypernetCA(lattice), drive, steps=2, context=torch.zeros(3, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_dim": -1}, "context_dim must be an integer >= 0"),
        ({"gate": "softmax"}, "gate must be one of 'relativistic', got 'softmax'"),
        ({"gain": 0}, "gain must be"),
        ({"alpha": math.inf}, "alpha must be"),
        ({"materialise": "maybe"}, "materialise must be one of"),
        ({"limit": -1}, "limit must be"),
        ({"generator": "LowRankSire"}, "unknown generator 'LowRankSire'; did you mean 'LowRankSiren'"),
        ({"generator": 3}, "generator must be a generator class, its name"),
        ({"generator": dict}, "generator must be a generator class"),
        ({"generator": lambda topology, width: None}, "generator must be a function of one argument, the context"),
        ({"generator": NoChannels}, r"generator must take \(topology, context_dim, \*, channels\), got NoChannels"),
        ({"generator": partial(LowRankSiren, rank=0)}, "rank must be an integer >= 1, got 0"),
        ({"generator": partial(FactoredRouter, rank=0)}, "rank must be an integer >= 1, got 0"),
        ({"generator": partial(EmitterListener, rank=0)}, "rank must be an integer >= 1, got 0"),
        ({"generator": partial(MLPRouter, hidden=0)}, "hidden must be an integer >= 1, got 0"),
        ({"generator": partial(ImplicitRouter, omega=0)}, "omega must be"),
        ({"generator": partial(ImplicitRouter, coordinates="polar")}, "kind must be one of 'auto', 'laplacian', 'learned', got 'polar'"),
        ({"generator": partial(EmitterListener, identity="name")}, "identity must be one of"),
        ({"generator": partial(LowRankSiren, layers=0)}, "layers must be"),
        ({"generator": partial(LowRankSiren, per_channel=True)}, "per_channel must be False for scalar cells"),
    ],
)
def test_bad_options_are_refused(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        HypernetCA(lattice, **options)


# Machines


def test_a_machine_hands_the_context_and_the_start_to_the_rule(lattice):
    """Prediction = readout of a rollout from tanh(Z s) under D s with weights from c, written out."""
    torch.manual_seed(0)
    rule = HypernetCA(lattice, LowRankSiren, context_dim=H)
    projector = Hypernetwork((3,), lattice, context_dim=H)
    machine = LatticeMachine(lattice, projector, rule, Rate(lattice, 2, 4), steps=4)
    x = torch.randn(6, 3)
    h = projector.body(x)
    s, c = projector.state_context(h), projector.weight_context(h)
    start = torch.tanh(projector.to_start.linear(s)).t()
    trajectory = rollout(rule, projector.to_drive.linear(s), steps=4, context=c, state=CellState(start))
    torch.testing.assert_close(machine(x).prediction, machine.readout(trajectory.activity))
    torch.testing.assert_close(machine.drive(x), projector.to_drive.linear(s))
    machine(x).prediction.square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in machine.parameters())
    carried = machine(x, trajectory.state)  # a stream that is carried on does not start anew
    torch.testing.assert_close(
        carried.trajectory.activity, rollout(rule, machine.drive(x), steps=4, context=c, state=trajectory.state).activity
    )


def test_a_machine_without_a_context_for_its_rule_is_refused(lattice):
    rule = HypernetCA(lattice, context_dim=H)
    for projector, got in (
        (Linear((3,), lattice), "Linear with context_dim=0"),
        (Hypernetwork((3,), lattice, context_dim=4), "context_dim=4"),
    ):
        with pytest.raises(ValueError, match=f"projector must give the context of 5 numbers .* got .*{got}"):
            LatticeMachine(lattice, projector, rule, Rate(lattice, 2, 4), steps=4)


# Where cells are


def test_coordinates_are_positions_within_the_unit_cube():
    found = cell_coordinates(topologies.grid((3, 1, 5), 3))()
    assert found.shape == (15, 3)
    assert found.amin(0).tolist() == [-1, 0, -1]
    assert found.amax(0).tolist() == [1, 0, 1]


@pytest.mark.parametrize("n", [5, 40, 200])
def test_the_laplacian_coordinates_of_a_path_are_cosines(n):
    """Of the normalised Laplacian of a path: √degree times cos(π m i/(n − 1)); dense and sparse solvers alike."""
    graph = topologies.from_networkx(nx.path_graph(n))
    found = cell_coordinates(graph, features=3)().double()
    degree = torch.full((n,), 2.0, dtype=torch.float64)
    degree[[0, -1]] = 1
    for mode in (1, 2, 3):
        expected = degree.sqrt() * torch.cos(math.pi * mode * torch.arange(n, dtype=torch.float64) / (n - 1))
        column = found[:, mode - 1]
        column = column * torch.sign(column @ expected)
        torch.testing.assert_close(column, expected / expected.abs().max(), rtol=0, atol=1e-5)
    assert float(found.abs().max()) == pytest.approx(1)


def test_a_graph_that_is_too_small_has_zeros_for_what_it_lacks():
    lone = cell_coordinates(topologies.from_networkx(nx.empty_graph(1)))
    assert lone().tolist() == [[0.0] * 4]
    pair = cell_coordinates(topologies.from_networkx(nx.path_graph(2)))()
    assert pair[:, 1:].abs().max() == 0
    assert isinstance(cell_coordinates(topologies.ring(5), "learned", features=3), CellEmbedding)
