"""Pictures as grids of square patches and back: reshapes, on whatever device the pictures are."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from topologies import _checks


def patchify(pictures: Tensor, patch: int) -> Tensor:
    r"""Cut pictures into patches,

    .. math:: out_{b,u,v,c,i,j} = pictures_{b,c,\,pu+i,\,pv+j}.

    A last row or column of patches that is not full is filled up with zeros, below and on the right. Without that the result is a view.

    Args:
        pictures: ``[B, height, width]``, grey, or ``[B, C, height, width]``; any type of numbers.
        patch: side p of a patch in pixels, >= 1.

    Returns:
        ``[B, ⌈height/p⌉, ⌈width/p⌉, C, p, p]``, with C = 1 for grey.

    Raises:
        ValueError: if the pictures have another shape or ``patch`` is not a positive integer.
    """
    p = _checks.integer("patch", patch, minimum=1)
    if pictures.dim() not in (3, 4):
        raise ValueError(f"pictures must have shape [B, height, width] or [B, C, height, width], got {tuple(pictures.shape)}")
    planes = pictures.unsqueeze(1) if pictures.dim() == 3 else pictures
    below, right = -planes.size(2) % p, -planes.size(3) % p
    if below or right:
        planes = functional.pad(planes, (0, right, 0, below))
    return planes.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5)


def unpatchify(patches: Tensor, height: int, width: int) -> Tensor:
    """The pictures ``[B, C, height, width]`` that :func:`patchify` cut into ``patches``; what it filled up is left out.

    Args:
        patches: ``[B, rows, columns, C, p, p]``.
        height, width: of the pictures, in pixels.

    Raises:
        ValueError: if the patches have another shape or do not cover exactly such pictures.
    """
    if patches.dim() != 6 or patches.size(4) != patches.size(5):
        raise ValueError(f"patches must have shape [B, rows, columns, C, p, p], got {tuple(patches.shape)}")
    p = patches.size(5)
    if (-(-height // p), -(-width // p)) != tuple(patches.shape[1:3]):
        raise ValueError(f"height and width must be of pictures that {tuple(patches.shape[1:3])} patches cover, got {height} and {width}")
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
