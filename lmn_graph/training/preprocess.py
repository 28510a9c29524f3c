"""``lmn preprocess``: from what the user calls the data, and options as words, to a folder of shards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from lmn_graph.data import import_chunks, resolve
from lmn_graph.data import preprocess as preprocess_listing
from lmn_graph.data import shards as read_shards
from lmn_graph.data._chunks import is_chunked
from lmn_graph.data._shards import ShardRecord, read_record, verify_shards
from lmn_graph.training.configuration import configure_call, describe_call

MAKING = {"path", "out", "patch", "shard_size", "verify", "progress", "memory"}  # no options of the data


def preprocess(
    data: str, out: str | None, arguments: Sequence[str] = (), *, patch: int | None, shard_size: int, verify: bool, progress: bool
) -> tuple[Path, ShardRecord]:
    """Make shards of a data set of pictures, of the user's folder of pictures or of .pt files; or check the shards in a folder.

    Args:
        data: the name of a data set, or a folder; one of shards is checked, for which ``verify`` must be set.
        out: the folder of the shards.
        arguments: options of the data as ``--option value``.
        patch, shard_size, verify, progress: as of ``lmn_graph.data.preprocess``.

    Returns:
        The folder and its record.

    Raises:
        ValueError: for data that are no picture files, an unknown option, and for what making or checking refuses.
    """
    function, fixed = _making(data)
    if function is read_shards:
        if out is not None or arguments or patch is not None or not verify:
            use = f"lmn train --data {data} reads it, lmn preprocess {data} --verify checks it"
            raise ValueError(f"data {data!r} is a folder of shards already: {use}")
        return Path(fixed["path"]), verify_shards(fixed["path"])
    if out is None:
        raise ValueError("option --out DIR is required: the folder of the shards")
    making: dict[str, Any] = {"patch": patch, "shard_size": shard_size, "verify": verify, "progress": progress}
    options = configure_call(function, arguments, MAKING)
    if function is import_chunks:
        folder = import_chunks(**fixed, out=out, **options, **making)
    else:
        reading = {name: options[name] for name in ("size", "mode", "broken")}
        folder = preprocess_listing(_listing(data, function)(**fixed, **options), out, **reading, **making)
    return folder, read_record(folder)


def describe_preprocess(data: str) -> str:
    """Every option of the data for :func:`preprocess`."""
    return describe_call(_making(data)[0], MAKING)


def _making(data: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What makes shards of the data, or reads those that they are, and what it is given."""
    function, fixed = resolve(data)
    if function is not read_shards and "path" in fixed and is_chunked(Path(fixed["path"])):
        return import_chunks, fixed
    if function is not read_shards:
        _listing(data, function)
    return function, fixed


def _listing(data: str, function: Callable[..., Any]) -> Callable[..., Any]:
    found = getattr(function, "listing", None)
    if found is None:
        expected = f"a folder of them or of .pt files, or one of {', '.join(_listed())}"
        raise ValueError(f"data {data!r} is not made of picture files; expected {expected}")
    return found


def _listed() -> Collection[str]:
    from lmn_graph.data import DATASETS

    return [name for name in DATASETS if hasattr(DATASETS[name], "listing")]
