"""Training on streams: the state carried from window to window, gradients cut where the settings say."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmn_graph.data import Stream, StreamSplits
from lmn_graph.data._seasons import period_of
from lmn_graph.learning import BPTT
from lmn_graph.machine import LatticeMachine, Output
from lmn_graph.memory import Memory
from lmn_graph.streaming import detached
from lmn_graph.training.measure import PROBE, dynamics
from lmn_graph.training.module import TrainingModule
from lmn_graph.training.settings import StreamSettings
from lmn_graph.training.windows import StreamBatches, Window

LANES = 32  # streams side by side in which a split is measured


class StreamModule(TrainingModule):
    """Trains a machine on windows of streams, by Lightning's manual optimisation.

    The state between windows is a value that this module hands on, never part of the model; it is in the checkpoint.
    """

    validation: StreamBatches  # type: ignore[assignment]

    def __init__(self, *arguments: Any, stream: StreamSettings, clip: float = 0.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not isinstance(self.learning, BPTT):
            raise ValueError(
                f"learning must be bptt for a stream in a run, got {type(self.learning).__name__}; see lmn_graph.learning.Online"
            )
        self.automatic_optimization = False
        self.stream_settings, self.clip = stream, clip
        self.carried: Any = None

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:  # type: ignore[override]
        state = None if batch.first or not self.stream_settings.carry else self.carried
        output, self.carried = advance(self.machine, batch, state, self.stream_settings)
        there = batch.y >= 0 if self.task == "classification" else batch.y.isfinite().all(-1)
        prediction, y = output.prediction[there], batch.y[there]
        flat = Output(prediction, output.trajectory, output.trajectory.state)
        options: dict[str, Any] = {"epoch": self.current_epoch, "step": self.global_step}
        total, terms = self.loss(flat, y, machine=self.machine, x=batch.x[:, -1], **options)
        self.count(total, terms, prediction.detach(), output.trajectory.activity.detach().abs().mean(), y)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(total)
        if self.clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
        optimizer.step()
        if (scheduler := self.lr_schedulers()) is not None:
            scheduler.step()  # type: ignore[union-attr]
        return total.detach()

    def measured(self) -> dict[str, float]:
        return measured(self.machine, self.validation)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["carried"] = None if self.carried is None else [field.cpu() for field in self.carried]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        fields = checkpoint.get("carried")
        kind: Any = Memory if self.machine.memory is not None else type(self.machine.rule.initial_state(0))
        device = next(self.machine.parameters()).device
        self.carried = None if fields is None else kind(*(field.to(device) for field in fields))


def advance(machine: LatticeMachine, window: Window, state: Any, settings: StreamSettings) -> tuple[Output, Any]:
    """The predictions for the targets of a window, and the state, without gradient, from which the next window starts."""
    items, targets = window.x.size(1), window.y.size(1)
    outputs: list[Output] = []
    carried = None if window.advance else detached(state)
    span = settings.window if machine.memory is not None else items  # a memory passes between windows, within a gradient's reach too
    marks = sorted({0, items, *range(0, items, span), window.advance if 0 < window.advance < items else 0})
    for first, stop in pairwise(marks):
        if first:
            state = outputs[-1].state
        outputs.append(machine.stream(window.x[:, first:stop], state, starts=window.starts[:, first:stop]))
        if stop == window.advance:
            carried = detached(outputs[-1].state)
    activity = torch.cat([output.trajectory.activity for output in outputs], 1) if len(outputs) > 1 else outputs[0].trajectory.activity
    prediction = torch.cat([output.prediction for output in outputs], 1)[:, -targets:]
    last = outputs[-1]
    carried = detached(last.state) if window.advance >= items else carried
    return Output(prediction, last.trajectory._replace(activity=activity), last.state), carried


def rehearse(machine: LatticeMachine, loss: Any, batches: StreamBatches, task: str, settings: StreamSettings) -> None:
    """One window forward: parts that do not fit together say so."""
    if loss.every_step:
        raise ValueError("loss.every_step must be False for a stream, every item of which has a target of its own, got True")
    window = next(iter(batches))
    batches.position = 0
    window = Window(window.x[:4, :8], window.y[:4, :8], window.starts[:4, :8], 0, True)
    output, _ = advance(machine, window, None, settings)
    there = window.y >= 0 if task == "classification" else window.y.isfinite().all(-1)
    flat = Output(output.prediction[there], output.trajectory, output.trajectory.state)
    loss(flat, window.y[there], machine=machine, x=window.x[:, -1], epoch=None)


def measuring(stream: Stream, settings: StreamSettings) -> StreamBatches:
    """The windows on which a split is measured: by lanes, each item once but for those that are no whole lane."""
    window = min(settings.window, len(stream) - 1)
    return StreamBatches(stream, StreamSettings(window, carry=settings.carry), LANES, whole=True)


@torch.no_grad()
def measured(machine: LatticeMachine, batches: StreamBatches, scale: tuple[float, ...] = (1.0,)) -> dict[str, float]:
    """Quality over a whole stream, the state carried as in training, and the dynamics at the end of a window in its middle.

    Of text: ``loss`` in nats a token, ``accuracy``, ``bits_per_character`` and ``word_perplexity``, by which models with other tokens
    compare: nats of all tokens over the characters, and e to the nats a word. Of numbers: ``loss``, ``r2``, ``rmse`` and ``mae`` in units
    of the values, and ``baseline_last_value_rmse``, the error of saying that nothing changes.
    """
    stream, device = batches.stream, next(machine.parameters()).device
    batches.epoch = batches.position = 0
    sums: dict[str, float] = {}
    state, shown, spread = None, {}, []
    for number, window in enumerate(batches):
        window = window._replace(x=window.x.to(device), y=window.y.to(device), starts=window.starts.to(device))
        output = machine.stream(window.x, state, starts=window.starts)
        state = output.state if batches.settings.carry else None
        for name, value in _sums(output.prediction, window, stream.is_text, scale).items():
            sums[name] = sums.get(name, 0.0) + value
        if not stream.is_text:
            spread.append(window.y.double().flatten(0, 1).cpu())
        if number == len(batches) // 2:
            part = Output(output.prediction, output.trajectory, output.trajectory.state)
            shown = dynamics(machine, window.x[:PROBE, -1], output=part)
    count = sums.pop("count")
    found = {name: value / count for name, value in sums.items()}
    if stream.is_text:
        nats = found["loss"] * len(stream)
        if stream.characters:
            found["bits_per_character"] = nats / stream.characters / math.log(2)
        if stream.words:
            found["word_perplexity"] = math.exp(min(nats / stream.words, 700.0))
        return found | shown
    values = torch.cat(spread)
    total = float((values - values.mean(0)).square().mean())
    found["r2"] = 1 - found["loss"] / total if total > 0 else math.nan
    for name in ("rmse", "baseline_last_value_rmse"):
        found[name] = math.sqrt(found[name])
    return found | shown


def _sums(prediction: Tensor, window: Window, text: bool, scale: tuple[float, ...]) -> dict[str, float]:
    """Sums over the items of a window."""
    if text:
        loss = torch.nn.functional.cross_entropy(prediction.flatten(0, 1), window.y.flatten(), reduction="sum")
        return {"count": window.y.numel(), "loss": float(loss), "accuracy": float((prediction.argmax(-1) == window.y).sum())}
    error, moved = (part.double() - window.y.double() for part in (prediction, window.x))
    units = error.new_tensor(scale)
    items = window.y.shape[0] * window.y.shape[1]
    means = {
        "loss": error.square(),
        "rmse": (error * units).square(),
        "mae": (error * units).abs(),
        "baseline_last_value_rmse": (moved * units).square(),
    }
    return {"count": float(items), **{name: float(value.mean()) * items for name, value in means.items()}}


def evaluate_stream(machine: LatticeMachine, splits: StreamSplits, part: str, settings: StreamSettings) -> dict[str, float]:
    """As :func:`lmn_graph.training.run.evaluate`, of streams; with the error of repeating the period that the training part may have."""
    stream, scale = getattr(splits, part), splits.encoder.target.scale or (1.0,)
    found = measured(machine, measuring(stream, settings), scale)
    period = None if stream.is_text else period_of(splits.train.values)
    if period is not None and period < len(stream):
        moved = (stream.values[period:].astype(np.float64) - stream.values[:-period]) * np.asarray(scale)
        found["baseline_seasonal_rmse"] = float(np.sqrt(np.square(moved).mean()))
    return {f"{part}/{name}": value for name, value in found.items()}
