"""ImageNet in both of its layouts: what is listed, what is drawn, what is missing."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lmn_graph import data
from lmn_graph.data import Encoder, PictureEncoder, _listing, _splitting

SYNSETS = ("n01440764", "n02012849", "n03126707")
TRAIN, TEST = 10, 3


def _picture(path: Path, value: int) -> None:
    """One JPEG of a single grey: what is read back says which picture it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (value, value, value)).save(path, "JPEG", quality=100)


def _greys() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """A grey of its own for every training and every validation picture, by synset."""
    greys = itertools.count(5, 5)
    train = {synset: list(itertools.islice(greys, TRAIN)) for synset in SYNSETS}
    return train, {synset: list(itertools.islice(greys, TEST)) for synset in SYNSETS}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """train/SYNSET/*.JPEG and val/SYNSET/*.JPEG."""
    for part, greys in zip(("train", "val"), _greys()):
        for synset, values in greys.items():
            for i, value in enumerate(values):
                _picture(tmp_path / "folders" / part / synset / f"{synset}_{i}.JPEG", value)
    return tmp_path / "folders"


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """The Kaggle archive: lists, a flat val/, names of the synsets. The solution is in no order, as the publisher's is."""
    root = tmp_path / "kaggle"
    pictures, lists = root / "ILSVRC" / "Data" / "CLS-LOC", root / "ILSVRC" / "ImageSets" / "CLS-LOC"
    train, test = _greys()
    lines = []
    for synset, values in train.items():
        for i, value in enumerate(values):
            _picture(pictures / "train" / synset / f"{synset}_{i}.JPEG", value)
            lines.append(f"{synset}/{synset}_{i} {len(lines) + 1}")
    solution = []
    for synset, values in test.items():
        for value in values:
            name = f"ILSVRC2012_val_{len(solution) + 1:08d}"
            _picture(pictures / "val" / f"{name}.JPEG", value)
            solution.append(f"{name},{synset} 1 2 3 4 {synset} 5 6 7 8 ")
    (pictures / "test").mkdir()
    lists.mkdir(parents=True)
    (lists / "train_cls.txt").write_text("\n".join(lines) + "\n")
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(solution)]) + "\n")
    names = ("tench, Tinca tinca", "crane", "crane")
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{synset} {name}\n" for synset, name in zip(SYNSETS, names)))
    return root


def _read_back(part: data.Split) -> list[tuple[int, int]]:
    """(class, grey) of every row, sorted."""
    return sorted(zip(part.y.tolist(), (part.x.flatten(1).mean(1) * 255).round().int().tolist()))


def _expected(greys: dict[str, list[int]]) -> list[tuple[int, int]]:
    return [(number, value) for number, synset in enumerate(SYNSETS) for value in greys[synset]]


@pytest.mark.parametrize("layout", ["folders", "kaggle"])
def test_both_layouts_give_every_picture_its_class(layout: str, request: pytest.FixtureRequest) -> None:
    """The publisher's validation pictures are the test split; every training picture is in one of the other two."""
    splits = data.load("imagenet", root=str(request.getfixturevalue(layout)), size=4, validation_fraction=0.2)
    train, test = _greys()
    assert _read_back(splits.test) == _expected(test)
    assert sorted(_read_back(splits.train) + _read_back(splits.validation)) == _expected(train)
    assert Counter(splits.validation.y.tolist()) == {0: 2, 1: 2, 2: 2}
    assert splits.in_shape == (4, 4)
    assert splits.classes == (["tench, Tinca tinca", "crane (n02012849)", "crane (n03126707)"] if layout == "kaggle" else list(SYNSETS))
    assert Encoder.from_dict(splits.encoder.to_dict()) == splits.encoder


def test_folders_are_read_as_imagefolder_reads_them(folders: Path) -> None:
    """Classes, numbers and pictures of torchvision's ImageFolder, stretched by the same encoder as any picture."""
    splits = data.imagenet(str(folders), size=6, mode="RGB")
    reference = torchvision.datasets.ImageFolder(str(folders / "val"))
    assert splits.classes == reference.classes
    assert splits.test.y.tolist() == reference.targets
    assert isinstance(splits.encoder, PictureEncoder)
    rows = [splits.encoder.encode(path).x for path, _ in reference.samples]
    assert torch.equal(splits.test.x, torch.cat(rows))
    assert splits.test.x.shape == (9, 3, 6, 6)


