"""Adaptive computation time: a unit that decides, sample by sample, when a rollout has thought long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.registry import Registry
from lmn_graph.rules.base import State, UpdateRule
from topologies import _checks

Pool = Literal["linear", "mean", "min", "max"]

_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda logits: logits.mean(0),
    "min": lambda logits: logits.amin(0),
    "max": lambda logits: logits.amax(0),
}


class Halting(NamedTuple):
    """When the samples of a rollout stopped, and at what cost.

    Attributes:
        weights: p, the halting probabilities [B, T]: ≥ 0, zero after a sample has stopped, with sum 1 for every sample.
        steps: N, the steps that each sample took [B], int64, in 1 … T.
        ponder: ρ = N + R, the ponder cost [B]; its gradient is that of the remainder R.
    """

    weights: Tensor
    steps: Tensor
    ponder: Tensor


class HaltingUnit(nn.Module):
    r"""Stops a sample once its halting probabilities add up to one,

    .. math:: h_t = \sigma(\mathrm{halt}(s_t)), \qquad N = \min\{n : \textstyle\sum_{t \le n} h_t \ge 1 - \varepsilon\}, \qquad
              p_t = h_t \;(t < N), \quad p_N = R = 1 - \textstyle\sum_{t < N} h_t,

    where :math:`s_t` is the first field of the state after step t; at the last step of the budget a sample stops in any case. The
    result is :math:`\sum_t p_t s_t` and the ponder cost :math:`\rho = N + R`, whose gradient goes through R alone. The rollout does
    the sums, see :func:`lmn_graph.rollout.rollout`; this unit is h.

    With ``pool`` "linear", :math:`\mathrm{halt}(s) = \sum_{nc} w_{nc} s_{nc} + b`, a weight for every node and channel. With the
    others every cell has the same unit on its channels and the cells are pooled, :math:`\mathrm{halt}(s) = \mathrm{pool}_n (\sum_c w_c
    s_{nc} + b)`, which fits a graph of any size: with "min" a sample goes on until its last cell is ready, with "max" until its first.

    Shapes: s [N, B], or [N, B, C] with channels; h [B].

    Args:
        topology: the graph; "linear" is bound to its number of nodes.
        channels: None for scalar cells, else C, as the rule has them.
        pool: how cells decide together: "linear", "mean", "min" or "max".
        epsilon: ε in (0, 1): a sample may stop after its first step because h need not reach 1.
        bias: the initial b. The larger, the sooner samples stop: at 1 a new unit has h ≈ 0.73 and takes two steps, at −3 about twenty.

    Raises:
        ValueError: if an argument is out of range.

    Source: A. Graves, "Adaptive computation time for recurrent neural networks", arXiv:1603.08983.
    """

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        channels: int | None = None,
        pool: Pool = "linear",
        epsilon: float = 0.01,
        bias: float = 1.0,
    ) -> None:
        super().__init__()
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)
        self.pool: Pool = _checks.choice("pool", pool, ("linear", *_POOLS))
        self.epsilon = _checks.number("epsilon", epsilon, above=0)
        if self.epsilon >= 1:
            raise ValueError(f"epsilon must be a number in (0, 1), got {epsilon!r}")
        self.initial_bias = _checks.number("bias", bias)
        if not bool(torch.tensor(self.initial_bias, dtype=torch.get_default_dtype()).isfinite()):
            raise ValueError(f"bias must be finite in {torch.get_default_dtype()}, got {self.initial_bias}")
        nodes = _checks.integer("topology.num_nodes", getattr(topology, "num_nodes", None), minimum=1)
        self.bound_to = nodes if self.pool == "linear" else None
        cells = (nodes,) if self.pool == "linear" else ()
        self.weight = nn.Parameter(torch.empty((*cells, *(() if self.channels is None else (self.channels,)))))
        self.bias = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights uniformly within ±1/√(number of inputs), as of a linear layer, and put b back."""
        bound = max(1, self.weight.numel()) ** -0.5
        with torch.no_grad():
            self.weight.uniform_(-bound, bound)
            self.bias.fill_(self.initial_bias)

    def forward(self, x: Tensor) -> Tensor:
        """h of every sample, [B], for the first field of its state, [N, B(, C)]."""
        return self.logit(x).sigmoid()

    def logit(self, x: Tensor) -> Tensor:
        """halt(s) of every sample, [B]."""
        dtype = torch.promote_types(torch.promote_types(x.dtype, self.weight.dtype), torch.float32)  # small h must add up
        x, weight, bias = x.to(dtype), self.weight.to(dtype), self.bias.to(dtype)
        if self.pool == "linear":
            return bias + (weight @ x if self.channels is None else (x @ weight.unsqueeze(-1)).sum((0, 2)))
        return _POOLS[self.pool](bias + (weight * x if self.channels is None else x @ weight))

    def check(self, rule: UpdateRule, nodes: int) -> None:
        """A ValueError where the states of a rule on so many nodes do not fit."""
        if self.channels != rule.channels:
            raise ValueError(f"halting.channels must be the rule's {rule.channels}, got {self.channels}")
        if self.bound_to not in (None, nodes):
            raise ValueError(f'halting must be made for the graph\'s {nodes} nodes, or pool otherwise than "linear", got {self.bound_to}')

    def extra_repr(self) -> str:
        channels = "" if self.channels is None else f"channels={self.channels}, "
        return f"{channels}pool={self.pool!r}, epsilon={self.epsilon:g}"


