"""The frozen backbone: features are torchvision's, nothing of it moves, files are the model's or refused."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.functional import normalize, resize

import topologies
from lmn_graph import LatticeMachine
from lmn_graph.projectors import Backbone
from lmn_graph.readouts import Rate
from lmn_graph.rules import SpikingSOC
from lmn_graph.training.build import count_parameters
from lmn_graph.training.files import load_model, save_model

SMALL = "shufflenet_v2_x0_5"
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def randomised(name, **options):
    """torchvision's network with statistics and weights unlike those of a new one."""
    network = torchvision.models.get_model(name, weights=None, **options)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.05, 0.2)
    return network.eval()


def assert_same_features(projector, own, head):
    """In double precision, and relative to their size: networks with random weights have features of any."""
    seen = []
    own.double().get_submodule(head).register_forward_pre_hook(lambda _, given: seen.append(*given))
    x = torch.rand(2, *projector.in_shape, dtype=torch.float64)
    with torch.no_grad():
        own((x - projector.mean) / projector.deviation)
        found = projector.double().features(x)
    expected = seen[0] if seen[0].dim() == 2 else seen[0].mean((2, 3))  # the last layer of a SqueezeNet is a convolution
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-9 * expected.norm()


@pytest.fixture(scope="module")
def mobilenet_file(tmp_path_factory):
    """The published MobileNetV2 where LMN_DATA points to it, else a random one."""
    if os.environ.get("LMN_DATA"):
        return Path(os.environ["LMN_DATA"]) / "checkpoints" / "mobilenet_v2-b0353104.pth"
    path = tmp_path_factory.mktemp("checkpoints") / "mobilenet_v2.pth"
    torch.save(randomised("mobilenet_v2").state_dict(), path)
    return path


@pytest.fixture
def shufflenet_file(tmp_path):
    torch.save(randomised(SMALL).state_dict(), tmp_path / "shufflenet.pth")
    return tmp_path / "shufflenet.pth"


