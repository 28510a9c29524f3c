"""Real files where LMN_DATA points to a folder of them, else small generated ones in the same publisher's format."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

CATEGORIES = ("activities", "animals_nature", "flags", "symbols")


@pytest.fixture(autouse=True)
def _global_random_state() -> Iterator[None]:
    """Nothing in the package may draw from, or seed, a global generator."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert before[2] == random.getstate()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """write("a.csv", text) -> its path."""

    def _write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture(scope="session")
def real() -> Path | None:
    return Path(os.environ["LMN_DATA"]) if os.environ.get("LMN_DATA") else None


def _write_idx(path: Path, array: np.ndarray) -> None:
    """uint8 in the publisher's idx format."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def _write_idx_set(folder: Path, train: int = 300, test: int = 60, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = generator.permutation(np.arange(count) % 10)
        images = generator.integers(0, 256, (count, 28, 28))
        images[:, 0, 0] = labels
        _write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], None]:
    return _write_idx


@pytest.fixture
def write_idx_set() -> Callable[..., None]:
    return _write_idx_set


@pytest.fixture
def write_pictures() -> Callable[..., None]:
    return _write_pictures


@pytest.fixture(scope="session")
def mnist_files(real: Path | None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """A root for torchvision, and a validation size that fits it."""
    if real is not None:
        return str(real), 5000
    root = tmp_path_factory.mktemp("mnist")
    _write_idx_set(root / "MNIST" / "raw")
    return str(root), 50


@pytest.fixture(scope="session")
def letter_csv(real: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if real is not None:
        return real / "tabular" / "letter.csv"
    generator = np.random.default_rng(1)
    header = "x_box,y_box,width,high,onpix,x_bar,y_bar,x2bar,y2bar,xybar,x2ybr,xy2br,x_ege,xegvy,y_ege,yegvx,letter"
    lines = [",".join(map(str, generator.integers(0, 16, 16))) + "," + chr(65 + i % 26) for i in range(260)]
    path = tmp_path_factory.mktemp("letter") / "letter.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture(scope="session")
def diamonds_csv(real: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if real is not None:
        return real / "tabular" / "diamonds.csv"
    generator = np.random.default_rng(2)
    lines = ['"carat","cut","color","clarity","depth","table","price","x","y","z"']
    for _ in range(300):
        carat = generator.uniform(0.2, 3)
        cut = generator.choice(["Fair", "Good", "Ideal", "Premium", "Very Good"])
        words = f'"{cut}","{generator.choice(list("DEFGHIJ"))}","{generator.choice(["I1", "IF", "SI1", "VS1"])}"'
        sizes = ",".join(f"{v:.2f}" for v in generator.uniform(3, 9, 3))
        lines.append(
            f"{carat:.2f},{words},{generator.uniform(55, 65):.1f},{generator.integers(50, 70)},{int(4000 * carat**2) + 300},{sizes}"
        )
    path = tmp_path_factory.mktemp("diamonds") / "diamonds.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def emoji_folder(real: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if real is not None:
        return real / "images" / "emoji" / "google"
    root = tmp_path_factory.mktemp("emoji") / "google"
    _write_pictures(root, CATEGORIES, 12, 64)
    return root


def _write_pictures(root: Path, classes: tuple[str, ...], count: int, size: int = 8, seed: int = 0) -> None:
    """RGB PNG files of noise, ``count`` a class."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(root / name / f"1f{i:03x}.png")


@dataclass
class Publisher:
    """A server on this machine: files by their path, and the paths that were asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path.lstrip("/"))
            content = state.files.get(state.asked[-1])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_port}"
        yield state
        running.shutdown()


@pytest.fixture(scope="session")
def emoji_domains(real: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains with lists of their pictures, the class component being small."""
    if real is not None:
        return real / "images" / "emoji"
    root = tmp_path_factory.mktemp("domains")
    for seed, domain in enumerate(("google", "twitter")):
        _write_pictures(root / domain, ("activities", "animals_nature", "flags", "symbols"), 12, 64, seed)
        _write_pictures(root / domain, ("component",), 5, 64, seed + 5)
        lines = [
            f"{path.relative_to(root)} {number}\n"
            for number, folder in enumerate(sorted((root / domain).iterdir()))
            for path in sorted(folder.iterdir())
        ]
        (root / f"{domain}_train.txt").write_text("".join(line for i, line in enumerate(lines) if i % 3))
        (root / f"{domain}_test.txt").write_text("".join(lines[::3]))
    return root
