"""The gate of relativistic automata, for the rules that have it."""

from __future__ import annotations

from torch import Tensor

from lmn_graph import ops
from lmn_graph.connectivity import Connectivity
from lmn_graph.ops.gated import Gate, magnitude, sigmoid_message
from lmn_graph.rules.base import UpdateRule


class RelativisticGate(UpdateRule):
    r"""A rule whose messages are :math:`\sigma(\alpha(|x_i| - |x_j|))\, w_{ij}\, x_j`."""

    def gated_sum(self, connectivity: Connectivity, x: Tensor, weight: Tensor, alpha: Tensor, gate: Gate) -> Tensor:
        """The gated sum, or ``message_sum`` where messages are watched or a subclass has another ``message``."""
        if self._is_propagated() or type(self).message is not RelativisticGate.message:
            return self.message_sum(connectivity, u=alpha.to(x.dtype) * magnitude(x, gate), x=x, weight=weight.to(x.dtype))
        return ops.gated_sum(connectivity, x, weight, alpha, gate=gate, compile=self.compile)

    @staticmethod
    def message(u_i: Tensor, u_j: Tensor, x_j: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        """σ(u_i − u_j) w_ij x_j, u = α|x|: the reference of the gated sum."""
        return sigmoid_message(u_i, u_j, x_j, weight)
