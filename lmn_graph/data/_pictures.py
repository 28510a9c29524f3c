"""Pictures as arrays of one size, and the encoder of every dataset whose rows are pictures."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from lmn_graph.patches import patchify
from topologies import _checks

from ._npz import read_npz, rows_of
from .base import ENCODERS, Encoder, Inputs, existing

if TYPE_CHECKING:
    from PIL import Image

MODES = ("L", "RGB")


def find_pictures(folder: Path) -> Iterator[Path]:
    """Files below ``folder`` that torchvision takes for pictures, by name; hidden ones and links to folders are passed over."""
    from torchvision.datasets.folder import is_image_file

    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith(".") and is_image_file(name))


def _refuse_folder(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be read: {error}") from error


def read_pictures(paths: Iterable[Path], size: tuple[int, int], mode: str) -> torch.Tensor:
    """Grey values in [0, 1]: float32 [n, height, width] for mode "L", [n, 3, height, width] for "RGB"."""
    stack, _, _ = decode(list(paths), size, mode, np.float32)
    stack /= 255
    return torch.from_numpy(stack)


def read_what_can_be_read(paths: list[Path], size: tuple[int, int], mode: str) -> tuple[torch.Tensor, np.ndarray, str]:
    """``read_pictures`` of those that can be read; their rows int64 [kept]; the message of the first that cannot, "" if there is none."""
    stack, kept, first = decode(paths, size, mode, np.float32, skip=True)
    stack /= 255
    return torch.from_numpy(stack), kept, first


def decode(
    paths: Sequence[Path], size: tuple[int, int], mode: str, dtype: type = np.uint8, *, skip: bool = False
) -> tuple[np.ndarray, np.ndarray, str]:
    """Grey values 0 … 255, [kept, height, width] for mode "L", [kept, 3, height, width] for "RGB"; rows and message as above.

    Without ``skip`` a picture that cannot be read is a ValueError.
    """
    stack: np.ndarray = np.empty((len(paths), *size) if mode == "L" else (len(paths), 3, *size), dtype=dtype)
    kept: list[int] = []
    first = ""
    for row, path in enumerate(paths):
        try:
            pixels = _read_picture(path, size, mode)
        except ValueError as error:
            if not skip:
                raise
            first = first or str(error)
            continue
        stack[len(kept)] = pixels if mode == "L" else pixels.transpose(2, 0, 1)
        kept.append(row)
    return stack[: len(kept)], np.array(kept, dtype=np.int64), first


def _read_picture(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    """uint8 [height, width] or [height, width, 3]: upright, transparency laid over white, stretched to ``size`` (bilinear)."""
    from PIL import Image, ImageOps

    try:
        with open(path, "rb") as stream, Image.open(stream) as image:
            upright = _eight_bits(ImageOps.exif_transpose(image))
            if upright.has_transparency_data:
                layer = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            plain = upright.convert(mode)
            return np.asarray(plain.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit (a plain conversion would clip it to white)."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, 8 or 16 bits were expected")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))


@ENCODERS.register(name="pictures")
@dataclass(frozen=True)
class PictureEncoder(Encoder):
    """Pictures as x in [0, 1]: [n, height, width] for mode "L" (grey, 0 black), [n, 3, height, width] for "RGB".

    With ``patch`` they are cut as ``lmn_graph.patches.patchify`` does: [n, rows, columns, C, patch, patch].

    Args:
        target: what is predicted.
        size: (height, width) in pixels.
        mode: "L" or "RGB".
        patch: side of a patch in pixels; None for whole pictures.
    """

    size: tuple[int, int]
    mode: str = "L"
    patch: int | None = None

    kind: ClassVar[str] = "pictures"
    accepts: ClassVar[str] = "a picture, a folder of pictures, or an .npz with x (uint8 0 … 255 or numbers in [0, 1])"

    @property
    def in_shape(self) -> tuple[int, ...]:
        if self.patch is None:
            return self._whole
        return (*(-(-side // self.patch) for side in self.size), 1 if self.mode == "L" else 3, self.patch, self.patch)

    @property
    def _whole(self) -> tuple[int, ...]:
        """Shape of a picture that is not cut."""
        return self.size if self.mode == "L" else (3, *self.size)

    def encode(self, path: str | Path) -> Inputs:
        found = existing(path)
        if found.suffix.lower() == ".npz":
            return self._encode_array(found)
        paths = list(find_pictures(found)) if found.is_dir() else [found]
        if not paths:
            raise ValueError(f"{found} holds no pictures")
        names = [str(each.relative_to(found)) if found.is_dir() else each.name for each in paths]
        return Inputs(self._cut(read_pictures(paths, self.size, self.mode)), names)

    def _encode_array(self, path: Path) -> Inputs:
        x = read_npz(path, ("x",))["x"]
        values = rows_of(path, "x", x, self._whole) / (255 if x.dtype == np.uint8 else 1)
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"{path}: x must be uint8 or lie in [0, 1], got {x.dtype} in [{values.min():g}, {values.max():g}]")
        return Inputs(self._cut(torch.from_numpy(values.astype(np.float32))), [f"row {i}" for i in range(len(values))])

    def _cut(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures if self.patch is None else patchify(pictures, self.patch).contiguous()

    def to_dict(self) -> dict[str, Any]:
        record = super().to_dict()
        if self.patch is None:  # the record of whole pictures is what it was before there were patches
            del record["patch"]
        return record

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> PictureEncoder:
        height, width = (_checks.integer("size", side, minimum=1) for side in fields["size"])
        _checks.choice("mode", fields["mode"], MODES)
        patch = fields.get("patch")
        if patch is not None:
            _checks.integer("patch", patch, minimum=1)
        return cls(fields["target"], (height, width), fields["mode"], patch)
