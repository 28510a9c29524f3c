"""A sample as a stream: its rows drive one step after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.projectors.base import PROJECTORS, Projector
from topologies import _checks


@PROJECTORS.register
class Stream(Projector):
    r"""Row t of a sample drives step t, :math:`drive_t = g R x_t`: lines of a picture, bars of a series.

    R is the identity, feature p driving node p, or a fixed random matrix [P, F]: an entry is there with probability ``density`` and is
    then normal with variance :math:`1 / \max(F \cdot density, 1)`. It is drawn from the global generator, saved, and never learned: it
    has no gradient, and ``reset_parameters`` of a machine leaves it. A row of R may be empty: that node hears nothing.

    Shapes: x [B, T, F], [B, T] (F = 1) or [B, 1, T, F]; drive [B, T, P], or [B, T, P, C].

    Args:
        in_shape: (T, F); (T,), one number a step; or (1, T, F), a picture with its one colour.
        topology: the graph to drive.
        channels: None for scalar cells, else C; every channel gets the drive, with signs that alternate, to differ.
        ports: drive the topology's input ports only, where it has them.
        steps: steps of the machine, T or more: after the last row the drive is 0. None for T. A machine built from a configuration gives
            its own.
        gain: g.
        wiring: "identity", which needs F = P; "sparse", the random matrix; None for the identity where it fits, else the random matrix.
        density: share of the entries of the random matrix that are there, in (0, 1].

    Raises:
        ValueError: if an argument is out of range, ``in_shape`` is not that of a stream, it has more rows than there are steps, or the
            identity does not fit.

    Source: the fixed encoder of grid-neurons (github.com/ThomasPluck/grid-neurons).
    """

    routing: Tensor | None
    signs: Tensor | None

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        steps: int | None = None,
        gain: float = 1.0,
        wiring: Literal["identity", "sparse"] | None = None,
        density: float = 0.1,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        if len(self.in_shape) > 3 or (len(self.in_shape) == 3 and self.in_shape[0] != 1):
            raise ValueError(f"in_shape must be (T, F), (T,) or (1, T, F) for Stream, got {self.in_shape}")
        self.rows, self.features = (*self.in_shape, 1) if len(self.in_shape) == 1 else self.in_shape[-2:]
        self.steps = self.rows if steps is None else _checks.integer("steps", steps, minimum=1)
        if self.steps < self.rows:
            raise ValueError(f"steps must be at least {self.rows}, one for every row of in_shape {self.in_shape}, got {self.steps}")
        self.gain = _checks.number("gain", gain)
        _checks.choice("wiring", wiring, (None, "identity", "sparse"))
        density = _checks.number("density", density, above=0, maximum=1)
        if wiring == "identity" and self.features != self.num_driven:
            raise ValueError(
                f"wiring must be 'sparse' or None where the features of a step are not as many as the driven nodes, {self.features} and "
                f"{self.num_driven}, got 'identity'"
            )
        sparse = wiring == "sparse" or self.features != self.num_driven
        self.register_buffer("routing", _sparse(self.num_driven, self.features, density) if sparse else None)
        signs = None if self.channels is None else 1.0 - 2.0 * (torch.arange(self.channels) % 2)
        self.register_buffer("signs", signs, persistent=False)

    def project(self, x: Tensor) -> Tensor:
        drive = self.wired(x.reshape(len(x), self.rows, self.features))
        rest = self.steps - self.rows
        if rest:  # the input has ended
            drive = torch.cat([drive, drive.new_zeros(len(drive), rest, self.num_driven)], 1)
        return drive if self.signs is None else drive.unsqueeze(-1) * self.signs

    def wired(self, rows: Tensor) -> Tensor:
        """g R x of rows [..., F], one by one as a stream brings them: [..., P]."""
        return self.gain * (rows if self.routing is None else rows @ self.routing.t())

    def extra_repr(self) -> str:
        wiring = "identity" if self.routing is None else "sparse"
        return f"{self.features} → {self.num_driven}, steps={self.steps}, gain={self.gain:g}, wiring={wiring!r}"


def _sparse(nodes: int, features: int, density: float) -> Tensor:
    """R [nodes, features]."""
    normal = torch.randn(nodes, features) / max(features * density, 1.0) ** 0.5
    return normal * torch.bernoulli(torch.full_like(normal, density))
