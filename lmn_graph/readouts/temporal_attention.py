"""A learned query attends to the steps."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.attention import QueryAttention
from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class TemporalAttention(Attending):
    r"""A learned query attends to the steps,

    .. math:: h_t = \mathrm{norm}(M x_t + m) + p_t, \quad share_t = \mathrm{softmax}_t(q \cdot K h_t / \sqrt{d}), \quad
              prediction = W\, \mathrm{norm}\Big(\sum_t share_t\, V h_t\Big) + W' \bar x + b,

    in H heads of d = D / H features side by side, with learned positions p of the steps (:class:`lmn_graph.attention.QueryAttention`).

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, out_features]. The largest tensors that are made are the features of the
    steps and their keys and values, [B, T, D] each.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        width: D >= 2, features of a step.
        heads: H, attention heads; must divide ``width``.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training.
        direct: also add a linear map W' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: the temporal attention readout of the Lattice Machine Networks repository; a learned query as in Z. Yang et al., "Hierarchical
    attention networks for document classification", 2016.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        skip: int = 0,
        dropout: float = 0.0,
        direct: bool = True,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        width = _checks.integer("width", width, minimum=2)
        super().__init__(
            topology, out_features, steps, features=width, skip=skip, dropout=dropout, direct=direct, channels=channels, ports=ports
        )
        self.map = nn.Linear(self.num_read * (self.channels or 1), width)
        self.attend = QueryAttention(width, self.steps - self.skip, heads=heads)

    def shares(self, activity: Tensor) -> Tensor:
        """[B, H, T - skip]; the sum over the steps is 1."""
        return self.attend.shares(self._tokens(activity))[:, :, 0, :, 0]

    def features(self, activity: Tensor) -> Tensor:
        return self.attend(self._tokens(activity)).squeeze(1)

    def _tokens(self, activity: Tensor) -> Tensor:
        """One token for every step, [B, T, 1, D]."""
        return self.map(activity.flatten(2)).unsqueeze(2)
