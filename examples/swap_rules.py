"""Every rule on the same task: the digits on one lattice, with the same projector, readout, number of steps and training.

    python examples/swap_rules.py [swap_rules.png] [--epochs 8]

Prints a table (test accuracy, parameters, milliseconds per step of 64 samples, Lyapunov exponent, or the branching ratio of a rule that
spikes) and draws the validation accuracy of each rule over the epochs.
"""

import argparse
import time

import torch

import topologies
from lmn_graph import LatticeMachine, data, rollout
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.report.curves import draw_curves
from lmn_graph.rules import RULES
from lmn_graph.training.measure import dynamics

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("picture", nargs="?", default="swap_rules.png")
parser.add_argument("--epochs", type=int, default=8)
options = parser.parse_args()

STEPS = 6
torch.set_num_threads(1)  # the lattice is small: a second thread costs more than it saves
graph = topologies.grid(6, dim=3, radius=1)  # swap the topology here
digits = data.load("digits")


def accuracy(machine, split):
    return float((machine.predict(split.x).argmax(1) == split.y).double().mean())


def train(machine):
    """Validation accuracy after every epoch."""
    optimizer = torch.optim.AdamW(machine.parameters(), lr=3e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    reached = []
    for _ in range(options.epochs):
        for rows in torch.randperm(len(digits.train.x), generator=generator).split(64):
            loss = torch.nn.functional.cross_entropy(machine(digits.train.x[rows]).prediction, digits.train.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached.append(accuracy(machine, digits.validation))
    return reached


@torch.no_grad()
def milliseconds(machine):
    """The best of five rollouts, per step."""
    drive, times = machine.drive(digits.train.x[:64]), []
    for _ in range(5):
        started = time.perf_counter()
        rollout(machine.rule, drive, steps=STEPS)
        times.append(time.perf_counter() - started)
    return 1e3 * min(times) / STEPS


curves = {}
print(f"{'rule':20}{'accuracy':>9}{'parameters':>12}{'ms per step':>13}   dynamics")
for name, kind in RULES.items():
    torch.manual_seed(0)
    try:
        rule = kind(graph)
    except ValueError as error:  # a rule may ask for what this graph has not
        print(f"{name:20}does not run here: {error}")
        continue
    projector = Linear(digits.in_shape, graph, channels=rule.channels)
    machine = LatticeMachine(graph, projector, rule, Rate(graph, 10, STEPS, channels=rule.channels), steps=STEPS)
    curves[name] = train(machine)
    measured = dynamics(machine.eval(), digits.test.x)
    how = (
        f"Lyapunov exponent {measured['lyapunov']:+.3f}" if "lyapunov" in measured else f"branching ratio {measured['branching_ratio']:.3f}"
    )
    parameters = sum(parameter.numel() for parameter in machine.parameters())
    print(f"{name:20}{accuracy(machine, digits.test):9.3f}{parameters:12,}{milliseconds(machine):13.2f}   {how}")

draw_curves(options.picture, curves, "epoch", "validation accuracy", "Every rule on the same task")
print(f"{len(curves)} rules in {options.picture}")
