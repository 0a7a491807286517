"""The zoo: trained networks by name, with what is known about each.

Weights are safetensors files beside one manifest, which says of every member how it was trained, on what data, how well
it does and what its file hashes to. Both are written by the training command alone (``zookeeping/making.py``); here
they are only read, and whatever is not exactly as it was written is refused in a sentence that names the member.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from thesis_kit.checks import UnknownName, choose
from thesis_kit.files import DamagedFile, digest, parse_json, settle
from thesis_kit.models.build import build
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.stored import UnfitWeights, put

FOLDER = Path(__file__).resolve().parent / "weights"
MANIFEST = "manifest.json"
LOCAL = "local"  # subfolder of members that everyone makes for herself: neither committed nor shipped
SCHEMA = 1

__all__ = ["Entry", "MissingWeights", "Score", "UnfitWeights", "entry", "load", "names"]


class MissingWeights(ValueError):
    """A member's weights file is not there; the sentence says which command makes it."""


@dataclass(frozen=True)
class Score:
    """A share of test images with its 95% Wilson interval: ``value``, ``low``, ``high`` in 0 … 1, ``n`` images."""

    value: float
    low: float
    high: float
    n: int
    what: str


@dataclass(frozen=True)
class Entry:
    """What the manifest says about one member.

    ``title`` is one line of what it is; ``image_shape`` is (c, h, w); ``recipe`` holds every setting of its training
    and ``data_hashes`` the SHA-256 of each data set it saw. ``scores`` were measured on the stored weights (``dtype``
    says how they are stored), ``measured`` when and where. ``training`` has passes, seconds and the SHA-256 of the
    weights it started from, if any; ``code`` the version and the hash of the modules that made it. ``file`` lies in
    the weights folder and holds ``bytes`` bytes.
    """

    name: str
    title: str
    recipe: dict[str, Any]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    data_hashes: dict[str, str]
    file: str
    sha256: str
    bytes: int
    dtype: str
    scores: dict[str, Score]
    training: dict[str, Any]
    measured: dict[str, Any]
    code: dict[str, str]

    @property
    def architecture(self) -> str:
        """Name of the architecture, as ``models.build`` takes it."""
        return self.recipe["architecture"]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the architecture, such as its width."""
        return self.recipe["options"]

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return len(self.class_names)

    @property
    def data(self) -> str:
        """Name of the distribution it was trained and tested on."""
        return self.recipe["data"]

    @property
    def shipped(self) -> bool:
        """Whether its weights come with the package; otherwise they are made with ``make zoo NAME=…``."""
        return not self.file.startswith(f"{LOCAL}/")


def names(*, folder: str | os.PathLike | None = None) -> list[str]:
    """Return the names of all members, in alphabetical order.

    Args:
        folder: where manifest and weights lie; the package's own folder unless given.
    """
    return sorted(records(folder))


def entry(name: str, *, folder: str | os.PathLike | None = None) -> Entry:
    """Return what the manifest says about one member.

    Args:
        name: the member. folder: as for ``names``.

    Raises:
        UnknownName: there is no such member; near names are offered.
        DamagedFile: what the manifest says about it was changed after the training command wrote it.
    """
    known = records(folder, what=name)
    if not known:
        raise UnknownName(
            f"unknown zoo model {name!r}: the zoo has no members yet; `thesis-kit zoo list` names those that can be "
            "trained"
        )
    record = choose(name, known, "zoo model")
    if sealed(record) != record:
        raise DamagedFile(
            f"the manifest entry of {name} was altered after it was written, its seal does not fit: restore "
            f"{MANIFEST}, or make the model again with {_command(name)}"
        )
    scores = {what: Score(**score) for what, score in record["scores"].items()}
    plain = {key: value for key, value in record.items() if key != "seal"}
    shapes = {key: tuple(plain[key]) for key in ("class_names", "image_shape")}
    return Entry(**{**plain, **shapes, "scores": scores})


def load(name: str, *, device: str | torch.device | None = None, folder: str | os.PathLike | None = None) -> Classifier:
    """Return a trained member of the zoo, ready to be attacked, inverted or trained further.

    Args:
        name: the member; ``zoo.names()`` lists them.
        device: where to put it; the CPU unless given.
        folder: as for ``names``.

    Returns:
        A ``Classifier`` from pixels in [0, 1] to logits in evaluation mode, in float32, with gradients.

    Raises:
        UnknownName: there is no such member; near names are offered.
        MissingWeights: its weights file is not there.
        DamagedFile: weights or manifest entry are not what the training command wrote.
        UnfitWeights: the weights are for another architecture.
    """
    device = torch.device("cpu" if device is None else device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError('there is no usable GPU here: leave out device, or pass device="cpu"')
    about = entry(name, folder=folder)
    channels = about.image_shape[0]
    network = build(about.architecture, n_classes=about.n_classes, in_channels=channels, seed=0, **about.options)
    return with_weights(network, stored_weights(about, folder=folder), name).to(device)


def is_here(about: Entry, *, folder: str | os.PathLike | None = None) -> bool:
    """Whether a member's weights file is there, whatever it holds."""
    return (Path(folder or FOLDER) / about.file).exists()


