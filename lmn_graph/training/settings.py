"""The settings of a run that belong to no exchangeable part, each validated when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from topologies import _checks


@dataclass(frozen=True)
class MachineSettings:
    """How the rule is run.

    Args:
        steps: number of steps T of the rollout, >= 1.
        inject: the drive enters at every step, at the first only, or is the initial state.
        truncate: cut the gradient every so many steps.
        checkpoint: recompute activations in segments of so many steps.
        reference: use plain message passing instead of the fast kernels.
        compile: whether sums of messages are compiled: "auto" (large ones, where there is a C++ compiler), "always" or "never".
    """

    steps: int = 12
    inject: Literal["every", "first", "state"] = "every"
    truncate: int | None = None
    checkpoint: int | None = None
    reference: bool = False
    compile: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        _checks.integer("machine.steps", self.steps, minimum=1)
        for name in ("truncate", "checkpoint"):
            if getattr(self, name) is not None:
                _checks.integer(f"machine.{name}", getattr(self, name), minimum=1)


@dataclass(frozen=True)
class LossSettings:
    """How the terms of the loss are weighed.

    Args:
        task_weight: weight of the loss on the prediction, >= 0.
        criticality_weight: weight of the criticality term, >= 0.
        activity_weight: weight of the activity term, >= 0.
        clustering_weight: weight of the clustering term, >= 0.
        modularity_weight: weight of the modularity term, >= 0.
        ponder_weight: weight of the ponder cost of a machine that halts, >= 0; about 0.01 for a loss of about 1.
        burn_in: epochs at the start that train the dynamics only; the last epoch of a run always trains the task.
        label_smoothing: label smoothing of a classification, in [0, 1).
        every_step: the task loss of every step's own prediction, averaged, instead of that of the prediction.
        terms_every: the terms on the dynamics enter at every so many batches only, with as many times their weights.
    """

    task_weight: float = 1.0
    criticality_weight: float = 1.0
    activity_weight: float = 1.0
    clustering_weight: float = 1.0
    modularity_weight: float = 1.0
    ponder_weight: float = 1.0
    burn_in: int = 0
    label_smoothing: float = 0.0
    every_step: bool = False
    terms_every: int = 1

    def __post_init__(self) -> None:
        weights = ("task", "criticality", "activity", "clustering", "modularity", "ponder")
        for name in (*(f"{term}_weight" for term in weights), "label_smoothing"):
            _checks.number(f"loss.{name}", getattr(self, name), minimum=0)
        if self.label_smoothing >= 1:
            raise ValueError(f"loss.label_smoothing must be a number in [0, 1), got {self.label_smoothing}")
        _checks.integer("loss.burn_in", self.burn_in, minimum=0)
        _checks.flag("loss.every_step", self.every_step)
        _checks.integer("loss.terms_every", self.terms_every, minimum=1)


@dataclass(frozen=True)
class StreamSettings:
    """How text and other streams are cut; other data take no notice.

    Args:
        window: items between two steps of the optimiser (k1), >= 1; of documents, the items between two memory tokens.
        back: items that a gradient goes back (k2), a multiple of ``window``; none for ``window``.
        carry: whether the state goes on from window to window; else every window begins anew.
        by: "lanes" cuts the stream into as many pieces of equal length as a batch has rows, and every row goes on through its own;
            "documents" are whole in every batch, in a new order every epoch, and gradients go back through all of one.
        longest: items of a document, with ``by`` documents; what is beyond them is a document of its own.
    """

    window: int = 64
    back: int | None = None
    carry: bool = True
    by: Literal["lanes", "documents"] = "lanes"
    longest: int = 512

    def __post_init__(self) -> None:
        _checks.integer("stream.window", self.window, minimum=1)
        _checks.integer("stream.longest", self.longest, minimum=2)
        _checks.flag("stream.carry", self.carry)
        _checks.choice("stream.by", self.by, ("lanes", "documents"))
        if self.back is not None and (_checks.integer("stream.back", self.back, minimum=1) % self.window or self.by == "documents"):
            raise ValueError(f"stream.back must be a multiple of stream.window {self.window}, and none by documents, got {self.back}")
        if not self.carry and self.back not in (None, self.window):
            raise ValueError(f"stream.back must be none where stream.carry is False, got {self.back}")


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser and its learning-rate schedule.

    Args:
        method: "adamw", or "sgd": plain gradient descent without state, its steps by group as ``lmn_graph.learning.sgd`` has them.
        lr: peak learning rate, > 0.
        weight_decay: decoupled weight decay of the projector's and readout's matrices, >= 0; of adamw only.
        schedule: learning rate over the run: "onecycle" rises and falls, "cosine" falls, "constant" stays.
        gradient_clip: largest norm of the gradient; 0 for no clipping.
    """

    method: Literal["adamw", "sgd"] = "adamw"
    lr: float = 3e-3
    weight_decay: float = 0.01
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        _checks.choice("optimizer.method", self.method, ("adamw", "sgd"))
        _checks.number("optimizer.lr", self.lr, above=0)
        _checks.number("optimizer.weight_decay", self.weight_decay, minimum=0)
        _checks.number("optimizer.gradient_clip", self.gradient_clip, minimum=0)


@dataclass(frozen=True)
class TrainerSettings:
    """How long and where to train.

    Args:
        epochs: passes over the training split, >= 1.
        batch_size: samples per step, >= 1.
        patience: epochs without a better validation loss before stopping; 0 never stops early. Burn-in epochs do not count.
        checkpoint_every: training steps between checkpoints inside an epoch; 0 for one at the end of each epoch only.
        accelerator: "auto", "cpu" or "gpu".
        precision: in what the matrix products of projector and readout are computed in training: "float32", "bfloat16", "float16" (on a GPU
            only), or "auto": bfloat16 on a GPU that has it. Rollouts, losses, parameters and all evaluation are in float32.
        threads: CPU threads; 0 leaves torch's choice.
        prefetch: batches that are read ahead in the background; none takes 2 of pictures that are not in memory, 0 of other data.
    """

    epochs: int = 20
    batch_size: int = 64
    patience: int = 0
    checkpoint_every: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    threads: int = 0
    prefetch: int | None = None

    def __post_init__(self) -> None:
        _checks.integer("trainer.epochs", self.epochs, minimum=1)
        _checks.integer("trainer.batch_size", self.batch_size, minimum=1)
        for name in ("patience", "checkpoint_every", "threads"):
            _checks.integer(f"trainer.{name}", getattr(self, name), minimum=0)
        if self.prefetch is not None:
            _checks.integer("trainer.prefetch", self.prefetch, minimum=0)
        if self.accelerator == "gpu" and not torch.accelerator.is_available():
            raise ValueError("trainer.accelerator must be 'auto' or 'cpu' on this machine, which has no GPU, got 'gpu'")
        _checks.choice("trainer.precision", self.precision, ("auto", "float32", "bfloat16", "float16"))

    def lightning_precision(self) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
        """The precision as Lightning calls it.

        Raises:
            ValueError: for float16 without a GPU; not before, since a model that was trained on one may be used without.
        """
        gpu = self.accelerator != "cpu" and torch.accelerator.is_available()
        if self.precision == "float16":
            if not gpu:
                raise ValueError("trainer.precision must be 'auto', 'float32' or 'bfloat16' on a CPU, got 'float16'")
            return "16-mixed"
        able = gpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if self.precision == "bfloat16" or (self.precision == "auto" and able) else "32-true"


SETTINGS = {
    "machine": MachineSettings,
    "loss": LossSettings,
    "optimizer": OptimizerSettings,
    "trainer": TrainerSettings,
    "stream": StreamSettings,
}
