"""Chaotic series in one step and in closed loop, beside an echo state network of as many nodes.

    pip install reservoirpy
    python benchmarks/chaotic.py --series santafe_laser.npy|lorenz|mackey-glass [--cut classic] [--nodes 512] [--seeds 3]

A series has mean 0 and variance 1 over its training part, on which everything is trained. Cut long: the first 6,000 values to train on, the
next 1,000 to choose by, the rest is the test. Cut classic, as in the Santa Fe competition: 1,000 values, and the 100 after them; the last
200 of the 1,000 to choose by. The error is the mean squared one over the variance of the test: 1 is what its mean would have. In closed
loop a model hears its own forecasts for 100 steps, from 30 places of the test, or from its beginning, after the 500 true values before.

- echo state network: reservoirpy's, spectral radius 0.9, ridge regression.
- lattice as a reservoir: the same of a fixed ``TanhLattice`` on a 3-D lattice, its weights pinned to that radius.
  The ridge penalty of both is the one with the best closed loop on the values to choose by.
- lattice, trained: that lattice with all of its weights learned, by truncated back-propagation (16 lanes, windows of 32, one step a value).
- line-to-cube: the preset on windows of 64 values, trained to forecast the next.
  Of these two the epoch with the best closed loop on the values to choose by is kept, looked at ten times.
- last value; seasonal: the value one period before, the period being the best lag of the training part.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.data import Stream, _lorenz, _mackey_glass
from lmn_graph.forecast import closed_loop
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice
from lmn_graph.training import configure
from lmn_graph.training.build import build_machine
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.streams import advance
from lmn_graph.training.windows import StreamBatches

STEPS, WARM, RADIUS, LOOKS, WINDOW = 100, 500, 0.9, 10, 64
RIDGES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0, 10.0)
Model = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, int], np.ndarray]]


class Cut(NamedTuple):
    """Values before ``train`` are learned, those from there to ``test`` are chosen by, ``places`` of the rest are where forecasts start."""

    train: int
    test: int
    places: int
    chosen: int


CUTS = {"long": Cut(6000, 7000, 30, 10), "classic": Cut(800, 1000, 1, 5)}


def echo_state(series: np.ndarray, train: int, nodes: int, seed: int, ridge: float) -> Model:
    """reservoirpy's, with input scaling 0.5 and no leak."""
    from reservoirpy.nodes import Reservoir, Ridge

    def made(states: np.ndarray | None = None) -> Reservoir:
        return Reservoir(nodes, sr=RADIUS, lr=1.0, input_scaling=0.5, rc_connectivity=min(1.0, 27 / nodes), seed=seed)

    reservoir, readout = made(), Ridge(ridge=ridge)
    states = reservoir.run(series[: train - 1, None])
    readout.fit(states[100:], series[101:train, None])

    def one_step(values: np.ndarray) -> np.ndarray:
        return np.asarray(readout.run(made().run(values[:, None])))[:, 0]

    def loop(histories: np.ndarray, steps: int) -> np.ndarray:
        found = np.empty((len(histories), steps))
        for history, row in zip(histories, found):
            own = made()
            state = own.run(history[:, None])[-1]
            for step in range(steps):
                row[step] = np.asarray(readout.run(state[None])).item()
                state = own.run(row[step : step + 1, None])[-1]
        return found

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


def with_ridge(machine: LatticeMachine, series: np.ndarray, train: int, ridge: float) -> None:
    """The readout that fits the training part, nothing else changed."""
    with torch.no_grad():
        states = machine.stream(torch.from_numpy(series[None, : train - 1, None]).float()).trajectory.activity[0].double()[100:]
    y = torch.from_numpy(series[101:train])
    a = torch.cat([states, states.new_ones(len(states), 1)], 1)
    weight = torch.linalg.solve(a.T @ a + ridge * torch.eye(a.size(1), dtype=a.dtype), a.T @ y)
    with torch.no_grad():
        machine.readout.linear.weight.copy_(weight[None, :-1])
        machine.readout.linear.bias.copy_(weight[-1:])


