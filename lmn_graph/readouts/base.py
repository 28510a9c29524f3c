"""What every readout shares: from the history of a graph to a prediction."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._reset import reset_parts
from lmn_graph.ports import ports_of
from lmn_graph.registry import Registry
from topologies import _checks


class Readout(nn.Module):
    """Maps an activity ``[B, T, N]`` (``[B, T, N, C]`` with channels) to a prediction ``[B, out_features]``.

    A topology with output ports is read there only, in the order of its ``output_index``.

    Attributes:
        num_nodes: N.
        num_read: P, the number of nodes that :meth:`read` gets: the output ports, or all nodes.
        paths: arguments that name files; a run keeps them with their full paths.
        stored_vectors: where the state holds what the file ``vectors`` gave, so that a finished run does not need it again.
        additive: whether the prediction is the sum over time of :meth:`each`: then it can be added up as the steps come.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T, the number of steps of the history.
        channels: None for scalar cells, else C.
        ports: False reads every node, ports or not.

    Raises:
        ValueError: if a size is not a positive integer, or ``output_index`` does not hold distinct node ids.
    """

    output_index: Tensor | None
    paths: ClassVar[tuple[str, ...]] = ()
    stored_vectors: ClassVar[str | None] = None
    additive: ClassVar[bool] = False

    def __init__(self, topology: Data, out_features: int, steps: int, *, channels: int | None = None, ports: bool = True) -> None:
        super().__init__()
        self.num_nodes = _checks.integer("topology.num_nodes", getattr(topology, "num_nodes", None), minimum=1)
        self.out_features = _checks.integer("out_features", out_features, minimum=1)
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.channels = None if channels is None else _checks.integer("channels", channels, minimum=1)
        self.register_buffer("output_index", ports_of(topology, "output_index", ports), persistent=False)
        self.num_read = self.num_nodes if self.output_index is None else self.output_index.numel()

    def forward(self, activity: Tensor) -> Tensor:
        """Check the history and :meth:`read` it."""
        return self.read(self.heard(activity))

    def each(self, activity: Tensor) -> Tensor:
        """The prediction of every single step for a history as :meth:`forward` takes it, [B, T, K], for a loss at every step.

        Raises:
            ValueError: from a readout that needs the whole history for a prediction, as all do that do not define :meth:`read_each`.
        """
        return self.read_each(self.heard(activity))

    def heard(self, activity: Tensor) -> Tensor:
        """The checked history of the nodes which are read, [B, T, P(, C)]; a ValueError for one of another shape."""
        tail = (self.steps, self.num_nodes) if self.channels is None else (self.steps, self.num_nodes, self.channels)
        if not isinstance(activity, Tensor) or tuple(activity.shape[1:]) != tail:
            got = tuple(activity.shape) if isinstance(activity, Tensor) else type(activity).__name__
            raise ValueError(f"activity must have shape [B, {', '.join(map(str, tail))}], got {got}")
        return activity if self.output_index is None else activity.index_select(2, self.output_index)

    def reset_parameters(self) -> None:
        """Draw the parameters of all parts anew; a readout with parameters of its own draws these after."""
        reset_parts(self)

    @abstractmethod
    def read(self, activity: Tensor) -> Tensor:
        """The prediction for a checked history, [B, T, P(, C)]: that of the nodes which are read."""

    def read_each(self, activity: Tensor) -> Tensor:
        """:meth:`each` for a checked history of any length, [B, t, P(, C)] → [B, t, K]."""
        raise ValueError(f"readout must be one such as Shoreline or Rate here: {type(self).__name__} gives no prediction at every step")


READOUTS: Registry[type[Readout]] = Registry("readout", Readout)
