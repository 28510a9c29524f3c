"""MNIST and Fashion-MNIST: the publishers' files by torchvision, or OpenML's copies by scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from topologies import _checks

from . import _openml as openml
from ._pictures import PictureEncoder
from ._specimen import specimen
from ._splitting import Drawn, check_trained, hold_out
from ._target import Target
from .base import DATASETS, MissingData, Split, Splits

Source = Literal["torchvision", "openml"]
Published = tuple[np.ndarray, np.ndarray, int]
OPENML_IDS = {"MNIST": 554, "FashionMNIST": 40996}
OPENML_TEST_ROWS = 10_000  # the last of the 70,000 rows, in the publisher's order


@DATASETS.register
@specimen(lambda options: _encoder("MNIST"))
def mnist(
    root: str = "data",
    *,
    download: bool = False,
    source: Source = "torchvision",
    train_size: int | None = None,
    validation_size: int = 5000,
    seed: int = 0,
) -> Splits:
    """Handwritten digits 28 × 28, white on black: x float32 [n, 28, 28] in [0, 1]. The publisher's test rows are the test split.

    Args:
        root: folder that holds (or gets, with download) MNIST/raw for torchvision, openml/ for OpenML.
        download: fetch what is missing and check it; otherwise nothing is fetched.
        source: "torchvision" or "openml".
        train_size: number of training rows; None: all that are not for validation.
        validation_size: number of the publisher's training rows set aside.
        seed: seed of the choice of rows; classes keep their shares.

    Raises:
        ValueError: naming the argument, or the files that are missing or damaged and where to get them.
    """
    return _published("MNIST", root, download, source, train_size, validation_size, seed)


@DATASETS.register(name="fashion-mnist")
@specimen(lambda options: _encoder("FashionMNIST"))
def fashion_mnist(
    root: str = "data",
    *,
    download: bool = False,
    source: Source = "torchvision",
    train_size: int | None = None,
    validation_size: int = 5000,
    seed: int = 0,
) -> Splits:
    """Pieces of clothing 28 × 28: x float32 [n, 28, 28] in [0, 1]. The publisher's test rows are the test split.

    Args:
        root: folder that holds (or gets, with download) FashionMNIST/raw for torchvision, openml/ for OpenML.
        download: fetch what is missing and check it; otherwise nothing is fetched.
        source: "torchvision" or "openml".
        train_size: number of training rows; None: all that are not for validation.
        validation_size: number of the publisher's training rows set aside.
        seed: seed of the choice of rows; classes keep their shares.

    Raises:
        ValueError: naming the argument, or the files that are missing or damaged and where to get them.
    """
    return _published("FashionMNIST", root, download, source, train_size, validation_size, seed)


def _published(name: str, root: str, download: bool, source: Source, train_size: int | None, validation_size: int, seed: int) -> Splits:
    if not isinstance(root, (str, Path)) or not str(root):
        raise ValueError(f"root must be the name of a folder, got {root!r}")
    _checks.flag("download", download)
    _checks.choice("source", source, ("torchvision", "openml"))
    generator = np.random.default_rng(_checks.integer("seed", seed, minimum=0))
    _checks.integer("validation_size", validation_size, minimum=10)
    if train_size is not None:
        _checks.integer("train_size", train_size, minimum=10)
    read = _read_torchvision if source == "torchvision" else _read_openml
    images, labels, published = read(name, Path(root).expanduser(), download)

    if validation_size + (train_size or 10) > published:
        sizes = f"validation_size {validation_size} and train_size {train_size or '>= 10'}"
        raise ValueError(f"{sizes} must fit into the {published} training rows of {name}")
    train, validation = hold_out(np.arange(published), validation_size, generator, labels)
    if train_size is not None and train_size < len(train):
        _, train = hold_out(train, train_size, generator, labels)
    rows = Drawn(train, validation, np.arange(published, len(images)))
    encoder = _encoder(name)
    check_trained(labels, rows, encoder.target.classes or ())
    parts = [Split(torch.from_numpy(images[part]).float() / 255, torch.from_numpy(labels[part])) for part in rows]
    return Splits({"FashionMNIST": "fashion-mnist"}.get(name, "mnist"), parts[0], parts[1], parts[2], encoder)


def _encoder(name: str) -> PictureEncoder:
    from torchvision.datasets import FashionMNIST

    classes = list(FashionMNIST.classes) if name == "FashionMNIST" else [str(digit) for digit in range(10)]
    return PictureEncoder(Target.classification("class", classes), (28, 28))


def _read_torchvision(name: str, root: Path, download: bool) -> Published:
    from torchvision import datasets

    dataset = getattr(datasets, name)
    folder = root / name / "raw"
    paths = [folder / archive.removesuffix(".gz") for archive, _ in dataset.resources]
    missing = [path.name for path in paths if not path.is_file()]
    if missing and not download:
        raise MissingData(
            f"root {str(root)!r}: {name} lacks {', '.join(missing)} in {folder}; pass download=True to fetch the publisher's files, "
            f"or root=, the folder that holds {name}/raw"
        )
    try:
        if missing:
            dataset(root, download=True)
        for path in paths:
            _check_idx(path, 3 if "idx3" in path.name else 1)
        train, test = (dataset(root, train=part) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be had in {folder}: {error}") from error
    images, labels = np.concatenate([train.data, test.data]), np.concatenate([train.targets, test.targets])
    return _checked(str(folder), images, labels, len(train.data))


def _check_idx(path: Path, dims: int) -> None:
    """Refuse a file whose idx header (type 8, ``dims`` sizes, big-endian) is not that of a file of its length."""
    with open(path, "rb") as file:
        header = np.frombuffer(file.read(4 + 4 * dims).ljust(4 + 4 * dims, b"\0"), dtype=">i4").astype(np.int64)
    size = 4 + 4 * dims + int(header[1:].prod())
    if header[0] != 0x0800 + dims or path.stat().st_size != size:
        raise ValueError(f"{path} is damaged: {path.stat().st_size} bytes, its header announces {size}; delete it and pass download=True")


def _read_openml(name: str, root: Path, download: bool) -> Published:
    bunch = openml.fetch(name, OPENML_IDS[name], root, download, "source='torchvision'", "uint8")
    images = bunch.data.reshape(len(bunch.data), 28, -1)
    return _checked(str(root / "openml"), images, bunch.target, len(images) - OPENML_TEST_ROWS)


def _checked(where: str, images: np.ndarray, labels: np.ndarray, published: int) -> Published:
    """Images uint8 [n, 28, 28], labels int64 [n] and the number of the publisher's training rows."""
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or not 0 < published < len(images):
        raise ValueError(f"{where}: expected pictures of 28 × 28 with one label each, got shapes {images.shape} and {labels.shape}")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"{where}: labels must be 0 … 9, got {labels.min()} … {labels.max()}")
    return images, labels.astype(np.int64), published
