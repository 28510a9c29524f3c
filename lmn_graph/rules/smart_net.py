"""Columns that step by themselves and then look at each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.registry import did_you_mean
from lmn_graph.rules._token_attention import TokenAttention
from lmn_graph.rules.base import RULES, State, UpdateRule


class ColumnParameters(NamedTuple):
    """What a step needs: the prepared parameters of the rule inside the columns."""

    inner: Any


@RULES.register
class SmartNet(UpdateRule):
    r"""Columns, each of which steps a rule of its own, and self-attention between them after every step ("at each depth"),

    .. math:: h = \mathrm{rule}(x, drive), \qquad
              x^{(c)} \leftarrow h^{(c)} + \textstyle\sum_{c'} A_{cc'}(h)\, V h^{(c')},

    where :math:`h^{(c)}` are the cells of column c. Nothing else passes between columns of ``topologies.columns``, which have no edges
    between them. The tokens of the attention are the columns, their features the cells of a column, through maps of low rank; the outward
    map starts at 0, so the columns start apart. A graph without columns is one column. The attention is the same at every step.

    Shapes: drive, activity and state are those of the rule inside. Messages pass in that rule, ``inner``: hooks on messages go there.

    Args:
        topology: the graph; its ``column`` [N] says which column a node is in, all of the same size.
        cell: the rule inside: a registered name, a class or a function of the graph; it must hold numbers ("RelativisticCA",
            "TanhLattice"), in the first field of its state.
        width: features of queries, keys and values; None for the smaller of the column's size and 32.
        heads: heads of the attention; must divide ``width``.

    Raises:
        ValueError: if an argument is out of range, the rule inside spikes or has channels, or columns differ in size.

    Source: SmartNet of the Lattice Machine Networks repository.
    """

    def __init__(
        self,
        topology: Data | Connectivity,
        *,
        cell: str | Callable[[Connectivity], UpdateRule] = "RelativisticCA",
        width: int | None = None,
        heads: int = 1,
    ) -> None:
        super().__init__(topology)
        if isinstance(cell, str) and cell not in RULES:
            raise ValueError(f"cell must be the name of a rule, got {cell!r}{did_you_mean(cell, list(RULES))}")
        make = RULES[cell] if isinstance(cell, str) else cell
        inner = make(self.connectivity) if callable(make) else None
        if not isinstance(inner, UpdateRule) or inner.spiking or inner.channels is not None:
            expected = "a rule of scalar cells that does not spike, such as 'RelativisticCA'"
            raise ValueError(f"cell must be the name or class of {expected}, got {cell!r}")
        if inner.connectivity is not self.connectivity:
            raise ValueError(f"cell must be bound to the graph that it is given, got one bound to {inner.connectivity}")
        self.inner = inner
        members = self._members()
        self.attention = TokenAttention(members.size(1), width=width, heads=heads)
        self.register_buffer("members", members, persistent=False)  # [columns, cells]: the nodes of every column
        self.register_buffer("place", torch.argsort(members.flatten()), persistent=False)

    members: Tensor
    place: Tensor

    def _members(self) -> Tensor:
        column = self.connectivity.column
        if column is None:
            return torch.arange(self.num_nodes, device=self.connectivity.rowptr.device)[None]
        sizes = column.unique(return_counts=True)[1]
        if int(sizes.min()) != int(sizes.max()):
            raise ValueError(f"topology.column must make columns of one size, got sizes {int(sizes.min())} to {int(sizes.max())}")
        return torch.argsort(column, stable=True).view(sizes.numel(), -1)

    def reset_parameters(self) -> None:
        """Put every parameter back to where a new rule has it; random ones are drawn anew."""
        super().reset_parameters()
        self.inner.reset_parameters()
        self.attention.reset_parameters()

    def learned_weight(self) -> Tensor | None:
        return self.inner.learned_weight()

    def initial_state(self, batch_size: int, *, graph: Connectivity | None = None) -> State:
        return self.inner.initial_state(batch_size, graph=graph)

    def prepare(self, context: Tensor | None = None, graph: Data | Connectivity | None = None) -> ColumnParameters:
        self.inner.reference, self.inner.compile = self.reference, self.compile
        return ColumnParameters(self.inner.prepare(context, None if graph is None else self.resolve(graph)))

    def step(self, p: ColumnParameters, state: State, drive: Tensor | None) -> tuple[State, Tensor]:
        state, h = self.inner.step(p.inner, state, drive)
        tokens = h.index_select(0, self.members.flatten()).view(*self.members.shape, -1).permute(2, 0, 1)
        mixed = self.attention(tokens).permute(1, 2, 0).flatten(0, 1).index_select(0, self.place)
        x = h + mixed
        # Losses on the dynamics follow the activity into the next step: it has to be the very tensor that the state holds.
        cells = x if state[0] is h else state[0] + mixed
        return state._replace(**{state._fields[0]: cells}), x

    def extra_repr(self) -> str:
        return f"cell={self.inner!r}, columns={self.members.size(0)}, attention=({self.attention.extra_repr()})"
