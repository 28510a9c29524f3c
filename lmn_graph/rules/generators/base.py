"""What makes the weights of edges: from the context of a sample, who a cell is and what it holds, to factors of low rank."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.registry import Registry
from topologies import _checks


class Factors(NamedTuple):
    r"""Weights of low rank, :math:`w_{ij} = \sum_r left_{ir}\, right_{kr}`, k the edge type of :math:`j \to i` or the node j.

    Attributes:
        left: [N, B, R], or [N, B, C, R] for cells with channels; B, C are 1 where samples or channels share it. None: made anew at every
            step by :meth:`WeightGenerator.left`.
        right: [K, B, R] or [K, B, C, R] for the K edge types, or [N, …] for the nodes.
        per: what the first axis of ``right`` counts.
        memory: what :meth:`WeightGenerator.left` needs of the context, [B, …] with one row per sample (or one for all), or None.
    """

    left: Tensor | None
    right: Tensor
    per: Literal["type", "node"] = "type"
    memory: Tensor | None = None


class WeightGenerator(nn.Module):
    r"""Makes the weights of edges for every sample of a batch from a context :math:`c_b`.

    A subclass defines :meth:`factors`; one whose weights depend on what the cells hold sets ``follows_state`` and defines :meth:`left`. It
    gives weights of about unit variance: the rule divides by the root of the number of neighbours.

    Attributes:
        follows_state: whether the left factor is made anew at every step from the state of the cells.
        shared: whether no parameter belongs to a node, so that a generator which follows the state also serves another graph with as many
            edge types.
        num_nodes: N.
        num_types: K, the number of edge types ("slots"), 1 on a graph without ``edge_type``.

    Args:
        topology: the graph.
        context_dim: H, the width of the context; 0 for none.
        channels: None for scalar cells, else C.
        per_channel: whether each channel has weights of its own; else they share them.

    Raises:
        ValueError: if an argument is out of range or the graph is not valid.
    """

    follows_state: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    def __init__(
        self, topology: Data | Connectivity, context_dim: int = 0, *, channels: int | None = None, per_channel: bool = False
    ) -> None:
        super().__init__()
        connectivity = topology if isinstance(topology, Connectivity) else Connectivity(topology)
        self.num_nodes = connectivity.num_nodes
        self.num_types = number_of_types(connectivity)
        self.context_dim = _checks.integer("context_dim", context_dim, minimum=0)
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)
        if _checks.flag("per_channel", per_channel) and self.channels is None:
            raise ValueError("per_channel must be False for scalar cells, got True: give the rule channels")
        self.copies = (self.channels or 1) if per_channel else 1

    @abstractmethod
    def factors(self, context: Tensor | None) -> Factors:
        """The factors for a context [B, H], or without one where ``context_dim`` is 0; called once per rollout."""

    def left(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """The left factor for the cells x [N, B] or [N, B, C]; generators that follow the state define it."""
        raise NotImplementedError(f"{type(self).__name__} does not follow the state")

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew; a generator with parameters of its own draws these after."""
        _reset_parts(self)

    def split(self, factor: Tensor) -> Tensor:
        """[…, copies·R] as […, R] for scalar cells, […, 1 or C, R] for cells with channels."""
        return factor if self.channels is None else factor.unflatten(-1, (self.copies, -1))


GENERATORS: Registry[type[WeightGenerator]] = Registry("generator", WeightGenerator)

MakeGenerator = Callable[..., WeightGenerator]


