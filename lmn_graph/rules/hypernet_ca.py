"""Cells whose edge weights are made by a network, for every sample its own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph import ops
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops.gated import Gate, magnitude
from lmn_graph.rules.base import RULES
from lmn_graph.rules.continuous import CellState, ContinuousRule
from lmn_graph.rules.generators.base import (
    GENERATORS,
    FromFunction,
    MakeGenerator,
    WeightGenerator,
    check_factor,
    check_factors,
    number_of_types,
)
from lmn_graph.rules.generators.mlp_router import MLPRouter
from topologies import _checks

Materialise = Literal["auto", "always", "never"]
_BLOCK = 1 << 17  # weights of a step that are made at once where they are so few: no more than a block of any other sum


class HypernetParameters(NamedTuple):
    """What a step needs.

    Attributes:
        connectivity: the graph.
        weight: generated weights: of low rank, or made: [E, B(, C)], [E] where all samples share them.
        left: for a generator that follows the state: from the cells to the left factor, else None.
        alpha: steepness of the gate, or None.
        leak: the leak.
        batch: how many samples the weights are for; 1 if for any.
    """

    connectivity: Connectivity
    weight: ops.LowRankWeight | ops.EdgeWeight | Tensor
    left: _Left | None
    alpha: Tensor | None
    leak: Tensor
    batch: int


class _Left(NamedTuple):
    """The left factor of a state: a generator, what it keeps of the context, the scale [N, 1(, 1), 1] of the weights."""

    generator: WeightGenerator
    memory: Tensor | None
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        left = self.generator.left(x, self.memory)
        name = f"{type(self.generator).__name__}.left(x)"
        check_factor(name, left, x.size(0), x.size(1), self.generator.channels)
        return left * self.scale

    def select(self, samples: Tensor) -> _Left:
        memory = self.memory
        shared = memory is None or memory.size(0) == 1
        return self if shared else self._replace(memory=memory.index_select(0, samples))  # type: ignore[union-attr]


def _count(weight: ops.LowRankWeight) -> int:
    """How many numbers the weights would be, made: E·B·C."""
    shapes = (factor.shape[1:-1] for factor in (weight.left, weight.right))
    return weight.connectivity.num_edges * math.prod(torch.broadcast_shapes(*shapes))


@RULES.register
class HypernetCA(ContinuousRule):
    r"""Cells that hear their neighbours through weights which a generator makes from a context, for every sample b its own,

    .. math:: f_i = \tanh\big(\textstyle\sum_j w_{bij}\, x_j + drive_i\big), \qquad
              f_i = \tanh\big(\textstyle\sum_j \sigma(\alpha(|x_i| - |x_j|))\, w_{bij}\, x_j + drive_i\big),

    the latter with ``gate="relativistic"``, and :math:`x \leftarrow (1 - \lambda) x + \lambda f`. The generator gives weights of low rank
    and of about unit variance, which are multiplied by :math:`gain\, a_{ij} / \sqrt{\sum_j a_{ij}^2}`, a the graph's ``edge_weight`` (1
    where it has none). Weights are held by edge types where the graph has them, so by neighbours of the same offset on a lattice; on any
    other graph all edges of a cell share one, unless the generator makes one per pair of cells (``EmitterListener``).

    Low-rank weights are contracted (:func:`lmn_graph.ops.lowrank_sum`) and never made, or where that is faster and they fit made once per
    rollout.

    Shapes: drive and activity [N, B], or [N, B, C] with channels; state ``CellState(x)``, starting at 0; context [B, ``context_dim``].

    Args:
        topology: the graph.
        generator: a class of :mod:`lmn_graph.rules.generators`, its name, or ``functools.partial`` of it with options; or any function
            or module from the context to weights: [B, E], or [B, N, K] per edge type (with channels also [B, N, K, C]), B and N being
            1 where shared; these are taken as they are, without the scale above.
        context_dim: H, the width of the context that :meth:`prepare` needs; 0 for weights without one.
        gate: "relativistic" hears a neighbour the more, the smaller it is beside oneself; None all alike.
        alpha: initial steepness α of that gate.
        learn_alpha: whether α is a parameter.
        gain: scale of the weights, > 0; the gate halves them at α = 0.
        materialise: whether weights of low rank are made, once per rollout, instead of being contracted at every step: "never", "always",
            or "auto", where it was measured to be faster and the [E, B] numbers fit into ``limit``. A generator that follows the state
            has new weights at every step; these are contracted unless they are so few that they fit into a block in cache.
        limit: most numbers [E, B(, C)] that "auto" makes.
        channels: None for scalar cells, else C.
        leak: λ in (0, 1]; None learns one per node.
        residual: add λ f to the state instead of mixing the two.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid; at a rollout, if the context is missing or does not fit, or
            what the generator returns does not.

    Source: the hypernetworks of helena/ and lowrankact.py in the Lattice Machine Networks repository; D. Ha, A. Dai, Q. V. Le,
    "HyperNetworks", 2017.
    """

    alpha: Tensor

    def __init__(
        self,
        topology: Data | Connectivity,
        generator: str | MakeGenerator | Callable[[Tensor | None], Tensor] = MLPRouter,
        *,
        context_dim: int = 0,
        gate: Literal["relativistic"] | None = None,
        alpha: float = 1.0,
        learn_alpha: bool = True,
        gain: float = 1.0,
        materialise: Materialise = "auto",
        limit: int = 2**25,
        channels: int | None = None,
        leak: float | None = 1.0,
        residual: bool = False,
    ) -> None:
        super().__init__(topology, channels=channels, leak=leak, residual=residual)
        self.context_dim = _checks.integer("context_dim", context_dim, minimum=0)
        self.gate = None if gate is None else _checks.choice("gate", gate, ("relativistic",))
        self.gain = _checks.number("gain", gain, above=0)
        self.materialise: Materialise = _checks.choice("materialise", materialise, ("auto", "always", "never"))
        self.limit = _checks.integer("limit", limit, minimum=0)
        self.initial_alpha = _checks.number("alpha", alpha)
        value = torch.tensor(self.initial_alpha, dtype=torch.get_default_dtype())
        if not bool(value.isfinite()):
            raise ValueError(f"alpha must be finite in {value.dtype}, got {self.initial_alpha}")
        if _checks.flag("learn_alpha", learn_alpha) and self.gate is not None:
            self.alpha = nn.Parameter(value)
        else:
            self.register_buffer("alpha", value)
        self.generator = self._built(generator, topology)

    def _built(self, generator: Any, topology: Data | Connectivity) -> WeightGenerator | FromFunction:
        if isinstance(generator, str):
            generator = GENERATORS[generator]
        made = generator.func if isinstance(generator, partial) else generator
        if isinstance(made, type) and issubclass(made, WeightGenerator):
            # The data too, for what only they say: the identities of router cells.
            data = topology if isinstance(topology, Data) and "cell_factors" in topology else self.connectivity
            try:
                return generator(data, self.context_dim, channels=self.channels)
            except TypeError as error:
                raise ValueError(f"generator must take (topology, context_dim, *, channels), got {made.__name__}: {error}") from error
        if not callable(generator) or isinstance(generator, (type, WeightGenerator)):
            expected = "a generator class, its name, a partial of it, or a function of the context"
            raise ValueError(f"generator must be {expected}, got {generator!r}")
        try:
            inspect.signature(generator).bind(None)
        except ValueError:
            pass  # one written in C may have no signature
        except TypeError as error:
            raise ValueError(f"generator must be a function of one argument, the context, got {generator!r}: {error}") from error
        return FromFunction(generator, self.connectivity, self.channels, isinstance(topology, Data))

    @property
    def shared(self) -> bool:
        generator = self.generator
        return isinstance(generator, WeightGenerator) and generator.shared and generator.follows_state and not self.leak.per_node

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        self.generator.reset_parameters()
        with torch.no_grad():
            self.alpha.fill_(self.initial_alpha)

    def resolve(self, graph: Data | Connectivity | None) -> Connectivity:
        """The graph of a call: the bound one, with the weights a that are given, or another one with the same edge types where all cells
        share the generator."""
        if graph is None or graph is self.connectivity:
            return self.connectivity
        found = graph if isinstance(graph, Connectivity) else Connectivity(graph).to(self.connectivity.rowptr.device)
        if not self.shared or found.same_graph(self.connectivity):
            bound = super().resolve(found) if not self.shared else self.connectivity.in_order_of(found)
            given = found.edge_weight
            return bound if given is None else bound.reweighted(given if found.inverse is None else given[found.inverse])
        types = number_of_types(self.connectivity)
        if (found.edge_type is None) != (self.connectivity.edge_type is None) or number_of_types(found) != types:
            has = "no edge_type" if found.edge_type is None else f"{number_of_types(found)} edge types"
            raise ValueError(f"graph must have the {types} edge types of {self.connectivity}, got {found} with {has}")
        return found

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> HypernetParameters:
        connectivity = self.resolve(graph)
        batch = self._checked(context)
        alpha = None if self.gate is None else self.alpha
        if isinstance(self.generator, FromFunction):
            made = self.generator(context, self.connectivity)  # weights are in the order of the topology, whatever graph is passed
            return HypernetParameters(connectivity, self._ready(connectivity, made), None, alpha, self.leak(), made.size(1))
        found = self.generator.factors(context)
        check_factors(found, self.generator, batch, type(self.generator).__name__)
        scale, right = self._scale(connectivity), found.right
        given = None if connectivity.edge_weight is None else connectivity.edge_weight.to(right.dtype)
        # A left factor that comes with the state has a stand-in of its size until then.
        left = right.new_zeros(()).expand(*scale.shape[:-1], right.size(-1)) if found.left is None else found.left * scale
        weight = ops.LowRankWeight(connectivity, left, right, per=found.per, scale=given)
        if found.left is None:
            follows = _Left(self.generator, found.memory, scale)
            return HypernetParameters(connectivity, weight, follows, alpha, self.leak(), batch)
        samples = max(left.size(1), right.size(1))
        made = self._ready(connectivity, weight.materialise()) if self._makes(weight) else weight
        return HypernetParameters(connectivity, made, None, alpha, self.leak(), samples)

    def _checked(self, context: Any) -> int:
        """The batch size of a context; 1 without."""
        expected = f"[B, {self.context_dim}]"
        if self.context_dim == 0:
            if context is not None:
                raise ValueError(f"context must be None for a rule with context_dim=0, got {type(context).__name__}")
            return 1
        if context is None:
            raise ValueError(f"context must be a tensor {expected}, as this rule has context_dim={self.context_dim}, got None")
        if not isinstance(context, Tensor) or not context.is_floating_point() or context.dim() != 2 or context.size(1) != self.context_dim:
            got = f"{context.dtype} {tuple(context.shape)}" if isinstance(context, Tensor) else type(context).__name__
            raise ValueError(f"context must be a floating-point tensor {expected}, got {got}")
        if not torch.compiler.is_compiling() and not bool(context.detach().isfinite().all()):
            raise ValueError("context must be finite, got NaN or infinity")
        return context.size(0)

    def _scale(self, connectivity: Connectivity) -> Tensor:
        """gain / √Σ a², [N, 1, 1] or [N, 1, 1, 1] with channels."""
        if connectivity.edge_weight is None:
            square = connectivity.in_degree().to(self.alpha.dtype)
        else:
            a = connectivity.edge_weight.to(self.alpha.dtype)
            square = a.new_zeros(connectivity.num_nodes).index_add(0, connectivity.edge_index[1], a.square())
        scale = torch.where(square > 0, self.gain * square.clamp(min=torch.finfo(square.dtype).tiny).rsqrt(), torch.zeros_like(square))
        return scale.view(-1, *[1] * (2 if self.channels is None else 3))

    def _makes(self, weight: ops.LowRankWeight) -> bool:
        """Whether the weights are made rather than contracted."""
        if self.materialise != "auto":
            return self.materialise == "always"
        return _count(weight) <= self.limit and ops.pays_to_materialise(weight, gated=self.gate is not None)

    def _ready(self, connectivity: Connectivity, weight: Tensor) -> ops.EdgeWeight | Tensor:
        """Weights that all samples and channels share are ordinary edge weights, made ready for many sums."""
        if weight.size(0) and math.prod(weight.shape[1:]) == 1 and self.gate is None:
            return ops.EdgeWeight(connectivity, weight.flatten())
        return weight

    def select(self, p: HypernetParameters, samples: Tensor) -> HypernetParameters:
        """The parameters of some samples of the batch, int64 [m]."""
        if p.batch == 1:
            return p
        left = None if p.left is None else p.left.select(samples)
        if isinstance(p.weight, ops.LowRankWeight):
            return p._replace(weight=p.weight.select(samples), left=left, batch=samples.numel())
        assert isinstance(p.weight, Tensor)
        return p._replace(weight=p.weight.index_select(1, samples), batch=samples.numel())

    def step(self, p: HypernetParameters, state: CellState, drive: Tensor | None) -> tuple[CellState, Tensor]:
        x = state.x
        if p.batch not in (1, x.size(1)):
            raise ValueError(f"context must have one row per sample of the state, {x.size(1)}, got {p.batch}")
        weight = p.weight
        if p.left is not None:
            assert isinstance(weight, ops.LowRankWeight)
            weight = weight.with_left(p.left(x))
            if self.materialise != "never" and _count(weight) <= _BLOCK:
                weight = weight.materialise()
        a = self._sum(p.connectivity, x, weight, p.alpha)
        return self.moved(x, torch.tanh(a if drive is None else a + drive), p.leak)

    def _sum(self, connectivity: Connectivity, x: Tensor, weight: Any, alpha: Tensor | None) -> Tensor:
        if self._is_propagated() or type(self).message is not HypernetCA.message:
            made = weight.materialise() if isinstance(weight, ops.LowRankWeight) else weight
            made = made.value if isinstance(made, ops.EdgeWeight) else made
            # Without a gate all of them are open: σ(∞ − 0) = 1.
            p = torch.full_like(x[:1, :1], torch.inf) if alpha is None else alpha.to(x.dtype) * magnitude(x, self._gate_of(x))
            q = torch.zeros_like(x[:1, :1]) if alpha is None else p
            return self.message_sum(connectivity, p=p, q=q, x=x, weight=made.to(x.dtype))
        if alpha is not None:
            return ops.gated_sum(connectivity, x, weight, alpha, compile=self.compile)
        if isinstance(weight, ops.LowRankWeight):
            return ops.lowrank_sum(connectivity, x, weight)
        return ops.weighted_sum(connectivity, x, weight, compile=self.compile)

    @staticmethod
    def _gate_of(x: Tensor) -> Gate:
        return "channel" if x.dim() == 2 else "norm"

    @staticmethod
    def message(p_i: Tensor, q_j: Tensor, x_j: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        """σ(p_i − q_j) w_ij x_j, p = q = α|x|, or ∞ and 0 for no gate: the reference of every form of the sum."""
        return torch.sigmoid(p_i - q_j) * weight * x_j

    def extra_repr(self) -> str:
        gate = "" if self.gate is None else f"gate={self.gate!r}, alpha={self.alpha.item():g}, "
        return f"context_dim={self.context_dim}, {gate}{self._dynamics_repr()}"
