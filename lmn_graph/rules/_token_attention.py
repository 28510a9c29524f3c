"""Self-attention among a few tokens of many features each, through maps of low rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmn_graph.attention import split_heads
from topologies import _checks


class TokenAttention(nn.Module):
    r"""Tokens :math:`t_c \in \mathbb{R}^n` that attend to each other,

    .. math:: t_c \mapsto \textstyle\sum_h O_h \sum_{c'} \mathrm{softmax}_{c'}(q_c \cdot k_{c'} / \sqrt{d})\, v_{c'} .

    Queries, keys and values have ``width`` features in all heads together and are linear maps of the n features of a token: 4·n·width
    parameters, where square maps would have 4·n². The last map starts at 0, so that attention starts as no change at all and is learned.

    Args:
        features: n.
        width: features of queries, keys and values; None for the smaller of n and 32, made divisible by ``heads``.
        heads: number of heads.

    Raises:
        ValueError: if a size is not a positive integer or ``heads`` does not divide ``width``.

    Source: Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(self, features: int, *, width: int | None = None, heads: int = 1) -> None:
        super().__init__()
        self.features = _checks.integer("features", features, minimum=1)
        heads = _checks.integer("heads", heads, minimum=1)
        chosen = heads * -(-min(self.features, 32) // heads) if width is None else _checks.integer("width", width, minimum=1)
        self.width, self.heads = split_heads("the width of attention", chosen, heads)
        self.inward = nn.Parameter(torch.empty(3 * self.width, self.features))
        self.outward = nn.Parameter(torch.empty(self.features, self.width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the inward maps with variance 1/n; the outward one is 0."""
        nn.init.normal_(self.inward, std=1 / math.sqrt(self.features))
        nn.init.zeros_(self.outward)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, tokens, n] → [B, tokens, n]."""
        shape = (*tokens.shape[:2], 3, self.heads, self.width // self.heads)
        q, k, v = functional.linear(tokens, self.inward.to(tokens.dtype)).view(shape).permute(2, 0, 3, 1, 4)
        # Written out: torch's fused attention has no second derivative, and losses on the dynamics take one.
        share = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.size(-1)), dim=-1)
        return functional.linear((share @ v).transpose(1, 2).flatten(2), self.outward.to(tokens.dtype))

    def extra_repr(self) -> str:
        return f"{self.features}, width={self.width}, heads={self.heads}"
