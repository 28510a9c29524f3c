"""Layers that generators are made of: sine layers, and linear maps of a context that may be missing."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.embeddings import CellEmbedding, FactoredCellEmbedding
from topologies import _checks


class ContextMap(nn.Module):
    """W c + b for a context [B, H], [B, features]; b alone, [1, features], where H is 0.

    Args:
        context_dim: H >= 0.
        features: number of outputs.
        bias: the initial standard deviation of b; None for no b at all.
    """

    def __init__(self, context_dim: int, features: int, *, bias: float | None = 0.0) -> None:
        super().__init__()
        self.features, self.start = features, bias
        self.weight = nn.Parameter(torch.empty(features, context_dim)) if context_dim else None
        self.bias = None if bias is None else nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W with variance 1/H."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.size(1)))
        if self.bias is not None and self.start is not None:
            nn.init.normal_(self.bias, std=self.start)

    def forward(self, context: Tensor | None, like: Tensor) -> Tensor:
        """``like`` gives dtype and device where there is neither a context nor b."""
        if self.weight is None or context is None:
            return like.new_zeros(1, self.features) if self.bias is None else self.bias.unsqueeze(0)
        return nn.functional.linear(context.to(self.weight.dtype), self.weight, self.bias)


class Siren(nn.Module):
    r"""A network of sine layers on coordinates, modulated feature by feature by a context (FiLM),

    .. math:: h_0 = p, \quad h_{l+1} = \sin\big(\gamma_l(c) \circ \omega_0 (W_l h_l + b_l) + \beta_l(c)\big), \quad
              y = \omega_0 (W_L h_L + b_L), \quad \gamma_l(c) = 1 + G_l c.

    Weights start as published: uniform within 1/in in the first layer and within :math:`\sqrt{6/in}/\omega_0` in the others; the factor
    :math:`\omega_0` of the last, linear layer gives the outputs a variance near 1. Without a context γ = 1 and β = 0.

    Args:
        coordinates: number of inputs.
        features: number of outputs.
        context_dim: H >= 0.
        width: features of a hidden layer.
        layers: number of sine layers, >= 1.
        omega: :math:`\omega_0` > 0.

    Source: V. Sitzmann et al., "Implicit neural representations with periodic activation functions", 2020; E. Perez et al., "FiLM: visual
    reasoning with a general conditioning layer", 2018.
    """

    def __init__(self, coordinates: int, features: int, context_dim: int, *, width: int, layers: int, omega: float) -> None:
        super().__init__()
        self.omega = _checks.number("omega", omega, above=0)
        width = _checks.integer("width", width, minimum=1)
        layers = _checks.integer("layers", layers, minimum=1)
        sizes = [coordinates, *[width] * layers, features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.films = nn.ModuleList(ContextMap(context_dim, 2 * width, bias=None) for _ in range(layers)) if context_dim else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights as published; the modulation with a standard deviation of a tenth (γ) and one half (β)."""
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            bound = 1 / layer.in_features if depth == 0 else math.sqrt(6 / layer.in_features) / self.omega
            layer.weight.uniform_(-bound, bound)
            layer.bias.uniform_(-1 / math.sqrt(layer.in_features), 1 / math.sqrt(layer.in_features))
            if depth == len(self.layers) - 1:
                layer.bias.zero_()
        for film in self.films or ():
            assert isinstance(film, ContextMap)
            assert film.weight is not None
            film.reset_parameters()
            gamma, beta = film.weight.chunk(2)
            gamma.mul_(0.1)
            beta.mul_(0.5)

    def forward(self, p: Tensor, context: Tensor | None) -> Tensor:
        """Coordinates [M, D], context [B, H] or None → [M, B or 1, features]."""
        h = p.unsqueeze(1)
        *hidden, last = self.layers
        for depth, layer in enumerate(hidden):
            h = self.omega * layer(h)
            if self.films is not None:
                gamma, beta = self.films[depth](context, h).chunk(2, -1)
                h = (1 + gamma) * h + beta
            h = torch.sin(h)
        return self.omega * last(h)


def identities(topology: Data | Connectivity, kind: str, features: int) -> nn.Module:
    """Who a cell is, a learned row: "cell", one per cell; "factored", one per axis value; "auto", factored where there are axes."""
    _checks.choice("identity", kind, ("auto", "cell", "factored"))
    if isinstance(topology, Connectivity):
        data = Data(num_nodes=topology.num_nodes)
        if topology.shape is not None:
            data.shape = topology.shape
        topology = data
    if kind == "auto":
        kind = "factored" if topology.get("cell_factors") is not None or topology.get("shape") is not None else "cell"
    return CellEmbedding(topology, features) if kind == "cell" else FactoredCellEmbedding(topology, features)


def with_constant(h: Tensor) -> Tensor:
    """h [..., R] and a last feature of ones, so that what is multiplied by it has a bias: [..., R + 1]."""
    return torch.cat([h, h.new_ones(*h.shape[:-1], 1)], -1)
