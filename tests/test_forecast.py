"""A machine in closed loop: what a loop by hand gives, and the powers of a linear map where that is known."""

from __future__ import annotations

import pytest
import torch

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.forecast import closed_loop
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def machine_of(inputs, outputs):
    graph = topologies.grid(3, 2)
    return LatticeMachine(graph, Linear((inputs,), graph), TanhLattice(graph), Rate(graph, outputs, steps=2), steps=2)


class Doubling(Rate):
    """The last step's activity of node 0, unbent: x → 0.5 x for small x."""

    def read(self, activity):
        return 0.5 * torch.atanh(activity[:, -1, :1])


def test_a_linear_map_gives_its_powers():
    """With x → 0.5 x in closed loop the forecasts are x / 2, x / 4, …; a hundred of them do not drift."""
    graph = topologies.grid(1, 1)
    projector = Linear((1,), graph)
    torch.nn.init.ones_(projector.linear.weight)
    torch.nn.init.zeros_(projector.linear.bias)
    machine = LatticeMachine(graph, projector, TanhLattice(graph), Doubling(graph, 1, steps=1), steps=1)
    x = torch.tensor([[0.3], [-0.2]])
    expected = x * 0.5 ** torch.arange(1.0, 21.0)
    torch.testing.assert_close(closed_loop(machine, x, 20), expected)
    torch.testing.assert_close(closed_loop(machine, x.unsqueeze(-1), 20).squeeze(-1), expected)


def test_windows_move_on_by_their_forecasts():
    machine, history = machine_of(4, 1), torch.randn(3, 6)
    window, found = history[:, 2:], []
    for _ in range(5):
        found.append(machine(window).prediction)
        window = torch.cat([window[:, 1:], found[-1]], 1)
    torch.testing.assert_close(closed_loop(machine, history, 5), torch.cat(found, 1))


def test_a_stream_goes_on_from_its_state():
    machine, history = machine_of(2, 2), torch.randn(3, 6, 2)
    state = None
    for item in history.unbind(1):
        output = machine(item, state)
        state = output.state
    found = []
    for _ in range(5):
        found.append(output.prediction)
        output = machine(found[-1], state)
        state = output.state
    forecast = closed_loop(machine, history, 5)
    torch.testing.assert_close(forecast, torch.stack(found, 1))
    assert not forecast.requires_grad


@pytest.mark.parametrize(
    ("history", "steps", "message"),
    [
        (torch.zeros(2, 3), 1, "history must be"),
        (torch.zeros(2, 3, 3), 1, "history must be"),
        (torch.zeros(2, 0, 2), 1, "history must be"),
        (torch.zeros(2), 1, "history must be a floating-point tensor"),
        (torch.zeros(2, 3, 2).long(), 1, "history must be a floating-point tensor"),
        (torch.full((2, 3, 2), torch.inf, dtype=torch.float64), 1, "history must be finite"),
        (torch.zeros(2, 3, 2), 0, "steps must be"),
    ],
)
def test_what_cannot_be_continued(history, steps, message):
    with pytest.raises(ValueError, match=message):
        closed_loop(machine_of(2, 2), history, steps)
