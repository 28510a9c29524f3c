"""Readouts that compare embeddings: products, cosines and distances, one pair at a time."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from allocations import Allocations
from reading import check_differences, check_gradients_reach_everything, every_kind_of_cell, history, normed
from torch.nn.functional import cosine_similarity, softplus

import topologies
from lmn_graph.readouts import READOUTS, EmbeddingDot, HolographicEmbedding, HolographicMetric

READERS = {"EmbeddingDot": EmbeddingDot, "HolographicEmbedding": HolographicEmbedding, "HolographicMetric": HolographicMetric}
WIDTH = {"EmbeddingDot": "width", "HolographicEmbedding": "rank", "HolographicMetric": "rank"}
every_reader = pytest.mark.parametrize("name", READERS)


def compared(readout, z, similarity):
    """s · similarity + b of every pair of a sample and a class."""
    pairs = torch.stack([torch.stack([similarity(one, e) for e in readout.class_factors()]) for one in z])
    return softplus(readout.raw_scale) * pairs + readout.bias


def squared_distance(z, e):
    return (z - e).square().sum()


SIMILARITIES = {"EmbeddingDot": torch.dot, "HolographicEmbedding": torch.dot, "HolographicMetric": lambda z, e: -squared_distance(z, e)}


@every_reader
def test_it_is_registered(name):
    assert READOUTS[name] is READERS[name]


@every_kind_of_cell
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("skip", [0, 2])
def test_embedding_dot_is_its_equation(skip, cosine, channels, graph, normal):
    readout = EmbeddingDot(graph, 4, 5, width=6, cosine=cosine, skip=skip, channels=channels).double()
    torch.nn.init.normal_(readout.bias)
    activity = history(normal, graph, channels)
    mean = activity[:, skip:].mean(1).flatten(1)
    z = normed(readout.norm, mean @ readout.map.weight.t() + readout.map.bias)
    similarity = torch.dot if not cosine else lambda z, e: cosine_similarity(z, e, dim=0)
    torch.testing.assert_close(readout(activity), compared(readout, z, similarity))
    assert torch.equal(readout.class_factors(), readout.embedding)


EINSUMS = {1: "btx,xr->btr", 2: "btxy,xr,yr->btr", 3: "btxyz,xr,yr,zr->btr"}


@pytest.mark.parametrize("name", ["HolographicEmbedding", "HolographicMetric"])
@pytest.mark.parametrize("pool", ["mean", "learned"])
@pytest.mark.parametrize("dim", EINSUMS)
def test_holographic_embeddings_contract_every_axis_with_its_factors(dim, pool, name, normal):
    """The series [B, T, R] step by step, then its mean or weighted sum over time."""
    sides = (2, 3, 4)[:dim]
    readout = READERS[name](topologies.grid(sides, dim, boundary="open"), 4, 5, rank=6, pool=pool, skip=1).double()
    activity = normal(2, 5, readout.num_nodes)
    series = torch.einsum(EINSUMS[dim], activity[:, 1:].unflatten(2, sides), *readout.factors) / readout.num_nodes**0.5
    if pool == "learned":
        torch.testing.assert_close(readout.weight, torch.full((4,), 0.25, dtype=torch.float64))  # starts as the mean
        torch.nn.init.normal_(readout.weight)
        pooled = sum(w * h for w, h in zip(readout.weight, series.unbind(1), strict=True))
    else:
        pooled = series.mean(1)
    torch.testing.assert_close(readout(activity), compared(readout, normed(readout.norm, pooled), SIMILARITIES[name]))


@pytest.mark.parametrize("name", ["HolographicEmbedding", "HolographicMetric"])
@pytest.mark.parametrize("dim", EINSUMS)
def test_every_channel_has_factors_of_its_own(dim, name, normal):
    sides = (2, 3, 4)[:dim]
    readout = READERS[name](topologies.grid(sides, dim, boundary="open"), 4, 5, rank=6, channels=3).double()
    activity = normal(2, 5, readout.num_nodes, 3)
    pooled = 0
    for channel in range(3):
        factors = [factor[:, 6 * channel : 6 * channel + 6] for factor in readout.factors]
        pooled = pooled + torch.einsum(EINSUMS[dim], activity[..., channel].unflatten(2, sides), *factors).mean(1)
    z = normed(readout.norm, pooled / readout.num_nodes**0.5)
    torch.testing.assert_close(readout(activity), compared(readout, z, SIMILARITIES[name]))


@every_reader
@every_kind_of_cell
def test_node_factors_are_what_a_node_adds_to_the_embedding(name, channels, graph, normal):
    """The derivative of what is normalised to the activity of every node, at every one of five steps a fifth."""
    readout = READERS[name](graph, 4, 5, channels=channels).double()
    activity = history(normal, graph, channels, batch=1)
    change = torch.autograd.functional.jacobian(readout.embed, activity)  # [1, D, 1, T, P(, C)]
    expected = 5 * change[0, :, 0, 3].movedim(0, -1)
    torch.testing.assert_close(readout.node_factors(), expected)
    assert readout.node_factors().shape == (graph.num_nodes, *(() if channels is None else (channels,)), 64)


@every_reader
def test_where_ports_are_read_they_have_factors_of_their_own(name, lattice):
    lattice.output_index = torch.tensor([7, 0, 5])
    assert READERS[name](lattice, 4, 5).node_factors().shape == (3, 64)
    assert READERS[name](lattice, 4, 5, ports=False).node_factors().shape == (16, 64)


@every_reader
def test_a_given_table_is_fixed_and_its_projection_is_learned(name, lattice, normal):
    """The caller's tensor may change afterwards; the table is a part of the state."""
    table = normal(4, 7).float()
    readout = READERS[name](lattice, 4, 5, table=table)
    kept = table.clone()
    table.zero_()
    assert torch.equal(readout.table, kept)
    assert "table" not in dict(readout.named_parameters())
    torch.testing.assert_close(readout.class_factors(), kept @ readout.embedding)
    activity = torch.rand(2, 5, 16)
    torch.testing.assert_close(readout(activity), compared(readout, readout.norm(readout.embed(activity)), SIMILARITIES[name]))
    other = READERS[name](lattice, 4, 5, table=torch.ones(4, 7))
    other.load_state_dict(readout.state_dict())
    assert torch.equal(other(activity), readout(activity))
    readout(activity).square().sum().backward()
    assert bool(readout.embedding.grad.any())
    assert READERS[name](lattice, 4, 5, table=kept.double()).class_factors().dtype == torch.float32


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2 3\ndog 4 5 6\ncat 0 0 -7\n", encoding="utf-8")
    return str(path)


