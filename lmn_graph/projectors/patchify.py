"""Every patch of a picture drives its own part of the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from lmn_graph.connectivity import lattice_shape
from lmn_graph.projectors._heads import GroupedFactors
from lmn_graph.projectors._patch_tokens import PatchGrid
from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class Patchify(Projector):
    r"""Every patch drives the nodes that lie where it lies, through one linear map that all patches share.

    On a lattice the rows of patches are spread over the first axis and the columns over the second (over the first alone, in reading
    order, where there is one axis); a cell at place s within its part gets

    .. math:: drive_n = (E\, patch_{g(n)})_{s(n)} + b_n .

    On a graph without lattice shape, or one that is driven at its input ports, nodes are divided in their order and have learned factors:
    :math:`drive_n = \langle factor_n, E\, patch_{g(n)} \rangle + b_n`. Where there are more patches than parts, neighbouring ones are
    averaged after E. The patches are a view of the picture, on its device.

    Args:
        in_shape: (height, width), grey; (C, height, width); or (rows, columns, C, p, p), pictures that are cut already.
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        patch: side of a patch in pixels; a last one that is not full is filled up with zeros. None: 8, or that of pictures that are cut
            already, of which it must not be another.
        width: features of E where nodes have factors.
        gain: scale of the initial E, > 0.

    Raises:
        ValueError: if ``in_shape`` is not that of pictures or an argument is out of range.

    Source: the patchify projector of the Lattice Machine Networks repository.
    """

    place: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        patch: int | None = None,
        width: int = 32,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        self.patches = PatchGrid(self.in_shape, patch)
        self.gain = _checks.number("gain", gain, above=0)
        shape = lattice_shape(topology) if self.input_index is None else None
        self.in_order = shape is None or len(shape) == 1  # patches follow each other; else they lie in rows and columns
        self.nodes: GroupedFactors | None = None
        if shape is None:
            self.parts: tuple[int, int] = (1, min(self.patches.count, self.num_driven))
            self.nodes = GroupedFactors(self.parts[1], _checks.integer("width", width, minimum=1), self.num_driven, self.channels)
            self.embedding = nn.Linear(self.patches.features, width)
        else:
            if len(shape) == 1:
                self.parts = (min(self.patches.count, shape[0]), 1)
            else:
                self.parts = (min(self.patches.rows, shape[0]), min(self.patches.columns, shape[1]))
            group = _spread(shape, self.parts)
            slot = _rank(group)
            slots = int(slot.max()) + 1
            self.register_buffer("place", group * slots + slot, persistent=False)
            self.embedding = nn.Linear(self.patches.features, slots * (self.channels or 1), bias=False)
            self.bias = nn.Parameter(torch.empty(self.num_nodes, *([] if self.channels is None else [self.channels])))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew; biases are zero."""
        nn.init.normal_(self.embedding.weight, std=self.gain / math.sqrt(self.patches.features))
        if self.nodes is None:
            nn.init.zeros_(self.bias)
        else:
            nn.init.zeros_(self.embedding.bias)
            self.nodes.reset_parameters()

    def project(self, x: Tensor) -> Tensor:
        tokens = self._pooled(self.embedding(self.patches(x)))
        if self.nodes is not None:
            return self.nodes(tokens)
        drive = tokens.flatten(1) if self.channels is None else tokens.unflatten(2, (-1, self.channels)).flatten(1, 2)
        return drive.index_select(1, self.place) + self.bias

    def _pooled(self, tokens: Tensor) -> Tensor:
        """[B, patches, D] as [B, parts, D], neighbouring patches averaged where there are too many."""
        rows, columns = self.parts
        if rows * columns == self.patches.count:
            return tokens
        planes = tokens.transpose(1, 2)
        if self.in_order:
            return functional.adaptive_avg_pool1d(planes, rows * columns).transpose(1, 2)
        grid = planes.unflatten(2, (self.patches.rows, self.patches.columns))
        return functional.adaptive_avg_pool2d(grid, self.parts).flatten(2).transpose(1, 2)


def _spread(shape: tuple[int, ...], parts: tuple[int, int]) -> Tensor:
    """The part of every cell of a lattice, int64 [N]: its first axis in ``parts[0]`` pieces, its second in ``parts[1]``."""
    cells = math.prod(shape)
    at = torch.unravel_index(torch.arange(cells), shape)
    row = at[0] * parts[0] // shape[0]
    return row if len(shape) == 1 else row * parts[1] + at[1] * parts[1] // shape[1]


def _rank(group: Tensor) -> Tensor:
    """How many nodes of the same group come before each."""
    order = group.argsort(stable=True)
    sizes = group.bincount()
    within = torch.arange(group.numel()) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(group).scatter_(0, order, within)
