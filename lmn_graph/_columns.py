"""What a rollout returns of every step, put together."""

from __future__ import annotations

import torch
from torch import Tensor


class Columns:
    """Per-step tensors on their way to [B, T, N(, C)]; without gradients they are written in place, never held twice."""

    def __init__(self, steps: int, width: int) -> None:
        self.steps = steps
        self.lists: list[list[Tensor]] = [[] for _ in range(width)]
        self.buffers: list[Tensor] = []
        self.filled = 0

    def extend(self, outputs: list[tuple[Tensor, ...]]) -> None:
        if torch.is_grad_enabled():
            for output in outputs:
                for values, column in zip(output, self.lists):
                    column.append(values)
            return
        if not self.buffers:
            self.buffers = [values.new_empty(self.steps, *values.shape) for values in outputs[0]]
        for output in outputs:
            for values, buffer in zip(output, self.buffers):
                buffer[self.filled] = values
            self.filled += 1

    def batch_first(self) -> list[Tensor]:
        stacked = self.buffers or [torch.stack(column) for column in self.lists]
        return [values.movedim(2, 0) for values in stacked]


class ScatteredColumns:
    """Per-step tensors of ever fewer samples on their way to [B, T, N(, C)], zero where a sample is not held any more."""

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size, self.filled = steps, batch_size, 0
        self.chunks: list[tuple[Tensor, list[tuple[Tensor, ...]]]] = []
        self.buffers: list[Tensor] = []

    def extend(self, outputs: list[tuple[Tensor, ...]], samples: Tensor) -> None:
        if torch.is_grad_enabled():
            if not self.chunks or self.chunks[-1][0] is not samples:
                self.chunks.append((samples, []))
            self.chunks[-1][1].extend(outputs)
            return
        if not self.buffers:
            self.buffers = [self._zeros(self.steps, values) for values in outputs[0]]
        for output in outputs:
            for values, buffer in zip(output, self.buffers):
                buffer[self.filled].index_copy_(1, samples, values)
            self.filled += 1

    def batch_first(self) -> list[Tensor]:
        if self.buffers:
            return [values.movedim(2, 0) for values in self.buffers]
        rest = self.steps - sum(len(outputs) for _, outputs in self.chunks)
        found = []
        for column in range(len(self.chunks[0][1][0])):
            parts = [torch.stack([output[column] for output in outputs]) for _, outputs in self.chunks]
            parts = [
                part if part.size(2) == self.batch_size else self._zeros(part.size(0), part[0]).index_copy(2, samples, part)
                for part, (samples, _) in zip(parts, self.chunks)
            ]
            parts += [self._zeros(rest, parts[0][0])] if rest else []
            found.append((parts[0] if len(parts) == 1 else torch.cat(parts)).movedim(2, 0))
        return found

    def _zeros(self, steps: int, like: Tensor) -> Tensor:
        return like.new_zeros(steps, like.size(0), self.batch_size, *like.shape[2:])
