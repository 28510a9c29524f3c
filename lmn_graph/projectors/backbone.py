"""Features of a frozen picture network, and a learned map from them to the drive."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_geometric.data import Data

from lmn_graph._precision import full_precision
from lmn_graph.projectors._feature_cache import FeatureCache, folder_of
from lmn_graph.projectors.base import PROJECTORS, Projector
from lmn_graph.registry import did_you_mean
from topologies import _checks

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, which torchvision's weights expect
COUNT = "num_batches_tracked"  # a number that only training uses; files of old versions of torch do not have it


@PROJECTORS.register
class Backbone(Projector):
    r"""drive = W norm(f(x)) + b, with f a frozen torchvision network without its last layer.

    f takes pictures in [0, 1], normalised with the mean and standard deviation of ImageNet's channels; norm divides by the largest
    feature and normalises as a layer norm does, so that features of any size give a drive of moderate size. Only W and b learn: f
    stays in evaluation mode, and its weights are buffers, which no optimiser and no count of parameters sees. Its operations are
    recorded for the backward pass only where x itself asks for a gradient.

    ``state_dict`` holds W and b, and the weights of f where they were drawn at random. Weights from a file are left out: they are read
    again when the projector is built, and their checksum, which is saved, must be the same then.

    With a cache f is run once per picture: its features are kept in a file of the folder that belongs to f, its weights and its size, and
    looked up by the picture's content wherever no gradient to x is asked for (in double precision f is run as without). The last bits of
    f(x) may depend on the batch it is computed in; kept is what was computed first, so runs are the same bit for bit where they begin with
    the same cache. Nothing in a cache is ever deleted: delete the folder.

    Args:
        in_shape: (height, width), grey, or (3, height, width).
        topology: the graph to drive.
        channels: None for scalar cells, else C.
        ports: drive the topology's input ports only, where it has them.
        model: a classification network of torchvision, such as resnet50 or mobilenet_v2.
        weights: None: drawn at random, from the global generator; "default": torchvision's own, downloaded where they are not there;
            or a file with a state_dict of the model (.safetensors, else one of torch.save), whose last layer is not looked at.
        size: height and width in pixels that pictures are stretched to (bilinear) before f; None: as they are.
        norm: "layer" as above, or "batch": each feature is then also brought to mean 0 and variance 1 over the batch (running means in
            evaluation). Random networks need it: their features hardly differ between pictures beside what all pictures share.
        cache: a folder on a local disk that features are kept in, shared by any number of runs; None: f is run every time.

    Raises:
        ValueError: if ``in_shape`` is not that of pictures, torchvision has no such model, the model takes no pictures of that size,
            the weights are not there or not the model's, or ``cache`` is a file; in the forward pass, if a file of the cache is damaged.

    Source: Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?" 2014.
    """

    mean: Tensor
    deviation: Tensor
    checksum: Tensor | None
    paths: ClassVar[tuple[str, ...]] = ("weights", "cache")

    def __init__(
        self,
        in_shape: Sequence[int],
        topology: Data,
        *,
        channels: int | None = None,
        ports: bool = True,
        model: str = "resnet50",
        weights: str | Path | None = None,
        size: int | None = None,
        norm: Literal["layer", "batch"] = "layer",
        cache: str | Path | None = None,
    ) -> None:
        super().__init__(in_shape, topology, channels=channels, ports=ports)
        if len(self.in_shape) not in (2, 3) or (len(self.in_shape) == 3 and self.in_shape[0] != 3):
            raise ValueError(f"in_shape must be (height, width) or (3, height, width) for Backbone, got {self.in_shape}")
        self.size = None if size is None else _checks.integer("size", size, minimum=1, maximum=4096)
        self.model, self.weights = model, None if weights is None else str(weights)
        self.cache = None if cache is None else folder_of(cache)
        self._cached: tuple[Any, FeatureCache] | None = None  # of f as it was then
        sides = self.in_shape[-2:] if self.size is None else (self.size, self.size)
        network, head = _headless(model, sides, published=self.weights is not None)
        if self.weights is not None:
            _put(network, _read(model, self.weights, head), self.weights)
        self.network = _frozen(network, saved=self.weights is None)
        self.register_buffer("checksum", None if self.weights is None else torch.tensor(_checksum(network)))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.num_features = self._try(sides)
        batch = _checks.choice("norm", norm, ("layer", "batch")) == "batch"
        self.standard = nn.BatchNorm1d(self.num_features, affine=False) if batch else None
        self.linear = nn.Linear(self.num_features, self.num_driven * (self.channels or 1))

    def reset_parameters(self) -> None:
        """Draw W and b anew and forget running means; f stays as it is."""
        self.linear.reset_parameters()
        if self.standard is not None:
            self.standard.reset_running_stats()

    def train(self, mode: bool = True) -> Backbone:
        """As of any module, but f stays in evaluation mode: no dropout, no batch statistics."""
        super().train(mode)
        self.network.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """f(x) [B, F] of pictures [B, *in_shape]."""
        if len(x) == 0:  # not every network takes an empty batch
            return x.flatten(1).sum(1, keepdim=True).expand(-1, self.num_features)
        recorded = torch.is_grad_enabled() and x.requires_grad
        single = x.dtype == self.mean.dtype == torch.float32
        if self.cache is None or recorded or not single or torch.compiler.is_compiling():
            with torch.set_grad_enabled(recorded):
                return self._features(x)
        with torch.no_grad(), full_precision(x.device):
            return self._feature_cache(self.cache).features(x, self._features, self.num_features)

    def _features(self, x: Tensor) -> Tensor:
        pictures = x.unsqueeze(1) if len(self.in_shape) == 2 else x
        if self.size is not None:
            pictures = nn.functional.interpolate(pictures, (self.size, self.size), mode="bilinear", antialias=True)
        normal = (pictures - self.mean) / self.deviation
        return self.network(normal.contiguous(memory_format=torch.channels_last))

    def _feature_cache(self, folder: Path) -> FeatureCache:
        """The features of f as it is now: weights drawn at random are others once a model was loaded."""
        state = [(value.data_ptr(), -1 if value.is_inference() else value._version) for value in self.network.buffers()]
        if self._cached is None or self._cached[0] != state:
            self._cached = state, FeatureCache(folder, f"{self.model}-{self._identity()}")
        return self._cached[1]

    def _identity(self) -> str:
        """A digest of everything but x that f(x) depends on."""
        import torchvision

        found = hashlib.blake2b(digest_size=16)
        options = [self.model, self.size, self.weights is not None, torch.__version__, torchvision.__version__]
        found.update(json.dumps(options).encode())
        for name, value in self.network.named_buffers():
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def _apply(self, *arguments: Any, **keywords: Any) -> Backbone:
        self._cached = None  # weights of another device or dtype may come to lie where the old ones were
        return super()._apply(*arguments, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_cached": None}

    def project(self, x: Tensor) -> Tensor:
        features = self.features(x)
        # A network with random weights may have features of 1e-14, which the eps of the layer norm would swallow.
        largest = features.abs().amax(1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
        normal = nn.functional.layer_norm(features / largest, (self.num_features,))
        if self.standard is not None:
            mean, variance = self.standard.running_mean, self.standard.running_var
            one = len(x) == 1  # has no variance of its own
            normal = nn.functional.batch_norm(normal, mean, variance) if one else self.standard(normal)
        drive = self.linear(normal)
        return drive if self.channels is None else drive.unflatten(1, (self.num_driven, self.channels))

    def _try(self, sides: tuple[int, ...]) -> int:
        """F, from one black picture."""
        try:
            with torch.no_grad():
                found = self.network(self.mean.new_zeros(1, 3, *sides))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"size must be one that {self.model} takes, got pictures of {sides[0]} × {sides[1]} pixels: {_one_line(error)}"
            ) from None
        return found.shape[1]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        given = state_dict.get(f"{prefix}checksum")
        if self.checksum is not None and given is not None and int(given) != int(self.checksum):
            arguments[-1].append(f"{prefix}weights: {self.weights!r} does not hold the weights that the projector was trained with")
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        return f"model={self.model!r}, weights={self.weights!r}, size={self.size}"


def _headless(model: str, sides: tuple[int, ...], *, published: bool) -> tuple[nn.Module, str]:
    """A network with random weights whose last layer is the identity, and the name of that layer."""
    from torchvision import models

    known = models.list_models(module=models)
    if not isinstance(model, str) or model not in known:
        raise ValueError(f"model must be a classification network of torchvision, got {model!r}{did_you_mean(model, known)}")
    options: dict[str, Any] = {}
    if model in ("googlenet", "inception_v3"):  # their own way to draw takes a minute; published weights expect other means
        options = {"transform_input": published, "init_weights": False, "aux_logits": False}
    if model.startswith("vit_"):  # its position embedding is made for one size
        options = {"image_size": sides[0]}
    try:
        network = models.get_model(model, weights=None, **options)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"size must be one that {model} takes, got {sides[0]}: {_one_line(error)}") from None
    if isinstance(network, models.MNASNet):  # it loads no state_dict without metadata, which safetensors do not keep
        parts = {"layers": network.layers, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "classifier": network.classifier}
        network = nn.Sequential(OrderedDict(parts))
    modules = list(network.named_modules())
    layers = [name for name, module in modules if isinstance(module, nn.Linear)]
    head = (layers or [name for name, module in modules if isinstance(module, nn.Conv2d)])[-1]  # squeezenet's is a convolution
    network.set_submodule(head, nn.Identity())
    return network, head


def _frozen(network: nn.Module, *, saved: bool) -> nn.Module:
    """``network`` in evaluation mode with its parameters turned into buffers; ``saved``: whether a state_dict holds them."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=saved)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_batches_tracked = None  # of training alone
            module.track_running_stats = False  # or it asks every state_dict for that number; it goes on to use its statistics
    return network.eval().to(memory_format=torch.channels_last)  # convolutions on a CPU are up to a third faster


