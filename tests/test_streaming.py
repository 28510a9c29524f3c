"""A machine on a stream: equal to running item by item by hand, whatever the parts; documents and memory keep their bounds."""

from __future__ import annotations

import pytest
import torch

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.generate import choose, generate
from lmn_graph.halting import HALTING
from lmn_graph.memory import Memory, MemoryToken
from lmn_graph.projectors import Hypernetwork, Linear, Stream
from lmn_graph.readouts import Rate
from lmn_graph.rules import HypernetCA, LogisticChannels, RelativisticCA, SpikingSOC, TanhLattice
from lmn_graph.streaming import detached

GRAPHS = {
    "periodic": lambda: topologies.grid(4, 2),
    "open": lambda: topologies.grid(3, 2, boundary="open"),
    "directed": lambda: topologies.raster(3, 3),
    "isolated nodes": lambda: topologies.from_edges([(0, 1)], num_nodes=4),
    "one node": lambda: topologies.grid(1, 1),
}


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def machine_on(graph, rule=TanhLattice, *, steps=3, inject="every", memory=None, halting=None, features=2, **options):
    made = rule(graph, **options)
    projector = Linear((features,), graph, channels=made.channels)
    readout = Rate(graph, 2, steps=steps, channels=made.channels)
    return LatticeMachine(graph, projector, made, readout, steps=steps, inject=inject, memory=memory, halting=halting)


def item_by_item(machine, x, starts=None):
    """Each item a call of the machine; a sample that begins has the state of a new run."""
    state, found = None, []
    for item in range(x.size(1)):
        if starts is not None and state is not None:
            fresh = machine.rule.initial_state(len(x))
            begin = starts[:, item]
            state = type(state)(*(torch.where(begin.view(1, -1, *[1] * (old.dim() - 2)), new, old) for old, new in zip(state, fresh)))
        output = machine(x[:, item], state)
        state = output.state
        found.append(output.prediction)
    return torch.stack(found, 1), state


def same(one, other):
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("graph", list(GRAPHS))
@pytest.mark.parametrize("rule", [TanhLattice, RelativisticCA, SpikingSOC, LogisticChannels])
@pytest.mark.parametrize("inject", ["every", "first"])
def test_a_stream_is_its_items_one_after_the_other(graph, rule, inject):
    """One rollout for all items: values, the state, and every gradient."""
    machine = machine_on(GRAPHS[graph](), rule, inject=inject)
    x = torch.randn(3, 5, 2, requires_grad=True)
    starts = torch.zeros(3, 5, dtype=torch.bool)
    starts[0, 0] = starts[1, 2] = starts[2, 2] = starts[0, 4] = True
    ways = [machine.stream(x, starts=starts), item_by_item(machine, x, starts)]
    parameters = [x, *machine.parameters()]
    found = []
    for prediction, *_, state in ways:
        total = prediction.square().sum() + sum(field.sum() for field in state)
        found.append(torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(ways[0].prediction, ways[1][0], rtol=1e-10, atol=1e-12)
    same(ways[0].state, ways[1][1])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_rules_that_make_weights_of_every_item_and_machines_that_halt():
    """What cannot be one rollout is run item by item, and starts anew from what the projector says."""
    graph = topologies.grid(3, 2)
    rule = HypernetCA(graph, context_dim=4)
    projector = Hypernetwork((2,), graph, channels=rule.channels, context_dim=4)
    machine = LatticeMachine(graph, projector, rule, Rate(graph, 2, steps=3, channels=rule.channels), steps=3)
    x = torch.randn(2, 4, 2)
    torch.testing.assert_close(machine.stream(x).prediction, item_by_item(machine, x)[0])
    starts = torch.zeros(2, 4, dtype=torch.bool)
    starts[1, 2] = True
    anew = machine.stream(x[1:, 2:]).prediction
    torch.testing.assert_close(machine.stream(x, starts=starts).prediction[1:, 2:], anew)
    halting = machine_on(graph, halting=HALTING["AdaptiveTime"](graph))
    torch.testing.assert_close(halting.stream(x).prediction, item_by_item(halting, x)[0])


def test_a_drive_per_step_stays_in_its_item():
    graph = topologies.grid(3, 2)
    rule = TanhLattice(graph)
    machine = LatticeMachine(graph, Stream((2, 3), graph, steps=3, density=1.0), rule, Rate(graph, 2, steps=3), steps=3)
    x = torch.randn(2, 4, 2, 3)
    torch.testing.assert_close(machine.stream(x).prediction, item_by_item(machine, x)[0])


def test_windows_of_a_stream_are_the_stream():
    """The returned state is all that the next call needs; detached, it is the same without a gradient."""
    machine = machine_on(topologies.grid(3, 2), SpikingSOC)
    x = torch.randn(2, 7, 2)
    whole = machine.stream(x)
    first = machine.stream(x[:, :3])
    second = machine.stream(x[:, 3:], detached(first.state))
    torch.testing.assert_close(torch.cat([first.prediction, second.prediction], 1), whole.prediction)
    same(second.state, whole.state)
    assert not any(field.requires_grad for field in detached(first.state))
    assert detached(None) is None


def test_no_document_hears_another():
    """What was before a start changes nothing after it, with memory tokens too."""
    graph = topologies.grid(3, 2)
    for memory in (None, MemoryToken(graph, width=3)):
        machine = machine_on(graph, memory=memory)
        starts = torch.zeros(2, 6, dtype=torch.bool)
        starts[:, 3] = True
        x, other = torch.randn(2, 6, 2), torch.randn(2, 6, 2)
        other[:, 3:] = x[:, 3:]
        one, two = machine.stream(x, starts=starts), machine.stream(other, starts=starts)
        assert torch.equal(one.prediction[:, 3:], two.prediction[:, 3:])
        assert not torch.equal(one.prediction[:, :3], two.prediction[:, :3])
        same(one.state, two.state)


def test_a_memory_token_is_all_that_passes():
    """Read before the first item, written after the last; its gradient reaches the window before."""
    graph = topologies.grid(3, 2)
    memory = MemoryToken(graph, width=3)
    machine = machine_on(graph, memory=memory)
    x = torch.randn(2, 4, 2)
    first = machine.stream(x)
    assert isinstance(first.state, Memory)
    assert first.state.value.shape == (3, 2)
    assert first.prediction.shape == (2, 4, 2)
    assert first.trajectory.activity.shape == (2, 12, 9)
    expected = memory.writing(first.trajectory.activity[:, -3:].mean(1), torch.zeros(2, 3)).t()
    torch.testing.assert_close(first.state.value, expected)
    driven = machine.run(memory.read(first.state)).state
    bare = machine_on(graph)
    bare.load_state_dict({name: value for name, value in machine.state_dict().items() if not name.startswith("memory")})
    torch.testing.assert_close(machine.stream(x, first.state).prediction, bare.stream(x, driven).prediction)
    machine.stream(x, first.state).prediction.sum().backward()
    assert float(memory.writing.weight_ih.grad.abs().max()) > 0
    with pytest.raises(ValueError, match="state must be the Memory"):
        machine.stream(x, bare.stream(x).state)


@pytest.mark.parametrize(
    ("x", "starts", "message"),
    [
        (torch.zeros(2, 2), None, r"x must have shape \[B, W, \*in_shape\]"),
        (torch.zeros(2, 0, 2), None, "at least one item"),
        (torch.zeros(2, 3, 4), None, "x must have shape"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 3), r"starts must be bool \[2, 3\]"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 2, dtype=torch.bool), r"starts must be bool \[2, 3\]"),
        (torch.full((2, 3, 2), torch.nan, dtype=torch.float64), None, "drive must be finite"),
    ],
)
def test_what_is_no_stream_is_refused(x, starts, message):
    with pytest.raises(ValueError, match=message):
        machine_on(topologies.grid(3, 2)).stream(x, starts=starts)


