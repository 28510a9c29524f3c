"""From a configuration, a nested mapping of plain values, to the objects of a run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph import data as datasets
from lmn_graph.augment import AUGMENTATIONS, Augmentation
from lmn_graph.catalogue import TOPOLOGIES
from lmn_graph.data import Splits, StreamSplits
from lmn_graph.halting import HALTING
from lmn_graph.learning import LEARNING, LearningRule
from lmn_graph.losses import LOSSES, TaskLoss, TotalLoss
from lmn_graph.machine import LatticeMachine
from lmn_graph.memory import MEMORY
from lmn_graph.projectors import PROJECTORS
from lmn_graph.readouts import READOUTS
from lmn_graph.registry import Registry
from lmn_graph.rules import RULES
from lmn_graph.rules.generators import GENERATORS
from lmn_graph.surrogates import SURROGATES
from lmn_graph.training.settings import LossSettings, MachineSettings

PARTS: dict[str, Registry[Any]] = {
    "topology": TOPOLOGIES,
    "projector": PROJECTORS,
    "rule": RULES,
    "readout": READOUTS,
    "halting": HALTING,
    "memory": MEMORY,
    "criticality": LOSSES,
    "activity": LOSSES,
    "clustering": LOSSES,
    "modularity": LOSSES,
    "ponder": LOSSES,
    "learning": LEARNING,
    "augment": AUGMENTATIONS,
}
NESTED: list[Registry[Any]] = [SURROGATES, RULES, TOPOLOGIES, GENERATORS]
NESTED_AS = ("surrogate", "column", "generator")  # arguments of parts that are parts themselves
DEFERRED = {"generator"}  # of these, what the part itself makes, out of what it alone knows
GIVEN = {
    "topology",
    "in_shape",
    "out_features",
    "steps",
    "channels",
    "context_dim",
    "vocabulary",
    "words",
    "embedding",
}  # arguments that the builder gives to the parts of a machine
GIVEN_TO_RULES = {"topology"}  # a rule's channels are its own to choose; projector and readout follow
TERMS = ("criticality", "activity", "clustering", "modularity", "ponder")  # losses on the dynamics
OPTIONAL = ("halting", "memory", "augment", *TERMS)  # parts that "none", or not to be named, leaves out
UNNAMED = dict.fromkeys(OPTIONAL, "none") | {"learning": "bptt"}  # what parts are that need not be named


def part(kind: str, config: dict[str, Any], *given: Any, registry: Registry[Any] | None = None, **keywords: Any) -> Any:
    """Build a named part from ``{"name": …, option: value, …}``; nested parts are built first."""
    entry = (registry or PARTS[kind])[config["name"]]
    arguments = _options_of(config)
    for key, value in arguments.items():
        if isinstance(value, dict) and "name" in value:
            nested = next(found for found in NESTED if value["name"] in found)
            if key in DEFERRED:
                arguments[key] = partial(nested[value["name"]], **_options_of(value))
            else:
                arguments[key] = part(key, value, registry=nested)
    return entry(*given, **arguments, **keywords)


def _options_of(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "name"}


def is_named(config: dict[str, Any], kind: str) -> bool:
    """Whether a configuration has an optional part."""
    return config.get(kind, {"name": "none"})["name"] != "none"


def load_data(config: dict[str, Any]) -> Splits | StreamSplits:
    """The splits that ``config["data"]`` names."""
    spec = config["data"]
    return datasets.load(spec["name"], **{key: value for key, value in spec.items() if key != "name"})


def build_topology(config: dict[str, Any]) -> Data:
    """The graph that ``config["topology"]`` names."""
    return part("topology", config["topology"])


def build_machine(
    config: dict[str, Any],
    in_shape: tuple[int, ...],
    out_features: int,
    classes: Sequence[str] | None = None,
    *,
    saved: Mapping[str, Tensor] | None = None,
) -> LatticeMachine:
    """The machine of a configuration for inputs and outputs of a given size.

    Args:
        config: the configuration.
        in_shape, out_features: the sizes.
        classes: the words of the outputs, if they have any.
        saved: the state of a machine that was built of this configuration: what it holds of files is not read from them again.
    """
    if saved is not None:
        config = {**config, **{kind: _with_saved(config[kind], kind, saved) for kind in ("projector", "readout")}}
    settings = MachineSettings(**config["machine"])
    topology = build_topology(config)
    rule = part("rule", config["rule"], topology)
    rule.reference, rule.compile = settings.reference, settings.compile
    # The width of a context is the rule's to choose; a projector that gives none is refused by the machine where one is needed.
    takes = inspect.signature(PROJECTORS[config["projector"]["name"]]).parameters
    known = {"context_dim": rule.context_dim, "steps": settings.steps, "vocabulary": out_features, "words": classes}
    given: dict[str, Any] = {key: value for key, value in known.items() if key in takes}
    if "steps" in given and settings.inject != "every":
        raise ValueError(f"machine.inject must be 'every' where the projector drives step by step, got {settings.inject!r}")
    projector = part("projector", config["projector"], in_shape, topology, channels=rule.channels, **given)
    # Vectors that the readout names are its own choice; else it takes those that the projector keeps.
    table = getattr(projector, "fixed", None) if config["readout"].get("vectors") is None else None
    known = {"embedding": getattr(projector, "embedding", None), "table": table, "words": classes}
    takes = inspect.signature(READOUTS[config["readout"]["name"]]).parameters
    given = {key: value for key, value in known.items() if key in takes}
    readout = part("readout", config["readout"], topology, out_features, settings.steps, channels=rule.channels, **given)
    halting = part("halting", config["halting"], topology, channels=rule.channels) if is_named(config, "halting") else None
    memory = part("memory", config["memory"], topology, channels=rule.channels) if is_named(config, "memory") else None
    return LatticeMachine(
        topology,
        projector,
        rule,
        readout,
        steps=settings.steps,
        inject=settings.inject,
        truncate=settings.truncate,
        checkpoint=settings.checkpoint,
        halting=halting,
        memory=memory,
    )


def _with_saved(options: dict[str, Any], kind: str, saved: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of a part with the vectors that it has saved in place of the file that they came from."""
    vectors = saved.get(f"{kind}.{PARTS[kind][options['name']].stored_vectors}")
    if options.get("vectors") is None or vectors is None:
        return options
    return {**options, "vectors": vectors, "vector_words": None}


