"""From text to the numbers of its tokens and back: characters, words, or the pieces of a tokenizer file."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import existing

UNKNOWN = "�"  # stands for characters that training did not have
UNKNOWN_WORD = "<unk>"
_PIECES = re.compile(r"\n|[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")  # a line break, a word, or a sign
_NO_SPACE_BEFORE = set(".,;:!?)]}'\n%")


class Tokenizer(ABC):
    """Text as tokens. ``vocabulary`` are the tokens in the order of their numbers; a record of JSON types rebuilds it without any file."""

    kind: ClassVar[str]
    vocabulary: tuple[str, ...]

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The numbers of the tokens, int64 [n]."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A record for :func:`tokenizer_from_dict`."""


class CharTokenizer(Tokenizer):
    """One token a character, those of the training text in the order of their code points; 0 is for all others.

    Args:
        characters: the distinct characters.
    """

    kind = "characters"

    def __init__(self, characters: Iterable[str]) -> None:
        found = sorted(set(characters) - {UNKNOWN})
        if not found or any(len(one) != 1 for one in found):
            raise ValueError(f"characters must be single characters, at least one, got {found[:5]}")
        self.vocabulary = (UNKNOWN, *found)
        self._codes = np.array([ord(one) for one in found], dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.where(self._codes[place] == codes, place + 1, 0)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.vocabulary[token] for token in tokens)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": "".join(self.vocabulary[1:])}


class WordTokenizer(Tokenizer):
    """Lower-case words, signs and line breaks; 0 is for words that are not in the list.

    Spaces are not kept: :meth:`decode` puts one between words.

    Args:
        words: the words in the order of their numbers, from 1 on.
    """

    kind = "words"

    def __init__(self, words: Sequence[str]) -> None:
        self.vocabulary = (UNKNOWN_WORD, *(word for word in words if word != UNKNOWN_WORD))
        self._number = {word: number for number, word in enumerate(self.vocabulary)}
        if len(self._number) != len(self.vocabulary):
            raise ValueError("words must be distinct")

    def pieces(self, text: str) -> list[str]:
        """Words, signs and line breaks, known or not."""
        return _PIECES.findall(text.lower())

    def encode(self, text: str) -> np.ndarray:
        return np.array([self._number.get(piece, 0) for piece in self.pieces(text)], dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        text = ""
        for word in (self.vocabulary[token] for token in tokens):
            text += word if not text or word[0] in _NO_SPACE_BEFORE or text[-1] == "\n" else f" {word}"
        return text

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": list(self.vocabulary[1:])}


class FileTokenizer(Tokenizer):
    """A tokenizer of the package ``tokenizers``.

    Args:
        record: its JSON text.
    """

    kind = "tokenizers"

    def __init__(self, record: str) -> None:
        from tokenizers import Tokenizer as Library

        try:
            self._library = Library.from_str(record)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"tokenizer is not a record of the package tokenizers: {' '.join(str(error).split())[:200]}") from None
        self._library.no_padding()
        self._library.no_truncation()
        self._record = record
        numbers = self._library.get_vocab(with_added_tokens=True)
        size = max(numbers.values(), default=-1) + 1
        words = [f"<{number}>" for number in range(size)]
        for word, number in numbers.items():
            words[number] = word
        if size < 2:
            raise ValueError(f"tokenizer must have at least two tokens, got {size}")
        self.vocabulary = tuple(words)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._library.decode(list(tokens), skip_special_tokens=False)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "record": self._record}

    @classmethod
    def from_file(cls, path: str | Path) -> FileTokenizer:
        """From a ``tokenizer.json``, a folder that holds one, or a list of word pieces, one a line, as BERT's ``vocab.txt``.

        Raises:
            ValueError: if it is none of these.
        """
        found = existing(path)
        if found.is_dir():
            inside = [found / name for name in ("tokenizer.json", "vocab.txt") if (found / name).is_file()]
            if not inside:
                raise ValueError(f"tokenizer folder {str(path)!r} must hold tokenizer.json or vocab.txt")
            found = inside[0]
        text = read_text(found)
        if found.suffix == ".json":
            return cls(text)
        return cls(_word_pieces(found, text.split("\n")))


def _word_pieces(path: Path, lines: list[str]) -> str:
    from tokenizers import BertWordPieceTokenizer

    words = lines[:-1] if lines and not lines[-1] else lines
    if "[UNK]" not in words:
        raise ValueError(f"{path} must be a tokenizer.json or a list of word pieces with [UNK] among them, one a line")
    number: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if word in number or not word:
            raise ValueError(f"{path}, line {line}: {word!r} is {'empty' if not word else 'there twice'}")
        number[word] = line - 1
    return BertWordPieceTokenizer(number, lowercase=True).to_str()


def tokenizer_from_dict(record: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that ``to_dict`` described.

    Raises:
        ValueError: if the record is of no known kind, or damaged.
    """
    try:
        if record["kind"] == CharTokenizer.kind:
            return CharTokenizer(record["characters"])
        if record["kind"] == WordTokenizer.kind:
            return WordTokenizer(record["words"])
        if record["kind"] == FileTokenizer.kind:
            return FileTokenizer(record["record"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"tokenizer record is damaged: {error!r}") from None
    raise ValueError(f"tokenizer record must be of kind characters, words or tokenizers, got {record['kind']!r}")


def read_text(path: Path) -> str:
    """A UTF-8 file as text with line breaks as ``\\n``.

    Raises:
        ValueError: naming the file, and the place of a byte that is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
