"""Runs that take a second, in this process or in one that can be killed."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lmn_graph.training import configure

TINY = (
    *("--topology.L", "4", "--topology.dim", "2", "--machine.steps", "4"),
    *("--criticality.samples", "4", "--criticality.steps", "4", "--loss.burn_in", "1", "--readout.dropout", "0.3"),
    *("--trainer.epochs", "3", "--trainer.batch_size", "16"),
)
RULE = '''
"""A leaky tanh lattice."""
from typing import NamedTuple
import torch
from torch import Tensor, nn
from lmn_graph import ops
from lmn_graph.rules import RULES, UpdateRule

class LeakyState(NamedTuple):
    x: Tensor

@RULES.register
class LeakyTanh(UpdateRule):
    """Leaky tanh cells, :math:`x_{t+1} = (1 - a) x_t + a tanh(W x_t + drive)`.

    Args:
        topology: the graph.
        leak: a, in (0, 1].
    """

    def __init__(self, topology, *, leak: float = 0.5) -> None:
        super().__init__(topology)
        self.leak = leak
        self.weight = nn.Parameter(0.3 * torch.randn(self.connectivity.num_edges))

    def initial_state(self, batch_size, *, graph=None):
        return LeakyState(self.weight.new_zeros(self.num_nodes, batch_size))

    def prepare(self, context=None, graph=None):
        return self.resolve(graph), ops.EdgeWeight(self.connectivity, self.weight)

    def step(self, p, state, drive):
        pull = self.weighted_sum(p[0], state.x, p[1])
        x = (1 - self.leak) * state.x + self.leak * torch.tanh(pull if drive is None else pull + drive)
        return LeakyState(x), x
'''


def blobs(folder: Path, count: int = 120, classes: int = 3) -> Path:
    """Pictures 4 x 4 of three classes that can be told apart, as an .npz."""
    generator = np.random.default_rng(0)
    y = np.arange(count) % classes
    centres = generator.normal(size=(classes, 4, 4))
    np.savez(folder / "blobs.npz", x=centres[y] + 0.3 * generator.normal(size=(count, 4, 4)), y=y)
    return folder / "blobs.npz"


def prices(folder: Path, count: int = 90) -> Path:
    """A table with numbers, words and a price."""
    generator = np.random.default_rng(1)
    size, colour = generator.uniform(1, 9, count), generator.choice(["red", "green", "blue"], count)
    rows = [f"{s:.3f},{c},{1000 + 250 * s + 300 * (c == 'red'):.2f}" for s, c in zip(size, colour)]
    (folder / "prices.csv").write_text("\n".join(["size,colour,price", *rows]) + "\n")
    return folder / "prices.csv"


def pictures(folder: Path) -> Path:
    """Two class folders of pictures: dark and bright."""
    generator = np.random.default_rng(2)
    for name, low in (("dark", 0), ("bright", 160)):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(low, low + 90, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    return folder / "pictures"


def tiny_config(data: Path, *arguments: str) -> dict:
    return configure("soc-lattice", [], ["--data", str(data), *TINY, *arguments])


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The table of metrics."""
    with (folder / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "run.json").read_text()).get("metrics", {})


def assert_same_run(one: Path, two: Path) -> None:
    """The table and the best model byte for byte; every tensor of the last checkpoint: weights, optimiser, random state."""
    for name in ("metrics.csv", "checkpoints/best.safetensors", "config.yaml"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert metrics_of(one) == metrics_of(two) != {}
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (one, two)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "epoch", "global_step"):
        _assert_equal(states[0][key], states[1][key], key)
    names = [sorted(path.name for path in folder.rglob("*") if path.suffix != ".png") for folder in (one, two)]
    assert names[0] == names[1]


def _assert_equal(one: object, two: object, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            _assert_equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for number, pair in enumerate(zip(one, two)):
            _assert_equal(*pair, f"{where}[{number}]")
    else:
        assert one == two, where


_STABLE = """
import json, os, signal, sys
import lmn_graph.catalogue, lmn_graph.report.plots, lmn_graph.training
from lmn_graph.cli import main
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores Ctrl-C for what it starts in the background
        os.environ.update(job["environment"])
        error = os.open(job["terminal"] or job["error"], os.O_WRONLY | os.O_CREAT | os.O_NOCTTY)
        os.dup2(error, 2)
        os.dup2(os.open(job["output"], os.O_WRONLY | os.O_CREAT), 1)
        code = main(job["arguments"])
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
STRICT = ("-W", "error", "-W", "ignore:`torch.jit.script`:FutureWarning")


class Stable:
    """A process that has imported everything, warnings being errors, and forks one that runs a command line when told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *STRICT, "-c", _STABLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, *arguments: object, terminal: str = "", **environment: str) -> int:
        """Start ``lmn`` with these arguments; returns its process id."""
        self.count += 1
        self.output, self.error = self.folder / f"{self.count}.out", self.folder / f"{self.count}.err"
        job = {"arguments": [str(argument) for argument in arguments], "environment": environment, "terminal": terminal}
        assert self.process.stdin is not None
        print(json.dumps({**job, "output": str(self.output), "error": str(self.error)}), file=self.process.stdin, flush=True)
        self.pid = int(self._line())
        return self.pid

    def wait(self) -> int:
        """The exit code."""
        return int(self._line())

    def run(self, *arguments: object, **environment: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        self.start(*arguments, **environment)
        code = self.wait()
        return code, self.output.read_text(), self.error.read_text()

    def signal(self, kind: signal.Signals, when: object, *, timeout: float = 60.0) -> int:
        """Send a signal after so many seconds, or as soon as ``when()`` is true; returns the exit code."""
        until = time.monotonic() + (timeout if callable(when) else float(when))  # type: ignore[arg-type]
        while time.monotonic() < until and not (callable(when) and when()):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, kind)
        return self.wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
