"""digits, mnist and fashion-mnist: fixed splits, publishers' files, missing and damaged ones."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lmn_graph import data
from lmn_graph.data import Encoder, Splits, _mnist


def _rows(splits: Splits) -> list[bytes]:
    return [row.numpy().tobytes() for part in (splits.train, splits.validation, splits.test) for row in part.x]


def test_digits_are_split_once_and_for_all() -> None:
    """A quarter is held out; the seed fixes the split; no row is in two splits; classes keep their shares."""
    splits, again, other = data.digits(), data.digits(), data.digits(seed=1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1213, 135, 449)
    assert splits.in_shape == (8, 8)
    assert splits.classes == [str(i) for i in range(10)]
    assert torch.equal(splits.test.x, again.test.x)
    assert torch.equal(splits.train.y, again.train.y)
    assert not torch.equal(splits.test.x, other.test.x)
    assert len(set(_rows(splits))) == 1797
    assert sorted(_rows(splits)) == sorted(_rows(other))
    for part in (splits.train, splits.validation, splits.test):
        assert part.x.min() == 0
        assert part.x.max() == 1
        shares = torch.bincount(part.y) / len(part)
        assert (shares - 0.1).abs().max() < 0.02


def test_digits_test_rows_do_not_depend_on_the_validation_share() -> None:
    assert torch.equal(data.digits().test.x, data.digits(validation_fraction=0.3).test.x)


@pytest.mark.slow
def test_mnist_reads_the_publishers_files(mnist_files: tuple[str, int]) -> None:
    """The publisher's test file, in its order, is the test split; validation comes out of the training file, class by class."""
    root, held = mnist_files
    splits = data.load("mnist", root=root, validation_size=held)
    published = torchvision.datasets.MNIST(root, train=False)
    assert torch.equal(splits.test.x, published.data.float() / 255)
    assert torch.equal(splits.test.y, published.targets)
    source = torchvision.datasets.MNIST(root, train=True)
    assert (len(splits.train), len(splits.validation)) == (len(source) - held, held)
    rows = Counter(image.numpy().tobytes() for image in source.data)
    used = Counter((x * 255).round().to(torch.uint8).numpy().tobytes() for part in (splits.train, splits.validation) for x in part.x)
    assert rows == used
    share = torch.bincount(source.targets) / len(source)
    assert (torch.bincount(splits.validation.y) / held - share).abs().max() < 1 / held + 1e-6
    assert torch.equal(splits.validation.x, data.load("mnist", root=root, validation_size=held).validation.x)


def test_mnist_train_size(mnist_files: tuple[str, int]) -> None:
    """A smaller training set is a subset of the whole one, of every class, and leaves validation alone."""
    root, held = mnist_files
    splits, full = data.mnist(root, train_size=100, validation_size=held), data.mnist(root, validation_size=held)
    assert len(splits.train) == 100
    assert torch.bincount(splits.train.y).min() >= 1
    assert torch.equal(splits.validation.x, full.validation.x)
    assert {row.numpy().tobytes() for row in splits.train.x} <= {row.numpy().tobytes() for row in full.train.x}


def test_fashion_mnist_names_its_classes(tmp_path: Path, write_idx_set: Callable[..., None]) -> None:
    write_idx_set(tmp_path / "FashionMNIST" / "raw")
    splits = data.load("fashion-mnist", root=str(tmp_path), validation_size=50)
    assert splits.name == "fashion-mnist"
    assert splits.classes is not None
    assert splits.classes[9] == "Ankle boot"
    assert torch.equal(splits.test.x[:, 0, 0], splits.test.y / 255)


def test_missing_files_are_named(tmp_path: Path, write_idx_set: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match=r"MNIST lacks train-images-idx3-ubyte, .* pass download=True"):
        data.mnist(str(tmp_path))
    write_idx_set(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"MNIST lacks t10k-labels-idx1-ubyte in"):
        data.mnist(str(tmp_path))
    assert not (tmp_path / "openml").exists()


