"""Who and where cells are: a learned row per cell or per axis value that cells share, and coordinates on any graph."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from lmn_graph.connectivity import Connectivity, lattice_shape
from topologies import _checks


class CellEmbedding(nn.Module):
    r"""One learned row per cell, on any graph: :math:`identity_i = W_i`.

    Calling it gives the identities [N, features]; they start with unit variance.

    Args:
        topology: a graph of N nodes.
        features: columns of W.

    Raises:
        ValueError: if ``topology`` is no graph with nodes or ``features`` is below 1.
    """

    def __init__(self, topology: Data, features: int) -> None:
        super().__init__()
        self.num_nodes = _num_nodes(topology)
        self.features = _checks.integer("features", features, minimum=1)
        self.weight = nn.Parameter(torch.empty(self.num_nodes, self.features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rows from the standard normal distribution."""
        nn.init.normal_(self.weight)

    def forward(self) -> Tensor:
        return self.weight

    def extra_repr(self) -> str:
        return f"{self.num_nodes}, features={self.features}"


class FactoredCellEmbedding(nn.Module):
    r"""One learned row per axis value; a cell's identity is the sum of its rows,

    .. math:: identity_{n_1 \dots n_d} = \sum_{a=1}^{d} W_{n_a + \sum_{b < a} L_b}.

    Π L_a identities cost Σ L_a rows. Calling it gives them, [N, features]; they start with unit variance.

    Args:
        topology: a graph with ``cell_factors`` [N, d], such as ``topologies.router_cells`` makes (L_a is the largest value of axis a plus
            one), or else any lattice, whose factors are its coordinates and whose L_a are its sides.
        features: columns of W.

    Attributes:
        sides: L_1 … L_d.
        rows: int64 [N, d], the rows of W that a cell adds up.

    Raises:
        ValueError: if ``topology`` has neither ``cell_factors`` nor a lattice ``shape``, or the factors are no integers ≥ 0, one line per
            node; if ``features`` is below 1.
    """

    rows: Tensor

    def __init__(self, topology: Data, features: int) -> None:
        super().__init__()
        self.num_nodes = _num_nodes(topology)
        self.features = _checks.integer("features", features, minimum=1)
        factors, self.sides = _factors(topology, self.num_nodes)
        sides = torch.tensor(self.sides)
        self.register_buffer("rows", factors.cpu() + sides.cumsum(0) - sides, persistent=False)
        self.weight = nn.Parameter(torch.empty(sum(self.sides), self.features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rows from normal distributions of variance 1/d."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(len(self.sides)))

    def forward(self) -> Tensor:
        first, *others = self.rows.unbind(1)
        found = functional.embedding(first, self.weight)
        for row in others:  # one [N, features] at a time, instead of all of them and then a sum
            found = found + functional.embedding(row, self.weight)
        return found

    def extra_repr(self) -> str:
        return f"sides={self.sides}, features={self.features}"


def _num_nodes(topology: Data) -> int:
    if not isinstance(topology, Data):
        raise ValueError(f"topology must be a torch_geometric.data.Data, got {type(topology).__name__}")
    if not topology.num_nodes:
        raise ValueError(f"topology must have at least one node, got num_nodes={topology.num_nodes}")
    return int(topology.num_nodes)


def _factors(topology: Data, num_nodes: int) -> tuple[Tensor, tuple[int, ...]]:
    """The index [N, d] of every cell along every axis, and the number of values on every axis."""
    factors = topology.get("cell_factors")
    if factors is None:
        shape = lattice_shape(topology)
        if shape is None:
            raise ValueError(
                f"topology must have cell_factors [N, d] or the shape of a lattice, got {topology}; CellEmbedding needs neither"
            )
        return torch.stack(torch.unravel_index(torch.arange(num_nodes), shape), dim=1), shape
    integers = isinstance(factors, Tensor) and not factors.is_floating_point() and not factors.is_complex() and factors.dtype != torch.bool
    if not integers or factors.dim() != 2 or factors.size(0) != num_nodes or not factors.size(1) or int(factors.min()) < 0:
        got = f"{factors.dtype} {tuple(factors.shape)}" if isinstance(factors, Tensor) else type(factors).__name__
        raise ValueError(f"topology.cell_factors must hold integers >= 0 [{num_nodes}, d], got {got}")
    return factors.long(), tuple((factors.amax(0) + 1).tolist())


class CellCoordinates(nn.Module):
    """Fixed coordinates of cells; calling it gives them, [N, features].

    Args:
        values: [N, features], finite.
        saved: whether they belong to the state of a model: where computing them again may give others, as of a basis that is not unique.
    """

    values: Tensor

    def __init__(self, values: Tensor, *, saved: bool = False) -> None:
        super().__init__()
        self.num_nodes, self.features = values.shape
        self.register_buffer("values", values, persistent=saved)

    def forward(self) -> Tensor:
        return self.values

    def extra_repr(self) -> str:
        return f"{self.num_nodes}, features={self.features}"


def cell_coordinates(
    topology: Data | Connectivity, kind: Literal["auto", "laplacian", "learned"] = "auto", *, features: int = 4
) -> CellCoordinates | CellEmbedding:
    r"""Where the cells of any graph are, within [−1, 1] along each axis.

    Args:
        topology: the graph.
        kind: "auto" takes its ``pos`` or, where it has none, the "laplacian": eigenvectors of the smallest eigenvalues of the normalised
            Laplacian (without the constant one), of the graph read as undirected; "learned" a :class:`CellEmbedding`.
        features: number of eigenvectors or of learned numbers; a smaller graph has zeros for those it lacks.

    Raises:
        ValueError: if ``kind`` is none of these or the graph is not valid.

    Source: M. Belkin, P. Niyogi, "Laplacian eigenmaps for dimensionality reduction and data representation", 2003.
    """
    _checks.choice("kind", kind, ("auto", "laplacian", "learned"))
    features = _checks.integer("features", features, minimum=1)
    connectivity = topology if isinstance(topology, Connectivity) else Connectivity(topology)
    if kind == "learned":
        return CellEmbedding(Data(num_nodes=connectivity.num_nodes), features)
    pos = connectivity.pos
    usable = isinstance(pos, Tensor) and pos.dim() == 2 and pos.size(0) == connectivity.num_nodes and pos.size(1) > 0
    if kind == "auto" and usable and bool(pos.isfinite().all()):  # type: ignore[union-attr]
        return CellCoordinates(_centred(pos.to(torch.get_default_dtype())))  # type: ignore[union-attr]
    return CellCoordinates(_laplacian_coordinates(connectivity, features), saved=True)


def _centred(pos: Tensor) -> Tensor:
    """Each axis shifted and scaled to [−1, 1]; 0 along an axis on which all are at one place."""
    low, high = pos.amin(0), pos.amax(0)
    return torch.where(high > low, 2 * (pos - low) / (high - low).clamp(min=torch.finfo(pos.dtype).tiny) - 1, torch.zeros_like(pos))


_FEW = 128  # nodes up to which all eigenvectors are found at once


def _laplacian_coordinates(connectivity: Connectivity, features: int) -> Tensor:
    import numpy as np
    from scipy.sparse import csr_array, identity
    from scipy.sparse.linalg import eigsh

    n = connectivity.num_nodes
    source, target = connectivity.edge_index.cpu().numpy()
    ones = np.ones(source.size)
    adjacency = csr_array((ones, (target, source)), shape=(n, n))
    adjacency = ((adjacency + adjacency.T) > 0).astype(np.float64)
    degree = np.asarray(adjacency.sum(1)).ravel()
    scale = 1 / np.sqrt(np.maximum(degree, 1))
    similar = csr_array(adjacency.multiply(scale[:, None]).multiply(scale[None]))  # the largest eigenvalues are the smallest of 1 − it
    count = min(features + 1, n)
    if n <= max(_FEW, 3 * count):
        values, vectors = np.linalg.eigh(similar.toarray())
    else:
        start = np.linspace(1, 2, n)  # eigsh starts from random numbers otherwise
        values, vectors = eigsh(similar + identity(n), k=count, which="LA", v0=start)
    order = np.argsort(-values)[1:count]
    found = vectors[:, order]
    if found.size:
        largest = found[np.abs(found).argmax(0), np.arange(found.shape[1])]  # an eigenvector has no sign: its largest entry is positive
        found = found / largest
    padded = np.zeros((n, features))
    padded[:, : found.shape[1]] = found
    return torch.from_numpy(padded).to(torch.get_default_dtype())
