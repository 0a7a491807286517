"""A few strokes that diagrams are drawn with: boxes, arrows, words and bars as SVG, in the colors of the page around.

A diagram is 340 units wide, a phone's column, and no word in it is smaller than 12 of them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from thesis_kit.show.palette import COLORS, GRID, INK, PALE, PAPER, RULE

WIDTH = 340
_SIZE = 12
_PAINT = {**COLORS, "ink": INK, "paper": PAPER, "grid": GRID, "rule": RULE, "pale": PALE, "none": "none"}


def paint(name: str) -> str:
    """A color of the palette as the page's variable, with the color itself where there is no page."""
    return "none" if name == "none" else f"var(--tk-{name},{_PAINT[name].lower()})"


def words(
    x: float, y: float, text: str, *, anchor: str = "middle", size: float = _SIZE, color: str = "ink",
    bold: bool = False,
) -> str:  # fmt: skip
    """Lines of text, the first on the baseline ``y``; anchored at their "start", "middle" or "end"."""
    weight = "600 " * bold
    lines = "".join(
        f'<tspan x="{x:g}" dy="{0 if number == 0 else 1.2 * size:g}">{html.escape(line)}</tspan>'
        for number, line in enumerate(text.split("\n"))
    )
    look = f'style="font:{weight}{size:g}px sans-serif;fill:{paint(color)}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {look}>{lines}</text>'


def box(
    x: float, y: float, width: float, height: float, text: str = "", *, fill: str = "none", edge: str = "ink",
    opacity: float = 1.0, round_by: float = 4, thick: float = 1.2,
) -> str:  # fmt: skip
    """A box with its words in the middle; ``opacity`` is that of the fill."""
    look = f"fill:{paint(fill)};fill-opacity:{opacity:g};stroke:{paint(edge)};stroke-width:{thick:g}"
    shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_by:g}" style="{look}"/>'
    lines = text.count("\n") + 1
    return shape + (words(x + width / 2, y + height / 2 + 4.2 - 7.2 * (lines - 1), text) if text else "")


def line(points: Sequence[tuple[float, float]], *, color: str = "ink", thick: float = 1.4, dash: str = "") -> str:
    """A line through points."""
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    dashes = f";stroke-dasharray:{dash}" * bool(dash)
    return f'<path d="{path}" style="fill:none;stroke:{paint(color)};stroke-width:{thick:g}{dashes}"/>'


def arrow(points: Sequence[tuple[float, float]], *, color: str = "ink", thick: float = 1.4, dash: str = "") -> str:
    """A line through points with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    base = (x1 - 7 * ux, y1 - 7 * uy)
    corners = [(x1, y1), (base[0] - 3.5 * uy, base[1] + 3.5 * ux), (base[0] + 3.5 * uy, base[1] - 3.5 * ux)]
    head = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"
    shaft = line([*points[:-1], base], color=color, thick=thick, dash=dash)
    return shaft + f'<path d="{head}" style="fill:{paint(color)};stroke:none"/>'


def circle(x: float, y: float, radius: float, *, fill: str = "ink", edge: str = "none", opacity: float = 1.0) -> str:
    """A disk."""
    look = f"fill:{paint(fill)};fill-opacity:{opacity:g};stroke:{paint(edge)}"
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" style="{look}"/>'


def interval(x: float, low: float, high: float, *, color: str = "blue", width: float = 9) -> str:
    """A standing bar from ``low`` to ``high``, both measured downwards from the top."""
    top, height = min(low, high), abs(high - low)
    return box(x - width / 2, top, width, height, fill=color, edge=color, opacity=0.35, round_by=2)


def drawing(height: float, parts: Iterable[str]) -> str:
    """The parts as one SVG, later ones above earlier ones."""
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}">{"".join(parts)}</svg>'


def smallest_text(svg: str) -> float:
    """The size of the smallest text in an SVG, in its own units; infinite without text."""
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?(?:\w+ )*(\d+(?:\.\d+)?)px", svg)]
    return min(sizes, default=float("inf"))