@every_reader
def test_vectors_of_a_file_are_the_table_row_by_row(name, lattice, glove, tmp_path):
    """By the names of the classes, from text or from a matrix with its words; without words row k is that of class k."""
    words = ["cat", "dog"]
    expected = torch.tensor([[0.0, 0.0, -7.0], [4.0, 5.0, 6.0]])
    readout = READERS[name](lattice, 2, 5, vectors=glove, words=words)
    assert torch.equal(readout.table, expected)
    assert torch.equal(readout.state_dict()["table"], expected)
    torch.testing.assert_close(readout.class_factors(), expected @ readout.embedding)
    matrix, listed = str(tmp_path / "m.npy"), tmp_path / "words.txt"
    np.save(matrix, np.array([[4, 5, 6], [1, 2, 3], [0, 0, -7]], dtype=np.float16))
    listed.write_text("dog\nthe\ncat\n", encoding="utf-8")
    assert torch.equal(READERS[name](lattice, 2, 5, vectors=matrix, vector_words=str(listed), words=words).table, expected)
    rows = torch.tensor([[4.0, 5.0, 6.0], [1.0, 2.0, 3.0], [0.0, 0.0, -7.0]])
    for words in (None, ["cat", "dog", "a horse"]):
        assert torch.equal(READERS[name](lattice, 3, 5, vectors=matrix, words=words).table, rows)


def test_classes_without_a_vector_differ_and_are_as_long_as_the_others(lattice, glove):
    words = ["cat", *(f"nothing {number}" for number in range(2000)), "dog"]
    table = HolographicMetric(lattice, 2002, 5, vectors=glove, words=words).table
    assert torch.equal(table[[0, -1]], torch.tensor([[0.0, 0.0, -7.0], [4.0, 5.0, 6.0]]))
    assert len(table.unique(dim=0)) == 2002
    drawn = table[1:-1].square().sum(1).mean()
    assert float(drawn) == pytest.approx((49 + 77) / 2, rel=0.1)