class FromFunction(nn.Module):
    """A user's function from a context to weights, checked.

    Args:
        function: context [B, H] (None where ``context_dim`` is 0) → weights; a module's parameters are learned with the rule. The weights
            are taken as they are: [B, E] in the order of the edges of the topology; or by edge type [B, N, K], with channels also
            [B, N, K, C]. B and N may be 1 where samples or cells share them.
        connectivity: the graph.
        channels: None for scalar cells, else C.
        as_given: whether the edges of [B, E] are in the order of the data that the connectivity was made from.
    """

    def __init__(
        self, function: Callable[[Tensor | None], Tensor], connectivity: Connectivity, channels: int | None, as_given: bool
    ) -> None:
        super().__init__()
        self.function = function  # a module becomes a part of this one
        self.channels = channels
        self.num_nodes, self.num_edges = connectivity.num_nodes, connectivity.num_edges
        self.num_types = number_of_types(connectivity)
        self.as_given = as_given

    def reset_parameters(self) -> None:
        """Draw the parameters anew, of every part of the function that can."""
        _reset_parts(self)

    def forward(self, context: Tensor | None, connectivity: Connectivity) -> Tensor:
        """Weights [E, B], or [E, B, 1 or C] for cells with channels, in the order of the connectivity."""
        own = next(self.parameters(), None)
        weight = self.function(context if context is None or own is None else context.to(own.dtype))
        batch = 1 if context is None else context.size(0)
        self._check(weight, batch)
        if weight.dim() == 2:
            if self.as_given and connectivity.permutation is not None:
                weight = weight[:, connectivity.permutation]
            edges = weight.t()
            return edges if self.channels is None else edges.unsqueeze(-1)
        kind, target = connectivity.edge_type, connectivity.edge_index[1]
        kind = torch.zeros_like(target) if kind is None else kind
        edges = weight.movedim(0, 2)[target if weight.size(1) > 1 else torch.zeros_like(target), kind]  # [E, B(, C)]
        return edges.unsqueeze(-1) if edges.dim() == 2 and self.channels is not None else edges

    def _check(self, weight: Any, batch: int) -> None:
        b = "1" if batch == 1 else f"{batch} or 1"
        n, k, e = self.num_nodes, self.num_types, self.num_edges
        expected = f"[{b}, {e}] per edge or [{b}, {n} or 1, {k}] per edge type"
        expected += "" if self.channels is None else f" or [{b}, {n} or 1, {k}, {self.channels}]"
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            got = f"{weight.dtype} {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(f"generator must return a floating-point tensor {expected}, got {got}")
        shape = tuple(weight.shape)
        per_edge = len(shape) == 2 and shape[1] == e
        per_type = len(shape) == 3 or (len(shape) == 4 and self.channels is not None and shape[3] == self.channels)
        fits = per_edge or (per_type and shape[1] in (1, n) and shape[2] == k)
        if not fits or shape[0] not in (1, batch):
            raise ValueError(f"generator must return weights {expected}, got shape {shape}")
        if not torch.compiler.is_compiling() and not bool(weight.detach().isfinite().all()):
            raise ValueError("generator must return finite weights, got NaN or infinity")

    def extra_repr(self) -> str:
        return "" if isinstance(self.function, nn.Module) else getattr(self.function, "__name__", repr(self.function))


def _reset_parts(module: nn.Module) -> None:
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if part is not module and callable(reset):
            reset()


_TYPES = 1 << 16  # that a graph may have beside one per edge


def number_of_types(connectivity: Connectivity) -> int:
    """K: how many edge types a graph has, 1 where it has no ``edge_type``; a ValueError where these are no counting numbers."""
    kind = connectivity.edge_type
    if kind is None or kind.numel() == 0:
        return 1
    if kind.dim() != 1 or kind.is_floating_point() or kind.dtype == torch.bool or int(kind.min()) < 0:
        raise ValueError(f"topology.edge_type must be integers >= 0 [{connectivity.num_edges}], got {kind.dtype} {tuple(kind.shape)}")
    if int(kind.max()) >= max(_TYPES, kind.numel()):
        raise ValueError(f"topology.edge_type must be numbers of types below {max(_TYPES, kind.numel())}, got {int(kind.max())}")
    return int(kind.max()) + 1


def check_factors(found: Any, generator: WeightGenerator, batch: int, name: str) -> Factors:
    """What a generator returned, if it has the shapes that it must have; a ValueError that names the part otherwise."""
    if not isinstance(found, Factors):
        raise ValueError(f"{name}.factors must return Factors, got {type(found).__name__}")
    _checks.choice(f"{name}.factors(…).per", found.per, ("type", "node"))
    rows = {"left": generator.num_nodes, "right": generator.num_types if found.per == "type" else generator.num_nodes}
    tensors = {"right": found.right, **({} if found.left is None else {"left": found.left})}
    if found.left is None and not generator.follows_state:
        raise ValueError(f"{name}.factors must return a left factor, got None")
    for part, value in tensors.items():
        check_factor(f"{name}.factors(…).{part}", value, rows[part], batch, generator.channels)
    return found


def check_factor(name: str, value: Any, rows: int, batch: int, channels: int | None) -> None:
    """A ValueError for a factor that is not [rows, B(, C), R]."""
    middle = "" if channels is None else f"{channels} or 1, "
    expected = f"a floating-point tensor [{rows}, {batch} or 1, {middle}R]"
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} must be {expected}, got {f'{value.dtype}' if isinstance(value, Tensor) else type(value).__name__}")
    shape = tuple(value.shape)
    fits = len(shape) == (3 if channels is None else 4) and shape[0] == rows and shape[1] in (1, batch) and shape[-1] > 0
    if not fits or (channels is not None and shape[2] not in (1, channels)):
        raise ValueError(f"{name} must be {expected}, got shape {shape}")
