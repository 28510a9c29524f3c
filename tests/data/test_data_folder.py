"""Class folders of pictures: ImageFolder's classes, modes, links, damaged files, given splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lmn_graph import data
from lmn_graph.data import Encoder, PictureEncoder, Target
from lmn_graph.data._folder import _labelled

Pictures = Callable[..., None]
GREY = PictureEncoder(Target("class", ("a", "b")), (4, 6))


def test_emoji_as_imagefolder_finds_them(emoji_folder: Path) -> None:
    """Same classes, numbers and files as torchvision's ImageFolder, all of them in exactly one split."""
    reference = torchvision.datasets.ImageFolder(str(emoji_folder))
    found, classes = _labelled(emoji_folder)
    assert classes == reference.classes
    assert [(str(path), classes.index(name)) for path, name in found] == reference.samples
    splits = data.load(str(emoji_folder), size=16)
    assert splits.classes == reference.classes
    assert splits.in_shape == (16, 16)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == len(reference)
    for part in (splits.train, splits.validation, splits.test):
        assert len(torch.unique(part.y)) == len(classes)
        assert part.x.min() >= 0
        assert part.x.max() <= 1
    again = data.load(emoji_folder, size=16)
    assert torch.equal(splits.test.x, again.test.x)


def test_predicting_from_files_gives_the_training_encoding(tmp_path: Path, write_pictures: Pictures) -> None:
    """A picture, a folder of pictures and the record from JSON: the rows that training saw."""
    write_pictures(tmp_path / "all", ("cat", "dog"), 10)
    for mode, shape in (("L", (5, 5)), ("RGB", (3, 5, 5))):
        splits = data.folder(tmp_path / "all", size=5, mode=mode)
        encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
        assert encoder == splits.encoder
        assert splits.in_shape == shape
        x, names = encoder.encode(tmp_path / "all")
        assert names[:2] == ["cat/1f000.png", "cat/1f001.png"]
        known = {row.numpy().tobytes() for part in (splits.train, splits.validation, splits.test) for row in part.x}
        assert {row.numpy().tobytes() for row in x} == known
        assert torch.equal(encoder.encode(tmp_path / "all" / "dog" / "1f003.png").x[0], x[13])


