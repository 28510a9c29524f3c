"""DomainNet: the three protocols, lists that are right and wrong, files that are fetched or missing, domains of one's own."""

from __future__ import annotations

import errno
import io
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image

from lmn_graph import data
from lmn_graph.data import PictureEncoder, _domainnet, _download, _listing

DOMAINS = ("clipart", "real", "sketch")
CLASSES = {"zebra": 0, "ant": 1, "bee": 7}  # not in alphabetical order, and numbers with gaps, as in a part of the set
TRAIN, TEST = 6, 2

Greys = dict[tuple[str, str], list[tuple[str, int]]]


def _png(grey: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), (grey, grey, grey)).save(stream, "PNG")
    return stream.getvalue()


def _made(root: Path) -> Greys:
    """The layout in ``root``, every picture of a grey of its own: (class, grey) by domain and split, in the order of the lists."""
    greys: Greys = {}
    grey = 0
    for domain in DOMAINS:
        for split, count in (("train", TRAIN), ("test", TEST)):
            lines = []
            for name, number in CLASSES.items():
                for i in range(count):
                    grey += 3
                    picture = root / domain / name / f"{domain}_{number:03d}_{split}{i}.jpg"
                    picture.parent.mkdir(parents=True, exist_ok=True)
                    picture.write_bytes(_png(grey))
                    lines.append(f"{domain}/{name}/{picture.name} {number}")
                    greys.setdefault((domain, split), []).append((name, grey))
            (root / f"{domain}_{split}.txt").write_text("\n".join(lines) + "\n")
    return greys


@pytest.fixture
def greys(tmp_path: Path) -> Greys:
    return _made(tmp_path)


def _load(folder: Path, /, **options: Any) -> data.Splits:
    return data.load("domainnet", **({"root": str(folder), "domains": ",".join(DOMAINS), "size": 4} | options))


def _read_back(splits: data.Splits, *parts: str) -> list[tuple[str, int]]:
    """(class, grey) of every row, sorted."""
    assert splits.classes is not None
    rows = [(splits.classes[y], round(float(x.mean()) * 255)) for part in parts for x, y in getattr(splits, part)]
    return sorted(rows)


def _expected(greys: Greys, split: str, *domains: str) -> list[tuple[str, int]]:
    return sorted(row for domain in domains for row in greys[domain, split])


@pytest.mark.parametrize(
    ("options", "train", "test"),
    [
        ({}, DOMAINS, DOMAINS),
        ({"protocol": "single", "domain": "sketch"}, ("sketch",), ("sketch",)),
        ({"protocol": "leave-one-out", "domain": "real"}, ("clipart", "sketch"), ("real",)),
    ],
)
def test_each_protocol_takes_exactly_its_lists(
    tmp_path: Path, greys: Greys, options: dict[str, Any], train: tuple[str, ...], test: tuple[str, ...]
) -> None:
    """Training and validation rows are those of the training lists, test rows those of the test lists, each with its class."""
    splits = _load(tmp_path, validation_fraction=0.2, **options)
    assert splits.classes == list(CLASSES), "in the order of their numbers in the lists"
    assert _read_back(splits, "train", "validation") == _expected(greys, "train", *train)
    assert _read_back(splits, "test") == _expected(greys, "test", *test)
    held = Counter(splits.validation.y.tolist())
    assert len(held) == 3
    assert max(held.values()) - min(held.values()) <= 1, "classes keep their shares"
    assert splits.in_shape == (3, 4, 4)
    again = _load(tmp_path, validation_fraction=0.2, **options)
    other = _load(tmp_path, validation_fraction=0.2, seed=1, **options)
    assert torch.equal(splits.train.x, again.train.x)
    assert not torch.equal(splits.train.x, other.train.x)


