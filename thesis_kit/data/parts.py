"""The form in which data reach training and evaluation: images, labels, and who is who.

A ``Part`` is held in memory. A ``Stream`` is rendered: it never ends and is never stored, and yet the same numbers give
the same images, so that training on one can be repeated and resumed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Targets(Protocol):
    """What inputs are to be answered with: class labels (n,), token ids (n, t), or what else is counted, indexed and
    moved as a tensor is, such as ``training.Transcripts``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Any: ...

    def to(self, device: Any) -> Any:
        """The same on another device."""


@dataclass(frozen=True)
class Part:
    """Inputs held in memory with their targets: for a classifier ``x`` (n, c, h, w) in [0, 1] and ``y`` (n,) int64.

    ``ids`` (n,) int64 tell the inputs apart.
    """

    x: Tensor
    y: Targets
    ids: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: slice | Tensor) -> Part:
        return Part(self.x[index], self.y[index], self.ids[index])

    def to(self, device: torch.device | str) -> Part:
        """The same images on another device."""
        return Part(self.x.to(device), self.y.to(device), self.ids.to(device))


class Stream(ABC):
    """Endless fresh images: a data set that is rendered when it is read.

    A subclass renders ``minibatch`` and sets ``name``, by which a checkpoint knows the stream again. Whatever decides
    the images, such as their size and a seed, belongs in the name.
    """

    name: str

    @abstractmethod
    def minibatch(self, position: int, size: int) -> Part:
        """Minibatch number ``position`` = 0, 1, …, of ``size`` images: the same images for the same two numbers."""

    def to(self, device: torch.device | str) -> Stream:
        """The same images on another device: rendered here and moved, unless a subclass knows better."""
        return _Moved(self, device)


class _Moved(Stream):
    """The images of another stream, brought to a device."""

    def __init__(self, stream: Stream, device: torch.device | str):
        self.name, self._stream, self._device = stream.name, stream, device

    def minibatch(self, position: int, size: int) -> Part:
        return self._stream.minibatch(position, size).to(self._device)

    def to(self, device: torch.device | str) -> Stream:
        return self._stream.to(device)


@dataclass(frozen=True)
class Splits:
    """Disjoint parts: ``train`` fits, ``validation`` chooses, ``test`` judges."""

    train: Part | Stream
    validation: Part
    test: Part

    def to(self, device: torch.device | str) -> Splits:
        """The same parts on another device."""
        return Splits(*(part.to(device) for part in (self.train, self.validation, self.test)))
