"""Plain text as streams of tokens: a file, or a folder of files, each a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lmn_graph.registry import did_you_mean
from topologies import _checks

from ._streams import Stream, StreamSplits
from ._target import Target
from ._tokenizers import CharTokenizer, FileTokenizer, Tokenizer, WordTokenizer, read_text, tokenizer_from_dict
from .base import ENCODERS, Encoder, Inputs, existing


class Document(NamedTuple):
    """A piece of text and what it is called in messages."""

    name: str
    text: str


def text(
    path: str | Path,
    *,
    tokenizer: str = "characters",
    words: int = 20_000,
    separator: str | None = None,
    hold_out: str | None = None,
    validation_fraction: float = 0.05,
    test_fraction: float = 0.05,
) -> StreamSplits:
    """Plain text to predict token by token: a UTF-8 file, or a folder of ``.txt`` files, each a document.

    The last part of every document is for validation and test, or with ``hold_out`` whole documents are for the test. Characters and
    words are those of the training part.

    Args:
        path: the file or folder.
        tokenizer: "characters"; "words", the most frequent of the training part; or a file: a ``tokenizer.json``, a folder with one, a list
            of BERT's word pieces, or vectors in the text form of GloVe, whose words are taken.
        words: with "words" or GloVe's vectors, how many at most.
        separator: a line that ends a document, such as "<|endoftext|>"; None for one document a file.
        hold_out: names of files without their ending, with commas between them, that are the test.
        validation_fraction: share of the characters of every document that is for training, its last ones, in (0, 0.9].
        test_fraction: the same for the test, without ``hold_out``.

    Raises:
        ValueError: naming the argument, or the file and what is wrong with it.
    """
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    _checks.number("test_fraction", test_fraction, above=0, maximum=0.9)
    _checks.integer("words", words, minimum=1)
    found = existing(path)
    documents = read_documents(found, separator)
    held = [] if hold_out is None else _held_out(found, documents, hold_out)
    kept = [document for document in documents if document not in held]
    train, rest = _cut(kept, validation_fraction if held else validation_fraction + (1 - validation_fraction) * test_fraction)
    if held:
        validation, test = rest, held
    else:
        validation, test = _cut(rest, test_fraction / (validation_fraction + test_fraction))
    made = _tokenizer(tokenizer, [document.text for document in train], words)
    parts = [tokenized(made, part, name) for part, name in ((train, "training"), (validation, "validation"), (test, "test"))]
    return StreamSplits(found.name, parts[0], parts[1], parts[2], TextEncoder.of(made))


def read_documents(path: Path, separator: str | None = None) -> list[Document]:
    """The documents of a text file, or of all ``.txt`` files of a folder in the order of their names.

    Raises:
        ValueError: if there is none, one is empty, or a file is not UTF-8.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"folder {str(path)!r} must hold .txt files, got none")
    found = []
    for file in files:
        content = read_text(file)
        pieces = [content] if separator is None else _separated(file, content, separator)
        if not content.strip():
            raise ValueError(f"{file} is an empty document")
        found += [Document(file.stem if len(pieces) == 1 else f"{file.stem} {number}", piece) for number, piece in enumerate(pieces, 1)]
    return found


def _separated(file: Path, content: str, separator: str) -> list[str]:
    if not separator.strip():
        raise ValueError(f"separator must be a line that is not blank, got {separator!r}")
    pieces: list[list[str]] = [[]]
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip() != separator:
            pieces[-1].append(line)
            continue
        if not "".join(pieces[-1]).strip():
            raise ValueError(f"{file}, line {number}: the document that ends here is empty")
        pieces.append([])
    if not "".join(pieces[-1]).strip():
        pieces.pop()
    return ["\n".join(piece) for piece in pieces]


