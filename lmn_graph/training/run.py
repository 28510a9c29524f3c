"""Runs: a directory with a configuration, metrics, checkpoints and pictures; started, resumed, evaluated, used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors import SafetensorError
from safetensors.torch import load_file

import lmn_graph
from lmn_graph.data import Encoder, Splits
from lmn_graph.machine import LatticeMachine
from lmn_graph.training import build
from lmn_graph.training.batches import Batches
from lmn_graph.training.callbacks import Bar, Patience, RandomState, RunFiles
from lmn_graph.training.configuration import Config, configure, to_yaml
from lmn_graph.training.files import write_text
from lmn_graph.training.measure import dynamics, quality
from lmn_graph.training.module import TrainingModule
from lmn_graph.training.settings import OptimizerSettings, TrainerSettings

SMOKE = {"epochs": 1, "samples": 256}


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
        """Metrics of the finished run, such as ``test/accuracy``; empty before."""
        return self.record.get("metrics", {})

    @property
    def encoder(self) -> Encoder:
        """What turns a user's file into input and predictions into words."""
        return Encoder.from_dict(self.record["encoder"])

    def machine(self) -> LatticeMachine:
        """The best model of the run, in evaluation mode.

        Raises:
            ValueError: if there is no checkpoint yet, or it is damaged or of another machine.
        """
        with isolate_rng():
            machine = build.build_machine(self.config, tuple(self.record["in_shape"]), self.record["out_features"])
        path = self.folder / "checkpoints" / "best.safetensors"
        try:
            machine.load_state_dict(load_file(path))
        except FileNotFoundError:
            raise ValueError(f"run {str(self.folder)!r} has no model yet ({path.name} is missing); resume it first") from None
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ValueError(f"checkpoint {str(path)!r} is damaged or of another machine: {' '.join(str(error).split())[:200]}") from None
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
    if not isinstance(record, dict) or not {"in_shape", "out_features", "task", "encoder"} <= record.keys():
        raise ValueError(f"{str(folder / 'run.json')!r} is damaged: it must hold in_shape, out_features, task and encoder")
    return Run(folder, configure(None, [str(folder / "config.yaml")]), record)


def train(
    config: Config, folder: str | Path, *, smoke: bool = False, progress: bool = True, callbacks: list[Callback] | None = None
) -> Run:
    """Train the machine of a configuration in a new run directory.

    Everything drawn depends on ``config["seed"]``; the caller's random state is left as it was.

    Args:
        config: from :func:`lmn_graph.training.configuration.configure`.
        folder: the run directory; it must not exist, or be empty.
        smoke: one epoch on a few samples.
        progress: whether to show a progress bar.
        callbacks: further Lightning callbacks.

    Raises:
        ValueError: if the data, the machine or the folder is not valid; nothing is written then.
    """
    splits = _splits(config, smoke)
    with isolate_rng():
        seed_everything(config["seed"], workers=True, verbose=False)
        machine = build.build_machine(config, splits.in_shape, splits.out_features)
        folder = _new_folder(folder)
        record = {
            "version": lmn_graph.__version__,
            "smoke": smoke,
            "in_shape": list(splits.in_shape),
            "out_features": splits.out_features,
            "task": splits.task,
            "encoder": splits.encoder.to_dict(),
            "data": splits.describe(),
            "data_digest": _digest(splits),
            "parameters": build.count_parameters(machine),
        }
        write_text(folder / "config.yaml", to_yaml(config))
        write_text(folder / "run.json", json.dumps(record, indent=2))
        return _fit(Run(folder, config, record), machine, splits, progress, callbacks or [], None)


def resume(folder: str | Path, *, progress: bool = True, callbacks: list[Callback] | None = None) -> Run:
    """Go on with an interrupted run from its last checkpoint; on a CPU the result equals that of the run left alone, bit for bit.

    Raises:
        ValueError: if the run is finished or damaged, or its data have changed.
    """
    run = open_run(folder)
    if run.metrics:
        raise ValueError(f"run {str(folder)!r} is finished; start a new one")
    splits = _splits(run.config, run.record["smoke"])
    if _digest(splits) != run.record["data_digest"]:
        raise ValueError(f"data of run {str(folder)!r} have changed since it started")
    checkpoint = run.folder / "checkpoints" / "last.ckpt"
    with isolate_rng():
        seed_everything(run.config["seed"], workers=True, verbose=False)
        machine = build.build_machine(run.config, splits.in_shape, splits.out_features)
        return _fit(run, machine, splits, progress, callbacks or [], checkpoint if checkpoint.is_file() else None)


