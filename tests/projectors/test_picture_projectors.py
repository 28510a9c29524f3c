"""Projectors of pictures: each is its formula; patches go where they lie; pictures that are cut already give the same drive."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import topologies
from lmn_graph.patches import patchify
from lmn_graph.projectors import PROJECTORS, ConcatenatedQuery, CPTensor, Linear, LowRank, Patchify, ViT, VoxelCNN

PATCHED = {"ConcatenatedQuery": ConcatenatedQuery, "Patchify": Patchify, "ViT": ViT}
SMALL = {"ConcatenatedQuery": {"width": 8, "layers": 2, "heads": 2}, "Patchify": {}, "ViT": {"width": 8, "layers": 2, "heads": 2}}


@pytest.fixture
def pictures(normal):
    return normal(4, 3, 9, 10)


def attention_layer(layer, tokens):
    """One layer from the matrices of its parts: x + Attention(norm(x)), then x + MLP(norm(x))."""
    attention = layer.self_attn
    heads, width = attention.num_heads, attention.embed_dim
    normal = functional.layer_norm(tokens, (width,), layer.norm1.weight, layer.norm1.bias)
    projected = (normal @ attention.in_proj_weight.T + attention.in_proj_bias).unflatten(2, (3, heads, -1))
    query, key, value = projected.permute(2, 0, 3, 1, 4)
    share = torch.softmax(query @ key.transpose(-1, -2) / (width // heads) ** 0.5, -1)
    tokens = tokens + attention.out_proj((share @ value).transpose(1, 2).flatten(2))
    normal = functional.layer_norm(tokens, (width,), layer.norm2.weight, layer.norm2.bias)
    return tokens + layer.linear2(functional.gelu(layer.linear1(normal)))


def tokens_of(encoder, pictures, patch):
    """The tokens of an encoder from torch's unfold and the matrices of its layers."""
    padded = functional.pad(pictures, (0, -pictures.size(3) % patch, 0, -pictures.size(2) % patch))
    patches = functional.unfold(padded, patch, stride=patch).transpose(1, 2)
    tokens = patches @ encoder.embedding.weight.T + encoder.embedding.bias + encoder.position
    tokens = torch.cat([encoder.learned.expand(len(pictures), -1, -1), tokens], 1)
    for layer in encoder.layers:
        tokens = attention_layer(layer, tokens)
    return functional.layer_norm(tokens, tokens.shape[-1:], encoder.norm.weight, encoder.norm.bias)


@pytest.mark.parametrize(("head", "kind"), [("cp", CPTensor), ("low-rank", LowRank), ("linear", Linear)])
def test_vit_is_its_head_of_the_cls_token(lattice, pictures, head, kind):
    projector = ViT((3, 9, 10), lattice, patch=4, width=8, layers=2, heads=2, head=head, rank=3).double()
    assert isinstance(projector.head, kind)
    expected = projector.head(tokens_of(projector.encoder, pictures, 4)[:, 0])
    torch.testing.assert_close(projector(pictures), expected)


def test_patches_without_positions_are_a_set(lattice, pictures):
    """With positions set to zero the CLS token does not see the order of the patches; with them it does."""
    cut = patchify(pictures, 5)
    projector = ViT(cut.shape[1:], lattice, width=8, layers=2, heads=2).double()
    shuffled = cut.flatten(1, 2)[:, torch.tensor([2, 0, 3, 1])].unflatten(1, (2, 2))
    assert not torch.allclose(projector(cut), projector(shuffled))
    torch.nn.init.zeros_(projector.encoder.position)
    torch.testing.assert_close(projector(cut), projector(shuffled))