def stored_weights(about: Entry, *, folder: str | os.PathLike | None = None) -> bytes:
    """The bytes of a member's weights file, verified against the manifest's SHA-256.

    Raises:
        MissingWeights: the file is not there. DamagedFile: it is not the one the manifest describes.
    """
    path, name = Path(folder or FOLDER) / about.file, about.name
    if not about.shipped and not path.exists():
        raise MissingWeights(f"the weights of {name} do not come with the package: make them with {_command(name)}")
    if not path.exists():
        raise MissingWeights(
            f"the weights of {name} are missing, there is no {path}: restore the file, or make it again with "
            f"{_command(name)}"
        )
    data = path.read_bytes()
    if sha256(data).hexdigest() != about.sha256:
        raise DamagedFile(
            f"the weights of {name} are not those that {MANIFEST} describes, the SHA-256 of {path.name} differs: "
            f"restore the file, or make it again with {_command(name)}"
        )
    return data


def with_weights(network: Classifier, data: bytes, name: str) -> Classifier:
    """Put stored weights into a network of the same architecture; returns it in evaluation mode.

    Args:
        network: takes the weights in its own precision, whatever they are stored in.
        data: a safetensors file with exactly the tensors of the network's ``state_dict``.
        name: what an error sentence calls them.

    Raises:
        UnfitWeights: tensors are missing, unexpected or of another shape; the first few are named.
        DamagedFile: the data are no safetensors file.
    """
    try:
        held = safetensors.torch.load(data)
    except SafetensorError as error:
        raise DamagedFile(f"the weights of {name} are no safetensors file ({error}): make them again") from error
    return put(network, held, name).eval()


def records(folder: str | os.PathLike | None = None, *, what: str = "the zoo") -> dict[str, dict[str, Any]]:
    """The manifest as it stands, name → sealed record; empty where there is none. ``what`` is what an error names.

    Raises:
        DamagedFile: the file is no manifest, or one of another version of the format.
    """
    path = Path(folder or FOLDER) / MANIFEST
    settle(path)  # weights that belong to it may wait for a rename
    if not path.exists():
        return {}
    try:
        document = parse_json(path.read_bytes(), MANIFEST)
        schema, models = document["schema"], document["models"]
        if not all(record["name"] == name and "seal" in record for name, record in models.items()):
            raise ValueError("an entry has another name than its key, or no seal")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedFile(f"cannot look up {what}: {path} is cut short or no manifest ({error}); restore it") from error
    if schema != SCHEMA:
        raise DamagedFile(
            f"cannot look up {what}: {MANIFEST} has format {schema}, this thesis_kit reads format {SCHEMA}; restore it"
        )
    return models


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the SHA-256 of its content as ``seal``.

    Each entry has a seal of its own rather than the manifest one for all, so that members trained on two branches
    can be merged, and a change is reported under the name of the member it touches.
    """
    content = {key: value for key, value in record.items() if key != "seal"}
    return {**content, "seal": digest(content)}


def _command(name: str) -> str:
    return f"`make zoo NAME={name}`"
