"""What is kept of a data set that streams by: running moments, the strongest inputs of every unit, or all pooled rows.

A reducer is given values (n, u) of u units with the positions (n,) of their inputs, in order, and holds an amount of
memory that does not depend on how many there are (``Rows`` aside). How the inputs are cut into batches does not matter
beyond rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thesis_kit.checks import check_count


@runtime_checkable
class Reducer(Protocol):
    """Takes values some rows at a time, and gives what is left of them."""

    def add(self, values: Tensor, positions: Tensor) -> None:
        """Values (n, u), and positions (n,) in the data, larger than all before."""

    def result(self) -> object:
        """What is left of all that was added."""


@dataclass(frozen=True)
class Statistics:
    """Of each of u units over ``count`` inputs, in float64: mean, population variance, least and largest value."""

    count: int
    mean: Tensor
    variance: Tensor
    least: Tensor
    largest: Tensor

    @property
    def std(self) -> Tensor:
        """The population's standard deviation."""
        return self.variance.sqrt()


class Moments:
    """Running mean and variance (Chan, Golub and LeVeque 1983, who merge batches as Welford does numbers)."""

    def __init__(self):
        self._count, self._mean, self._squares = 0, None, None
        self._least, self._largest = None, None

    def add(self, values: Tensor, positions: Tensor) -> None:
        """See ``Reducer``."""
        values = values.detach().double()
        n, mean = len(values), values.mean(dim=0)
        squares, least, largest = (values - mean).square().sum(dim=0), values.amin(dim=0), values.amax(dim=0)
        if self._count == 0:
            self._count, self._mean, self._squares, self._least, self._largest = n, mean, squares, least, largest
            return
        gap, total = mean - self._mean, self._count + n
        self._squares += squares + gap.square() * (self._count * n / total)
        self._mean += gap * (n / total)
        self._count = total
        self._least, self._largest = self._least.minimum(least), self._largest.maximum(largest)

    def result(self) -> Statistics:
        """See ``Statistics``."""
        variance = self._squares / self._count
        return Statistics(self._count, self._mean, variance, self._least, self._largest)


@dataclass(frozen=True)
class TopExamples:
    """The k strongest inputs of each of u units: ``index`` (u, k) int64, their positions, and ``value`` (u, k).

    Strongest first; of equal ones the earlier. ``pattern`` (u, k, …) is the unit at every position of each of these
    inputs, without class tokens and registers, where it was asked for. ``units`` (u,) says which units these are.
    """

    index: Tensor
    value: Tensor
    units: Tensor
    pattern: Tensor | None = None


class Top:
    """The k inputs with the largest value of every unit; of equal ones the earlier."""

    def __init__(self, k: int):
        check_count(k, what="k")
        self.k, self._value, self._index, self._pattern = k, None, None, None

    def add(self, values: Tensor, positions: Tensor, patterns: Tensor | None = None) -> None:
        """See ``Reducer``; patterns (n, u, …) are kept along."""
        values, index = values.detach(), positions.to(values.device)[:, None].expand(-1, values.shape[1])
        if self._value is not None:
            values, index = torch.cat([self._value, values]), torch.cat([self._index, index])
        kept = values.sort(dim=0, descending=True, stable=True).indices[: self.k]  # (k, u)
        if patterns is not None:
            self._pattern = _chosen(self._pattern, patterns.detach(), kept)
        self._value, self._index = values.gather(0, kept), index.gather(0, kept)

    def result(self) -> TopExamples:
        """See ``TopExamples``.

        Raises:
            ValueError: there were fewer inputs than k.
        """
        if len(self._value) < self.k:
            raise ValueError(f"the data hold {len(self._value)} inputs and k is {self.k}: ask for at most as many")
        pattern = None if self._pattern is None else self._pattern.transpose(0, 1)
        units = torch.arange(self._value.shape[1], device=self._value.device)
        return TopExamples(self._index.T, self._value.T, units, pattern)


def _chosen(old: Tensor | None, new: Tensor, kept: Tensor) -> Tensor:
    """Of old patterns (k, u, …) and new ones (n, u, …), the rows (k, u) that are kept of the two behind one another."""
    before = 0 if old is None else len(old)
    shape = (*kept.shape, *[1] * (new.ndim - 2))
    out = new.gather(0, (kept - before).clamp_min(0).view(shape).expand(-1, -1, *new.shape[2:]))
    if old is None:
        return out
    stays = (kept < before).view(shape)
    return torch.where(stays, old.gather(0, kept.clamp_max(before - 1).view(shape).expand_as(out)), out)


class Rows:
    """All values (n, u), in order: memory grows with the data, by the units of a site and not by its positions."""

    def __init__(self):
        self._rows: list[Tensor] = []

    def add(self, values: Tensor, positions: Tensor) -> None:
        """See ``Reducer``."""
        self._rows.append(values.detach().clone())

    def result(self) -> Tensor:
        """(n, u)."""
        return torch.cat(self._rows)
