"""Weights between what a cell emits and what another one listens for."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.rules.generators._layers import ContextMap, identities
from lmn_graph.rules.generators.base import GENERATORS, Factors, WeightGenerator
from topologies import _checks


class _Voice(nn.Module):
    """P tanh(e_i + A c_b) + p for the identities e of the cells: [N, B or 1, features]."""

    def __init__(self, topology: Data | Connectivity, context_dim: int, identity: str, rank: int, features: int) -> None:
        super().__init__()
        self.identity = identities(topology, identity, rank)
        self.context = ContextMap(context_dim, rank)
        self.linear = nn.Linear(rank, features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for part in (self.identity, self.context, self.linear):
            part.reset_parameters()  # type: ignore[operator]
        nn.init.normal_(self.linear.weight, std=1.5 / math.sqrt(self.linear.in_features))

    def forward(self, context: Tensor | None) -> Tensor:
        who = self.identity()
        return self.linear(torch.tanh(who.unsqueeze(1) + self.context(context, who)))


@GENERATORS.register
class EmitterListener(WeightGenerator):
    r"""The weight of an edge is how well what the source emits fits what the target listens for,

    .. math:: w_{bij} = \tfrac{1}{\sqrt{R}} \langle listen_{bi}, emit_{bj} \rangle,

    both of R numbers made from the identity of the cell and the context of the sample, :math:`P \tanh(identity_i + A c_b) + p`. It needs
    no edge types: every edge of any graph has a weight of its own.

    Args:
        topology, context_dim, channels, per_channel: see :class:`WeightGenerator`.
        rank: R >= 1.
        identity: "cell", a row per cell; "factored", a row per axis value; "auto", factored on a lattice.

    Source: the dual low-rank factorisation (hlowrankgenerate.py) of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data | Connectivity,
        context_dim: int = 0,
        *,
        channels: int | None = None,
        per_channel: bool = False,
        rank: int = 8,
        identity: Literal["auto", "cell", "factored"] = "auto",
    ) -> None:
        super().__init__(topology, context_dim, channels=channels, per_channel=per_channel)
        self.rank = _checks.integer("rank", rank, minimum=1)
        self.listener = _Voice(topology, self.context_dim, identity, self.rank, self.copies * self.rank)
        self.emitter = _Voice(topology, self.context_dim, identity, self.rank, self.copies * self.rank)

    def factors(self, context: Tensor | None) -> Factors:
        emitted = self.emitter(context) / math.sqrt(self.rank)
        return Factors(self.split(self.listener(context)), self.split(emitted), per="node")

    def extra_repr(self) -> str:
        return f"rank={self.rank}"