def test_a_draw_is_balanced_and_only_what_is_drawn_is_decoded(kaggle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []

    def read_pictures(paths: list[Path], size: tuple[int, int], mode: str) -> torch.Tensor:
        decoded.extend(paths)
        return torch.zeros(len(paths), *size)

    monkeypatch.setattr(_listing, "read_pictures", read_pictures)
    splits = data.imagenet(str(kaggle), size=4, train_size=10, validation_fraction=0.25)
    assert sorted(Counter(splits.train.y.tolist()).values()) == [3, 3, 4]
    assert Counter(splits.validation.y.tolist()) == {0: 1, 1: 1, 2: 1}
    assert len(decoded) == len(set(decoded)) == 10 + 3 + 9
    first = list(decoded)
    data.imagenet(str(kaggle), size=4, train_size=10, validation_fraction=0.25)
    assert decoded[len(first) :] == first
    decoded.clear()
    data.imagenet(str(kaggle), size=4, train_size=10, validation_fraction=0.25, seed=1)
    assert decoded != first


def test_the_first_classes(kaggle: Path) -> None:
    splits = data.imagenet(str(kaggle), size=4, classes=2)
    train, test = _greys()
    assert splits.classes == ["tench, Tinca tinca", "crane"]
    assert _read_back(splits.test) == _expected(test)[: 2 * TEST]
    assert sorted(_read_back(splits.train) + _read_back(splits.validation)) == _expected(train)[: 2 * TRAIN]


def test_what_is_not_in_the_list_is_not_used(kaggle: Path) -> None:
    """train_cls.txt decides, not the folder."""
    _picture(kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "train" / SYNSETS[0] / "extra.JPEG", 250)
    splits = data.imagenet(str(kaggle), size=4)
    assert 250 not in [grey for part in (splits.train, splits.validation) for _, grey in _read_back(part)]


def test_pictures_that_are_listed_but_missing(kaggle: Path) -> None:
    """The picture, the list and the line; before anything is decoded."""
    pictures = kaggle / "ILSVRC" / "Data" / "CLS-LOC"
    lost = pictures / "train" / SYNSETS[1] / f"{SYNSETS[1]}_4.JPEG"
    lost.unlink()
    with pytest.raises(ValueError, match=r"n02012849_4.JPEG is missing, .*train_cls.txt lists it in line 15"):
        data.imagenet(str(kaggle), size=4)
    _picture(lost, 7)
    (pictures / "val" / "ILSVRC2012_val_00000009.JPEG").unlink()
    with pytest.raises(ValueError, match=r"val_00000009.JPEG is missing, .*LOC_val_solution.csv lists it in line 2"):
        data.imagenet(str(kaggle), size=4)


def test_missing_files_say_where_they_are_to_be_had(kaggle: Path, folders: Path, tmp_path: Path) -> None:
    with pytest.raises(data.MissingData, match=r"nothing/train and .*nothing/val is missing; .*image-net.org .*Kaggle competition"):
        data.imagenet(str(tmp_path / "nothing"))
    shutil.rmtree(folders / "val")
    with pytest.raises(data.MissingData, match=r"root '.*folders': .*folders/val is missing"):
        data.imagenet(str(folders))
    (kaggle / "LOC_val_solution.csv").unlink()
    with pytest.raises(data.MissingData, match=r"LOC_val_solution.csv is missing; ImageNet-1K is to be had from"):
        data.imagenet(str(kaggle))


def test_annotations_stand_in_for_the_solution(kaggle: Path) -> None:
    """The publisher's own archive has no LOC_val_solution.csv: the first box of each picture says what it shows."""
    listed = data.imagenet(str(kaggle), size=4)
    solution = kaggle / "LOC_val_solution.csv"
    folder = kaggle / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    folder.mkdir(parents=True)
    for line in solution.read_text().splitlines()[1:]:
        name, synset = line.split()[0].split(",")
        boxes = f"<object>\n\t\t<name>{synset}</name>\n<bndbox></bndbox></object><object><name>n00000000</name></object>"
        (folder / f"{name}.xml").write_text(f"<annotation>\n\t<filename>{name}</filename>\n\t{boxes}</annotation>\n")
    solution.unlink()
    annotated = data.imagenet(str(kaggle), size=4)
    assert _read_back(annotated.test) == _read_back(listed.test)
    assert torch.equal(annotated.train.x, listed.train.x)
    (kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(ValueError, match=r"00000002.JPEG is missing, .*val_00000002.xml is its annotation"):
        data.imagenet(str(kaggle), size=4)
    (folder / "ILSVRC2012_val_00000001.xml").write_text("<annotation></annotation>")
    with pytest.raises(ValueError, match=r"val_00000001.xml holds no <object> with a <name>"):
        data.imagenet(str(kaggle), size=4)


def test_a_flat_val_is_read_where_it_is(kaggle: Path, folders: Path) -> None:
    """In the publisher's layout too, by Kaggle's list; nothing is moved, made or copied."""
    shutil.rmtree(folders / "val")
    shutil.copytree(kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "val", folders / "val")
    shutil.copy(kaggle / "LOC_val_solution.csv", folders)
    (folders / "val" / "thumbnails").mkdir()
    before = sorted(folders.rglob("*"))
    splits = data.imagenet(str(folders), size=4)
    assert _read_back(splits.test) == _expected(_greys()[1])
    assert sorted(folders.rglob("*")) == before
    (folders / "LOC_val_solution.csv").unlink()
    with pytest.raises(data.MissingData, match=r"folders/LOC_val_solution.csv is missing; ImageNet-1K is to be had from"):
        data.imagenet(str(folders))


def test_a_val_sorted_into_class_folders_needs_no_list(kaggle: Path) -> None:
    """As many people have Kaggle's archive after they have moved its pictures; the names of the classes are the mapping's all the same."""
    val = kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    for line in (kaggle / "LOC_val_solution.csv").read_text().splitlines()[1:]:
        name, synset = line.split()[0].split(",")
        (val / synset).mkdir(exist_ok=True)
        (val / f"{name}.JPEG").rename(val / synset / f"{name}.JPEG")
    (kaggle / "LOC_val_solution.csv").unlink()
    splits = data.imagenet(str(kaggle), size=4)
    assert _read_back(splits.test) == _expected(_greys()[1])
    assert splits.classes is not None
    assert splits.classes[0] == "tench, Tinca tinca"


def test_without_train_cls_the_folders_decide(kaggle: Path) -> None:
    listed = data.imagenet(str(kaggle), size=4)
    (kaggle / "ILSVRC" / "ImageSets" / "CLS-LOC" / "train_cls.txt").unlink()
    found = data.imagenet(str(kaggle), size=4)
    assert sorted(_read_back(found.train) + _read_back(found.validation)) == sorted(
        _read_back(listed.train) + _read_back(listed.validation)
    )
    _picture(kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "train" / SYNSETS[0] / "extra.JPEG", 250)
    more = data.imagenet(str(kaggle), size=4)
    assert 250 in [grey for part in (more.train, more.validation) for _, grey in _read_back(part)]


def test_a_picture_is_listed_once(kaggle: Path) -> None:
    file = kaggle / "ILSVRC" / "ImageSets" / "CLS-LOC" / "train_cls.txt"
    text = file.read_text()
    file.write_text(text + f"{SYNSETS[0]}/{SYNSETS[0]}_3 31\n")
    with pytest.raises(
        ValueError, match=r"n01440764_3.JPEG is listed twice: .*train_cls.txt lists it in line 4, .*train_cls.txt .* line 31"
    ):
        data.imagenet(str(kaggle), size=4)
    file.write_text(text)
    solution = kaggle / "LOC_val_solution.csv"
    solution.write_text(solution.read_text() + "ILSVRC2012_val_00000009,n01440764 1 2 3 4\n")
    with pytest.raises(
        ValueError, match=r"val_00000009.JPEG is listed twice: .*solution.csv lists it in line 2, .*solution.csv .* line 11"
    ):
        data.imagenet(str(kaggle), size=4)


def test_a_solution_that_is_no_table(kaggle: Path) -> None:
    file = kaggle / "LOC_val_solution.csv"
    with open(file, "a") as stream:
        stream.write("x" * 200_000)
    with pytest.raises(
        ValueError, match=r"LOC_val_solution.csv, line 11: (field larger than field limit|a picture and)"
    ):  # other libraries set the limit
        data.imagenet(str(kaggle), size=4)
    file.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"LOC_val_solution.csv cannot be read: 'utf-8' codec"):
        data.imagenet(str(kaggle), size=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xd8\xff", "cannot be read: 'utf-8' codec"),
        (b"<annotation><object>", "is not XML"),
        (b"\0", "is not XML"),
        (b"<annotation><object><name> </name></object></annotation>", "holds no <object> with a <name>"),
        (
            b'<!DOCTYPE x [<!ENTITY a "n01440764"><!ENTITY b "&a;&a;">]><annotation><object><name>&b;</name></object></annotation>',
            "holds a document type definition",
        ),
        (
            b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><object><name>&a;</name></object></annotation>',
            "holds a document type definition",
        ),
    ],
)
def test_annotations_that_are_none(kaggle: Path, content: bytes, message: str) -> None:
    """Nothing that an annotation defines is expanded or fetched."""
    (kaggle / "LOC_val_solution.csv").unlink()
    folder = kaggle / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_val_00000001.xml").write_bytes(content)
    with pytest.raises(ValueError, match=f"val_00000001.xml {message}"):
        data.imagenet(str(kaggle), size=4)