@pytest.mark.parametrize("channels", [None, 2])
def test_a_concatenated_query_drives_its_group_of_nodes(random_graph, pictures, channels):
    projector = ConcatenatedQuery((3, 9, 10), random_graph, queries=4, patch=4, width=8, layers=1, heads=2, channels=channels).double()
    torch.nn.init.normal_(projector.nodes.bias)
    tokens, nodes = tokens_of(projector.encoder, pictures, 4), random_graph.num_nodes
    drive, before = projector(pictures), [0] * 4
    for node in range(nodes):
        group = node * 4 // nodes
        factor = projector.nodes.factor[group].unflatten(1, (-1, channels or 1))[:, before[group]]  # [D, C]
        before[group] += 1
        expected = tokens[:, group] @ factor + projector.nodes.bias[node]
        torch.testing.assert_close(drive[:, node].view(4, -1), expected)
    assert ConcatenatedQuery((8, 8), topologies.complete(3), queries=8).queries == 3


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("sides", [(6, 4), (4, 6, 3), (5, 5, 2, 2)])
def test_a_patch_drives_the_cells_where_it_lies(sides, normal, channels):
    """2 × 2 patches on the first two axes; the same map for all of them."""
    graph = topologies.grid(sides, len(sides))
    projector = Patchify((8, 8), graph, patch=4, channels=channels).double()
    torch.nn.init.normal_(projector.bias)
    picture = normal(2, 8, 8)
    drive = projector(picture).view(2, *sides, channels or 1)
    bias = projector.bias.view(*sides, channels or 1)
    for row in range(2):
        for column in range(2):
            patch = picture[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
            made = (patch @ projector.embedding.weight.T).unflatten(1, (-1, channels or 1))
            inside = [[i for i in range(side) if i * 2 // side == place] for side, place in ((sides[0], row), (sides[1], column))]
            block = (drive - bias)[:, inside[0]][:, :, inside[1]].flatten(1, -2)
            torch.testing.assert_close(block, made[:, : block.size(1)])


def test_patches_of_one_axis_follow_each_other(normal):
    projector = Patchify((8, 8), topologies.grid(12, 1), patch=4).double()
    picture = normal(3, 8, 8)
    expected = patchify(picture, 4).flatten(1, 2).flatten(2) @ projector.embedding.weight.T
    torch.testing.assert_close(projector(picture), expected.flatten(1))


def test_patches_of_a_graph_have_node_factors(random_graph, normal):
    projector = Patchify((8, 8), random_graph, patch=4, width=5).double()
    picture, nodes = normal(3, 8, 8), random_graph.num_nodes
    tokens = patchify(picture, 4).flatten(1, 2).flatten(2) @ projector.embedding.weight.T
    drive, seen = projector(picture), [0] * 4
    for node in range(nodes):
        group = node * 4 // nodes
        torch.testing.assert_close(drive[:, node], tokens[:, group] @ projector.nodes.factor[group, :, seen[group]])
        seen[group] += 1


@pytest.mark.parametrize("sides", [(2, 1), (1, 1), (3,), (1, 3, 2)])
def test_no_patch_is_lost_on_a_small_lattice(sides, normal):
    """More patches than parts: neighbours are averaged, so every pixel still counts."""
    projector = Patchify((8, 12), topologies.grid(sides, len(sides), boundary="open"), patch=2).double()
    picture = normal(2, 8, 12).requires_grad_()
    projector(picture).square().sum().backward()
    assert bool((picture.grad != 0).all())


@pytest.mark.parametrize("sides", [(1, 4), (4, 1), (1, 4, 2), (2, 3)])
def test_rows_and_columns_of_patches_keep_their_axes(sides, normal):
    """Also where there is one part along an axis: torch's pooling of the grid of patches, then one map for all."""
    projector = Patchify((8, 6), topologies.grid(sides, len(sides)), patch=2).double()
    picture = normal(2, 8, 6)
    made = patchify(picture, 2).flatten(3) @ projector.embedding.weight.T  # [B, 4, 3, slots]
    rows, columns = min(4, sides[0]), min(3, sides[1])
    pooled = functional.adaptive_avg_pool2d(made.permute(0, 3, 1, 2), (rows, columns)).permute(0, 2, 3, 1)
    drive = projector(picture).view(2, *sides[:2], -1)
    seen = torch.zeros(rows, columns, dtype=torch.long)
    for i in range(sides[0]):
        for j in range(sides[1]):
            u, v = i * rows // sides[0], j * columns // sides[1]
            layers = drive.size(-1)
            part = pooled[:, u, v, seen[u, v] : seen[u, v] + layers]
            seen[u, v] += layers
            torch.testing.assert_close(drive[:, i, j], part)


def test_patches_are_views_of_the_picture(lattice):
    """Nothing is copied to cut a picture whose sides fit."""
    projector = Patchify((3, 8, 8), lattice, patch=4)
    x = torch.rand(2, 3, 8, 8)
    assert patchify(x, projector.patches.patch).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


@pytest.mark.parametrize("patch", [None, 4])
@pytest.mark.parametrize("name", PATCHED)
def test_pictures_that_are_cut_already_give_the_same_drive(name, patch, lattice, pictures):
    whole = PATCHED[name]((3, 9, 10), lattice, patch=4, **SMALL[name]).double()
    cut = PATCHED[name](patchify(pictures, 4).shape[1:], lattice, patch=patch, **SMALL[name]).double()
    cut.load_state_dict(whole.state_dict())
    torch.testing.assert_close(cut(patchify(pictures, 4)), whole(pictures), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("sides", [(5, 4, 3), (5, 4), (6,), (3, 4, 2, 2)])
def test_the_maps_of_a_cnn_are_the_layers_of_a_volume(sides, normal, channels):
    projector = VoxelCNN((3, 8, 8), topologies.grid(sides, len(sides)), width=4, layers=1, channels=channels).double()
    torch.nn.init.normal_(projector.bias)
    x, (convolution, norm, _) = normal(2, 3, 8, 8), projector.network
    maps = functional.gelu(norm(functional.conv2d(x, convolution.weight, convolution.bias, padding=1)))
    mixed = torch.einsum("om,bmhw->bohw", projector.mix.weight[:, :, 0, 0], maps)
    plane = (sides[0], sides[1] if len(sides) > 1 else 1)
    small = functional.interpolate(mixed, plane, mode="bilinear", antialias=True)
    drive = (projector(x) - projector.bias).view(2, *plane, -1, channels or 1)
    torch.testing.assert_close(drive.permute(0, 3, 4, 1, 2).flatten(1, 2), small)


@pytest.mark.parametrize("name", ["ConcatenatedQuery", "ViT"])
def test_a_stem_of_convolutions_comes_before_the_patches(name, lattice, pictures):
    """Two convolutions make 3 × 3 maps out of 9 × 10 pixels; patches of eight pixels are two of these, filled up."""
    projector = PATCHED[name]((3, 9, 10), lattice, stem=2, patch=8, **SMALL[name]).double()
    first, norm, _, second, last_norm, _ = projector.encoder.stem.layers
    maps = functional.gelu(norm(functional.conv2d(pictures, first.weight, first.bias, stride=2, padding=1)))
    maps = functional.gelu(last_norm(functional.conv2d(maps, second.weight, second.bias, stride=2, padding=1)))
    assert maps.shape == (4, *projector.encoder.stem.out_shape) == (4, 8, 3, 3)
    torch.testing.assert_close(projector.encoder(pictures), tokens_of(projector.encoder, maps, 2))
    grey = PATCHED[name]((9, 10), lattice, stem=1, patch=4, **SMALL[name]).double()
    assert grey(pictures[:, 0]).shape == (4, lattice.num_nodes)


def test_every_further_layer_halves_the_maps(lattice):
    projector = VoxelCNN((16, 12), lattice, width=4, layers=4)
    assert projector.network(torch.rand(1, 1, 16, 12)).shape == (1, 16, 2, 2)


@pytest.mark.parametrize("channels", [None, 3])
def test_low_rank_is_two_matrices(random_graph, normal, channels):
    projector = LowRank((2, 3), random_graph, rank=2, channels=channels).double()
    x = normal(4, 2, 3)
    weight = projector.outer.weight @ projector.inner.weight
    assert torch.linalg.matrix_rank(weight) == 2
    torch.testing.assert_close(projector(x).flatten(1), x.flatten(1) @ weight.T + projector.outer.bias)
    torch.manual_seed(0)
    wide = LowRank((400,), topologies.grid(8, 3), rank=32, gain=0.7)
    assert float(wide(torch.randn(64, 400)).detach().std()) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("name", [*PATCHED, "VoxelCNN", "LowRank"])
@pytest.mark.parametrize("channels", [None, 2])
def test_gradients_are_those_of_differences(name, channels, normal):
    torch.manual_seed(0)
    graph = topologies.grid((3, 2), 2)
    options = SMALL.get(name, {"width": 2} if name == "VoxelCNN" else {})
    projector = PROJECTORS[name]((5, 4), graph, channels=channels, **options, **({"patch": 2} if name in PATCHED else {})).double()
    assert torch.autograd.gradcheck(projector, (normal(2, 5, 4).requires_grad_(),))
    parameter = next(projector.parameters())
    x = normal(2, 5, 4)

    def of(value):
        return torch.func.functional_call(projector, {next(iter(dict(projector.named_parameters()))): value}, (x,))

    assert torch.autograd.gradcheck(of, (parameter.detach().clone().requires_grad_(),))


@pytest.mark.parametrize(
    ("name", "in_shape", "options", "message"),
    [
        *((name, (5,), {}, r"in_shape must be \(height, width\), \(C, height, width\) or") for name in PATCHED),
        *((name, (2, 2, 3, 4, 5), {}, r"in_shape must be \(height, width\)") for name in PATCHED),
        *((name, (8, 8), {"patch": 0}, "patch must be an integer >= 1, got 0") for name in PATCHED),
        *(
            (name, (8, 8), {"stem": 2, "patch": 6}, "patch must be a multiple of 4, since 2 convolutions")
            for name in ("ViT", "ConcatenatedQuery")
        ),
        ("ViT", (2, 2, 1, 4, 4), {"stem": 1, "patch": 4}, "where there is a stem, got"),
        *((name, (2, 2, 1, 4, 4), {"patch": 2}, "patch must be that of the pictures, which are cut already, 4 or") for name in PATCHED),
        ("ViT", (8, 8), {"stem": -1}, "stem must be an integer >= 0, got -1"),
        ("VoxelCNN", (5,), {}, r"in_shape must be \(height, width\) or \(C, height, width\), got \(5,\)"),
        ("VoxelCNN", (8, 8), {"layers": 0}, "layers must be an integer >= 1, got 0"),
        ("VoxelCNN", (8, 8), {"gain": 0}, "gain must be a finite number > 0, got 0"),
        ("VoxelCNN", (8, 8), {"rank": 0}, "rank must be an integer >= 1, got 0"),
        ("ViT", (8, 8), {"heads": 5}, r"heads must divide width \(64\), got 5"),
        ("ViT", (8, 8), {"head": "cpp"}, "head must be one of"),
        ("ViT", (8, 8), {"dropout": 2}, "dropout must be"),
        ("ViT", (8, 8), {"layers": -1}, "layers must be an integer >= 0"),
        ("ConcatenatedQuery", (8, 8), {"queries": 0}, "queries must be an integer >= 1, got 0"),
        ("ConcatenatedQuery", (8, 8), {"layers": 0}, "layers must be an integer >= 1, got 0"),
        ("Patchify", (8, 8), {"gain": -1}, "gain must be a finite number > 0, got -1"),
        ("LowRank", (5,), {"rank": 0}, "rank must be an integer >= 1, got 0"),
        ("LowRank", (5,), {"gain": 0}, "gain must be a finite number > 0, got 0"),
    ],
)
def test_a_bad_argument_is_named(name, in_shape, options, message, lattice):
    with pytest.raises(ValueError, match=message):
        PROJECTORS[name](in_shape, lattice, **options)


@pytest.mark.parametrize("name", ["ConcatenatedQuery", "ViT"])
def test_what_is_drawn_anew_is_as_in_a_new_one(name, lattice):
    """Zeros where a new one has zeros, other numbers where it has random ones."""
    torch.manual_seed(0)
    new = PATCHED[name]((8, 8), lattice, patch=4, **SMALL[name])
    used = PATCHED[name]((8, 8), lattice, patch=4, **SMALL[name])
    for parameter in used.parameters():
        torch.nn.init.constant_(parameter, 5.0)
    used.reset_parameters()
    for (key, one), two in zip(new.named_parameters(), used.parameters()):
        assert bool((one == 0).all()) == bool((two == 0).all()), key
        assert not bool((two == 5).any()), key
