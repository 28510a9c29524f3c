"""Argument checks that every public constructor shares: each names the argument, what came and what was expected."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any


def integer(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """``value`` as an int within [minimum, maximum]; booleans and floats are refused."""
    expected = "an integer" + _bounds(minimum, maximum)
    if isinstance(value, bool):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    try:
        result = value.__index__()
    except (AttributeError, TypeError):  # no integer, or an array or a class that only has the method
        raise ValueError(f"{name} must be {expected}, got {value!r}") from None
    if (minimum is not None and result < minimum) or (maximum is not None and result > maximum):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return int(result)


def number(name: str, value: Any, *, minimum: float | None = None, maximum: float | None = None, above: float | None = None) -> float:
    """``value`` as a finite float within [minimum, maximum] and, where given, strictly above ``above``."""
    expected = "a finite number" + _bounds(minimum, maximum)
    if above is not None:
        expected = f"a finite number > {above:g}" + (f" and <= {_plain(maximum)}" if maximum is not None else "")
    if isinstance(value, (bool, str, bytes)) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several elements
        raise ValueError(f"{name} must be {expected}, got {value!r}") from None
    low = (minimum is not None and result < minimum) or (above is not None and result <= above)
    if not math.isfinite(result) or low or (maximum is not None and result > maximum):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return result


def flag(name: str, value: Any) -> bool:
    """``value`` as a bool; nothing else passes."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def choice(name: str, value: Any, options: Collection[Any]) -> Any:
    """``value`` if it is one of ``options``."""
    if isinstance(value, (str, int, float, type(None))) and value in options:
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def _bounds(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" in [{_plain(minimum)}, {_plain(maximum)}]"
    if minimum is not None:
        return f" >= {_plain(minimum)}"
    return f" <= {_plain(maximum)}" if maximum is not None else ""


def _plain(bound: float) -> str:
    """Every digit of an integer."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
