"""DomainNet, and the user's own pictures in several domains with lists as DomainNet's."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from lmn_graph.registry import did_you_mean
from topologies import _checks

from . import _numeric as numeric
from ._download import check_zip, unpack
from ._download import download as fetch
from ._listing import Broken, Listing, check_drawing, check_reading, draw_listing, listed, read_listing
from ._lists import Entry, Inventory, Place, numbered_lines
from ._pictures import PictureEncoder
from ._specimen import specimen
from ._target import Target
from .base import DATASETS, MissingData, Splits

Protocol = Literal["single", "all", "leave-one-out"]
Names = list[str] | str | None

CLASSES = 345
URL = "http://csr.bu.edu/ftp/visda/2019/multi-source"
# Where the publisher has each domain's pictures (the version without duplicates), and how much they are.
ARCHIVES = {
    "clipart": ("groundtruth/clipart.zip", "1.3 GB"),
    "infograph": ("infograph.zip", "4.0 GB"),
    "painting": ("groundtruth/painting.zip", "3.7 GB"),
    "quickdraw": ("quickdraw.zip", "0.4 GB"),
    "real": ("real.zip", "5.6 GB"),
    "sketch": ("sketch.zip", "2.5 GB"),
}
NAME = r"[^./\\][^/\\]*"
LINE = re.compile(rf"({NAME})/({NAME})/({NAME}?)[ \t]+([0-9]{{1,9}})")
Line = tuple[Entry, int]


class _Choice(NamedTuple):
    """Which domains are trained on, which are tested, and the classes that are left out."""

    train: list[str]
    test: list[str]
    leave_out: list[str]


def _list(
    root: str,
    domains: Names,
    protocol: Protocol,
    domain: str | None,
    leave_out: Names,
    train_size: int | None,
    validation_fraction: float,
    download: bool,
    seed: int,
) -> Listing:
    """The pictures of ``domainnet`` that are asked for."""
    numeric.check_source(root, download)
    choice = _chosen(domains, protocol, domain, leave_out)
    check_drawing(train_size=train_size, validation_fraction=validation_fraction, seed=seed)
    folder = Path(root).expanduser()
    _complete(folder, choice, download)
    lists = [[line for name in names for line in _read_list(folder / f"{name}_{split}.txt", name)] for split, names in _splits(choice)]
    classes = _numbered([line for lines in lists for line in lines])
    for name in choice.leave_out:
        if name not in classes:
            raise ValueError(f"leave_out: the lists have no class {name!r}{did_you_mean(name, classes)}")
    classes = [name for name in classes if name not in choice.leave_out]
    inventory = Inventory(folder)
    train, test = (inventory.take((entry for entry, _ in lines), classes) for lines in lists)
    without = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if without:
        lost = classes[without[0]]
        raise ValueError(f"class {lost!r} has no training pictures in {', '.join(choice.train)}: leave_out can leave it out")
    name = _title(protocol, domain)
    return draw_listing(name, train, test, classes, train_size=train_size, validation_fraction=validation_fraction, seed=seed)


@DATASETS.register
@specimen(lambda options: _encoder(len(_names("leave_out", options["leave_out"])), options["size"], options["mode"]))
@listed(_list)
def domainnet(
    root: str = "data",
    *,
    domains: list[str] | str = "clipart,infograph,painting,quickdraw,real,sketch",
    protocol: Protocol = "all",
    domain: str | None = None,
    leave_out: list[str] | str | None = None,
    size: int = 64,
    mode: Literal["L", "RGB"] = "RGB",
    broken: Broken = "fatal",
    memory: bool = True,
    train_size: int | None = None,
    validation_fraction: float = 0.1,
    download: bool = False,
    seed: int = 0,
) -> Splits:
    """Pictures of 345 classes in six domains, drawn or photographed: x float32 in [0, 1], [n, 3, size, size], or [n, size, size] for "L".

    The layout is the publisher's: root/DOMAIN/CLASS/PICTURE and the lists root/DOMAIN_train.txt and root/DOMAIN_test.txt with lines
    "clipart/aircraft_carrier/clipart_001_000018.jpg 0". Training and validation pictures come from training lists, test pictures from
    test lists. Any other domains in this layout do as well. Classes are in the order of their numbers in the lists. The publisher's lists
    of painting have training pictures of no t-shirt: to train on that domain alone, leave that class out.

    Args:
        root: folder that holds (or gets, with download) the domains and lists.
        domains: the domains, a list or words with commas between them.
        protocol: "single": trained and tested on one domain; "all": on all of them together; "leave-one-out": trained on all but one,
            tested on that one.
        domain: the one that is trained on and tested, or is left out of training; None for "all".
        leave_out: classes to leave out, a list or words with commas between them; the others are numbered anew.
        size: height and width in pixels.
        mode: "L" (grey) or "RGB".
        broken: what a picture that cannot be read is: "fatal", or for "skip" left out with a warning.
        memory: whether all pictures are decoded at once, into memory; else each when a batch asks for it.
        train_size: number of training pictures, the same for every class to within one; None: all that are not for validation.
        validation_fraction: share of the pictures drawn from training lists, in (0, 0.9].
        download: fetch what is missing of the domains that are used, check and unpack it; otherwise nothing is fetched.
        seed: seed of the choice of pictures.

    Raises:
        ValueError: naming the argument, the files that are missing and where to get them, the list and its line, or the picture.
    """
    check_reading(size=size, mode=mode, broken=broken, memory=memory)
    listing = _list(root, domains, protocol, domain, leave_out, train_size, validation_fraction, download, seed)
    return read_listing(listing, size=size, mode=mode, broken=broken, memory=memory)


def _encoder(left_out: int, size: int, mode: str) -> PictureEncoder:
    """That of the made-up rows."""
    names = [f"class {i}" for i in range(max(2, CLASSES - left_out))]
    return PictureEncoder(Target.classification("class", names), (size, size), mode)


def _title(protocol: str, domain: str | None) -> str:
    return {"single": f"domainnet {domain}", "leave-one-out": f"domainnet without {domain}"}.get(protocol, "domainnet")


def _chosen(domains: Names, protocol: str, domain: str | None, leave_out: Names) -> _Choice:
    """What the options ask for."""
    names = _names("domains", domains)
    _checks.choice("protocol", protocol, ("single", "all", "leave-one-out"))
    if not names or len(set(names)) < len(names) or any(re.fullmatch(NAME, name) is None for name in names):
        raise ValueError(f"domains must be names of folders in root, each one once, got {domains!r}")
    left = _names("leave_out", leave_out)
    if protocol == "all":
        if domain is not None:
            raise ValueError(f"domain must be None for protocol 'all', got {domain!r}: set protocol to single or leave-one-out")
        return _Choice(names, names, left)
    if not isinstance(domain, str) or domain not in names:
        hint = did_you_mean(domain, names) if isinstance(domain, str) else f"; known: {', '.join(names)}"
        raise ValueError(f"domain must be one of domains for protocol {protocol!r}, got {domain!r}{hint}")
    if protocol == "single":
        return _Choice([domain], [domain], left)
    if len(names) < 2:
        raise ValueError(f"domains must be at least two for protocol 'leave-one-out', got {domains!r}")
    return _Choice([name for name in names if name != domain], [domain], left)


def _names(argument: str, given: Names) -> list[str]:
    """Names of a list, or of text with commas in it."""
    names = given.split(",") if isinstance(given, str) else given or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a list of names, or text with commas between them, got {given!r}")
    return [name.strip() for name in names if name.strip()]


def _splits(choice: _Choice) -> list[tuple[str, list[str]]]:
    return [("train", choice.train), ("test", choice.test)]


def _complete(root: Path, choice: _Choice, download_it: bool) -> None:
    """Everything that is needed is there, or is fetched, or ``MissingData`` says what is not and where it is to be had."""
    lists = [(domain, f"{domain}_{split}.txt") for split, domains in _splits(choice) for domain in domains]
    lists = [(domain, name) for domain, name in lists if not (root / name).is_file()]
    folders = [domain for domain in dict.fromkeys(choice.train + choice.test) if not (root / domain).is_dir()]
    missing = [name for _, name in lists] + [f"{domain}/" for domain in folders]
    if not missing:
        return
    strange = [domain for domain in [*(domain for domain, _ in lists), *folders] if domain not in ARCHIVES]
    if strange or not download_it:
        sizes = ", ".join(f"{domain}.zip of {ARCHIVES[domain][1]}" for domain in folders if domain in ARCHIVES)
        hint = f"pass download=True to fetch the publisher's files from {URL} ({sizes or 'lists'}), or"
        hint = f"only {', '.join(ARCHIVES)} are the publisher's; pass" if strange else hint
        raise MissingData(
            f"root {str(root)!r}: {', '.join(missing)} missing; {hint} root=, the folder that holds DOMAIN/CLASS and the lists"
        )
    for domain, name in lists:
        fetch(f"{URL}/domainnet/txt/{name}", root / name, what="DomainNet", check=functools.partial(_check_list, domain))
    for domain in folders:
        archive = root / f"{domain}.zip"
        if not archive.is_file():
            fetch(f"{URL}/{ARCHIVES[domain][0]}", archive, what="DomainNet", check=check_zip)
        unpack(archive, root / domain)


def _check_list(domain: str, file: Path) -> None:
    _read_list(file, domain)


def _read_list(file: Path, domain: str) -> list[Line]:
    """Every line, with the number that it gives to the class."""
    found = []
    for line, text in numbered_lines(file):
        parts = LINE.fullmatch(text.strip())
        if parts is None or parts[1] != domain:
            raise ValueError(f"{file}, line {line}: {domain}/CLASS/PICTURE NUMBER was expected, got {text[:60]!r}")
        _, kind, picture, number = parts.groups()
        found.append((Entry(Place(file, line), sys.intern(f"{domain}/{kind}"), picture, sys.intern(kind)), int(number)))
    if not found:
        raise ValueError(f"{file} lists no pictures")
    return found


def _numbered(lines: list[Line]) -> list[str]:
    """Class names in the order of their numbers; a name or a number that means two things is refused."""
    by_name: dict[str, Line] = {}
    by_number: dict[int, Line] = {}
    for line in lines:
        (place, _, _, kind), number = line
        (first, *_), before = by_name.setdefault(kind, line)
        (other, *_, name), _ = by_number.setdefault(number, line)
        if before != number:
            raise ValueError(f"{place.file}, line {place.line}: class {kind!r} has the number {number}, but {before} {_where(first)}")
        if name != kind:
            raise ValueError(f"{place.file}, line {place.line}: {number} is the number of {kind!r}, but that of {name!r} {_where(other)}")
    return [by_number[number][0].kind for number in sorted(by_number)]


def _where(place: Place) -> str:
    return f"in line {place.line} of {place.file}"
