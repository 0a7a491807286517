"""Weights in files: read without running anything that a file may hold, and put into the network they belong to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from thesis_kit.files import DamagedFile
from thesis_kit.models.build import build
from thesis_kit.models.classifier import Classifier

_Network = TypeVar("_Network", bound=nn.Module)
_NAMED_TENSORS = 3  # of those that do not fit, so many are named in the error
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.")  # DataParallel, compile, own modules
_USUAL = ("state_dict", "model_state_dict", "model", "network", "net", "weights")  # where checkpoints keep them


class UnfitWeights(ValueError):
    """Weights that belong to another architecture than the network they were to be put into."""


def from_file(
    path: str | os.PathLike, architecture: str, *, n_classes: int | None = None, in_channels: int | None = None,
    **options: Any,
) -> Classifier:  # fmt: skip
    """Return a classifier with weights of one's own.

    Args:
        path: a safetensors file, or a ``state_dict`` that ``torch.save`` wrote, alone or inside a checkpoint; prefixes
            that ``DataParallel``, ``torch.compile`` or a wrapper put before every name do not matter.
        architecture: as ``build`` takes it, with its options; a timm model keeps its normalization and input size.
        n_classes: number of logits; None takes it from the file.
        in_channels: channels of an image; None takes the architecture's own.

    Returns:
        A ``Classifier`` in evaluation mode on the CPU, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the file cannot be read, or holds more than tensors.
        UnfitWeights: the weights are for another architecture; the first tensors that do not fit are named.

    Examples:
        >>> torch.save(tk.build("small_cnn", width=4, seed=0).state_dict(), "mine.pt")
        >>> network = tk.models.from_file("mine.pt", "small_cnn", width=4)
        >>> network(digits.x).shape
        torch.Size([4, 10])
    """
    held = read(path)

    def make(n_classes: int | None) -> Classifier:
        return build(architecture, n_classes=n_classes, in_channels=in_channels, seed=0, **options)

    network = make(n_classes)
    held = _as_in(network, held)
    found = _classes(held, network.state_dict()) if n_classes is None else None
    return put(make(found) if found else network, held, Path(path).name).eval()


def read(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors in a safetensors file, or in a file that ``torch.save`` wrote, by name.

    Raises: as ``from_file``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to take weights from")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever a broken file leads them to
        raise DamagedFile(
            f"{path} cannot be read as weights ({_first(error)}): save them with torch.save(model.state_dict(), …), or "
            "as safetensors"
        ) from error
    return _tensors(held, path)


def _first(error: Exception) -> str:
    """The beginning of a reader's message, which may go on for pages."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].strip().rstrip(".")


def _tensors(held: Any, path: Path) -> dict[str, Tensor]:
    """A ``state_dict``, also from inside a checkpoint."""
    if _is_state(held):
        return dict(held)
    inside = {key: value for key, value in held.items() if _is_state(value)} if isinstance(held, Mapping) else {}
    usual = [key for key in _USUAL if key in inside] or list(inside)[: len(inside) == 1]
    if not usual:
        raise DamagedFile(
            f"{path} holds no weights, or several: save them with torch.save(model.state_dict(), …), or as safetensors"
        )
    return dict(inside[usual[0]])


def _is_state(held: Any) -> bool:
    return isinstance(held, Mapping) and bool(held) and all(isinstance(value, Tensor) for value in held.values())


def _as_in(network: Classifier, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the network's names, as far as wrappers and ``Classifier`` itself make the difference."""
    wanted = set(network.state_dict())
    names = {key: key for key in held}
    while True:
        for before in ("", "network."):
            if any(f"{before}{name}" in wanted for name in names):
                return {f"{before}{name}": held[key] for name, key in names.items()}
        prefix = next((one for one in _WRAPPERS if all(name.startswith(one) for name in names)), None)
        if prefix is None:
            return dict(held)
        names = {name.removeprefix(prefix): key for name, key in names.items()}


def _classes(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> int | None:
    """How many classes the file tells apart, if it and the network differ in nothing else: in the length of heads."""
    counts = set()
    for name in set(held) & set(wanted):
        one, other = held[name].shape, wanted[name].shape
        if one != other:
            if len(one) != len(other) or one[1:] != other[1:]:
                return None
            counts.add(one[0])
    return counts.pop() if len(counts) == 1 and min(counts) > 1 else None


def put(network: _Network, held: Mapping[str, Tensor], name: str) -> _Network:
    """Load tensors into a network, in its own precision; every one must be there and fit.

    Args:
        network: takes the tensors. held: by the names of its ``state_dict``. name: what an error calls them.

    Raises:
        UnfitWeights: tensors are missing, unexpected or of another shape; the first few are named.
    """
    faults = _faults(held, network.state_dict())
    if faults:
        others = f" and {len(faults) - _NAMED_TENSORS} more" if len(faults) > _NAMED_TENSORS else ""
        raise UnfitWeights(
            f"the weights of {name} are for another architecture ({', '.join(faults[:_NAMED_TENSORS])}{others}): give "
            "the architecture, options and classes they were trained with"
        )
    network.load_state_dict(held)
    return network


def _faults(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Tensors that do not fit, in words."""
    faults = [f"{key} is missing" for key in wanted if key not in held]
    faults += [f"{key} is unexpected" for key in held if key not in wanted]
    return faults + [
        f"{key} has shape {tuple(held[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in held and held[key].shape != wanted[key].shape
    ]
