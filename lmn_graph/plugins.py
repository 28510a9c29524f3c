"""Plugins: the only place where a command line imports anything."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def import_plugin(name: str) -> None:
    """Import a module or a .py file that the user asked for by name.

    Raises:
        ValueError: whatever the module raises, with its text.
    """
    path = Path(name)
    try:
        if path.suffix != ".py":
            importlib.import_module(name)
            return
        # A name of its own: my_rule.py must not stand in for a module that others import.
        spec = importlib.util.spec_from_file_location(f"lmn_plugin_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody else's module raises
        raise ValueError(f"plugin {name!r} cannot be imported: {type(error).__name__}: {error}") from error