def test_only_the_lists_of_the_protocol_are_needed(tmp_path: Path, greys: Greys) -> None:
    """Lists and folders of other domains, and the training list of the domain that is left out, may be missing."""
    (tmp_path / "real_train.txt").unlink()
    for domain in ("clipart", "sketch"):
        (tmp_path / f"{domain}_test.txt").unlink()
    splits = _load(tmp_path, protocol="leave-one-out", domain="real")
    assert _read_back(splits, "test") == _expected(greys, "test", "real")
    shutil.rmtree(tmp_path / "real")
    (tmp_path / "sketch_test.txt").write_text("sketch/ant/sketch_001_test0.jpg 1\n")
    single = _load(tmp_path, protocol="single", domain="sketch")
    assert _read_back(single, "train", "validation") == _expected(greys, "train", "sketch")


@pytest.mark.parametrize("left", ["ant", ["ant"], " ant ,", ("ant",)])
def test_classes_that_are_left_out(tmp_path: Path, greys: Greys, left: Any) -> None:
    """The others are numbered anew; pictures of the class need not be there."""
    shutil.rmtree(tmp_path / "clipart" / "ant")
    splits = _load(tmp_path, leave_out=left)
    assert splits.classes == ["zebra", "bee"]
    kept = [row for row in _expected(greys, "train", *DOMAINS) if row[0] != "ant"]
    assert _read_back(splits, "train", "validation") == kept
    assert set(splits.test.y.tolist()) == {0, 1}


def test_a_balanced_draw(tmp_path: Path, greys: Greys) -> None:
    splits = _load(tmp_path, train_size=10, validation_fraction=0.25)
    assert sorted(Counter(splits.train.y.tolist()).values()) == [3, 3, 4]
    assert Counter(splits.validation.y.tolist()) == {0: 1, 1: 1, 2: 1}
    drawn = _read_back(splits, "train", "validation")
    assert len(set(drawn)) == 13
    assert set(drawn) <= set(_expected(greys, "train", *DOMAINS))


def test_grey_is_the_mean_of_the_weights_that_pillow_gives(tmp_path: Path, greys: Greys) -> None:
    splits = _load(tmp_path, mode="L", protocol="single", domain="real")
    assert splits.in_shape == (4, 4)
    assert _read_back(splits, "test") == _expected(greys, "test", "real")


def test_the_listing_opens_nothing(tmp_path: Path, greys: Greys, monkeypatch: pytest.MonkeyPatch) -> None:
    """dataset.listing takes every option of the dataset, and what is read later are its files in its order."""
    splits = _load(tmp_path, seed=3)
    options = {"root": str(tmp_path), "domains": ",".join(DOMAINS), "seed": 3}
    monkeypatch.setattr(_listing, "read_pictures", lambda *_: pytest.fail("a picture was read"))
    listing = data.domainnet.listing(**options, size=4, mode="RGB", broken="skip")
    assert isinstance(splits.encoder, PictureEncoder)
    for part in ("train", "validation", "test"):
        paths, labels = getattr(listing, part)
        assert getattr(splits, part).y.tolist() == labels.tolist()
        monkeypatch.undo()
        assert torch.equal(torch.cat([splits.encoder.encode(path).x for path in paths]), getattr(splits, part).x)
    with pytest.raises(TypeError, match="sise"):
        data.domainnet.listing(**options, sise=3)


