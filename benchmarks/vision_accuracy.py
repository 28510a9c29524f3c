"""Accuracy of the picture presets beside a perceptron, a small convolutional network and logistic regression, on the same rows.

    python benchmarks/accuracy.py vision --mnist DIR --only vision-soc
    python benchmarks/accuracy.py vision --mnist DIR --only tabular-soc-lowrank volumetric-soc
    python benchmarks/accuracy.py vision --emoji DIR --weights mobilenet_v2.pth --group emoji
    python benchmarks/accuracy.py vision --emoji DIR --weights mobilenet_v2.pth --group domains

``--mnist`` holds MNIST/raw, ``--emoji`` two domains and their lists as DomainNet has them; ``--weights`` are torchvision's of MobileNetV2.
Seed s draws validation rows, initial weights and the order of the batches. The lattice trains on the training rows and keeps the epoch
with the best validation loss. The convolutional network has the same training rows, epochs, batches, augmentation and rule for which
epoch is kept; the perceptron, of about as many parameters as the lattice or 64 hidden units, and the regressions are fitted on training
and validation rows together. All are scored once, on the same test rows. Times are CPU seconds of all threads; ``--threads`` are torch's.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import spread, table
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from lmn_graph.data import Splits
from lmn_graph.projectors import Backbone
from lmn_graph.training import configure, train
from lmn_graph.training.build import build_augment
from lmn_graph.training.splits import DataReader


@dataclass(frozen=True)
class Study:
    """A preset on pictures that are at hand.

    Args:
        preset: its name.
        options: of ``lmn train``, with the names of the folders in braces.
        beside: baselines.
    """

    preset: str
    options: tuple[str, ...]
    beside: tuple[str, ...] = ("CNN", "MLP", "logistic regression")


MNIST = ("--data", "mnist", "--data.root", "{mnist}")
EMOJI = ("--data", "domainnet", "--data.root", "{emoji}", "--data.domains", "google,twitter", "--data.leave_out", "component")
ONE = (*EMOJI, "--data.protocol", "single", "--data.domain", "twitter")
FROZEN = ("--projector.model", "mobilenet_v2", "--projector.weights", "{weights}", "--projector.cache", "{cache}")
FEATURES = "logistic regression on MobileNetV2's features"
ALL = ("CNN", "MLP", "logistic regression", FEATURES)


def _domains(protocol: str, domain: str = "") -> Study:
    chosen = ("--data.protocol", protocol, *(("--data.domain", domain) if domain else ()))
    return Study("stsoc-multidomain", (*EMOJI, "--data.size", "64", "--data.mode", "RGB", *chosen), ("CNN", FEATURES))


GROUPS: dict[str, dict[str, Study]] = {
    "mnist": {
        "vision-soc": Study("vision-soc", ("--data.root", "{mnist}")),
        "tabular-soc-lowrank": Study("tabular-soc-lowrank", (*MNIST, "--trainer.epochs", "4")),
        "volumetric-soc": Study("volumetric-soc", (*MNIST, "--trainer.epochs", "2")),
    },
    "emoji": {
        "stsoc-domainnet": Study("stsoc-domainnet", (*ONE, "--data.size", "64", "--data.mode", "RGB"), ALL),
        "vision-soc-clustering": Study("vision-soc-clustering", (*EMOJI, "--data.size", "64", "--data.mode", "RGB"), ALL),
        "sketch-holographic": Study("sketch-holographic", (*ONE, "--data.size", "64", "--data.mode", "L"), ALL[:3]),
        "sketch-dotproduct": Study("sketch-dotproduct", (*ONE, "--data.size", "64", "--data.mode", "L"), ALL[:3]),
        "pc-food101": Study("pc-food101", (*ONE, "--data.size", "128", "--data.mode", "RGB", *FROZEN), (FEATURES,)),
        "pc-imagenet": Study("pc-imagenet", (*EMOJI, "--data.size", "128", "--data.mode", "RGB", *FROZEN), (FEATURES,)),
    },
    "domains": {
        "google": _domains("single", "google"),
        "twitter": _domains("single", "twitter"),
        "both": _domains("all"),
        "google → twitter": _domains("leave-one-out", "twitter"),
        "twitter → google": _domains("leave-one-out", "google"),
    },
}
STUDIES = {name: study for group in GROUPS.values() for name, study in group.items()}


@dataclass(frozen=True)
class Score:
    """Test accuracy, trained numbers, CPU and wall-clock seconds."""

    accuracy: float
    parameters: int
    seconds: float
    wall: float


def clocked(work: Callable[[], tuple[float, int]]) -> Score:
    """The score of what ``work`` trains and tests, timed."""
    cpu, wall = time.process_time(), time.perf_counter()
    accuracy, parameters = work()
    return Score(accuracy, parameters, time.process_time() - cpu, time.perf_counter() - wall)


def lattice(config: dict[str, Any], reader: DataReader) -> Score:
    """Train the configuration in a temporary folder."""

    def work() -> tuple[float, int]:
        with tempfile.TemporaryDirectory() as folder:
            run = train(config, Path(folder) / "run", progress=False, pictures=False, reader=reader)
        return run.metrics["test/accuracy"], run.record["parameters"]

    return clocked(work)


class SmallCNN(nn.Sequential):
    """Four convolutions, the last three halving the picture, batch normalisation, mean over the picture, one linear map."""

    def __init__(self, colours: int, classes: int, width: int = 16) -> None:
        blocks: list[nn.Module] = []
        maps = (colours, width, width, 2 * width, 4 * width)
        for layer, (before, after) in enumerate(pairwise(maps)):
            blocks += [nn.Conv2d(before, after, 3, stride=2 if layer else 1, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps[-1], classes))


def cnn(config: dict[str, Any], splits: Splits, seed: int) -> Score:
    """The convolutional network in a plain loop."""
    settings, smoothing = config["trainer"], config["loss"]["label_smoothing"]

    def planes(x: Tensor) -> Tensor:
        return x.unsqueeze(1) if x.dim() == 3 else x

    def work() -> tuple[float, int]:
        torch.manual_seed(seed)
        model = SmallCNN(1 if len(splits.in_shape) == 2 else splits.in_shape[0], splits.out_features)
        augment = build_augment(config, splits.in_shape)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
        steps = settings["epochs"] * -(-len(splits.train) // settings["batch_size"])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        best, kept = float("inf"), copy.deepcopy(model.state_dict())
        for _ in range(settings["epochs"]):
            model.train()
            for rows in torch.randperm(len(splits.train)).split(settings["batch_size"]):
                x = splits.train.x[rows] if augment is None else augment(splits.train.x[rows])
                loss = nn.functional.cross_entropy(model(planes(x)), splits.train.y[rows], label_smoothing=smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            model.eval()
            loss_of_epoch = float(nn.functional.cross_entropy(predicted(model, planes(splits.validation.x[:])), splits.validation.y))
            if loss_of_epoch < best:
                best, kept = loss_of_epoch, copy.deepcopy(model.state_dict())
        model.load_state_dict(kept)
        right = predicted(model.eval(), planes(splits.test.x[:])).argmax(1) == splits.test.y
        return float(right.float().mean()), sum(p.numel() for p in model.parameters())

    return clocked(work)


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part) for part in x.split(256)])


def flat(splits: Splits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of training and validation rows together, their classes, and pixels of the test rows."""
    x = torch.cat([splits.train.x[:], splits.validation.x[:]]).flatten(1).numpy()
    return x, torch.cat([splits.train.y, splits.validation.y]).numpy(), splits.test.x[:].flatten(1).numpy()


