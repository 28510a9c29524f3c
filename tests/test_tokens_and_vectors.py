"""Tables of tokens come from the files that they are said to come from, and one table serves both ends."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import topologies
from lmn_graph import LatticeMachine
from lmn_graph._vectors import TokenTable, read_words, vectors_for
from lmn_graph.projectors import SharedEmbedding, TokenEmbedding
from lmn_graph.readouts import SharedEmbedding as SharedReadout
from lmn_graph.rules import TanhLattice
from lmn_graph.training import configure, open_run, train
from lmn_graph.training.build import build_machine, count_parameters
from lmn_graph.training.check import check_gradients
from lmn_graph.training.files import load_model, save_model

GLOVE = "the 1 2\ncat 3 4\n. -1 0.5\n"


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE, encoding="utf-8")
    return path


def test_vectors_by_words(glove):
    table, known = vectors_for(["<unk>", "cat", "dog", "the"], glove)
    assert table.tolist() == [[0, 0], [3, 4], [0, 0], [1, 2]]
    assert known.tolist() == [False, True, False, True]
    assert read_words(glove, 2) == ["the", "cat"]


def test_vectors_by_a_list_of_words(tmp_path):
    np.save(tmp_path / "m.npy", np.arange(6, dtype=np.float16).reshape(3, 2))
    (tmp_path / "words.txt").write_text("a\nb\nc\n", encoding="utf-8")
    table, known = vectors_for(["c", "x", "a"], tmp_path / "m.npy", words=tmp_path / "words.txt")
    assert table.tolist() == [[4, 5], [0, 0], [0, 1]]
    assert known.tolist() == [True, False, True]
    table, _ = vectors_for(["x", "y", "z"], tmp_path / "m.npy")
    assert table.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\ncat 3\n", "line 2: 1 numbers, but 2 in the lines before"),
        ("the 1 2\ncat 3 x\n", "line 2: the vector of 'cat' holds what is no number"),
        ("the 1 2\ncat 3 nan\n", "line 2: the vector of 'cat' holds NaN or inf"),
        ("the 1 2\n\n", "line 2: must be a word and its numbers"),
        ("dog 1 2\n", "vectors must hold one of the 2 tokens at least"),
    ],
)
def test_what_are_no_vectors(tmp_path, content, message):
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        vectors_for(["the", "cat"], tmp_path / "v.txt")


def test_what_is_no_matrix(tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match="must have a row for each of the 2 tokens, got 3"):
        vectors_for(["a", "b"], tmp_path / "m.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o\.npy is not an \.npy file of numbers"):
        vectors_for(["a"], tmp_path / "o.npy")
    with pytest.raises(ValueError, match="vectors must be a file"):
        vectors_for(["a"], tmp_path / "nowhere.npy")


def test_a_table_keeps_relations_and_can_be_fixed(glove):
    """Given vectors are scaled together; those of unknown words are drawn; a frozen table is no parameter but is saved."""
    words = ["the", "cat", "dog"]
    table = TokenTable(3, words=words, vectors=glove, frozen=True)
    assert count_parameters(table) == 0
    assert "weight" in table.state_dict()
    torch.testing.assert_close(table.weight[1] / table.weight[0], torch.tensor([3.0, 2.0]))
    assert table.weight[:2].std() == pytest.approx(1, rel=1e-5)
    assert bool(table.weight[2].any())
    assert TokenTable(3, words=words, vectors=glove).weight.requires_grad
    for options, message in (
        ({"width": 5}, "width must be that of the vectors, 2"),
        ({"words": None}, "need tokens that are words"),
        ({"vectors": torch.zeros(2, 2)}, r"vectors must be finite numbers \[3, D\]"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenTable(3, **{"words": words, "vectors": glove, **options})


@pytest.mark.parametrize("head", ["linear", "low-rank", "cp"])
def test_a_drive_is_the_head_of_the_rows(head):
    graph = topologies.grid(4, 2)
    projector = TokenEmbedding((2,), graph, vocabulary=7, width=3, head=head, rank=2)
    x = torch.tensor([[0, 6], [3, 3]])
    rows = torch.stack([torch.cat([projector.table.weight[a], projector.table.weight[b]]) for a, b in x.tolist()])
    torch.testing.assert_close(projector(x), projector.head(rows))
    torch.testing.assert_close(projector(x.float()), projector(x))


@pytest.mark.parametrize("head", ["linear", "low-rank"])
def test_tokens_that_come_again_are_headed_once(head):
    """Values and gradients are those of every token by itself, also where only some nodes are ports."""
    graph = topologies.grid(4, 2)
    graph.input_index = torch.tensor([1, 4, 9])
    projector = TokenEmbedding((1,), graph, vocabulary=7, width=3, head=head, rank=2).double()
    x = torch.tensor([[0], [6], [3], [3], [0], [0], [3]])
    factor = torch.randn(7, 16, dtype=torch.float64)
    rows = projector.head(projector.table.weight[x.flatten()])
    torch.testing.assert_close(projector(x), rows)
    torch.testing.assert_close(projector.project(x), rows[:, graph.input_index])
    parameters = list(projector.parameters())
    again, plain = (torch.autograd.grad((factor * drive).sum(), parameters) for drive in (projector(x), rows))
    for got, want in zip(again, plain, strict=True):
        torch.testing.assert_close(got, want)


def test_dropout_is_drawn_for_every_token():
    """The same token twice in a batch loses other features."""
    projector = TokenEmbedding((1,), topologies.grid(4, 2), vocabulary=7, width=64, dropout=0.5)
    drive = projector(torch.zeros(4, 1, dtype=torch.int64))
    assert len(drive.unique(dim=0)) == 4
    assert len(projector.eval()(torch.zeros(4, 1, dtype=torch.int64)).unique(dim=0)) == 1


@pytest.mark.parametrize("x", [torch.tensor([[0.5]]), torch.tensor([[7]]), torch.tensor([[-1]]), torch.tensor([[True]])])
def test_what_is_no_token_is_refused(x):
    with pytest.raises(ValueError, match="x must hold tokens"):
        TokenEmbedding((1,), topologies.grid(3, 2), vocabulary=7)(x)


def shared_machine():
    graph = topologies.grid(3, 2)
    projector = SharedEmbedding((1,), graph, vocabulary=5, width=4)
    readout = SharedReadout(graph, 5, 2, embedding=projector.embedding)
    return LatticeMachine(graph, projector, TanhLattice(graph), readout, steps=2)


def test_one_table_in_and_out(tmp_path):
    """Counted once, its gradient that of both uses, restored at both ends."""
    machine = shared_machine().double()
    assert machine.projector.table is machine.readout.table
    assert count_parameters(machine) == sum(parameter.numel() for parameter in set(machine.parameters()))
    x = torch.tensor([[0], [3], [4]])
    machine(x).prediction.square().sum().backward()
    found = machine.projector.table.weight.grad.clone()
    weight = machine.projector.table.weight.detach()
    ends = [weight.clone().requires_grad_() for _ in range(2)]
    drive = machine.projector.head(ends[0][x.flatten()])
    activity = machine.run(drive).activity
    z = machine.readout.norm(machine.readout.inner(activity.mean(1)))
    prediction = z @ ends[1].t() / 2 + machine.readout.bias
    prediction.square().sum().backward()
    torch.testing.assert_close(found, ends[0].grad + ends[1].grad, rtol=1e-10, atol=1e-12)
    assert all(bool(end.grad.any()) for end in ends)
    save_model(machine, tmp_path / "m.safetensors")
    other = shared_machine().double()
    load_model(other, tmp_path / "m.safetensors")
    assert other.projector.table is other.readout.table
    torch.testing.assert_close(other(x).prediction, machine(x).prediction)


def test_a_frozen_table_is_the_classes_too():
    """In the preset with frozen embeddings the metric compares with a learned map of the projector's rows, which are no parameters."""
    config = configure("text-soc-frozen", [], ["--topology.L", "3"])
    machine = build_machine(config, (1,), 7, [str(number) for number in range(7)])
    assert torch.equal(machine.readout.table, machine.projector.table.weight)
    assert machine.readout.class_factors().shape == (7, machine.readout.rank)
    assert not any("table" in name for name, _ in machine.named_parameters())


