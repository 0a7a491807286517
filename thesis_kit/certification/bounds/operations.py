"""The operations that a network is made of, each as a value, as an interval, and as coefficients pulled back.

Interval bounds are those of Gowal et al. 2018 (section 3); the pull through max pooling is that of Singh et al. 2019
(DeepPoly), and that through the rest is exact. What bends, elementwise, is in ``activations.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn import functional as F

from thesis_kit.certification.bounds.boxes import CenteredBox, product

# Coefficients A (n, m, *output) -> coefficients B (n, m, *input), one for each input, and constants b (n, m) or 0, such
# that A·output ≥ ∑ B·input + b for all inputs in their intervals.
Pull = Callable[[Tensor], tuple[list[Tensor], Tensor | float]]


class Operation(ABC):
    """One output from one or more inputs, each (n, ...), every image for itself."""

    @abstractmethod
    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""

    @abstractmethod
    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """Bounds of the output for inputs in these intervals."""

    @abstractmethod
    def pull(self, inputs: list[CenteredBox], lower_slope: str) -> Pull:
        """What brings a lower bound in terms of the output to one in terms of the inputs."""


class Step(NamedTuple):
    """An operation and the numbers of the values that it is applied to."""

    operation: Operation
    sources: tuple[int, ...]


@dataclass(frozen=True)
class AffineStep(Operation):
    """``function(input, weight, bias)``, monotone in the input where the weights are not negative."""

    function: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""
        return self.function(inputs[0], self.weight, self.bias)

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """The radius passes through the weights' sizes."""
        center, radius = inputs[0]
        size = None if self.weight is None else self.weight.abs()
        return CenteredBox(self.function(center, self.weight, self.bias), self.function(radius, size, None))

    def pull(self, inputs: list[CenteredBox], lower_slope: str | None = None) -> Pull:
        """By the transposed map."""
        if self.function is F.linear and inputs[0].center.ndim == 2:  # what follows, without its detours
            return lambda a: ([a @ self.weight], 0.0 if self.bias is None else a @ self.bias)
        zero = inputs[0].center.new_zeros(1, *inputs[0].center.shape[1:])
        offset, adjoint = vjp(lambda input: self.function(input, self.weight, self.bias), zero)
        transposed = vmap(lambda row: adjoint(row.unsqueeze(0))[0].squeeze(0))

        def pull(a: Tensor) -> tuple[list[Tensor], Tensor | float]:
            constant = 0.0 if self.bias is None else product(a, offset)
            return [transposed(a.flatten(0, 1)).unflatten(0, a.shape[:2])], constant

        return pull


class Sum(Operation):
    """The sum of its two inputs, which have the same shape."""

    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""
        return inputs[0] + inputs[1]

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """Centers and radii add up."""
        first, second = inputs
        return CenteredBox(first.center + second.center, first.radius + second.radius)

    def pull(self, inputs: list[CenteredBox], lower_slope: str) -> Pull:
        """The same coefficients for both."""
        return lambda a: ([a, a], 0.0)


class Difference(Operation):
    """The first input minus the second, which has the same shape."""

    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""
        return inputs[0] - inputs[1]

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """Radii add up."""
        first, second = inputs
        return CenteredBox(first.center - second.center, first.radius + second.radius)

    def pull(self, inputs: list[CenteredBox], lower_slope: str) -> Pull:
        """The coefficients, and their opposites."""
        return lambda a: ([a, -a], 0.0)


@dataclass(frozen=True)
class Concatenation(Operation):
    """Its inputs side by side along a dimension ``dim`` > 0."""

    dim: int

    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""
        return torch.cat(inputs, dim=self.dim)

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """The same of centers and radii."""
        centers, radii = zip(*inputs, strict=True)
        return CenteredBox(torch.cat(centers, dim=self.dim), torch.cat(radii, dim=self.dim))

    def pull(self, inputs: list[CenteredBox], lower_slope: str) -> Pull:
        """Each input has its own part of the coefficients, which have one dimension more."""
        sizes = [one.center.shape[self.dim] for one in inputs]
        return lambda a: ([*a.split(sizes, dim=self.dim + 1)], 0.0)


@dataclass(frozen=True)
class MaxPool(Operation):
    """The largest input of each window; ``pool`` is a max pooling of torch that can ``return_indices``.

    ``windows`` gives the places of each window in a flattened image (h · w), from its height and width: (number of
    windows, places), -1 where a window has fewer.
    """

    pool: Callable[..., Tensor]
    windows: Callable[[int, int], Tensor]

    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""
        return self.pool(inputs[0])

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """The largest of either end."""
        return CenteredBox.between(self.pool(inputs[0].lower), self.pool(inputs[0].upper))

    def pull(self, inputs: list[CenteredBox], lower_slope: str) -> Pull:
        """Below a maximum is the input with the largest lower bound; above it too if no other can exceed that."""
        lower, upper = inputs[0].lower, inputs[0].upper
        largest, chosen = self.pool(lower, return_indices=True)
        decided = self._rivals(upper, chosen) <= largest
        highest = torch.where(decided, 0, self.pool(upper))

        def pull(a: Tensor) -> tuple[list[Tensor], Tensor]:
            negative = a.clamp_max(0)
            through = (a.clamp_min(0) + negative * decided.unsqueeze(1)).flatten(3)
            index = chosen.flatten(2).unsqueeze(1).expand_as(through)
            b = a.new_zeros(*a.shape[:3], math.prod(lower.shape[2:])).scatter_add(3, index, through)
            return [b.unflatten(3, lower.shape[2:])], product(negative, highest)

        return pull

    @torch.no_grad()
    def _rivals(self, upper: Tensor, chosen: Tensor) -> Tensor:
        """The largest upper bound in each window (n, c, i, j) but for that of the chosen input."""
        places = self.windows(*upper.shape[2:]).to(upper.device)  # (i · j, places)
        others = (places >= 0) & (places != chosen.flatten(2).unsqueeze(3))  # (n, c, i · j, places)
        found = upper.flatten(2)[:, :, places.clamp_min(0)]
        return torch.where(others, found, -torch.inf).amax(dim=3).view_as(chosen)


def adaptive_windows(height: int, width: int, *, size: tuple[int | None, int | None]) -> Tensor:
    """The windows of ``nn.AdaptiveMaxPool2d(size)``."""
    return _grid([_adaptive(side, out or side) for side, out in zip((height, width), size, strict=True)], width)


def _adaptive(side: int, out: int) -> list[list[int]]:
    return [list(range(i * side // out, -(-(i + 1) * side // out))) for i in range(out)]


def sliding_windows(
    height: int, width: int, *, outputs: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple
) -> Tensor:
    """The windows of ``nn.MaxPool2d``, of which there are ``outputs`` by rows and columns."""
    sides = []
    for i, side in enumerate((height, width)):
        starts = (place * stride[i] - padding[i] for place in range(outputs[i]))
        places = ([start + step * dilation[i] for step in range(kernel[i])] for start in starts)
        sides.append([[at for at in window if 0 <= at < side] for window in places])
    return _grid(sides, width)


def _grid(sides: list[list[list[int]]], width: int) -> Tensor:
    """Windows of an image from those of its rows and its columns."""
    rows, columns = sides
    windows = [torch.tensor([i * width + j for i in a for j in b], dtype=torch.int64) for a in rows for b in columns]
    return torch.nn.utils.rnn.pad_sequence(windows, batch_first=True, padding_value=-1)
