"""Files of a publisher: fetched on request, taken up again where a connection broke, unpacked, and in place only when they are whole."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.client
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

TIMEOUT = 60  # seconds without a byte
BLOCK = 1 << 20


def download(url: str, path: Path, *, what: str, check: Callable[[Path], None], size: int | None = None) -> Path:
    """``url`` as the file ``path``.

    What arrives goes to ``path`` with ".part" appended, is checked and then renamed; a later call takes a part up where it ends. A server
    that cannot do that sends everything once more.

    Args:
        url: http or https.
        path: the file; folders on the way to it are made.
        what: name of the data, for messages.
        check: raises ValueError for a file that is not the publisher's; it is deleted then.
        size: its bytes, where they are known.

    Raises:
        ValueError: if it cannot be fetched or written, or is not what was expected.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _complete(url, part, what, size)
        try:
            if size is not None and part.stat().st_size != size:
                raise ValueError(f"{part.stat().st_size} bytes, {size} were expected")
            check(part)
        except ValueError as error:
            part.unlink()
            raise ValueError(f"{what} from {url} is damaged ({error}); nothing of it is kept, so try again") from error
        part.replace(path)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{what} cannot be had from {url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"{what} cannot be had from {url} as {path}: {error!r}") from error
    return path


def check_sha256(digest: str) -> Callable[[Path], None]:
    """A check that a file has this SHA-256."""

    def _check(path: Path) -> None:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise ValueError(f"SHA-256 {found}, {digest} was expected")

    return _check


def check_md5(digest: str) -> Callable[[Path], None]:
    """A check that a file has this MD5, for publishers who give no better one."""

    def _check(path: Path) -> None:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != digest:
            raise ValueError(f"MD5 {found}, {digest} was expected")

    return _check


def check_zip(path: Path) -> None:
    """Refuse what is no whole .zip: its own checksums say so."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"not a whole .zip: {error}") from error
    if bad is not None:
        raise ValueError(f"the checksum of {bad} in it is wrong")


def unpack(archive: Path, folder: Path) -> Path:
    """The folder called ``folder.name`` in a .zip or .tar.gz as ``folder``; if that is there, nothing is done.

    Members go to a hidden folder beside it that is renamed in the end; a later call goes on with those that are not in it yet.

    Raises:
        ValueError: if the archive is damaged, has no such folder, holds a path that leads out of it, or cannot be written to the disk.
    """
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}.part")
    temporary = part / f".unpacking-{os.getpid()}"
    try:
        for name, size, content in _members(archive):
            way = PurePosixPath(name)
            if not way.parts or way.is_absolute() or ".." in way.parts or "\\" in name or ":" in way.parts[0]:
                raise ValueError(f"{archive} holds {name!r}, which leads out of it: it is not the publisher's")
            target = part.joinpath(*way.parts[1:])
            if way.parts[0] != folder.name or len(way.parts) < 2 or (target.is_file() and target.stat().st_size == size):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with content() as source, open(temporary, "wb") as file:
                shutil.copyfileobj(source, file)
            temporary.replace(target)
        if not part.is_dir():
            raise ValueError(f"{archive} holds nothing in a folder {folder.name}")
        for left in part.glob(".unpacking-*"):
            left.unlink()
        part.rename(folder)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ValueError(f"{archive} is damaged ({error}): delete it to fetch it once more") from error
    except OSError as error:
        if folder.is_dir():  # another process was first
            shutil.rmtree(part, ignore_errors=True)
            return folder
        raise ValueError(f"{archive} cannot be unpacked as {folder}: {error}; what is there is kept, so try again to go on") from error
    return folder


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """(name, size, how to open it) of every file; links and the like are passed over. Checksums are checked in reading to the end."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as members:
            for info in members.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, functools.partial(members.open, info)
        return
    with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as stream:
        for member in stream:
            if member.isreg():
                yield member.name, member.size, functools.partial(_content, stream, member)
        while packed.read(BLOCK):
            pass  # to the checksum at the end


def _content(stream: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = stream.extractfile(member)
    assert source is not None, "only links and folders have none"
    return source


def _complete(url: str, part: Path, what: str, size: int | None) -> None:
    """Receive until everything is there, as long as every connection brings something."""
    while True:
        before = _length(part)
        total = _receive(url, part, what, size)
        if total is None or _length(part) >= total:
            return
        if _length(part) <= before:
            raise ValueError(
                f"{what}: the connection to {url} broke after {_length(part)} of {total} bytes; they are kept, so try again to go on"
            )


def _receive(url: str, part: Path, what: str, size: int | None) -> int | None:
    """One connection, appended to ``part``: the bytes that the whole has by the server's account, if it gives one."""
    have = _length(part)
    agent = {"User-Agent": "lmn-graph"}
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=agent | ({"Range": f"bytes={have}-"} if have else {})), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if not have or error.code >= 500:
            raise
        if error.code == 416 and error.headers.get("Content-Range", "") == f"bytes */{have}":
            return have  # it was whole already
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=agent), timeout=TIMEOUT)
    with answer:
        going_on = answer.status == 206 and re.match(rf"bytes {have}-\d+/(\d+|\*)$", answer.headers.get("Content-Range", ""))
        if answer.status == 206 and not going_on:
            raise ValueError(f"{what}: {url} sends {answer.headers.get('Content-Range')!r}, bytes from {have} on were asked for")
        start = have if going_on else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if total is not None and size is not None and total != size:
            raise ValueError(f"{what}: {url} has {total} bytes, {size} were expected")
        with open(part, "ab" if going_on else "wb") as file:
            try:
                while block := answer.read(BLOCK):
                    file.write(block)
            except (http.client.IncompleteRead, ConnectionError, TimeoutError):
                # The bytes so far count; without a length given, the end is not known, but it was not reached.
                return _length(part) + 1 if total is None else total
    return total


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
