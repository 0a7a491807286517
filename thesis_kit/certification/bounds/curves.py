"""Smooth elementwise functions between two lines: sigmoid, tanh, SiLU, GELU, ELU, softplus.

Where a function is concave, the line above it that leaves the least area touches it in the middle of the interval or,
where a convex part lies beside it, at the point whose tangent passes through the far end; else that line is the chord
(Zhang et al. 2018, section 3.3, for sigmoid and tanh; the same construction for any function whose curvature changes
sign at known points). The line below is that of the negated function.

What makes a line sound is not how its slope was chosen but its offset: with G(z) = f(z) − a·z the line a·z + b lies
above f if b ≥ G everywhere. On convex parts G is at most what it is at the ends. On a concave part [p, q] it lies below
each of its tangents, so for every t it is at most G(t) + max(0, G'(t))(q − t) + max(0, −G'(t))(t − p); the least of
that counts for t = p, t = q and where the line touches. Lines are computed in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.certification.bounds.activations import Activation, Line, lowest
from thesis_kit.certification.bounds.boxes import CenteredBox

_HALVINGS = 20  # of the interval that a tangent's point is sought in
_ROUNDING = 1e-9  # how far below an end a tangent may pass that is then raised
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Curve(Activation):
    """A smooth function and what its shape is.

    Args:
        function, slope: the function and its derivative.
        concave, convex: intervals on which it is that; together they are the whole line.
        valley: where its only minimum is; None for a function that never falls.
        slack, short: how far the function falls short of ``function`` from the input ``short`` on.
        values: the function itself, where that is not ``function`` in every last digit.
    """

    function: Function
    slope: Function
    concave: tuple[tuple[float, float], ...] = ()
    convex: tuple[tuple[float, float], ...] = ()
    valley: float | None = None
    slack: float = 0.0
    short: float = math.inf
    values: Function | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Its values."""
        return (self.values or self.function)(x)

    def bends(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Wherever there is an interval."""
        return lower < upper

    def interval(self, inputs: list[CenteredBox]) -> CenteredBox:
        """The ends' values, and the valley's where it lies between them."""
        lower, upper = inputs[0].lower, inputs[0].upper
        low, high = self.function(lower), self.function(upper)
        if self.valley is not None:
            valley = torch.full_like(lower, self.valley).clamp(lower, upper)
            low, high = self.function(valley), torch.maximum(low, high)
        return CenteredBox.between(low - self._missing(upper), high)

    def lines(self, lower: Tensor, upper: Tensor, lower_slope: str) -> tuple[Line, Line]:
        """The line of least area on either side."""
        ends = lower.double(), upper.double()
        above = _line_above(self.function, self.slope, self.concave, *ends)
        minus = _line_above(lambda z: -self.function(z), lambda z: -self.slope(z), self.convex, *ends)
        below = Line(-minus.slope, -minus.offset - self._missing(ends[1]))
        return tuple(Line(line.slope.to(lower), line.offset.to(lower)) for line in (below, above))

    def _missing(self, upper: Tensor) -> Tensor | float:
        return torch.where(upper > self.short, self.slack, 0.0).to(upper) if self.slack else 0.0


def _line_above(
    f: Function, slope: Function, concave: tuple[tuple[float, float], ...], lower: Tensor, upper: Tensor
) -> Line:
    """A line above f on [lower, upper], where f is concave on those intervals and convex between them."""
    middle, wide = torch.lerp(lower, upper, 0.5), upper - lower > 1e-7 * (1 + lower.abs())
    chord = torch.where(wide, (f(upper) - f(lower)) / torch.where(wide, upper - lower, 1), slope(middle))
    parts = [_part(lower, upper, *ends) for ends in concave]
    tangents = [_tangent(f, slope, lower, upper, *part) for part in parts]
    candidates = [(chord, middle), *((torch.where(there, a, chord), point) for a, point, there in tangents)]
    offsets = []
    for a, touch in candidates:
        offset = torch.maximum(f(lower) - a * lower, f(upper) - a * upper)
        for first, last, there in parts:
            most = _most_of_concave(f, slope, a, first, last, touch)
            offset = torch.where(there, torch.maximum(offset, most), offset)
        offsets.append(offset)
    return lowest(torch.stack([a for a, _ in candidates]), torch.stack(offsets), middle, sign=1)


def _part(lower: Tensor, upper: Tensor, start: float, end: float) -> tuple[Tensor, Tensor, Tensor]:
    """The ends of what [lower, upper] has of [start, end], and where that is anything."""
    first, last = lower.clamp_min(start), upper.clamp_max(end)
    return torch.minimum(first, upper), torch.maximum(torch.minimum(first, upper), last), first <= last


def _tangent(
    f: Function, slope: Function, lower: Tensor, upper: Tensor, first: Tensor, last: Tensor, there: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Slope and point of the lowest tangent in the middle that f's concave part [first, last] has above both ends.

    Also where there is one. A tangent through an end has the slope of the chord to its point, whose derivative with
    respect to that point is 0.
    """
    with torch.no_grad():
        above_lower = partial(_height_of_tangent, f, slope, lower)
        above_upper = partial(_height_of_tangent, f, slope, upper)
        left = torch.where(first > lower, _sought(above_lower, last, first), first)
        right = torch.where(last < upper, _sought(above_upper, first, last), last)
        middle = torch.lerp(lower, upper, 0.5)
        point = torch.maximum(torch.minimum(middle, right), left)
        there = there & (left <= right) & (above_lower(left) >= -_ROUNDING) & (above_upper(right) >= -_ROUNDING)
        at_left, at_right = (point == left) & (left > lower), (point == right) & (right < upper)
    free = torch.lerp(lower, upper, 0.5).clamp(left, right)
    a = slope(free)
    a = torch.where(at_left, (f(left) - f(lower)) / torch.where(at_left, left - lower, 1), a)
    a = torch.where(at_right & ~at_left, (f(upper) - f(right)) / torch.where(at_right, upper - right, 1), a)
    return a, point, there


def _height_of_tangent(f: Function, slope: Function, end: Tensor, point: Tensor) -> Tensor:
    """How far above f the tangent at ``point`` passes at ``end``."""
    return f(point) + slope(point) * (end - point) - f(end)


def _sought(height: Function, good: Tensor, bad: Tensor) -> Tensor:
    """The point nearest to ``bad`` where a height is still not negative, as it is at ``good``: by halving, and by a
    straight line in what is left."""
    high, low = height(good), height(bad)
    for _ in range(_HALVINGS):
        half = torch.lerp(good, bad, 0.5)
        at = height(half)
        fits = at >= 0
        good, high = torch.where(fits, half, good), torch.where(fits, at, high)
        bad, low = torch.where(fits, bad, half), torch.where(fits, low, at)
    share = high / (high - low).clamp_min(1e-300)
    return torch.where((high >= 0) & (low < 0), torch.lerp(good, bad, share.clamp(0, 1)), good)


def _most_of_concave(f: Function, slope: Function, a: Tensor, first: Tensor, last: Tensor, touch: Tensor) -> Tensor:
    """An upper bound of f(z) − a · z for z in [first, last], where f is concave, by tangents at three points."""
    bounds = []
    for point in (first, last, torch.maximum(torch.minimum(touch, last), first)):
        with torch.no_grad():  # 0 but for rounding where the bound is reached, and no part of its derivative
            rise = slope(point) - a
            past = rise.clamp_min(0) * (last - point) - rise.clamp_max(0) * (point - first)
        bounds.append(f(point) - a * point + past)
    return torch.stack(bounds).amin(dim=0)


# The functions of torch.nn, with their derivatives.


def _tanh_slope(z: Tensor) -> Tensor:
    return 1 - z.tanh().square()


def _sigmoid_slope(z: Tensor) -> Tensor:
    return z.sigmoid() * (-z).sigmoid()


def _silu_slope(z: Tensor) -> Tensor:
    return z.sigmoid() * (1 + z * (-z).sigmoid())


def _gelu_slope(z: Tensor) -> Tensor:
    return torch.special.ndtr(z) + z * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


_ROOT, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def _gelu_tanh_slope(z: Tensor) -> Tensor:
    inner = (_ROOT * (z + _CUBIC * z**3)).tanh()
    return (1 + inner) / 2 + z / 2 * (1 - inner.square()) * _ROOT * (1 + 3 * _CUBIC * z.square())


def _s_shaped(function: Function, slope: Function) -> Curve:
    """Convex up to 0, concave from there."""
    return Curve(function, slope, concave=((0.0, math.inf),), convex=((-math.inf, 0.0),))


def _bowl(function: Function, slope: Function, bend: float, valley: float) -> Curve:
    """Convex between −bend and bend, concave outside, with its minimum at ``valley``."""
    return Curve(
        function, slope, concave=((-math.inf, -bend), (bend, math.inf)), convex=((-bend, bend),), valley=valley
    )


SIGMOID = _s_shaped(torch.sigmoid, _sigmoid_slope)
TANH = _s_shaped(torch.tanh, _tanh_slope)
# Where their second and first derivatives vanish, to the last digit of double precision.
SILU = _bowl(F.silu, _silu_slope, bend=2.3993572805154677, valley=-1.2784645427610738)
GELU = _bowl(F.gelu, _gelu_slope, bend=math.sqrt(2), valley=-0.7517915246935645)
GELU_TANH = _bowl(
    partial(F.gelu, approximate="tanh"), _gelu_tanh_slope, bend=1.4185040087908284, valley=-0.7524614220710163
)


def elu(alpha: float) -> Curve:
    """z above 0, α(e^z − 1) below: convex for α in (0, 1]."""
    return Curve(
        partial(F.elu, alpha=alpha), lambda z: torch.where(z > 0, torch.ones_like(z), alpha * z.clamp_max(0).exp()),
        convex=((-math.inf, math.inf),),
    )  # fmt: skip


def celu(alpha: float) -> Curve:
    """z above 0, α(e^(z/α) − 1) below: convex for α > 0."""
    return Curve(
        partial(F.celu, alpha=alpha), lambda z: (z.clamp_max(0) / alpha).exp(), convex=((-math.inf, math.inf),)
    )


def softplus(beta: float, threshold: float) -> Curve:
    """log(1 + e^(βz))/β, which torch cuts short to z where βz exceeds a threshold: less by log(1 + e^−threshold)/β."""

    def whole(z: Tensor) -> Tensor:
        return torch.logaddexp(beta * z, torch.zeros_like(z)) / beta

    return Curve(
        whole, lambda z: (beta * z).sigmoid(), convex=((-math.inf, math.inf),),
        slack=math.log1p(math.exp(-threshold)) / beta, short=threshold / beta,
        values=partial(F.softplus, beta=beta, threshold=threshold),
    )  # fmt: skip
