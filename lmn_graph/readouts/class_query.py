"""A learned query of every class attends to the history."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.attention import Identity, QueryAttention, SpatialAttention
from lmn_graph.readouts._attending import Attending
from lmn_graph.readouts.base import READOUTS
from topologies import _checks


@READOUTS.register
class ClassQuery(Attending):
    r"""Every class asks the history with a query of its own,

    .. math:: u_{ts} = \mathrm{norm}(\mathrm{SpatialAttention}(x_t)_s) + p_t, \quad
              share_{k,ts} = \mathrm{softmax}_{ts}(q_k \cdot K u_{ts} / \sqrt{d}), \quad
              prediction_k = w_k \cdot \mathrm{norm}\Big(\sum_{ts} share_{k,ts}\, V u_{ts}\Big) + W'_k \cdot \bar x + b_k,

    in H heads of d = D / H features side by side: S tokens of every step by :class:`lmn_graph.attention.SpatialAttention`, to which a query
    per class attends (:class:`lmn_graph.attention.QueryAttention`). A regression target is read as a class is.

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, K]. The largest tensors that are made are the shares of the cells
    [B, T, S, H, N] and of the tokens [B, H, K, T·S], and what the classes took, [B, K, D].

    Args:
        topology: the graph that was run.
        out_features: K, number of classes or of regression targets.
        steps: T.
        width: D >= 2, features of a token.
        heads: H, attention heads over the cells and over the tokens; must divide ``width``.
        tokens: S, the number of tokens per step.
        identity: "cell" for one learned identity per cell, "axes" for one learned row per axis value of a lattice.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature, or a node of the direct path, while training.
        direct: also add a linear map W' of the mean activity.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range or ``heads`` does not divide ``width``.

    Source: class-query cross-attention over the history in the Lattice Machine Networks repository; a query per class as in H. Touvron et
    al., "Going deeper with image transformers", 2021, and S. Liu et al., "Query2Label", 2021.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        width: int = 32,
        heads: int = 4,
        tokens: int = 2,
        identity: Identity = "cell",
        skip: int = 0,
        dropout: float = 0.0,
        direct: bool = True,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        width, tokens = _checks.integer("width", width, minimum=2), _checks.integer("tokens", tokens, minimum=1)
        super().__init__(
            topology, out_features, steps, features=width, skip=skip, dropout=dropout, direct=direct, channels=channels, ports=ports
        )
        self.spatial = SpatialAttention(
            topology, width, queries=tokens, heads=heads, channels=channels, identity=identity, index=self.output_index
        )
        self.attend = QueryAttention(width, self.steps - self.skip, queries=self.out_features, heads=heads)

    def attention(self, activity: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        r"""Which cells the classes attended to and when: :math:`\sum_s share_{k,ts}\, share_{ts,n}`, the heads averaged, for pictures.

        Args:
            activity: [B, T, N] or [B, T, N, C].
            classes: those that are wanted; None for all K, whose maps may be large.

        Returns:
            [B, len(classes), T - skip, P]; the sum over the steps and the P cells that are read is 1.

        Raises:
            ValueError: if the history has another shape, or there is no such class.
        """
        if classes is not None:
            classes = [_checks.integer("classes", k, minimum=0, maximum=self.out_features - 1) for k in classes]
        return self._rollout(self.heard(activity)[:, self.skip :], classes)

    def shares(self, activity: Tensor) -> Tensor:
        """[B, K, T - skip, P]; the sum over the steps and the P cells that are read is 1."""
        return self._rollout(activity, None)

    def features(self, activity: Tensor) -> Tensor:
        """What every class took from the history, [B, K, D]."""
        return self.attend(self.spatial(activity))

    def decode(self, features: Tensor) -> Tensor:
        """Every class has a weight per feature and a bias: [B, K, D] → [B, K]."""
        return torch.einsum("bkd,kd->bk", features, self.linear.weight) + self.linear.bias

    def _rollout(self, activity: Tensor, classes: Sequence[int] | None) -> Tensor:
        of_cell = self.spatial.shares(activity)  # [B, T, S, H, P]
        of_class = self.attend.shares(self.spatial.memory.read(of_cell, activity), classes).mean(1)
        return torch.einsum("bkts,btsp->bktp", of_class, of_cell.mean(3))