def test_tokens_need_a_projector_that_takes_them():
    with pytest.raises(ValueError, match="projector must take tokens for a stream of them, as TokenEmbedding does, got Linear"):
        machine_on(topologies.grid(3, 2)).stream(torch.zeros(1, 2, 2, dtype=torch.int64))


def test_an_input_that_is_the_state_cannot_be_carried():
    with pytest.raises(ValueError, match="inject must be 'every' or 'first'"):
        machine_on(topologies.grid(3, 2), inject="state").stream(torch.zeros(1, 2, 2))


def test_scores_become_tokens():
    """The likeliest at temperature 0, the k likeliest only, and frequencies as the temperature says."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([0.0, 1.0, 3.0, 2.0]).log1p()
    assert choose(scores, 0.0, None, generator) == 2
    assert {choose(scores, 1.0, 2, generator) for _ in range(100)} == {2, 3}
    drawn = torch.tensor([choose(scores, 0.5, None, generator) for _ in range(4000)]).bincount(minlength=4) / 4000
    torch.testing.assert_close(drawn, torch.tensor([1.0, 4.0, 16.0, 9.0]) / 30, atol=0.03, rtol=0)


def test_generation_shows_the_machine_what_it_said(monkeypatch):
    """Each drawn token is the next input, the state is carried, and the same seed says the same."""
    graph = topologies.grid(3, 2)
    machine = machine_on(graph, features=1)
    machine.projector.takes_tokens = True
    shown = []
    stream = machine.stream

    def watched(x, state=None, **options):
        shown.extend(x.flatten().tolist())
        return stream(x.double(), state, **options)

    monkeypatch.setattr(machine, "stream", watched)
    tokens = list(generate(machine, [0, 1], 5, seed=3))
    assert shown == [0, 1, *tokens[:-1]]
    assert tokens == list(generate(machine, [0, 1], 5, seed=3))
    whole = stream(torch.tensor([0, 1, *tokens[:-1]]).double().view(1, -1, 1)).prediction[0, 1:].argmax(-1)
    monkeypatch.setattr(machine, "stream", watched)
    greedy = list(generate(machine, [0, 1], 1, temperature=0.0))
    assert greedy[0] == int(whole[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, "prompt must hold at least one token"),
        ({"prompt": [2]}, r"prompt must hold tokens in 0 … 1, got 2"),
        ({"count": 0}, "count must be"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_k": 3}, "top_k must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_wishes_are_refused(options, message):
    machine = machine_on(topologies.grid(3, 2), features=1)
    with pytest.raises(ValueError, match=message):
        generate(machine, **{"prompt": [0], "count": 1, **options})
