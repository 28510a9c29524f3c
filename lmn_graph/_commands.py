"""What commands of ``lmn`` do alike: tell names from options, and say what there is for a name."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def positional(rest: list[str]) -> tuple[list[str], list[str]]:
    """What stands by itself, and the options with their values: every option takes one."""
    alone, options = [], []
    tokens = iter(rest)
    for token in tokens:
        if not token.startswith("--"):
            alone.append(token)
            continue
        options.append(token)
        if "=" not in token:
            options.extend([value] if (value := next(tokens, None)) is not None else [])
    return alone, options


def helped(known: argparse.Namespace, names: list[str], describe: Callable[[str], str]) -> bool:
    """Print the help that was asked for, and the options of what is named; whether it was."""
    if known.help:
        print(known.format_help())
        print(*(f"options of {name}:\n{describe(name)}" for name in names), sep="\n")
    return bool(known.help)
