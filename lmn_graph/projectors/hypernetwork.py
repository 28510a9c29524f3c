"""A perceptron that says where a machine starts, what drives it and from what its weights are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.projectors.base import PROJECTORS, Projection, Projector
from lmn_graph.projectors.cp_tensor import CPTensor
from lmn_graph.projectors.linear import Linear
from topologies import _checks


class PeriodicFeatures(nn.Module):
    r"""Numbers and waves of them, :math:`x \mapsto (x, \sin 2\pi f x, \cos 2\pi f x)`, every number with learned frequencies f of its own.

    A perceptron on waves finds functions that bend often, which trees find on tables and perceptrons on numbers do not.

    Args:
        features: F numbers of a row; [B, …] is flattened to [B, F].
        count: frequencies of each, >= 1.
        spread: standard deviation of the initial frequencies, > 0.

    Source: Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep learning", 2022.
    """

    def __init__(self, features: int, count: int, spread: float) -> None:
        super().__init__()
        self.spread = spread
        self.frequency = nn.Parameter(torch.empty(features, count))
        self.out_features = features * (1 + 2 * count)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the frequencies."""
        nn.init.normal_(self.frequency, std=self.spread)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        phase = (2 * math.pi * x.unsqueeze(-1) * self.frequency).flatten(1)
        return torch.cat([x, torch.sin(phase), torch.cos(phase)], 1)

    def extra_repr(self) -> str:
        return f"{self.frequency.size(0)}, count={self.frequency.size(1)}, spread={self.spread:g}"


@PROJECTORS.register
class Hypernetwork(Projector):
    r"""A perceptron h(x) and two linear contexts of it, one for the state and one for the weights,

    .. math:: drive = D\, s, \quad x_0 = \tanh(Z s), \quad s = S\, h(x), \qquad c = C\, h(x).

    The drive and the initial cells :math:`x_0` come from the state context s; the weight context c [B, ``context_dim``] goes to the rule
    (:class:`lmn_graph.rules.HypernetCA`). With any other rule it is a projection through a perceptron.

    Args:
        in_shape: shape of one sample; it is flattened.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them. The initial state is of all cells.
        context_dim: width of the weight context, >= 0; a machine built from a configuration takes the rule's.
        state_dim: width of the state context, >= 1.
        hidden: features of a hidden layer, >= 1.
        layers: hidden layers of h, >= 0; 0 makes all maps linear.
        frequencies: waves of every input number that h gets beside it, >= 0; see :class:`PeriodicFeatures`. They help on tables.
        spread: standard deviation of the initial frequencies, > 0, in periods per unit of the input.
        dropout: probability of leaving out a hidden feature while training.
        drive: the map D: "linear", or "cp" of canonical polyadic rank ``rank`` (see :class:`lmn_graph.projectors.CPTensor`).
        start: the map Z, the same; "none" leaves the initial state to the rule.
        rank: R >= 1 of "cp".
        gain: scale of the initial "linear" D, > 0.

    Raises:
        ValueError: if an argument is out of range.

    Source: the hypernetworks of helena/ and the hypernetwork projection of TabularSOCSystem in the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        context_dim: int = 32,
        state_dim: int = 64,
        hidden: int = 128,
        layers: int = 1,
        frequencies: int = 0,
        spread: float = 0.3,
        dropout: float = 0.0,
        drive: Literal["linear", "cp"] = "linear",
        start: Literal["linear", "cp", "none"] = "linear",
        rank: int = 8,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.context_dim = _checks.integer("context_dim", context_dim, minimum=0)
        hidden, layers = _checks.integer("hidden", hidden, minimum=1), _checks.integer("layers", layers, minimum=0)
        state_dim = _checks.integer("state_dim", state_dim, minimum=1)
        dropout = _checks.number("dropout", dropout, minimum=0, maximum=1)
        _checks.choice("drive", drive, ("linear", "cp"))
        _checks.choice("start", start, ("linear", "cp", "none"))
        rank = _checks.integer("rank", rank, minimum=1)
        gain = _checks.number("gain", gain, above=0)
        count, spread = _checks.integer("frequencies", frequencies, minimum=0), _checks.number("spread", spread, above=0)
        waves = PeriodicFeatures(self.in_features, count, spread) if count else None
        parts: list[nn.Module] = [nn.Flatten() if waves is None else waves]
        width = self.in_features if waves is None else waves.out_features
        for before, after in pairwise([width, *[hidden] * layers]):
            parts += [nn.Linear(before, after), nn.GELU(), nn.LayerNorm(after), nn.Dropout(dropout)]
        self.body = nn.Sequential(*parts)
        width = hidden if layers else width
        self.state_context = nn.Linear(width, state_dim)
        self.weight_context = nn.Linear(width, self.context_dim) if self.context_dim else None

        def head(form: str, ports: bool) -> Projector:
            if form == "cp":
                return CPTensor((state_dim,), topology, rank=rank, channels=channels, ports=ports)
            return Linear((state_dim,), topology, channels=channels, ports=ports, gain=gain)

        self.to_drive = head(drive, ports)
        self.to_start = None if start == "none" else head(start, False)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in [*self.body, self.state_context, self.weight_context, self.to_drive, self.to_start]:
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()

    def project(self, x: Tensor) -> Tensor:
        return self.to_drive.project(self.state_context(self.body(x)))

    def inputs(self, x: Tensor) -> Projection:
        self.check(x)
        h = self.body(x)
        state = self.state_context(h)
        context = None if self.weight_context is None else self.weight_context(h)
        start = None if self.to_start is None else torch.tanh(self.to_start.project(state))
        return Projection(self.everywhere(self.to_drive.project(state)), context, start)

    def extra_repr(self) -> str:
        return f"context_dim={self.context_dim}"
