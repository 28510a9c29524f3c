"""``torch.compile`` for the sums over slots: where there is a compiler and the work is worth it, and never a failure."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor

Compile = Literal["auto", "always", "never"]
MODES = ("auto", "always", "never")
WORTH = 1 << 21  # numbers in all messages of a sum from which "auto" compiles: below, the seconds of compiling are hardly ever earned back
_log = logging.getLogger(__name__)
_OPTIONS: dict[str, Any] = {
    # Whatever is gathered is computed again where it is used: a buffer in between would hold a number per message.
    "realize_reads_threshold": 1 << 30,
    "realize_opcount_threshold": 1 << 30,
    "realize_acc_reads_threshold": 1 << 30,
    "assert_indirect_indexing": False,  # a Connectivity has checked its indices
}
_KEPT = 512  # compiled functions
_kernels: dict[Any, Callable[..., Any]] = {}
_refused: set[Any] = set()  # keys of functions that cannot be compiled
_failed: list[str] = []  # why nothing can be


def compiles(mode: Compile, size: int) -> bool:
    """Whether a sum whose messages are ``size`` numbers is compiled."""
    if mode == "never" or _failed or (mode == "auto" and size < WORTH):
        return False
    return has_compiler()


def has_compiler() -> bool:
    """Whether a C++ compiler is where torch looks for it, and the environment does not say LMN_COMPILE=never."""
    return os.environ.get("LMN_COMPILE") != "never" and _is_there(os.environ.get("CXX"), os.environ.get("PATH"))


@functools.cache
def _is_there(named: str | None, path: str | None) -> bool:
    return any(shutil.which(name, path=path) for name in ([named] if named else ["g++", "clang++", "c++", "cl"]))


def run(key: Any, make: Callable[[], Callable[..., Any]], *args: Tensor) -> Any:
    """The compiled function of this key on ``args``, or None where it could not be compiled: then it runs uncompiled from now on.

    Where the compiler is to blame, so does every other. An error that is the function's own comes again, and through, uncompiled.
    """
    # One code for tensors of one kind: torch compiles anew where a size is 1 or a stride 0 or 1, and gives up after eight times.
    key = (key, tuple((arg.dtype, tuple(n == 1 for n in arg.shape), tuple(min(n, 2) for n in arg.stride())) for arg in args))
    if key in _refused:
        return None
    for _ in range(2):
        try:
            with _quiet():
                return _compiled(key, make)(*args)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:  # sizes that were equal by chance, and then were not: once more
            reason, of_message = str(error), True
            _kernels.pop(key, None)
        except Exception as error:
            reason, of_message = f"{type(error).__name__}: {error}", _is_of_message(error)
            break
    _refused.add(key)
    reason = " ".join(reason.split())[:300]
    if not of_message:
        _failed.append(reason)
    _log.warning("%s over neighbours run uncompiled: %s", "these sums" if of_message else "sums", reason)
    return None


class _quiet:
    """Without torch's remark, on its first compilation, that a build for CUDA runs on a machine that has none."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.utils.cpp_extension")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)


def _is_of_message(error: BaseException) -> bool:
    """Whether torch could not translate this one function, for any reason but a missing or broken compiler."""
    if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
        return False
    of_compiler = (torch._inductor.exc.InvalidCxxCompiler, torch._inductor.exc.CppCompileError, OSError)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, of_compiler):
            return False
        cause = getattr(cause, "inner_exception", None) or cause.__cause__
    return True


def _compiled(key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    if key not in _kernels:
        while len(_kernels) >= _KEPT:  # messages made anew at every call would pile up
            _kernels.pop(next(iter(_kernels)), None)
        _kernels[key] = torch.compile(_own(make()), dynamic=True, fullgraph=True, options=_options())
    return _kernels[key]


def _own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a code object of its own: torch counts the shapes that it compiles for by code object, and stops at eight."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _options() -> dict[str, Any]:
    known = torch._inductor.list_options()
    return {name: value for name, value in _OPTIONS.items() if name in known}
