"""An interval as a small drawing: where it lies against zero and against the threshold it was held to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thesis_kit.ledger.statistics import Interval

_WIDTH, _HEIGHT, _MARGIN, _LINE = 420, 54, 44, 28


def interval_bar(interval: Interval, threshold: float, *, points: bool) -> str:
    """Inline SVG in the text's own color, with a sentence for who cannot see it; empty for an interval without ends."""
    if math.isinf(interval.half_width):
        return ""
    marks = (0.0, threshold, interval.low, interval.high)
    left, right = min(marks), max(marks)
    scale = (_WIDTH - 2 * _MARGIN) / ((right - left) or 1.0)

    def x(value: float) -> float:
        return round(_MARGIN + (value - left) * scale, 1)

    said = _said(interval, (threshold,), points)
    zero = _tick(x(0.0), "0", _LINE + 24) if threshold else ""
    return (
        f'<svg class="tk-interval" role="img" aria-label="{said}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'style="width:100%;max-width:420px;height:auto;display:block" fill="none" stroke="currentColor">'
        f'<path d="M{x(left) - 8} {_LINE}H{x(right) + 8}" stroke-width="1" opacity="0.35"/>'
        f"{zero}{_tick(x(threshold), f'threshold {_text(threshold)}', 11, dash='3 3')}"
        f'<path d="M{x(interval.low)} {_LINE}H{x(interval.high)}" stroke-width="5" stroke-linecap="round"/>'
        f'<circle cx="{x(interval.value)}" cy="{_LINE}" r="6" fill="currentColor"/></svg>'
    )


def _said(interval: Interval, marks: Sequence[float], points: bool) -> str:
    unit = " points" if points else ""
    held = f"threshold{'s' * (len(marks) > 1)} {' and '.join(_text(mark) for mark in marks)}"
    return f"Value {_text(interval.value)}{unit}, interval {_text(interval.low)} to {_text(interval.high)}, {held}"


def _tick(x: float, label: str, y: float, *, dash: str = "none") -> str:
    """A mark across the line, its label above or below."""
    return (
        f'<path d="M{x} {_LINE - 13}V{_LINE + 13}" stroke-width="1.5" stroke-dasharray="{dash}"/>'
        f'<text x="{x}" y="{y}" text-anchor="middle" font-size="12" stroke="none" fill="currentColor">{label}</text>'
    )


def _text(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


_SHORT, _THIN = 132, 16


def small_bar(interval: Interval, marks: Sequence[float], *, points: bool) -> str:
    """``interval_bar`` without words, small enough for the cell of a table: zero solid, each mark that the interval is
    held to dashed."""
    if math.isinf(interval.half_width):
        return ""
    places = (0.0, *marks, interval.low, interval.high)
    left, right = min(places), max(places)
    scale = (_SHORT - 16) / ((right - left) or 1.0)

    def x(value: float) -> float:
        return round(8 + (value - left) * scale, 1)

    middle = _THIN / 2
    up = f"1V{_THIN - 1}"
    dashes = [f'<path d="M{x(mark)} {up}" stroke-width="1.5" stroke-dasharray="2 2"/>' for mark in marks if mark]
    return (
        f'<svg class="tk-interval" role="img" aria-label="{_said(interval, marks, points)}" '
        f'viewBox="0 0 {_SHORT} {_THIN}" style="display:block;width:{_SHORT}px;max-width:100%;height:{_THIN}px" '
        'fill="none" stroke="currentColor">'
        f'<path d="M4 {middle:g}H{_SHORT - 4}" stroke-width="1" opacity="0.35"/>'
        f'<path d="M{x(0.0)} {up}" stroke-width="1.5"/>{"".join(dashes)}'
        f'<path d="M{x(interval.low)} {middle:g}H{x(interval.high)}" stroke-width="4" stroke-linecap="round"/>'
        f'<circle cx="{x(interval.value)}" cy="{middle:g}" r="4" fill="currentColor"/></svg>'
    )
