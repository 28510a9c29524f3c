"""Corpora of short texts as their publishers ship them: TinyStories and BabyLM, from plain text or through Hugging Face ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lmn_graph._files import replacing
from topologies import _checks

from ._streams import StreamSplits
from ._text import Document, TextEncoder, _separated, _tokenizer, tokenized
from ._tokenizers import CharTokenizer, read_text
from .base import DATASETS, MissingData

SEPARATOR = "<|endoftext|>"
_WORDS = "the a girl boy dog cat saw found said mother tree happy sad big red ball ran sat with and in on one".split()  # noqa: SIM905


@DATASETS.register
def tinystories(
    root: str = "data",
    *,
    tokenizer: str = "characters",
    words: int = 20_000,
    documents: int | None = None,
    validation_fraction: float = 0.02,
    download: bool = False,
    source: str = "roneneldan/TinyStories",
) -> StreamSplits:
    """TinyStories: short stories in the words of a small child. The publisher's validation file is the test; the last stories of the
    training file are for validation.

    Args:
        root: folder that holds ``TinyStories-train.txt`` and ``TinyStories-valid.txt``, or their V2-GPT4 forms, stories with a line
            ``<|endoftext|>`` between them.
        tokenizer: "characters", "words" or a file, as that of ``text``.
        words: with "words" or vectors, how many at most.
        documents: the first so many stories of each file only; None for all.
        validation_fraction: share of the training stories, the last ones, in (0, 0.9].
        download: fetch the files through ``datasets``, streamed, and keep them in ``root``; at most ``documents`` of each.
        source: the dataset's name there, or a folder that ``datasets`` can read.

    Raises:
        MissingData: if the files are not there.
        ValueError: naming the file and what is wrong with it.

    Source: R. Eldan, Y. Li, "TinyStories: how small can language models be and still speak coherent English?", 2023.
    """
    _checks.number("validation_fraction", validation_fraction, above=0, maximum=0.9)
    folder = Path(root).expanduser()
    files = [_present(folder, (f"TinyStories-{part}.txt", f"TinyStoriesV2-GPT4-{part}.txt")) for part in ("train", "valid")]
    if download and None in files:
        for part, split in (("train", "train"), ("valid", "validation")):
            if _present(folder, (f"TinyStories-{part}.txt",)) is None:
                _fetch("tinystories", source, split, folder / f"TinyStories-{part}.txt", documents, f"{SEPARATOR}\n")
        files = [folder / f"TinyStories-{part}.txt" for part in ("train", "valid")]
    if files[0] is None or files[1] is None:
        raise MissingData(
            f"tinystories: {folder} must hold TinyStories-train.txt and TinyStories-valid.txt; get them with download=True, or from "
            "https://huggingface.co/datasets/roneneldan/TinyStories"
        )
    train, test = (_documents(file, documents) for file in files if file is not None)
    count = max(1, round(len(train) * validation_fraction))
    if count >= len(train):
        raise ValueError(f"{files[0]} must hold at least two stories, got {len(train)}")
    return _splits("tinystories", train[:-count], train[-count:], test, tokenizer, words)


@DATASETS.register
def babylm(
    root: str = "data",
    *,
    tokenizer: str = "characters",
    words: int = 20_000,
    documents: int | None = None,
    download: bool = False,
    source: str = "nilq/babylm-10M",
) -> StreamSplits:
    """BabyLM: what a child hears and reads in ten million words; a file of the publisher is a document.

    Args:
        root: folder with the publisher's ``*.train``, ``*.dev`` and ``*.test`` files, there or in folders ``train_10M``, ``dev``, ``test``.
        tokenizer: "characters", "words" or a file, as that of ``text``.
        words: with "words" or vectors, how many at most.
        documents: the first so many files of each part only; None for all.
        download: fetch the lines through ``datasets``, streamed, and keep them in ``root`` as one file of each part.
        source: the dataset's name there, or a folder that ``datasets`` can read, with the splits train, validation and test.

    Raises:
        MissingData: if the files are not there.
        ValueError: naming the file and what is wrong with it.

    Source: A. Warstadt et al., "Findings of the BabyLM challenge", 2023.
    """
    folder, found = Path(root).expanduser(), []
    for part, split in (("train", "train"), ("dev", "validation"), ("test", "test")) if download else ():
        if not any(folder.rglob(f"*.{part}")):
            _fetch("babylm", source, split, folder / f"babylm.{part}", None, "")
    for part, places in (
        ("train", ("train_10M", "babylm_10M", "")),
        ("dev", ("dev", "babylm_dev", "")),
        ("test", ("test", "babylm_test", "")),
    ):
        files = next((files for place in places if (files := sorted((folder / place).glob(f"*.{part}")))), [])
        if not files:
            raise MissingData(f"babylm: {folder} must hold *.train, *.dev and *.test files; get them from https://babylm.github.io")
        found.append([Document(file.name, _not_empty(file)) for file in files[:documents]])
    return _splits("babylm", found[0], found[1], found[2], tokenizer, words)


def _not_empty(file: Path) -> str:
    content = read_text(file)
    if not content.strip():
        raise ValueError(f"{file} is an empty document")
    return content


def _present(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _documents(file: Path, count: int | None) -> list[Document]:
    if count is not None:
        _checks.integer("documents", count, minimum=1)
    pieces = _separated(file, read_text(file), SEPARATOR)[:count]
    if not pieces:
        raise ValueError(f"{file} is an empty document")
    return [Document(f"{file.stem} {number}", piece.strip("\n") + "\n") for number, piece in enumerate(pieces, 1)]


def _splits(name: str, train: Any, validation: Any, test: Any, tokenizer: str, words: int) -> StreamSplits:
    _checks.integer("words", words, minimum=1)
    made = _tokenizer(tokenizer, [document.text for document in train], words)
    parts = [tokenized(made, part, what) for part, what in ((train, "training"), (validation, "validation"), (test, "test"))]
    return StreamSplits(name, parts[0], parts[1], parts[2], TextEncoder.of(made))


def _fetch(name: str, source: str, split: str, file: Path, count: int | None, end: str) -> None:
    """The texts of a split, one by one as they come, each with ``end`` behind it, as a file that is there whole or not at all."""
    from datasets import load_dataset

    try:
        rows: Iterator[dict[str, Any]] = iter(load_dataset(source, split=split, streaming=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as out:
            for number, row in enumerate(rows):
                if number == count:
                    break
                out.write(f"{str(row['text']).strip()}\n{end}")
    except (OSError, ConnectionError, KeyError, ValueError) as error:
        raise MissingData(f"{name}: {source} cannot be fetched: {' '.join(str(error).split())[:300]}") from None


def _specimen(name: str, options: dict[str, Any]) -> StreamSplits:
    """Sentences of made-up words in characters, whatever the tokenizer: enough to see that everything runs."""
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(_WORDS, 8)) + ".\n" for _ in range(900)]
    made = CharTokenizer("".join(lines))
    parts = [[Document(str(number), line) for number, line in enumerate(lines[first : first + 300])] for first in (0, 300, 600)]
    train, validation, test = (tokenized(made, part, "made-up") for part in parts)
    return StreamSplits(f"{name} (specimen: made up for --smoke)", train, validation, test, TextEncoder.of(made))


def _with_specimen(dataset: Callable[..., StreamSplits]) -> None:
    dataset.specimen = _specimen  # type: ignore[attr-defined]


_with_specimen(tinystories)
_with_specimen(babylm)
