"""Loops that no sum over neighbours can express, in C++ through torch's own compiler cache; whoever asks has another way without."""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmn_graph.ops._compiled import _quiet, has_compiler

NAMES = {torch.float32: "float", torch.float64: "double"}  # ends of the names of compiled functions
_log = logging.getLogger(__name__)
# torch turns both off: for loops that it has vectorised itself, and for results that are those of its other kernels to the last bit
_FLAGS = () if sys.platform == "win32" else ("-ftree-loop-vectorize", "-ffp-contract=fast")


def library(name: str) -> Any | None:
    """The compiled ``name``.cpp of this folder, or None where there is no C++ compiler or it fails: that is said once."""
    return _library(name) if has_compiler() else None


@functools.cache
def _library(name: str) -> Any | None:
    try:
        from torch._inductor.codecache import CppCodeCache

        with _quiet():
            text = (Path(__file__).parent / f"{name}.cpp").read_text(encoding="utf-8")
            return CppCodeCache.load(text, extra_flags=_FLAGS)
    except Exception as error:  # whatever a compiler, a cache folder or another version of torch may say
        _log.warning("%s runs without its compiled form: %s", name, " ".join(f"{type(error).__name__}: {error}".split())[:300])
        return None


def loops_for(name: str, like: Tensor) -> Any | None:
    """The compiled ``name``.cpp for tensors of this kind, or None where there are none: they have no memory of their own, for example."""
    if like.device.type != "cpu" or like.dtype not in NAMES or torch.compiler.is_compiling() or is_transformed(like):
        return None
    return library(name)


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor may have no memory of its own: inside a transform of functions, or fake."""
    return torch._C._are_functorch_transforms_active() or type(tensor) not in (Tensor, torch.nn.Parameter)


def differentiable(pairs: list[tuple[Tensor, Tensor]], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients to ``inputs`` that can be differentiated again, for pairs of an output and its gradient."""
    outputs, grads = zip(*pairs)
    return torch.autograd.grad(outputs, inputs, grads, create_graph=True, allow_unused=True, materialize_grads=True)


class Strided(ctypes.Structure):
    """An array [T, N, B], or [N, B], of any strides, as compiled functions take it by its address; of None all is null."""

    _fields_ = (("data", ctypes.c_void_p), ("step", ctypes.c_int64), ("node", ctypes.c_int64), ("sample", ctypes.c_int64))

    @classmethod
    def of(cls, tensor: Tensor | None) -> Strided:
        if tensor is None:
            return cls()
        if tensor.device.type != "cpu" or tensor.dim() not in (2, 3):
            raise ValueError(f"strided arrays must be [T, N, B] or [N, B] on the CPU, got {tuple(tensor.shape)} on {tensor.device}")
        return cls(tensor.data_ptr(), *(0, *tensor.stride())[-3:])


def call(function: Any, *arguments: int | float | Tensor | Strided | None) -> None:
    """Call a compiled function with integers, doubles and the addresses of tensors, null for None, and of strided arrays.

    Nothing behind an address is checked by the function: tensors must be on the CPU, contiguous and of the sizes that it expects.
    """
    function(*map(_argument, arguments))


def _argument(value: int | float | Tensor | Strided | None) -> Any:
    if value is None:
        return None
    if isinstance(value, Strided):
        return ctypes.byref(value)
    if isinstance(value, Tensor):
        if not value.is_contiguous() or value.device.type != "cpu":
            raise ValueError(f"tensors of compiled loops must be contiguous and on the CPU, got {tuple(value.shape)} on {value.device}")
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)
