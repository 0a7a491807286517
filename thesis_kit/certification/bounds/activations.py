"""Elementwise functions, each between two lines on an interval of inputs: ReLU and others that are linear in pieces.

The lines of ReLU are those of Zhang et al. 2018 (CROWN, table 2). For every other function that is linear in pieces
(leaky, parametric, clipped) a line through two of its points is taken, the one of least area, and raised or lowered
until no corner of the function lies beyond it, which is exact: between corners both are linear. Smooth functions are in
``curves.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from thesis_kit.certification.bounds.boxes import CenteredBox, product
from thesis_kit.certification.bounds.operations import Operation, Pull

# Slope of the line through 0 below a ReLU on [lower, upper] ∋ 0, where the line above it has slope ``above``.
LOWER_SLOPES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "adaptive": lambda lower, upper, above: (upper > -lower).to(above),
    "zero": lambda lower, upper, above: torch.zeros_like(above),
    "one": lambda lower, upper, above: torch.ones_like(above),
    "same": lambda lower, upper, above: above,
}


class Line(NamedTuple):
    """slope · input + offset, elementwise; no offset is 0."""

    slope: Tensor
    offset: Tensor | None = None


class Activation(Operation):
    """A function of each element by itself."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Its values."""

    @abstractmethod
    def lines(self, lower: Tensor, upper: Tensor, lower_slope: str) -> tuple[Line, Line]:
        """A line below and a line above the function on [lower, upper]."""

    @abstractmethod
    def bends(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where it is not known to be linear on [lower, upper], bool."""

    def value(self, inputs: list[Tensor]) -> Tensor:
        """The output."""
        return self(inputs[0])

    def pull(self, inputs: list[CenteredBox], lower_slope: str) -> Pull:
        """Past the line below where coefficients are positive, past that above where they are negative."""
        below, above = self.lines(inputs[0].lower, inputs[0].upper, lower_slope)

        def pull(a: Tensor) -> tuple[list[Tensor], Tensor]:
            positive, negative = a.clamp_min(0), a.clamp_max(0)
            slope = positive * below.slope.unsqueeze(1) + negative * above.slope.unsqueeze(1)
            offset = product(negative, above.offset)
            return [slope], offset if below.offset is None else offset + product(positive, below.offset)

        return pull


class ReLU(Activation):
    """max(input, 0)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Its values."""
        return x.relu()

    def bends(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Around 0."""
        return (lower < 0) & (upper > 0)

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """The ReLU of either end."""
        lower, upper = inputs[0].lower.relu_(), inputs[0].upper.relu_()
        if torch.is_grad_enabled():
            return CenteredBox.between(lower, upper)
        center = lower.lerp_(upper, 0.5)  # the same in the memory that is there
        return CenteredBox(center, upper.sub_(center))

    def lines(self, lower: Tensor, upper: Tensor, lower_slope: str) -> tuple[Line, Line]:
        """The chord above; below, a line through 0 with the slope of that name."""
        unstable = self.bends(lower, upper)
        above = torch.where(unstable, upper / torch.where(unstable, upper - lower, 1), (lower >= 0).to(lower))
        below = torch.where(unstable, LOWER_SLOPES[lower_slope](lower, upper, above), above)
        return Line(below), Line(above, torch.where(unstable, -above * lower, 0))


@dataclass(frozen=True)
class Pieces(Activation):
    """A continuous ``function`` that is linear between its ``corners``, one or two numbers in rising order."""

    function: Callable[[Tensor], Tensor]
    corners: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Its values."""
        return self.function(x)

    def bends(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Around a corner."""
        inside = [(lower < corner) & (upper > corner) for corner in self.corners]
        return torch.stack(inside).any(dim=0)

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """The least and the most of its values at the ends and corners."""
        values = torch.stack([self(point) for point in self._points(inputs[0].lower, inputs[0].upper)])
        return CenteredBox.between(values.amin(dim=0), values.amax(dim=0))

    def lines(self, lower: Tensor, upper: Tensor, lower_slope: str) -> tuple[Line, Line]:
        """Of all lines through two of the ends and corners those that leave the least area."""
        points = self._points(lower, upper)
        values = [self(point) for point in points]
        slopes = []
        for i, j in combinations(range(len(points)), 2):
            gap = points[j] - points[i]
            slopes.append(torch.where(gap > 0, (values[j] - values[i]) / torch.where(gap > 0, gap, 1), 0))
        slopes = torch.stack(slopes)  # (pairs, n, ...)
        points, values = torch.stack(points), torch.stack(values)
        rest = values.unsqueeze(1) - slopes * points.unsqueeze(1)  # (points, pairs, n, ...)
        middle = torch.lerp(lower, upper, 0.5)
        return lowest(slopes, rest.amin(dim=0), middle, sign=-1), lowest(slopes, rest.amax(dim=0), middle, sign=1)

    def _points(self, lower: Tensor, upper: Tensor) -> list[Tensor]:
        inside = [torch.full_like(lower, corner).clamp(lower, upper) for corner in self.corners]
        return [lower, *inside, upper]


def lowest(slopes: Tensor, offsets: Tensor, middle: Tensor, *, sign: int) -> Line:
    """Of lines (candidates, n, ...) those that are lowest (sign 1) or highest (−1) in the middle: of least area."""
    best = (sign * (slopes * middle + offsets)).argmin(dim=0, keepdim=True)
    return Line(slopes.gather(0, best)[0], offsets.gather(0, best)[0])
