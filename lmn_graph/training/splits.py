"""The data of a run: read, cut for a smoke run, recognised again by a digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from lmn_graph.data import DATASETS, MissingData, Split, Splits, StreamSplits, make_specimen
from lmn_graph.data._loading import load_pictures
from lmn_graph.data.base import Rows, chunks
from lmn_graph.training import build
from lmn_graph.training.spelling import Config

AnySplits = Splits | StreamSplits

SMOKE = {"epochs": 1, "samples": 256, "items": 4096}


class DataReader:
    """Reads the data of runs, and keeps the last ones read for the next run with the same options.

    Nothing in training writes to data, so runs may share them. Files that change while a reader has them are not read again.
    """

    def __init__(self) -> None:
        self._options: Any = None
        self._held: tuple[AnySplits, str] | None = None

    def read(self, config: Config, smoke: bool) -> tuple[AnySplits, str]:
        """The splits that a configuration names, and their digest; of a smoke run a few rows, or a specimen where files are missing.

        Raises:
            ValueError: if the data are missing or not valid.
        """
        options = (located(config["data"]), smoke)
        if self._held is None or options != self._options:
            self._held = None  # never two of them in memory
            splits = _load(config, smoke)
            self._options, self._held = options, (splits, digest(splits))
        return self._held


def located(spec: dict[str, Any]) -> dict[str, Any]:
    """The options of the data with full paths, so that the run can be taken up from any folder."""
    paths = {key: spec[key] for key in ("name", "root", "path", "cache") if isinstance(spec.get(key), str) and spec[key] not in DATASETS}
    return {**spec, **{key: str(Path(path).expanduser().resolve()) for key, path in paths.items()}}


def _load(config: Config, smoke: bool) -> AnySplits:
    """The data; for a smoke run a few rows of them, or a specimen where the files of a dataset are not there."""
    name, options = config["data"]["name"], {key: value for key, value in config["data"].items() if key != "name"}
    try:
        pictures = load_pictures(name, SMOKE["samples"], **options) if smoke else None
        splits = build.load_data(config) if pictures is None else pictures
    except MissingData:
        made_up = make_specimen(name, **options) if smoke else None
        if made_up is None:
            raise
        splits = made_up
    if not smoke:
        return splits
    if isinstance(splits, StreamSplits):
        few = [stream.first(SMOKE["items"]) for stream in (splits.train, splits.validation, splits.test)]
        return StreamSplits(splits.name, few[0], few[1], few[2], splits.encoder)
    train, validation, test = (
        Split(split.x[: SMOKE["samples"]], split.y[: SMOKE["samples"]]) for split in (splits.train, splits.validation, splits.test)
    )
    return dataclasses.replace(splits, train=train, validation=validation, test=test)


def digest(splits: AnySplits) -> str:
    """Tells whether data are the same: every row (or the fingerprint of ``Rows``) and target, and what turns a file into rows."""
    if isinstance(splits, StreamSplits):
        return splits.digest()
    found = hashlib.blake2b(digest_size=16)
    for split in (splits.train, splits.validation, splits.test):
        for part in (split.x, split.y):
            if isinstance(part, Rows):
                found.update(part.fingerprint().encode())
                continue
            for chunk in chunks(part):
                found.update(chunk.contiguous().numpy().data)
    found.update(json.dumps(splits.encoder.to_dict()).encode())
    return found.hexdigest()