def _fit(run: Run, machine: LatticeMachine, splits: Splits, progress: bool, callbacks: list[Callback], checkpoint: Path | None) -> Run:
    settings = TrainerSettings(**run.config["trainer"])
    optimizer = OptimizerSettings(**run.config["optimizer"])
    if settings.threads:
        torch.set_num_threads(settings.threads)
    epochs = SMOKE["epochs"] if run.record["smoke"] else settings.epochs
    burn_in = min(run.config["loss"]["burn_in"], epochs - 1)
    batches = Batches(splits.train.x, splits.train.y, settings.batch_size, shuffle=True, seed=run.config["seed"])
    validation = Batches(splits.validation.x, splits.validation.y, 256)
    loss = build.build_loss(run.config, splits.task)
    module = TrainingModule(machine, loss, validation, splits.task, optimizer, epochs * len(batches))
    files = RunFiles(run.folder, settings.checkpoint_every, first_best=burn_in)
    # A monitoring callback runs after the module has closed the epoch; the files come last, so that they hold the others' state.
    extra: list[Callback] = [Patience(settings.patience, burn_in)] if settings.patience else []
    extra += [Bar()] if progress else []
    # Lightning greets on every start; its errors and warnings still come through.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator=settings.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=progress,
        enable_model_summary=False,
        gradient_clip_val=optimizer.gradient_clip or None,
        callbacks=[*callbacks, RandomState(), *extra, files],
        default_root_dir=run.folder,
    )
    started = time.perf_counter()
    if checkpoint is not None:
        _check_checkpoint(checkpoint)
    with warnings.catch_warnings():
        # Lightning 2.6 asks torch >= 2.15 for a tree class that torch is about to rename.
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
        trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return _finish(run, splits, files.rows, time.perf_counter() - started)


def _finish(run: Run, splits: Splits, rows: list[dict[str, float]], seconds: float) -> Run:
    machine = run.machine()
    metrics = evaluate(machine, splits)
    record = {**run.record, "epochs": len(rows), "seconds": round(seconds, 2), "metrics": metrics}
    from lmn_graph.report import plots

    plots.save_all(run.folder, rows, machine, splits.test.x[:32], run.config["loss"]["burn_in"])
    write_text(run.folder / "run.json", json.dumps(record, indent=2))
    return Run(run.folder, run.config, record)


def evaluate(machine: LatticeMachine, splits: Splits, part: str = "test") -> dict[str, float]:
    """Quality and dynamics on a split, as ``test/accuracy``, ``test/branching_ratio`` and so on."""
    machine = machine.eval()
    split = getattr(splits, part)
    scale = splits.encoder.target.scale or (1.0,)
    found = quality(machine, Batches(split.x, split.y, 256), splits.task, scale)
    found |= dynamics(machine, split.x)
    return {f"{part}/{name}": value for name, value in found.items()}


def _splits(config: Config, smoke: bool) -> Splits:
    splits = build.load_data(config)
    if not smoke:
        return splits
    import dataclasses

    parts = {name: getattr(splits, name) for name in ("train", "validation", "test")}
    count = SMOKE["samples"]
    return dataclasses.replace(splits, **{name: type(split)(split.x[:count], split.y[:count]) for name, split in parts.items()})


def _digest(splits: Splits) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for split in (splits.train, splits.validation, splits.test):
        digest.update(split.x.numpy().tobytes())
        digest.update(split.y.numpy().tobytes())
    return digest.hexdigest()


def _new_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"run directory {str(folder)!r} must not exist or be empty")
        (folder / "checkpoints").mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"run directory {str(folder)!r} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"run directory {str(folder)!r} is not writable")
    return folder


def _check_checkpoint(path: Path) -> None:
    import pickle
    import zipfile

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"checkpoint {str(path)!r} is damaged: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or "loops" not in found:
        raise ValueError(f"checkpoint {str(path)!r} is not a training checkpoint")
