"""A small graph of every registered topology, made from its signature: new ones join by themselves."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

import topologies
from lmn_graph import TOPOLOGIES

# what an argument without default is called in this library, and a small value of it
SMALL: dict[str, Any] = {
    "n": 12,
    "L": 3,
    "dim": 2,
    "radius": 0.5,
    "p": 0.3,
    "degree": 3,
    "rows": 3,
    "cols": 4,
    "depth": 2,
    "length": 7,
    "count": 2,
}
TABLE = "pre,post,weight\na,b,1\nb,c,-0.5\nc,a,2\nc,c,0.25\nd,a,1\n"


def small(name: str, folder: Path) -> Data:
    """The topology with its defaults, and small values for what it must be given."""
    return TOPOLOGIES[name](**arguments_of(name, folder))


def arguments_of(name: str, folder: Path) -> dict[str, Any]:
    """Small values for the arguments without default; a file is written into the folder."""
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(TOPOLOGIES[name]).parameters.values():
        if parameter.default is not parameter.empty:
            continue
        if parameter.name == "path":
            arguments["path"] = folder / "edges.csv"
            arguments["path"].write_text(TABLE)
        elif parameter.annotation in ("Data", Data):
            arguments[parameter.name] = topologies.grid(4, 1)
        else:
            assert parameter.name in SMALL, f"{name}({parameter.name}): call the argument as other topologies do, or add it to SMALL"
            arguments[parameter.name] = SMALL[parameter.name]
    return arguments
