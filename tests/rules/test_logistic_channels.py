"""Channels are relativistic automata side by side; attention between them is torch's, and the only way from one to another."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import topologies
from lmn_graph import rollout
from lmn_graph.rules import LogisticChannels, RelativisticCA
from lmn_graph.rules._token_attention import TokenAttention


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_every_channel_is_an_automaton_of_its_own(activation, random_graph, normal):
    """Without attention: a channel equals the equation with its column of weights and its steepness."""
    rule = LogisticChannels(random_graph, channels=3, attention=False, activation=activation).double()
    with torch.no_grad():
        rule.alpha.copy_(torch.tensor([0.5, -1.0, 2.0]))
        rule.weight.add_(normal(*rule.weight.shape))
    x, drive = normal(13, 2, 3), normal(13, 2, 3)
    found = rule(rule.initial_state(2)._replace(x=x), drive)[1]
    phi = torch.tanh if activation == "tanh" else torch.sigmoid
    source, target = rule.connectivity.edge_index
    for c in range(3):
        s = x[..., c]
        message = torch.sigmoid(rule.alpha[c] * (s.abs()[target] - s.abs()[source])) * rule.weight[:, c, None] * s[source]
        torch.testing.assert_close(found[..., c], phi(torch.zeros_like(s).index_add(0, target, message) + drive[..., c]))


def test_a_state_in_half_precision_hears_the_weights_as_they_are(random_graph, normal):
    """The sum is made in single precision, of weights that are not rounded first, and rounded once."""
    rule = LogisticChannels(random_graph, channels=2, attention=False, activation="tanh")
    x = normal(13, 3, 2).bfloat16()
    s, (source, target) = x.float(), rule.connectivity.edge_index
    message = torch.sigmoid(s.abs()[target] - s.abs()[source]) * rule.weight[:, None] * s[source]
    expected = torch.zeros_like(s).index_add(0, target, message).bfloat16().tanh()
    found = rule(rule.initial_state(3)._replace(x=x))[1]
    assert found.dtype == torch.bfloat16
    assert (found == expected).float().mean() > 0.95  # but for sums that lie between two numbers


def test_one_channel_with_tanh_is_a_relativistic_automaton(normal):
    graph = topologies.complete(8)
    one = LogisticChannels(graph, channels=1, activation="tanh", alpha=1.5).double()
    plain = RelativisticCA(graph, alpha=1.5).double()
    with torch.no_grad():
        plain.weight.copy_(one.weight[:, 0])
    drive = normal(3, 8)
    torch.testing.assert_close(rollout(one, drive[..., None], steps=4).activity[..., 0], rollout(plain, drive, steps=4).activity)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_torchs(heads, normal):
    """Values and gradients of torch's scaled dot-product attention, each head with its own part of the width."""
    attention = TokenAttention(10, width=8, heads=heads).double()
    with torch.no_grad():
        attention.outward.copy_(normal(10, 8))
    tokens = normal(3, 5, 10).requires_grad_()
    q, k, v = (functional.linear(tokens, part).view(3, 5, heads, -1).transpose(1, 2) for part in attention.inward.chunk(3))
    expected = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ attention.outward.t()
    found = attention(tokens)
    torch.testing.assert_close(found, expected)
    wanted, factor = (tokens, *attention.parameters()), normal(3, 5, 10)
    pairs = zip(torch.autograd.grad((found * factor).sum(), wanted), torch.autograd.grad((expected * factor).sum(), wanted))
    for got, want in pairs:
        torch.testing.assert_close(got, want)
    order = torch.randperm(5)
    torch.testing.assert_close(attention(tokens[:, order]), found[:, order])


def test_attention_starts_as_nothing_and_is_the_only_way_between_channels(lattice, normal):
    rule = LogisticChannels(lattice, channels=3).double()
    alone = LogisticChannels(lattice, channels=3, attention=False).double()
    alone.load_state_dict({name: value for name, value in rule.state_dict().items() if not name.startswith("attention")})
    drive = normal(2, 16, 3)
    before = rollout(rule, drive, steps=3).activity
    assert torch.equal(before, rollout(alone, drive, steps=3).activity)
    other = drive.clone()
    other[..., 0] += 1
    assert torch.equal(rollout(rule, other, steps=3).activity[..., 1:], before[..., 1:])
    with torch.no_grad():
        rule.attention.outward.normal_()
    moved = (rollout(rule, other, steps=3).activity - rollout(rule, drive, steps=3).activity).abs()
    assert bool((moved.amax((0, 1, 2)) > 1e-6).all())
    rollout(rule, drive, steps=3).activity.square().sum().backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in rule.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be an integer >= 1, got 0"),
        ({"activation": "relu"}, "activation must be one of 'tanh', 'logistic', got 'relu'"),
        ({"heads": 3, "width": 8}, r"heads must divide the width of attention \(8\), got 3"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"alpha": float("nan")}, "alpha must be a finite number, got nan"),
    ],
)
def test_bad_options_are_refused_by_name(options, message, lattice):
    with pytest.raises(ValueError, match=message):
        LogisticChannels(lattice, **options)


def test_a_drive_without_channels_is_refused(lattice):
    with pytest.raises(ValueError, match=r"drive must have shape \[B, 16, 4\]"):
        rollout(LogisticChannels(lattice), torch.ones(2, 16), steps=2)
