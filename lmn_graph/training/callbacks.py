"""What happens around training: checkpoints that can be taken up exactly, the table of metrics, the progress bar."""

from __future__ import annotations

import csv
import io
import math
import random
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from tqdm import tqdm

from lmn_graph.training.batches import Batches
from lmn_graph.training.files import replacing, save_model, write_text
from lmn_graph.training.windows import StreamBatches


class RandomState(Callback):
    """Puts the state of every random generator into the checkpoint, and back when training goes on."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - the state that libraries draw from
        state: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "python": [version, list(words), gauss],
            "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)],
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded is None:
            return
        torch.set_rng_state(self._loaded["torch"])
        version, words, gauss = self._loaded["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, position, has_gauss, cached = self._loaded["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        if "cuda" in self._loaded and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self._loaded["cuda"])
        self._loaded = None


class RunFiles(Checkpoint):
    """Keeps ``metrics.csv``, ``checkpoints/last.ckpt`` and ``checkpoints/best.safetensors`` of a run directory.

    Every file is replaced whole, so a run that is killed at any moment leaves a checkpoint to go on from. The rows of the table
    are part of the checkpoint: after a resume the table continues from the same place.

    Args:
        folder: the run directory.
        batches: the training batches; their position is part of the checkpoint.
        every: training steps between checkpoints inside an epoch; 0 for the end of each epoch only.
        first_best: the first epoch whose model may be the best: burn-in epochs may not.
    """

    def __init__(self, folder: Path, batches: Batches | StreamBatches, every: int = 0, first_best: int = 0) -> None:
        self.folder = folder
        self.batches = batches
        self.every = every
        self.first_best = first_best
        self.rows: list[dict[str, float]] = []
        self.best = math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best, "batches": self.batches.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        # Lightning puts the position back itself, but only into an epoch that was begun: after a checkpoint at the end of an epoch
        # the next one would have the order of the first.
        self.batches.load_state_dict(state_dict["batches"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        # The last batch of an epoch is left to the end of the epoch.
        if self.every and trainer.global_step % self.every == 0 and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row: dict[str, float] = pl_module.row  # type: ignore[assignment]
        self.rows = [*self.rows, row]
        if trainer.current_epoch >= self.first_best and row["val/loss"] < self.best:
            self.best = row["val/loss"]
            save_model(pl_module.get_submodule("machine"), self.folder / "checkpoints" / "best.safetensors")
        write_text(self.folder / "metrics.csv", table(self.rows))
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        with replacing(self.folder / "checkpoints" / "last.ckpt") as temporary:
            trainer.save_checkpoint(temporary)


def table(rows: list[dict[str, float]]) -> str:
    """Rows as CSV; the columns are those of any row, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: int(value) if key in ("epoch", "step") else f"{value:.8g}" for key, value in row.items()})
    return text.getvalue()


class Bar(ProgressBar):
    """One bar for the whole run with loss, accuracy and branching ratio (or Lyapunov exponent); a line per epoch where no
    terminal is."""

    SHOWN: ClassVar[dict[str, str]] = {
        "val/accuracy": "accuracy",
        "val/r2": "R²",
        "val/branching_ratio": "branching ratio",
        "val/lyapunov": "Lyapunov exponent",
    }

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._on = True
        self._written = -1.0

    def disable(self) -> None:
        self._on = False

    def enable(self) -> None:
        self._on = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._on and sys.stderr.isatty():
            total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
            self._bar = tqdm(total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True, leave=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._bar is not None:
            self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)
            self._bar.set_postfix_str(self._text(pl_module, float(outputs["loss"])), refresh=False)
            self._bar.update()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The line of the epoch that was closed last; the module closes it after this callback's own end of the epoch."""
        row: dict[str, float] = pl_module.row  # type: ignore[assignment]
        if not self._on or not row or row["epoch"] == self._written:
            return
        self._written = row["epoch"]
        text = f"epoch {int(row['epoch']) + 1:3d}/{trainer.max_epochs}  {self._text(pl_module, row['train/loss'])}"
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()

    def _text(self, pl_module: LightningModule, loss: float) -> str:
        row: dict[str, float] = pl_module.row  # type: ignore[assignment]
        return "  ".join([f"loss {loss:.4f}", *(f"{name} {row[key]:.3f}" for key, name in self.SHOWN.items() if key in row)])


class Patience(EarlyStopping):
    """Early stopping on the validation loss that starts counting after burn-in."""

    def __init__(self, patience: int, first: int) -> None:
        super().__init__("val/loss", patience=patience, mode="min", check_on_train_epoch_end=True)
        self.first = first

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Whether to stop is not part of Lightning's checkpoint: a run that was killed after its last epoch has to stop again.
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch >= self.first:
            super().on_train_epoch_end(trainer, pl_module)
