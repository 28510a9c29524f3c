"""A learned query attends to the steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class TemporalAttention(Attending):
    r"""A learned query attends to the steps,

    .. math:: h_t = \mathrm{norm}(M x_t + m) + p_t, \quad share_t = \mathrm{softmax}_t(q \cdot K h_t / \sqrt{d}), \quad
              prediction = W\, \mathrm{norm}\Big(\sum_t share_t\, V h_t\Big) + W' \bar x + b,

    in H heads of d = D / H features side by side, with learned positions p of the steps.

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, out_features]. The largest tensors that are made are the features of the
    steps and their keys and values, [B, T, D] each.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        width: D >= 2, features of a step.
        heads: H, attention heads; must divide ``width``.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training.
        direct: also add a linear map W' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: the temporal attention readout of the Lattice Machine Networks repository; a learned query as in Z. Yang et al., "Hierarchical
    attention networks for document classification", 2016.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        skip: int = 0,
        dropout: float = 0.0,
        direct: bool = True,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        width = _checks.integer("width", width, minimum=2)
        super().__init__(
            topology, out_features, steps, features=width, skip=skip, dropout=dropout, direct=direct, channels=channels, ports=ports
        )
        self.heads = _checks.integer("heads", heads, minimum=1)
        if width % self.heads:
            raise ValueError(f"heads must divide width ({width}), got {heads}")
        self.map = nn.Linear(self.num_read * (self.channels or 1), width)
        self.norm = nn.LayerNorm(width)
        self.position = nn.Parameter(torch.empty(self.steps - self.skip, width))
        self.query = nn.Parameter(torch.empty(width))
        self.key = nn.Linear(width, width, bias=False)  # one constant for all steps changes no share
        self.value = nn.Linear(width, width)
        self.last_norm = nn.LayerNorm(width)
        self._draw()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        self._draw()

    def _draw(self) -> None:
        nn.init.normal_(self.query)
        nn.init.normal_(self.position, std=0.02)

    def shares(self, activity: Tensor) -> Tensor:
        """[B, H, T - skip]; the sum over the steps is 1."""
        return self._shares(self._series(activity))

    def features(self, activity: Tensor) -> Tensor:
        series = self._series(activity)
        value = self.value(series).unflatten(-1, (self.heads, -1))
        return self.last_norm(torch.einsum("bht,bthd->bhd", self._shares(series), value).flatten(1))

    def _series(self, activity: Tensor) -> Tensor:
        return self.norm(self.map(activity.flatten(2))) + self.position

    def _shares(self, series: Tensor) -> Tensor:
        scores = (self.key(series) * self.query).unflatten(-1, (self.heads, -1)).sum(-1)
        return torch.softmax(scores / math.sqrt(self.query.numel() // self.heads), dim=1).transpose(1, 2)
