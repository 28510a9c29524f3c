"""Attention over the cells of a graph and over the steps of its history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.data import Data

from lmn_graph.embeddings import CellEmbedding, FactoredCellEmbedding
from topologies import _checks

Identity = Literal["cell", "axes"]


class CellMemory(nn.Module):
    r"""Keys and values of cells, from who they are and what they hold, for each of H heads of d = D / H features:

    .. math:: key_{tn} = K e_n + A x_{tn}, \quad value_{tn} = (1 + g \cdot x_{tn})\, V e_n + U x_{tn},

    with the identity e_n of a cell and its activity x_tn, C numbers. Both are affine in the activity, so neither is ever made: scores are
    :math:`q \cdot K e_n + (A^\top q) \cdot x_{tn}`, and what is read with shares s is
    :math:`\sum_n s_{tn} (1 + g \cdot x_{tn})\, V e_n + U \sum_n s_{tn} x_{tn}`. Nothing is larger than the scores.

    Args:
        topology: the graph whose cells are attended to.
        width: D, features of keys and values in all heads together, and of the identities.
        heads: H >= 1; must divide D.
        channels: C, or None for scalar cells.
        identity: "cell" learns one identity per cell, "axes" one row per axis value of a lattice (or of ``cell_factors``), which cells
            add up.
        index: int64 [P], the cells that are attended to; None for all of them.

    Raises:
        ValueError: if a size is not a positive integer, ``heads`` does not divide ``width``, or ``identity`` is "axes" on a graph that
            has none.
    """

    index: Tensor | None

    def __init__(
        self,
        topology: Data,
        width: int,
        *,
        heads: int = 1,
        channels: int | None = None,
        identity: Identity = "cell",
        index: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.width, self.heads = split_heads("width", width, heads)
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)
        _checks.choice("identity", identity, get_args(Identity))
        kept = topology
        if index is not None and identity != "axes":  # identities of the cells that are attended to, and of no others
            kept, index = Data(num_nodes=index.numel()), None
        self.identity = FactoredCellEmbedding(kept, width) if identity == "axes" else CellEmbedding(kept, width)
        self.register_buffer("index", index, persistent=False)
        self.num_cells = self.identity.num_nodes if index is None else index.numel()
        inputs = self.channels or 1
        self.key = nn.Parameter(torch.empty(self.width, self.width))  # K
        self.key_of_activity = nn.Parameter(torch.empty(inputs, self.width))  # A
        self.value = nn.Parameter(torch.empty(self.width, self.width))  # V
        self.value_of_activity = nn.Parameter(torch.empty(inputs, self.width))  # U
        self.gain = nn.Parameter(torch.empty(inputs, self.heads))  # g
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw identities, and maps that keep unit variance."""
        self.identity.reset_parameters()
        for parameter in (self.key, self.key_of_activity, self.value, self.value_of_activity, self.gain):
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter.size(0)))

    def identities(self) -> Tensor:
        """e, [P, D]."""
        found = self.identity()
        return found if self.index is None else found.index_select(0, self.index)

    def scores(self, query: Tensor, activity: Tensor) -> Tensor:
        """The scaled products of queries and keys.

        Args:
            query: [M, D], or [B, M, D] for queries of every sample.
            activity: [B, T, P] or [B, T, P, C].

        Returns:
            [B, T, M, H, P].
        """
        query = query.unflatten(-1, (self.heads, -1)) / math.sqrt(self.width // self.heads)
        key = (self.identities() @ self.key).unflatten(1, (self.heads, -1))
        of_cell = torch.einsum("...mhd,phd->...mhp", query, key)
        of_activity = torch.einsum("...mhd,chd->...mhc", query, self.key_of_activity.unflatten(1, (self.heads, -1)))
        if query.dim() == 4:  # every sample's queries meet all its steps
            of_cell, of_activity = of_cell.unsqueeze(1), of_activity.unsqueeze(1)
        if self.channels is None:
            return torch.addcmul(of_cell, of_activity, activity[:, :, None, None])
        held = activity.transpose(2, 3)
        return of_cell + (of_activity.flatten(-3, -2) @ held).unflatten(2, (-1, self.heads))

    def read(self, share: Tensor, activity: Tensor) -> Tensor:
        """The sum of the values, each with its share.

        Args:
            share: [B, T, M, H, P].
            activity: [B, T, P] or [B, T, P, C].

        Returns:
            [B, T, M, D].
        """
        held = activity.unsqueeze(-1) if self.channels is None else activity
        value = (self.identities() @ self.value).unflatten(1, (self.heads, -1))
        gain = 1 + (held @ self.gain).transpose(2, 3)  # [B, T, H, P]
        of_cell = torch.einsum("btmhp,phd->btmhd", share * gain.unsqueeze(2), value)
        seen = (share.flatten(2, 3) @ held).unflatten(2, (-1, self.heads))  # [B, T, M, H, C]
        of_activity = torch.einsum("btmhc,chd->btmhd", seen, self.value_of_activity.unflatten(1, (self.heads, -1)))
        return (of_cell + of_activity).flatten(3)

    def extra_repr(self) -> str:
        return f"{self.num_cells}, width={self.width}, heads={self.heads}, channels={self.channels}"


class SpatialAttention(nn.Module):
    r"""Learned queries attend to the cells of every step,

    .. math:: token_{tm} = \sum_n \mathrm{softmax}_n(q_m \cdot key_{tn} / \sqrt{d})\, value_{tn},

    in H heads of d = D / H features side by side, with the keys and values of :class:`CellMemory`. [B, T, P] (or [B, T, P, C]) becomes
    [B, T, M, D]; the largest tensor on the way is the shares, [B, T, M, H, P].

    Args:
        topology: the graph whose cells are attended to.
        width: D.
        queries: M >= 1, the number of tokens per step.
        heads: H >= 1; must divide D.
        channels: C, or None for scalar cells.
        identity: what a cell is told apart by: "cell" or "axes", as in :class:`CellMemory`.
        index: int64 [P], the cells that are attended to; None for all of them.

    Raises:
        ValueError: if a size is not a positive integer, ``heads`` does not divide ``width``, or ``identity`` is "axes" on a graph that
            has none.

    Source: Vaswani et al., "Attention is all you need", 2017; learned queries as in J. Lee et al., "Set Transformer", 2019.
    """

    def __init__(
        self,
        topology: Data,
        width: int,
        *,
        queries: int = 1,
        heads: int = 1,
        channels: int | None = None,
        identity: Identity = "cell",
        index: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.memory = CellMemory(topology, width, heads=heads, channels=channels, identity=identity, index=index)
        self.query = nn.Parameter(torch.empty(_checks.integer("queries", queries, minimum=1), self.memory.width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw queries of unit variance, and the cells' identities and maps."""
        nn.init.normal_(self.query)
        self.memory.reset_parameters()

    def shares(self, activity: Tensor) -> Tensor:
        """The attention of every query and head, [B, T, M, H, P]; its sum over the cells is 1."""
        return torch.softmax(self.memory.scores(self.query, activity), dim=-1)

    def forward(self, activity: Tensor) -> Tensor:
        return self.memory.read(self.shares(activity), activity)


class TemporalAttention(nn.Module):
    r"""Steps that attend to each other, [B, T, D] → [B, T, D]: x + position, then per layer

    .. math:: x \leftarrow x + \mathrm{Attention}(\mathrm{norm}(x)), \quad x \leftarrow x + \mathrm{MLP}(\mathrm{norm}(x)) .

    Args:
        width: D.
        steps: T, each with a learned position.
        layers: >= 0; 0 leaves the positions alone.
        heads: must divide D.
        dropout: dropout inside the layers.

    Raises:
        ValueError: if a size is out of range or ``heads`` does not divide ``width``.

    Source: Vaswani et al., "Attention is all you need", 2017; normalised first as in R. Xiong et al., "On layer normalization in the
    transformer architecture", 2020.
    """

    def __init__(self, width: int, steps: int, *, layers: int = 1, heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.width, self.heads = split_heads("width", width, heads)
        self.steps = _checks.integer("steps", steps, minimum=1)
        dropout = _checks.number("dropout", dropout, minimum=0.0, maximum=1.0)
        self.position = nn.Parameter(torch.empty(self.steps, self.width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(self.width, self.heads, 2 * self.width, dropout, batch_first=True, norm_first=True)
            for _ in range(_checks.integer("layers", layers, minimum=0))
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions anew."""
        nn.init.normal_(self.position, std=0.02)

    def forward(self, series: Tensor) -> Tensor:
        series = series + self.position
        with sdpa_kernel(SDPBackend.MATH):  # the fused forms have no second derivative
            for layer in self.layers:
                series = layer(series)
        return series


class QueryAttention(nn.Module):
    r"""M learned queries attend to the tokens of a history, S for each of T steps, [B, T, S, D] → [B, M, D]:

    .. math:: u_{ts} = \mathrm{norm}(token_{ts}) + p_t, \quad share_{m,ts} = \mathrm{softmax}_{ts}(q_m \cdot K u_{ts} / \sqrt{d}), \quad
              found_m = \mathrm{norm}\Big(\sum_{ts} share_{m,ts}\, V u_{ts}\Big),

    in H heads of d = D / H features side by side, with learned positions p of the steps. The largest tensors that are made are the shares,
    [B, H, M, T·S], and keys and values of the tokens.

    Args:
        width: D.
        steps: T.
        queries: M >= 1.
        heads: H; must divide D.

    Raises:
        ValueError: if a size is not a positive integer or ``heads`` does not divide ``width``.

    Source: Vaswani et al., "Attention is all you need", 2017; learned queries as in J. Lee et al., "Set Transformer", 2019.
    """

    def __init__(self, width: int, steps: int, *, queries: int = 1, heads: int = 1) -> None:
        super().__init__()
        self.width, self.heads = split_heads("width", width, heads)
        self.norm = nn.LayerNorm(self.width)
        self.position = nn.Parameter(torch.empty(_checks.integer("steps", steps, minimum=1), self.width))
        self.query = nn.Parameter(torch.empty(_checks.integer("queries", queries, minimum=1), self.width))
        self.key = nn.Linear(self.width, self.width, bias=False)  # one constant for all tokens changes no share
        self.value = nn.Linear(self.width, self.width)
        self.last_norm = nn.LayerNorm(self.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw queries of unit variance and small positions."""
        nn.init.normal_(self.query)
        nn.init.normal_(self.position, std=0.02)

    def shares(self, tokens: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """How much of every token a query takes, [B, H, M, T, S], of all queries or of those that are chosen; the sum over T and S is 1."""
        query = self.query if chosen is None else self.query[list(chosen)]
        return self._shares(self._series(tokens), query).unflatten(3, tokens.shape[1:3])

    def forward(self, tokens: Tensor) -> Tensor:
        series = self._series(tokens)
        value = self.value(series).unflatten(-1, (self.heads, -1))
        return self.last_norm(torch.einsum("bhmn,bnhd->bmhd", self._shares(series, self.query), value).flatten(2))

    def _series(self, tokens: Tensor) -> Tensor:
        """u, [B, T·S, D]."""
        return (self.norm(tokens) + self.position.unsqueeze(1)).flatten(1, 2)

    def _shares(self, series: Tensor, query: Tensor) -> Tensor:
        query, key = (x.unflatten(-1, (self.heads, -1)) for x in (query, self.key(series)))
        return torch.softmax(torch.einsum("mhd,bnhd->bhmn", query, key) / math.sqrt(query.size(-1)), dim=-1)


def split_heads(name: str, width: int, heads: int) -> tuple[int, int]:
    """The checked width and number of heads.

    Raises:
        ValueError: if one is not a positive integer, or ``heads`` does not divide the width, which ``name`` calls by its name.
    """
    width = _checks.integer(name, width, minimum=1)
    if width % _checks.integer("heads", heads, minimum=1):
        raise ValueError(f"heads must divide {name} ({width}), got {heads}")
    return width, int(heads)
