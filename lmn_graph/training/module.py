"""The machine as a Lightning module: one loss, every term of it logged by itself."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lmn_graph.augment import Augmentation
from lmn_graph.learning import BPTT, LearningRule, sgd
from lmn_graph.losses import TotalLoss
from lmn_graph.machine import LatticeMachine
from lmn_graph.training.batches import Batches
from lmn_graph.training.measure import dynamics, quality
from lmn_graph.training.settings import OptimizerSettings


class TrainingModule(LightningModule):
    """Trains a machine on a weighted loss and measures it after every epoch.

    Args:
        machine: what is trained.
        loss: the weighted loss.
        validation: batches that the epoch ends on.
        task: "classification" or "regression".
        optimizer: learning rate and schedule.
        total_steps: training steps of the whole run, for the schedule.
        learning: where gradients come from.
        augment: what training batches go through first, or None.
    """

    def __init__(
        self,
        machine: LatticeMachine,
        loss: TotalLoss,
        validation: Batches,
        task: str,
        optimizer: OptimizerSettings,
        total_steps: int,
        learning: LearningRule,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.machine = machine
        self.loss = loss
        self.validation = validation
        self.task = task
        self.settings = optimizer
        self.total_steps = total_steps
        self.learning = learning
        self.augment = augment
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.row: dict[str, float] = {}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if self.augment is not None:
            x = self.augment(x)
        if isinstance(self.learning, BPTT):
            output = self.machine(x)
            total, terms = self.loss(output, y, machine=self.machine, x=x, epoch=self.current_epoch, step=self.global_step)
            prediction, rate = output.prediction.detach(), output.trajectory.activity.detach().abs().mean()
        else:
            total, terms, prediction, rate = self._learned(x, y)
        self.count(total, terms, prediction, rate, y)
        return total

    def count(self, total: Tensor, terms: dict[str, Tensor], prediction: Tensor, rate: Tensor, y: Tensor) -> None:
        """Add a batch to the means of the epoch.

        Raises:
            ValueError: if the loss is not finite.
        """
        if not bool(total.isfinite()):
            raise ValueError(f"loss became {total.item()} in epoch {self.current_epoch}: lower optimizer.lr or check the data")
        seen: dict[str, Tensor] = {"loss": total.detach(), **terms, "rate": rate}
        if self.task == "classification":
            seen["accuracy"] = (prediction.argmax(1) == y).float().mean()
        for name, value in seen.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * len(y)
            self.counts[name] = self.counts.get(name, 0) + len(y)

    def _learned(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """The loss with the gradient of the learning rule: a backward pass through it adds just that to every parameter."""
        parameters = list(self.machine.parameters())
        kept = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        learned = self.learning.gradients(self.machine, x, y, loss=self.loss, epoch=self.current_epoch)
        total = learned.loss
        for parameter, before in zip(parameters, kept):
            if parameter.grad is not None:
                linear = (parameter * parameter.grad).sum()
                total = total + (linear - linear.detach())
            parameter.grad = before
        return total, learned.terms, learned.prediction, learned.rate

    def on_train_epoch_start(self) -> None:
        self.sums, self.counts = {}, {}

    def on_train_epoch_end(self) -> None:
        """Close the epoch: training means, validation quality, dynamics; all of it in ``row`` and in Lightning's metrics."""
        row = {"epoch": float(self.current_epoch), "step": float(self.global_step)}
        row |= {f"train/{name}": value / self.counts[name] for name, value in self.sums.items()}
        self.machine.eval()
        row |= {f"val/{name}": value for name, value in self.measured().items()}
        self.machine.train()
        row["lr"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.row = row
        self.log("val/loss", row["val/loss"], batch_size=1)

    def measured(self) -> dict[str, float]:
        """Quality and dynamics on the validation batches."""
        x = self.validation.x[:64].to(self.device)
        return quality(self.machine, self.validation, self.task) | dynamics(self.machine, x)

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self, self.settings.lr) if self.settings.method == "sgd" else self._adamw()
        schedules = torch.optim.lr_scheduler
        if self.settings.schedule == "constant":
            return optimizer
        scheduler: Any
        if self.settings.schedule == "cosine":
            scheduler = schedules.CosineAnnealingLR(optimizer, self.total_steps)
        else:
            peaks = [group["lr"] for group in optimizer.param_groups]
            scheduler = schedules.OneCycleLR(optimizer, peaks, total_steps=self.total_steps, cycle_momentum=self.settings.method != "sgd")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _adamw(self) -> torch.optim.Optimizer:
        decayed, kept = _by_decay(self.machine)
        kept += list(self.loss.parameters())  # communities that a term learns
        groups = [{"params": decayed, "weight_decay": self.settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self.settings.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epoch_sums"] = {"sums": self.sums, "counts": self.counts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sums, self.counts = checkpoint["epoch_sums"]["sums"], checkpoint["epoch_sums"]["counts"]


def _by_decay(machine: LatticeMachine) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of the projector and the readout decay; biases and everything of the rule do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in machine.named_parameters():
        matrix = parameter.dim() >= 2 and name.startswith(("projector.", "readout."))
        (decayed if matrix else kept).append(parameter)
    return decayed, kept