def test_annotations_may_say_more_before_the_name(kaggle: Path) -> None:
    """Comments, other elements first, attributes: the first object with a name counts."""
    (kaggle / "LOC_val_solution.csv").rename(kaggle / "kept.csv")
    folder = kaggle / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    folder.mkdir(parents=True)
    for line in (kaggle / "kept.csv").read_text().splitlines()[1:]:
        name, synset = line.split()[0].split(",")
        box = f'<!-- <object><name>n0</name></object> --><object id="1"><pose>Unspecified</pose><name>\n{synset}</name></object>'
        (folder / f"{name}.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotation>{box}</annotation>')
    assert _read_back(data.imagenet(str(kaggle), size=4).test) == _expected(_greys()[1])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("ILSVRC/ImageSets/CLS-LOC/train_cls.txt", "n01440764/n01440764_3 4", "n01440764_3", "train_cls.txt, line 4: SYNSET/PICTURE was"),
        (
            "ILSVRC/ImageSets/CLS-LOC/train_cls.txt",
            "n01440764/n01440764_3 4",
            "n01440764/../x 4",
            "train_cls.txt, line 4: SYNSET/PICTURE was",
        ),
        ("LOC_val_solution.csv", "ILSVRC2012_val_00000009,", "../train/x,", "LOC_val_solution.csv, line 2: a picture and its synset were"),
        ("LOC_val_solution.csv", "ImageId,", "Id,", "LOC_val_solution.csv, line 1: ImageId,PredictionString was expected"),
        ("LOC_val_solution.csv", "n03126707 1 2 3 4 n03126707 5 6 7 8 ", "", "LOC_val_solution.csv, line 2: a picture and its synset"),
    ],
)
def test_damaged_lists(kaggle: Path, file: str, old: str, new: str, message: str) -> None:
    path = kaggle / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        data.imagenet(str(kaggle), size=4)


