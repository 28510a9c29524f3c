"""Spiking self-organised criticality: leaky threshold neurons with depleting resources."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph import ops
from lmn_graph._frames import frame_at
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops._compiled import compiles
from lmn_graph.ops._kernels import is_dual
from lmn_graph.ops.spike_scan import BLOCK, Spikes, is_compiled, spike_scan
from lmn_graph.rules.base import RULES, UpdateRule, edge_weights
from lmn_graph.rules.parameters import BoundedParameter
from lmn_graph.surrogates import ArcTan, Surrogate
from topologies import _checks

DECAY = (0.4, 0.99)
UTILISATION = (0.01, 0.5)
RECOVERY = (10.0, 100.0)


class SOCState(NamedTuple):
    """Membrane potential ``v`` and resources ``r``, each [N, B]."""

    v: Tensor
    r: Tensor


class SOCParameters(NamedTuple):
    """What a step needs: the graph, the prepared weights, and the per-neuron parameters, each [N, 1] or [1, 1]."""

    connectivity: Connectivity
    weight: ops.EdgeWeight
    threshold: Tensor
    decay: Tensor
    utilisation: Tensor
    recovery: Tensor

    def to(self, dtype: torch.dtype) -> SOCParameters:
        """The per-neuron parameters in another dtype."""
        return SOCParameters(self.connectivity, self.weight, *(value.to(dtype) for value in self[2:]))


def _no_reset(v: Tensor, s: Tensor, threshold: Tensor) -> Tensor:
    return v


def _reset_to_zero(v: Tensor, s: Tensor, threshold: Tensor) -> Tensor:
    return torch.addcmul(v, v, s, value=-1)


def _subtract_threshold(v: Tensor, s: Tensor, threshold: Tensor) -> Tensor:
    return torch.addcmul(v, threshold, s, value=-1)


RESETS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "none": _no_reset,
    "zero": _reset_to_zero,
    "subtract": _subtract_threshold,
}


@RULES.register
class SpikingSOC(UpdateRule):
    r"""Leaky spiking neurons whose firing depletes a resource that recovers slowly. One step, in this order:

    .. math::
        s_i &= H(v_i - \theta_i), \quad H(0) = 1 \\
        a_i &= \textstyle\sum_j w_{ij}\, s_j r_j \\
        v_i &\leftarrow \mathrm{reset}(v_i, s_i)\,\mathrm{decay}_i + a_i + \mathrm{drive}_i \\
        r_i &\leftarrow \mathrm{clamp}(r_i - u_i s_i + (1 - r_i)/\tau_i,\ 0,\ 1)

    The activity is :math:`s`. Spikes are read before integration, so with reset "zero" and ``resources=False`` activity t equals
    that of a leaky integrate-and-fire neuron at t − 1, and the last drive reaches only the returned state.

    Shapes: drive and activity [N, B]; state ``SOCState(v, r)``, v starting at 0 and r at 1.

    Args:
        topology: the graph.
        threshold: firing threshold θ > 0; None learns one per neuron, starting at 1.
        decay: membrane decay per step, in [0, 1]; None learns one per neuron in [0.4, 0.99].
        utilisation: fraction of the resource that a spike uses, in [0, 1]; None learns one per neuron in [0.01, 0.5].
        recovery: time constant τ of the resource in steps, >= 1; None learns one per neuron in [10, 100].
        weight: edge weights [E] in the order of the topology's edges; a number is a gain on the graph's ``edge_weight`` (1 where
            it has none); None takes ``edge_weight`` or, where there is none, draws w = (1 + z) / (2K), z normal, K the in-degree.
        learn_weight: whether the edge weights are learned.
        reset: what a spike does to its membrane: "none", "zero" v(1 − s), or "subtract" v − θs.
        detach_reset: whether the reset is left out of the gradient.
        resources: False fixes r = 1.
        surrogate: the spike function; see :mod:`lmn_graph.surrogates`.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid.

    Source: the SOC lattice of the Lattice Machine Networks repository; resource dynamics after Levina, Herrmann, Geisel 2007,
    "Dynamical synapses causing self-organized criticality in neural networks".
    """

    spiking: ClassVar[bool] = True

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        threshold: float | None = 1.0,
        decay: float | None = None,
        utilisation: float | None = None,
        recovery: float | None = None,
        weight: float | Tensor | None = None,
        learn_weight: bool = True,
        reset: Literal["none", "zero", "subtract"] = "none",
        detach_reset: bool = False,
        resources: bool = True,
        surrogate: Surrogate = ArcTan(width=2.0),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(topology)
        n = self.num_nodes
        self.threshold = BoundedParameter("threshold", threshold, n, above=0.0, learned=(0.1, 10.0), start=1.0)
        self.decay = BoundedParameter("decay", decay, n, minimum=0.0, maximum=1.0, learned=DECAY, start=0.9)
        self.resources = _checks.flag("resources", resources)
        if not resources:  # nothing to learn where nothing is used
            utilisation, recovery = utilisation or 0.0, recovery or 1.0
        self.utilisation = BoundedParameter("utilisation", utilisation, n, minimum=0.0, maximum=1.0, learned=UTILISATION, start=0.1)
        self.recovery = BoundedParameter("recovery", recovery, n, minimum=1.0, learned=RECOVERY, start=30.0)
        as_given = isinstance(topology, Data)
        self._initial = partial(edge_weights, self.connectivity, weight, learn_weight, self._default_weight, as_given=as_given)
        value, self.gain = self._initial()
        if isinstance(value, nn.Parameter):
            self.weight: Tensor | None = value
        else:
            self.register_buffer("weight", value)
        self.reset = _checks.choice("reset", reset, RESETS)
        self.detach_reset = _checks.flag("detach_reset", detach_reset)
        if not callable(surrogate):
            raise ValueError(f"surrogate must be a callable that maps u to spikes, got {surrogate!r}")
        self.surrogate = surrogate

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        for part in (self.threshold, self.decay, self.utilisation, self.recovery):
            part.reset_parameters()
        if isinstance(self.weight, nn.Parameter):
            value, _ = self._initial()
            assert value is not None
            with torch.no_grad():
                self.weight.copy_(value)

    def _default_weight(self) -> Tensor:
        degree = self.connectivity.in_degree().clamp(min=1).to(torch.get_default_dtype())
        per_edge = degree[self.connectivity.edge_index[1]]
        return (1 + torch.randn_like(per_edge)) / (2 * per_edge)

    @property
    def shared(self) -> bool:
        parts = (self.threshold, self.decay, self.utilisation, self.recovery)
        return self.weight is None and not any(part.per_node for part in parts)

    def initial_state(self, batch_size: int, *, graph: Connectivity | None = None) -> SOCState:
        like = self.threshold()
        shape = ((graph or self.connectivity).num_nodes, _checks.integer("batch_size", batch_size, minimum=0))
        return SOCState(like.new_zeros(shape), like.new_ones(shape))

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> SOCParameters:
        connectivity = self.resolve(graph)
        weight = self.weight
        if weight is None:
            threshold = self.threshold()
            base = threshold.new_ones(connectivity.num_edges) if connectivity.edge_weight is None else connectivity.edge_weight
            weight = self.gain * base.to(threshold.dtype)
        prepared = ops.EdgeWeight(connectivity, weight)
        return SOCParameters(connectivity, prepared, self.threshold(), self.decay(), self.utilisation(), 1 / self.recovery())

    def step(self, p: SOCParameters, state: SOCState, drive: Tensor | None) -> tuple[SOCState, Tensor]:
        v, r = state
        if v.dtype != p.decay.dtype:
            p = p.to(v.dtype)
        s = self.surrogate(v - p.threshold)
        a = self.weighted_sum(p.connectivity, s * r if self.resources else s, p.weight)
        v = torch.addcmul(a, RESETS[self.reset](v, s.detach() if self.detach_reset else s, p.threshold), p.decay)
        if drive is not None:
            v = v + drive
        if self.resources:
            # With τ >= 1 recovery never passes 1: the upper clamp is left out, whose gradient at rest (r = 1) varies with torch.
            r = torch.relu(torch.addcmul(torch.lerp(r, torch.ones_like(p.recovery), p.recovery), p.utilisation, s, value=-1))
        return SOCState(v, r), s

    def run(
        self, p: SOCParameters, state: SOCState, drives: Tensor | None, *, steps: int, inject: str, record: tuple[str, ...]
    ) -> tuple[Tensor, SOCState, list[Tensor]] | None:
        """The steps in a compiled loop, where there is a compiler and they are worth it."""
        if torch.compiler.is_compiling():
            return None
        graph, (v, r) = p.connectivity, state
        numbers = (graph.num_edges + graph.num_nodes) * v.size(1) * BLOCK  # whatever the length, so that all segments of a rollout agree
        if not numbers or not compiles(self.compile, numbers) or not self._is_plain(p, state, drives):
            return None
        neuron = torch.cat([value.to(v.dtype).expand(graph.num_nodes, 1) for value in p[2:]], 1).t()

        def step_by_step(weight: Tensor, neuron: Tensor, drives: Tensor | None, v: Tensor, r: Tensor) -> tuple[Tensor, ...]:
            prepared = SOCParameters(graph, ops.EdgeWeight(graph, weight), *(row.unsqueeze(1) for row in neuron))
            state, outputs = SOCState(v, r), []
            for t in range(steps):
                state, s = self.step(prepared, state, frame_at(drives, t, steps, inject))
                outputs.append((s, *state))
            s, *fields = (torch.stack(found) for found in zip(*outputs))
            return s, *state, *fields

        derivative = self.surrogate.derivative
        kind = (self.reset, self.detach_reset, self.resources, derivative, steps, inject == "every", bool(record))
        spikes = Spikes(graph, *kind, step_by_step)
        s, v, r, *fields = spike_scan(spikes, p.weight.value.to(v.dtype), neuron, drives, v, r)
        recorded = dict(zip(SOCState._fields, fields))
        return s.movedim(2, 0), SOCState(v, r), [recorded[name].movedim(2, 0) for name in record]

    def _is_plain(self, p: SOCParameters, state: SOCState, drives: Tensor | None) -> bool:
        """Whether a step is that of this class, on tensors that a compiled loop takes, and nobody watches it."""
        kind, weight, dtype = type(self), p.weight.value, state.v.dtype
        own = kind.step is SpikingSOC.step and kind.weighted_sum is UpdateRule.weighted_sum and kind.message is UpdateRule.message
        heaviside = isinstance(self.surrogate, Surrogate) and type(self.surrogate).__call__ is Surrogate.__call__
        if not own or not heaviside or self._is_propagated():
            return False
        same = [*state, *([] if drives is None else [drives])]
        fits = all(tensor.dtype == dtype for tensor in same) and torch.promote_types(weight.dtype, dtype) == dtype
        return fits and all(map(is_compiled, (*same, weight))) and not is_dual(*same, weight, *p[2:])

    def flip(self, p: SOCParameters, state: SOCState, node: Tensor) -> SOCState:
        """Move the membrane of ``node[b]`` just across the threshold: up to it where it is silent, below it where it fires."""
        at = (node, torch.arange(node.numel(), device=node.device))
        threshold = p.threshold.expand(state.v.size(0), 1)[node, 0].to(state.v.dtype)
        below = torch.nextafter(threshold, threshold - 1)
        v = state.v.index_put(at, torch.where(state.v[at] >= threshold, below, threshold))
        return state._replace(v=v)

    def extra_repr(self) -> str:
        return f"reset={self.reset!r}, resources={self.resources}, surrogate={self.surrogate}"
