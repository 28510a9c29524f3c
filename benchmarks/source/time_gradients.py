"""Time the gradients of the source of the filter grid. ``benchmarks/filter_grid.py`` runs this with a Python that has JAX and Optax:

    PYTHON benchmarks/source/time_gradients.py SOURCE GIVEN.npz FOUND.npz

GIVEN holds ``log_tau``, ``w_left``, ``w_top``, ``bias`` [N], ``x`` [B, T, rows], ``y`` [B], ``dt`` and ``repeats``, in the precision to
compute in. FOUND gets ``loss`` and the gradients by parameter, means over the batch of the loss of the summed rates; and per work the
``wall`` and ``processor`` seconds [repeats] of its calls after those that compiled it and warmed it up: ``gradient``, and ``step``,
which also updates the parameters. Several samples: as the source's ``scripts/mnist_rowwise.py``, every sample's ``local_grads`` side by
side, their means, Adam. One sample: as its ``scripts/mnist_sgd_bs1.py``, ``local_grads`` and plain steps of three sizes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

PARAMETERS = ("log_tau", "w_left", "w_top", "bias")


def timed(work: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of the clock and of the processors, each call waiting for its result."""
    for _ in range(3):
        jax.block_until_ready(work())
    wall, processor = [], []
    for _ in range(repeats):
        started, busy = time.perf_counter(), time.process_time()
        jax.block_until_ready(work())
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - busy)
    return wall, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "given", "found"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(options.source))
    given = dict(np.load(options.given))
    if given["x"].dtype == np.float64:
        jax.config.update("jax_enable_x64", True)

    from grid_neurons.block import BlockParams, zero_block_state
    from grid_neurons.cell import CellParams
    from grid_neurons.topology import build_grid
    from grid_neurons.training import local_grads

    batch, _, rows = given["x"].shape
    dt, repeats = float(given["dt"]), int(given["repeats"])
    topology = build_grid(rows, given["bias"].size // rows)
    cells = CellParams(**{name: jnp.asarray(given[name]) for name in PARAMETERS})
    params = BlockParams(cells, jnp.eye(rows, dtype=cells.bias.dtype))
    x, y = jnp.asarray(given["x"]), jnp.asarray(given["y"])

    def per(p: BlockParams, seq: jax.Array, tgt: jax.Array) -> tuple:
        loss, g, readout = local_grads(p, zero_block_state(topology), seq, tgt, topology, dt, "sum")
        return loss, g, (jnp.argmax(readout) == tgt).astype(jnp.float32)

    if batch == 1:

        @jax.jit
        def gradient(p: BlockParams, seq: jax.Array, tgt: int) -> tuple:
            return per(p, seq, tgt)

        @jax.jit
        def step(p: BlockParams, seq: jax.Array, tgt: int, eta0: float = 1e-2) -> tuple:
            loss, g, acc = per(p, seq, tgt)
            rates = CellParams(log_tau=4 * eta0, w_left=eta0, w_top=eta0, bias=eta0 / 20)
            return BlockParams(jax.tree_util.tree_map(lambda v, r, d: v - r * d, p.cells, rates, g.cells), p.input_routing), loss, acc

        works = {"gradient": lambda: gradient(params, x[0], int(y[0])), "step": lambda: step(params, x[0], int(y[0]))}
    else:
        optimiser = optax.adam(3e-3)
        moments = optimiser.init(params)

        @jax.jit
        def gradient(p: BlockParams, ss: jax.Array, ts: jax.Array) -> tuple:
            losses, grads, accs = jax.vmap(per, in_axes=(None, 0, 0))(p, ss, ts)
            return losses.mean(), jax.tree_util.tree_map(lambda v: v.mean(0), grads), accs.mean()

        @jax.jit
        def step(p: BlockParams, os: Any, ss: jax.Array, ts: jax.Array) -> tuple:
            loss, mean, acc = gradient(p, ss, ts)
            updates, new = optimiser.update(mean, os, p)
            return optax.apply_updates(p, updates), new, loss, acc

        works = {"gradient": lambda: gradient(params, x, y), "step": lambda: step(params, moments, x, y)}

    loss, found, _ = works["gradient"]()
    results = {"loss": np.asarray(loss), **{name: np.asarray(getattr(found.cells, name)) for name in PARAMETERS}}
    for name, work in works.items():
        results[f"{name}_wall"], results[f"{name}_processor"] = map(np.asarray, timed(work, repeats))
    np.savez(options.found, versions=np.asarray(f"jax {jax.__version__}"), **results)


if __name__ == "__main__":
    main()
