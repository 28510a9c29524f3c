"""Batches of tensors that are in memory, in an order that a checkpoint can take up again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from topologies import _checks


class Batches:
    """Iterates over ``(x[i], y[i])`` batches; the order of epoch e depends on the seed and on e alone.

    Draws nothing from the global random state. ``state_dict`` holds the epoch and the position in it, so a resumed run sees the
    remaining batches of the interrupted epoch and then the same later epochs.

    Args:
        x, y: samples along the first axis.
        batch_size: samples per batch; the last batch of an epoch may be smaller.
        shuffle: whether every epoch has an order of its own.
        seed: of the orders.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> None:
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"x and y must hold the same number of samples, at least one, got {len(x)} and {len(y)}")
        self.x, self.y = x, y
        self.batch_size = _checks.integer("batch_size", batch_size, minimum=1)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The sample numbers of an epoch."""
        if not self.shuffle:
            return torch.arange(len(self.x))
        # A large odd multiplier keeps (seed, epoch) pairs apart.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(len(self.x), generator=generator)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        order = self.order(self.epoch)
        while self.position < len(self):
            index = order[self.position * self.batch_size : (self.position + 1) * self.batch_size]
            self.position += 1
            yield self.x[index], self.y[index]

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position, normalised so that the end of an epoch is the start of the next."""
        ended = self.position >= len(self)
        return {"epoch": self.epoch + ended, "position": 0 if ended else self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
