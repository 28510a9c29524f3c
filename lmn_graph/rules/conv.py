"""A rule as a layer for plain PyG models."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._precision import full_precision, is_autocast, widened
from lmn_graph.connectivity import Connectivity
from lmn_graph.rules.base import UpdateRule
from topologies import _checks


class RuleConv(nn.Module):
    """``forward(x [N, F], edge_index, edge_weight=None) -> [N, F]``: T steps of a rule driven by the node features.

    The features are a constant drive. Where the rule has C channels, F must equal C; where its cells are scalar, every feature
    column is an independent run. A rule whose parameters are shared takes any graph, with ``edge_weight`` (1 where it is not
    given) times the rule's gain; another takes only the graph it is bound to, its edges in any order, and has weights of its own.

    ``edge_index`` may also be a sparse adjacency with row = target (``adj_t``), a torch sparse tensor or a ``torch_sparse.SparseTensor``;
    dense indices are sorted once and remembered, a sparse adjacency is read at
    every call, its values without gradient.

    A node hears its neighbours one step after they became active. Of a spiking rule, which reads spikes before it integrates,
    activity t depends on nodes up to t − 2 hops away: use at least 3 steps.

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
        if rule.context_dim:
            raise ValueError(f"rule must need no context, got {type(rule).__name__} with context_dim={rule.context_dim}: a layer has none")
        self.rule = rule
        self.steps = _checks.integer("steps", steps, minimum=1)
        self.output = _checks.choice("output", output, ("mean", "last"))
        self._seen: tuple[Tensor, int, Connectivity] | None = None  # the last graph and its version, sorted once

    def reset_parameters(self) -> None:
        """Reset the rule's parameters."""
        self.rule.reset_parameters()

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() != 2 or (self.rule.channels is not None and x.size(1) != self.rule.channels):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must have shape [N, {self.rule.channels or 'F'}], got {got}")
        if not x.is_floating_point():
            raise ValueError(f"x must be of floating point, got {x.dtype}")
        if is_autocast(x.device):
            with full_precision(x.device):
                return self(widened(x), edge_index, widened(edge_weight))
        connectivity = self._connectivity(x, edge_index, edge_weight)
        p = self.rule.prepare(None, connectivity)
        drive = x if self.rule.channels is None else x.unsqueeze(1)
        state = self.rule.initial_state(drive.size(1), graph=connectivity)
        state = type(state)(*(field.to(torch.promote_types(field.dtype, x.dtype)) for field in state))
        total = torch.zeros_like(drive)
        activity = total
        for _ in range(self.steps):
            state, activity = self.rule.step(p, state, drive)
            total = total + activity
        return (total / self.steps if self.output == "mean" else activity).view(x.shape)

    def _connectivity(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> Connectivity:
        if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
            if edge_weight is not None:
                raise ValueError("edge_weight must be None with a sparse adjacency, whose values are the weights")
            return self.rule.resolve(Data(adj_t=edge_index, num_nodes=x.size(0)))
        version = -1 if edge_index.is_inference() else edge_index._version
        seen = self._seen
        if seen is None or seen[0] is not edge_index or seen[1] != version or version < 0 or seen[2].num_nodes != x.size(0):
            found = self.rule.resolve(Data(edge_index=edge_index, num_nodes=x.size(0)))
            self._seen = seen = (edge_index, version, found)
        if edge_weight is None:
            return seen[2]
        if not self.rule.shared:
            raise ValueError(f"edge_weight must be None: this {type(self.rule).__name__} has edge weights of its own")
        return seen[2].reweighted(edge_weight)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None}

    def extra_repr(self) -> str:
        return f"steps={self.steps}, output={self.output!r}"


def as_conv(rule: UpdateRule, steps: int, output: Literal["mean", "last"] = "mean") -> RuleConv:
    """The rule as a PyG layer; see :class:`RuleConv`."""
    return RuleConv(rule, steps, output)
