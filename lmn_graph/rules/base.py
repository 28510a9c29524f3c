"""What every update rule shares: it is bound to a graph, its state is a value, and one step is a pure function."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing, SumAggregation

from lmn_graph import ops
from lmn_graph._precision import full_precision, is_autocast, widened
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops._order import find_cycle
from lmn_graph.registry import Registry
from topologies import _checks

State = Any  # a NamedTuple of tensors [N, B] or [N, B, C], its fields named by the rule

_PROPERTIES = {
    "acyclic": Connectivity.is_acyclic,
    "sinks": lambda graph: bool((graph.out_degree() == 0).any()),
    "lattice": lambda graph: graph.shape is not None,
    "ports": lambda graph: graph.input_index is not None and graph.output_index is not None,
}


_GIVEN_BY_PYG = {"self"} | MessagePassing.special_args  # arguments that PyG itself fills in
_PARTS = {"message": 0, "aggregate": 2, "update": 2}  # what propagate calls, and how many arguments come before those by name


def _asked_for(kind: Any, part: str) -> list[str]:
    """The arguments of a part of ``propagate`` that its caller has to give."""
    return [name for name in list(inspect.signature(getattr(kind, part)).parameters)[_PARTS[part] :] if name not in _GIVEN_BY_PYG]


def _feature(name: str) -> str:
    """What an argument of a message is called where it is given: ``x`` for ``x_i`` and ``x_j``."""
    return name[:-2] if name.endswith(("_i", "_j")) else name


def _called_message(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under the name by which PyG looks messages up."""

    @functools.wraps(function)
    def message(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    message.__name__ = "message"
    return message


class UpdateRule(MessagePassing):
    r"""One synchronous step of every node of a graph, :math:`(state_t, drive_t) \mapsto (state_{t+1}, activity_t)`.

    A subclass defines :meth:`initial_state`, :meth:`prepare` and :meth:`step`. Inside a rule everything is node-major: a state
    field, the drive and the activity are ``[N, B]``, or ``[N, B, C]`` where ``channels = C``.

    Attributes:
        channels: None for scalar cells, else the number of channels C of every cell.
        requires: properties that the graph must have, of "acyclic", "sinks", "lattice", "ports".
        instantaneous: whether what enters a node passes on to others in the same step, so that one step reaches any distance.
        spiking: whether the activity is made of zeros and ones, and :meth:`flip` exists.
        lr_scales: step sizes of plain gradient descent by name of the parameter, relative to 1 for all others.
        reference: if True, sums over neighbours go through PyG's ``propagate`` even where a faster equal path exists.
        compile: whether sums of messages are compiled: "auto" (large ones, where there is a C++ compiler), "always" or "never".
        context_dim: H, the width of the context [B, H] that :meth:`prepare` needs, or 0: it makes weights of its own for every sample.

    Args:
        topology: the graph, as PyG ``Data`` or as a ``Connectivity`` to share.

    Raises:
        ValueError: if the graph is not valid or lacks a required property, which is named.
    """

    channels: int | None = None
    context_dim: int = 0
    requires: frozenset[str] = frozenset()
    spiking: ClassVar[bool] = False
    instantaneous: bool = False
    lr_scales: ClassVar[Mapping[str, float]] = MappingProxyType({})
    propagate_type: ClassVar[dict[str, Any]] = {"x": Tensor, "weight": Tensor}

    def __init_subclass__(cls, **keywords: Any) -> None:
        # What ``propagate`` takes is what its parts ask for; PyG would read it off the first call of propagate in the source.
        super().__init_subclass__(**keywords)
        message = vars(cls).get("message")
        if isinstance(message, staticmethod) and getattr(message.__func__, "__name__", "") != "message":
            cls.message = staticmethod(_called_message(message.__func__))  # type: ignore[method-assign]
        by_pyg = cls.propagate is MessagePassing.propagate or cls.propagate.__module__.endswith("_propagate")
        if "propagate" not in vars(cls) and by_pyg:
            # PyG writes a propagate for every class and keeps it there; where it can write none, the class would inherit its parent's.
            cls.propagate = MessagePassing.propagate
        inherited = next(base for base in cls.__mro__[1:] if issubclass(base, UpdateRule))
        differs = any(getattr(cls, part) is not getattr(inherited, part) for part in _PARTS)  # also by way of a mixin
        if differs and "propagate_type" not in vars(cls):
            cls.propagate_type = {_feature(name): Tensor for part in _PARTS for name in _asked_for(cls, part)}

    def __init__(self, topology: Data | Connectivity) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.connectivity = topology if isinstance(topology, Connectivity) else Connectivity(topology)
        self.reference = False
        self.compile: ops.Compile = "auto"
        self._check_requirements(self.connectivity)

    @property
    def num_nodes(self) -> int:
        """N, the number of nodes of the bound graph."""
        return self.connectivity.num_nodes

    @property
    def shared(self) -> bool:
        """Whether no parameter belongs to a particular node or edge, so that the rule also takes another graph at the call."""
        return False

    @abstractmethod
    def initial_state(self, batch_size: int, *, graph: Connectivity | None = None) -> State:
        """The state before the first step: a NamedTuple of tensors [N, B(, C)]."""

    @abstractmethod
    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> Any:
        """What stays the same over a rollout: bounded parameters, prepared weights. Called once per rollout."""

    def select(self, p: Any, samples: Tensor) -> Any:
        """What :meth:`prepare` returned, for some of the samples of a batch: a rollout that halts drops those that have stopped.

        A rule that prepares something of its own for every sample, from a context, overrides it; as long as it does not, a halting
        rollout with a context carries stopped samples along. Here: ``p``, nothing in which belongs to a sample.

        Args:
            p: from :meth:`prepare`, or from an earlier call of this method.
            samples: places of the samples that stay, int64, among those that ``p`` is for.
        """
        return p

    @abstractmethod
    def step(self, p: Any, state: State, drive: Tensor | None) -> tuple[State, Tensor]:
        """One step, pure: the next state and the activity, for what :meth:`prepare` returned."""

    def run(
        self, p: Any, state: State, drives: Tensor | None, *, steps: int, inject: str, record: tuple[str, ...]
    ) -> tuple[Tensor, State, list[Tensor]] | None:
        """Many steps at once, where a rule has an exact form faster than step after step; None where it has none, as here.

        Args:
            p: from :meth:`prepare`.
            state: node-major.
            drives: F frames, [F, N, B(, C)], each for ``steps`` / F steps, or None.
            steps: how many.
            inject: whether a frame enters at "every" one of its steps or at the "first".
            record: names of state fields.

        Returns:
            activity [B, T, N(, C)], the state after the last step, and the fields of ``record`` after every step, each as the activity.
        """
        return None

    def forward(
        self, state: State, drive: Tensor | None = None, *, context: Tensor | None = None, graph: Data | Connectivity | None = None
    ) -> tuple[State, Tensor]:
        """:meth:`prepare` and one :meth:`step`."""
        device = self.connectivity.rowptr.device
        if is_autocast(device):
            state, drive, context = widened(state), widened(drive), widened(context)
        with full_precision(device):
            return self.step(self.prepare(context, graph), state, drive)

    def flip(self, p: Any, state: State, node: Tensor) -> State:
        """The state in which the next spike of ``node[b]`` in sample b is flipped; spiking rules define it."""
        raise ValueError(f"{type(self).__name__} does not spike: there is no spike to flip")

    def learned_weight(self) -> Tensor | None:
        """The learned weights of the edges, [E] in the order of the connectivity, or None where the rule has none."""
        weight = getattr(self, "weight", None)
        return weight if isinstance(weight, torch.nn.Parameter) and weight.shape == (self.connectivity.num_edges,) else None

    def resolve(self, graph: Data | Connectivity | None) -> Connectivity:
        """The graph of a call: the bound one, in whatever order its edges come, or any other if every parameter is shared."""
        if graph is None or graph is self.connectivity:
            return self.connectivity
        found = graph if isinstance(graph, Connectivity) else Connectivity(graph).to(self.connectivity.rowptr.device)
        if self.shared:
            self._check_requirements(found)
            return found
        if not found.same_graph(self.connectivity):
            raise ValueError(
                f"graph must be the one that this {type(self).__name__} is bound to, {self.connectivity}, because it has parameters of "
                f"its nodes or edges; got {found}"
            )
        return self.connectivity.in_order_of(found)

    def weighted_sum(self, connectivity: Connectivity, x: Tensor, weight: ops.EdgeWeight) -> Tensor:
        """Σ_j w_ij x_j: the sparse product, or ``propagate`` where messages are watched or are not this sum."""
        if type(self).message is UpdateRule.message and not self._is_propagated():
            return ops.weighted_sum(connectivity, x, weight)
        return self.propagated(connectivity, x=x, weight=weight.value)

    def message_sum(self, connectivity: Connectivity, **features: Tensor) -> Tensor:
        """Σ_j message(…) for a ``message`` that is a static method of tensors: in blocks or compiled, without a tensor of all messages.

        As in PyG, an argument ``x_i`` of ``message`` is ``x`` at the target and ``x_j`` at the source of an edge; one without such an
        ending is held by the edges. Where messages are watched or put together otherwise, ``propagate`` calls the same method. See
        :func:`lmn_graph.ops.message_sum` for what a message may do.

        Args:
            connectivity: the graph.
            features: ``x`` [N, B(, C)] for arguments ``x_i``, ``x_j``; [E], [E, B], … for arguments of edges.

        Raises:
            ValueError: if a feature is missing or does not fit.
        """
        message = inspect.getattr_static(type(self), "message")
        if not isinstance(message, staticmethod):
            raise ValueError(f"{type(self).__name__}.message must be a static method of tensors, to be summed by message_sum")
        names = list(inspect.signature(message.__func__).parameters)
        of = {name: _feature(name) for name in names}
        for name in names:
            if name in _GIVEN_BY_PYG or of[name] in _GIVEN_BY_PYG:
                raise ValueError(f"{type(self).__name__}.message must not have an argument {name!r}: PyG fills that name in itself")
            if not isinstance(features.get(of[name]), Tensor):
                raise ValueError(f"features must hold a tensor {of[name]!r} for the argument {name!r} of {type(self).__name__}.message")
        ordered = [*(n for n in names if n.endswith("_i")), *(n for n in names if n.endswith("_j")), *(n for n in names if of[n] == n)]
        if self._is_propagated() or ordered != names:
            return self.propagated(connectivity, **features)
        parts = {end: [features[of[n]] for n in names if n.endswith(end)] for end in ("_i", "_j")}
        edge = [features[n] for n in names if of[n] == n]
        return ops.message_sum(connectivity, message.__func__, parts["_i"], parts["_j"], edge, compile=self.compile)

    def propagated(self, connectivity: Connectivity, **features: Tensor) -> Tensor:
        """The same sum through PyG's own ``propagate``: the reference.

        ``propagate`` sees the edges in the order in which the graph was given, which masks of explainers are in. What only ``update``
        asks for is handed over as it is.
        """
        edge_index, inverse = connectivity.edge_index, connectivity.inverse
        names = _asked_for(type(self), "message")
        held_by_nodes = {_feature(name) for name in names if _feature(name) != name}
        held_by_edges = {*names, *_asked_for(type(self), "aggregate")} & features.keys() - held_by_nodes
        axes = max(features[name].dim() for name in held_by_nodes)
        for name in held_by_edges:
            value = features[name] if inverse is None else features[name][inverse]
            features[name] = value.view(*value.shape, *[1] * (axes - value.dim()))
        for name in held_by_nodes:
            value = features[name]
            features[name] = value.view(*value.shape, *[1] * (axes - value.dim())).expand(connectivity.num_nodes, *value.shape[1:])
        edge_index = edge_index if inverse is None else edge_index[:, inverse]
        return self.propagate(edge_index, size=(connectivity.num_nodes, connectivity.num_nodes), **features)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """w_ij x_j for every edge: the reference of the sparse product."""
        return weight.view(-1, *[1] * (x_j.dim() - 1)) * x_j

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(part for part in (self.connectivity.extra_repr(), self.extra_repr()) if part)})"

    def _is_propagated(self) -> bool:
        """Whether messages have to go through ``propagate``: asked for, watched, or put together otherwise than by a sum."""
        kind = type(self)
        plain = kind.update is MessagePassing.update and kind.aggregate is MessagePassing.aggregate
        return self.reference or not plain or type(self.aggr_module) is not SumAggregation or self._messages_are_watched()

    def _messages_are_watched(self) -> bool:
        hooks = (
            self._propagate_forward_pre_hooks,
            self._propagate_forward_hooks,
            self._message_forward_pre_hooks,
            self._message_forward_hooks,
            self._aggregate_forward_pre_hooks,
            self._aggregate_forward_hooks,
        )
        return bool(self.explain) or self.decomposed_layers > 1 or any(hooks)

    def _check_requirements(self, connectivity: Connectivity) -> None:
        for name in sorted(self.requires):
            if not _PROPERTIES[name](connectivity):
                what = f"topology must have the property {name!r} that {type(self).__name__} requires: {connectivity} has not"
                if name == "acyclic":
                    everywhere = torch.ones(connectivity.num_nodes, dtype=torch.bool, device=connectivity.edge_index.device)
                    what += f", its nodes {' -> '.join(map(str, find_cycle(connectivity, everywhere)))} are a cycle"
                if name == "ports":
                    missing = [field for field in ("input_index", "output_index") if getattr(connectivity, field) is None]
                    what += f"; set {' and '.join(f'topology.{field}' for field in missing)} to the nodes that are its ports"
                raise ValueError(what)


