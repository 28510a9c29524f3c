"""From features of a sample to the drive of the nodes: the last part of projectors that encode first."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.projectors.base import Projector
from lmn_graph.projectors.cp_tensor import CPTensor
from lmn_graph.projectors.linear import Linear
from lmn_graph.projectors.low_rank import LowRank
from topologies import _checks

Head = Literal["linear", "low-rank", "cp"]
HEADS = ("linear", "low-rank", "cp")


def make_head(kind: Head, features: int, topology: Data, *, rank: int, channels: int | None, ports: bool) -> Projector:
    """A projector for vectors of ``features`` numbers: one linear map, one of rank R, or canonical polyadic factors per lattice axis.

    Raises:
        ValueError: if an argument is out of range.
    """
    _checks.choice("head", kind, HEADS)
    rank = _checks.integer("rank", rank, minimum=1)
    shared: dict[str, Any] = {"channels": channels, "ports": ports}
    if kind == "linear":
        return Linear((features,), topology, **shared)
    return (LowRank if kind == "low-rank" else CPTensor)((features,), topology, rank=rank, **shared)


class GroupedFactors(nn.Module):
    r"""drive_n = ⟨factor_n, token_{g(n)}⟩ + b_n: every token drives a group of nodes, each through a learned factor of its own.

    Nodes are grouped in their order, g(n) = ⌊n·M/P⌋.

    Args:
        tokens: M <= P.
        width: D, features of a token.
        nodes: P.
        channels: None for scalar cells, else C.
    """

    place: Tensor

    def __init__(self, tokens: int, width: int, nodes: int, channels: int | None) -> None:
        super().__init__()
        self.nodes, self.channels = nodes, channels
        group = torch.arange(nodes) * tokens // nodes
        first = torch.searchsorted(group, torch.arange(tokens))
        largest = int(group.bincount().max())
        self.register_buffer("place", group * largest + torch.arange(nodes) - first[group], persistent=False)
        self.factor = nn.Parameter(torch.empty(tokens, width, largest * (channels or 1)))
        self.bias = nn.Parameter(torch.empty(nodes, *([] if channels is None else [channels])))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw factors that give tokens of unit variance a drive with a standard deviation of one half."""
        nn.init.normal_(self.factor, std=0.5 / math.sqrt(self.factor.size(1)))
        nn.init.zeros_(self.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, M, D] → [B, P(, C)]."""
        drive = torch.bmm(tokens.transpose(0, 1), self.factor).transpose(0, 1)
        drive = drive.flatten(1) if self.channels is None else drive.unflatten(2, (-1, self.channels)).flatten(1, 2)
        return drive.index_select(1, self.place) + self.bias
