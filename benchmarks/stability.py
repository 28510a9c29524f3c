"""How long runs behave before training: spectral radius of the weights, Lyapunov exponents, size of the state after many steps.

    python benchmarks/stability.py [--side 8] [--steps 300]

A cube of cells with 26 neighbours each, four samples, weights and drive drawn once per row with the same seed. The exponent is measured
undriven from a small state and under a constant drive of standard deviation 0.5, in nats per step: below 0 the rule forgets where it
started, above 0 it is chaotic. The last column is the mean magnitude of a cell after all steps under the drive.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch

import topologies
from lmn_graph import criticality, rollout
from lmn_graph.rules import ContinuousRule, RelativisticCA, TanhLattice

GAINS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
CASES: list[tuple[str, type[ContinuousRule], dict[str, Any]]] = [
    *(("fan_in", TanhLattice, {"gain": gain}) for gain in GAINS),
    *(("orthogonal", TanhLattice, {"gain": gain, "init": "orthogonal"}) for gain in (0.9, 1.0, 1.1)),
    *(("fan_in, leak 0.2", TanhLattice, {"gain": gain, "leak": 0.2}) for gain in (1.0, 2.0)),
    ("fan_in, residual", TanhLattice, {"gain": 1.0, "residual": True}),
    *(("α = 0", RelativisticCA, {"gain": gain, "alpha": 0.0}) for gain in (2.0, 4.0)),
    *(("α = 1", RelativisticCA, {"gain": gain}) for gain in GAINS),
    *(("α = 8", RelativisticCA, {"gain": gain, "alpha": 8.0}) for gain in (2.0, 4.0)),
    *(("α = −8", RelativisticCA, {"gain": gain, "alpha": -8.0}) for gain in (2.0, 4.0)),
    ("α = 1, orthogonal", RelativisticCA, {"gain": 2.0, "init": "orthogonal"}),
    ("α = 1, leak 0.2", RelativisticCA, {"gain": 2.0, "leak": 0.2}),
    ("α = 1, residual", RelativisticCA, {"gain": 2.0, "residual": True}),
]


def measured(rule: ContinuousRule, steps: int) -> tuple[float, float, float, float]:
    """Spectral radius, exponent undriven, exponent under drive, mean magnitude at the end."""
    generator = torch.Generator().manual_seed(1)
    drive = 0.5 * torch.randn(4, rule.num_nodes, generator=generator, dtype=torch.float64)
    state = rule.initial_state(4)
    small = state._replace(x=1e-6 * torch.randn(state.x.shape, generator=generator, dtype=torch.float64))
    options: dict[str, Any] = {"steps": steps, "discard": steps}
    undriven = criticality.lyapunov(rule, small, None, generator=generator, **options).mean()
    driven = criticality.lyapunov(rule, state, drive, generator=generator, **options).mean()
    size = rollout(rule, drive, steps=2 * steps).activity[:, -1].abs().mean()
    return criticality.spectral_radius(rule.connectivity, rule.weight), float(undriven), float(driven), float(size)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    graph = topologies.grid(options.side, 3)
    print("| rule | weights | gain | spectral radius | λ undriven | λ driven | mean magnitude |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, kind, arguments in CASES:
        torch.manual_seed(0)
        radius, undriven, driven, size = measured(kind(graph, **arguments).double(), options.steps)
        undriven, driven = (math.copysign(0.0, 1.0) if abs(value) < 5e-4 else value for value in (undriven, driven))
        print(f"| {kind.__name__} | {name} | {arguments['gain']:g} | {radius:.2f} | {undriven:+.3f} | {driven:+.3f} | {size:.3g} |")


if __name__ == "__main__":
    main()
