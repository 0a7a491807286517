"""What an input is made of while it is optimized: how it is stored, its range, and what a network is given of it.

A canvas holds one leaf tensor with a row a target and turns it into inputs (n, c, h, w). Rows never mix, so a target's
result does not depend on its neighbors. Images are such inputs as they are; a waveform has one channel and one row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.randomness import ImageRandom

Size = tuple[int, int]


class Canvas(ABC):
    """How inputs are stored while they are optimized.

    ``start`` draws n inputs of a size and ``store`` stores given ones; ``image`` turns what is stored into inputs, and
    ``project`` brings it back into its range after a step. ``check``, ``grow`` and ``to_input`` have a meaning for
    images: what may be begun with, how a stage takes over from the one before, what the network is given.
    """

    @abstractmethod
    def start(self, random: ImageRandom, channels: int, size: Size, *, like: Tensor) -> Tensor:
        """What is stored of freshly drawn inputs, one a row of ``random``; ``like`` gives dtype and device."""

    @abstractmethod
    def store(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """What is stored of these inputs."""

    @abstractmethod
    def image(self, stored: Tensor) -> Float[Tensor, "n c h w"]:
        """The inputs, differentiably."""

    @abstractmethod
    def check(self, inputs: Float[Tensor, "n c h w"]) -> None:
        """Require inputs to begin with that lie in the range of what ``image`` gives."""

    def project(self, stored: Tensor) -> None:  # noqa: B027 (most have no range to keep)
        """Bring what is stored back into its range, in place."""

    def grow(
        self, last: Float[Tensor, "n c g v"], fresh: Float[Tensor, "n c h w"], border: int, odd: int
    ) -> Float[Tensor, "n c h w"]:
        """Inputs of the stage before, resized to the new size minus ``border``, in the middle of fresh ones.

        ``odd`` is 0 or 1: a border that cannot be halved is larger now on one side, now on the other.
        """
        sides = fresh.shape[-2:]
        inner = [side - border if side > 1 else 1 for side in sides]
        top, left = ((side - part + odd) // 2 if side > 1 else 0 for side, part in zip(sides, inner, strict=True))
        grown = fresh.clone()
        grown[..., top : top + inner[0], left : left + inner[1]] = self.resized(last, inner)
        return grown

    def resized(self, inputs: Float[Tensor, "n c g v"], size: Sequence[int]) -> Float[Tensor, "n c h w"]:
        """Inputs brought to another size, bilinearly."""
        return F.interpolate(inputs, tuple(size), mode="bilinear")

    def to_input(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """What the network is given: the inputs themselves."""
        return x
