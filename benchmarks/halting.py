"""A rollout in which samples stop at spread-out times, with stopped samples dropped and carried along, and without halting.

    OMP_NUM_THREADS=1 python benchmarks/halting.py [--side 12] [--batch 64] [--steps 48] [--repeats 5] [--shares 0 0.125 0.25 0.5]

A lattice and one cell without neighbours, which the drive holds at a number of its own in every sample: the halting unit reads that
cell, so that sample b stops after an even share b/B of the budget. Printed first: the largest difference of any value or gradient
between dropping and carrying along, relative to the largest number. Then medians of the CPU time of interleaved, warm repeats: forward
and backward, and forward alone. A share s drops the stopped samples once they are s of those held; 1/4 is what the library does.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

import topologies
from lmn_graph.halting import HaltingUnit
from lmn_graph.rules import RULES, UpdateRule

module = importlib.import_module("lmn_graph.rollout")
STEEP = 8.0  # logit of the unit = STEEP · tanh(drive of the lone cell)


def with_lone_cell(graph: Data) -> Data:
    """The graph and one more node, without neighbours."""
    return Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes + 1, name="lattice and a lone cell")


def problem(name: str, options: argparse.Namespace) -> tuple[UpdateRule, HaltingUnit, Tensor, Tensor]:
    """The rule, the unit, the drive, and the steps that the samples are to take."""
    torch.manual_seed(0)
    graph = with_lone_cell(topologies.grid(options.side, 3))
    rule, unit = RULES[name](graph), HaltingUnit(graph, bias=0.0)
    wanted = (torch.arange(options.batch) * options.steps // options.batch + 1)[torch.randperm(options.batch)]
    logit = torch.where(wanted == 1, 5.5, -(wanted - 1.0).clamp(min=1e-9).log())
    drive = torch.randn(options.batch, rule.num_nodes)
    drive[:, -1] = (logit / STEEP).atanh()
    with torch.no_grad():
        unit.weight.zero_()
        unit.weight[-1] = STEEP
    return rule, unit, drive.requires_grad_(), wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=48, help="the budget, below 100")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.125, 0.25, 0.5])
    parser.add_argument("--rules", nargs="+", default=["TanhLattice", "RelativisticCA"])
    options = parser.parse_args()
    for name in options.rules:
        rule, unit, drive, wanted = problem(name, options)

        def run(share: float | None, rule: UpdateRule = rule, unit: HaltingUnit = unit, drive: Tensor = drive) -> module.Trajectory:
            module._DROP_FROM = math.inf if share is None else share
            return module.rollout(rule, drive, steps=options.steps, halting=unit)

        def everything(
            share: float | None, run: Callable = run, wanted: Tensor = wanted, inputs: tuple = (drive, *rule.parameters())
        ) -> list:
            found = run(share)
            assert torch.equal(found.halting.steps, wanted)
            loss = found.state[0].square().sum() + found.activity.square().sum() + found.halting.ponder.sum()
            return [found.activity, *found.state, found.halting.ponder, *torch.autograd.grad(loss, inputs)]

        one, other = everything(0.25), everything(None)
        apart = max(float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30)) for a, b in zip(one, other))
        print(f"{name}, {rule.num_nodes} nodes, {options.batch} samples, 1 to {options.steps} steps, mean {wanted.double().mean():.1f}")
        print(f"  largest relative difference between dropping and carrying along: {apart:.1e}")

        def plain(rule: UpdateRule = rule, drive: Tensor = drive) -> module.Trajectory:
            return module.rollout(rule, drive, steps=options.steps)

        ways = {"no halting": plain, "carried along": lambda run=run: run(None)}
        ways |= {f"dropped from a share of {share:g}": lambda run=run, share=share: run(share) for share in options.shares}
        times: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
        for _ in range(options.repeats):
            for way, work in ways.items():
                start = time.process_time()
                found = work()
                (found.state[0].square().sum() + found.activity.square().sum()).backward()
                middle = time.process_time()
                with torch.no_grad():
                    work()
                times[way][0].append(middle - start)
                times[way][1].append(time.process_time() - middle)
        for way, (both, forward) in times.items():
            print(
                f"  {way:32s} {1e3 * statistics.median(both):7.0f} ms   forward alone {1e3 * statistics.median(forward):6.0f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
