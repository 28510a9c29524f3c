"""Chaotic series in one step and in closed loop, beside an echo state network of as many nodes.

    pip install reservoirpy
    python benchmarks/chaotic.py --laser santafe_laser.npy|lorenz|mackey-glass [--nodes 512] [--seeds 3]

The laser's 10,093 values have mean 0 and variance 1 over the first 6,000, on which everything is trained; those after 7,000 are the test.
Ridge penalties are those of the best closed loop on the values between. The error is the mean squared one over the variance of the test: 1
is what its mean would have. In closed loop a model hears its own forecasts for 100 steps, from 30 places of the test, after the 500 true
values before them.

- echo state network: reservoirpy's, spectral radius 0.9, ridge regression.
- lattice as a reservoir: the same of a fixed ``TanhLattice`` on a 3-D lattice, its weights pinned to that radius.
- lattice, trained: that lattice with all of its weights learned, by truncated back-propagation (16 lanes, windows of 32, one step a value).
- last value; seasonal: the value one period before, the period being the best lag of the training part.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.data import Stream
from lmn_graph.data._lorenz import integrate_lorenz
from lmn_graph.data._mackey_glass import integrate
from lmn_graph.forecast import closed_loop
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.streams import advance
from lmn_graph.training.windows import StreamBatches

TRAIN, TEST, STEPS, PLACES, WARM, RADIUS = 6000, 7000, 100, 30, 500, 0.9
RIDGES = (1e-4, 1e-2, 1.0, 10.0)
Model = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, int], np.ndarray]]


def echo_state(series: np.ndarray, nodes: int, seed: int, ridge: float) -> Model:
    """reservoirpy's, with input scaling 0.5 and no leak."""
    from reservoirpy.nodes import Reservoir, Ridge

    def made(states: np.ndarray | None = None) -> Reservoir:
        return Reservoir(nodes, sr=RADIUS, lr=1.0, input_scaling=0.5, rc_connectivity=min(1.0, 27 / nodes), seed=seed)

    reservoir, readout = made(), Ridge(ridge=ridge)
    states = reservoir.run(series[: TRAIN - 1, None])
    readout.fit(states[100:], series[101:TRAIN, None])

    def one_step(values: np.ndarray) -> np.ndarray:
        return np.asarray(readout.run(made().run(values[:, None])))[:, 0]

    def loop(history: np.ndarray, steps: int) -> np.ndarray:
        own = made()
        state, found = own.run(history[:, None])[-1], []
        for _ in range(steps):
            found.append(float(np.asarray(readout.run(state[None])).item()))
            state = own.run(np.array([[found[-1]]]))[-1]
        return np.array(found)

    return one_step, loop


def lattice(nodes: int, seed: int) -> LatticeMachine:
    """A ``TanhLattice`` on a cube with random weights of the spectral radius, one step a value."""
    torch.manual_seed(seed)
    graph = topologies.grid(round(nodes ** (1 / 3)), 3)
    graph.edge_weight = torch.randn(graph.num_edges)
    graph = topologies.nulls.SpectralRadius(RADIUS)(graph)
    machine = LatticeMachine(graph, Linear((1,), graph), TanhLattice(graph), Rate(graph, 1, steps=1), steps=1)
    with torch.no_grad():
        machine.projector.linear.weight.uniform_(-0.5, 0.5)
        machine.projector.linear.bias.zero_()
    return machine


def with_ridge(machine: LatticeMachine, series: np.ndarray, ridge: float) -> None:
    """The readout that fits the training part, nothing else changed."""
    with torch.no_grad():
        states = machine.stream(torch.from_numpy(series[None, : TRAIN - 1, None]).float()).trajectory.activity[0].double()[100:]
    y = torch.from_numpy(series[101:TRAIN])
    a = torch.cat([states, states.new_ones(len(states), 1)], 1)
    weight = torch.linalg.solve(a.T @ a + ridge * torch.eye(a.size(1), dtype=a.dtype), a.T @ y)
    with torch.no_grad():
        machine.readout.linear.weight.copy_(weight[None, :-1])
        machine.readout.linear.bias.copy_(weight[-1:])