def test_a_picture_that_cannot_be_read_is_named(folders: Path) -> None:
    (folders / "val" / SYNSETS[2] / f"{SYNSETS[2]}_1.JPEG").write_bytes(b"\xff\xd8 no")
    with pytest.raises(ValueError, match=r"n03126707_1.JPEG is not a picture that can be read"):
        data.imagenet(str(folders), size=4)


def test_what_does_not_fit_into_memory_is_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the size of what is drawn, before a picture is opened."""
    monkeypatch.setattr(_listing, "read_pictures", lambda *_: pytest.fail("a picture was read"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**30})())
    with pytest.raises(ValueError, match=r"39 pictures .* with size=4096, mode='L' would take 2.4 GiB of memory, of which 1.0 GiB"):
        data.imagenet(str(folders), size=4096)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be an integer in"),
        ({"mode": "CMYK"}, "mode must be one of 'L', 'RGB'"),
        ({"classes": 1}, "classes must be an integer >= 2"),
        ({"classes": 4}, "holds 3 class folders, at least classes = 4 were expected"),
        ({"train_size": 1}, "train_size must be an integer >= 2"),
        ({"train_size": 2}, "train_size must be at least one picture for each of the 3 classes, got 2"),
        ({"train_size": 30}, "train_size 30 takes 10 for training and 1 for validation from class n01440764, which has 10 pictures"),
        ({"validation_fraction": 0}, "validation_fraction must be"),
        ({"seed": -1}, "seed must be"),
        ({"root": ""}, "root must be the name of a folder"),
    ],
)
def test_bad_options(folders: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load("imagenet", **({"root": str(folders)} | options))


def test_classes_without_pictures_are_named(folders: Path) -> None:
    for path in (folders / "val" / SYNSETS[1]).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"val holds no pictures of class n02012849"):
        data.imagenet(str(folders), size=4)
    for path in list((folders / "train" / SYNSETS[0]).iterdir())[1:]:
        path.unlink()
    shutil.copytree(folders / "val" / SYNSETS[0], folders / "val" / SYNSETS[1], dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"class n01440764 has 1 training picture\(s\), at least 2"):
        data.imagenet(str(folders), size=4)


def test_a_balanced_draw_spreads_what_is_left_over() -> None:
    shares = _splitting.shares(1003, 1000, np.random.default_rng(0))
    assert shares.sum() == 1003
    assert sorted(set(shares.tolist())) == [1, 2]
