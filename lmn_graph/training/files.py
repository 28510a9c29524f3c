"""Files that are either whole or not there, and models that are either as they were written or refused."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lmn_graph._files import remove_parts, replacing, write_text

__all__ = ["load_model", "put_back", "read_model", "remove_parts", "replacing", "save_model", "write_text"]


def save_model(module: nn.Module, path: str | Path) -> None:
    """The parameters and persistent buffers of a module as safetensors, with a checksum in the header."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"crc32": str(_checksum(tensors))})


def read_model(path: str | Path) -> dict[str, Tensor]:
    """What :func:`save_model` wrote.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            expected = (file.metadata() or {}).get("crc32")
    except FileNotFoundError:
        raise ValueError(f"checkpoint {str(path)!r} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {str(path)!r} is damaged: {' '.join(str(error).split())[:500]}") from None
    if expected is not None and expected != str(_checksum(tensors)):
        raise ValueError(f"checkpoint {str(path)!r} is damaged: its checksum is not that of its content")
    return tensors


def load_model(module: nn.Module, path: str | Path) -> None:
    """Put what :func:`save_model` wrote back into a module of the same kind.

    Raises:
        ValueError: if the file is missing, damaged or of another module.
    """
    put_back(module, read_model(path), path)


def put_back(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Put tensors that were read from ``path`` back into a module of the same kind.

    Raises:
        ValueError: if they are of another.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"checkpoint {str(path)!r} is of another machine: {' '.join(str(error).split())[:500]}") from None


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes(), zlib.crc32(name.encode(), found))
    return found
