"""A connectome beside its null models: does the wiring of a worm help spiking neurons to read digits?

    python examples/connectome.py FOLDER [--seeds 15] [--out connectome.png]

FOLDER holds celegans_hermaphrodite_nodes.csv (id, name, cell_type) and celegans_hermaphrodite_edges.csv (pre, post, type, weight), the
hermaphrodite of Cook et al. 2019; its 302 neurons are used. The image drives the sensory ones, the prediction is read from the motor ones,
and everything in between is the connectome: log(1 + synapses), scaled to spectral radius 0.95 and frozen. Only the maps in and out are
trained.

Seed s draws the split, the maps, the order of the batches and the null models, which are scaled alike: rewired (every cell keeps its
numbers of inputs and outputs), shuffled (the wiring stays, the weights are dealt anew), equally dense (Erdős–Rényi), and without any
connection. The differences are paired by seed, with a 95 % interval.
"""

import argparse
import statistics
from pathlib import Path

import torch
from scipy.stats import t as student
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

import topologies
from lmn_graph import LatticeMachine, data
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.report.numbers import topology_numbers
from lmn_graph.report.style import BLUE, GREY, INK, check_picture, new_figure
from lmn_graph.rules import SpikingSOC
from topologies import nulls

STEPS, RATE = 12, 0.1
SENSORY = ("amphid", "cephalic", "mechanosensory", "phasmid", "touch", "o2, co2")  # beginnings of the cell types
NOT_NEURONS = ("muscle", "cell", "epithelium", "gland", "membrane", "hypodermis", "intestine")


def read(folder):
    """The neurons, chemical synapses and gap junctions added up, sensory neurons as inputs and motor neurons as outputs."""
    prefix = Path(folder) / "celegans_hermaphrodite"
    table = {"nodes": f"{prefix}_nodes.csv", "type": None, "node_type": "cell_type"}
    graph = topologies.read_edge_table(f"{prefix}_edges.csv", **table, name="connectome")
    kinds = [graph.node_types[kind].lower() for kind in graph.node_type.tolist()]
    neurons = [n for n, kind in enumerate(kinds) if not any(word in kind for word in NOT_NEURONS)]
    inside = torch.zeros(graph.num_nodes, dtype=torch.bool)
    inside[neurons] = True
    edge_index, edge_weight = subgraph(inside, graph.edge_index, graph.edge_weight, relabel_nodes=True)
    return Data(
        edge_index=edge_index,
        edge_weight=edge_weight.log1p(),
        num_nodes=len(neurons),
        name="connectome",
        input_index=torch.tensor([i for i, n in enumerate(neurons) if kinds[n].startswith(SENSORY)]),
        output_index=torch.tensor([i for i, n in enumerate(neurons) if "motor" in kinds[n]]),
    )


def versions(graph, seed):
    """The connectome and its null models, all of the same spectral radius, and the graph without connections."""
    pin = nulls.SpectralRadius(0.95)
    found = {
        "connectome": pin(graph),
        "rewired": pin(nulls.DegreePreservingRewire(seed=seed)(graph)),
        "shuffled": pin(nulls.WeightShuffle(seed=seed)(graph)),
        "equally dense": pin(nulls.EqualDensity(seed=seed)(graph)),
    }
    empty = found["connectome"].clone()
    empty.edge_weight = torch.zeros_like(empty.edge_weight)
    return found | {"no connections": empty}


def accuracy(graph, seed, epochs):
    """Held-out accuracy on the digits, and the rate of the neurons, of maps trained into and out of a frozen graph."""
    digits = data.load("digits", seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rule = SpikingSOC(graph, decay=0.9, utilisation=0.1, recovery=30.0, learn_weight=False, reset="zero")
        machine = LatticeMachine(graph, Linear(digits.in_shape, graph), rule, Rate(graph, 10, STEPS), steps=STEPS)
        optimizer = torch.optim.AdamW(machine.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs=epochs, steps_per_epoch=-(-len(digits.train.x) // 64))
        order = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for rows in torch.randperm(len(digits.train.x), generator=order).split(64):
                loss = torch.nn.functional.cross_entropy(machine(digits.train.x[rows]).prediction, digits.train.y[rows])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(machine.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    right = machine.predict(digits.test.x).argmax(1) == digits.test.y
    with torch.no_grad():
        rate = machine(digits.test.x[:64]).trajectory.activity.mean()
    return float(right.double().mean()), float(rate)


def interval(values):
    """Mean and half the width of its 95 % interval."""
    width = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return statistics.mean(values), width


def draw(path, found):
    """A dot per seed, the mean beside it."""
    with new_figure(path, 1, 1, (6.4, 3.6)) as (_, axes):
        axis = axes[0, 0]
        for place, (name, values) in enumerate(found.items()):
            colour = BLUE if name == "connectome" else GREY
            axis.scatter([place - 0.08] * len(values), [100 * value for value in values], color=colour, s=14, alpha=0.7, linewidths=0)
            mean, width = interval(values)
            axis.errorbar(place + 0.12, 100 * mean, 100 * width if width == width else 0, fmt="o", color=INK, markersize=4, capsize=3)
        axis.set_xticks(range(len(found)), found)
        axis.set_ylabel("held-out digits read correctly, %")
        axis.set_title("C. elegans and its null models: dots are seeds, bars 95 % intervals")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="connectome.png")
    arguments = parser.parse_args()
    check_picture("--out", arguments.out)
    torch.set_num_threads(1)  # the graph is small: a second thread costs more than it saves
    connectome = read(arguments.folder)
    found, rates, numbers = {}, {}, {}
    for seed in range(arguments.seeds):
        for name, graph in versions(connectome, seed).items():
            score, rate = accuracy(graph, seed, arguments.epochs)
            found.setdefault(name, []).append(score)
            rates.setdefault(name, []).append(rate)
            if seed == 0 and name != "no connections":
                numbers[name] = topology_numbers(graph)
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in found.items()), flush=True)
    print(f"\n{connectome.num_nodes} neurons, {connectome.num_edges:,} connections, {arguments.seeds} seeds, {arguments.epochs} epochs\n")
    print("| | accuracy, % | difference to the connectome, points | spikes per neuron and step | clustering | path length |")
    print("|---|---|---|---|---|---|")
    for name, values in found.items():
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        mean, width = interval([100 * (a - b) for a, b in zip(values, found["connectome"])])
        difference = "" if name == "connectome" else f"{mean:+.2f} ± {width:.2f}"
        of = numbers.get(name)
        shape = f"{of['clustering']:.3f} | {of['path length']:.2f}" if of else " | "
        print(f"| {name} | {100 * statistics.mean(values):.1f}{spread} | {difference} | {statistics.mean(rates[name]):.3f} | {shape} |")
    draw(arguments.out, found)
    print(f"\npicture in {arguments.out}")


if __name__ == "__main__":
    main()
