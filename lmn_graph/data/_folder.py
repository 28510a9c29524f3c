"""The user's own folders of pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from ._chunks import is_chunked
from ._listing import Broken, Listed, Listing, check_reading, listed, read_listing
from ._lists import names_in
from ._pictures import find_pictures
from ._splitting import divide
from .base import Splits, existing

SPLIT_NAMES = {"train", "test", "val", "valid", "validation"}


def _list(path: str | Path, test_fraction: float, validation_fraction: float, seed: int) -> Listing:
    """The pictures of ``folder`` and their split."""
    root = existing(path)
    if not root.is_dir():
        raise ValueError(f"path {str(path)!r} is a file, a folder was expected")
    fixed = None
    names = set(_subfolders(root))
    if "train" in names and names <= SPLIT_NAMES and all(_subfolders(root / name) for name in names):
        if names != {"train", "test"}:
            raise ValueError(f"{root} holds the splits {', '.join(sorted(names))}: expected exactly train and test")
        found, classes = _labelled(root / "train")
        more, _ = _labelled(root / "test")
        _check_apart(found, more)
        fixed, found = len(found), found + more
    else:
        found, classes = _labelled(root)
    target, y, rows = divide(
        "class",
        [label for _, label in found],
        np.empty((0, 1)),
        classes=classes,
        fixed=fixed,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    pictures = Listed([picture for picture, _ in found], y.numpy())
    train, validation, test = (pictures.at(part) for part in rows)
    return Listing(root.name or str(root), train, validation, test, target)


@listed(_list)
def folder(
    path: str | Path,
    *,
    size: int = 28,
    mode: Literal["L", "RGB"] = "L",
    broken: Broken = "fatal",
    memory: bool = True,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """One folder of pictures per class, found and numbered as torchvision's ImageFolder does: x float32 in [0, 1].

    x is [n, size, size] for mode "L" (grey, 0 black) and [n, 3, size, size] for "RGB". Pictures are turned upright and stretched to
    the size; transparency is laid over white. Where the folder holds nothing but train and test, each with class folders, that split is
    kept, and no file may be in both. Links to folders are not followed, save one class folder's to a place elsewhere; hidden files are
    passed over.

    Args:
        path: the folder.
        size: height and width in pixels.
        mode: "L" or "RGB".
        broken: what a picture that cannot be read is: "fatal", or for "skip" left out with a warning.
        memory: whether all pictures are decoded at once, into memory; else each when a batch asks for it.
        test_fraction: share of all pictures, in (0, 0.9]; of no effect where test is given.
        validation_fraction: share of the remaining pictures, in (0, 0.9].
        seed: seed of the shuffle; classes keep their shares.

    Raises:
        ValueError: naming the argument, or the folder or picture and what is wrong with it.
    """
    check_reading(size=size, mode=mode, broken=broken, memory=memory)
    return read_listing(_list(path, test_fraction, validation_fraction, seed), size=size, mode=mode, broken=broken, memory=memory)


def _check_apart(train: list[tuple[Path, str]], test: list[tuple[Path, str]]) -> None:
    """Refuse a picture that is in both splits, be it by a link."""
    known = {_identity(path): path for path, _ in train}
    for path, _ in test:
        key = _identity(path)
        if key is not None and (first := known.get(key)) is not None:
            raise ValueError(f"{path} is the same file as {first}: a picture must not be for training and test")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None  # what cannot be read is said when it is read
    return state.st_dev, state.st_ino


def _subfolders(root: Path) -> list[str]:
    """Class folders by name; a link counts if it leads outside of ``root`` and not to a folder around it."""
    base = Path(os.path.realpath(root))
    names = []
    for name in names_in(root):
        real = Path(os.path.realpath(root / name))
        around = real == base or base in real.parents or real in base.parents
        if not name.startswith(".") and os.path.isdir(real) and not ((root / name).is_symlink() and around):
            names.append(name)
    return names


def _hint(root: Path) -> str:
    return f"; lmn preprocess {root} --out DIR makes shards of .pt files, which --data DIR reads" if is_chunked(root) else ""


def _labelled(root: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """(picture, class) of every picture, and the classes."""
    classes = _subfolders(root)
    if not classes:
        raise ValueError(f"{root} has no class folders: expected one folder per class with pictures in it{_hint(root)}")
    pictures = []
    for name in classes:
        inside = [(picture, name) for picture in find_pictures(root / name)]
        if not inside:
            raise ValueError(f"{root / name} holds no pictures{_hint(root)}")
        pictures += inside
    return pictures, classes
