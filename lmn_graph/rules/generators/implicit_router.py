"""Weights as a function of where a cell is."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.embeddings import cell_coordinates
from lmn_graph.rules.generators._layers import ContextMap, with_constant
from lmn_graph.rules.generators.base import GENERATORS, Factors, WeightGenerator
from topologies import _checks


@GENERATORS.register
class ImplicitRouter(WeightGenerator):
    r"""An implicit network from the coordinates of a cell and the context of the sample to the weights of the cell,

    .. math:: w_{bik} = \sum_r V_{kr} \tanh\big(W \sin(\omega(M p_i + m)) + A c_b + a\big)_r + v_k .

    The hidden features are the left factor, the last layer is the right one.

    Args:
        topology, context_dim, channels, per_channel: see :class:`WeightGenerator`.
        hidden: features of a hidden layer, >= 1; the rank of the weights is one more.
        omega: ω > 0, the highest frequency along an axis that the network starts with, in radians per half side.
        coordinates: "auto" takes those of the graph (``pos``) or, where it has none, eigenvectors of its Laplacian; "laplacian" always
            these; "learned" a row per cell.

    Source: ImplicitHyperNet (helenafullroutertimes.py) of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data | Connectivity,
        context_dim: int = 0,
        *,
        channels: int | None = None,
        per_channel: bool = False,
        hidden: int = 16,
        omega: float = 6.0,
        coordinates: Literal["auto", "laplacian", "learned"] = "auto",
    ) -> None:
        super().__init__(topology, context_dim, channels=channels, per_channel=per_channel)
        self.hidden = _checks.integer("hidden", hidden, minimum=1)
        self.omega = _checks.number("omega", omega, above=0)
        self.coordinates = cell_coordinates(topology, coordinates)
        self.first = nn.Linear(self.coordinates.features, self.hidden)
        self.second = nn.Linear(self.hidden, self.hidden, bias=False)
        self.context = ContextMap(self.context_dim, self.hidden)
        self.slots = nn.Parameter(torch.empty(self.num_types, self.copies * (self.hidden + 1)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw M within the unit cube, the other maps with the variance of their fan-in, and v with variance 1."""
        super().reset_parameters()
        nn.init.uniform_(self.first.weight, -1, 1)
        nn.init.uniform_(self.first.bias, -1, 1)
        nn.init.normal_(self.second.weight, std=math.sqrt(2 / self.hidden))
        with torch.no_grad():
            self.slots.normal_()
            self.slots.unflatten(-1, (self.copies, -1))[..., :-1].div_(math.sqrt(self.hidden))

    def factors(self, context: Tensor | None) -> Factors:
        where = self.second(torch.sin(self.omega * self.first(self.coordinates())))
        left = with_constant(torch.tanh(where.unsqueeze(1) + self.context(context, self.slots)))
        return Factors(left if self.channels is None else left.unsqueeze(2), self.split(self.slots).unsqueeze(1))

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}, omega={self.omega:g}"
