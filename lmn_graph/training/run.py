"""Runs: a directory with a configuration, metrics, checkpoints and pictures; started, resumed, evaluated, used."""

from __future__ import annotations

import json
import math
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from lightning.pytorch import Callback
from lightning.pytorch.utilities.seed import isolate_rng

import lmn_graph
from lmn_graph.data import Encoder, Rows, StreamSplits
from lmn_graph.losses import TotalLoss
from lmn_graph.machine import LatticeMachine
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.training import build
from lmn_graph.training.batches import Batches
from lmn_graph.training.configuration import Config, configure, to_yaml
from lmn_graph.training.files import put_back, read_model, remove_parts, write_text
from lmn_graph.training.fit import fit, seeded
from lmn_graph.training.measure import baselines, dynamics, quality, steps_taken
from lmn_graph.training.settings import StreamSettings, TrainerSettings
from lmn_graph.training.splits import SMOKE, AnySplits, DataReader, located
from lmn_graph.training.streams import evaluate_stream, rehearse
from lmn_graph.training.windows import StreamBatches

_RECORD = {
    "smoke": bool,
    "in_shape": list,
    "out_features": int,
    "task": str,
    "encoder": dict,
    "data": str,
    "data_digest": str,
    "parameters": int,
}


@dataclass(frozen=True)
class Run:
    """A run directory and what its ``run.json`` says.

    Args:
        folder: the directory.
        config: the whole configuration.
        record: the content of ``run.json``.
    """

    folder: Path
    config: Config
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the finished run, such as ``test/accuracy``; empty before. What is not defined is NaN, null in the file."""
        return {name: math.nan if value is None else value for name, value in self.record.get("metrics", {}).items()}

    @property
    def encoder(self) -> Encoder:
        """What turns a user's file into input and predictions into words."""
        return Encoder.from_dict(self.record["encoder"])

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return SMOKE["epochs"] if self.record["smoke"] else self.config["trainer"]["epochs"]

    @property
    def burn_in(self) -> int:
        """Epochs of these that leave the task out; never all of them."""
        return min(self.config["loss"]["burn_in"], self.epochs - 1)

    def splits(self, reader: DataReader | None = None) -> AnySplits:
        """The data of the run.

        Args:
            reader: reads them, and may have them already.

        Raises:
            ValueError: if they are not there, or not those that the run started with.
        """
        splits, digest = (reader or DataReader()).read(self.config, self.record["smoke"])
        if digest != self.record["data_digest"]:
            raise ValueError(f"data of run {str(self.folder)!r} have changed since it started")
        return splits

    def machine(self) -> LatticeMachine:
        """The best model of the run, in evaluation mode.

        Raises:
            ValueError: if there is no checkpoint yet, or it is damaged or of another machine.
        """
        path = self.folder / "checkpoints" / "best.safetensors"
        if not path.exists():
            raise ValueError(f"run {str(self.folder)!r} has no model yet ({path.name} is missing); resume it first")
        tensors, sizes = read_model(path), (tuple(self.record["in_shape"]), self.record["out_features"])
        with isolate_rng():
            machine = build.build_machine(self.config, *sizes, self.encoder.target.classes, saved=tensors)
        put_back(machine, tensors, path)
        return machine.eval()


