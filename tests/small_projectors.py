"""What every registered projector can be built for in a test: the shape of a sample, and options that keep it small."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from lmn_graph.projectors import PROJECTORS, Projector

IN_SHAPES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Backbone", "ConcatenatedQuery", "Conv1d", "Patchify", "ViT", "VoxelCNN"), (4, 5)),
    "Stream": (3, 5),
}  # of those that do not take any shape
OPTIONS: dict[str, dict[str, Any]] = {
    "Backbone": {"model": "shufflenet_v2_x0_5"},
    "ConcatenatedQuery": {"width": 8, "layers": 1, "patch": 2},
    "Conv1d": {"width": 4},
    "Patchify": {"patch": 2},
    "Stream": {"density": 1.0},
    "ViT": {"width": 8, "layers": 1, "patch": 2},
    "VoxelCNN": {"width": 4},
}


def in_shape(name: str) -> tuple[int, ...]:
    """Shape of one sample that the projector takes."""
    return IN_SHAPES.get(name, (5,))


TOKENS = {"SharedEmbedding", "TokenEmbedding"}  # take whole numbers, through which no gradient goes


def sample(name: str, batch: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """Random input of the projector, float32 [batch, *shape]."""
    shape = shape or in_shape(name)
    return torch.randint(0, 256, (batch, *shape)).float() if name in TOKENS else torch.rand(batch, *shape)


def has_steps(name: str) -> bool:
    """Whether the projector makes a drive for every step, and so is told how many there are."""
    return "steps" in inspect.signature(PROJECTORS[name]).parameters


def small_projector(
    name: str, topology: Data, shape: tuple[int, ...] | None = None, *, steps: int | None = None, **options: Any
) -> Projector:
    """The projector ``name`` for samples of ``shape``, or of :func:`in_shape`, and for a machine of so many steps."""
    given = {"steps": steps} if has_steps(name) else {}
    return PROJECTORS[name](shape or in_shape(name), topology, **OPTIONS.get(name, {}), **given, **options)
