"""Memory tokens: what passes from one window of a stream to the next in place of the state of every cell."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.registry import Registry
from topologies import _checks


class Memory(NamedTuple):
    """What is remembered: value [D, B]."""

    value: Tensor


class MemoryToken(nn.Module):
    r"""A vector m that is read before the first item of a window and written after its last:

    .. math:: drive_{-1} = R\, m + r, \qquad m' = \mathrm{GRU}(\overline{activity}, m),

    the activity being the mean over the steps of the last item. The cells start every window from their initial state, driven by the
    memory for as many steps as an item has: all that a window knows of those before it is in D numbers. m = 0 at the start of a document.

    Args:
        topology: the graph that is run.
        channels: None for scalar cells, else C.
        width: D.

    Raises:
        ValueError: if ``width`` is below 1.

    Source: A. Bulatov, Y. Kuratov, M. Burtsev, "Recurrent memory transformer", 2022, where one token is in place of the GRU's vector.
    """

    def __init__(self, topology: Data, *, channels: int | None = None, width: int = 64) -> None:
        super().__init__()
        self.num_nodes = _checks.integer("topology.num_nodes", getattr(topology, "num_nodes", None), minimum=1)
        self.channels = channels
        self.width = _checks.integer("width", width, minimum=1)
        cells = self.num_nodes * (channels or 1)
        self.reading = nn.Linear(self.width, cells)
        self.writing = nn.GRUCell(cells, self.width)

    def initial(self, batch_size: int) -> Memory:
        """No memory."""
        return Memory(self.reading.weight.new_zeros(self.width, batch_size))

    def read(self, memory: Memory) -> Tensor:
        """The drive that stands for the windows before, [B, N(, C)]."""
        drive = self.reading(memory.value.t())
        return drive if self.channels is None else drive.unflatten(1, (self.num_nodes, self.channels))

    def write(self, memory: Memory, activity: Tensor) -> Memory:
        """The memory after an item of activity [B, T, N(, C)]."""
        return Memory(self.writing(activity.mean(1).flatten(1), memory.value.t()).t())

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.reading.reset_parameters()
        self.writing.reset_parameters()

    def extra_repr(self) -> str:
        return f"width={self.width}"


MEMORY: Registry[type[MemoryToken]] = Registry("memory", MemoryToken)
MEMORY.register(MemoryToken)