RULES: Registry[type[UpdateRule]] = Registry("rule", UpdateRule)


class Weights(NamedTuple):
    """How a rule was given its edge weights; see :func:`edge_weights`."""

    value: torch.nn.Parameter | Tensor | None
    gain: float


def edge_weights(
    connectivity: Connectivity, weight: float | Tensor | None, learn: bool, default: Callable[[], Tensor], *, as_given: bool = False
) -> Weights:
    """The initial edge weights of a rule.

    ``weight`` None takes the graph's ``edge_weight``, or ``default()`` where it has none; a tensor [E] is in the order of the
    connectivity, or with ``as_given`` in that of the data it was made from; a number is a gain on the graph's ``edge_weight`` (1
    where it has none). A number that is not learned stays a number, so that it fits any graph.
    """
    _checks.flag("learn_weight", learn)
    if isinstance(weight, Tensor):
        if weight.shape != (connectivity.num_edges,) or not weight.is_floating_point() or not bool(weight.isfinite().all()):
            got = f"{weight.dtype} {tuple(weight.shape)}" + ("" if bool(weight.isfinite().all()) else " with NaN or infinity")
            raise ValueError(f"weight must be a finite floating-point tensor [{connectivity.num_edges}], got {got}")
        value = weight.detach().clone()
        if as_given and connectivity.permutation is not None:
            value = value[connectivity.permutation]
    elif weight is None:
        given = connectivity.edge_weight
        value = default() if given is None else given.to(torch.get_default_dtype(), copy=True)
    else:
        gain = _checks.number("weight", weight)
        if not learn:
            return Weights(None, gain)
        given = connectivity.edge_weight
        value = gain * (torch.ones(connectivity.num_edges) if given is None else given.to(torch.get_default_dtype()))
    if not bool(value.isfinite().all()):
        raise ValueError(f"weight and gain must give finite weights in {value.dtype}, got infinity or NaN")
    return Weights(torch.nn.Parameter(value) if learn else value, 1.0)
