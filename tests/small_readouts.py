"""How many outputs a readout can have on a graph, and pairs of projectors and readouts, for tests that run over all of them."""

from __future__ import annotations

from torch_geometric.data import Data

from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS

READ_NODES = {"Shoreline"}  # have an output for every node that they read, and no more


def outputs(name: str, topology: Data, wanted: int) -> int:
    """``wanted`` outputs, or as many as the readout can have there."""
    read = topology.get("output_index")
    nodes = topology.num_nodes if read is None else len(read)
    return min(wanted, nodes) if name in READ_NODES else wanted


def pairs(turn: int) -> list[tuple[str, str]]:
    """Every projector and every readout at least once, paired another way at every turn: a drive is all that they share."""
    projectors, readouts = list(PROJECTORS), list(READOUTS)
    return [(projectors[i % len(projectors)], readouts[(i + turn) % len(readouts)]) for i in range(max(len(projectors), len(readouts)))]
