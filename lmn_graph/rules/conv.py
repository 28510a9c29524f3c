"""A rule as a layer for plain PyG models."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.rules.base import UpdateRule
from topologies import _checks


class RuleConv(nn.Module):
    """``forward(x [N, F], edge_index, edge_weight=None) -> [N, F]``: T steps of a rule driven by the node features.

    The features are a constant drive. Where the rule has C channels, F must equal C; where its cells are scalar, every feature
    column is an independent run. A rule whose parameters are shared takes any graph; another takes only the one it is bound to.

    Args:
        rule: the update rule.
        steps: number of steps T >= 1.
        output: "mean" activity over the steps, or the "last" one.

    Raises:
        ValueError: if the features or the graph do not fit the rule.
    """

    def __init__(self, rule: UpdateRule, steps: int, output: Literal["mean", "last"] = "mean") -> None:
        super().__init__()
        if not isinstance(rule, UpdateRule):
            raise ValueError(f"rule must be an UpdateRule, got {type(rule).__name__}")
        self.rule = rule
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.output = _checks.choice("output", output, ("mean", "last"))
        self._seen: tuple[Tensor, Connectivity] | None = None  # the last graph, sorted once

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        if x.dim() != 2 or (self.rule.channels is not None and x.size(1) != self.rule.channels):
            raise ValueError(f"x must have shape [N, {self.rule.channels or 'F'}], got {tuple(x.shape)}")
        connectivity = self._connectivity(x, edge_index, edge_weight)
        if x.size(0) != connectivity.num_nodes:
            raise ValueError(f"x must have one row per node ({connectivity.num_nodes}), got {x.size(0)}")
        p = self.rule.prepare(None, connectivity)
        drive = x if self.rule.channels is None else x.unsqueeze(1)
        state = self.rule.initial_state(drive.size(1), graph=connectivity)
        state = type(state)(*(field.to(x.dtype) for field in state))
        total = torch.zeros_like(drive)
        activity = total
        for _ in range(self.steps):
            state, activity = self.rule.step(p, state, drive)
            total = total + activity
        return (total / self.steps if self.output == "mean" else activity).view(x.shape)

    def _connectivity(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None) -> Connectivity:
        bound = self.rule.connectivity
        if edge_weight is None and _has_edges(bound, edge_index):
            return bound
        if self._seen is None or self._seen[0] is not edge_index or self._seen[1].num_nodes != x.size(0):
            self._seen = (edge_index, self.rule.resolve(Data(edge_index=edge_index, num_nodes=x.size(0))))
        found = self._seen[1]
        return found if edge_weight is None else found.reweighted(edge_weight)

    def extra_repr(self) -> str:
        return f"steps={self.steps}, output={self.output!r}"


def _has_edges(connectivity: Connectivity, edge_index: Tensor) -> bool:
    """Whether these are the edges of the graph, in the order that it was given or in its own."""
    if edge_index.shape != connectivity.edge_index.shape:
        return False
    order = connectivity.permutation
    return torch.equal(edge_index, connectivity.edge_index) or (
        order is not None and torch.equal(edge_index[:, order], connectivity.edge_index)
    )


def as_conv(rule: UpdateRule, steps: int, output: Literal["mean", "last"] = "mean") -> RuleConv:
    """The rule as a PyG layer; see :class:`RuleConv`."""
    return RuleConv(rule, steps, output)