HALTING: Registry[type[HaltingUnit]] = Registry("halting", HaltingUnit)
HALTING.register(HaltingUnit, name="AdaptiveTime")


class Tally(NamedTuple):
    """What a halting rollout has added up for the b samples that it still holds.

    Attributes:
        going: which of them still run, [b].
        total: Σ h over the steps before the last one, [b].
        steps: steps taken, [b].
        mean: Σ p s, like the state.
    """

    going: Tensor
    total: Tensor
    steps: Tensor
    mean: State

    @classmethod
    def start(cls, state: State) -> Tally:
        """Nothing yet, for the samples of a state."""
        mean = type(state)(*(torch.zeros_like(field, dtype=_floating(field)) for field in state))
        total = mean[0].new_zeros(mean[0].size(1), dtype=torch.promote_types(mean[0].dtype, torch.float32))
        return cls(torch.ones_like(total, dtype=torch.bool), total, torch.zeros_like(total, dtype=torch.long), mean)

    def add(self, h: Tensor, state: State, threshold: float) -> tuple[Tally, Tensor]:
        """The tally after one more step, for its h, [b], and the weights p of the step, [b]."""
        total = self.total + h
        going = self.going & (total < threshold)
        weight = torch.where(going, h, 1 - self.total).masked_fill(~self.going, 0)
        mean = type(state)(*(_added(so_far, weight, s) for so_far, s in zip(self.mean, state)))
        return Tally(going, torch.where(going, total, self.total), self.steps + self.going, mean), weight

    def select(self, places: Tensor) -> Tally:
        """That of some of the samples, by their places among the b."""
        going, total, steps = (values.index_select(0, places) for values in self[:3])
        return Tally(going, total, steps, select_samples(self.mean, places))

    @staticmethod
    def joined(parts: list[tuple[Tensor, Tally]]) -> Tally:
        """The tally of a whole batch from those of its parts, each with the places of its samples in the batch."""
        if len(parts) == 1:
            return parts[0][1]
        tallies = [tally for _, tally in parts]
        going, total, steps = (torch.cat(values) for values in list(zip(*tallies))[:3])
        mean = type(tallies[0].mean)(*(torch.cat(fields, 1) for fields in zip(*(tally.mean for tally in tallies))))
        return Tally(going, total, steps, mean).select(torch.cat([places for places, _ in parts]).argsort())


def over_samples(values: Tensor, like: Tensor) -> Tensor:
    """Values of the samples, [b], as they combine with a node-major tensor [N, b, …]."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def select_samples(state: State, places: Tensor) -> State:
    """The state of some of the samples."""
    return type(state)(*(field.index_select(1, places) for field in state))


def _added(so_far: Tensor, weight: Tensor, s: Tensor) -> Tensor:
    """so_far + p s, in one pass over the state where it can be."""
    dtype = torch.promote_types(so_far.dtype, s.dtype)
    return torch.addcmul(so_far.to(dtype), over_samples(weight, s).to(dtype), s.to(dtype))


def _floating(field: Tensor) -> torch.dtype:
    return field.dtype if field.is_floating_point() else torch.get_default_dtype()