def learn(machine: LatticeMachine, batches: Callable[[], Iterator[Tensor]], epochs: int, rate: float) -> Iterator[None]:
    """An optimiser on losses, epoch after epoch."""
    optimizer = torch.optim.AdamW(machine.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for loss in batches():
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(machine.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        yield


def on_stream(machine: LatticeMachine, series: np.ndarray, seed: int) -> Callable[[], Iterator[Tensor]]:
    """Truncated back-propagation through lanes of a stream."""
    settings = StreamSettings(32)
    stream = StreamBatches(Stream(series[:, None].astype(np.float32)), settings, min(16, len(series) // 64), shuffle=True, seed=seed)

    def losses() -> Iterator[Tensor]:
        state = None
        for window in stream:
            output, state = advance(machine, window, None if window.first else state, settings)
            yield torch.nn.functional.mse_loss(output.prediction, window.y)

    return losses


def on_windows(machine: LatticeMachine, series: np.ndarray, seed: int) -> Callable[[], Iterator[Tensor]]:
    """Windows and the value after each, shuffled."""
    windows = torch.from_numpy(series).float().unfold(0, WINDOW + 1, 1)
    generator = torch.Generator().manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        for rows in torch.randperm(len(windows), generator=generator).split(64):
            yield torch.nn.functional.mse_loss(machine(windows[rows, :-1]).prediction, windows[rows, -1:])

    return losses


def best(machine: LatticeMachine, epochs: Iterator[None], count: int, series: np.ndarray, cut: Cut) -> Model:
    """The machine as it was at the look with the best closed loop on the values to choose by."""
    found: tuple[float, dict[str, Tensor]] = (np.inf, {})
    for epoch, _ in enumerate(epochs, 1):
        if epoch % max(1, count // LOOKS) == 0:
            error = errors(series[: cut.test], of_machine(machine), cut.train, cut.chosen)[1]
            found = min(found, (error, copy.deepcopy(machine.state_dict())), key=lambda pair: pair[0])
    machine.load_state_dict(found[1])
    return of_machine(machine)


def line_to_cube(seed: int) -> LatticeMachine:
    """The preset, for windows of values."""
    torch.manual_seed(seed)
    return build_machine(configure("line-to-cube"), (WINDOW,), 1)


def of_machine(machine: LatticeMachine) -> Model:
    windows = machine.projector.in_shape == (WINDOW,)

    def batched(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows if windows else rows[..., None]).float()

    def one_step(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            if windows:
                found = machine.predict(batched(values).unfold(0, WINDOW, 1))[:, 0]
                return torch.nn.functional.pad(found, (WINDOW - 1, 0)).double().numpy()
            return machine.stream(batched(values[None])).prediction[0, :, 0].double().numpy()

    def loop(histories: np.ndarray, steps: int) -> np.ndarray:
        try:
            return closed_loop(machine, batched(histories), steps).flatten(1).double().numpy()
        except ValueError:  # it left all bounds
            return np.full((len(histories), steps), np.inf)

    return one_step, loop


def seasonal(series: np.ndarray, train: int) -> Model:
    """The value one period before."""
    lags = range(2, 200)
    period = min(lags, key=lambda lag: np.square(series[lag:train] - series[: train - lag]).mean())

    def one_step(values: np.ndarray) -> np.ndarray:
        return np.roll(values, period - 1)

    return one_step, lambda histories, steps: np.stack([np.resize(history[-period:], steps) for history in histories])


def errors(series: np.ndarray, model: Model, first: int, count: int) -> tuple[float, float]:
    """Normalised errors of one step and of the closed loop on the values from ``first`` on."""
    one_step, loop = model
    variance = series[first:].var()
    start = first - WARM
    single = np.square(one_step(series[start:-1])[WARM - 1 :] - series[first:]).mean() / variance
    places = np.linspace(first, len(series) - STEPS, count).astype(int)
    found = loop(np.stack([series[place - WARM : place] for place in places]), STEPS)
    wanted = np.stack([series[place : place + STEPS] for place in places])
    return float(single), float(np.square(found - wanted).mean() / variance)


def steadiest(make: Callable[[int, float], Model], series: np.ndarray, cut: Cut) -> Model:
    """That of the ridge penalty with the best closed loop on the values to choose by, fitted again with these."""
    ridge = min(RIDGES, key=lambda ridge: errors(series[: cut.test], make(cut.train, ridge), cut.train, cut.chosen)[1])
    return make(cut.test, ridge)


def read(name: str) -> np.ndarray:
    """The values of a file, or 10,000 generated ones."""
    if name == "lorenz":
        return _lorenz.integrate(11_000, 0.02, np.array([1.0, 1.0, 20.0]))[1000:, 0]
    if name == "mackey-glass":
        return _mackey_glass.integrate(10_500, 17, 0.9)[500:]
    return np.load(name, allow_pickle=False).astype(np.float64).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", required=True, help='an .npy file, or "lorenz" or "mackey-glass", generated')
    parser.add_argument("--cut", choices=list(CUTS), default="long")
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of the trained models; 30, and 200 for the classic cut")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cut, nodes = CUTS[given.cut], given.nodes
    epochs = given.epochs or (30 if given.cut == "long" else 200)
    series = read(given.series)
    series = series[: cut.test + STEPS] if given.cut == "classic" else series
    series = (series - series[: cut.train].mean()) / series[: cut.train].std()

    def reservoir(train: int, seed: int, ridge: float) -> Model:
        machine = lattice(nodes, seed)
        with_ridge(machine, series, train, ridge)
        return of_machine(machine)

    def trained(machine: LatticeMachine, batches: Callable[..., Callable[[], Iterator[Tensor]]], seed: int, rate: float) -> Model:
        return best(machine, learn(machine, batches(machine, series[: cut.train], seed), epochs, rate), epochs, series, cut)

    models: dict[str, Callable[[int], Model]] = {
        "last value": lambda seed: (lambda values: values, lambda histories, steps: np.repeat(histories[:, -1:], steps, 1)),
        "seasonal": lambda seed: seasonal(series, cut.train),
        f"echo state network, {nodes} nodes": lambda seed: steadiest(
            lambda train, ridge: echo_state(series, train, nodes, seed, ridge), series, cut
        ),
        f"lattice as a reservoir, {nodes} nodes": lambda seed: steadiest(lambda train, ridge: reservoir(train, seed, ridge), series, cut),
        f"lattice, trained, {nodes} nodes": lambda seed: trained(lattice(nodes, seed), on_stream, seed, 3e-3),
        "line-to-cube, windows of 64": lambda seed: trained(line_to_cube(seed), on_windows, seed, 5e-3),
    }
    print("| model | one step | 100 steps in closed loop |\n|---|---|---|")
    for name, make in models.items():
        found = [
            errors(series, make(seed), cut.test, cut.places) for seed in range(1 if name in ("last value", "seasonal") else given.seeds)
        ]
        cells = [f"{statistics.fmean(v):.2g}" + (f" ± {statistics.stdev(v):.1g}" if len(v) > 1 else "") for v in zip(*found)]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