def trained(machine: LatticeMachine, series: np.ndarray, epochs: int, seed: int) -> None:
    """Truncated back-propagation through everything."""
    settings = StreamSettings(32)
    batches = StreamBatches(Stream(series[:TRAIN, None].astype(np.float32)), settings, 16, shuffle=True, seed=seed)
    optimizer = torch.optim.AdamW(machine.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    for _ in range(epochs):
        state = None
        for window in batches:
            output, state = advance(machine, window, None if window.first else state, settings)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(output.prediction, window.y).backward()
            torch.nn.utils.clip_grad_norm_(machine.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def of_machine(machine: LatticeMachine) -> Model:
    def batched(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[None, :, None]).float()

    def one_step(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return machine.stream(batched(values)).prediction[0, :, 0].double().numpy()

    def loop(history: np.ndarray, steps: int) -> np.ndarray:
        return closed_loop(machine, batched(history), steps)[0, :, 0].double().numpy()

    return one_step, loop


def seasonal(series: np.ndarray) -> Model:
    """The value one period before."""
    lags = range(2, 200)
    period = min(lags, key=lambda lag: np.square(series[lag:TRAIN] - series[: TRAIN - lag]).mean())

    def one_step(values: np.ndarray) -> np.ndarray:
        return np.roll(values, period - 1)

    return one_step, lambda history, steps: np.resize(history[-period:], steps)


def errors(series: np.ndarray, model: Model, first: int = TEST, count: int = PLACES) -> tuple[float, float]:
    """Normalised errors of one step and of the closed loop on the values from ``first`` on."""
    one_step, loop = model
    variance = series[first:].var()
    start = first - WARM
    single = np.square(one_step(series[start:-1])[WARM - 1 :] - series[first:]).mean() / variance
    places = np.linspace(first, len(series) - STEPS, count).astype(int)
    closed = [np.square(loop(series[place - WARM : place], STEPS) - series[place : place + STEPS]).mean() for place in places]
    return float(single), float(np.mean(closed) / variance)


def steadiest(make: Callable[[float], Model], series: np.ndarray) -> Model:
    """That of the ridge penalty whose closed loop is best on the values between training and test."""
    models = [make(ridge) for ridge in RIDGES]
    return min(models, key=lambda model: errors(series[:TEST], model, TRAIN, 10)[1])


def read(name: str) -> np.ndarray:
    """The values of a file, or 10,000 generated ones."""
    if name == "lorenz":
        return integrate_lorenz(11_000, 0.02, np.array([1.0, 1.0, 20.0]))[1000:, 0]
    if name == "mackey-glass":
        return integrate(10_500, 17, 0.9)[500:]
    return np.load(name, allow_pickle=False).astype(np.float64).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laser", required=True, help='an .npy file of at least 7,700 values, or "lorenz" or "mackey-glass", generated')
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    series = read(given.laser)
    series = (series - series[:TRAIN].mean()) / series[:TRAIN].std()

    def reservoir(seed: int, ridge: float) -> Model:
        machine = lattice(given.nodes, seed)
        with_ridge(machine, series, ridge)
        return of_machine(machine)

    def learned(seed: int) -> Model:
        machine = lattice(given.nodes, seed)
        trained(machine, series, given.epochs, seed)
        return of_machine(machine)

    models: dict[str, Callable[[int], Model]] = {
        "last value": lambda seed: (lambda values: values, lambda history, steps: np.full(steps, history[-1])),
        "seasonal": lambda seed: seasonal(series),
        f"echo state network, {given.nodes} nodes": lambda seed: steadiest(
            lambda ridge: echo_state(series, given.nodes, seed, ridge), series
        ),
        f"lattice as a reservoir, {given.nodes} nodes": lambda seed: steadiest(lambda ridge: reservoir(seed, ridge), series),
        f"lattice, trained, {given.nodes} nodes": learned,
    }
    print("| model | one step | 100 steps in closed loop |\n|---|---|---|")
    for name, make in models.items():
        found = [errors(series, make(seed)) for seed in range(1 if name in ("last value", "seasonal") else given.seeds)]
        cells = [f"{statistics.fmean(v):.4f}" + (f" ± {statistics.stdev(v):.4f}" if len(v) > 1 else "") for v in zip(*found)]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
