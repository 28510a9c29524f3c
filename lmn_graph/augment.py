"""Augmentation: what training batches go through before the machine sees them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmn_graph._precision import full_precision
from lmn_graph.registry import Registry
from topologies import _checks

_BLOCK = 1 << 16  # numbers in the pictures that are mapped at once: more leave the cache, fewer are mostly calls


class Augmentation(nn.Module):
    """Samples drawn anew from given ones, [B, *in_shape] → the same shape: another draw for every sample, every time it is seen.

    A subclass defines :meth:`augment` and draws from torch's global generator, whose state a checkpoint holds: a run that is resumed then
    goes on with the same draws. Only training batches are augmented.

    Args:
        in_shape: shape of one sample.
    """

    def __init__(self, in_shape: Sequence[int]) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The samples drawn from a batch, in full precision also under ``torch.autocast``.

        Raises:
            ValueError: if :meth:`augment` returns another shape or dtype.
        """
        with full_precision(x.device):
            found = self.augment(x) if len(x) else x
        if found.shape != x.shape or found.dtype != x.dtype:
            got, expected = (f"{value.dtype} {tuple(value.shape)}" for value in (found, x))
            raise ValueError(f"augment must return what it is given, {expected}, got {got} from {type(self).__name__}")
        return found

    @abstractmethod
    def augment(self, x: Tensor) -> Tensor:
        """The samples drawn from a batch of one at least."""


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", Augmentation)


