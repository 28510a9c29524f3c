r"""Spike functions: the Heaviside step forward, a smooth pseudo-derivative backward.

    s = H(u), H(0) = 1        ∂s/∂u := φ(u / width) / width

so every spike is exactly 0 or 1 and the gradient has unit height scale ``1 / width``. A surrogate is a small callable; any
function of ``u`` that returns spikes may take its place.

Source: Neftci, Mostafa, Zenke 2019, "Surrogate gradient learning in spiking neural networks".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmn_graph.registry import Registry
from topologies import _checks


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.surrogate = surrogate
        ctx.save_for_backward(u)
        return torch.ge(u, 0, out=torch.empty_like(u))  # several times faster than a comparison and a conversion

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (u,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(u), None


@dataclass(frozen=True)
class Surrogate:
    """A spike function with a pseudo-derivative; subclasses give :meth:`phi`.

    Args:
        width: scale of ``u`` on which the pseudo-derivative decays, in units of the membrane potential; > 0.

    Raises:
        ValueError: if ``width`` is not a positive finite number.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", _checks.number("width", self.width, above=0.0))

    def __call__(self, u: Tensor) -> Tensor:
        """Spikes of the distance to threshold ``u``, same shape and dtype."""
        return _Spike.apply(u, self)

    def derivative(self, u: Tensor) -> Tensor:
        """The pseudo-derivative φ(u / width) / width."""
        return self.phi(u / self.width) / self.width

    def phi(self, z: Tensor) -> Tensor:
        """The pseudo-derivative at unit width, differentiable once more."""
        raise NotImplementedError(f"{type(self).__name__} does not define phi")


SURROGATES: Registry[type[Surrogate]] = Registry("surrogate", Surrogate)


@SURROGATES.register
class Gaussian(Surrogate):
    r"""φ(z) = exp(−z²/2) / √(2π)."""

    def phi(self, z: Tensor) -> Tensor:
        return torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


@SURROGATES.register
class Sigmoid(Surrogate):
    r"""φ(z) = σ(z)(1 − σ(z)), the derivative of the logistic function."""

    def phi(self, z: Tensor) -> Tensor:
        s = torch.sigmoid(z)
        return s * (1 - s)


@SURROGATES.register
class ArcTan(Surrogate):
    r"""φ(z) = 1 / (1 + (πz)²), the derivative of arctan(πz)/π."""

    def phi(self, z: Tensor) -> Tensor:
        return 1 / (1 + (math.pi * z).square())

    def derivative(self, u: Tensor) -> Tensor:
        """φ(u / width) / width in two kernels."""
        return torch.addcmul(u.new_tensor(self.width), u, u, value=math.pi**2 / self.width).reciprocal()


@SURROGATES.register
class FastSigmoid(Surrogate):
    r"""φ(z) = 1 / (1 + |z|)² (Zenke and Ganguli 2018, SuperSpike)."""

    def phi(self, z: Tensor) -> Tensor:
        return 1 / (1 + z.abs()).square()


@SURROGATES.register
class Triangular(Surrogate):
    r"""φ(z) = max(0, 1 − |z|) (Bellec et al. 2018)."""

    def phi(self, z: Tensor) -> Tensor:
        return (1 - z.abs()).clamp(min=0)


@SURROGATES.register
class StraightThrough(Surrogate):
    r"""φ(z) = 1[|z| ≤ 1]: the gradient passes unchanged in a window around the threshold (Bengio et al. 2013; Hubara et al. 2016)."""

    def phi(self, z: Tensor) -> Tensor:
        return (z.abs() <= 1).to(z.dtype)
