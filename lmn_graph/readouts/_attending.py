"""What the readouts that attend share: their features beside the mean activity, and their attention as a picture."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.readouts.base import Readout
from topologies import _checks


class Attending(Readout):
    """prediction = W norm(features) + W' mean activity + b, the second term only where ``direct``; see the readouts for the features.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        features: number of features of a sample.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training.
        direct: add a linear map of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        features: int,
        skip: int,
        dropout: float,
        direct: bool,
        channels: int | None,
        ports: bool,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        self.skip = _checks.integer("skip", skip, minimum=0, maximum=self.steps - 1)
        self.dropout = nn.Dropout(_checks.number("dropout", dropout, minimum=0.0, maximum=1.0))
        self.linear = nn.Linear(features, self.out_features)
        wide = self.num_read * (self.channels or 1)
        self.direct = nn.Linear(wide, self.out_features, bias=False) if _checks.flag("direct", direct) else None

    def attention(self, activity: Tensor) -> Tensor:
        """Who is attended to: the :meth:`shares` of the cells in a history [B, T, N] (or [B, T, N, C]), for pictures.

        Raises:
            ValueError: if the history has another shape.
        """
        return self.shares(self.heard(activity)[:, self.skip :])

    @abstractmethod
    def shares(self, activity: Tensor) -> Tensor:
        """The shares for a checked history of the steps after ``skip`` and the nodes which are read."""

    @abstractmethod
    def features(self, activity: Tensor) -> Tensor:
        """The features [B, F] for a checked history of the steps after ``skip`` and the nodes which are read."""

    def decode(self, features: Tensor) -> Tensor:
        """W features + b."""
        return self.linear(features)

    def read(self, activity: Tensor) -> Tensor:
        activity = activity[:, self.skip :]
        prediction = self.decode(self.dropout(self.features(activity)))
        return prediction if self.direct is None else prediction + self.direct(self.dropout(activity.mean(1).flatten(1)))
