"""The largest modulus among the eigenvalues of a sparse matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_DENSE = 400  # nodes up to which all eigenvalues are found
_LAST_RESORT = 5000  # nodes up to which all are found where the iteration does not converge
_NIL = 1e-7  # of the largest weight: below this a radius is rounding


def spectral_radius(edge_index: Tensor, weight: Tensor, num_nodes: int) -> float:
    """max |λ| of the matrix whose entry (target, source) is the weight, of parallel edges their sum; 0 where no cycle leads back."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    source, target = edge_index.numpy()
    matrix = coo_array((weight.double().numpy(), (target, source)), shape=(num_nodes, num_nodes)).tocsr()
    matrix.eliminate_zeros()
    # Only edges within a strongly connected part lie on cycles and have a say in the eigenvalues: an acyclic graph has none left.
    part = connected_components(matrix, directed=True, connection="strong")[1]
    entries = matrix.tocoo()
    row, col = entries.coords
    inside = part[row] == part[col]
    if not inside.any():
        return 0.0
    nodes, where = torch.from_numpy(row[inside]).unique(return_inverse=True)
    column = torch.searchsorted(nodes, torch.from_numpy(col[inside]).to(nodes.dtype))
    size = len(nodes)
    matrix = coo_array((entries.data[inside], (where.numpy(), column.numpy())), shape=(size, size)).tocsr()
    largest = float(abs(matrix.data).max())
    radius = largest * _largest_modulus(matrix / largest)
    return radius if radius > _NIL * largest else 0.0


def _largest_modulus(matrix: Any) -> float:
    size = matrix.shape[0]
    positive = bool((matrix.data > 0).all())
    rows = matrix.sum(axis=1)
    if positive and float(rows.max()) == float(rows.min()):
        return float(rows[0])  # Perron: the constant vector is the eigenvector of the largest eigenvalue
    if size <= _DENSE:
        return _all_eigenvalues(matrix)
    from scipy.sparse.linalg import ArpackNoConvergence, eigs, eigsh

    start = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy() + 0.5
    symmetric = abs(matrix - matrix.T).max() == 0
    # The eigenvalues of a positive matrix may share their modulus with many others, but the one of largest real part is the radius.
    restarts = 200 if size <= _LAST_RESORT else 10 * size
    options = {
        "maxiter": restarts,
        "k": 4,
        "v0": start,
        "ncv": 64,
        "return_eigenvectors": False,
        "which": "LM" if symmetric or not positive else "LR",
    }
    try:
        return float(abs((eigsh if symmetric else eigs)(matrix, **options)).max())
    except ArpackNoConvergence:
        if size > _LAST_RESORT:
            raise ValueError(f"data must have a spectral radius that Arnoldi iteration finds; it did not, for {size} nodes") from None
    return _all_eigenvalues(matrix)


def _all_eigenvalues(matrix: Any) -> float:
    return float(torch.linalg.eigvals(torch.from_numpy(matrix.toarray())).abs().max())