@every_reader
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": ["cat", "dog"], "table": torch.ones(2, 3)}, "vectors must be None with a table, got '.*glove.txt'"),
        ({}, r"vectors of words need classes that are words, got '.*glove.txt' for outputs 0 … 1"),
        ({"words": ["cat"]}, "words must be 2 different words, one per class, got 1, of which 1 differ"),
        ({"words": ["cat", "cat"]}, "words must be 2 different words, one per class, got 2, of which 1 differ"),
        ({"words": ["horse", "cow"]}, "vectors must hold one of the 2 tokens at least, got none of them"),
        ({"words": ["horse", "cow"], "vectors": "nowhere.npy"}, "vectors must be a file, got 'nowhere.npy'"),
        ({"vectors": "m.npy", "vector_words": "w.txt"}, "vectors of words need classes that are words, got 'm.npy'"),
        ({"vectors": None, "vector_words": "w.txt"}, "vector_words must be None without vectors, got 'w.txt'"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(name, options, message, lattice, glove):
    with pytest.raises(ValueError, match=message):
        READERS[name](lattice, 2, 5, **{"vectors": glove, **options})


@every_reader
@pytest.mark.parametrize("size", [None, 1e-3, 50.0])
@pytest.mark.parametrize("classes", [1, 300])
def test_predictions_start_moderate(name, size, classes, generator):
    """Mean about zero, variance about one, whatever the size of a table's rows; a regression starts so, too."""
    graph = topologies.grid(8, 2)
    activity = (torch.rand(64, 5, 64, generator=generator) < 0.1).float()
    table = None if size is None else size * torch.randn(classes, 100, generator=generator)
    found = torch.cat([READERS[name](graph, classes, 5, table=table)(activity) for _ in range(20)]).detach()
    assert abs(float(found.mean())) < 0.5
    assert 0.5 < float(found.std()) < 1.5


def test_cosines_start_moderate_and_stay_below_the_scale(lattice):
    readout = EmbeddingDot(lattice, 500, 5, cosine=True)
    found = readout(torch.rand(32, 5, 16)).detach()
    assert 0.5 < float(found.std()) < 1.5
    with torch.no_grad():
        readout.embedding.copy_(readout.norm(readout.embed(torch.ones(1, 5, 16))).repeat(500, 1) * torch.rand(500, 1))
    torch.testing.assert_close(readout(torch.ones(1, 5, 16)), readout.scale.expand(1, 500))  # lengths do not matter


def test_the_scale_stays_positive(lattice):
    readout = HolographicMetric(lattice, 3, 5)
    with torch.no_grad():
        readout.raw_scale.fill_(-30.0)
    assert 0 < float(readout.scale.detach()) < 1e-12


def test_the_nearest_class_is_predicted(lattice, normal):
    """A class whose embedding is that of the sample has distance zero, all others more."""
    readout = HolographicMetric(lattice, 6, 5).double()
    activity = normal(1, 5, 16)
    z = readout.norm(readout.embed(activity))
    with torch.no_grad():
        readout.embedding[4] = z[0]
        readout.bias.zero_()
    found = readout(activity)[0].detach()
    assert int(found.argmax()) == 4
    assert abs(float(found[4])) < 1e-12
    assert bool((found[[0, 1, 2, 3, 5]] < -0.1).all())


def test_an_offset_of_all_embeddings_costs_the_distances_no_digits(normal):
    """Samples and classes a thousand from the origin and one from each other, in single precision."""
    readout = HolographicMetric(topologies.ring(8), 5, 3, rank=16)
    offset = 1000 * torch.sign(normal(16))
    z, e = (normal(4, 16) + offset).float(), (normal(5, 16) + offset).float()
    expected = torch.tensor([[-squared_distance(one, other) for other in e.double()] for one in z.double()])
    torch.testing.assert_close(readout.similarity(z, e).double(), expected, rtol=1e-4, atol=1e-4)


@every_reader
def test_the_order_of_the_classes_is_nothing(name, lattice, normal):
    one = READERS[name](lattice, 4, 3).double()
    torch.nn.init.normal_(one.bias)
    two, order = copy.deepcopy(one), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        two.embedding.copy_(one.embedding[order])
        two.bias.copy_(one.bias[order])
    activity = normal(2, 3, 16)
    torch.testing.assert_close(two(activity), one(activity)[:, order])


@every_reader
@every_kind_of_cell
@pytest.mark.parametrize("option", ["none", "table", "its own"])
def test_every_parameter_and_the_activity_have_first_and_second_gradients(name, option, channels, random_graph, normal):
    own = {"cosine": True} if name == "EmbeddingDot" else {"pool": "learned"}
    options = {"none": {}, "table": {"table": normal(3, 5)}, "its own": own}[option]
    readout = READERS[name](random_graph, 3, 3, **{WIDTH[name]: 6}, channels=channels, **options).double()
    activity = history(normal, random_graph, channels, batch=1, steps=3).requires_grad_()
    check_differences(readout, activity)
    check_gradients_reach_everything(readout, activity)


@every_reader
def test_steps_left_out_are_not_read(name, lattice, normal):
    readout = READERS[name](lattice, 2, 5, skip=2).double()
    activity = normal(2, 5, 16)
    other = torch.cat([normal(2, 2, 16), activity[:, 2:]], dim=1)
    torch.testing.assert_close(readout(other), readout(activity))


@every_reader
def test_features_are_left_out_while_training_only(name, lattice):
    readout = READERS[name](lattice, 2, 5, dropout=0.5)
    activity = torch.rand(1, 5, 16).expand(2, 5, 16)
    assert not torch.equal(*readout(activity))
    readout.eval()
    torch.testing.assert_close(*readout(activity))


@every_reader
@every_kind_of_cell
def test_nothing_is_larger_than_the_history(name, channels):
    """Forward and backward, with many classes: no tensor [B, K, D]."""
    graph = topologies.grid(8, 2)
    readout = READERS[name](graph, 200, 16, **{WIDTH[name]: 16}, channels=channels)
    activity = torch.rand(8, 16, 64, *(() if channels is None else (channels,)), requires_grad=True)
    with Allocations() as made:
        readout(activity).square().sum().backward()
    assert made.largest <= activity.nbytes < 4 * 8 * 200 * 16 * (channels or 1)


@every_reader
@pytest.mark.parametrize("given", [False, True])
def test_a_vocabulary_of_words_costs_its_table_and_its_predictions(name, given):
    """30,522 classes, forward and backward: no tensor is larger than [K, D] or [B, K], and few are there at once."""
    classes, width, batch = 30522, 16, 16
    readout = READERS[name](topologies.grid(4, 2), classes, 4, **{WIDTH[name]: width}, table=torch.randn(classes, 20) if given else None)
    activity = torch.rand(batch, 4, 16)
    with Allocations() as made:
        readout(activity).square().sum().backward()
    assert made.largest <= 4 * classes * max(width, batch)
    assert made.peak <= 8 * 4 * classes * max(width, batch) < 4 * batch * classes * width


@every_reader
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": 5}, r"skip must be an integer in \[0, 4\], got 5"),
        ({"dropout": 1.5}, r"dropout must be a finite number in \[0, 1\], got 1.5"),
        ({"table": torch.ones(3, 4)}, r"table must be a floating-point tensor \[2, W\], W >= 1, got torch.float32 \(3, 4\)"),
        ({"table": torch.ones(2, 0)}, r"table must be a floating-point tensor \[2, W\], W >= 1, got torch.float32 \(2, 0\)"),
        ({"table": torch.ones(2)}, r"table must be a floating-point tensor \[2, W\], W >= 1, got torch.float32 \(2,\)"),
        ({"table": torch.ones(2, 4).long()}, r"table must be a floating-point tensor \[2, W\], W >= 1, got torch.int64 \(2, 4\)"),
        ({"table": [[1.0], [2.0]]}, r"table must be a floating-point tensor \[2, W\], W >= 1, got list"),
        ({"table": torch.full((2, 4), math.nan)}, "table must be finite and not all zero, got values from nan to nan"),
        ({"table": torch.zeros(2, 4)}, "table must be finite and not all zero, got values from 0 to 0"),
    ],
)
def test_a_bad_option_is_named(name, options, message, lattice):
    with pytest.raises(ValueError, match=message):
        READERS[name](lattice, 2, 5, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("EmbeddingDot", {"width": 1}, "width must be an integer >= 2, got 1"),
        ("EmbeddingDot", {"cosine": 1}, "cosine must be True or False, got 1"),
        ("HolographicEmbedding", {"rank": 1}, "rank must be an integer >= 2, got 1"),
        ("HolographicEmbedding", {"pool": "last"}, "pool must be one of 'mean', 'learned', got 'last'"),
        ("HolographicMetric", {"rank": 2.5}, "rank must be an integer >= 2, got 2.5"),
    ],
)
def test_a_bad_option_of_its_own_is_named(name, options, message, lattice):
    with pytest.raises(ValueError, match=message):
        READERS[name](lattice, 2, 5, **options)
