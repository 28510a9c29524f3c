"""Reading pictures while a machine trains: in memory, decoded from their files, or from shards, with and without reading ahead.

    OMP_NUM_THREADS=1 LMN_DATA=DIR python benchmarks/input_pipeline.py [--pictures 1200] [--side 256] [--size 128]
        [--batches 5] [--repeats 20]

Two sets: the emoji pictures of LMN_DATA/images/emoji/google (PNG of 64 × 64, as RGB of 64 × 64; left out without LMN_DATA) and made-up
JPEGs of --side × --side pixels (smooth colours and noise, 23 kB each at 256), as RGB of --size × --size. Printed first: whether every way
gives the same batches, bit for bit; anything else ends the run. Then, of so many shuffled batches of 64, the best of interleaved repeats:
processor time of reading a picture; and beside a training step (forward, backward, AdamW; a short and a long one) pictures per second by
the clock, and the share of that time in which the step waits for its batch. Files are in the page cache of the system: no disk is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import topologies
from lmn_graph import LatticeMachine, data
from lmn_graph.data import Split
from lmn_graph.projectors import Linear
from lmn_graph.readouts import Rate
from lmn_graph.rules import TanhLattice
from lmn_graph.training.batches import Batches

BATCH = 64
STEPS = {"short": (8, 2), "long": (16, 16)}  # side of the lattice, steps of the rollout


def make_jpegs(folder: Path, count: int, side: int, classes: int = 10) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % classes}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse).astype(np.int64) + generator.integers(-12, 13, (side, side, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.jpg", quality=90)


def ways(source: Path, size: int, work: Path) -> dict[str, Split]:
    """The training split, held in three ways."""
    started = time.process_time()
    listing = data.folder.listing(str(source))
    data.preprocess(listing, work / "whole", size=size, mode="RGB")
    seconds = time.process_time() - started
    data.preprocess(listing, work / "patches", size=size, mode="RGB", patch=16)
    count = sum(len(getattr(listing, part).paths) for part in ("train", "validation", "test"))
    held = sum(path.stat().st_size for path in (work / "whole").iterdir())
    floats = 12 * count * size * size
    cost = f"{1e6 * seconds / count:,.0f} µs of processor time a picture"
    print(f"  preprocessing: {cost}; shards take {held / 1e6:.1f} MB, float32 {floats / 1e6:.1f} MB")
    return {
        "in memory": data.load(source, size=size, mode="RGB").train,
        "files": data.load(source, size=size, mode="RGB", memory=False).train,
        "shards": data.load(work / "whole").train,
        "shards of patches, put together": data.load(work / "patches", form="pictures").train,
    }


def batches_of(split: Split, prefetch: int) -> Batches:
    return Batches(split.x, split.y, BATCH, shuffle=True, seed=1, prefetch=prefetch)


def check(splits: dict[str, Split]) -> None:
    reference = batches_of(splits["in memory"], 0)
    others = {(way, prefetch): iter(batches_of(split, prefetch)) for way, split in splits.items() for prefetch in (0, 2)}
    for x, y in reference:
        for key, other in others.items():
            found = next(other)
            if not (torch.equal(x, found[0]) and torch.equal(y, found[1])):
                raise SystemExit(f"{key}: another batch than in memory")
    print(f"  {len(reference)} batches are the same bit for bit: {', '.join(splits)}, prefetch 0 and 2")


def trainer(split: Split, kind: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    side, steps = STEPS[kind]
    torch.manual_seed(0)
    graph = topologies.grid(side, 2)
    readout = Rate(graph, int(split.y.max()) + 1, steps=steps)
    machine = LatticeMachine(graph, Linear(tuple(split.x.shape[1:]), graph), TanhLattice(graph), readout, steps=steps)
    optimizer = torch.optim.AdamW(machine.parameters(), lr=1e-4)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(machine(x).prediction, y).backward()
        optimizer.step()

    return step


class Spent(NamedTuple):
    """Seconds of the clock, of these waiting, and of the processor."""

    clock: float
    waiting: float
    processor: float


def some(split: Split, prefetch: int, step: Callable[[torch.Tensor, torch.Tensor], None] | None, batches: int) -> Spent:
    """What so many batches take."""
    waited = 0.0
    held = batches_of(split, prefetch)
    source = iter(held)
    started, processor = time.perf_counter(), time.process_time()
    for _ in range(batches):
        before = time.perf_counter()
        batch = next(source)
        waited += time.perf_counter() - before
        if step is not None:
            step(*batch)
    spent = Spent(time.perf_counter() - started, waited, time.process_time() - processor)
    held.close()
    return spent


def measure(splits: dict[str, Split], batches: int, repeats: int) -> None:
    settings = [(way, prefetch) for way in splits for prefetch in (0, 2)]
    count = batches * BATCH
    steps = {"none": None, **{kind: trainer(splits["in memory"], kind) for kind in STEPS}}
    found: dict[tuple[str, str, int], list[Spent]] = {}
    for number in range(repeats + 1):  # the first is for warming up
        for kind, step in steps.items():
            for way, prefetch in settings:
                spent = some(splits[way], prefetch, step, batches)
                if number:
                    found.setdefault((kind, way, prefetch), []).append(spent)
    print(f"  {'':32} {'µs':>6} {'prefetch':>8}" + "".join(f"  {kind + ' step':>12} {'waiting':>8}" for kind in STEPS))
    for way, prefetch in settings:
        reading = min(spent.processor for spent in found["none", way, 0]) / count
        line = f"  {way:32} {1e6 * reading:6.0f} {prefetch:8}"
        for kind in STEPS:
            best = min(found[kind, way, prefetch])
            line += f"  {count / best.clock:12,.0f} {best.waiting / best.clock:8.0%}"
        print(line, flush=True)
    alone = {kind: min(spent.clock - spent.waiting for spent in found[kind, "in memory", 0]) / batches for kind in STEPS}
    print("  a step alone: " + ", ".join(f"{kind} {1e3 * seconds:.0f} ms" for kind, seconds in alone.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batches", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sets = {}
        if os.environ.get("LMN_DATA"):
            sets["emoji"] = (Path(os.environ["LMN_DATA"], "images", "emoji", "google"), 64)
        make_jpegs(work / "jpegs", options.pictures, options.side)
        sets["JPEGs"] = (work / "jpegs", options.size)
        for title, (source, size) in sets.items():
            print(f"{title}, RGB of {size} x {size}, batches of {BATCH}, {torch.get_num_threads()} thread(s); pictures per second")
            splits = ways(source, size, work / title)
            check(splits)
            measure(splits, options.batches, options.repeats)


if __name__ == "__main__":
    main()
