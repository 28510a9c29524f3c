"""Write ``tests/learning/source_gradients.json``: what the source of the filter grid computes on small grids, in double precision.

    git clone https://github.com/ThomasPluck/grid-neurons SOURCE && git -C SOURCE checkout b7c349df906d899e7dbf5dbc1d3d313dbd9b16db
    python -m venv ENV && ENV/bin/pip install -r SOURCE/requirements.txt
    ENV/bin/python benchmarks/source/make_fixture.py SOURCE tests/learning/source_gradients.json

Run by a Python that has JAX; this library is not imported. A case is a grid, a number of steps and one sample, and holds

- ``rows``, ``cols``, ``steps``, ``dt``, ``parameters`` (four lists, cell (i, j) at i·cols + j), ``sequence`` [T, rows], ``target``,
- ``rates`` [T, cols], the bottom row after every step,
- ``final``: the states s and the traces after the last step, the source's names; ``e_desc_*`` [N, 2] are for the cell below and the cell
  to the right,
- under ``losses`` and ``gradients`` for each loss, "sum" (of the summed rates) and "per_t" (of every step's, averaged): the loss,
  ``local`` (SnAP-1, ``local_grads``) and ``bptt`` (``bptt_grads``), by parameter,
- where there are ``perturbed``: per name, the fields of ``Perturbation`` that differ from none, and ``local`` for each loss.

A grid of one column has one class: its losses and gradients are 0, its rates and traces are not. Nothing is random but the parameters
and inputs, which NumPy draws from the seed of the case and which are rounded to six digits.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DT = 1e-3
PARAMETERS = ("log_tau", "w_left", "w_top", "bias")
LOSSES = ("sum", "per_t")
CASES = ((4, 4, 1), (4, 4, 5), (3, 5, 7), (5, 2, 6), (1, 3, 4), (1, 1, 4))
PERTURBED_CASE = (4, 4, 5)
PERTURBATIONS = {
    "leak": {"delta_leak": 0.1},
    "gain shrinks positive": {"msg_gain_pos": 0.9, "msg_gain_neg": 1.1},
    "gain grows positive": {"msg_gain_pos": 1.1, "msg_gain_neg": 0.9},
    "subtraction above": {"delta_sub": 0.05},
    "subtraction below": {"delta_sub": -0.05},
    "all": {"delta_leak": 0.1, "msg_gain_pos": 0.9, "msg_gain_neg": 1.1, "delta_sub": 0.05},
}


def drawn(rows: int, cols: int, steps: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """Parameters, a sequence [T, rows] of order 2, and a target."""
    generator = np.random.default_rng(seed)
    cells = rows * cols
    parameters = {
        "log_tau": generator.uniform(np.log(1e-3), np.log(20e-3), cells),
        "w_left": generator.normal(size=cells),
        "w_top": generator.normal(size=cells),
        "bias": 0.3 * generator.normal(size=cells),
    }
    sequence = 2 * generator.normal(size=(steps, rows))
    return {name: value.round(6) for name, value in parameters.items()}, sequence.round(6), int(generator.integers(cols))


def lists(cells: Any, names: tuple[str, ...]) -> dict[str, list]:
    return {name: np.asarray(getattr(cells, name), dtype=np.float64).tolist() for name in names}


def case(rows: int, cols: int, steps: int, seed: int) -> dict[str, Any]:
    """Everything that the source says about one sample on one grid."""
    from grid_neurons.block import BlockParams, no_perturbation, zero_block_state
    from grid_neurons.cell import CellParams, CellState
    from grid_neurons.topology import build_grid
    from grid_neurons.training import bptt_grads, local_grads, run_forward

    parameters, sequence, target = drawn(rows, cols, steps, seed)
    cells = CellParams(**{name: jnp.asarray(value) for name, value in parameters.items()})
    topology = build_grid(rows, cols)
    given = (BlockParams(cells, jnp.eye(rows)), zero_block_state(topology), jnp.asarray(sequence))
    final, rates, *_ = run_forward(*given, topology, DT)
    found: dict[str, Any] = {
        "rows": rows,
        "cols": cols,
        "steps": steps,
        "dt": DT,
        "parameters": {name: value.tolist() for name, value in parameters.items()},
        "sequence": sequence.tolist(),
        "target": target,
        "rates": np.asarray(rates).tolist(),
        "final": lists(final.cells, CellState._fields),
        "losses": {},
        "gradients": {},
    }
    for mode in LOSSES:
        loss, local, _ = local_grads(*given, target, topology, DT, mode)
        other, exact, _ = bptt_grads(*given, target, topology, DT, mode)
        assert loss.dtype == local.cells.bias.dtype == exact.cells.bias.dtype == np.float64
        assert float(loss) == float(other)
        found["losses"][mode] = float(loss)
        found["gradients"][mode] = {"local": lists(local.cells, PARAMETERS), "bptt": lists(exact.cells, PARAMETERS)}
    if (rows, cols, steps) == PERTURBED_CASE:
        found["perturbed"] = {}
        for name, fields in PERTURBATIONS.items():
            # In double precision: the source's own conditions are of single precision, in which 0.9 is 0.899999976.
            perturbation = no_perturbation()._replace(**{field: jnp.asarray(value) for field, value in fields.items()})
            local = {mode: local_grads(*given, target, topology, DT, mode, perturbation)[1] for mode in LOSSES}
            gradients = {mode: lists(gradient.cells, PARAMETERS) for mode, gradient in local.items()}
            found["perturbed"][name] = {"fields": fields, "local": gradients}
    return found


def written(value: Any, indent: str = "") -> str:
    """JSON in which a mapping has a line per key and everything else one line."""
    if not isinstance(value, dict):
        return json.dumps(value)
    deeper = indent + " "
    return "{\n" + ",\n".join(f"{deeper}{json.dumps(key)}: {written(item, deeper)}" for key, item in value.items()) + f"\n{indent}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a checkout of grid-neurons")
    parser.add_argument("out", type=Path, help="the file to write")
    options = parser.parse_args()
    sys.path.insert(0, str(options.source))
    jax.config.update("jax_enable_x64", True)
    fixture = {
        "source": {
            "repository": "https://github.com/ThomasPluck/grid-neurons",
            "commit": "b7c349df906d899e7dbf5dbc1d3d313dbd9b16db",
            "licence": "MIT, Copyright (c) 2026 Thomas Pluck",
            "written_by": "benchmarks/source/make_fixture.py",
            "versions": {"jax": jax.__version__, "numpy": np.__version__},
        },
        "cases": {f"{rows}x{cols} T={steps}": case(rows, cols, steps, seed) for seed, (rows, cols, steps) in enumerate(CASES)},
    }
    options.out.write_text(written(fixture) + "\n")
    for name, found in fixture["cases"].items():
        for mode in LOSSES:
            local, exact = (np.concatenate(list(found["gradients"][mode][rule].values())) for rule in ("local", "bptt"))
            print(f"{name:10}{mode:6} loss {found['losses'][mode]:.6f}, max |SnAP-1 − BPTT| {np.abs(local - exact).max():.1e}", end="")
            print(f" of max |BPTT| {np.abs(exact).max():.1e}")
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
