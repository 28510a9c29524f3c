"""Accuracy of the presets beside standard classifiers, on the same rows.

    python benchmarks/accuracy.py digits [--seeds 3]
    python benchmarks/accuracy.py mnist --root DIR
    python benchmarks/accuracy.py block-mnist --root DIR
    python benchmarks/accuracy.py letter --root letter.csv
    python benchmarks/accuracy.py tanh-lattice|euclidean3d|smartnet
    python benchmarks/accuracy.py mackey-glass
    python benchmarks/accuracy.py series --root laser.npy
    python benchmarks/accuracy.py tabular-soc --root letter.csv
    python benchmarks/accuracy.py filter --root DIR          # settings of its own: benchmarks/filter_accuracy.py
    python benchmarks/accuracy.py vision --mnist DIR         # presets for pictures: benchmarks/vision_accuracy.py

Seed s draws the split, the initial weights and the order of the batches. The lattice trains on the training rows and keeps the epoch
with the best validation loss; the other classifiers are fitted on the training and the validation rows together, so that nobody has
seen more than the lattice may. All are scored once, on the same test rows. The multilayer perceptron has as many parameters as the
lattice. Times are CPU seconds of all threads, which other work on the machine changes less than the wall clock; those of the lattice
include everything a run does, pictures too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC
from torch import Tensor

from lmn_graph import criticality
from lmn_graph.data import Splits
from lmn_graph.losses.base import continued
from lmn_graph.machine import LatticeMachine
from lmn_graph.training import configure, train
from lmn_graph.training.build import load_data
from lmn_graph.training.measure import dynamics as continuous_dynamics

FLIPS = 4096  # damage dies in most twin runs, so its mean needs many


@dataclass(frozen=True)
class Preset:
    """A preset of the library, how many seeds it gets by default, what stands beside it, and the options that name its data."""

    name: str
    seeds: int
    beside: tuple[str, ...]
    data: tuple[str, ...] = ("--data.root", "{root}")


FORECASTS = ("last value", "ridge regression", "random forest", "MLP")
PRESETS = {
    "digits": Preset("soc-lattice", 3, ("random forest", "MLP", "RBF SVM", "logistic regression")),
    "mnist": Preset("mnist", 1, ("random forest", "MLP", "logistic regression")),
    "block-mnist": Preset("block-mnist", 1, ("random forest", "MLP", "logistic regression")),
    "letter": Preset(
        "blocksparse-helena", 3, ("random forest", "MLP", "RBF SVM", "logistic regression"), ("--data", "{root}", "--data.target", "letter")
    ),
    "tabular-soc": Preset(
        "tabular-soc", 1, ("random forest", "MLP", "logistic regression"), ("--data", "{root}", "--data.target", "letter")
    ),
    **{
        name: Preset(name, 3, ("random forest", "MLP", "RBF SVM", "logistic regression"))
        for name in ("tanh-lattice", "euclidean3d", "smartnet")
    },
    "mackey-glass": Preset("line-to-cube", 3, FORECASTS),
    "series": Preset("line-to-cube", 3, FORECASTS, ("--data", "{root}")),
}


def baselines(parameters: int, inputs: int, classes: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Classifiers by name; the perceptron's hidden layer gives it about ``parameters`` parameters."""
    hidden = max(1, round((parameters - classes) / (inputs + 1 + classes)))
    large = parameters > 200_000  # these stop on a tenth of their rows: to the end would take an hour
    return {
        "random forest": lambda: RandomForestClassifier(n_estimators=100 if large else 300, random_state=seed),
        "MLP": lambda: MLPClassifier(
            (hidden,), early_stopping=large, n_iter_no_change=5 if large else 10, max_iter=1000, random_state=seed
        ),
        "RBF SVM": lambda: SVC(C=10.0, gamma="scale"),
        "logistic regression": lambda: LogisticRegression(C=1.0, max_iter=2000, tol=1e-3),
    }