def build_loss(config: dict[str, Any], task: str, burn_in: int, machine: LatticeMachine) -> TotalLoss:
    """The weighted loss of a configuration for a machine and a task, "classification" or "regression", and so many epochs of burn-in."""
    settings = LossSettings(**config["loss"])
    terms: dict[str, Any] = {}
    weights = {"task": settings.task_weight}
    for name in TERMS:
        if is_named(config, name):
            terms[name] = part(name, config[name])
            weights[name] = getattr(settings, f"{name}_weight")
    kind: Any = task
    smoothing = settings.label_smoothing if task == "classification" else 0.0
    task_loss = TaskLoss(kind, label_smoothing=smoothing)
    options = {"every_step": settings.every_step, "terms_every": settings.terms_every}
    loss = TotalLoss(task_loss, terms, weights=weights, burn_in=burn_in, **options)  # type: ignore[arg-type]
    loss.prepare(machine)
    return loss


def build_learning(config: dict[str, Any]) -> LearningRule:
    """The way to learn that a configuration names."""
    return part("learning", config["learning"])


def build_augment(config: dict[str, Any], in_shape: tuple[int, ...]) -> Augmentation | None:
    """What training batches go through first, or None.

    Raises:
        ValueError: if it does not take samples of that shape, or the projector keeps features of samples.
    """
    if not is_named(config, "augment"):
        return None
    if (cache := config["projector"].get("cache")) is not None:
        raise ValueError(f"projector.cache must be None with augment: no picture is ever the same again, got {str(cache)!r}")
    return part("augment", config["augment"], in_shape)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
