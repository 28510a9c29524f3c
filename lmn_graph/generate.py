"""Text from a machine that predicts tokens, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lmn_graph.machine import LatticeMachine, evaluating
from topologies import _checks


def generate(
    machine: LatticeMachine, prompt: Sequence[int], count: int, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
) -> Iterator[int]:
    r"""Tokens that follow a prompt, each drawn from :math:`p_k \propto e^{prediction_k / \tau}` and then shown to the machine.

    Args:
        machine: predicts scores of V tokens.
        prompt: at least one token, in 0 … V − 1.
        count: how many to draw, >= 1.
        temperature: τ; at 0 the likeliest token is taken.
        top_k: draw among the k likeliest tokens only; None among all.
        seed: of what is drawn; the global random state is neither read nor changed.

    Raises:
        ValueError: if an argument is out of range; before the first token.
    """
    vocabulary = machine.readout.out_features
    _checks.integer("count", count, minimum=1)
    _checks.number("temperature", temperature, minimum=0)
    if top_k is not None:
        _checks.integer("top_k", top_k, minimum=1, maximum=vocabulary)
    _checks.integer("seed", seed, minimum=0)
    if not len(prompt):
        raise ValueError("prompt must hold at least one token, got none")
    for token in prompt:
        if not 0 <= token < vocabulary:
            raise ValueError(f"prompt must hold tokens in 0 … {vocabulary - 1}, got {token}")
    return _drawn(machine, list(prompt), count, temperature, top_k, seed)


@torch.no_grad()
def _drawn(machine: LatticeMachine, prompt: list[int], count: int, temperature: float, top_k: int | None, seed: int) -> Iterator[int]:
    device = next(machine.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    shown = torch.tensor(prompt, device=device).view(1, -1, 1)
    state = None
    for _ in range(count):
        with evaluating(machine):
            output = machine.stream(shown, state)
        state = output.state
        token = choose(output.prediction[0, -1].double().cpu(), temperature, top_k, generator)
        yield token
        shown = torch.tensor([[[token]]], device=device)


def choose(scores: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """One of the tokens with scores [V]."""
    if temperature == 0:
        return int(scores.argmax())
    if top_k is not None:
        kept = scores.topk(top_k)
        scores = torch.full_like(scores, -torch.inf).index_copy(0, kept.indices, kept.values)
    return int(torch.multinomial((scores / temperature).softmax(0), 1, generator=generator))
