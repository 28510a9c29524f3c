"""How many outputs a readout can have on a graph, for tests that run over all of them."""

from __future__ import annotations

from torch_geometric.data import Data

READ_NODES = {"Shoreline"}  # have an output for every node that they read, and no more


def outputs(name: str, topology: Data, wanted: int) -> int:
    """``wanted`` outputs, or as many as the readout can have there."""
    read = topology.get("output_index")
    nodes = topology.num_nodes if read is None else len(read)
    return min(wanted, nodes) if name in READ_NODES else wanted