def _read(model: str, weights: str, head: str) -> dict[str, Tensor]:
    """The tensors of a state_dict but those of the last layer; nothing else is unpickled."""
    path = Path(weights).expanduser()
    try:
        if weights == "default":
            from torchvision.models import get_model_weights

            chosen: Any = get_model_weights(model)
            found = chosen.DEFAULT.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
        elif not path.is_file():
            raise ValueError(f"weights must be None, 'default' or a file, got {weights!r}, which does not exist")
        elif path.suffix.lower() == ".safetensors":
            found = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected pickle protocol")  # of a file that torch then refuses
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"weights {weights!r} of {model} cannot be read: the file is damaged or holds more than tensors, of which nothing is loaded"
        ) from None
    except (OSError, RuntimeError, EOFError, KeyError, SafetensorError) as error:
        hint = "; torchvision's file can be given by its path instead" if weights == "default" else ""
        raise ValueError(f"weights {weights!r} of {model} cannot be read: {_one_line(error)}{hint}") from None
    if not isinstance(found, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise ValueError(f"weights {weights!r} must hold a state_dict, names and tensors and nothing else")
    # Files of DenseNets have the names that torchvision gave to parts of a layer before version 0.3.
    renamed = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", name): value for name, value in found.items()}
    left_out = (f"{head}.", "aux1.", "aux2.", "AuxLogits.")
    return {name: value for name, value in renamed.items() if not name.startswith(left_out) and not name.endswith(COUNT)}


def _put(network: nn.Module, found: dict[str, Tensor], weights: str) -> None:
    """Load tensors into a network, or say which of them is the first that does not fit."""
    own = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNT)}
    for name, value in own.items():
        if name not in found:
            raise ValueError(f"weights {weights!r} are of another model: {name!r} is missing")
        if found[name].shape != value.shape:
            got, expected = list(found[name].shape), list(value.shape)
            raise ValueError(f"weights {weights!r} are of another model or size: {name!r} must have shape {expected}, got {got}")
    unknown = next((name for name in found if name not in own), None)
    if unknown is not None:
        raise ValueError(f"weights {weights!r} are of another model: {unknown!r} is not a part of it")
    for name, value in own.items():
        value.copy_(found[name])


def _checksum(network: nn.Module) -> int:
    """CRC-32 of all tensors of a frozen network, in their order."""
    found = 0
    for value in network.buffers():
        found = zlib.crc32(value.contiguous().flatten().view(torch.uint8).numpy().tobytes(), found)
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
