"""A perceptron that says where a machine starts, what drives it and from what its weights are made."""

from __future__ import annotations

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
        dropout: probability of leaving out a hidden feature while training.
        start: whether :math:`x_0` is made; else the rule's own initial state is taken.
        form: of the maps D and Z: "linear", or "cp" of canonical polyadic rank ``rank``.
        rank: R >= 1 of "cp".
        gain: scale of the initial D of "linear", > 0.

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
        dropout: float = 0.0,
        start: bool = True,
        form: Literal["linear", "cp"] = "linear",
        rank: int = 8,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.context_dim = _checks.integer("context_dim", context_dim, minimum=0)
        hidden, layers = _checks.integer("hidden", hidden, minimum=1), _checks.integer("layers", layers, minimum=0)
        state_dim = _checks.integer("state_dim", state_dim, minimum=1)
        dropout = _checks.number("dropout", dropout, minimum=0, maximum=1)
        self.form = _checks.choice("form", form, ("linear", "cp"))
        gain = _checks.number("gain", gain, above=0)
        parts: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise([self.in_features, *[hidden] * layers]):
            parts += [nn.Linear(before, after), nn.GELU(), nn.LayerNorm(after), nn.Dropout(dropout)]
        self.body = nn.Sequential(*parts)
        width = hidden if layers else self.in_features
        self.state_context = nn.Linear(width, state_dim)
        self.weight_context = nn.Linear(width, self.context_dim) if self.context_dim else None

        def head(ports: bool) -> Projector:
            if self.form == "cp":
                return CPTensor((state_dim,), topology, rank=_checks.integer("rank", rank, minimum=1), channels=channels, ports=ports)
            return Linear((state_dim,), topology, channels=channels, ports=ports, gain=gain)

        self.to_drive = head(ports)
        self.to_start = head(False) if _checks.flag("start", start) else None

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
        return f"context_dim={self.context_dim}, form={self.form!r}"
