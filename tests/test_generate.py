"""The commands for text, as a user has them: train, measure, continue a text; what does not fit is said in one line."""

from __future__ import annotations

import pytest

from lmn_graph import data
from lmn_graph.cli import main


def lmn(capsys, *arguments):
    """Exit code, output and errors of a command."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a few sentences, from files of tokens."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text("The cat sat. The dog ran.\n" * 200, encoding="utf-8")
    assert main(["tokenize", str(folder / "a.txt"), "--out", str(folder / "tokens")]) == 0
    small = ["--topology.L", "4", "--stream.window", "16", "--trainer.batch_size", "8", "--trainer.epochs", "1", "--quiet"]
    assert main(["train", "text-soc-tbptt", "--data", str(folder / "tokens"), "--out", str(folder / "run"), *small]) == 0
    return folder / "run"


def test_a_run_is_drawn_and_measured_again(run, capsys):
    assert (run / "dynamics.png").is_file()
    code, out, _ = lmn(capsys, "evaluate", run)
    assert code == 0
    assert "test/bits_per_character" in out
    assert "test/word_perplexity" in out


def test_text_goes_on_from_a_prompt(run, capsys):
    """The prompt, then so many characters; the same seed says the same, another one something else."""
    asked = ("generate", run, "--prompt", "The cat", "--tokens", "60")
    code, one, _ = lmn(capsys, *asked)
    assert code == 0
    assert one.startswith("The cat")
    assert len(one) == len("The cat") + 60 + 1
    assert lmn(capsys, *asked)[1] == one
    assert lmn(capsys, *asked, "--seed", "1")[1] != one
    assert lmn(capsys, *asked, "--temperature", "0", "--seed", "1")[1] == lmn(capsys, *asked, "--top-k", "1")[1]


def test_what_does_not_fit_is_said(run, tmp_path, capsys):
    for arguments, message in (
        (("generate", run, "--prompt", ""), "prompt must hold at least one token"),
        (("generate", run, "--tokens", "0"), "count must be"),
        (("generate", run, "--top-k", "1000"), "top_k must be"),
        (("predict", run, run / "config.yaml"), "lmn generate continues text"),
        (("tokenize", run.parent / "a.txt"), "lmn tokenize DATA --out DIR"),
        (("tokenize", "digits", "--out", tmp_path / "o"), "splits must be of text"),
        (("train", "text-soc-tbptt", "--data.root", tmp_path), "must hold TinyStories-train.txt"),
    ):
        code, _, errors = lmn(capsys, *arguments)
        assert code == 2
        assert message in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_another_vocabulary_is_not_this_runs_data(run, tmp_path, capsys):
    """Tokens whose vocabulary differs from that of the checkpoint are refused, by the run and by the loader."""
    (tmp_path / "b.txt").write_text("Quite another text, with z and q.\n" * 50, encoding="utf-8")
    other = data.write_tokens(data.load(tmp_path / "b.txt"), tmp_path / "other")
    with pytest.raises(ValueError, match="the vocabulary must be that of"):
        data.tokens(other, vocabulary=str(run))
    tokens = run.parent / "tokens"
    kept = {file.name: file.read_bytes() for file in tokens.iterdir()}
    try:
        for file in other.iterdir():
            (tokens / file.name).write_bytes(file.read_bytes())
        code, _, errors = lmn(capsys, "evaluate", run)
        assert code == 2
        assert "have changed since it started" in errors
    finally:
        for name, content in kept.items():
            (tokens / name).write_bytes(content)
