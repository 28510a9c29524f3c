"""Downloads from a server on this machine that breaks off, knows no ranges, or has something else: whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lmn_graph.data import _download
from lmn_graph.data._download import check_md5, check_sha256, check_zip, download, unpack

CONTENT = np.random.default_rng(0).bytes(300_000)
CHECK = check_sha256(hashlib.sha256(CONTENT).hexdigest())


class Server:
    """Serves one content; what it was asked for is in ``asked``, the ranges that came ("" for none)."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.ranges = True
        self.lengths = True
        self.cuts: list[int] = []  # after how many bytes the next connections break
        self.status: list[int] = []  # what the next ones answer instead
        self.offset = 0  # by which ranges are off
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            if state.status:
                self.send_error(state.status.pop(0))
                return
            start, total = 0, len(state.content)
            if asked and state.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + state.offset  # type: ignore[index]
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            if state.lengths:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            end = start + state.cuts.pop(0) if state.cuts else total
            self.wfile.write(state.content[start:end])

        def log_message(self, *_: object) -> None:
            pass

    with ExitStack() as stack:
        running = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running.serve_forever, daemon=True).start()
        stack.callback(running.shutdown)
        state.url = f"http://127.0.0.1:{running.server_port}/file"
        yield state


def _fetch(server: Server, path: Path, check: Callable[[Path], None] = CHECK, size: int | None = None) -> Path:
    return download(server.url, path, what="Numbers", check=check, size=size)


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_is_fetched_checked_and_put_in_place(server: Server, tmp_path: Path, lengths: bool) -> None:
    server.lengths = lengths
    path = _fetch(server, tmp_path / "new" / "file.gz", size=len(CONTENT))
    assert path == tmp_path / "new" / "file.gz"
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["file.gz"]
    assert server.asked == [""]


def test_a_cut_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte crosses the wire once, within a call and from one call to the next."""
    monkeypatch.setattr(_download, "BLOCK", 1000)
    server.cuts = [100_000, 50_000]
    assert _fetch(server, tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-", "bytes=150000-"]

    server.asked, server.cuts = [], [70_000, 0]
    with pytest.raises(
        ValueError, match=r"Numbers: the connection to http.* broke after 70000 of 300000 bytes; they are kept, so try again"
    ):
        _fetch(server, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert _fetch(server, tmp_path / "b").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=70000-", "bytes=70000-"]
    assert not (tmp_path / "b.part").exists()


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    """One that ignores them, and one that refuses them."""
    server.ranges = False
    server.cuts = [100_000]
    assert _fetch(server, tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-"]
    (tmp_path / "b.part").write_bytes(CONTENT[:9])
    server.status = [403]
    assert _fetch(server, tmp_path / "b").read_bytes() == CONTENT
    assert server.asked[2:] == ["bytes=9-", ""]


def test_a_part_that_was_whole_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """Interrupted between the last byte and the check; and a part that is longer than the file begins again."""
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert _fetch(server, tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]
    (tmp_path / "b.part").write_bytes(CONTENT + b"more")
    assert _fetch(server, tmp_path / "b").read_bytes() == CONTENT
    assert server.asked[1:] == ["bytes=300004-", ""]


def test_what_is_damaged_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match=r"Numbers from http.* is damaged \(SHA-256 [0-9a-f]{64}, [0-9a-f]{64} was expected\); nothing"):
        _fetch(server, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.part").write_bytes(b"0" * 1000)  # of another file
    server.content = CONTENT
    with pytest.raises(ValueError, match="is damaged"):
        _fetch(server, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_refused(server: Server, tmp_path: Path) -> None:
    """Before anything is received where the server says so, else after."""
    with pytest.raises(ValueError, match="has 300000 bytes, 299999 were expected"):
        _fetch(server, tmp_path / "a", size=299_999)
    assert list(tmp_path.iterdir()) == []
    server.lengths = False
    with pytest.raises(ValueError, match=r"is damaged \(300000 bytes, 299999 were expected\)"):
        _fetch(server, tmp_path / "a", size=299_999)
    assert list(tmp_path.iterdir()) == []


def test_servers_that_fail(server: Server, tmp_path: Path) -> None:
    server.status = [404]
    with pytest.raises(ValueError, match=r"Numbers cannot be had from http.*: the server answers 404"):
        _fetch(server, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    server.status = [503]
    with pytest.raises(ValueError, match="the server answers 503"):
        _fetch(server, tmp_path / "a")
    assert (tmp_path / "a.part").read_bytes() == CONTENT[:1000], "a server that is down takes nothing away"
    server.offset = 5
    with pytest.raises(ValueError, match="sends 'bytes 1005-299999/300000', bytes from 1000 on were asked for"):
        _fetch(server, tmp_path / "a")
    with pytest.raises(ValueError, match=r"Numbers cannot be had from http://127.0.0.1:9/none as .*a: "):
        download("http://127.0.0.1:9/none", tmp_path / "a", what="Numbers", check=check_zip)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Numbers cannot be had"):
        _fetch(server, tmp_path / "file" / "a")


def test_archives_are_checked_by_their_own_sums(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("numbers.txt", CONTENT)
    whole = packed.getvalue()
    server.content = whole
    assert _fetch(server, tmp_path / "a.zip", check_zip).read_bytes() == whole
    for content in (whole[:-100], whole[:200_000] + b"xyz" + whole[200_003:], b""):
        server.content, server.lengths = content, False
        with pytest.raises(ValueError, match="is damaged"):
            _fetch(server, tmp_path / "b.zip", check_zip)
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


def _archive(path: Path, files: dict[str, bytes]) -> Path:
    """A .zip or an uncompressed .tar.gz."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        return path
    with gzip.open(path, "wb", compresslevel=0) as stream, tarfile.open(fileobj=stream, mode="w") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


FILES = {"set/a/1.bin": CONTENT[:5000], "set/a/2.bin": CONTENT[5000:9000], "./set/b.bin": b"", "other/c.bin": b"c"}


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_one_folder_of_an_archive_is_unpacked(tmp_path: Path, name: str) -> None:
    """What is beside it in the archive is not; a folder that is there is left as it is."""
    archive = _archive(tmp_path / name, FILES)
    folder = unpack(archive, tmp_path / "set")
    found = {f"set/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name.removeprefix("./"): content for name, content in FILES.items() if "set/" in name}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["set", name])
    (folder / "b.bin").write_bytes(b"mine")
    assert unpack(archive, folder).joinpath("b.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_nothing_is_kept_of_a_damaged_archive(tmp_path: Path, name: str) -> None:
    """Cut off, or with a byte that is another one and only the checksum tells."""
    archive = _archive(tmp_path / name, FILES)
    whole = archive.read_bytes()
    place = whole.index(CONTENT[5000:5100]) + 50
    for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], b"", b"no archive"):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\): delete it to fetch it once more"):
            unpack(archive, tmp_path / "set")
        assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
@pytest.mark.parametrize("member", ["../x", "/x", "set/../../x", "set\\..\\x", "C:/x"])
def test_no_member_leaves_the_folder(tmp_path: Path, name: str, member: str) -> None:
    (tmp_path / "in").mkdir()
    archive = _archive(tmp_path / "in" / name, {**FILES, member: b"x"})
    with pytest.raises(ValueError, match="which leads out of it: it is not the publisher's"):
        unpack(archive, tmp_path / "in" / "set")
    assert not (tmp_path / "in" / "set").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith("x")]


def test_an_older_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    check_md5(hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())(tmp_path / "a")
    with pytest.raises(ValueError, match=r"MD5 [0-9a-f]{32}, 0 was expected"):
        check_md5("0")(tmp_path / "a")