def test_features_are_those_of_torchvision(mobilenet_file, lattice):
    """``features`` and pooling of torchvision's own network, on ImageNet's normalisation; the drive is W of their layer norm."""
    own = torchvision.models.mobilenet_v2()
    own.load_state_dict(torch.load(mobilenet_file, weights_only=True))
    x = torch.rand(3, 3, 40, 48)
    with torch.no_grad():
        expected = own.eval().features(normalize(x, *IMAGENET)).mean((2, 3))
    projector = Backbone((3, 40, 48), lattice, model="mobilenet_v2", weights=str(mobilenet_file))
    assert projector.num_features == 1280
    torch.testing.assert_close(projector.features(x), expected)
    torch.testing.assert_close(projector(x), projector.linear(nn.functional.layer_norm(expected, (1280,), eps=0.0)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (SMALL, "fc"), ("resnet18", "fc"), ("regnet_x_400mf", "fc"), ("squeezenet1_1", "classifier.1"), ("mnasnet0_5", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"), ("densenet121", "classifier"), ("googlenet", "fc"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
def test_the_last_layer_is_found_in_every_family(model, head, lattice, tmp_path):
    """Features are what torchvision's own forward pass gives to its last layer; a file with other classes is as good."""
    own = randomised(model, num_classes=7, **({"aux_logits": True, "transform_input": True} if model == "googlenet" else {}))
    torch.save(own.state_dict(), tmp_path / "own.pth")
    projector = Backbone((3, 64, 64), lattice, model=model, weights=tmp_path / "own.pth")
    assert_same_features(projector, own, head)


def test_grey_pictures_are_three_equal_channels_and_are_stretched_to_the_size(lattice):
    torch.manual_seed(1)
    grey = Backbone((20, 24), lattice, model=SMALL, size=40)
    torch.manual_seed(1)
    colour = Backbone((3, 40, 40), lattice, model=SMALL)
    x = torch.rand(2, 20, 24)
    stretched = resize(x.unsqueeze(1), [40, 40], antialias=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(grey(x), colour(stretched), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [SMALL, "mobilenet_v3_small"])
def test_nothing_of_the_backbone_moves_in_training(model, lattice):
    """Train mode, an optimiser of every parameter with weight decay: running statistics and weights stay, W and b learn."""
    machine = LatticeMachine(lattice, Backbone((8, 8), lattice, model=model), SpikingSOC(lattice), Rate(lattice, 2, steps=4), steps=4)
    projector = machine.train().projector
    assert machine.training
    assert not any(module.training for module in projector.network.modules())
    before, linear = copy.deepcopy(projector.network.state_dict()), projector.linear.weight.detach().clone()
    x = torch.rand(4, 8, 8)
    assert torch.equal(projector(x), projector(x))
    optimizer = torch.optim.AdamW(machine.requires_grad_(True).parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(2):
        loss = machine(x).prediction.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not torch.equal(projector.linear.weight, linear)
    assert len(before) > 50
    for name, value in projector.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_only_the_linear_map_learns(lattice):
    """It alone is counted; features keep nothing for the backward pass unless the input asks for a gradient."""
    projector = Backbone((8, 8), lattice, model=SMALL, channels=3)
    assert [name for name, _ in projector.named_parameters()] == ["linear.weight", "linear.bias"]
    assert count_parameters(projector) == (1024 + 1) * 16 * 3
    x = torch.rand(2, 8, 8)
    assert not projector.features(x).requires_grad
    assert projector.features(x.requires_grad_()).requires_grad
    before = copy.deepcopy(projector.state_dict())
    projector.reset_parameters()
    moved = [name for name, value in projector.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == ["linear.weight", "linear.bias"]


def test_features_are_computed_once(lattice):
    projector = Backbone((8, 8), lattice, model=SMALL, channels=2)
    calls = []
    projector.network.register_forward_hook(lambda *_: calls.append(1))
    projector(torch.rand(2, 8, 8)).sum().backward()
    assert calls == [1]


def test_tiny_features_are_not_swallowed_by_the_normalisation(lattice):
    """EfficientNet with random weights has features of 1e-14: the drive is moderate and tells pictures apart."""
    drive = Backbone((3, 32, 32), lattice, model="efficientnet_b0")(torch.rand(4, 3, 32, 32)).detach()
    assert drive.std() > 0.1
    assert drive.std(0).mean() > 0.01


@pytest.mark.parametrize("model", [SMALL, "mnasnet0_5", "squeezenet1_1"])
def test_random_weights_are_seeded_and_saved(model, lattice, tmp_path):
    """The global generator's seed is the weights; a projector made with another one is restored from the file."""
    torch.manual_seed(5)
    one = Backbone((32, 32), lattice, model=model)
    torch.manual_seed(5)
    same = Backbone((32, 32), lattice, model=model)
    other = Backbone((32, 32), lattice, model=model)
    x = torch.rand(2, 32, 32)
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one.features(x), other.features(x))
    save_model(one, tmp_path / "model.safetensors")
    load_model(other, tmp_path / "model.safetensors")
    for copied in (other, copy.deepcopy(one)):
        assert torch.equal(one(x), copied(x))
    assert one.double()(x.double()).dtype == torch.float64


def test_weights_from_a_file_are_not_saved_again_but_must_be_the_same(shufflenet_file, lattice, tmp_path):
    """Only W, b and a checksum are saved; a file that has changed since is refused when the model is loaded."""
    one, two = (Backbone((8, 8), lattice, model=SMALL, weights=str(shufflenet_file)) for _ in range(2))
    assert set(one.state_dict()) == {"linear.weight", "linear.bias", "checksum"}
    save_model(one, tmp_path / "model.safetensors")
    load_model(two, tmp_path / "model.safetensors")
    x = torch.rand(2, 8, 8)
    assert torch.equal(one(x), two(x))
    torch.save(randomised(SMALL).state_dict(), shufflenet_file)
    other = Backbone((8, 8), lattice, model=SMALL, weights=str(shufflenet_file))
    with pytest.raises(ValueError, match=r"shufflenet.pth' does not hold the weights that the projector was trained with"):
        load_model(other, tmp_path / "model.safetensors")


def test_the_kinds_of_files(shufflenet_file, lattice, tmp_path, monkeypatch):
    """Safetensors, torch's own, and the cache of torchvision's downloads hold the same network."""
    tensors = torch.load(shufflenet_file, weights_only=True)
    save_file(tensors, tmp_path / "shufflenet.safetensors")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    cached = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(tensors, cached)
    x = torch.rand(2, 8, 8)
    one, two, three = (
        Backbone((8, 8), lattice, model=SMALL, weights=weights).features(x)
        for weights in (shufflenet_file, tmp_path / "shufflenet.safetensors", "default")
    )
    assert torch.equal(one, two)
    assert torch.equal(one, three)


def test_old_files_of_densenets_are_read(lattice, tmp_path):
    """Their layers are called norm.1, conv.2 where today's are norm1, conv2; they have no count of batches."""
    own = randomised("densenet121")
    old = {
        name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1.").replace("conv2.", "conv.2.")
        if "denselayer" in name
        else name: value
        for name, value in own.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    projector = Backbone((3, 32, 32), lattice, model="densenet121", weights=tmp_path / "old.pth")
    assert_same_features(projector, own, "classifier")


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_do_not_fit_are_refused(shufflenet_file, mobilenet_file, lattice, tmp_path):
    """By the first name that differs; nothing in them is executed."""

    def refused(weights, message, model=SMALL):
        with pytest.raises(ValueError, match=message):
            Backbone((8, 8), lattice, model=model, weights=str(weights))

    refused(mobilenet_file, r"of another model: 'conv1\.0\.weight' is missing")
    tensors = torch.load(shufflenet_file, weights_only=True)
    refused(
        shufflenet_file,
        r"of another model or size: 'stage2\.0\.branch1\.2\.weight' must have shape \[58, 24, 1, 1\], got \[24, 24, 1, 1\]",
        "shufflenet_v2_x1_0",
    )
    torch.save(tensors | {"extra.weight": torch.zeros(1)}, tmp_path / "more.pth")
    refused(tmp_path / "more.pth", r"more.pth' are of another model: 'extra\.weight' is not a part of it")
    torch.save({"state_dict": tensors}, tmp_path / "nested.pth")
    refused(tmp_path / "nested.pth", "must hold a state_dict, names and tensors and nothing else")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "must hold a state_dict, names and tensors and nothing else")
    torch.save(tensors | {"trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    refused(tmp_path / "trap.pth", r"trap.pth' of shufflenet_v2_x0_5 cannot be read")
    assert not (tmp_path / "sprung").exists()
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("no tensors")
        refused(tmp_path / name, rf"{name}' of shufflenet_v2_x0_5 cannot be read")
    (tmp_path / "empty.pth").touch()
    refused(tmp_path / "empty.pth", r"empty.pth' of shufflenet_v2_x0_5 cannot be read")
    refused(tmp_path / "none.pth", r"weights must be None, 'default' or a file, got '.*none\.pth', which does not exist")
    refused("defualt", "weights must be None, 'default' or a file, got 'defualt', which does not exist")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet5"}, "model must be a classification network of torchvision, got 'resnet5'; did you mean 'resnet50'"),
        ({"model": "fcn_resnet50"}, "model must be a classification network of torchvision, got 'fcn_resnet50'; did you mean"),
        ({"model": 50}, "model must be a classification network of torchvision, got 50"),
        ({"in_shape": (64,)}, r"in_shape must be \(height, width\) or \(3, height, width\) for Backbone, got \(64,\)"),
        ({"in_shape": (1, 8, 8)}, r"in_shape must be \(height, width\) or \(3, height, width\) for Backbone, got \(1, 8, 8\)"),
        ({"in_shape": (2, 3, 8, 8)}, r"in_shape must be \(height, width\) or \(3, height, width\) for Backbone"),
        ({"size": 0}, r"size must be an integer in \[1, 4096\], got 0"),
        ({"model": "squeezenet1_1"}, "size must be one that squeezenet1_1 takes, got pictures of 8 × 8 pixels: "),
        ({"model": "alexnet", "size": 20}, "size must be one that alexnet takes, got pictures of 20 × 20 pixels: "),
    ],
)
def test_a_bad_argument_is_named(arguments, message, lattice):
    with pytest.raises(ValueError, match=message):
        Backbone(**({"in_shape": (8, 8), "topology": lattice, "model": SMALL} | arguments))


def test_a_vision_transformer_is_made_for_the_size(lattice, monkeypatch):
    """Its position embedding has one entry per patch; a size that is no multiple of the patch is refused."""
    sizes = []

    def tiny(image_size, weights=None):
        sizes.append(image_size)
        return torchvision.models.VisionTransformer(image_size, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8)

    monkeypatch.setitem(torchvision.models._api.BUILTIN_MODELS, "vit_b_16", tiny)
    monkeypatch.setattr(torchvision.models, "list_models", lambda module: ["vit_b_16"])
    projector = Backbone((20, 20), lattice, model="vit_b_16", size=32)
    assert sizes == [32]
    assert projector.num_features == 8
    assert projector(torch.rand(2, 20, 20)).shape == (2, 16)
    with pytest.raises(ValueError, match="size must be one that vit_b_16 takes, got 20: Input shape indivisible by patch size"):
        Backbone((20, 20), lattice, model="vit_b_16")
    with pytest.raises(ValueError, match="size must be one that vit_b_16 takes, got pictures of 16 × 32 pixels: Wrong image width"):
        Backbone((16, 32), lattice, model="vit_b_16")


def test_it_drives_the_ports_alone():
    graph = topologies.grid(4, 2)
    graph.input_index = torch.tensor([3, 1])
    drive = Backbone((8, 8), graph, model=SMALL)(torch.rand(2, 8, 8))
    assert drive.detach().any(0).nonzero().flatten().tolist() == [1, 3]


def test_features_are_standardised_over_the_batch_where_asked(lattice):
    """The linear map sees each feature with mean 0 and variance 1 over the rows that differ, and running means in evaluation."""
    projector = Backbone((8, 8), lattice, model=SMALL, norm="batch")
    seen = []
    projector.linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    x = torch.rand(64, 8, 8)
    projector(x)
    differs = seen[0].std(0) > 0.5
    assert float(differs.float().mean()) > 0.9
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(seen[0].size(1)), atol=1e-4, rtol=0)
    assert projector(x[:1]).shape == (1, 16)
    before = projector.standard.running_mean.clone()
    projector.eval()(x)
    assert torch.equal(projector.standard.running_mean, before)
    assert not torch.allclose(seen[0], seen[-1])
    with pytest.raises(ValueError, match="norm must be one of 'layer', 'batch', got 'group'"):
        Backbone((8, 8), lattice, model=SMALL, norm="group")