def test_pixels(tmp_path: Path) -> None:
    """Grey is in [0, 1] with 0 black; channels come first; transparency is white; 16 bits are not clipped; EXIF turns a picture."""
    flat = np.zeros((4, 6, 3), np.uint8)
    flat[..., 1] = 51
    Image.fromarray(flat).save(tmp_path / "rgb.png")
    colours = PictureEncoder(GREY.target, (4, 6), "RGB").encode(tmp_path / "rgb.png").x
    assert colours.shape == (1, 3, 4, 6)
    assert torch.equal(colours[0].unique(dim=1).unique(dim=2).flatten(), torch.tensor([0.0, 0.2, 0.0]))

    clear = np.zeros((4, 6, 4), np.uint8)
    clear[0, 0] = (0, 0, 0, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    x = GREY.encode(tmp_path / "clear.png").x[0]
    assert x[0, 0] == 0
    assert (x.flatten()[1:] == 1).all()

    Image.fromarray(np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)).save(tmp_path / "deep.png")
    assert torch.allclose(GREY.encode(tmp_path / "deep.png").x.flatten(), torch.linspace(0, 1, 24), atol=1 / 255)

    side = np.zeros((6, 4), np.uint8)
    side[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the first row is the right edge
    Image.fromarray(side).save(tmp_path / "side.png", exif=exif)
    assert (GREY.encode(tmp_path / "side.png").x[0, :, -1] == 1).all()

    Image.fromarray(np.zeros((4, 6), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float.tif is not a picture that can be read: pixels are floating-point"):
        GREY.encode(tmp_path / "float.tif")


def test_given_split_is_kept(tmp_path: Path, write_pictures: Pictures) -> None:
    """train and test with class folders: test is the test split, whole and in order; validation comes out of train."""
    write_pictures(tmp_path / "train", ("cat", "dog"), 10)
    write_pictures(tmp_path / "test", ("cat", "dog"), 3, seed=1)
    splits = data.folder(tmp_path, size=8)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 6)
    assert splits.test.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(splits.test.x, splits.encoder.encode(tmp_path / "test").x)

    write_pictures(tmp_path / "test", ("owl",), 3)
    with pytest.raises(ValueError, match="target 'class': row 6 of the test split is of class 'owl', but no training row is"):
        data.folder(tmp_path)
    write_pictures(tmp_path / "val", ("cat",), 3)
    with pytest.raises(ValueError, match="holds the splits test, train, val: expected exactly train and test"):
        data.folder(tmp_path)
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(ValueError, match="holds the splits train, val: expected exactly"):
        data.folder(tmp_path)


@pytest.mark.parametrize("link", ["folder", "soft", "hard"])
def test_no_picture_is_for_training_and_test(tmp_path: Path, write_pictures: Pictures, link: str) -> None:
    """Not by way of a link either; two files with the same content are two."""
    write_pictures(tmp_path / "train", ("cat", "dog"), 10)
    write_pictures(tmp_path / "test", ("cat", "dog"), 3)
    assert len(data.folder(tmp_path, size=8).test) == 6
    place = tmp_path / "test" / "dog"
    if link == "folder":
        shutil.rmtree(place)
        place.symlink_to(tmp_path / "train" / "dog")
    else:
        (place / "1f001.png").unlink()
        source = tmp_path / "train" / "dog" / "1f007.png"
        (place / "1f001.png").symlink_to(source) if link == "soft" else (place / "1f001.png").hardlink_to(source)
    with pytest.raises(
        ValueError, match=r"test/dog/1f00\d.png is the same file as .*train/dog/1f00\d.png: a picture must not be for training"
    ):
        data.folder(tmp_path, size=8)


def test_train_can_be_the_name_of_a_class(tmp_path: Path, write_pictures: Pictures) -> None:
    write_pictures(tmp_path, ("train", "test", "plane"), 4)
    assert data.folder(tmp_path).classes == ["plane", "test", "train"]


def test_links_do_not_loop(tmp_path: Path, write_pictures: Pictures) -> None:
    """A link back up, to a neighbour or to itself adds nothing; a class folder that lives elsewhere counts."""
    write_pictures(tmp_path / "all", ("cat", "dog"), 4)
    write_pictures(tmp_path / "elsewhere", ("owl",), 4)
    root = tmp_path / "all"
    (root / "cat" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "here").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "copy").symlink_to(root / "dog")
    (root / "owl").symlink_to(tmp_path / "elsewhere" / "owl")
    (root / ".cache").mkdir()
    splits = data.folder(root)
    assert splits.classes == ["cat", "dog", "owl"]
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 12


def test_bad_folders(tmp_path: Path, write_pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="has no class folders"):
        data.folder(tmp_path)
    write_pictures(tmp_path, ("cat",), 4)
    with pytest.raises(ValueError, match="at least two classes, got 'cat'"):
        data.folder(tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match=r"dog holds no pictures"):
        data.folder(tmp_path)
    write_pictures(tmp_path, ("dog",), 2)
    with pytest.raises(ValueError, match=r"class 'dog' has 2 row\(s\), at least 3"):
        data.folder(tmp_path)
    with pytest.raises(ValueError, match="is a file, a folder was expected"):
        data.folder(tmp_path / "dog" / "notes.txt")
    with pytest.raises(ValueError, match="does not exist"):
        data.folder(tmp_path / "none")
    for options, message in (
        ({"size": 0}, "size must be an integer"),
        ({"size": "big"}, "size must be"),
        ({"mode": "CMYK"}, "mode must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            data.load(tmp_path, **options)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_picture_is_named(tmp_path: Path, write_pictures: Pictures, content: bytes) -> None:
    write_pictures(tmp_path, ("cat", "dog"), 4)
    (tmp_path / "dog" / "1f002.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"dog/1f002.png is not a picture that can be read"):
        data.folder(tmp_path)


def test_a_link_to_nowhere_is_named(tmp_path: Path, write_pictures: Pictures) -> None:
    write_pictures(tmp_path, ("cat", "dog"), 4)
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"dog/gone.png is not a picture that can be read"):
        data.folder(tmp_path)


@pytest.mark.filterwarnings("default::Warning:PIL")  # Pillow's own remarks on damaged headers are not ours to raise
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp"]), st.integers(0, 10_000), st.binary(max_size=8), st.booleans())
def test_any_damage_is_a_value_error(tmp_path: Path, name: str, place: int, noise: bytes, cut: bool) -> None:
    """Overwritten or truncated anywhere, a picture is either read or refused with its name."""
    path = tmp_path / name
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + noise + (b"" if cut else whole[place + len(noise) :]))
    try:
        x = GREY.encode(path).x
    except ValueError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert x.shape == (1, 4, 6)


def test_nothing_to_predict_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no pictures"):
        GREY.encode(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        GREY.encode(tmp_path / "none.png")
