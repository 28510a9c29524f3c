"""What the losses on the structure of a graph do to learned weights: the digits, three times, on the same lattice of spiking neurons.

    python examples/structure.py [structure.png]

Once with the task alone, once with excess clustering and once with modularity added. Prints the accuracy, the excess clustering and
the modularity of each, and draws the learned weights, the nodes coloured by the communities that Louvain's method finds in them.
"""

import sys

import torch

import topologies
from lmn_graph import LatticeMachine, data
from lmn_graph.graph_metrics import excess_clustering, louvain, modularity
from lmn_graph.losses import ClusteringLoss, ModularityLoss, TotalLoss
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.report.weights import Weighting, draw_weights
from lmn_graph.rules import SpikingSOC

STEPS, EPOCHS, WEIGHT = 12, 10, 20.0
torch.set_num_threads(1)  # the graph is small: a second thread costs more than it saves
graph = topologies.triangular(12, 12)
digits = data.load("digits")


def train(terms):
    """The machine after training on the task and ``terms``; the same seed for all."""
    torch.manual_seed(0)
    machine = LatticeMachine(graph, Linear(digits.in_shape, graph), SpikingSOC(graph, reset="zero"), Rate(graph, 10, STEPS), steps=STEPS)
    loss = TotalLoss(terms=terms, weights=dict.fromkeys(terms, WEIGHT))
    loss.prepare(machine)
    optimizer = torch.optim.Adam([*machine.parameters(), *loss.parameters()], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(digits.train.x), generator=generator).split(64):
            x = digits.train.x[rows]
            total, _ = loss(machine(x), digits.train.y[rows], machine=machine, x=x)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    return machine


drawn = {}
print(f"{'':24}accuracy  excess clustering  modularity")
for name, terms in {
    "task alone": {},
    "with ClusteringLoss": {"clustering": ClusteringLoss()},
    "with ModularityLoss": {"modularity": ModularityLoss(count=6)},
}.items():
    machine = train(terms)
    edges, weight = machine.rule.connectivity.edge_index, machine.rule.weight.detach().abs().double()
    excess = float(excess_clustering(edges, weight, directed=True).mean())
    communities = louvain(edges, weight, directed=True)
    q = float(modularity(edges, weight, communities, directed=True))
    accuracy = float((machine.predict(digits.test.x).argmax(1) == digits.test.y).double().mean())
    print(f"{name:24}{accuracy:8.3f}{excess:19.3f}{q:12.3f}")
    drawn[f"{name}: excess {excess:.3f}, Q {q:.2f}"] = Weighting(weight, communities)

picture = sys.argv[1] if len(sys.argv) > 1 else "structure.png"
draw_weights(picture, graph, drawn)
print(f"picture in {picture}")