def standard(model: Any, x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> tuple[float, int]:
    """A classifier of scikit-learn: its test accuracy and how many numbers it fits."""
    model.fit(x, y)
    parts = (*model.coefs_, *model.intercepts_) if isinstance(model, MLPClassifier) else (model.coef_, model.intercept_)
    return float(model.score(test_x, test_y)), sum(part.size for part in parts)


def mlp(splits: Splits, parameters: int, seed: int) -> Score:
    """One hidden layer, of 64 units or as many as give it about ``parameters`` parameters."""
    x, y, test = flat(splits)
    hidden = max(64, round((parameters - splits.out_features) / (x.shape[1] + 1 + splits.out_features)))
    many = len(x) > 20_000
    model = MLPClassifier((hidden,), early_stopping=many, n_iter_no_change=5 if many else 10, max_iter=100, random_state=seed)
    return clocked(lambda: standard(model, x, y, test, splits.test.y.numpy()))


def logistic(splits: Splits) -> Score:
    x, y, test = flat(splits)
    return clocked(lambda: standard(LogisticRegression(max_iter=2000, tol=1e-3), x, y, test, splits.test.y.numpy()))


def on_features(splits: Splits, weights: str, cache: str) -> Score:
    """Logistic regression on standardised features of the frozen network, its strength chosen on the validation rows."""
    from torch_geometric.data import Data

    grey = len(splits.in_shape) == 2
    network = Backbone(
        splits.in_shape, Data(num_nodes=1), model="mobilenet_v2", weights=weights, size=None if not grey else 64, cache=cache
    )
    network.eval()

    def of(split: Any) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([network.features(split.x[start : start + 64]) for start in range(0, len(split), 64)]).numpy()

    def work() -> tuple[float, int]:
        parts = [of(split) for split in (splits.train, splits.validation, splits.test)]
        scaler = StandardScaler().fit(parts[0])
        one, two, three = (scaler.transform(part) for part in parts)
        y, held = splits.train.y.numpy(), splits.validation.y.numpy()
        best = max((1e-4, 1e-3, 1e-2, 1e-1), key=lambda c: LogisticRegression(C=c, max_iter=2000).fit(one, y).score(two, held))
        model = LogisticRegression(C=best, max_iter=2000)
        return standard(model, np.concatenate([one, two]), np.concatenate([y, held]), three, splits.test.y.numpy())

    return clocked(work)


def one_seed(name: str, places: dict[str, str | None], seed: int) -> tuple[str, float, dict[str, Score]]:
    """What the rows are, the share of the largest class of the test rows, and the scores of the lattice and the baselines."""
    chosen = STUDIES[name]
    config = configure(chosen.preset, [], [*(option.format(**places) for option in chosen.options), "--seed", str(seed)])
    config["data"]["seed"] = seed
    reader = DataReader()
    splits, _ = reader.read(config, False)
    label = f"lattice (`{chosen.preset}`), {config['trainer']['epochs']} epochs"
    works: dict[str, Callable[[], Score]] = {
        label: lambda: lattice(config, reader),
        "CNN": lambda: cnn(config, splits, seed),
        "MLP": lambda: mlp(splits, scores[label].parameters, seed),
        "logistic regression": lambda: logistic(splits),
        FEATURES: lambda: on_features(splits, str(places["weights"]), str(places["cache"])),
    }
    scores: dict[str, Score] = {}
    for key in (label, *chosen.beside):
        scores[key] = works[key]()
        print(f"{name}, seed {seed}, {key}: {100 * scores[key].accuracy:.2f} %, {scores[key].wall:.0f} s", file=sys.stderr, flush=True)
    return splits.describe(), float(splits.test.y.bincount().max()) / len(splits.test), scores


def study(name: str, places: dict[str, str | None], seeds: int) -> tuple[str, list[list[str]]]:
    """What the rows are, and a table row for the lattice and each baseline."""
    chosen = STUDIES[name]
    missing = [place for place, value in places.items() if value is None and any(f"{{{place}}}" in option for option in chosen.options)]
    if FEATURES in chosen.beside and places["weights"] is None:
        missing.append("weights")
    if missing:
        raise SystemExit(f"{name} needs {' and '.join(f'--{place}' for place in dict.fromkeys(missing))}")
    runs = [one_seed(name, places, seed) for seed in range(seeds)]
    text, largest, first = runs[0]
    rows = [[key, *columns([scores[key] for *_, scores in runs])] for key in first]
    rows.append(["always the largest class", f"{100 * largest:.2f}", "", "", ""])
    return f"{text}; {seeds} seed{'s' * (seeds > 1)}", rows


def columns(scores: Sequence[Score]) -> list[str]:
    """Accuracy, parameters, CPU and wall-clock seconds."""
    accuracy = spread([score.accuracy for score in scores], 2, 100)
    seconds = [f"{statistics.mean(getattr(score, name) for score in scores):.0f}" for name in ("seconds", "wall")]
    return [accuracy, f"{scores[0].parameters:,}", *seconds]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", choices=GROUPS, default="mnist")
    parser.add_argument("--only", nargs="*", choices=STUDIES, help="these studies, of any group")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mnist", help="folder that holds MNIST/raw")
    parser.add_argument("--emoji", help="folder with two domains, google and twitter, and their lists")
    parser.add_argument("--weights", help="torchvision's weights of MobileNetV2")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as cache:
        places = {"mnist": options.mnist, "emoji": options.emoji, "weights": options.weights, "cache": cache}
        for name in options.only or GROUPS[options.group]:
            text, rows = study(name, places, options.seeds)
            print(f"`{name}`: {text}\n")
            print(table(["", "test accuracy, %", "parameters", "CPU seconds", "seconds"], rows), end="\n\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
