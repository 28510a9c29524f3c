"""Hourly EUR/USD, walk-forward: the price presets beside what needs no lattice, or no model at all.

    python benchmarks/finance.py --file ohlcv/EURUSD_60.csv [--folds 5] [--seeds 3] [--epochs 3] [--only direction|return]

The dates are cut into folds + 1 equal parts. Fold k is tested on part k + 1 and trained on all parts before it, the last tenth of which
is for validation; window + horizon bars are left out between each two. Every fold is a dataset of its own, its scales those of its
training bars. The presets keep the epoch with the lowest validation loss; ridge and logistic regression take all features of a window as
they are, with a strength chosen by the same validation rows. Mean and standard deviation are over folds and seeds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from lmn_graph import data
from lmn_graph.data import Split, Splits
from lmn_graph.training import configure, train

PRESETS = {"direction": "pc-crypto", "return": "stsoc-finance"}
STRENGTHS = (1e-4, 1e-2, 1.0)  # of the penalty, as a multiple of the number of rows for ridge, its inverse for the other
Scores = dict[str, float]


def folds(file: Path, count: int, folder: Path) -> Iterator[tuple[Path, float]]:
    """Files that end where each fold ends, and the share of their bars that is for the test."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    part = len(lines) // (count + 1)
    for fold in range(1, count + 1):
        path = folder / f"FOLD{fold}_60.csv"
        path.write_text("".join(lines[len(lines) - (count - fold) * part - (fold + 1) * part : len(lines) - (count - fold) * part]))
        yield path, 1 / (fold + 1)


def score(prediction: np.ndarray, truth: np.ndarray, task: str) -> Scores:
    """Share of right directions; of returns also R² against the mean of the test rows. A return of 0 counts as down."""
    if task == "direction":
        return {"accuracy": float((prediction == truth).mean())}
    error, spread = ((truth - prediction) ** 2).sum(), ((truth - truth.mean()) ** 2).sum()
    return {"r2": float(1 - error / spread), "accuracy": float(((prediction > 0) == (truth > 0)).mean())}


def rows(split: Split) -> np.ndarray:
    """Windows as vectors."""
    return split.x[:].flatten(1).numpy()


def truth_of(splits: Splits, split: Split) -> np.ndarray:
    """Class numbers, or returns."""
    return split.y.numpy() if splits.task == "classification" else splits.encoder.target.unscale(split.y)[:, 0].numpy()


def plain(splits: Splits, task: str) -> dict[str, Scores]:
    """Scores of the baselines of the data and of a linear model."""
    truth = truth_of(splits, splits.test)
    found: dict[str, Scores] = {}
    for name, guess in splits.encoder.baselines(splits.test, splits.train).items():
        value = guess.argmax(1).numpy() if task == "direction" else splits.encoder.target.unscale(guess)[:, 0].numpy()
        found[name.replace("_", " ")] = score(value, truth, task)
    x, y = rows(splits.train), splits.train.y.numpy()
    held_x, held_y = rows(splits.validation), splits.validation.y.numpy()
    if task == "direction":
        fitted = [LogisticRegression(C=strength, max_iter=500).fit(x, y) for strength in STRENGTHS]
        best = min(fitted, key=lambda model: float(-np.log(model.predict_proba(held_x)[np.arange(len(held_y)), held_y]).mean()))
        return found | {"logistic regression": score(best.predict(rows(splits.test)), truth, task)}
    ridges = [Ridge(alpha=len(x) * strength).fit(x, y) for strength in (*STRENGTHS, 100.0)]
    closest = min(ridges, key=lambda model: float(((model.predict(held_x).reshape(held_y.shape) - held_y) ** 2).mean()))
    guess = torch.from_numpy(closest.predict(rows(splits.test)).reshape(-1, 1))
    return found | {"ridge regression": score(splits.encoder.target.unscale(guess)[:, 0].numpy(), truth, task)}


def lattice(task: str, options: dict[str, object], splits: Splits, seed: int, epochs: int, folder: Path) -> Scores:
    """The preset, trained on a fold."""
    given = [part for name, value in options.items() for part in (f"--data.{name}", str(value))]
    config = configure(PRESETS[task], [], [*given, "--trainer.epochs", str(epochs), "--seed", str(seed)])
    machine = train(config, folder, progress=False, pictures=False).machine()
    with torch.no_grad():
        guess = torch.cat([machine(x).prediction for x in splits.test.x.split(256)])
    value = guess.argmax(1).numpy() if task == "direction" else splits.encoder.target.unscale(guess)[:, 0].numpy()
    return score(value, truth_of(splits, splits.test), task)


def table(found: dict[str, list[Scores]]) -> str:
    """Mean and standard deviation, in percent."""
    names = {"r2": "test R², %", "accuracy": "right direction, %"}
    columns = list(next(iter(found.values()))[0])
    lines = ["|  | " + " | ".join(names[column] for column in columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, scores in found.items():
        cells = []
        for column in columns:
            values = [100 * each[column] for each in scores]
            cells.append(f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", choices=list(PRESETS))
    given = parser.parse_args()
    for task in [given.only] if given.only else list(PRESETS):
        found: dict[str, list[Scores]] = {}
        sizes, started = [], time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            for file, share in folds(given.file, given.folds, Path(folder)):
                options: dict[str, object] = {"root": str(file), "target": task, "test_fraction": share, "window": 32, "period": 24}
                splits = data.load("kraken", **options)
                sizes.append((len(splits.train), len(splits.test)))
                for seed in range(given.seeds):
                    run = Path(folder) / f"{file.stem}-{seed}"
                    scores = lattice(task, options, splits, seed, given.epochs, run)
                    found.setdefault(f"lattice (`{PRESETS[task]}`)", []).append(scores)
                for name, scores in plain(splits, task).items():
                    found.setdefault(name, []).append(scores)
        first, last = sizes[0], sizes[-1]
        print(f"\n{task}: {given.folds} folds, {first[0]} to {last[0]} training rows, {first[1]} to {last[1]} test rows; ", end="")
        print(
            f"{given.seeds} seed(s); {given.epochs} epochs; {time.process_time() - started:.0f} CPU seconds\n\n{table(found)}", flush=True
        )


if __name__ == "__main__":
    main()
