"""The zoo: trained networks by name, with what is known about each.

Weights are safetensors files beside one JSON file a member (``entries.py``), or come from an installed package
(``packaged.py``). They are only read here, and whatever is not exactly as it was entered is refused in a sentence that
names the member.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import torch
from torch import nn

from thesis_kit.checks import check_count, choose
from thesis_kit.files import DamagedFile
from thesis_kit.models import entries, packaged
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.entries import Entry, MissingWeights, Package, Score, Sibling, command
from thesis_kit.models.kinds import KINDS
from thesis_kit.models.reading import READERS
from thesis_kit.models.stored import UnfitWeights, put

FOLDER = entries.FOLDER
COHORTS = entries.COHORTS

__all__ = ["Entry", "MissingWeights", "Package", "Score", "Sibling", "UnfitWeights", "entry", "load", "names"]


def names(*, folder: str | os.PathLike | None = None) -> list[str]:
    """Return the names of all members, in alphabetical order.

    Args:
        folder: where entries and weights lie; the package's own folder unless given.

    Examples:
        >>> "cnn-digits-natural" in tk.zoo.names()
        True
    """
    return entries.names(folder=folder or FOLDER)


def entry(name: str, *, seed: int | None = None, folder: str | os.PathLike | None = None) -> Entry:
    """Return what is known about one member.

    Args:
        name: the member. seed: of a cohort, the network of this seed; the member itself, seed 0, unless given.
        folder: as for ``names``.

    Raises:
        UnknownName: there is no such member; near names are offered.
        DamagedFile: what was written about it was changed afterwards.
        MissingWeights: nobody has entered a network of that seed; the sentence says which there are.

    Examples:
        >>> tk.zoo.entry("cnn-digits-natural").data
        'digits'
    """
    return entries.entry(name, seed=seed, folder=folder or FOLDER)


def load(
    name: str, *, seed: int | None = None, device: str | torch.device | None = None,
    folder: str | os.PathLike | None = None, size: int | None = None,
) -> nn.Module:  # fmt: skip
    """Return a trained member of the zoo, ready to be attacked, inverted or trained further.

    Args:
        name: the member; ``zoo.names()`` lists them.
        seed: of a cohort (``entry(name).siblings``), the network of this seed; that of seed 0 unless given.
        device: where to put it; the CPU unless given.
        folder: as for ``names``.
        size: side length that a classifier's images are brought to first, such as the one it was trained at
            (``entry(name).image_shape``); None gives it images as they are.

    Returns:
        A network in evaluation mode, in float32, with gradients; of kind "classifier" a ``Classifier`` from pixels in
        [0, 1] to logits.

    Raises:
        UnknownName: there is no such member; near names are offered.
        MissingWeights: its weights file is not there. MissingPackage: the package that brings it is not installed.
        DamagedFile: weights or entry are not what was written.
        UnfitWeights: the weights are for another architecture, or the network answers otherwise than it did.

    Examples:
        >>> network = tk.zoo.load("cnn-digits-natural")
        >>> (network(digits.x).argmax(dim=1) == digits.y).tolist()
        [True, True, True, True]
    """
    device = torch.device("cpu" if device is None else device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError('there is no usable GPU here: leave out device, or pass device="cpu"')
    about = entry(name, seed=seed, folder=folder)
    data = stored_weights(about, folder=folder)
    kind = choose(about.kind, KINDS, "kind of member")
    network = with_weights(kind.build(about, 0), data, name, reader=about.package.reader if about.package else None)
    if about.package is not None:
        packaged.check_answer(kind.answer(network, tuple(about.package.answer["shape"])), about)
    if size is not None:
        _resize(network, size, name)
    return network.to(device)


def _resize(network: nn.Module, size: int, name: str) -> None:
    """Let a classifier bring images to a size first."""
    check_count(size, what="size")
    if not isinstance(network, Classifier):
        raise ValueError(f"{name} takes no images that could be resized: leave out size")
    if network.size is not None and network.size != (size, size):
        raise ValueError(f"{name} works at {network.size[0]} × {network.size[1]} pixels alone: leave out size")
    network.size = (size, size)


def is_here(about: Entry, *, folder: str | os.PathLike | None = None) -> bool:
    """Whether a member's weights file is there, whatever it holds."""
    if about.package is not None:
        return packaged.is_installed(about)
    return (Path(folder or FOLDER) / about.file).exists()


def stored_weights(about: Entry, *, folder: str | os.PathLike | None = None) -> bytes:
    """The bytes of a member's weights file, verified against the entry's SHA-256.

    Raises:
        MissingWeights: the file is not there. DamagedFile: it is not the one the entry describes.
        MissingPackage: the package that brings it is not installed.
    """
    if about.package is not None:
        return packaged.weights_of(about)
    path, name = Path(folder or FOLDER) / about.file, about.name
    if not about.shipped and not path.exists():
        seed = about.recipe["seed"] if ".seed" in path.name else None
        which = name if seed is None else f"{name} of seed {seed}"
        raise MissingWeights(
            f"the weights of {which} do not come with the package: make them with {command(name, seed)}"
        )
    if not path.exists():
        raise MissingWeights(
            f"the weights of {name} are missing, there is no {path}: restore the file, or make it again with "
            f"{command(name)}"
        )
    data = path.read_bytes()
    if sha256(data).hexdigest() != about.sha256:
        raise DamagedFile(
            f"the weights of {name} are not those that {name}.json describes, the SHA-256 of {path.name} differs: "
            f"restore the file, or make it again with {command(name)}"
        )
    return data


def with_weights(network: nn.Module, data: bytes, name: str, *, reader: str | None = None) -> nn.Module:
    """Put stored weights into a network of the same architecture; returns it in evaluation mode.

    Args:
        network: takes the weights in its own precision, whatever they are stored in.
        data: a file with exactly the tensors of the network's ``state_dict``.
        name: what an error sentence calls them.
        reader: a name of ``reading.READERS``; safetensors unless given.

    Raises:
        UnfitWeights: tensors are missing, unexpected or of another shape; the first few are named.
        DamagedFile: the data are no such file.
    """
    read = choose(reader or "safetensors", READERS, "reader of weights")
    return put(network, read(data, network, name), name).eval()
