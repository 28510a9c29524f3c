"""A graph that would not fit into the memory that is free is refused before anything is built."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

import topologies


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (lambda: topologies.grid(200, 3), "L=200, dim=3, radius=1"),
        (lambda: topologies.ring(20_000_000, 2), "n=20000000, radius=2"),
        (lambda: topologies.complete(5000), "n=5000"),
        (lambda: topologies.small_world(5_000_000, k=10), "n=5000000, k=10"),
        (lambda: topologies.columns(10**7, topologies.ring(4)), "count=10000000 columns"),
    ],
)
def test_what_does_not_fit_is_refused(build, arguments, monkeypatch):
    """With a quarter of a GiB free; the graphs of all other tests are below it and are not asked for."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**28))
    with pytest.raises(
        ValueError, match=rf"^{arguments}.* would take \d+\.\d GiB of memory, of which 0\.2 GiB are free: choose smaller ones"
    ):
        build()


def test_what_fits_is_built(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**40))
    assert topologies.complete(4000).num_edges == 4000 * 3999
