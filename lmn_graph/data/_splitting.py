"""Which rows are for training, validation and test: drawn from the caller's seed, never from the global random state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lmn_graph.registry import did_you_mean
from topologies import _checks

from ._target import Target, class_table, is_number


class Drawn(NamedTuple):
    """Row numbers of each split, shuffled; no row is in two of them. ``test`` is empty where the test rows are given."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def hold_out(
    rows: np.ndarray, count: int, generator: np.random.Generator, labels: np.ndarray | None = None, leave: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle ``rows`` and hold ``count`` of them out: (kept, held).

    With labels every class keeps its share (largest remainders), has at least one row held and ``leave`` rows kept, so the number held
    can differ from ``count`` by the number of small classes.

    Args:
        rows: row numbers [m].
        labels: class numbers of all rows, indexed by row number.
    """
    order = generator.permutation(rows)
    if labels is None:
        return order[count:], order[:count]
    _, codes = np.unique(labels[order], return_inverse=True)
    sizes = np.bincount(codes)
    share = sizes * (count / len(order))
    held = np.clip(np.floor(share).astype(np.int64), 1, sizes - leave)
    for group in np.argsort(np.floor(share) - share, kind="stable"):
        if held.sum() < count and held[group] < sizes[group] - leave:
            held[group] += 1
    rank = np.empty(len(order), dtype=np.int64)
    by_class = np.argsort(codes, kind="stable")
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = rank < held[codes]
    return order[~taken], order[taken]


def draw_balanced(
    labels: np.ndarray, classes: Sequence[str], train_size: int | None, fraction: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation among those with ``labels``, shuffled.

    Args:
        labels: class numbers of all rows.
        classes: what the classes are called in messages.
        train_size: training rows, the same for every class to within one; None: all that are not for validation.
        fraction: share of validation rows among both together.

    Raises:
        ValueError: naming a class that has too few rows.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2:
        small = int(counts.argmin())
        raise ValueError(f"class {classes[small]} has {counts[small]} training picture(s), at least 2 are needed, one to validate with")
    rows = np.arange(len(labels))
    if train_size is None:
        return hold_out(rows, max(1, round(fraction * len(rows))), generator, labels)
    if train_size < len(classes):
        raise ValueError(f"train_size must be at least one picture for each of the {len(classes)} classes, got {train_size}")
    wanted = shares(train_size, len(classes), generator)
    held = shares(max(len(classes), round(train_size * fraction / (1 - fraction))), len(classes), generator)
    short = wanted + held > counts
    if short.any():
        small = int(short.argmax())
        both = f"{wanted[small]} for training and {held[small]} for validation"
        raise ValueError(f"train_size {train_size} takes {both} from class {classes[small]}, which has {counts[small]} pictures")
    kept_rows, held_rows = [], []
    for number in range(len(classes)):
        order = generator.permutation(rows[labels == number])
        kept_rows.append(order[: wanted[number]])
        held_rows.append(order[len(order) - held[number] :])
    return generator.permutation(np.concatenate(kept_rows)), generator.permutation(np.concatenate(held_rows))


def shares(total: int, groups: int, generator: np.random.Generator) -> np.ndarray:
    """``total`` in equal parts, the remainder one each to groups that are drawn."""
    found = np.full(groups, total // groups)
    found[generator.permutation(groups)[: total % groups]] += 1
    return found


def split_rows(
    count: int,
    *,
    validation_fraction: float,
    seed: int,
    test_fraction: float | None = None,
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> Drawn:
    """Split rows 0 … count − 1, class by class where labels are given.

    Args:
        count: number of rows.
        validation_fraction: share of the rows that are not for test, in (0, 0.9].
        seed: seed of the shuffle.
        test_fraction: share of all rows, in (0, 0.9]; None where the test rows are given elsewhere.
        labels: class numbers [count]; None for regression.
        classes: class names, for messages.

    Raises:
        ValueError: naming the argument, or the class that is too small to have a row in every split.
    """
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    generator = np.random.default_rng(_checks.integer("seed", seed, minimum=0))
    splits = 2 if test_fraction is None else 3
    if labels is not None:
        sizes = np.bincount(labels, minlength=len(classes))
        if sizes.min() < splits:
            small = int(sizes.argmin())
            hint = "; set task to regression if these are quantities" if is_number(classes[small]) else ""
            raise ValueError(f"class {classes[small]!r} has {sizes[small]} row(s), at least {splits} are needed, one for every split{hint}")
    elif count <= splits:
        raise ValueError(f"{count} row(s) are too few to split: at least {splits + 1} are needed")
    last = 1 if labels is not None else 2
    kept, test = np.arange(count), np.arange(0)
    if test_fraction is not None:
        _checks.number("test_fraction", test_fraction, above=0, maximum=0.9)
        kept, test = hold_out(kept, _count(count, test_fraction, last + 1), generator, labels, last + 1)
    train, validation = hold_out(kept, _count(len(kept), validation_fraction, last), generator, labels, last)
    return Drawn(train, validation, test)


def divide(
    name: str,
    words: list[str] | None,
    values: np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    fixed: int | None = None,
    log: bool = False,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> tuple[Target, Tensor, Drawn]:
    """Split rows and fit the target on the training ones: (target, y of all rows, rows).

    Args:
        name: of the target.
        words: class of each row; None for regression.
        values: regression targets float64 [n, k]; not looked at for classification.
        classes: class names in their order; None: sorted from the rows.
        fixed: rows from this one on are the given test rows; None: draw them.
        log: whether the regression is of the logarithms of ``values``.
        test_fraction, validation_fraction, seed: see ``split_rows``.

    Raises:
        ValueError: as ``split_rows`` and ``Target``; and for a given test row of a class that no other row has.
    """
    options: dict[str, Any] = {"validation_fraction": validation_fraction, "seed": seed}
    options["test_fraction"] = test_fraction if fixed is None else None
    if words is None:
        rows = split_rows(len(values) if fixed is None else fixed, **options)
        target = Target.regression(name, values[rows.train], log=log)
        y = target.encode_numbers(values)
    else:
        target = Target.classification(name, class_table(words[:fixed]) if classes is None else classes)
        if fixed is not None:
            _check_given(target, words[fixed:])
        y = target.encode_words(words)
        labels = y[:fixed].numpy()
        rows = split_rows(len(labels), labels=labels, classes=target.classes or (), **options)
    return target, y, rows if fixed is None else rows._replace(test=np.arange(fixed, len(y)))


def check_trained(labels: np.ndarray, rows: Drawn, classes: Sequence[str]) -> None:
    """Refuse splits whose validation or test rows are of a class that no training row has.

    Args:
        labels: class numbers of all rows, indexed by row number.
        classes: class names.
    """
    known = np.isin(np.arange(len(classes)), labels[rows.train])
    for split in ("validation", "test"):
        unknown = ~known[labels[getattr(rows, split)]]
        if unknown.any():
            lost = classes[int(labels[getattr(rows, split)][unknown.argmax()])]
            raise ValueError(f"the {split} split has rows of class {lost!r}, but no training row is of class {lost!r}")


def _check_given(target: Target, words: list[str]) -> None:
    """Refuse given test rows of a class that ``target`` does not have."""
    known = set(target.classes or ())
    for row, word in enumerate(words):
        if word not in known:
            hint = did_you_mean(word, sorted(known))
            raise ValueError(f"target {target.name!r}: row {row} of the test split is of class {word!r}, but no training row is{hint}")


def _count(rows: int, fraction: float, leave: int) -> int:
    return min(max(1, round(rows * fraction)), rows - leave)