def test_vectors_of_a_readout_come_from_its_configuration(glove):
    """By the names of the classes; named there, they are taken rather than those that the projector keeps."""
    config = configure("text-soc-frozen", [], ["--topology.L", "3", "--readout.vectors", str(glove)])
    machine = build_machine(config, (1,), 3, ["cat", ".", "the"])
    assert machine.readout.table.tolist() == [[3, 4], [-1, 0.5], [1, 2]]
    assert machine.projector.fixed.shape == (3, 64)
    with pytest.raises(ValueError, match=r"readout\.words"):
        configure("text-soc-frozen", [], ["--readout.words", "a"])


def test_a_run_keeps_where_the_vectors_of_its_classes_are(tmp_path, monkeypatch):
    """Started from the folder of the data and the vectors, opened from another."""
    lines = [f"{n % 7},{n % 5},{('cat', 'the')[n % 2]}\n" for n in range(60)]
    (tmp_path / "data.csv").write_text("a,b,kind\n" + "".join(lines), encoding="utf-8")
    (tmp_path / "glove.txt").write_text(GLOVE, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    given = ("--data", "data.csv", "--data.target", "kind", "--readout", "HolographicMetric", "--readout.vectors", "glove.txt")
    small = ("--topology.L", "3", "--topology.dim", "2", "--machine.steps", "3", "--trainer.epochs", "1", "--criticality", "none")
    run = train(configure("tanh-lattice", [], [*given, *small]), tmp_path / "run", progress=False, pictures=False)
    assert run.config["readout"]["vectors"] == str(tmp_path / "glove.txt")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_run(tmp_path / "run").machine().readout.table.tolist() == [[3, 4], [1, 2]]
    (tmp_path / "glove.txt").unlink()  # a finished run has them in itself
    assert open_run(tmp_path / "run").machine().readout.table.tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize("preset", ["text-soc-glove", "text-soc-frozen"])
def test_a_finished_run_needs_no_file_of_vectors(tmp_path, preset):
    """Table in, table out and everything else as they were when the file was there."""
    (tmp_path / "a.txt").write_text("the cat sat on the mat .\n" * 200, encoding="utf-8")
    (tmp_path / "glove.txt").write_text(GLOVE, encoding="utf-8")
    given = ["--data", str(tmp_path / "a.txt"), "--data.tokenizer", "words", "--projector.vectors", str(tmp_path / "glove.txt")]
    small = ["--topology.L", "3", "--stream.longest", "32", "--trainer.epochs", "1", "--trainer.batch_size", "4", "--stream.window", "8"]
    run = train(configure(preset, [], [*given, *small]), tmp_path / "run", progress=False, pictures=False)
    before = run.machine()
    (tmp_path / "glove.txt").unlink()
    after = open_run(tmp_path / "run").machine()
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_gradients_are_compared_on_a_machine_that_knows_its_classes(tmp_path):
    """A local rule and back-propagation agree on a readout whose rows are found by the names of the classes."""
    (tmp_path / "glove.txt").write_text("3 1 2\n8 -1 0.5\n", encoding="utf-8")
    small = ("--data", "digits", "--topology.rows", "8", "--topology.cols", "4", "--machine.steps", "8", "--learning", "rtrl")
    readout = ("--readout", "HolographicEmbedding", "--readout.vectors", str(tmp_path / "glove.txt"))
    _, found = check_gradients(configure("filter-mnist", [], [*small, *readout]), samples=4)
    assert all(agreement.cosine == pytest.approx(1, abs=1e-9) for agreement in found)


def test_a_shared_table_must_fit():
    graph = topologies.grid(3, 2)
    with pytest.raises(ValueError, match="embedding must be for 6 tokens, got one for 5"):
        SharedReadout(graph, 6, 2, embedding=TokenTable(5, 4))
    with pytest.raises(ValueError, match="width must be that of the shared table, 4"):
        SharedReadout(graph, 5, 2, embedding=TokenTable(5, 4), width=3)


def test_published_vectors(tmp_path):
    """GloVe's text form and the matrix of a small BERT beside its vocabulary; small files of their form where they are not there."""
    folder = Path(os.environ.get("LMN_DATA", tmp_path)) / "text"
    if not folder.is_dir():
        folder.mkdir()
        made = {word: np.cos(np.arange(50) * angle) for word, angle in (("the", 0.3), ("king", 0.1), ("queen", 0.11))}
        lines = [f"{word} {' '.join(f'{value:.5f}' for value in values)}\n" for word, values in made.items()]
        (folder / "glove-6b-50d-20k.txt").write_text("".join(lines), encoding="utf-8")
        (folder / "bert-vocab.txt").write_text("[PAD]\nking\n", encoding="utf-8")
        np.save(folder / "word-embeddings-minilm.f16.npy", np.ones((2, 8), dtype=np.float16))
    table, known = vectors_for(["the", "king", "queen", "xyzzyx"], folder / "glove-6b-50d-20k.txt")
    assert table.shape == (4, 50)
    assert known.tolist() == [True, True, True, False]
    assert torch.cosine_similarity(table[1], table[2], 0) > 0.7
    words = (folder / "bert-vocab.txt").read_text(encoding="utf-8").split("\n")
    row = words.index("king")
    table, _ = vectors_for(["king"], folder / "word-embeddings-minilm.f16.npy", words=folder / "bert-vocab.txt")
    assert np.array_equal(table[0], np.load(folder / "word-embeddings-minilm.f16.npy")[row].astype(np.float32))
