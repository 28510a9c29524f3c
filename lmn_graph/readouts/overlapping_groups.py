"""Overlapping windows of the mean activity, all read by one map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph.readouts._factors import sides_read
from lmn_graph.readouts._regions import Groups, Windows
from lmn_graph.readouts.base import READOUTS, Readout
from topologies import _checks

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": nn.functional.gelu, "relu": nn.functional.relu}


@READOUTS.register
class OverlappingGroups(Readout):
    r"""Reads overlapping windows of the mean activity with one map for all of them, a convolution, and then what it found in each,

    .. math:: h_{jf} = \phi\Big(\sum_{o} W_{fo}\, \bar x_{s j + o} + b_f\Big), \quad
              h_j \leftarrow h_j + \phi(M h_j) \text{ with } mix, \quad prediction = V\, \mathrm{norm}(h) + v,

    on a lattice of any dimension, whose windows are k cells wide on every axis and start s cells apart. An axis shorter than k has one
    window; cells after the last of an axis count as zero. A graph without lattice shape, or one that is read at its output ports, has G
    groups of all nodes in place of the windows, with learned node factors [N, G·F].

    Shapes: activity [B, T, N] or [B, T, N, C]; prediction [B, out_features]. The largest tensor that is made are the features of the
    windows, [B, F, windows], about F / s^d times [B, N]; with C channels those of the groups are [B, C, G, F] on the way.

    Args:
        topology: the graph that was run.
        out_features: number of classes or of regression targets.
        steps: T.
        window: k >= 2, cells of a window on every axis.
        stride: s, from one window to the next, 1 <= s < k.
        features: F >= 2, features of a window.
        groups: G, the number of groups where there is no lattice, at most the number of nodes that are read (more are not made).
        activation: φ, "gelu" or "relu".
        mix: a second layer M, which mixes the features of every window.
        skip: steps left out at the start, 0 <= skip < T.
        dropout: probability of leaving out a feature while training.
        channels: None for scalar cells, else C.
        ports: read the topology's output ports only, where it has them.

    Raises:
        ValueError: if an argument is out of range.

    Source: the overlapping grouped readout of the Lattice Machine Networks repository; LeCun et al., "Gradient-based learning applied to
    document recognition", 1998, for the convolution.
    """

    def __init__(
        self,
        topology: Data,
        out_features: int,
        steps: int,
        *,
        window: int = 4,
        stride: int = 2,
        features: int = 8,
        groups: int = 16,
        activation: Literal["gelu", "relu"] = "gelu",
        mix: bool = False,
        skip: int = 0,
        dropout: float = 0.0,
        channels: int | None = None,
        ports: bool = True,
    ) -> None:
        super().__init__(topology, out_features, steps, channels=channels, ports=ports)
        window = _checks.integer("window", window, minimum=2)
        stride = _checks.integer("stride", stride, minimum=1, maximum=window - 1)
        features = _checks.integer("features", features, minimum=2)
        groups = _checks.integer("groups", groups, minimum=1)
        self.skip = _checks.integer("skip", skip, minimum=0, maximum=self.steps - 1)
        self.dropout = nn.Dropout(_checks.number("dropout", dropout, minimum=0.0, maximum=1.0))
        self.activation = _checks.choice("activation", activation, tuple(_ACTIVATIONS))
        sides = sides_read(self, topology)
        self.regions: Windows | Groups
        if sides is None:
            self.regions = Groups(self.num_read, min(groups, self.num_read), features, channels=self.channels)
        else:
            kept = [min(window, side) for side in sides]
            self.regions = Windows(sides, kept, [min(stride, k) for k in kept], features, channels=self.channels)
        self.mix = nn.Linear(features, features) if _checks.flag("mix", mix) else None
        self.norm = nn.LayerNorm(self.regions.count * features)
        self.linear = nn.Linear(self.regions.count * features, self.out_features)

    def features(self, activity: Tensor) -> Tensor:
        """What is found in every window or group, [B, G, F], for a checked history of the nodes which are read."""
        act = _ACTIVATIONS[self.activation]
        found = act(self.regions(activity[:, self.skip :].mean(1)))
        return found if self.mix is None else found + act(self.mix(found))

    def read(self, activity: Tensor) -> Tensor:
        return self.linear(self.dropout(self.norm(self.features(activity).flatten(1))))

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"
