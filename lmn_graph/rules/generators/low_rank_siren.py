"""Weights of low rank whose factors are sine networks."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity
from lmn_graph.embeddings import cell_coordinates
from lmn_graph.rules.generators._layers import Siren
from lmn_graph.rules.generators.base import GENERATORS, Factors, WeightGenerator
from topologies import _checks


@GENERATORS.register
class LowRankSiren(WeightGenerator):
    r"""Weights of canonical polyadic rank R whose factors are sine networks modulated by the context (FiLM),

    .. math:: w_{bcik} = \frac{1}{\sqrt{R}} \sum_r U_r(p_i \mid c_b)\, V_r(o_k \mid c_b),

    :math:`p_i` the coordinates of the cell and :math:`o_k` the offset of the edge type. The weights are never made: see
    :func:`lmn_graph.ops.lowrank_sum`.

    Args:
        topology, context_dim, channels, per_channel: see :class:`WeightGenerator`.
        rank: R >= 1.
        width: features of a sine layer.
        layers: sine layers of each network.
        omega: :math:`\omega_0` of the sine layers.
        coordinates: "auto" takes those of the graph (``pos``) or, where it has none, eigenvectors of its Laplacian; "laplacian" always
            these; "learned" a row per cell.

    Source: ImplicitHyperNet (fullrouterhelena.py) and LowRankHyperNet (lowrankact.py) of the Lattice Machine Networks repository; Sitzmann
    et al. 2020 for sine networks and their initialisation.
    """

    def __init__(
        self,
        topology: Data | Connectivity,
        context_dim: int = 0,
        *,
        channels: int | None = None,
        per_channel: bool = False,
        rank: int = 8,
        width: int = 32,
        layers: int = 2,
        omega: float = 30.0,
        coordinates: Literal["auto", "laplacian", "learned"] = "auto",
    ) -> None:
        super().__init__(topology, context_dim, channels=channels, per_channel=per_channel)
        self.rank = _checks.integer("rank", rank, minimum=1)
        self.coordinates = cell_coordinates(topology, coordinates)
        offsets = _offsets(topology if isinstance(topology, Connectivity) else Connectivity(topology), self.num_types)
        self.register_buffer("offsets", offsets, persistent=False)
        features = self.copies * self.rank
        self.u = Siren(self.coordinates.features, features, self.context_dim, width=width, layers=layers, omega=omega)
        self.v = Siren(offsets.size(1), features, self.context_dim, width=width, layers=layers, omega=omega)

    offsets: Tensor

    def factors(self, context: Tensor | None) -> Factors:
        left = self.u(self.coordinates(), context)
        right = self.v(self.offsets, context) / math.sqrt(self.rank)
        return Factors(self.split(left), self.split(right))

    def extra_repr(self) -> str:
        return f"rank={self.rank}"


def _offsets(connectivity: Connectivity, types: int) -> Tensor:
    """Where the edges of a type come from, [K, d] within [−1, 1]: their displacement, or their number where they have none."""
    kind, displacement = connectivity.edge_type, connectivity.edge_attr
    if kind is None or displacement is None or not displacement.is_floating_point() or not bool(displacement.isfinite().all()):
        return torch.linspace(-1, 1, types).unsqueeze(1) if types > 1 else torch.zeros(1, 1)
    flat = displacement.reshape(len(displacement), -1).to(torch.get_default_dtype())
    found = flat.new_zeros(types, flat.size(1))
    found[kind] = flat
    return (found / found.abs().amax().clamp(min=torch.finfo(found.dtype).tiny)).cpu()
