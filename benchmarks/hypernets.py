"""Every hypernetwork preset beside standard learners, on one table, with one time budget for all.

    python benchmarks/hypernets.py FOLDER/letter.csv --target letter
    python benchmarks/hypernets.py FOLDER/magic.csv --target class
    python benchmarks/hypernets.py FOLDER/diamonds.csv --target price --log price,carat

Seed s draws the split, the initial weights and the order of the batches. A preset trains for as many whole epochs as fit into the budget
of CPU seconds on one thread, which a few timed steps tell beforehand; its learning-rate schedule ends with them, and the epoch with the
best validation loss is kept. The perceptron trains epoch after epoch until it has used the budget up or its training loss has stopped
falling. The other learners are fitted to their end. All of these see the training and the validation rows together, so that none has seen
fewer rows than a preset; all are scored once, on the same test rows. The perceptron has as many parameters as the largest preset. Seconds
are CPU seconds and include what a run does besides training: validation, dynamics, pictures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor

from lmn_graph.data import Splits
from lmn_graph.training import configure, train
from lmn_graph.training.batches import Batches
from lmn_graph.training.build import build_loss, build_machine, load_data
from lmn_graph.training.measure import dynamics, quality

PRESETS = (
    "hyper-router",
    "hyper-factored",
    "hyper-implicit",
    "hyper-lowrank",
    "hyper-emitter-listener",
    "hyper-act",
    "hyper-siren-regression",
    "higgs-lowrank",
)


class Score(NamedTuple):
    """What one learner reached with one seed: accuracy or R², how many numbers it keeps, CPU seconds, and epochs where it has any."""

    value: float
    size: int
    seconds: float
    epochs: int | None = None


def seconds_of_an_epoch(config: dict[str, Any], splits: Splits, steps: int = 12) -> float:
    """CPU seconds of training on all batches once and measuring once, from a few steps; nothing is kept."""
    torch.manual_seed(0)
    machine = build_machine(config, splits.in_shape, splits.out_features)
    loss = build_loss(config, splits.task, 0, machine)
    optimizer = torch.optim.AdamW(machine.parameters(), lr=1e-4)
    batches = Batches(splits.train.x, splits.train.y, config["trainer"]["batch_size"], shuffle=True)
    taken, started = 0, 0.0
    for x, y in batches:
        if taken == 2:  # the first ones prepare what is prepared once
            started = time.process_time()
        total, _ = loss(machine(x), y, machine=machine, x=x)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        taken += 1
        if taken == steps:
            break
    training = (time.process_time() - started) / (taken - 2) * len(batches)
    started = time.process_time()
    machine.eval()
    with torch.no_grad():
        quality(machine, Batches(splits.validation.x, splits.validation.y, 256), splits.task)
        dynamics(machine, splits.validation.x[:64])
    return training + time.process_time() - started


def of_preset(name: str, options: Sequence[str], seed: int, budget: float) -> Score:
    """A run of ``lmn train`` whose epochs fit into the budget."""
    config = configure(name, [], [*options, "--trainer.threads", "1", "--seed", str(seed), "--data.seed", str(seed)])
    splits = load_data(config)
    config["trainer"]["epochs"] = epochs = max(1, int(budget / seconds_of_an_epoch(config, splits)))
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", progress=False)
    metrics = run.metrics
    value = metrics["test/accuracy"] if splits.task == "classification" else metrics["test/r2"]
    return Score(value, run.record["parameters"], time.process_time() - started, epochs)


def baselines(splits: Splits, seed: int) -> dict[str, Callable[[], Any]]:
    """Learners by name, but for the perceptron."""
    if splits.task == "classification":
        return {
            "logistic regression": lambda: LogisticRegression(max_iter=2000, tol=1e-3),
            "random forest": lambda: RandomForestClassifier(300, random_state=seed, n_jobs=1),
            "gradient boosting": lambda: HistGradientBoostingClassifier(max_iter=300, early_stopping=True, random_state=seed),
        }
    return {
        "ridge regression": lambda: Ridge(),
        "random forest": lambda: RandomForestRegressor(300, random_state=seed, n_jobs=1),
        "gradient boosting": lambda: HistGradientBoostingRegressor(max_iter=300, early_stopping=True, random_state=seed),
    }


def of_baseline(make: Callable[[], Any], rows: tuple[np.ndarray, ...]) -> Score:
    """A learner fitted to its end."""
    x, y, x_test, y_test = rows
    model = make()
    started = time.process_time()
    model.fit(x, y)
    seconds = time.process_time() - started
    return Score(float(model.score(x_test, y_test)), _size(model), seconds)


def of_perceptron(splits: Splits, rows: tuple[np.ndarray, ...], seed: int, budget: float, parameters: int) -> Score:
    """One hidden layer, Adam; epochs until the budget is used up or ten in a row bring nothing."""
    x, y, x_test, y_test = rows
    outputs = splits.out_features
    hidden = max(1, round((parameters - outputs) / (x.shape[1] + 1 + outputs)))
    kind = MLPClassifier if splits.task == "classification" else MLPRegressor
    model = kind(hidden_layer_sizes=(hidden,), random_state=seed)
    known = {"classes": np.arange(outputs)} if splits.task == "classification" else {}
    best, waited, epochs, started = np.inf, 0, 0, time.process_time()
    while waited < 10 and time.process_time() - started < budget:
        model.partial_fit(x, y, **known)
        epochs += 1
        waited = 0 if model.loss_ < best - 1e-4 else waited + 1
        best = min(best, model.loss_)
    return Score(float(model.score(x_test, y_test)), _size(model), time.process_time() - started, epochs)


def _size(model: Any) -> int:
    """Numbers that a fitted model keeps: coefficients, or nodes of trees."""
    if hasattr(model, "estimators_"):
        return sum(tree.tree_.node_count for tree in model.estimators_)
    if hasattr(model, "_predictors"):
        return sum(tree.nodes.size for trees in model._predictors for tree in trees)
    if hasattr(model, "coefs_"):
        return sum(array.size for array in (*model.coefs_, *model.intercepts_))
    return model.coef_.size + np.size(model.intercept_)


def _rows(splits: Splits) -> tuple[np.ndarray, ...]:
    """Training and validation rows together, and the test rows."""
    parts = splits.train, splits.validation
    x = np.concatenate([part.x.flatten(1).numpy() for part in parts])
    y = np.concatenate([part.y.numpy() for part in parts])
    x_test, y_test = splits.test.x.flatten(1).numpy(), splits.test.y.numpy()
    return (x, y, x_test, y_test) if splits.task == "classification" else (x, y[:, 0], x_test, y_test[:, 0])


def _spread(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a .csv file")
    parser.add_argument("--target", required=True)
    parser.add_argument("--log", default="", help="columns whose logarithm is taken")
    parser.add_argument("--budget", type=float, default=45.0, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--presets", default=",".join(PRESETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = ["--data", arguments.table, "--data.target", arguments.target]
    options += ["--data.log", arguments.log] if arguments.log else []
    presets = [name for name in arguments.presets.split(",") if name]
    scores: dict[str, list[Score]] = {}
    for seed in range(arguments.seeds):
        splits = load_data(configure("hyper-router", [], [*options, "--data.seed", str(seed)]))
        for name in presets:
            scores.setdefault(f"`{name}`", []).append(of_preset(name, options, seed, arguments.budget))
            print(f"seed {seed}, {name}: {scores[f'`{name}`'][-1]}", file=sys.stderr, flush=True)
        largest = max((scores[f"`{name}`"][-1].size for name in presets), default=50_000)
        rows = _rows(splits)
        for name, make in baselines(splits, seed).items():
            scores.setdefault(name, []).append(of_baseline(make, rows))
        scores.setdefault("perceptron", []).append(of_perceptron(splits, rows, seed, arguments.budget, largest))
    score = "test accuracy, %" if splits.task == "classification" else "test R², %"
    print(f"{splits.describe()}; {arguments.seeds} seeds; a budget of {arguments.budget:g} CPU seconds for a training\n")
    print(f"| | {score} | parameters | epochs | CPU seconds |\n| --- | --- | --- | --- | --- |")
    for name, found in scores.items():
        epochs = [one.epochs for one in found if one.epochs is not None]
        cells = (
            name,
            _spread([100 * one.value for one in found], 2),
            f"{statistics.mean(one.size for one in found):,.0f}",
            f"{statistics.mean(epochs):.0f}" if epochs else "",
            f"{statistics.mean(one.seconds for one in found):.0f}",
        )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
