"""What is registered and what the machine offers, as text."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import platform
import re
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch_geometric.data import Data

import topologies
from lmn_graph.augment import AUGMENTATIONS
from lmn_graph.data import DATASETS
from lmn_graph.halting import HALTING
from lmn_graph.learning import LEARNING
from lmn_graph.losses import LOSSES
from lmn_graph.memory import MEMORY
from lmn_graph.presets import PRESETS
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.registry import Registry
from lmn_graph.rules import RULES
from lmn_graph.rules.generators import GENERATORS
from lmn_graph.surrogates import SURROGATES
from lmn_graph.sweeps import SWEEPS

TOPOLOGIES: Registry[Callable[..., Data]] = Registry("topology", known=topologies.GENERATORS, makes=Data)

REGISTRIES: dict[str, Registry[Any]] = {
    "topologies": TOPOLOGIES,
    "rules": RULES,
    "generators": GENERATORS,
    "projectors": PROJECTORS,
    "readouts": READOUTS,
    "halting": HALTING,
    "memory": MEMORY,
    "losses": LOSSES,
    "learning": LEARNING,
    "surrogates": SURROGATES,
    "augmentations": AUGMENTATIONS,
    "datasets": DATASETS,
}


def first_line(entry: Callable[..., Any]) -> str:
    """The first paragraph of a docstring on one line, without markup."""
    text = " ".join((inspect.getdoc(entry) or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
    return re.sub(r"[,:]$", "", re.sub(r"\. One step, in this order:$", ".", text))


def catalogue() -> dict[str, dict[str, str]]:
    """Every registry: kind → name → first line of the entry's docstring; presets and sweeps by the comment on top of their file."""
    found = {kind: {name: first_line(entry) for name, entry in registry.items()} for kind, registry in REGISTRIES.items()}
    for kind, files in (("presets", PRESETS), ("sweeps", SWEEPS)):
        found[kind] = {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in files.items()}
    return found


def diagnosis() -> dict[str, str]:
    """Versions, the compiler for compiled steps, and optional accelerators."""
    found = {"python": platform.python_version(), "lmn-graph": _version("lmn-graph")}
    for package in ("torch", "torch-geometric", "lightning", "networkx", "scikit-learn", "torchvision"):
        found[package] = _version(package)
    found["cpu threads"] = str(torch.get_num_threads())
    compiler = next((path for name in ("c++", "g++", "clang++", "cl") if (path := shutil.which(name))), None)
    found["C++ compiler"] = compiler or "none: torch.compile is not available, everything runs eager"
    found["CUDA"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no device"
    found["MKL"] = "yes" if torch.backends.mkl.is_available() else "no: sparse products use torch's own kernels"
    for package in ("torch-scatter", "torch-sparse"):
        present = importlib.util.find_spec(package.replace("-", "_")) is not None
        found[package] = _version(package) if present else "not installed (optional; PyG uses it where present)"
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
