"""What is predicted: class names, or numbers with their training mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lmn_graph.registry import did_you_mean

Task = Literal["auto", "classification", "regression"]
MAX_INFERRED_CLASSES = 20
LARGEST = float(np.finfo(np.float32).max)


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation over axis 0 of float64 [n, F] with |v| ≤ ``LARGEST``; 0 where a column is constant
    (to rounding, 1e-12 of its largest value)."""
    mean, std = values.mean(0), values.std(0)
    return mean, np.where(std > 1e-12 * np.abs(values).max(0), std, 0.0)


def logarithm(name: str, values: np.ndarray) -> np.ndarray:
    """ln of float64 values of the target ``name``; one that is not > 0 raises ValueError."""
    if not (values > 0).all():
        raise ValueError(f"target {name!r} must be > 0 for its logarithm, got {values[~(values > 0)][0]:g}")
    return np.log(values)


def infer_task(numbers: np.ndarray) -> Task:
    """Classes if all of float [n] are whole, at most 20 differ and each has three rows on average; else regression."""
    distinct = len(np.unique(numbers))
    few = distinct <= MAX_INFERRED_CLASSES and len(numbers) >= 3 * distinct
    return "classification" if few and bool(np.all(numbers == np.floor(numbers))) else "regression"


def whole_words(numbers: np.ndarray) -> list[str]:
    """Class words of numbers: "3" for 3.0."""
    return [str(int(value)) if value == np.floor(value) else str(value) for value in numbers.tolist()]


def is_number(word: str) -> bool:
    """Whether ``word`` reads as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def class_table(words: Iterable[str]) -> tuple[str, ...]:
    """Distinct words, sorted: as numbers where all are numbers, else as text."""
    names = sorted(set(words))
    return tuple(sorted(names, key=float) if all(map(is_number, names)) else names)


@dataclass(frozen=True)
class Target:
    """Targets as a model sees them: class numbers, or z = (y − mean) / scale, with ln y for y where ``log`` is set.

    Args:
        name: column or array name.
        classes: class names in the order of their numbers; None for regression.
        mean, scale: of the training targets (their logarithms if ``log``), one per output; empty for classification.
        log: whether the natural logarithm is taken first.
    """

    name: str
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    log: bool = False

    @classmethod
    def classification(cls, name: str, classes: Sequence[str]) -> Target:
        """A choice between ``classes``.

        Raises:
            ValueError: if fewer than two classes are left.
        """
        if len(classes) < 2:
            raise ValueError(f"target {name!r} must have at least two classes, got {', '.join(map(repr, classes)) or 'none'}")
        return cls(name, tuple(classes))

    @classmethod
    def regression(cls, name: str, values: np.ndarray, *, log: bool = False) -> Target:
        """Scaling of the training targets, float64 [n, k], or of their logarithms.

        Raises:
            ValueError: if an output is constant, or has no logarithm where that is asked for.
        """
        mean, scale = moments(logarithm(name, values) if log else values)
        if not scale.all():
            constant = np.exp(mean) if log else mean
            raise ValueError(
                f"target {name!r} is constant in the training split ({constant[scale == 0][0]:g}): there is nothing to predict"
            )
        return cls(name, None, tuple(mean.tolist()), tuple(scale.tolist()), log)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Target:
        """Rebuild from ``dataclasses.asdict``, whose tuples JSON has turned into lists."""
        classes = fields["classes"]
        if classes is not None and not (isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)):
            raise ValueError(f"classes must be a list of names, got {classes!r}"[:200])
        log = fields.get("log", False)
        if not isinstance(log, bool):
            raise ValueError(f"log must be True or False, got {log!r}")
        return cls(fields["name"], None if classes is None else tuple(classes), tuple(fields["mean"]), tuple(fields["scale"]), log)

    @property
    def task(self) -> str:
        return "regression" if self.classes is None else "classification"

    @property
    def out_features(self) -> int:
        return len(self.mean) if self.classes is None else len(self.classes)

    @property
    def label(self) -> str:
        """The name of what is scaled: "log price" where the logarithm is taken."""
        return f"log {self.name}" if self.log else self.name

    def encode_words(self, words: list[str]) -> Tensor:
        """Class numbers int64 [n]; a word that is not a class raises ValueError."""
        number = {word: i for i, word in enumerate(self.classes or ())}
        for word in words:
            if word not in number:
                raise ValueError(f"target {self.name!r}: no training row is of class {word!r}{did_you_mean(word, list(number))}")
        return torch.tensor([number[word] for word in words], dtype=torch.int64)

    def encode_numbers(self, values: np.ndarray) -> Tensor:
        """(values − mean) / scale, with the values' logarithms if ``log``: float64 [n, k] → float32 [n, k]; beyond float32, or values
        without a logarithm, raise ValueError."""
        scaled = ((logarithm(self.name, values) if self.log else values) - np.array(self.mean)) / np.array(self.scale)
        if np.abs(scaled).max() > LARGEST:
            raise ValueError(f"target {self.name!r} holds a number too large for the scale of the training rows")
        return torch.from_numpy(scaled.astype(np.float32))

    def unscale(self, prediction: Tensor) -> Tensor:
        """prediction · scale + mean, or e to that if ``log``: [n, k] in the target's own units, float64."""
        if self.classes is not None:
            raise ValueError(f"target {self.name!r} is a class: only regression targets have a scale")
        self._check(prediction)
        z = prediction.detach().double()
        values = z * z.new_tensor(self.scale) + z.new_tensor(self.mean)
        return values.exp() if self.log else values

    def decode(self, prediction: Tensor) -> list[Any]:
        """Class names of the largest of [n, classes]; or unscaled numbers, a float per row (a list of k floats where k > 1)."""
        if self.classes is None:
            values = self.unscale(prediction).tolist()
            return [row[0] for row in values] if self.out_features == 1 else values
        self._check(prediction)
        return [self.classes[i] for i in prediction.argmax(1).tolist()]

    def _check(self, prediction: Tensor) -> None:
        if prediction.dim() != 2 or prediction.shape[1] != self.out_features:
            raise ValueError(f"prediction must have shape [n, {self.out_features}], got {list(prediction.shape)}")
