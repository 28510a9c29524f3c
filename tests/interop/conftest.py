"""The rule whose parameters are all shared, which takes any graph at the call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

import topologies
from lmn_graph import rollout
from lmn_graph.rules import SpikingSOC

hypothesis.settings.register_profile("interop", deadline=None, max_examples=40)
hypothesis.settings.load_profile("interop")


@pytest.fixture
def shared() -> SpikingSOC:
    """A rule with no parameter of a node or an edge, bound to a graph that no test uses."""
    return SpikingSOC(
        topologies.grid(3, 1), threshold=1.0, decay=0.9, utilisation=0.1, recovery=30.0, weight=0.3, learn_weight=False
    ).double()


@pytest.fixture
def activity(shared: SpikingSOC) -> Callable[[Data], Tensor]:
    """activity(graph) -> [2, 12, N]: what the rule does on it, driven alike whatever the graph's fields are."""

    def run(graph: Data) -> Tensor:
        generator = torch.Generator().manual_seed(int(graph.num_nodes))
        drive = torch.rand(2, int(graph.num_nodes), generator=generator, dtype=torch.float64)
        found = rollout(shared, drive, steps=12, graph=graph).activity
        assert bool(found.any()), "a silent network would equal any other"
        return found

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """write("a.csv", text or bytes) -> its path."""

    def _write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return _write


@pytest.fixture(scope="session")
def connectome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The files of a connectome, edges and nodes: the real ones where LMN_DATA is, else a small worm in the same format."""
    if os.environ.get("LMN_DATA"):
        folder = Path(os.environ["LMN_DATA"]) / "connectome"
        yield str(folder / "celegans_hermaphrodite_edges.csv"), str(folder / "celegans_hermaphrodite_nodes.csv")
        return
    folder = tmp_path_factory.mktemp("connectome")
    generator = torch.Generator().manual_seed(0)
    names = [f"N{i}" for i in range(40)]
    pairs = torch.randperm(40 * 40, generator=generator)[:300].tolist()
    rows = [f"{names[k // 40]},{names[k % 40]},chemical,{1 + k % 9}" for k in pairs]
    for k in pairs[:60]:
        a, b = sorted((k // 40, k % 40))
        rows += [f"{names[a]},{names[b]},gap,2"] + ([f"{names[b]},{names[a]},gap,2"] if a != b else [])
    rows = list(dict.fromkeys(rows))
    (folder / "edges.csv").write_text("\n".join(["pre,post,type,weight", *rows]) + "\n")
    lines = [f'{i},{name},"Motor, head"' if i % 2 else f"{i},{name},Sensory" for i, name in enumerate(names)]
    (folder / "nodes.csv").write_text("\n".join(["id,name,cell_type", *lines]) + "\n")
    yield str(folder / "edges.csv"), str(folder / "nodes.csv")