def forecasters(parameters: int, inputs: int, seed: int) -> dict[str, Callable[[], Any]]:
    """The same for a regression on the window of a series."""
    hidden = max(1, round((parameters - 1) / (inputs + 2)))
    return {
        "last value": LastValue,
        "ridge regression": lambda: Ridge(alpha=1e-3),
        "random forest": lambda: RandomForestRegressor(n_estimators=100, random_state=seed),
        "MLP": lambda: MLPRegressor(hidden_layer_sizes=(hidden,), max_iter=1000, random_state=seed),
    }


class LastValue:
    """Tomorrow is as today."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.coef_ = self.intercept_ = np.zeros(0)

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        return float(r2_score(y, x[:, -1]))


def size(model: Any) -> int:
    """Numbers that a fitted model keeps: coefficients, nodes of trees, support vectors with their weights."""
    if isinstance(model, (RandomForestClassifier, RandomForestRegressor)):
        return sum(tree.tree_.node_count for tree in model.estimators_)
    if isinstance(model, SVC):
        return model.support_vectors_.size + model.dual_coef_.size + model.intercept_.size
    if isinstance(model, (MLPClassifier, MLPRegressor)):
        return sum(array.size for array in (*model.coefs_, *model.intercepts_))
    return model.coef_.size + model.intercept_.size


@torch.no_grad()
def dynamics(machine: LatticeMachine, x: Tensor, seed: int = 0) -> dict[str, float]:
    """Branching ratio (damage₁₀/damage₀)^{1/10} over ``FLIPS`` twin runs, mean rate, shares of silent and of saturated neurons.

    A neuron is silent if it fires for no row in any step, saturated if it fires for every row in every step. For rules that do not spike
    the Lyapunov exponent and the mean magnitude.
    """
    if not machine.rule.spiking:
        found = continuous_dynamics(machine, x, seed=seed)
        return {"Lyapunov exponent": found["lyapunov"], "mean magnitude": found["rate"]}
    training = machine.training
    machine.eval()
    activity = machine(x).trajectory.activity.mean((0, 1))
    generator = torch.Generator().manual_seed(seed)
    damages = []
    for rows in (torch.arange(FLIPS) % len(x)).split(1024):
        state, drive, context = continued(machine(x[rows]), machine=machine, x=x[rows], samples=len(rows), steps=11)
        damages.append(criticality.damage_spreading(machine.rule, state, drive, steps=10, generator=generator, context=context))
    machine.train(training)
    return {
        "branching ratio": criticality.branching_ratio(torch.cat(damages, 1)),
        "spikes per neuron and step": float(activity.mean()),
        "silent, %": float((activity == 0).float().mean()),
        "saturated, %": float((activity == 1).float().mean()),
    }


class Watch(Callback):
    """Measures the dynamics before training and at the end of burn-in."""

    def __init__(self, x: Tensor, burn_in: int) -> None:
        self.x, self.burn_in = x, burn_in
        self.found: dict[str, dict[str, float]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found["before"] = dynamics(pl_module.machine, self.x)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == self.burn_in:
            self.found["burn-in"] = dynamics(pl_module.machine, self.x)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Trained:
    """What one run of the lattice gave; ``dynamics`` before training, after burn-in (where there is one) and of the kept model."""

    accuracy: float
    parameters: int
    seconds: float
    dynamics: dict[str, dict[str, float]]
    splits: Splits


def run(preset: str, seed: int, options: Sequence[str] = ()) -> Trained:
    """Train a preset with options of ``lmn train`` in a temporary folder."""
    config = configure(preset, [], [*options, "--seed", str(seed)])
    if "seed" in config["data"]:
        config["data"]["seed"] = seed
    splits = load_data(config)
    x = splits.test.x[:1024]
    watch = Watch(x, config["loss"]["burn_in"])
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        finished = train(config, Path(folder) / "run", progress=False, callbacks=[watch])
        seconds = time.process_time() - started
        found = {**watch.found, "end": dynamics(finished.machine(), x)}
    score = finished.metrics["test/accuracy" if splits.task == "classification" else "test/r2"]
    return Trained(score, finished.record["parameters"], seconds, found, splits)


def fit(name: str, trained: Trained, seed: int) -> tuple[float, float, float]:
    """Accuracy, numbers kept and CPU seconds of a classifier fitted on the training and the validation rows of a run."""
    splits = trained.splits
    parts = splits.train, splits.validation
    x = np.concatenate([part.x.flatten(1).numpy() for part in parts])
    y = np.concatenate([part.y.numpy() for part in parts])
    if splits.task == "classification":
        model = baselines(trained.parameters, x.shape[1], splits.out_features, seed)[name]()
    else:
        model, y = forecasters(trained.parameters, x.shape[1], seed)[name](), y[:, 0]
    started = time.process_time()
    model.fit(x, y)
    seconds = time.process_time() - started
    target = splits.test.y.numpy() if splits.task == "classification" else splits.test.y[:, 0].numpy()
    return float(model.score(splits.test.x.flatten(1).numpy(), target)), float(size(model)), seconds


def spread(values: Sequence[float], digits: int = 2, scale: float = 1.0) -> str:
    """mean ± standard deviation, of as many values as there are."""
    scaled = [scale * value for value in values]
    text = f"{statistics.mean(scaled):.{digits}f}"
    return f"{text} ± {statistics.stdev(scaled):.{digits}f}" if len(scaled) > 1 else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    if sys.argv[1:2] == ["filter"]:
        import filter_accuracy

        return filter_accuracy.main(sys.argv[2:])
    if sys.argv[1:2] == ["vision"]:
        import vision_accuracy

        return vision_accuracy.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=[*PRESETS, "filter", "vision"])
    parser.add_argument("--seeds", type=int, help="number of seeds, from 0")
    parser.add_argument("--root", help="folder of the data, where they are files")
    arguments = parser.parse_args()
    preset = PRESETS[arguments.data]
    options = [] if arguments.root is None else [option.format(root=arguments.root) for option in preset.data]
    runs, scores = [], {name: [] for name in preset.beside}
    for seed in range(arguments.seeds or preset.seeds):
        runs.append(run(preset.name, seed, options))
        for name, found in scores.items():
            found.append(fit(name, runs[-1], seed))
    print(runs[0].splits.describe() + f"; {len(runs)} seed{'s' * (len(runs) > 1)}\n")
    rows = [[f"lattice (`lmn train {preset.name}`)", *_columns([(r.accuracy, float(r.parameters), r.seconds) for r in runs])]]
    rows += [[name, *_columns(found)] for name, found in scores.items()]
    score = "test accuracy, %" if runs[0].splits.task == "classification" else "test R², %"
    print(table(["", score, "parameters", "CPU seconds"], rows), end="\n\n")
    measured = {"branching ratio": (3, 1), "spikes per neuron and step": (3, 1), "silent, %": (1, 100), "saturated, %": (1, 100)}
    if "Lyapunov exponent" in runs[0].dynamics["end"]:
        measured = {"Lyapunov exponent": (3, 1), "mean magnitude": (3, 1)}
    rows = [
        [when, *(spread(_values(runs, when)(name), digits, scale) for name, (digits, scale) in measured.items())]
        for when in runs[0].dynamics
    ]
    print(table(["lattice", *measured], rows))


def _columns(found: Sequence[tuple[float, float, float]]) -> list[str]:
    accuracy, parameters, seconds = zip(*found)
    return [spread(accuracy, 2, 100), f"{statistics.mean(parameters):,.0f}", f"{statistics.mean(seconds):.1f}"]


def _values(runs: Sequence[Trained], when: str) -> Callable[[str], list[float]]:
    return lambda name: [one.dynamics[when][name] for one in runs]


if __name__ == "__main__":
    main()
