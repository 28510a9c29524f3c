"""Pictures as sequences of tokens, one per patch, and the transformer that they go through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lmn_graph._reset import reset_parts
from lmn_graph.attention import split_heads
from lmn_graph.patches import patchify
from topologies import _checks


class PatchGrid(nn.Module):
    """The patches of a picture as vectors, [B, rows·columns, C·p²].

    Args:
        in_shape: (height, width), grey; (C, height, width); or (rows, columns, C, p, p), pictures that are cut already.
        patch: side p of a patch in pixels; a picture that is smaller is one patch along that side. None: ``default``, or the side of
            pictures that are cut already.
        default: for ``patch``.

    Raises:
        ValueError: if ``in_shape`` is none of these, or ``patch`` is out of range or not that of pictures that are cut already.
    """

    def __init__(self, in_shape: Sequence[int], patch: int | None, default: int = 8) -> None:
        super().__init__()
        sides = tuple(in_shape)
        if len(sides) not in (2, 3, 5) or (len(sides) == 5 and sides[3] != sides[4]):
            raise ValueError(
                f"in_shape must be (height, width), (C, height, width) or, for pictures that are cut, (rows, columns, C, p, p), got {sides}"
            )
        self.cut = len(sides) == 5
        if patch is not None:
            patch = _checks.integer("patch", patch, minimum=1)
        if self.cut:
            if patch not in (None, sides[3]):
                raise ValueError(f"patch must be that of the pictures, which are cut already, {sides[3]} or None; got {patch}")
            self.rows, self.columns, colours, self.patch = sides[0], sides[1], sides[2], sides[3]
        else:
            self.patch = min(default if patch is None else patch, *sides[-2:])
            self.rows, self.columns = (-(-side // self.patch) for side in sides[-2:])
            colours = 1 if len(sides) == 2 else sides[0]
        self.count, self.features = self.rows * self.columns, colours * self.patch**2

    def forward(self, x: Tensor) -> Tensor:
        return (x if self.cut else patchify(x, self.patch)).flatten(3).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.rows} × {self.columns} patches of {self.patch} × {self.patch}"


class Stem(nn.Module):
    """Convolutions before pictures are cut: 3 × 3, group normalisation, GELU; each halves height and width, rounded up.

    Args:
        in_shape: (height, width), grey, or (C, height, width).
        layers: >= 1.
        width: maps of the last layer; every layer before has half as many as the next, at least eight.

    Attributes:
        out_shape: (width, height, width) of the maps.
    """

    def __init__(self, in_shape: Sequence[int], layers: int, width: int) -> None:
        super().__init__()
        colours, *sides = (1, *in_shape) if len(in_shape) == 2 else in_shape
        maps = [colours, *(max(8, width >> (layers - 1 - layer)) for layer in range(layers - 1)), width]
        blocks: list[nn.Module] = []
        for before, after in pairwise(maps):
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(math.gcd(8, after), after), nn.GELU()]
        self.layers = nn.Sequential(*blocks)
        self.out_shape = (width, *(-(-side // 2**layers) for side in sides))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.unsqueeze(1) if x.dim() == 3 else x)


def patch_encoder(
    in_shape: Sequence[int],
    learned: int,
    *,
    patch: int | None,
    default: int,
    stem: int,
    width: int,
    layers: int,
    heads: int,
    dropout: float,
) -> PatchEncoder:
    """The encoder of a projector; ``stem`` convolutions come first, and ``patch`` counts pixels of the picture all the same.

    Raises:
        ValueError: as its parts, and if the stem does not fit the patches, or pictures that are cut already have one.
    """
    stem = _checks.integer("stem", stem, minimum=0)
    if stem == 0:
        return PatchEncoder(PatchGrid(in_shape, patch, default), learned, width=width, layers=layers, heads=heads, dropout=dropout)
    if len(in_shape) not in (2, 3):
        raise ValueError(f"in_shape must be (height, width) or (C, height, width) where there is a stem, got {tuple(in_shape)}")
    patch = _checks.integer("patch", default if patch is None else patch, minimum=1)
    if patch % 2**stem:
        raise ValueError(f"patch must be a multiple of {2**stem}, since {stem} convolutions halve the picture each, got {patch}")
    first = Stem(in_shape, stem, _checks.integer("width", width, minimum=1))
    grid = PatchGrid(first.out_shape, patch // 2**stem)
    return PatchEncoder(grid, learned, stem=first, width=width, layers=layers, heads=heads, dropout=dropout)


class PatchEncoder(nn.Module):
    r"""Tokens of a picture, E patch + position, behind learned ones, through a transformer: [B, M + P, D].

    .. math:: x \leftarrow x + \mathrm{Attention}(\mathrm{norm}(x)), \quad x \leftarrow x + \mathrm{MLP}(\mathrm{norm}(x)),

    as often as there are layers, and norm(x) at the end.

    Args:
        patches: how pictures are cut.
        learned: M, tokens that are the same for every picture at the start.
        stem: what pictures go through before they are cut.
        width: D.
        layers: >= 0.
        heads: attention heads; must divide D.
        dropout: inside the layers.

    Raises:
        ValueError: if a size is out of range or ``heads`` does not divide ``width``.
    """

    def __init__(
        self, patches: PatchGrid, learned: int, *, stem: Stem | None = None, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        width, heads = split_heads("width", width, heads)
        dropout = _checks.number("dropout", dropout, minimum=0.0, maximum=1.0)
        self.stem = stem
        self.patches = patches
        self.embedding = nn.Linear(patches.features, width)
        self.position = nn.Parameter(torch.empty(patches.count, width))
        self.learned = nn.Parameter(torch.empty(learned, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(_checks.integer("layers", layers, minimum=0))
        )
        self.norm = nn.LayerNorm(width)
        self._draw()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        reset_parts(self)
        self._draw()

    def _draw(self) -> None:
        nn.init.normal_(self.position, std=0.2)
        nn.init.normal_(self.learned, std=1 / math.sqrt(self.learned.size(1)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedding(self.patches(x if self.stem is None else self.stem(x))) + self.position
        tokens = torch.cat([self.learned.to(tokens.dtype).expand(len(x), -1, -1), tokens], 1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)
