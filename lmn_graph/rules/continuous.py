"""What rules share whose cells hold a number instead of spiking: the state, leak and residual, and edge weights."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.rules.base import UpdateRule, edge_weights
from lmn_graph.rules.initial import INITS, draw
from lmn_graph.rules.parameters import BoundedParameter
from topologies import _checks

Init = Literal["fan_in", "orthogonal"]


class CellState(NamedTuple):
    """The cells ``x``, [N, B] or [N, B, C]."""

    x: Tensor


class ContinuousRule(UpdateRule):
    r"""Cells that hold a number and move towards another,

    .. math:: x \leftarrow (1 - \lambda)\,x + \lambda f, \qquad \text{or with residual} \quad x \leftarrow x + \lambda f.

    A subclass computes f and calls :meth:`moved`. The state starts at 0, and the activity is x.

    Args:
        topology: the graph.
        channels: None for scalar cells, else C.
        leak: λ in (0, 1]; 1 forgets the state, None learns one per node in [0.05, 1], starting at 0.5.
        residual: add f to the state instead of mixing the two. Then x grows by up to λ per step, without bound.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid.
    """

    def __init__(
        self, topology: Data | Connectivity, *, channels: int | None = None, leak: float | None = 1.0, residual: bool = False
    ) -> None:
        super().__init__(topology)
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)
        self.leak = BoundedParameter("leak", leak, self.num_nodes, above=0.0, maximum=1.0, learned=(0.05, 1.0), start=0.5)
        self.residual = _checks.flag("residual", residual)

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        self.leak.reset_parameters()

    def initial_state(self, batch_size: int, *, graph: Connectivity | None = None) -> CellState:
        like = self.leak()
        nodes = (graph or self.connectivity).num_nodes
        tail = () if self.channels is None else (self.channels,)
        return CellState(like.new_zeros(nodes, _checks.integer("batch_size", batch_size, minimum=0), *tail))

    def moved(self, x: Tensor, f: Tensor, leak: Tensor) -> tuple[CellState, Tensor]:
        """The next state and the activity, x moved by or towards f."""
        if leak.numel() == 1 and self.leak.number is not None and self.leak.value == 1:
            x = x + f if self.residual else f
        else:
            leak = leak.to(x.dtype).view(*leak.shape, *[1] * (x.dim() - leak.dim()))
            x = torch.addcmul(x, f if self.residual else f - x, leak)
        return CellState(x), x

    def _dynamics_repr(self) -> str:
        leak = "learned" if self.leak.per_node else f"{self.leak.value:g}"
        channels = "" if self.channels is None else f"channels={self.channels}, "
        return f"{channels}leak={leak}" + (", residual=True" if self.residual else "")


class WeightedRule(ContinuousRule):
    r"""A continuous rule with a weight per edge.

    Args:
        topology: the graph; its ``edge_weight`` initialises the weights.
        weight: edge weights [E] in the order of the topology's edges; a number is a gain on the graph's ``edge_weight`` (1 where it has
            none); None takes ``edge_weight`` or, where there is none, draws by ``init``.
        learn_weight: whether the edge weights are learned.
        init: how weights are drawn: "fan_in", normal with variance gain²/K_i, K_i the in-degree; "orthogonal", see
            :func:`lmn_graph.rules.initial.orthogonal`.
        gain: scale of the drawn weights, > 0.
        channels, leak, residual: see :class:`ContinuousRule`.
    """

    weight: Tensor | None

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        weight: float | Tensor | None = None,
        learn_weight: bool = True,
        init: Init = "fan_in",
        gain: float = 1.0,
        channels: int | None = None,
        leak: float | None = 1.0,
        residual: bool = False,
    ) -> None:
        super().__init__(topology, channels=channels, leak=leak, residual=residual)
        self.init = _checks.choice("init", init, INITS)
        self.init_gain = _checks.number("gain", gain, above=0)
        as_given = isinstance(topology, Data)
        drawn = partial(draw, self.init, self.connectivity, self.init_gain)
        self._initial = partial(edge_weights, self.connectivity, weight, learn_weight, drawn, as_given=as_given)
        value, self.gain = self._initial()
        if isinstance(value, nn.Parameter):
            self.weight = value
        else:
            self.register_buffer("weight", value)

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        if isinstance(self.weight, nn.Parameter):
            value, _ = self._initial()
            assert value is not None
            with torch.no_grad():
                self.weight.copy_(value)

    @property
    def shared(self) -> bool:
        return self.weight is None and not self.leak.per_node

    def weight_on(self, connectivity: Connectivity) -> Tensor:
        """The weights [E] on the graph of a call."""
        if self.weight is not None:
            return self.weight
        like = self.leak()
        base = like.new_ones(connectivity.num_edges) if connectivity.edge_weight is None else connectivity.edge_weight
        return self.gain * base.to(like.dtype)

    def extra_repr(self) -> str:
        return self._dynamics_repr()
