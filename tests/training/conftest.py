"""Data and processes for tiny runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import Stable, blobs


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blobs(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a tiny run; runs of larger scope, those of other processes and tests/report draw them."""
    monkeypatch.setattr("lmn_graph.report.plots.save_all", lambda *_: [])


@pytest.fixture(scope="session")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stable]:
    found = Stable(tmp_path_factory.mktemp("stable"))
    yield found
    found.close()
