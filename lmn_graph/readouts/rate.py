"""A linear map of the mean activity."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.readouts.base import READOUTS, Readout
from topologies import _checks


@READOUTS.register
class Rate(Readout):
    r"""prediction = s · W · mean_{t > skip} activity_t + b.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a node while training.
        multiplier: s > 0, a fixed factor. The more nodes are read, the further one optimiser step moves their sum: with s ~ 1/N in place of
            a smaller learning rate, the rule and the projector keep theirs.

    Raises:
        ValueError: if an argument is out of range.

    Source: for the multiplier, G. Yang, E. J. Hu, "Feature learning in infinite-width neural networks", 2021.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        channels: int | None = None,
        ports: bool = True,
        skip: int = 0,
        dropout: float = 0.0,
        multiplier: float = 1.0,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        self.skip = _checks.integer("skip", skip, minimum=0, maximum=self.steps - 1)
        self.dropout = nn.Dropout(_checks.number("dropout", dropout, minimum=0.0, maximum=1.0))
        self.multiplier = _checks.number("multiplier", multiplier, above=0)
        self.linear = nn.Linear(self.num_read * (self.channels or 1), self.out_features)

    def read(self, activity: Tensor) -> Tensor:
        mean = self.dropout(activity[:, self.skip :].mean(1).flatten(1))
        return self.linear(mean if self.multiplier == 1 else self.multiplier * mean)

    def read_each(self, activity: Tensor) -> Tensor:
        """s · W · activity_t + b of every step: the prediction is their mean (dropout leaves out other nodes at every step).

        Raises:
            ValueError: if steps are skipped, which have no part in the prediction.
        """
        if self.skip:
            raise ValueError(f"readout.skip must be 0 for a prediction at every step, got {self.skip}")
        return self.linear(self.multiplier * self.dropout(activity.flatten(2)))