def _held_out(path: Path, documents: list[Document], names: str) -> list[Document]:
    known = {document.name: document for document in documents}
    held = []
    for name in names.split(","):
        if name not in known:
            raise ValueError(f"hold_out must name files of {path} without their ending, got {name!r}{did_you_mean(name, list(known))}")
        held.append(known[name])
    if len(held) >= len(documents):
        raise ValueError(f"hold_out must leave a document to train on, got all {len(documents)}")
    return held


def _cut(documents: Sequence[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """The first part of every document and the last, ``fraction`` of its characters; a document of one character is not cut."""
    first, last = [], []
    for name, content in documents:
        place = min(max(1, round(len(content) * (1 - fraction))), len(content) - 1) if len(content) > 1 else 1
        first.append(Document(name, content[:place]))
        if content[place:]:
            last.append(Document(name, content[place:]))
    return first, last


def _tokenizer(spec: str, texts: Sequence[str], words: int) -> Tokenizer:
    if not isinstance(spec, str) or not spec:
        raise ValueError(f"tokenizer must be 'characters', 'words' or the name of a file, got {spec!r}")
    if spec == "characters":
        return CharTokenizer(set().union(*texts))
    if spec == "words":
        from collections import Counter

        everything = WordTokenizer(())
        counts = Counter(piece for content in texts for piece in everything.pieces(content))
        return WordTokenizer([word for word, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:words]])
    if not Path(spec).expanduser().exists():
        raise ValueError(f"tokenizer must be 'characters', 'words' or a file or folder that exists, got {spec!r}")
    if (first := _first_line(Path(spec).expanduser())) is not None and len(first.split(" ")) > 2:
        from lmn_graph._vectors import read_words

        return WordTokenizer([*dict.fromkeys(["\n", *read_words(spec, words)])])
    return FileTokenizer.from_file(spec)


def _first_line(path: Path) -> str | None:
    """Of a file that is no JSON."""
    if path.is_dir() or path.suffix == ".json":
        return None
    with path.open("rb") as file:
        return file.readline(1 << 16).decode("utf-8", "replace")


def tokenized(tokenizer: Tokenizer, documents: Sequence[Document], what: str) -> Stream:
    """The documents one after the other.

    Raises:
        ValueError: if a document has no token, or all of them fewer than two.
    """
    pieces, starts, count = [], [], 0
    for name, content in documents:
        tokens = tokenizer.encode(content)
        if not len(tokens):
            raise ValueError(f"document {name!r} is empty: it holds no token")
        starts.append(count)
        count += len(tokens)
        pieces.append(tokens)
    if count < 2:
        raise ValueError(f"the {what} part must hold at least two tokens, got {count}: take a longer text or larger fractions")
    values = np.concatenate(pieces).astype(np.uint16 if len(tokenizer.vocabulary) <= 2**16 else np.uint32)
    contents = [document.text for document in documents]
    return Stream(values, np.array(starts), sum(map(len, contents)), sum(len(content.split()) for content in contents))


@ENCODERS.register(name="text")
@dataclass(frozen=True)
class TextEncoder(Encoder):
    """Tokens of text.

    Args:
        target: the next token, one of the vocabulary.
        tokenizer: its record.
    """

    tokenizer: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "text"
    accepts: ClassVar[str] = "a prompt: lmn generate continues text"

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TextEncoder:
        """Of a tokenizer."""
        return cls(Target.classification("token", tokenizer.vocabulary), tokenizer.to_dict())

    @cached_property
    def tokens(self) -> Tokenizer:
        """What turns text into tokens and back."""
        return tokenizer_from_dict(self.tokenizer)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (1,)

    def encode(self, path: str | Path) -> Inputs:
        raise ValueError(f"path {str(path)!r} cannot be predicted row by row by a run on text: lmn generate continues text")

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> TextEncoder:
        tokenizer = tokenizer_from_dict(fields["tokenizer"])
        if tokenizer.vocabulary != fields["target"].classes:
            raise ValueError("the vocabulary of the target is not that of the tokenizer")
        return cls(fields["target"], fields["tokenizer"])
