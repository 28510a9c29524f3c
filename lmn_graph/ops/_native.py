"""Loops that no sum over neighbours can express, in C++ through torch's own compiler cache; whoever asks has another way without."""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from lmn_graph.ops._compiled import _quiet, has_compiler

_log = logging.getLogger(__name__)
_FLAGS = () if sys.platform == "win32" else ("-ftree-loop-vectorize",)  # torch turns it off for loops that it has vectorised itself


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


def call(function: Any, *arguments: int | float | Tensor | None) -> None:
    """Call a compiled function with integers, doubles and the addresses of tensors, null for None.

    Nothing behind an address is checked by the function: tensors must be on the CPU, contiguous and of the sizes that it expects.
    """
    function(*map(_argument, arguments))


def _argument(value: int | float | Tensor | None) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        if not value.is_contiguous() or value.device.type != "cpu":
            raise ValueError(f"tensors of compiled loops must be contiguous and on the CPU, got {tuple(value.shape)} on {value.device}")
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)
