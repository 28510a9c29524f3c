"""The output ports vote for classes, with no parameters at all."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Data

from lmn_graph.readouts.base import READOUTS, Readout
from topologies import _checks


@READOUTS.register
class Shoreline(Readout):
    r"""The activity of the nodes themselves, summed over time,

    .. math:: prediction_k = s \sum_t \sum_{p \equiv k \bmod K} activity_{t, p}, \qquad p = 0 \dots P - 1,

    so that node k of the K that are read is class k, and of more than K nodes every K-th votes for the same class: on
    ``topologies.raster(rows, K, output_rows=m)`` the m last cells of a column. There is nothing to learn here; the rule has to bring the
    classes to the shore. Channels are added up.

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, K].

    Args:
        topology: the graph that was run.
        out_features: K, number of classes or of regression targets, at most P.
        steps: T.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.
        multiplier: s > 0.

    Raises:
        ValueError: if an argument is out of range, or fewer than K nodes are read.

    Source: the summed readout of grid-neurons (github.com/ThomasPluck/grid-neurons).
    """

    additive = True

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        channels: int | None = None,
        ports: bool = True,
        multiplier: float = 1.0,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        if self.num_read < self.out_features:
            raise ValueError(
                f"out_features must be at most {self.num_read}, the number of nodes that Shoreline reads, got {self.out_features}"
            )
        self.multiplier = _checks.number("multiplier", multiplier, above=0)

    def read(self, activity: Tensor) -> Tensor:
        return self.read_each(activity.sum(1))

    def read_each(self, activity: Tensor) -> Tensor:
        """The summand of every step, [B, t, P(, C)] → [B, t, K]: the prediction is their sum."""
        values = activity if self.channels is None else activity.sum(-1)
        values = functional.pad(values, (0, -self.num_read % self.out_features))
        return self.multiplier * values.unflatten(-1, (-1, self.out_features)).sum(-2)

    def extra_repr(self) -> str:
        return f"{self.num_read} → {self.out_features}, multiplier={self.multiplier:g}"