@AUGMENTATIONS.register
class Pictures(Augmentation):
    """Pictures in [0, 1], moved, mirrored, recoloured and covered, each picture by a draw of its own.

    In this order: a policy, a crop, an affine map, a mirror image, colours, a covered rectangle; what is not asked for is left out. The
    result is clamped to [0, 1]. All but the affine map are transforms of torchvision, which draw once for all that they are given and so
    get one picture at a time; docs/performance.md says what that costs. The affine map is :func:`affine`, of all pictures at once.

    Args:
        in_shape: (height, width), grey, or (3, height, width).
        degrees: largest angle of a rotation, in degrees, in [0, 180].
        translate: largest shift along either axis as a share of the side, in [0, 1]: 0.1 is up to 3 of 28 pixels.
        scale: smallest and largest factor of the size, such as [0.9, 1.1]; None for 1.
        shear: largest angle of a shear along either axis, in degrees, in [0, 90).
        flip: probability of the mirror image, left for right.
        crop: pixels added at every side, from which a picture of the same size is cut out again: a shift by whole pixels.
        brightness, contrast, saturation: largest change of the factor 1; saturation of colour pictures only.
        hue: largest shift of the hue, in [0, 0.5], of colour pictures only.
        erase: probability that a rectangle of 2 to 33 per cent of the area is covered.
        policy: "trivial" (TrivialAugment: one operation of random strength), "rand" (RandAugment: two), "augmix" (AugMix: a mixture of
            chains of them) or "none".
        fill: grey value of what comes in from outside and of what is covered: 0 black, 1 white.

    Raises:
        ValueError: if ``in_shape`` is not that of pictures, an option is out of range or has no effect on grey pictures; when it is used,
            for values outside of [0, 1].

    Source: Müller and Hutter 2021 (TrivialAugment), Cubuk et al. 2020 (RandAugment), Hendrycks et al. 2020 (AugMix), Zhong et al. 2020
    (random erasing); torchvision's implementations.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: tuple[float, float] | None = None,
        shear: float = 0.0,
        flip: float = 0.0,
        crop: int = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        erase: float = 0.0,
        policy: Literal["none", "trivial", "rand", "augmix"] = "none",
        fill: float = 0.0,
    ) -> None:
        super().__init__(in_shape)
        if len(self.in_shape) not in (2, 3) or (len(self.in_shape) == 3 and self.in_shape[0] != 3):
            raise ValueError(
                f"in_shape must be (height, width) or (3, height, width) for augment = Pictures, got {self.in_shape}: data that are no "
                "pictures, or already cut into patches, cannot be augmented by it"
            )
        limits = {"degrees": (degrees, 180), "translate": (translate, 1), "shear": (shear, 89.9), "flip": (flip, 1), "hue": (hue, 0.5)}
        limits |= {"erase": (erase, 1), "fill": (fill, 1)}
        for name, (value, largest) in limits.items():
            _checks.number(f"augment.{name}", value, minimum=0, maximum=largest)
        colours = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, value in colours.items():
            _checks.number(f"augment.{name}", value, minimum=0)
            if value and name in ("saturation", "hue") and len(self.in_shape) == 2:
                raise ValueError(f"augment.{name} must be 0 for grey pictures, which have none, got {value}")
        _checks.integer("augment.crop", crop, minimum=0)
        _checks.choice("augment.policy", policy, ("none", "trivial", "rand", "augmix"))
        if scale is not None:
            scale = _factors(scale)
        self.fill = float(fill)
        self._stages = self._chosen(policy, crop, degrees, translate, scale, shear, flip, colours, erase)

    def augment(self, x: Tensor) -> Tensor:
        low, high = x.aminmax()
        if not (low >= 0 and high <= 1):  # nor NaN
            raise ValueError(f"x must be pictures in [0, 1] for augment = Pictures, got values in [{float(low):g}, {float(high):g}]")
        found = x.unsqueeze(1) if len(self.in_shape) == 2 else x
        for stage in self._stages:
            found = stage(found)
        return found.view(x.shape).clamp(0, 1) if self._stages else x

    def _chosen(
        self,
        policy: str,
        crop: int,
        degrees: float,
        translate: float,
        scale: tuple[float, float] | None,
        shear: float,
        flip: float,
        colours: dict[str, float],
        erase: float,
    ) -> list[Callable[[Tensor], Tensor]]:
        """What is asked for, in order, each from pictures [B, C, height, width] to as many."""
        from torchvision.transforms import v2

        found: list[Callable[[Tensor], Tensor]] = []
        if policy != "none":
            kind = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment, "augmix": v2.AugMix}[policy]
            found.append(partial(_one_by_one, kind(interpolation=v2.InterpolationMode.BILINEAR, fill=self.fill)))
        if crop:
            found.append(partial(_one_by_one, v2.RandomCrop(self.in_shape[-2:], padding=crop, fill=self.fill)))
        if degrees or translate or scale or shear:
            found.append(partial(_moved, degrees=degrees, translate=translate, scale=scale or (1.0, 1.0), shear=shear, fill=self.fill))
        if flip:
            found.append(partial(_one_by_one, v2.RandomHorizontalFlip(flip)))
        if any(colours.values()):
            found.append(partial(_one_by_one, v2.ColorJitter(**colours)))
        if erase:
            found.append(partial(_one_by_one, v2.RandomErasing(erase, value=self.fill)))
        return found

    def extra_repr(self) -> str:
        return f"in_shape={self.in_shape}"


def _one_by_one(transform: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    return torch.stack([transform(picture) for picture in pictures])


def _moved(pictures: Tensor, *, degrees: float, translate: float, scale: tuple[float, float], shear: float, fill: float) -> Tensor:
    """Every picture under an affine map of its own; all numbers are drawn evenly."""

    def drawn(low: float, high: float) -> Tensor:
        return torch.empty(len(pictures)).uniform_(low, high)

    height, width = pictures.shape[2:]
    angle, shift = drawn(-degrees, degrees), (drawn(-translate, translate) * width, drawn(-translate, translate) * height)
    return affine(pictures, angle, shift, drawn(*scale), (drawn(-shear, shear), drawn(-shear, shear)), fill)


def affine(
    pictures: Tensor, angle: Tensor, shift: tuple[Tensor, Tensor], scale: Tensor, shear: tuple[Tensor, Tensor], fill: float = 0.0
) -> Tensor:
    r"""Every picture under a map of its own about its centre, as torchvision's ``affine`` draws one, interpolated bilinearly:

    .. math:: out(p) = picture(A^{-1} (p - t)), \quad A = s\, R(\theta)\, Y(y)\, X(x),

    with the rotation R clockwise on the screen and the shears :math:`Y = (1, 0; -\tan y, 1)` and :math:`X = (1, -\tan x; 0, 1)`.

    Args:
        pictures: [B, C, height, width].
        angle: θ in degrees, [B].
        shift: t in pixels to the right and down, each [B].
        scale: s, [B].
        shear: x and y in degrees, each [B].
        fill: value outside of a picture.
    """
    theta, x, y = (value.double() * (math.pi / 180) for value in (angle, *shear))
    a = torch.cos(theta - y) / torch.cos(y)
    b = -torch.cos(theta - y) * torch.tan(x) / torch.cos(y) - torch.sin(theta)
    c = torch.sin(theta - y) / torch.cos(y)
    d = -torch.sin(theta - y) * torch.tan(x) / torch.cos(y) + torch.cos(theta)
    inverse = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1) / scale.double().view(-1, 1, 1)  # (a, b; c, d) has det 1
    start = -inverse @ torch.stack(shift, 1).double().unsqueeze(2)
    # grid_sample measures height and width as 2.
    side = inverse.new_tensor([pictures.size(3), pictures.size(2)]) / 2
    matrix = torch.cat([inverse * side / side.view(2, 1), start / side.view(2, 1)], 2).to(pictures)
    if not len(pictures):
        return pictures
    size = max(1, _BLOCK // math.prod(pictures.shape[1:]))
    found = []
    for part, given in zip(matrix.split(size), pictures.split(size)):
        grid = functional.affine_grid(part, list(given.shape), align_corners=False)
        found.append(functional.grid_sample(given - fill, grid, mode="bilinear", align_corners=False).add(fill))
    return torch.cat(found)


def _factors(scale: Any) -> tuple[float, float]:
    if not isinstance(scale, Sequence) or isinstance(scale, str) or len(scale) != 2:
        raise ValueError(f"augment.scale must be the smallest and the largest factor, got {scale!r}")
    low, high = (_checks.number("augment.scale", factor, above=0) for factor in scale)
    if low > high:
        raise ValueError(f"augment.scale must be the smallest and the largest factor, got {scale!r}")
    return low, high
