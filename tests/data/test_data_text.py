"""Text becomes tokens and text again, split where it should be, and is told apart from what is no text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmn_graph import data
from lmn_graph.cli import main
from lmn_graph.data._tokenizers import CharTokenizer, FileTokenizer, WordTokenizer, tokenizer_from_dict

TEXT = "The cat sat.\nThe dog, it ran!\n" * 20


@pytest.fixture
def novels(tmp_path):
    """Three documents of different characters."""
    folder = tmp_path / "novels"
    folder.mkdir()
    for name, content in {"a": TEXT, "b": "Red and blue; blue and red.\n" * 30, "c": "Zebra cat sat é.\n" * 10}.items():
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
    return folder


@given(st.text(min_size=1), st.text())
def test_characters_come_back(known, other):
    """What was known is kept, all else is one sign; the record alone rebuilds the tokenizer."""
    made = CharTokenizer(known) if set(known) - {"�"} else CharTokenizer("a")
    made = tokenizer_from_dict(json.loads(json.dumps(made.to_dict())))
    text = known + other
    expected = "".join(one if one in made.vocabulary[1:] else "�" for one in text)
    tokens = made.encode(text)
    assert made.decode(tokens.tolist()) == expected
    assert len(tokens) == len(text)
    assert [made.vocabulary[token] for token in tokens] == list(expected)


def test_words_signs_and_line_breaks():
    made = WordTokenizer(["the", "cat", ",", "\n", "don't"])
    tokens = made.encode("The cat, DON'T\nsee")
    assert [made.vocabulary[token] for token in tokens] == ["the", "cat", ",", "don't", "\n", "<unk>"]
    assert made.decode(tokens.tolist()) == "the cat, don't\n<unk>"
    assert tokenizer_from_dict(made.to_dict()).vocabulary == made.vocabulary


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##believ", "##able", "cat", ",", "the"]


def test_word_pieces_are_those_of_the_library(tmp_path):
    """A list of pieces and a tokenizer.json, in a folder or not; no special tokens are added."""
    from tokenizers import BertWordPieceTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    library = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    text = "The unbelievable Cat, xyz"
    expected = library.encode(text, add_special_tokens=False).ids
    assert expected == [10, 5, 6, 7, 8, 9, 1]
    library.save(str(tmp_path / "tokenizer.json"))
    for place in (tmp_path / "vocab.txt", tmp_path / "tokenizer.json", tmp_path):
        made = FileTokenizer.from_file(place)
        assert made.encode(text).tolist() == expected
        assert list(made.vocabulary) == PIECES
        again = tokenizer_from_dict(json.loads(json.dumps(made.to_dict())))
        assert again.encode(text).tolist() == expected


def test_the_last_part_of_every_document_is_held_back(novels):
    """Training, validation and test are each document's text in order; characters and words are counted; the vocabulary is training's."""
    splits = data.load(novels, validation_fraction=0.2, test_fraction=0.25)
    tokenizer = splits.encoder.tokens
    parts = {part: getattr(splits, part) for part in ("train", "validation", "test")}
    pieces = {}
    for part, stream in parts.items():
        ends = [*stream.starts[1:], len(stream)]
        pieces[part] = [tokenizer.decode(stream.values[start:end].tolist()) for start, end in zip(stream.starts, ends)]
        assert stream.characters == sum(map(len, pieces[part]))
    for number, name in enumerate("abc"):
        whole = (novels / f"{name}.txt").read_text(encoding="utf-8")
        assert pieces["train"][number] + pieces["validation"][number] + pieces["test"][number] == whole
        assert len(pieces["train"][number]) == pytest.approx(0.6 * len(whole), abs=2)
    assert set(tokenizer.vocabulary[1:]) == set("".join(pieces["train"]))
    assert splits.out_features == len(tokenizer.vocabulary)
    assert data.Encoder.from_dict(splits.encoder.to_dict()) == splits.encoder


def test_a_document_can_be_held_out(novels):
    splits = data.load(novels, hold_out="c")
    tokenizer = splits.encoder.tokens
    assert tokenizer.decode(splits.test.values.tolist()) == "Z�bra cat sat é.\n".replace("Z�bra", "�ebra").replace("é", "�") * 10
    assert splits.test.characters == len("Zebra cat sat é.\n") * 10
    assert splits.test.words == 40
    assert len(splits.train.starts) == 2


def test_a_separator_ends_documents(tmp_path):
    (tmp_path / "s.txt").write_text("One two.\n<|end|>\nThree four.\n<|end|>\n", encoding="utf-8")
    splits = data.load(tmp_path / "s.txt", separator="<|end|>", validation_fraction=0.3, test_fraction=0.3)
    assert len(splits.train.starts) == 2
    assert "<" not in splits.encoder.tokens.vocabulary


@pytest.mark.parametrize("tokenizer", ["characters", "words", "vectors"])
def test_tokens_in_files_are_the_same_tokens(novels, tmp_path, tokenizer, capsys):
    """Mapped into memory, with their vocabulary, and told from another vocabulary."""
    (tmp_path / "glove.txt").write_text("the 1 2 3\ncat 0 1 0\nblue 5 5 5\n", encoding="utf-8")
    options = {"tokenizer": str(tmp_path / "glove.txt") if tokenizer == "vectors" else tokenizer}
    splits = data.load(novels, **options)
    arguments = [f"--tokenizer={options['tokenizer']}"]
    assert main(["tokenize", str(novels), "--out", str(tmp_path / "made"), *arguments]) == 0
    assert "reads them" in capsys.readouterr().out
    found = data.load(tmp_path / "made")
    for part in ("train", "validation", "test"):
        one, other = getattr(splits, part), getattr(found, part)
        assert isinstance(other.values, np.memmap)
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.starts, other.starts)
        assert (one.characters, one.words) == (other.characters, other.words)
    assert found.digest() == splits.digest()
    data.tokens(tmp_path / "made", vocabulary=str(tmp_path / "made"))
    data.write_tokens(data.load(novels, words=2, tokenizer="words"), tmp_path / "other")
    with pytest.raises(ValueError, match=r"the vocabulary must be that of .*other"):
        data.tokens(tmp_path / "made", vocabulary=str(tmp_path / "other"))


def damage(folder, what):
    if what == "short":
        (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-1])
    elif what == "changed":
        content = bytearray((folder / "test.bin").read_bytes())
        content[0] ^= 1
        (folder / "test.bin").write_bytes(content)
    elif what == "missing":
        (folder / "validation.bin").unlink()
    elif what == "record":
        (folder / "tokens.json").write_text("{")
    elif what == "beyond":
        import zlib

        values = np.full(len((folder / "test.bin").read_bytes()) // 2, 60000, dtype="<u2").tobytes()
        (folder / "test.bin").write_bytes(values)
        record = json.loads((folder / "tokens.json").read_text())
        record["splits"]["test"]["crc32"] = zlib.crc32(values)
        (folder / "tokens.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("short", "train.bin is damaged: it must have"),
        ("changed", "test.bin is damaged: its checksum"),
        ("missing", "validation.bin cannot be read"),
        ("record", "tokens.json is damaged"),
        ("beyond", "test holds token 60000 at position 0, beyond the vocabulary"),
    ],
)
def test_damaged_tokens_are_refused(novels, tmp_path, what, message):
    folder = data.write_tokens(data.load(novels), tmp_path / "made")
    damage(folder, what)
    with pytest.raises(ValueError, match=message):
        data.load(folder)


ANIMALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", ".", "[END]"]


@pytest.fixture
def bare(tmp_path):
    """Files of another program: numbers of tokens and nothing else, and the list of tokens beside them."""
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(ANIMALS) + "\n", encoding="utf-8")
    sentence = [5, 6, 7, 8, 9]
    for name, count in (("train", 40), ("val", 20)):
        (folder / f"{name}.bin").write_bytes(np.array(sentence * count, dtype="<u2").tobytes())
    return folder


def test_files_of_tokens_of_another_program(bare, tmp_path):
    """Mapped as they are; documents, characters and words are found by the tokenizer, and a run on them generates text."""
    splits = data.load(bare, tokenizer=str(bare / "vocab.txt"), document_end="[END]")
    assert splits.classes == ANIMALS
    assert isinstance(splits.train.values, np.memmap)
    assert splits.train.values.tolist() == [5, 6, 7, 8, 9] * 40
    assert splits.train.starts.tolist() == list(range(0, 200, 5))
    assert (len(splits.validation), len(splits.test)) == (50, 50)
    said = splits.encoder.tokens.decode([5, 6, 7, 8] * 10)
    assert (splits.test.characters, splits.test.words) == (len(said), len(said.split()))
    arguments = [
        "text-soc-tbptt",
        "--data",
        str(bare),
        f"--data.tokenizer={bare / 'vocab.txt'}",
        "--topology.L",
        "3",
        "--stream.window",
        "8",
    ]
    arguments += ["--trainer.batch_size", "4", "--trainer.epochs", "1", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", *arguments]) == 0
    assert main(["generate", str(tmp_path / "run"), "--prompt", "the cat", "--tokens", "5"]) == 0


def test_a_test_part_of_another_program(bare):
    (bare / "test.bin").write_bytes(np.array([5, 6, 7, 8], dtype="<u2").tobytes())
    (bare / "val.bin").rename(bare / "validation.bin")
    splits = data.load(bare, tokenizer=str(bare))
    assert (len(splits.validation), len(splits.test), splits.test.starts.tolist()) == (100, 4, [0])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {}, r"tokenizer must name that of the \.bin files"),
        (None, {"tokenizer": "vocab.txt", "document_end": "[NONE]"}, "document_end must be a token"),
        (("val.bin", None), {"tokenizer": "vocab.txt"}, r"val\.bin cannot be read"),
        (("val.bin", b"abc"), {"tokenizer": "vocab.txt"}, r"val\.bin must hold four numbers of 2 bytes at least.*got 3 bytes"),
        (("val.bin", b"\5\0" * 7 + b"\12\0"), {"tokenizer": "vocab.txt"}, "test holds token 10 at position 3, beyond the vocabulary of 10"),
    ],
)
def test_what_is_wrong_with_files_of_another_program(bare, change, options, message):
    if change is not None:
        name, content = change
        (bare / name).unlink() if content is None else (bare / name).write_bytes(content)
    if "tokenizer" in options:
        options = {**options, "tokenizer": str(bare / options["tokenizer"])}
    with pytest.raises(ValueError, match=message):
        data.load(bare, **options)


def test_a_record_says_what_the_tokenizer_is(novels, tmp_path):
    folder = data.write_tokens(data.load(novels), tmp_path / "made")
    with pytest.raises(ValueError, match=r"tokenizer must be None for a folder with tokens\.json"):
        data.tokens(folder, tokenizer="vocab.txt")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "is an empty document"),
        (b"  \n", {}, "is an empty document"),
        (b"ab\xff\xfe", {}, "is not UTF-8 text: byte 2 is 0xff"),
        (b"a", {}, "training part must hold at least two tokens|part must hold"),
        (b"some text here", {"separator": " "}, "separator must be"),
        (b"one\n--\n--\ntwo\n", {"separator": "--"}, "line 3: the document that ends here is empty"),
        (TEXT.encode(), {"hold_out": "x"}, "hold_out must name files"),
        (TEXT.encode(), {"hold_out": "t"}, "hold_out must leave a document"),
        (TEXT.encode(), {"tokenizer": "nowhere.json"}, "tokenizer must be"),
        (TEXT.encode(), {"validation_fraction": 0}, "validation_fraction must be"),
        (TEXT.encode(), {"words": 0, "tokenizer": "words"}, "words must be"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, options, message):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path / "t.txt", **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "cat\ndog\n", r"with \[UNK\] among them"),
        ("vocab.txt", "[UNK]\ncat\ncat\n", "line 3: 'cat' is there twice"),
        ("vocab.txt", "[UNK]\n\ncat\n", "line 2: '' is empty"),
        ("tokenizer.json", "{}", "is not a record of the package tokenizers"),
        ("other.md", "x", "tokenizer folder .* must hold"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        FileTokenizer.from_file(tmp_path)


def test_stories_as_their_publisher_ships_them(tmp_path):
    """A line between stories; the validation file is the test; the last training stories are for validation."""
    stories = [f"Story {number} is short." for number in range(10)]
    for part, content in (("train", stories), ("valid", stories[:3])):
        lines = "\n<|endoftext|>\n".join(content) + "\n<|endoftext|>\n"
        (tmp_path / f"TinyStoriesV2-GPT4-{part}.txt").write_text(lines, encoding="utf-8")
    splits = data.load("tinystories", root=str(tmp_path), validation_fraction=0.2)
    assert [len(getattr(splits, part).starts) for part in ("train", "validation", "test")] == [8, 2, 3]
    decode = splits.encoder.tokens.decode
    assert decode(splits.test.values.tolist()) == "".join(f"{story}\n" for story in stories[:3])
    assert len(data.load("tinystories", root=str(tmp_path), documents=5, validation_fraction=0.2).train.starts) == 4
    with pytest.raises(data.MissingData, match=r"TinyStories-train\.txt"):
        data.load("tinystories", root=str(tmp_path / "nowhere"))


def test_stories_come_through_datasets_once(tmp_path, monkeypatch):
    """Streamed by ``datasets``, here from a folder, and kept as the publisher's plain text."""
    import datasets

    source = tmp_path / "source"
    source.mkdir()
    for part in ("train", "validation"):
        rows = [json.dumps({"text": f"Story {number} of {part}.\n"}) for number in range(6)]
        (source / f"{part}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    root = tmp_path / "root"
    splits = data.load("tinystories", root=str(root), download=True, source=str(source), documents=4, validation_fraction=0.25)
    assert [len(getattr(splits, part).starts) for part in ("train", "validation", "test")] == [3, 1, 4]
    assert (root / "TinyStories-train.txt").read_text(encoding="utf-8").count("<|endoftext|>") == 4

    def again(*arguments, **options):
        raise AssertionError("fetched twice")

    monkeypatch.setattr(datasets, "load_dataset", again)
    kept = data.load("tinystories", root=str(root), download=True, source=str(source), documents=4, validation_fraction=0.25)
    assert kept.digest() == splits.digest()


def test_a_childs_words_come_through_datasets_once(tmp_path, monkeypatch):
    """Line by line, as one document of each part."""
    import datasets

    source = tmp_path / "source"
    source.mkdir()
    for part in ("train", "validation", "test"):
        rows = [json.dumps({"text": f"line {number} of {part}"}) for number in range(6)]
        (source / f"{part}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = {"root": str(tmp_path / "root"), "download": True, "source": str(source)}
    splits = data.load("babylm", **asked)
    assert splits.encoder.tokens.decode(splits.train.values.tolist()) == "".join(f"line {number} of train\n" for number in range(6))
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert data.load("babylm", **asked).digest() == splits.digest()


def test_nothing_half_fetched_is_left(tmp_path):
    with pytest.raises(data.MissingData, match="cannot be fetched"):
        data.load("tinystories", root=str(tmp_path), download=True, source=str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_a_childs_words_as_their_publisher_ships_them(tmp_path):
    for folder, part in (("train_10M", "train"), ("dev", "dev"), ("test", "test")):
        (tmp_path / folder).mkdir()
        for name in ("bnc", "childes"):
            (tmp_path / folder / f"{name}.{part}").write_text(f"{name} {part} words here\n", encoding="utf-8")
    splits = data.load("babylm", root=str(tmp_path), tokenizer="words")
    assert [len(getattr(splits, part).starts) for part in ("train", "validation", "test")] == [2, 2, 2]
    assert "childes" in splits.encoder.tokens.vocabulary
    with pytest.raises(data.MissingData, match="babylm"):
        data.load("babylm", root=str(tmp_path / "dev"))


def test_six_novels(tmp_path):
    """Real text, or two short ones where it is not there: all characters of the files are there."""
    folder = Path(os.environ.get("LMN_DATA", tmp_path)) / "text" / "austen"
    if not folder.is_dir():
        folder = tmp_path
        for name in ("emma", "persuasion"):
            (folder / f"{name}.txt").write_text(f"{name} — “a novel”,\nwith a second line.\n" * 40, encoding="utf-8")
    splits = data.load(folder, hold_out="persuasion")
    streams = (splits.train, splits.validation, splits.test)
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.txt"))]
    assert sum(stream.characters for stream in streams) == sum(map(len, texts)) == sum(map(len, streams))
    assert len(set("".join(texts))) == (81 if len(texts) == 6 else 24)
    held = (folder / "persuasion.txt").read_text(encoding="utf-8")
    assert splits.test.words == len(held.split())
