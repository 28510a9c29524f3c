"""Small graphs that between them hold every case a rule may meet, and the choice of tests that need a GPU."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.typing import WITH_TORCH_SCATTER, WITH_TORCH_SPARSE

import topologies

# No test of this suite is timed: a busy machine is no failure. In CI the same examples are drawn every time; elsewhere new ones.
hypothesis.settings.register_profile("lmn", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("lmn")
torch.set_num_threads(1)  # the tests' tensors are small: on a busy machine a second thread costs many times what it saves


def _directed_random() -> Data:
    """Unsorted, weighted, not symmetric."""
    generator = torch.Generator().manual_seed(3)
    edge = torch.randperm(13 * 13, generator=generator)[:50]
    weight = torch.randn(50, generator=generator, dtype=torch.float64)
    return Data(edge_index=torch.stack([edge // 13, edge % 13]), num_nodes=13, edge_weight=weight, name="random")


def _isolated() -> Data:
    """Nodes 0, 3 and 6 have no edge at all; 1 has only incoming, 5 only outgoing ones."""
    return Data(edge_index=torch.tensor([[5, 2, 4, 5, 2], [4, 1, 1, 2, 4]]), num_nodes=7, name="isolated")


def _one_node() -> Data:
    return Data(edge_index=torch.tensor([[0], [0]]), num_nodes=1, name="one node with a self-loop")


def _no_edges() -> Data:
    return Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=4, name="no edges")


def _multigraph() -> Data:
    """Parallel edges with weights of their own, self-loops, unsorted."""
    edges = torch.tensor([[4, 0, 0, 2, 2, 1, 0, 3, 2], [0, 1, 1, 2, 2, 0, 1, 4, 3]])
    return Data(edge_index=edges, num_nodes=5, edge_weight=torch.linspace(-1, 1, 9, dtype=torch.float64), name="multigraph")


GRAPHS = {
    "periodic": lambda: topologies.grid(4, 2),
    "open": lambda: topologies.grid((3, 2, 3), 3, metric="manhattan", boundary="open"),
    "random": _directed_random,
    "isolated": _isolated,
    "one_node": _one_node,
    "no_edges": _no_edges,
    "multigraph": _multigraph,
}


@pytest.fixture(params=list(GRAPHS))
def graph(request: pytest.FixtureRequest) -> Data:
    """Every graph in turn."""
    return GRAPHS[request.param]()


@pytest.fixture(params=["periodic", "random", "multigraph"])
def some_graph(request: pytest.FixtureRequest) -> Data:
    """Three graphs in turn, for tests that take longer."""
    return GRAPHS[request.param]()


@pytest.fixture
def lattice() -> Data:
    """A periodic 4 x 4 lattice."""
    return GRAPHS["periodic"]()


@pytest.fixture
def random_graph() -> Data:
    """A directed random graph, unsorted and weighted."""
    return GRAPHS["random"]()


@pytest.fixture
def multigraph() -> Data:
    """Parallel edges and self-loops, unsorted and weighted."""
    return GRAPHS["multigraph"]()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Initial parameters are drawn from the global generator: the same in every run and in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that no other test can move."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def normal(generator: torch.Generator):
    """``normal(*shape)``: float64 standard normal numbers."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture
def lmn(capsys):
    """``lmn(*arguments)`` → exit code, output, errors."""

    def run(*arguments):
        from lmn_graph.cli import main

        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(lmn):
    """``refused(*arguments)`` → the one line of the error; nothing else is printed, the exit code is 2."""

    def run(*arguments):
        code, out, error = lmn(*arguments)
        assert (code, out) == (2, ""), (code, out, error)
        assert error.startswith("lmn: error: ")
        assert error.count("\n") == 1
        return error.removeprefix("lmn: error: ").strip()

    return run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked ``cuda`` or ``sparse`` are part of the suite wherever there is what they need, and not elsewhere."""
    there = {"cuda": torch.cuda.is_available(), "sparse": WITH_TORCH_SCATTER and WITH_TORCH_SPARSE}
    missing = [mark for mark, found in there.items() if not found]
    out = [item for item in items if any(item.get_closest_marker(mark) for mark in missing)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
