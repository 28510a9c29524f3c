"""Text that was tokenised once: ``.bin`` files of token numbers, which are mapped into memory, and the record of such a folder."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lmn_graph._files import replacing, write_text

from ._streams import BLOCK, Stream, StreamSplits
from ._text import TextEncoder
from ._tokenizers import FileTokenizer
from .base import Encoder, existing

TOKENS = "tokens.json"
FORMAT = 1
SPLITS = ("train", "validation", "test")
TYPES = ("uint16", "uint32")


def write_tokens(splits: StreamSplits, folder: str | Path) -> Path:
    """Write the tokens of three streams as ``train.bin``, ``validation.bin``, ``test.bin``, little-endian numbers and nothing else.

    ``tokens.json`` says what they are: the tokenizer with its vocabulary, and for every file how many tokens, where documents begin, how
    many characters and words, and a checksum. It is written last, so a folder that has it is whole.

    Raises:
        ValueError: if ``splits`` are not of text, or the folder holds something already.
    """
    if not isinstance(splits, StreamSplits) or not isinstance(splits.encoder, TextEncoder):
        raise ValueError(f"splits must be of text, got {type(splits).__name__} {getattr(splits, 'name', '')!r}")
    folder = Path(folder).expanduser()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"folder {str(folder)!r} must not exist or be empty")
        folder.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {"format": FORMAT, "name": splits.name, "encoder": splits.encoder.to_dict(), "splits": {}}
        kind = TYPES[splits.out_features > 2**16]
        for part in SPLITS:
            stream: Stream = getattr(splits, part)
            checksum = 0
            with replacing(folder / f"{part}.bin") as temporary, temporary.open("wb") as file:
                for first in range(0, len(stream), BLOCK):
                    block = stream.values[first : first + BLOCK].astype(np.dtype(kind).newbyteorder("<")).tobytes()
                    checksum = zlib.crc32(block, checksum)
                    file.write(block)
            record["splits"][part] = {
                "dtype": kind,
                "tokens": len(stream),
                "starts": stream.starts.tolist(),
                "characters": stream.characters,
                "words": stream.words,
                "crc32": checksum,
            }
        write_text(folder / TOKENS, json.dumps(record, ensure_ascii=False))
    except OSError as error:
        raise ValueError(f"folder {str(folder)!r} cannot be written: {error.strerror}") from None
    return folder


def tokens(
    path: str | Path, *, vocabulary: str | None = None, tokenizer: str | None = None, document_end: str | None = None
) -> StreamSplits:
    """The streams that ``write_tokens`` wrote, mapped into memory: nothing is read before a window asks for it, but once for a checksum.

    A folder of another program, ``train.bin`` and ``val.bin`` or ``validation.bin``, of little-endian token numbers and nothing else, needs
    its ``tokenizer``. Where it has no ``test.bin``, the second half of the validation is the test.

    Args:
        path: the folder.
        vocabulary: a run directory or another folder of tokens, whose vocabulary these must have; None for any.
        tokenizer: of files without ``tokens.json``: a ``tokenizer.json``, a folder with one, or a list of BERT's word pieces. Numbers have
            16 bits, or 32 where it has more than 65,536 tokens.
        document_end: of such files, the token that ends a document, such as "<|endoftext|>"; None for one document.

    Raises:
        ValueError: naming the file that is missing, damaged, or of another vocabulary; or the first token beyond the vocabulary.
    """
    folder = existing(path)
    if (folder / TOKENS).is_file():
        for name, value in (("tokenizer", tokenizer), ("document_end", document_end)):
            if value is not None:
                raise ValueError(f"{name} must be None for a folder with {TOKENS}, which says so itself, got {value!r}")
        splits = _recorded(folder)
    else:
        splits = _bare(folder, tokenizer, document_end)
    if vocabulary is not None:
        _compare(folder, splits.encoder, Path(vocabulary).expanduser())
    return splits


def _recorded(folder: Path) -> StreamSplits:
    try:
        record = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {record['format']!r}")
        encoder = Encoder.from_dict(record["encoder"])
        streams = [_stream(folder / f"{part}.bin", record["splits"][part]) for part in SPLITS]
    except OSError as error:
        raise ValueError(f"{folder / TOKENS} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / TOKENS} is damaged: {error!r}") from None
    return StreamSplits(record["name"], streams[0], streams[1], streams[2], encoder)


def _bare(folder: Path, tokenizer: str | None, document_end: str | None) -> StreamSplits:
    """Files of token numbers without a record."""
    if tokenizer is None:
        raise ValueError(f"tokenizer must name that of the .bin files in {folder}, which has no {TOKENS}, got None")
    made = FileTokenizer.from_file(tokenizer)
    end = None
    if document_end is not None:
        if document_end not in made.vocabulary:
            raise ValueError(f"document_end must be a token of {tokenizer}, got {document_end!r}")
        end = made.vocabulary.index(document_end)
    kind = np.dtype(TYPES[len(made.vocabulary) > 2**16]).newbyteorder("<")
    train = _numbers(folder / "train.bin", kind)
    validation = _numbers(
        next((path for path in (folder / "val.bin", folder / "validation.bin") if path.exists()), folder / "val.bin"), kind
    )
    if (folder / "test.bin").exists():
        test = _numbers(folder / "test.bin", kind)
    else:
        validation, test = np.split(validation, [len(validation) // 2])
    streams = [_counted(part, end, made if held else None) for part, held in ((train, False), (validation, True), (test, True))]
    return StreamSplits(folder.name, streams[0], streams[1], streams[2], TextEncoder.of(made))


def _numbers(file: Path, kind: np.dtype) -> np.ndarray:
    try:
        size = file.stat().st_size
        if size % kind.itemsize or size < 4 * kind.itemsize:
            raise ValueError(f"{file} must hold four numbers of {kind.itemsize} bytes at least, and nothing else, got {size} bytes")
        return np.memmap(file, dtype=kind, mode="r")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None


def _counted(values: np.ndarray, end: int | None, tokenizer: FileTokenizer | None) -> Stream:
    """A stream cut into documents; with a tokenizer, which must know all tokens, its characters and words."""
    starts = [np.zeros(1, dtype=np.int64)]
    characters = words = 0
    for first in range(0, len(values), BLOCK):
        block = values[first : first + BLOCK]
        if end is not None:
            starts.append(first + 1 + np.flatnonzero(block == end))
        if tokenizer is not None:
            known = block[block < len(tokenizer.vocabulary)]  # what is beyond is refused by the splits, which name its place
            text = tokenizer.decode(known[known != end].tolist() if end is not None else known.tolist())
            characters, words = characters + len(text), words + len(text.split())
    found = np.unique(np.concatenate(starts))
    return Stream(values, found[found < len(values)], characters, words)


def _stream(file: Path, said: dict[str, Any]) -> Stream:
    if said["dtype"] not in TYPES:
        raise ValueError(f"{file}: dtype must be one of {', '.join(TYPES)}, got {said['dtype']!r}")
    kind = np.dtype(said["dtype"]).newbyteorder("<")
    try:
        size = file.stat().st_size
        if size != said["tokens"] * kind.itemsize:
            raise ValueError(f"{file} is damaged: it must have {said['tokens'] * kind.itemsize} bytes, got {size}")
        values = np.memmap(file, dtype=kind, mode="r")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    checksum = 0
    for first in range(0, len(values), BLOCK):
        checksum = zlib.crc32(values[first : first + BLOCK].tobytes(), checksum)
    if checksum != said["crc32"]:
        raise ValueError(f"{file} is damaged: its checksum is not that of {TOKENS}")
    return Stream(values, np.array(said["starts"], dtype=np.int64), said["characters"], said["words"])


def _compare(folder: Path, encoder: Encoder, other: Path) -> None:
    """A ValueError where the vocabulary of a folder is not that of a run or of another folder."""
    name = next((name for name in ("run.json", TOKENS) if (other / name).is_file()), None)
    if name is None:
        raise ValueError(f"vocabulary must be a run directory or a folder of tokens, got {str(other)!r}")
    expected = Encoder.from_dict(json.loads((other / name).read_text(encoding="utf-8"))["encoder"])
    one, wanted = encoder.target.classes or (), expected.target.classes or ()
    for number, (word, meant) in enumerate(zip(one, wanted)):
        if word != meant:
            raise ValueError(f"{folder}: the vocabulary must be that of {other}, but token {number} is {word!r}, not {meant!r}")
    if len(one) != len(wanted):
        raise ValueError(f"{folder}: the vocabulary must be that of {other}, of {len(wanted)} tokens, got {len(one)}")
