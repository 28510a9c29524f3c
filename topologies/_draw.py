"""Random choices among very many possibilities, at the cost of those that are chosen."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hits(slots: int, p: float, generator: torch.Generator) -> Tensor:
    """The slots among 0 … slots − 1, rising, at which independent trials of probability p succeed.

    The failures between two successes are drawn, not the trials: P(gap = g) = p(1 − p)^g, so g = ⌊log(1 − U) / log(1 − p)⌋
    (Batagelj and Brandes 2005), exact up to the 2⁻⁵³ grid of U.
    """
    if p == 0 or slots == 0:
        return torch.empty(0, dtype=torch.long)
    if p == 1:
        return torch.arange(slots)
    found, last = [], -1
    while True:
        mean = (slots - 1 - last) * p
        gaps = torch.rand(math.ceil(mean + 4 * math.sqrt(mean) + 16), dtype=torch.float64, generator=generator)
        gaps = gaps.neg_().log1p_().div_(math.log1p(-p)).clamp_(max=float(slots)).long() + 1
        near = gaps[gaps.double().cumsum(0) <= 1.25 * slots]  # slots may be near 2⁶²: what lies far beyond them must not overflow
        place = last + near.cumsum(0)
        inside = place[place < slots]
        found.append(inside)
        if len(inside) < len(gaps):
            return torch.cat(found)
        last = int(inside[-1])


def distinct(slots: int, count: int, generator: torch.Generator) -> Tensor:
    """A uniformly random set of ``count`` of the slots 0 … slots − 1, rising."""
    if 2 * count > slots:
        left = torch.ones(slots, dtype=torch.bool)
        left[distinct(slots, slots - count, generator)] = False
        return left.nonzero().flatten()
    found = torch.empty(0, dtype=torch.long)
    while (missing := count - len(found)) > 0:  # the first distinct values of a uniform sequence are a uniform set
        found = torch.cat([found, torch.randint(slots, (missing,), generator=generator)]).unique()
    return found


def unordered_slots(n: int, *, loops: bool) -> int:
    """How many unordered pairs of n nodes there are."""
    return n * (n + 1) // 2 if loops else n * (n - 1) // 2


def unordered_pair(slot: Tensor, n: int, *, loops: bool) -> Tensor:
    """The slots as pairs [2, M]: every unordered pair of n nodes once, by how far the second is ahead of the first on a ring."""
    first = slot % n
    return torch.stack([first, (first + slot // n + (0 if loops else 1)) % n])


def ordered_slots(n: int, *, loops: bool) -> int:
    """How many ordered pairs of n nodes there are."""
    return n * n if loops else n * (n - 1)


def ordered_pair(slot: Tensor, n: int, *, loops: bool) -> Tensor:
    """The slots as pairs [2, M] of source and target: every ordered pair of n nodes once, by target, then source."""
    if loops:
        return torch.stack([slot % n, slot // n])
    target, source = slot // max(1, n - 1), slot % max(1, n - 1)
    return torch.stack([source + (source >= target).long(), target])


def unordered_key(source: Tensor, target: Tensor, n: int) -> Tensor:
    """One number for each unordered pair of nodes."""
    return torch.minimum(source, target) * n + torch.maximum(source, target)


def occurs_once(key: Tensor) -> Tensor:
    """Where a value occurs nowhere else in ``key``."""
    value, order = key.sort()
    repeated = value[1:] == value[:-1]
    single = torch.ones(len(key), dtype=torch.bool)
    single[1:] &= ~repeated
    single[:-1] &= ~repeated
    return torch.empty_like(single).index_copy_(0, order, single)


def first_of_each(key: Tensor) -> Tensor:
    """Where every value of ``key`` occurs first, by rising value."""
    value, order = key.sort(stable=True)
    new = torch.ones(len(key), dtype=torch.bool)
    new[1:] = value[1:] != value[:-1]
    return order[new]