@pytest.mark.parametrize("damage", ["cut", "longer", "magic", "empty"])
def test_damaged_files_are_named(tmp_path: Path, damage: str, write_idx_set: Callable[..., None]) -> None:
    write_idx_set(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-5], "longer": whole + b"1", "magic": b"\0\0\x0d\x03" + whole[4:], "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte is damaged"):
        data.mnist(str(tmp_path), validation_size=50)


def test_labels_and_pictures_must_agree(tmp_path: Path, write_idx_set: Callable[..., None], write_idx: Callable[..., None]) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx_set(raw)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.full(60, 11))
    with pytest.raises(ValueError, match=r"labels must be 0 … 9, got 0 … 11"):
        data.mnist(str(tmp_path), validation_size=50)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.zeros(59))
    with pytest.raises(ValueError, match="one label each"):
        data.mnist(str(tmp_path), validation_size=50)


def test_a_class_that_training_lacks_is_named(
    tmp_path: Path, write_idx_set: Callable[..., None], write_idx: Callable[[Path, np.ndarray], None]
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx_set(raw)
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(300) % 9)
    with pytest.raises(ValueError, match="the test split has rows of class '9', but no training row is of class '9'"):
        data.mnist(str(tmp_path), validation_size=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "kaggle"}, "source must be one of 'torchvision', 'openml'"),
        ({"download": 1}, "download must be True or False"),
        ({"validation_size": 0}, "validation_size must be an integer >= 10"),
        ({"train_size": 5}, "train_size must be an integer >= 10"),
        ({"validation_size": 295}, "must fit into the 300 training rows"),
        ({"validation_size": 50, "train_size": 251}, "must fit into the 300 training rows"),
        ({"seed": "x"}, "seed must be an integer"),
        ({"root": ""}, "root must be the name of a folder"),
    ],
)
def test_bad_mnist_options(tmp_path: Path, options: dict[str, object], message: str, write_idx_set: Callable[..., None]) -> None:
    write_idx_set(tmp_path / "MNIST" / "raw")
    with pytest.raises(ValueError, match=message):
        data.load("mnist", **({"root": str(tmp_path)} | options))


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """serve(folder) -> the address of a server on this machine."""
    with ExitStack() as stack:

        def _serve(folder: Path) -> str:
            handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/"

        yield _serve


def test_download_fetches_and_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_idx_set: Callable[..., None], serve: Callable[[Path], str]
) -> None:
    """torchvision's own download fetches what is missing and refuses a file with a wrong checksum; the mirror is a local server."""
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    write_idx_set(mirror)
    resources = []
    for name, _ in torchvision.datasets.MNIST.resources:
        packed = gzip.compress((mirror / name.removesuffix(".gz")).read_bytes())
        (mirror / name).write_bytes(packed)
        resources.append((name, hashlib.md5(packed).hexdigest()))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [serve(mirror)])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    splits = data.mnist(str(root), download=True, validation_size=50)
    assert len(splits.test) == 60
    assert torch.equal(data.mnist(str(root), validation_size=50).test.x, splits.test.x)

    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(name, "0" * 32) for name, _ in resources])
    with pytest.raises(ValueError, match="MNIST cannot be had in"):
        data.mnist(str(tmp_path / "other"), download=True, validation_size=50)


