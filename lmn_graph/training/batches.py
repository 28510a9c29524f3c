"""Batches of rows in an order that a checkpoint can take up again, read ahead in the background where reading takes time."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from lmn_graph.data.base import Rows
from topologies import _checks

AHEAD = 2  # batches of rows that have to be read

T = TypeVar("T")


class Batches:
    """Iterates over ``(x[i], y[i])`` batches; the order of epoch e depends on the seed and on e alone.

    Draws nothing from the global random state. ``state_dict`` holds the epoch and the position in it, so a resumed run sees the
    remaining batches of the interrupted epoch and then the same later epochs. Batches that were read ahead and not handed out do not count.

    Args:
        x, y: samples along the first axis; x also as ``Rows``.
        batch_size: samples per batch; the last batch of an epoch may be smaller.
        shuffle: whether every epoch has an order of its own.
        seed: of the orders.
        prefetch: batches that a thread reads ahead, >= 0, which changes neither them nor their order; None: 2 of ``Rows``, 0 of tensors.
        pin: whether batches are in page-locked memory, from which they go to a GPU while it computes.
    """

    def __init__(
        self,
        x: Tensor | Rows,
        y: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        prefetch: int | None = None,
        pin: bool = False,
    ) -> None:
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"x and y must hold the same number of samples, at least one, got {len(x)} and {len(y)}")
        self.x, self.y = x, y
        self.batch_size = _checks.integer("batch_size", batch_size, minimum=1)
        self.shuffle = shuffle
        self.seed = seed
        self.prefetch = _checks.integer("prefetch", AHEAD * isinstance(x, Rows) if prefetch is None else prefetch, minimum=0)
        self.pin = pin
        self.epoch = 0
        self.position = 0
        self._reading: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()

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
        order, size = self.order(self.epoch), self.batch_size
        source = (self._read(order[batch * size : (batch + 1) * size]) for batch in range(self.position, len(self)))
        if self.prefetch:
            source = ahead(source, self.prefetch)
            self._reading.add(source)
        try:
            for batch in source:
                self.position += 1
                yield batch
        finally:
            source.close()

    def _read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.x[index], self.y[index]
        return (x.pin_memory(), y.pin_memory()) if self.pin else (x, y)

    def close(self) -> None:
        """End iterations that were broken off, and the threads that read ahead for them."""
        for source in list(self._reading):
            source.close()

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position, normalised so that the end of an epoch is the start of the next."""
        ended = self.position >= len(self)
        return {"epoch": self.epoch + ended, "position": 0 if ended else self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """The items, at most ``count`` of them made in advance by a thread, which ends with this iterator. Its errors are raised here."""
    made: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()
    room = threading.Semaphore(count)
    closed = threading.Event()

    def make() -> None:
        try:
            while room.acquire() and not closed.is_set():
                made.put(([next(items)], None))
        except StopIteration:
            made.put(([], None))
        except BaseException as error:
            made.put(([], error))

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            room.release()
            if error is not None:
                raise error
            if not item:
                return
            yield item.pop()
    finally:
        closed.set()
        room.release()
        if thread is not threading.current_thread():  # where the collector of garbage runs in it
            thread.join()
