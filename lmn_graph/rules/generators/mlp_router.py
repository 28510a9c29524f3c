"""A network that looks at what a cell holds and says how it hears its neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.rules.generators._layers import ContextMap, with_constant
from lmn_graph.rules.generators.base import GENERATORS, Factors, WeightGenerator
from topologies import _checks


@GENERATORS.register
class MLPRouter(WeightGenerator):
    r"""Weights of a cell from its own state and the context of the sample, anew at every step,

    .. math:: w_{bik}(t) = \sum_r V_{kr}\, h_r(x_{bi}(t), c_b) + v_k, \qquad h = \tanh(W_x x + W_c c + b).

    With several layers h is a deeper perceptron. The last layer is the right factor, the hidden features are the left one: the weights
    themselves are never made. All cells share the network, so a trained one serves any graph with as many edge types.

    Args:
        topology, context_dim, channels, per_channel: see :class:`WeightGenerator`.
        hidden: features of a hidden layer, >= 1; the rank of the weights is one more.
        layers: hidden layers, >= 1.

    Source: BlockSparseHyperNet (routerphelena.py) of the Lattice Machine Networks repository.
    """

    follows_state = True
    shared = True

    def __init__(
        self,
        topology: Data | Connectivity,
        context_dim: int = 0,
        *,
        channels: int | None = None,
        per_channel: bool = False,
        hidden: int = 16,
        layers: int = 1,
    ) -> None:
        super().__init__(topology, context_dim, channels=channels, per_channel=per_channel)
        self.hidden = _checks.integer("hidden", hidden, minimum=1)
        layers = _checks.integer("layers", layers, minimum=1)
        self.context = ContextMap(self.context_dim, self.hidden, bias=0.5)
        self.state = nn.Parameter(torch.empty(self.channels or 1, self.hidden))
        self.deeper = nn.ModuleList(nn.Linear(self.hidden, self.hidden) for _ in range(layers - 1))
        self.slots = nn.Parameter(torch.empty(self.num_types, self.copies * (self.hidden + 1)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W and V with the variance of their fan-in, and v with variance 1."""
        super().reset_parameters()
        for layer in self.deeper:
            layer.reset_parameters()  # type: ignore[operator]
        nn.init.normal_(self.state, std=1 / math.sqrt(self.state.size(0)))
        with torch.no_grad():
            self.slots.normal_()
            self.slots.unflatten(-1, (self.copies, -1))[..., :-1].div_(math.sqrt(self.hidden))

    def factors(self, context: Tensor | None) -> Factors:
        return Factors(None, self.split(self.slots).unsqueeze(1), memory=self.context(context, self.slots))

    def left(self, x: Tensor, memory: Tensor | None) -> Tensor:
        assert memory is not None
        x = x.to(self.state.dtype)
        h = torch.tanh((x.unsqueeze(-1) * self.state[0] if self.channels is None else x @ self.state) + memory)
        for layer in self.deeper:
            h = torch.tanh(layer(h))
        h = with_constant(h)
        return h if self.channels is None else h.unsqueeze(2)

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}, layers={1 + len(self.deeper)}"
