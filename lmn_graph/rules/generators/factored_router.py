"""Weights from who a cell is, scaled by the context."""

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


@GENERATORS.register
class FactoredRouter(WeightGenerator):
    r"""Weights from the identity of a cell and the context of the sample, factored,

    .. math:: w_{bik} = \frac{1}{\sqrt{R}} \sum_r f_r(identity_i)\,(1 + (A c_b)_r)\, V_{kr}, \qquad f(e) = P \tanh(e) + p.

    The identities of cells are learned: a row per cell, or on a lattice such as ``topologies.router_cells`` a row per axis value, of which
    a cell adds up its own. The left factor belongs to the cells and the right one to the samples: N·R + B·K·R numbers in place of B·N·K.

    Args:
        topology, context_dim, channels, per_channel: see :class:`WeightGenerator`.
        rank: R >= 1.
        identity: "cell", a row per cell; "factored", a row per axis value; "auto", factored on a lattice.

    Source: BlockSparseFactoredRouter (routerhelena.py) of the Lattice Machine Networks repository.
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
        self.identity = identities(topology, identity, self.rank)
        self.cells = nn.Linear(self.rank, self.copies * self.rank)
        self.context = ContextMap(self.context_dim, self.copies * self.rank)
        self.slots = nn.Parameter(torch.empty(self.num_types, self.copies * self.rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw identities and V with variance 1."""
        super().reset_parameters()
        nn.init.normal_(self.cells.weight, std=1.5 / math.sqrt(self.rank))
        nn.init.normal_(self.slots)

    def factors(self, context: Tensor | None) -> Factors:
        left = self.cells(torch.tanh(self.identity())).unsqueeze(1)
        right = self.slots.unsqueeze(1) * (1 + self.context(context, self.slots)) / math.sqrt(self.rank)
        return Factors(self.split(left), self.split(right))

    def extra_repr(self) -> str:
        return f"rank={self.rank}"
