"""The form in which data reach training and evaluation: images, labels, and who is who."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Images held in memory: ``x`` (n, c, h, w) in [0, 1], ``y`` (n,) int64, ``ids`` (n,) int64."""

    x: Tensor
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: slice | Tensor) -> Part:
        return Part(self.x[index], self.y[index], self.ids[index])

    def to(self, device: torch.device | str) -> Part:
        """The same images on another device."""
        return Part(self.x.to(device), self.y.to(device), self.ids.to(device))


@dataclass(frozen=True)
class Splits:
    """Disjoint parts: ``train`` fits, ``validation`` chooses, ``test`` judges."""

    train: Part
    validation: Part
    test: Part

    def to(self, device: torch.device | str) -> Splits:
        """The same parts on another device."""
        return Splits(*(part.to(device) for part in (self.train, self.validation, self.test)))
