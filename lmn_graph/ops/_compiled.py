"""``torch.compile`` for the sums over slots: where there is a compiler and the work is worth it, and never a failure."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal

import torch

Compile = Literal["auto", "always", "never"]
MODES = ("auto", "always", "never")
WORTH = 1 << 20  # numbers in all messages of a sum from which "auto" compiles: below, the seconds of compiling are hardly ever earned back
_log = logging.getLogger(__name__)
_OPTIONS: dict[str, Any] = {
    # Whatever is gathered is computed again where it is used: a buffer in between would hold a number per message.
    "realize_reads_threshold": 1 << 30,
    "realize_opcount_threshold": 1 << 30,
    "realize_acc_reads_threshold": 1 << 30,
    "assert_indirect_indexing": False,  # a Connectivity has checked its indices
}
_kernels: dict[Any, Callable[..., Any]] = {}
_failed: list[str] = []


def compiles(mode: Compile, size: int) -> bool:
    """Whether a sum whose messages are ``size`` numbers is compiled."""
    if mode == "never" or _failed or (mode == "auto" and size < WORTH):
        return False
    return has_compiler()


def has_compiler() -> bool:
    """Whether a C++ compiler is where torch looks for it, and the environment does not say LMN_COMPILE=never."""
    if os.environ.get("LMN_COMPILE") == "never":
        return False
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++", "cl"]
    return any(shutil.which(name) for name in names)


def run(key: Any, make: Callable[[], Callable[..., Any]], *args: Any) -> Any:
    """The compiled function of this key on ``args``, or None where it could not be compiled (then nothing is compiled any more).

    An error that is the function's own comes again, and through, when it runs uncompiled.
    """
    if key not in _kernels:
        _kernels[key] = torch.compile(_own(make()), dynamic=True, fullgraph=True, options=_options())
    try:
        return _kernels[key](*args)
    except Exception as error:  # whatever a missing or broken compiler raises
        _failed.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        _log.warning("sums over neighbours run uncompiled: %s", _failed[0])
        return None


def _own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a code object of its own: torch counts the shapes that it compiles for by code object, and stops at eight."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _options() -> dict[str, Any]:
    known = torch._inductor.list_options()
    return {name: value for name, value in _OPTIONS.items() if name in known}
