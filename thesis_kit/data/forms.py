"""The forms in which a caller may bring labelled images, and how they become parts.

A ``Part``, a pair (x, y) of tensors or NumPy arrays, a map-style ``Dataset`` of (image, label), or minibatches
(x, y, …) such as a ``DataLoader`` gives them. What lies in memory stays one part; what is loaded is taken some images
at a time, so that no more of it is held than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from thesis_kit.checks import check_images, check_labels
from thesis_kit.data.parts import Part, Stream

Pair = tuple[Tensor, Tensor] | tuple[np.ndarray, np.ndarray]
Labelled = Part | Pair | Dataset | Iterable
FORMS = "a Part, a pair (x, y) of tensors or arrays, a map-style Dataset, or minibatches (x, y) such as a DataLoader"


def windows(data: Labelled, size: int, device: torch.device | None = None) -> Iterator[Part]:
    """The images of ``data`` in order, as parts: a single one of what lies in memory, about ``size`` of what is loaded.

    Args:
        data: in any of the forms.
        size: images a part, of what is loaded; the last may be smaller, and minibatches are not cut.
        device: where loaded images go; images in memory stay where they are.

    Raises:
        ValueError: there are no images, or they are not what they should be. TypeError: another form.
    """
    part = in_memory(data)
    found = [part] if part is not None else _loaded(data, size, device)
    first = 0
    for part in found:
        if len(part) == 0:
            continue
        check_images(part.x), check_labels(part.y, len(part.x))
        yield part
        first += len(part)
    if first == 0:
        raise ValueError("there are no images to evaluate on: the data are empty")


def gathered(data: Labelled, device: torch.device | None = None) -> Part:
    """All images of ``data`` as one part in memory; arguments and errors as for ``windows``."""
    parts = list(windows(data, 1 << 62, device))
    return parts[0]


def in_memory(data: object) -> Part | None:
    """Data that lie in memory already as a part: a ``Part``, or a pair of tensors or arrays; None for other forms."""
    if isinstance(data, Part):
        return replace(data, x=as_tensor(data.x), y=as_labels(data.y))
    pair = isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray)
    if not pair:
        return None
    x, y = as_tensor(data[0]), as_labels(data[1])
    return Part(x, y, torch.arange(len(x), device=x.device))


def as_tensor(images: object) -> object:
    """NumPy's arrays as tensors; anything else as it is, for ``check_images`` to look at."""
    return torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images


def as_labels(labels: object) -> object:
    """NumPy's whole numbers, of whatever width, as int64; anything else as it is, for ``check_labels``."""
    whole = isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.integer)
    return torch.from_numpy(labels.astype(np.int64)) if whole else as_tensor(labels)


def is_dataset(data: object) -> bool:
    """Whether these are items by number, as of a map-style ``Dataset``, and not minibatches in a list."""
    sized = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return sized and not isinstance(data, list | tuple | str | Mapping | DataLoader | Tensor | np.ndarray)


def _loaded(data: object, size: int, device: torch.device | None) -> Iterator[Part]:
    """Minibatches put together until there are ``size`` images."""
    if isinstance(data, Stream):
        raise TypeError(f"a stream has no end to evaluate on: take stream.minibatch(0, n), or {FORMS}")
    if isinstance(data, str | Mapping | Tensor | np.ndarray) or not (is_dataset(data) or isinstance(data, Iterable)):
        raise TypeError(f"labelled images come as {FORMS}, got {type(data).__name__}")
    minibatches = DataLoader(data, batch_size=min(size, 256), generator=torch.Generator()) if is_dataset(data) else data
    first, waiting = 0, []
    for minibatch in minibatches:
        waiting.append(labelled(minibatch, device))
        if sum(len(y) for _, y in waiting) >= size:
            yield _together(waiting, first)
            first, waiting = first + sum(len(y) for _, y in waiting), []
    if waiting:
        yield _together(waiting, first)


def labelled(minibatch: object, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Images and labels of a minibatch (x, y, …) as tensors, on the device where one is given."""
    if not isinstance(minibatch, tuple | list) or len(minibatch) < 2:
        raise TypeError(f"a minibatch must be (images, labels, …), got {type(minibatch).__name__}: give {FORMS}")
    x, y = as_tensor(minibatch[0]), as_labels(minibatch[1])
    for found, what in ((x, "images"), (y, "labels")):
        if not isinstance(found, Tensor):
            raise TypeError(f"the {what} of a minibatch must be a tensor or an array, got {type(found).__name__}")
    return (x, y) if device is None else (x.to(device), y.to(device))


def _together(minibatches: list[tuple[Tensor, Tensor]], first: int) -> Part:
    x, y = (torch.cat(column) for column in zip(*minibatches, strict=True))
    return Part(x, y, torch.arange(first, first + len(x), device=x.device))