def open_run(folder: str | Path) -> Run:
    """Read a run directory.

    Raises:
        ValueError: if it is not one, or a file in it is damaged.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file() or not (folder / "run.json").is_file():
        raise ValueError(f"run {str(folder)!r} is not a run directory: it must hold config.yaml and run.json")
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder / 'run.json')!r} is damaged: {error}") from None
    for key, kind in _RECORD.items():
        if not isinstance(record, dict) or type(record.get(key)) is not kind:
            raise ValueError(f"{str(folder / 'run.json')!r} is damaged: it must hold {key!r} of type {kind.__name__}")
    if not all(type(side) is int for side in record["in_shape"]):
        raise ValueError(f"{str(folder / 'run.json')!r} is damaged: in_shape must be a list of integers, got {record['in_shape']}")
    metrics = record.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(value, (int, float, NoneType)) for value in metrics.values()):
        raise ValueError(f"{str(folder / 'run.json')!r} is damaged: metrics must map names to numbers, got {metrics}")
    return Run(folder, configure(None, [str(folder / "config.yaml")], data=False), record)


def train(
    config: Config,
    folder: str | Path,
    *,
    smoke: bool = False,
    progress: bool = True,
    callbacks: list[Callback] | None = None,
    pictures: bool = True,
    reader: DataReader | None = None,
) -> Run:
    """Train the machine of a configuration in a new run directory.

    Everything drawn depends on ``config["seed"]``; the caller's random state is left as it was.

    Args:
        config: from :func:`lmn_graph.training.configuration.configure`.
        folder: the run directory; it must not exist, or be empty.
        smoke: one epoch on a few samples.
        progress: whether to show a progress bar.
        callbacks: further Lightning callbacks.
        pictures: whether the finished run is drawn.
        reader: reads the data; several runs that share one read the same data once.

    Raises:
        ValueError: if the data, the machine or the folder is not valid; nothing is written then.
    """
    _check_free(Path(folder))
    config = {**config, "data": located(config["data"]), "projector": _located(config["projector"], smoke)}
    config["readout"] = _full(config["readout"], READOUTS[config["readout"]["name"]].paths)
    splits, digest = (reader or DataReader()).read(config, smoke)
    record = {
        "version": lmn_graph.__version__,
        "smoke": smoke,
        "in_shape": list(splits.in_shape),
        "out_features": splits.out_features,
        "task": splits.task,
        "encoder": splits.encoder.to_dict(),
        "data": splits.describe(),
        "data_digest": digest,
    }
    run = Run(Path(folder), config, record)
    for part in () if isinstance(splits, StreamSplits) else (splits.validation, splits.test):
        if isinstance(part.x, Rows):
            part.x.check()  # else what cannot be read would end the run after all training
    with seeded(config["seed"]):
        machine = build.build_machine(config, splits.in_shape, splits.out_features, splits.classes)
        record["parameters"] = build.count_parameters(machine)
        loss = build.build_loss(config, splits.task, run.burn_in, machine)
        build.build_learning(config).check(machine, loss)
        trainer = TrainerSettings(**config["trainer"])
        trainer.lightning_precision()  # refuses what this machine cannot do
        _rehearse(config, machine, loss, splits, trainer.batch_size)
        _new_folder(run.folder, to_yaml(config), json.dumps(record, indent=2))
        return _fit(run, machine, loss, splits, progress, callbacks, None, pictures)


def resume(
    folder: str | Path,
    *,
    progress: bool = True,
    callbacks: list[Callback] | None = None,
    pictures: bool = True,
    reader: DataReader | None = None,
) -> Run:
    """Go on with an interrupted run from its last checkpoint; on a CPU the result equals that of the run left alone, bit for bit.

    Arguments are those of :func:`train`.

    Raises:
        ValueError: if the run is finished or damaged, or its data have changed.
    """
    run = open_run(folder)
    if run.metrics:
        raise ValueError(f"run {str(folder)!r} is finished; start a new one")
    splits = run.splits(reader)
    checkpoint = run.folder / "checkpoints" / "last.ckpt"
    remove_parts(run.folder)
    with seeded(run.config["seed"]):
        machine = build.build_machine(run.config, splits.in_shape, splits.out_features, splits.classes)
        loss = build.build_loss(run.config, splits.task, run.burn_in, machine)
        return _fit(run, machine, loss, splits, progress, callbacks, checkpoint if checkpoint.is_file() else None, pictures)


def _fit(
    run: Run,
    machine: LatticeMachine,
    loss: TotalLoss,
    splits: AnySplits,
    progress: bool,
    callbacks: list[Callback] | None,
    checkpoint: Path | None,
    pictures: bool,
) -> Run:
    started = time.perf_counter()
    rows = fit(
        run.folder,
        run.config,
        machine,
        loss,
        splits,
        epochs=run.epochs,
        progress=progress,
        callbacks=callbacks or [],
        checkpoint=checkpoint,
    )
    return _finish(run, splits, rows, time.perf_counter() - started, pictures)


def _finish(run: Run, splits: AnySplits, rows: list[dict[str, float]], seconds: float, pictures: bool) -> Run:
    machine = run.machine()
    metrics = evaluate(machine, splits, stream=StreamSettings(**run.config["stream"]))
    defined = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    record = {**run.record, "epochs": len(rows), "seconds": round(seconds, 2), "metrics": defined}
    if pictures:
        from lmn_graph.report import plots

        if isinstance(splits, StreamSplits):
            taken, shown = {}, splits.test.take(np.linspace(0, len(splits.test) - 1, 32).astype(np.int64))
        else:
            steps = steps_taken(machine, Batches(splits.test.x, splits.test.y, 256))
            taken, shown = {} if steps is None else {"test": steps}, splits.test.x[:32]
        plots.save_all(run.folder, rows, machine, shown, run.burn_in, taken, splits.classes)
    write_text(run.folder / "run.json", json.dumps(record, indent=2))
    return Run(run.folder, run.config, record)


def evaluate(machine: LatticeMachine, splits: AnySplits, part: str = "test", *, stream: StreamSettings | None = None) -> dict[str, float]:
    """Quality, dynamics and baselines on a split: ``test/accuracy``, ``test/branching_ratio`` and so on; ``stream`` cuts streams."""
    machine = machine.eval()
    if isinstance(splits, StreamSplits):
        return evaluate_stream(machine, splits, part, stream or StreamSettings())
    split = getattr(splits, part)
    scale = splits.encoder.target.scale or (1.0,)
    found = quality(machine, Batches(split.x, split.y, 256), splits.task, scale)
    found |= dynamics(machine, split.x) | baselines(splits, part)
    return {f"{part}/{name}": value for name, value in found.items()}


def _rehearse(config: Config, machine: LatticeMachine, loss: TotalLoss, splits: AnySplits, batch_size: int) -> None:
    """One forward pass: parts and losses that do not fit together say so before anything is written."""
    if isinstance(splits, StreamSplits):
        settings = StreamSettings(**config["stream"])
        with isolate_rng():
            machine.eval()
            rehearse(machine, loss, StreamBatches(splits.train, settings, batch_size), splits.task, settings)
            machine.train()
        return
    x, y = (part[:batch_size] for part in splits.train.tensors)
    with isolate_rng():
        if (augment := build.build_augment(config, splits.in_shape)) is not None:
            x = augment(x)
        machine.eval()
        loss(machine(x), y, machine=machine, x=x, epoch=None)
        machine.train()


def _located(projector: Config, smoke: bool) -> Config:
    """The options of a projector with full paths, to take the run up from any folder; a smoke run fetches and keeps nothing."""
    if smoke and projector.get("weights") == "default":
        projector = {**projector, "weights": None}
    if smoke and "cache" in projector:
        projector = {**projector, "cache": None}
    names = [name for name in PROJECTORS[projector["name"]].paths if (name, projector.get(name)) != ("weights", "default")]
    return _full(projector, names)  # torchvision's own weights are no file


def _full(options: Config, paths: Sequence[str]) -> Config:
    """Options of a part, of which those that name files have full paths."""
    return {**options, **{name: str(Path(options[name]).expanduser().resolve()) for name in paths if isinstance(options.get(name), str)}}


def _check_free(folder: Path) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"run directory {str(folder)!r} must not exist or be empty")
    except OSError as error:
        raise ValueError(f"run directory {str(folder)!r} cannot be made: {error.strerror}") from None


def _new_folder(folder: Path, config: str, record: str) -> None:
    """A run directory that is there with both of its files or not at all."""
    new = folder if folder.exists() else folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.part")
    try:
        (new / "checkpoints").mkdir(parents=True)
        write_text(new / "run.json", record)
        write_text(new / "config.yaml", config)
        if new is not folder:
            new.rename(folder)
    except OSError as error:
        raise ValueError(f"run directory {str(folder)!r} cannot be made: {error.strerror}") from None
    finally:
        if new is not folder:
            shutil.rmtree(new, ignore_errors=True)