def test_lists_of_another_system(tmp_path: Path, greys: Greys) -> None:
    """A mark at the beginning, CR LF, blank lines, blanks in a name, several before the number."""
    picture = tmp_path / "real" / "ant" / "an ant.jpg"
    picture.write_bytes(_png(2))
    text = (tmp_path / "real_test.txt").read_text().replace("\n", "\r\n\r\n") + "real/ant/an ant.jpg \t 1"
    (tmp_path / "real_test.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    splits = _load(tmp_path, protocol="single", domain="real")
    assert _read_back(splits, "test") == sorted([*greys["real", "test"], ("ant", 2)])


@pytest.mark.parametrize(
    "line",
    [
        "real/ant/real_001_train0.jpg",
        "real/ant/real_001_train0.jpg -1",
        "real/ant/real_001_train0.jpg 1.5",
        "real/ant/real_001_train0.jpg ²",
        "ant/real_001_train0.jpg 1",
        "sketch/ant/sketch_001_train0.jpg 1",
        "/real/ant/real_001_train0.jpg 1",
        "real/../ant/real_001_train0.jpg 1",
        "real/ant/../real_001_train0.jpg 1",
        "real/../ant.jpg 1",
        "real/ant/.. 1",
        "real/ant/..\\x.jpg 1",
        "<html>",
    ],
)
def test_lines_that_are_no_lines(tmp_path: Path, greys: Greys, line: str) -> None:
    """Without a number, of another domain, or leading elsewhere."""
    lines = (tmp_path / "real_train.txt").read_text().splitlines()
    lines[3] = line
    (tmp_path / "real_train.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"real_train.txt, line 4: real/CLASS/PICTURE NUMBER was expected, got '.*'"):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "real_train.txt cannot be read: 'utf-8' codec"),
        (b"PK\x03\x04\0\0\0", "real_train.txt, line 1: real/CLASS/PICTURE NUMBER was expected"),
        (b"", "real_train.txt lists no pictures"),
        (b"\n \n", "real_train.txt lists no pictures"),
    ],
)
def test_files_that_are_no_lists(tmp_path: Path, greys: Greys, content: bytes, message: str) -> None:
    (tmp_path / "real_train.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _load(tmp_path)


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_class_has_one_number_and_a_number_one_class(tmp_path: Path, greys: Greys) -> None:
    """In a list and from one domain to the next; both places are named."""
    _change(tmp_path / "sketch_train.txt", "sketch_001_train2.jpg 1", "sketch_001_train2.jpg 2")
    message = r"sketch_train.txt, line 9: class 'ant' has the number 2, but 1 in line 7 of .*clipart_train.txt"
    with pytest.raises(ValueError, match=message):
        _load(tmp_path)
    with pytest.raises(ValueError, match=r"line 9: class 'ant' has the number 2, but 1 in line 7 of .*sketch_train.txt"):
        _load(tmp_path, protocol="single", domain="sketch")
    _made(tmp_path)
    (tmp_path / "sketch" / "ant").rename(tmp_path / "sketch" / "aunt")
    for split in ("train", "test"):
        file = tmp_path / f"sketch_{split}.txt"
        file.write_text(file.read_text().replace("/ant/", "/aunt/"))
    with pytest.raises(
        ValueError, match=r"sketch_train.txt, line 7: 1 is the number of 'aunt', but that of 'ant' in line 7 of .*clipart_t"
    ):
        _load(tmp_path)
    assert _load(tmp_path, protocol="single", domain="sketch").classes == ["zebra", "aunt", "bee"]


def test_pictures_that_are_listed_but_missing(tmp_path: Path, greys: Greys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list, the line and the file, before anything is decoded; whole class folders too."""
    monkeypatch.setattr(_listing, "read_pictures", lambda *_: pytest.fail("a picture was read"))
    (tmp_path / "sketch" / "bee" / "sketch_007_test1.jpg").unlink()
    with pytest.raises(ValueError, match=r"sketch/bee/sketch_007_test1.jpg is missing, .*sketch_test.txt lists it in line 6"):
        _load(tmp_path)
    shutil.rmtree(tmp_path / "clipart" / "zebra")
    with pytest.raises(ValueError, match=r"clipart/zebra/clipart_000_train0.jpg is missing, .*clipart_train.txt lists it in line 1"):
        _load(tmp_path)


def test_a_picture_is_listed_once(tmp_path: Path, greys: Greys) -> None:
    """Neither twice in a list nor in a training and a test list."""
    with open(tmp_path / "real_train.txt", "a") as file:
        file.write("real/zebra/real_000_train1.jpg 0\n")
    with pytest.raises(ValueError, match=r"real_000_train1.jpg is listed twice: .*real_train.txt lists it in line 2, .*in line 19"):
        _load(tmp_path)
    _made(tmp_path)
    with open(tmp_path / "real_test.txt", "a") as file:
        file.write("real/zebra/real_000_train1.jpg 0\n")
    message = r"real_000_train1.jpg is listed twice: .*real_train.txt lists it in line 2, .*real_test.txt lists it in line 7"
    with pytest.raises(ValueError, match=message):
        _load(tmp_path)


def test_a_class_without_training_pictures(tmp_path: Path, greys: Greys) -> None:
    """As the publisher's painting has test pictures of t-shirts alone; a class without test pictures is none of that kind."""
    file = tmp_path / "sketch_train.txt"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "/bee/" not in line))
    with pytest.raises(ValueError, match=r"class 'bee' has no training pictures in sketch: leave_out can leave it out"):
        _load(tmp_path, protocol="single", domain="sketch")
    assert _load(tmp_path, protocol="single", domain="sketch", leave_out="bee").classes == ["zebra", "ant"]
    assert len(_load(tmp_path).test) == 18
    file = tmp_path / "sketch_test.txt"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "/ant/" not in line))
    assert set(_load(tmp_path, protocol="single", domain="sketch", leave_out="bee").test.y.tolist()) == {0}
    file.write_text("sketch/bee/sketch_007_test0.jpg 7\n")
    with pytest.raises(ValueError, match="domainnet sketch: test has no pictures"):
        _load(tmp_path, protocol="single", domain="sketch", leave_out="bee")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domains": ""}, "domains must be names of folders in root, each one once, got ''"),
        ({"domains": "real,real"}, "domains must be names of folders in root, each one once"),
        ({"domains": ["real", "../etc"]}, "domains must be names of folders"),
        ({"domains": [3]}, r"domains must be a list of names, or text with commas between them, got \[3\]"),
        ({"leave_out": 3}, "leave_out must be a list of names, or text with commas between them, got 3"),
        ({"protocol": "some"}, "protocol must be one of 'single', 'all', 'leave-one-out', got 'some'"),
        ({"domain": "real"}, "domain must be None for protocol 'all', got 'real'"),
        ({"protocol": "single"}, "domain must be one of domains for protocol 'single', got None; known: clipart, real, sketch"),
        ({"protocol": "leave-one-out", "domain": "skech"}, "got 'skech'; did you mean 'sketch'"),
        ({"protocol": "leave-one-out", "domain": "real", "domains": "real"}, "domains must be at least two"),
        ({"leave_out": "aunt"}, "leave_out: the lists have no class 'aunt'; did you mean 'ant'"),
        ({"leave_out": "ant,bee"}, "at least two classes, got 'zebra'"),
        ({"train_size": 100}, "train_size 100 takes"),
        ({"train_size": 2}, "train_size must be at least one picture for each of the 3 classes"),
        ({"validation_fraction": 0}, "validation_fraction must be"),
        ({"size": 0}, "size must be an integer in"),
        ({"mode": "CMYK"}, "mode must be one of 'L', 'RGB'"),
        ({"broken": "ignore"}, "broken must be one of 'fatal', 'skip', got 'ignore'"),
        ({"download": 1}, "download must be True or False"),
        ({"seed": -1}, "seed must be"),
        ({"root": ""}, "root must be the name of a folder"),
    ],
)
def test_bad_options(tmp_path: Path, greys: Greys, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _load(tmp_path, **options)
    assert not isinstance(caught.value, data.MissingData)


def test_missing_files_say_where_they_are_to_be_had(tmp_path: Path) -> None:
    """And a specimen has their shape."""
    with pytest.raises(
        data.MissingData, match=r"clipart_train.txt, .*, clipart/, real/, sketch/ missing; pass download=True .*real.zip of 5.6"
    ):
        _load(tmp_path / "none")
    with pytest.raises(
        data.MissingData, match=r": real_train.txt, real_test.txt, real/ missing; .*http://.* \(real.zip of 5.6 GB\), or root="
    ):
        _load(tmp_path, protocol="single", domain="real")
    for download in (True, False):
        with pytest.raises(data.MissingData, match=r"ours/ missing; only clipart, .* are the publisher's; pass root="):
            _load(tmp_path, domains="ours,real", protocol="single", domain="ours", download=download)
    assert list(tmp_path.iterdir()) == []
    made = data.make_specimen("domainnet", size=20, leave_out="ant,bee")
    assert made is not None
    assert (made.in_shape, made.out_features) == ((3, 20, 20), 343)


# The publisher's server


def _zipped(root: Path, domain: str, *more: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted((root / domain).rglob("*.jpg")):
            archive.write(path, str(path.relative_to(root)))
        for name, content in more:
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def published(tmp_path: Path, publisher: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server with all of the domains; they are in the folder theirs too."""
    _made(tmp_path / "theirs")
    for domain in DOMAINS:
        publisher.files[_domainnet.ARCHIVES[domain][0]] = _zipped(tmp_path / "theirs", domain, ("__MACOSX/._x", b"x"))
        for split in ("train", "test"):
            publisher.files[f"domainnet/txt/{domain}_{split}.txt"] = (tmp_path / "theirs" / f"{domain}_{split}.txt").read_bytes()
    monkeypatch.setattr(_domainnet, "URL", publisher.url)
    return publisher


def test_what_is_asked_for_is_fetched_once(tmp_path: Path, published: Any) -> None:
    """The domain's two lists and its archive, nothing of others; then nothing; and rows are those of the publisher's folder."""
    splits = _load(tmp_path / "ours", protocol="single", domain="clipart", download=True)
    asked = ["domainnet/txt/clipart_train.txt", "domainnet/txt/clipart_test.txt", "groundtruth/clipart.zip"]
    assert published.asked == asked
    theirs = _load(tmp_path / "theirs", protocol="single", domain="clipart")
    assert torch.equal(splits.train.x, theirs.train.x)
    assert torch.equal(splits.test.x, theirs.test.x)
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [
        "clipart",
        "clipart.zip",
        "clipart_test.txt",
        "clipart_train.txt",
    ]
    _load(tmp_path / "ours", protocol="single", domain="clipart", download=True)
    assert published.asked == asked
    _load(tmp_path / "ours", protocol="leave-one-out", domain="sketch", domains="clipart,sketch", download=True)
    assert published.asked[3:] == ["domainnet/txt/sketch_test.txt", "sketch.zip"]


def test_damaged_files_are_not_kept(tmp_path: Path, published: Any) -> None:
    archive = published.files["real.zip"]
    options = {"protocol": "single", "domain": "real", "download": True}
    published.files["domainnet/txt/real_test.txt"] = b"<html>moved</html>"
    with pytest.raises(ValueError, match=r"DomainNet from .*real_test.txt is damaged \(.*real/CLASS/PICTURE NUMBER was expected"):
        _load(tmp_path / "ours", **options)
    published.files["domainnet/txt/real_test.txt"] = (tmp_path / "theirs" / "real_test.txt").read_bytes()
    published.files["real.zip"] = archive[:300] + b"xyz" + archive[303:]
    with pytest.raises(ValueError, match=r"DomainNet from .*real.zip is damaged"):
        _load(tmp_path / "ours", **options)
    del published.files["real.zip"]
    with pytest.raises(ValueError, match=r"real.zip: the server answers 404"):
        _load(tmp_path / "ours", **options)
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["real_test.txt", "real_train.txt"]
    (tmp_path / "ours" / "real.zip").write_bytes(archive[:-100])
    with pytest.raises(ValueError, match=r"ours/real.zip is damaged .*: delete it to fetch it once more"):
        _load(tmp_path / "ours", **options)
    assert not (tmp_path / "ours" / "real").exists()


@pytest.mark.parametrize(
    "name", ["../outside.jpg", "/outside.jpg", "real/../../outside.jpg", "real\\..\\..\\outside.jpg", "C:/outside.jpg"]
)
def test_no_path_leads_out_of_an_archive(tmp_path: Path, published: Any, name: str) -> None:
    published.files["real.zip"] = _zipped(tmp_path / "theirs", "real", (name, b"x"))
    with pytest.raises(ValueError, match="which leads out of it"):
        _load(tmp_path / "deep" / "ours", protocol="single", domain="real", download=True)
    assert not (tmp_path / "deep" / "ours" / "real").exists()
    assert not list(tmp_path.rglob("*outside*"))


def test_an_archive_of_something_else(tmp_path: Path, published: Any) -> None:
    published.files["real.zip"] = _zipped(tmp_path / "theirs", "sketch")
    with pytest.raises(ValueError, match=r"real.zip holds nothing in a folder real"):
        _load(tmp_path / "ours", protocol="single", domain="real", download=True)


def test_unpacking_goes_on_where_it_stopped(tmp_path: Path, published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, then an interruption: no folder is there before it is whole, nothing is unpacked twice, half a picture is no picture."""
    options = {"protocol": "single", "domain": "real", "download": True}
    copy, written = shutil.copyfileobj, []
    stop: list[BaseException] = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]

    def copyfileobj(source: Any, target: Any) -> None:
        if stop and len(written) % 10 == 9:
            target.write(b"half")
            raise stop.pop(0)
        written.append(source)
        copy(source, target)

    monkeypatch.setattr(_download.shutil, "copyfileobj", copyfileobj)
    with pytest.raises(ValueError, match=r"real.zip cannot be unpacked as .*real: .*No space left .* try again to go on"):
        _load(tmp_path / "ours", **options)
    assert len(written) == 9
    assert not (tmp_path / "ours" / "real").exists()
    written.append(None)  # so that the next stop is ten later
    with pytest.raises(KeyboardInterrupt):
        _load(tmp_path / "ours", **options)
    assert not (tmp_path / "ours" / "real").exists()
    splits = _load(tmp_path / "ours", **options)
    assert len(written) - 1 == 3 * (TRAIN + TEST)
    assert torch.equal(splits.train.x, _load(tmp_path / "theirs", protocol="single", domain="real").train.x)
    theirs, ours = (sorted(p.relative_to(tmp_path / w) for p in (tmp_path / w / "real").rglob("*")) for w in ("theirs", "ours"))
    assert theirs == ours
    assert published.asked.count("real.zip") == 1


def test_real_pictures_as_imagefolder_finds_them(emoji_domains: Path) -> None:
    """Two domains of emoji: torchvision's classes and numbers, every picture in one split, rows in the order of the test list."""
    listing = data.domainnet.listing(root=str(emoji_domains), domains="google,twitter", protocol="single", domain="google")
    reference = torchvision.datasets.ImageFolder(str(emoji_domains / "google"))
    assert list(listing.target.classes or ()) == reference.classes
    found = [(str(path), number) for part in (listing.train, listing.validation, listing.test) for path, number in zip(*part)]
    assert sorted(found) == sorted(reference.samples)

    splits = data.load(
        "domainnet",
        root=emoji_domains,
        domains="google,twitter",
        protocol="leave-one-out",
        domain="twitter",
        leave_out="component",
        size=16,
        memory=False,
    )
    assert splits.classes == [name for name in reference.classes if name != "component"]
    listed = (emoji_domains / "google_train.txt").read_text().splitlines()
    assert len(splits.train) + len(splits.validation) == len([line for line in listed if "/component/" not in line])
    x = data.PictureEncoder(splits.encoder.target, (16, 16), "RGB")
    lines = [line for line in (emoji_domains / "twitter_test.txt").read_text().splitlines() if "/component/" not in line]
    for row in (0, len(lines) // 2, -1):
        assert torch.equal(splits.test.x[row], x.encode(emoji_domains / lines[row].rsplit(" ", 1)[0]).x[0])
    with pytest.raises(ValueError, match=r"from class component, which has \d pictures"):
        data.load(
            "domainnet", root=emoji_domains, domains="google", protocol="single", domain="google", train_size=4 * len(reference.classes)
        )
