"""Parameters that stay inside an interval, learned per node or given as a number."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from topologies import _checks


class BoundedParameter(nn.Module):
    r"""A per-node parameter in an interval, :math:`low + (high - low)\,\sigma(raw_i)`, or a fixed number shared by all nodes.

    Calling it gives the value, [N, 1] where it is learned and [1, 1] where it is a number.

    Args:
        name: argument name for messages.
        value: a number, or None to learn one value per node.
        num_nodes: N.
        learned: the interval (low, high) of the learned form.
        start: where every learned value starts.
        minimum, maximum, above: what a given number must satisfy.

    Raises:
        ValueError: if ``value`` is out of range.
    """

    def __init__(
        self,
        name: str,
        value: float | None,
        num_nodes: int,
        *,
        learned: tuple[float, float],
        start: float,
        minimum: float | None = None,
        maximum: float | None = None,
        above: float | None = None,
    ) -> None:
        super().__init__()
        self.low, self.high = learned
        self.start = start
        self.raw: Tensor | None
        self.number: Tensor | None
        if value is None:
            self.raw = nn.Parameter(torch.empty(num_nodes, 1))
            self.register_buffer("number", None)
            self.reset_parameters()
        else:
            self.register_parameter("raw", None)
            self.value = _checks.number(name, value, minimum=minimum, maximum=maximum, above=above)
            self.register_buffer("number", torch.full((1, 1), self.value), persistent=False)

    @property
    def per_node(self) -> bool:
        """Whether there is one learned value per node."""
        return self.raw is not None

    def reset_parameters(self) -> None:
        """Put every learned value back to where it starts."""
        if self.raw is not None:
            fraction = (self.start - self.low) / (self.high - self.low)
            nn.init.constant_(self.raw, math.log(fraction / (1 - fraction)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BoundedParameter:
        super()._apply(fn, recurse)
        if self.number is not None:
            self.number.fill_(self.value)  # 0.9 in double precision is not the 0.9 of single precision
        return self

    def forward(self) -> Tensor:
        if self.raw is not None:
            return self.low + (self.high - self.low) * torch.sigmoid(self.raw)
        assert self.number is not None
        return self.number

    def extra_repr(self) -> str:
        return f"in ({self.low:g}, {self.high:g}), learned" if self.raw is not None else f"{float(self.number):g}"  # type: ignore[arg-type]
