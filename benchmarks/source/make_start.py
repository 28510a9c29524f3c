"""Write the source's initial parameters and orders of the pictures, to repeat its runs: for ``benchmarks/accuracy.py filter --start``.

    ENV/bin/python benchmarks/source/make_start.py SOURCE start.npz

Run by a Python that has JAX, see make_fixture.py. The file holds ``log_tau, w_left, w_top, bias`` [280] as scripts/mnist_rowwise.py draws
them, and its permutations of 60,000 and of 6,000 pictures for ten epochs.
"""

from __future__ import annotations

import argparse
import sys

import jax
import numpy as np


def orders(images: int, epochs: int = 10) -> np.ndarray:
    """The permutations of the source's training loop, [epochs, images]."""
    key, found = jax.random.PRNGKey(42), []
    for _ in range(epochs):
        key, drawn = jax.random.split(key)
        found.append(np.asarray(jax.random.permutation(drawn, images), dtype=np.int32))
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a checkout of the source")
    parser.add_argument("out", help="the .npz file to write")
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.source)
    from grid_neurons.block import init_block_params
    from grid_neurons.topology import build_grid

    cells = init_block_params(jax.random.PRNGKey(0), topology=build_grid(28, 10), tau_min=1e-3, tau_max=20e-3).cells
    parameters = {name: np.asarray(getattr(cells, name)) for name in ("log_tau", "w_left", "w_top", "bias")}
    np.savez(arguments.out, **parameters, orders_60000=orders(60_000), orders_6000=orders(6000))


if __name__ == "__main__":
    main()
