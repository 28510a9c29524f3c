"""One fit: a Lightning trainer with the callbacks of a run, in a random state of its own."""

from __future__ import annotations

import logging
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lmn_graph.data import StreamSplits
from lmn_graph.losses import TotalLoss
from lmn_graph.machine import LatticeMachine
from lmn_graph.training import build
from lmn_graph.training.batches import Batches
from lmn_graph.training.callbacks import Bar, Patience, RandomState, RunFiles
from lmn_graph.training.module import TrainingModule
from lmn_graph.training.settings import OptimizerSettings, StreamSettings, TrainerSettings
from lmn_graph.training.splits import AnySplits
from lmn_graph.training.streams import StreamModule, measuring
from lmn_graph.training.windows import StreamBatches


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every random generator seeded inside the block, and as it was before after it."""
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the state that libraries draw from
        torch.manual_seed(seed)
        yield


def fit(
    folder: Path,
    config: dict[str, Any],
    machine: LatticeMachine,
    loss: TotalLoss,
    splits: AnySplits,
    *,
    epochs: int,
    progress: bool,
    callbacks: list[Callback],
    checkpoint: Path | None,
) -> list[dict[str, float]]:
    """Train ``machine`` in place, from a checkpoint where one is given; returns one row of metrics per epoch.

    Raises:
        ValueError: if the checkpoint is damaged or of another run.
        KeyboardInterrupt: after Ctrl-C.
    """
    settings, optimizer = TrainerSettings(**config["trainer"]), OptimizerSettings(**config["optimizer"])
    batches, module = (
        _streamed(config, machine, loss, splits, epochs)
        if isinstance(splits, StreamSplits)
        else _rows(config, machine, loss, splits, epochs)
    )
    if checkpoint is not None:
        _check_checkpoint(checkpoint, module)
    files = RunFiles(folder, batches, settings.checkpoint_every, first_best=loss.burn_in)
    # A monitoring callback runs after the module has closed the epoch; the files come last, so that they hold the others' state.
    extra: list[Callback] = [Patience(settings.patience, loss.burn_in)] if settings.patience else []
    extra += [Bar()] if progress else []
    with _threads(settings.threads), _quiet():
        trainer = Trainer(
            max_epochs=epochs,
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.lightning_precision(),
            logger=False,
            enable_checkpointing=True,
            enable_progress_bar=progress,
            enable_model_summary=False,
            gradient_clip_val=optimizer.gradient_clip or None if module.automatic_optimization else None,
            callbacks=[*callbacks, RandomState(), *extra, files],
            default_root_dir=folder,
        )
        with closing(batches), closing(module.validation), _interruptible(trainer):
            trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
    return files.rows


def _rows(config: dict[str, Any], machine: LatticeMachine, loss: TotalLoss, splits: Any, epochs: int) -> tuple[Batches, TrainingModule]:
    settings, optimizer = TrainerSettings(**config["trainer"]), OptimizerSettings(**config["optimizer"])
    reading: dict[str, Any] = {"prefetch": settings.prefetch, "pin": settings.accelerator != "cpu" and torch.cuda.is_available()}
    batches = Batches(splits.train.x, splits.train.y, settings.batch_size, shuffle=True, seed=config["seed"], **reading)
    validation = Batches(splits.validation.x, splits.validation.y, 256, **reading)
    learning = build.build_learning(config)
    augment = build.build_augment(config, splits.in_shape)
    return batches, TrainingModule(machine, loss, validation, splits.task, optimizer, epochs * len(batches), learning, augment)


def _streamed(
    config: dict[str, Any], machine: LatticeMachine, loss: TotalLoss, splits: StreamSplits, epochs: int
) -> tuple[StreamBatches, StreamModule]:
    settings, optimizer = StreamSettings(**config["stream"]), OptimizerSettings(**config["optimizer"])
    batches = StreamBatches(splits.train, settings, config["trainer"]["batch_size"], shuffle=True, seed=config["seed"])
    validation, learning = measuring(splits.validation, settings), build.build_learning(config)
    total, clip = epochs * len(batches), optimizer.gradient_clip
    module = StreamModule(machine, loss, validation, splits.task, optimizer, total, learning, stream=settings, clip=clip)
    return batches, module


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's greeting; its errors and warnings still come through."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch >= 2.15 for a tree class that torch is about to rename.
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            # A frozen backbone is in evaluation mode on purpose.
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C as a KeyboardInterrupt: Lightning exits the process, and leaves the signal ignored."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)


def _check_checkpoint(path: Path, module: nn.Module) -> None:
    import pickle
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"checkpoint {str(path)!r} is damaged: the checksum of {bad} is wrong")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"checkpoint {str(path)!r} is damaged: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or not {"loops", "state_dict", "callbacks", "epoch_sums"} <= found.keys():
        raise ValueError(f"checkpoint {str(path)!r} is not a training checkpoint")
    shapes = [{name: value.shape for name, value in state.items()} for state in (found["state_dict"], module.state_dict())]
    if shapes[0] != shapes[1]:
        raise ValueError(f"checkpoint {str(path)!r} is of another machine")
