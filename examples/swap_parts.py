"""Projectors and readouts for pictures on one lattice of spiking neurons: swapped one at a time, on the digits or on folders of yours.

    python examples/swap_parts.py [--data digits] [--epochs 6] [--projectors ViT VoxelCNN …] [--readouts ClassQuery …]

Prints the test accuracy of every projector with the first readout, and of every readout with the first projector. Draws what the class
queries attend to (attention.png) and the factors of a holographic readout (factors.png), where these are among them.
"""

import argparse

import torch

import topologies
from lmn_graph import LatticeMachine, data
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.report.readouts import MAPS, class_attention, holographic_factors
from lmn_graph.rules import SpikingSOC

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="digits", help="a data set of pictures, or a folder of class folders")
parser.add_argument("--epochs", type=int, default=6)
first = ["VoxelCNN", "ViT", "ConcatenatedQuery", "Patchify", "LowRank"]
parser.add_argument("--projectors", nargs="+", default=first, choices=PROJECTORS)
attending = ["ClassQuery", "OverlappingGroups", "TemporalAttention", "MultiHeadAttention"]
comparing = ["EmbeddingDot", "HolographicEmbedding", "HolographicMetric"]
parser.add_argument("--readouts", nargs="+", default=[*attending, *comparing], choices=READOUTS)
options = parser.parse_args()

STEPS = 6
torch.set_num_threads(1)  # the lattice is small: a second thread costs more than it saves
graph = topologies.grid((8, 8, 3), dim=3)  # swap the topology here
splits = data.load(options.data)


def accuracy(machine, split):
    return float((machine.predict(split.x).argmax(1) == split.y).double().mean())


def train(projector, readout):
    """A machine after training; the same seed for all."""
    torch.manual_seed(0)
    patched = {"patch": 2} if projector in ("ViT", "ConcatenatedQuery", "Patchify") and min(splits.in_shape[-2:]) < 16 else {}
    machine = LatticeMachine(
        graph,
        PROJECTORS[projector](splits.in_shape, graph, **patched),
        SpikingSOC(graph, reset="zero"),
        READOUTS[readout](graph, splits.out_features, STEPS),
        steps=STEPS,
    )
    optimizer = torch.optim.AdamW(machine.parameters(), lr=4e-3, weight_decay=0.01)
    batches = options.epochs * -(-len(splits.train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=batches)
    generator = torch.Generator().manual_seed(0)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(splits.train), generator=generator).split(64):
            loss = torch.nn.functional.cross_entropy(machine(splits.train.x[rows]).prediction, splits.train.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return machine


print(f"{'projector':20}{'readout':24}{'accuracy':>9}{'parameters':>12}")
pairs = [(options.projectors[0], readout) for readout in options.readouts]
pairs += [(projector, options.readouts[0]) for projector in options.projectors[1:]]
for projector, readout in pairs:
    machine = train(projector, readout)
    parameters = sum(parameter.numel() for parameter in machine.parameters())
    print(f"{projector:20}{readout:24}{accuracy(machine, splits.test):9.3f}{parameters:12,}", flush=True)
    if (projector, readout) == (options.projectors[0], "ClassQuery"):
        class_attention("attention.png", machine, splits.test.x[:64], dict(list(enumerate(splits.classes))[:MAPS]))
    if (projector, readout) == (options.projectors[0], "HolographicEmbedding"):
        holographic_factors("factors.png", machine, splits.classes)
