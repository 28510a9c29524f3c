"""Loops that no sum over neighbours can express, in C++ through torch's own compiler cache; whoever asks has another way without."""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from lmn_graph.ops._compiled import _quiet, has_compiler

_log = logging.getLogger(__name__)


def library(name: str) -> Any | None:
    """The compiled ``name``.cpp of this folder, or None where there is no C++ compiler or it fails: that is said once."""
    return _library(name) if has_compiler() else None


@functools.cache
def _library(name: str) -> Any | None:
    try:
        from torch._inductor.codecache import CppCodeCache

        with _quiet():
            return CppCodeCache.load((Path(__file__).parent / f"{name}.cpp").read_text(encoding="utf-8"))
    except Exception as error:  # whatever a compiler, a cache folder or another version of torch may say
        _log.warning("%s runs without its compiled form: %s", name, " ".join(f"{type(error).__name__}: {error}".split())[:300])
        return None


def call(function: Any, *arguments: int | float | Tensor | None) -> None:
    """Call a compiled function with integers, doubles and the addresses of contiguous tensors, null for None."""
    function(*map(_argument, arguments))


def _argument(value: int | float | Tensor | None) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)