@pytest.fixture
def openml_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """scikit-learn's cache of an OpenML data set in MNIST's form, with 120 rows of which the last 20 are the test rows."""
    monkeypatch.setattr(_mnist, "OPENML_TEST_ROWS", 20)
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (120, 784)), np.arange(120) % 10
    names = [f"pixel{i}" for i in range(1, 785)]
    lines = ["@RELATION mnist_784", *(f"@ATTRIBUTE {name} real" for name in names)]
    lines += ["@ATTRIBUTE class {" + ",".join(map(str, range(10))) + "}", "@DATA"]
    lines += [",".join(map(str, [*row, label])) for row, label in zip(images.tolist(), labels.tolist(), strict=True)]
    arff = "\n".join(lines).encode()
    base = {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
    features = [{"index": str(i), "name": name, "data_type": "numeric", "is_target": "false"} | base for i, name in enumerate(names)]
    features.append({"index": "784", "name": "class", "data_type": "nominal", "is_target": "true"} | base)
    url = "https://api.openml.org/data/v1/download/52667/mnist_784.arff"
    description = {"id": "554", "name": "mnist_784", "version": "1", "status": "active", "format": "ARFF", "description": "digits"}
    description |= {"url": url, "file_id": "52667", "md5_checksum": hashlib.md5(arff).hexdigest()}
    site = tmp_path / "openml" / "openml.org"
    for path, content in {
        "api/v1/json/data/554.gz": json.dumps({"data_set_description": description}).encode(),
        "api/v1/json/data/features/554.gz": json.dumps({"data_features": {"feature": features}}).encode(),
        "api/v1/json/data/qualities/554.gz": b'{"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "120"}]}}',
        "data/v1/download/52667/mnist_784.arff.gz": arff,
    }.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(gzip.compress(content))
    np.save(tmp_path / "images.npy", images)
    return tmp_path


def test_openml_is_the_alternative(openml_cache: Path) -> None:
    """OpenML keeps the publisher's order: its last rows are the test split; a whole cache needs no network."""
    splits = data.mnist(str(openml_cache), source="openml", validation_size=20)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 20, 20)
    images = torch.from_numpy(np.load(openml_cache / "images.npy")).reshape(-1, 28, 28)
    assert torch.equal(splits.test.x, images[100:].float() / 255)
    assert splits.test.y.tolist() == [i % 10 for i in range(100, 120)]


def test_openml_downloads_nothing_unasked(openml_cache: Path) -> None:
    """Without download=True a missing or damaged cache is an error and stays as it is."""
    arff = next(openml_cache.rglob("*.arff.gz"))
    whole = arff.read_bytes()
    for content, message in ((gzip.compress(b"other"), "checksum is wrong"), (whole[:-20], "is damaged"), (b"", "is damaged")):
        arff.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            data.mnist(str(openml_cache), source="openml", validation_size=20)
        assert arff.read_bytes() == content
    arff.unlink()
    with pytest.raises(
        ValueError, match=r"mnist_784.arff.gz is missing; pass download=True to fetch MNIST \(data set 554\) from openml.org"
    ):
        data.mnist(str(openml_cache), source="openml", validation_size=20)
    with pytest.raises(ValueError, match="data set 40996"):
        data.fashion_mnist(str(openml_cache), source="openml")


def test_digits_predict_from_a_picture_and_an_array(tmp_path: Path) -> None:
    """The encoder turns the user's file into exactly what training saw."""
    splits = data.digits()
    encoder = Encoder.from_dict(json.loads(json.dumps(splits.encoder.to_dict())))
    assert encoder == splits.encoder
    levels = (splits.test.x[0] * 255).round()
    Image.fromarray(levels.numpy().astype(np.uint8)).save(tmp_path / "digit.png")
    x, names = encoder.encode(tmp_path / "digit.png")
    assert torch.equal(x[0], levels / 255)
    assert names == ["digit.png"]
    np.savez(tmp_path / "some.npz", x=splits.test.x.numpy())
    x, names = encoder.encode(tmp_path / "some.npz")
    assert torch.equal(x, splits.test.x)
    assert names[:2] == ["row 0", "row 1"]
    np.savez(tmp_path / "bytes.npz", x=levels[None].numpy().astype(np.uint8))
    assert torch.equal(encoder.encode(tmp_path / "bytes.npz").x[0], levels / 255)
    np.savez(tmp_path / "loud.npz", x=splits.test.x.numpy() * 16)
    with pytest.raises(ValueError, match=r"x must be uint8 or lie in \[0, 1\]"):
        encoder.encode(tmp_path / "loud.npz")
    np.savez(tmp_path / "shape.npz", x=np.zeros((2, 9, 8)))
    with pytest.raises(ValueError, match=r"array 'x' must have shape \[n, 8, 8\], got \[2, 9, 8\]"):
        encoder.encode(tmp_path / "shape.npz")
