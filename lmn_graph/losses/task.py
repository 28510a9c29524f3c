"""Losses on the prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmn_graph._precision import widened
from topologies import _checks


class TaskLoss(nn.Module):
    """Cross-entropy of class scores, or mean squared error of a regression.

    Args:
        kind: "classification" or "regression".
        label_smoothing: ε in [0, 1): the true class has 1 − ε + ε/K, every other ε/K; classification only.

    Raises:
        ValueError: if an argument is out of range; in the forward pass, if prediction and target do not fit each other.
    """

    def __init__(self, kind: Literal["classification", "regression"] = "classification", *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.kind = _checks.choice("kind", kind, ("classification", "regression"))
        self.label_smoothing = _checks.number("label_smoothing", label_smoothing, minimum=0, maximum=1)
        if self.label_smoothing == 1 or (self.label_smoothing and self.kind == "regression"):
            raise ValueError(f"label_smoothing must be in [0, 1) and is for classification only, got {label_smoothing!r} for {kind}")

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch; of predictions in half precision it is computed in float32.

        Args:
            prediction: [B, K] class scores, or [B, D] values.
            target: [B] class numbers; or values [B, D], [B] being the same as [B, 1].
        """
        prediction = widened(prediction)
        return self._classification(prediction, target) if self.kind == "classification" else self._regression(prediction, target)

    def _classification(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.ndim != 2 or target.shape != prediction.shape[:1]:
            raise ValueError(f"target must be [B] for a prediction [B, K], got {tuple(target.shape)} and {tuple(prediction.shape)}")
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise ValueError(f"target must be integer class numbers, got {target.dtype}; for values use regression")
        # On a GPU the check would wait for the device, and the device checks by itself.
        if target.device.type == "cpu" and target.numel() and not 0 <= int(target.min()) <= int(target.max()) < prediction.shape[1]:
            raise ValueError(f"target must be in 0 … {prediction.shape[1] - 1}, got {int(target.min())} … {int(target.max())}")
        return functional.cross_entropy(prediction, target.long(), label_smoothing=self.label_smoothing)

    def _regression(self, prediction: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1 and prediction.ndim == 2 and prediction.shape[1] == 1:
            target = target.unsqueeze(1)
        if target.shape != prediction.shape:
            raise ValueError(f"target must have the shape of the prediction, {tuple(prediction.shape)}, got {tuple(target.shape)}")
        return functional.mse_loss(prediction, target.to(prediction.dtype))

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, label_smoothing={self.label_smoothing:g}"


def every_step(task: Callable[[Tensor, Tensor], Tensor], predictions: Tensor, target: Tensor) -> Tensor:
    r"""The task loss of every step's own prediction against the same target, averaged over the batch and over time,

    .. math:: L = \frac{1}{BT} \sum_b \sum_t \ell(prediction_{b, t},\, target_b).

    Args:
        task: (predictions [n, K], targets [n, …]) → the mean over n, such as a :class:`TaskLoss`.
        predictions: [B, T, K], as :meth:`lmn_graph.readouts.Readout.each` makes them.
        target: [B] class numbers, or values [B, K]: one target for all steps of a sample.

    Raises:
        ValueError: if the shapes do not fit.

    Source: per_timestep_ce of grid-neurons (github.com/ThomasPluck/grid-neurons).
    """
    if predictions.ndim != 3 or target.shape[:1] != predictions.shape[:1]:
        got = f"{tuple(predictions.shape)} and {tuple(target.shape)}"
        raise ValueError(f"predictions must be [B, T, K] with a target for each of the B samples, got {got}")
    return task(predictions.flatten(0, 1), target.repeat_interleave(predictions.shape[1], 0))
