"""An avalanche: one spike on a lattice of silent neurons, drawn at a few moments.

    python examples/avalanche.py [avalanche.png]

Every edge transmits with probability 0.12; a neuron that has fired has spent half of its resource, so the front moves on and the
cells behind it stay quiet until they have recovered.
"""

import sys

import torch

import topologies
from lmn_graph import rollout
from lmn_graph.report.frames import lattice_frames
from lmn_graph.rules import SpikingSOC

graph = topologies.grid(25, dim=3, radius=1)
open_edges = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(2)) < 0.12
rule = SpikingSOC(graph, weight=1.3 * open_edges, learn_weight=False, reset="zero", decay=0.5, utilisation=0.5, recovery=25.0)
drive = torch.zeros(1, graph.num_nodes)
drive[0, graph.num_nodes // 2] = 1.0  # the cell in the middle of the box fires once

with torch.no_grad():
    trajectory = rollout(rule, drive, steps=16, inject="first", record=("r",))
size = trajectory.activity[0].sum(1).int().tolist()
picture = sys.argv[1] if len(sys.argv) > 1 else "avalanche.png"
lattice_frames(picture, trajectory.activity[0], graph.shape, at=(1, 4, 7, 10, 13))
print(f"spikes per step: {size}; picture in {picture}")
