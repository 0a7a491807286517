"""A matplotlib figure as SVG that takes its colors from the page around it.

Text stays text, so a reader can search it and a test can measure it. Every color of the book's palette becomes a CSS
variable with that color behind it: shown as an image the figure is dark on light, and inlined into a page it follows
the page's theme.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re

from thesis_kit.show.library import Figure, Image, Line2D, mpl
from thesis_kit.show.palette import COLORS, GRID, INK, PALE, PAPER, RULE
from thesis_kit.show.pictures import image_uri

# What the page calls them; book.css gives each its value in the dark.
_VARIABLES = {
    **{color.lower(): f"--tk-{name}" for name, color in COLORS.items()},
    PAPER: "--tk-paper",
    INK: "--tk-ink",
    "#000000": "--tk-ink",
    GRID: "--tk-grid",
    RULE: "--tk-rule",
    "#b0b0b0": "--tk-rule",
    PALE: "--tk-pale",
}
_MANY = 200  # markers of one line
_PREFIX = "data:image/svg+xml;base64,"
_PAINT = re.compile(r"(fill|stroke): (#[0-9a-f]{6})(?=[;\"])")
_DIGITS = re.compile(r"(\d\.\d{2})\d+")
_FONT = re.compile(r"(?<=font-family: )[^;\"]*|(?<=px )'[^;\"]*")
_HREF = re.compile(r'(href="data:[^"]*")', re.DOTALL)


def render(figure: Figure, *, key: str) -> str:
    """The figure as one ``<svg>`` element without a fixed size, its view box in points; the same bytes on every call.

    Args:
        key: what tells its inner names from those of other figures on the same page.
    """
    for line in figure.findobj(Line2D):
        if len(line.get_xdata(orig=False)) > _MANY and line.get_marker() not in ("None", "none", "", " ", None):
            line.set_rasterized(True)  # a cloud of dots is smaller as a picture
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "image.composite_image": False}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=144, metadata={"Date": None})
    text = buffer.getvalue()
    pieces = _HREF.split(text[text.index("<svg") :].strip())
    return "".join(_smaller(piece) if piece.startswith("href=") else _lighter(piece) for piece in pieces)


def _smaller(href: str) -> str:
    """A picture inside a plot, which matplotlib writes as PNG, as WebP: a colored field takes a tenth of it."""
    data = base64.b64decode(re.sub(r"\s", "", href.partition("base64,")[2].rstrip('"')))
    return f'href="{image_uri(Image.open(io.BytesIO(data)), lossless=4_000, quality=85)}"'


def _lighter(text: str) -> str:
    """Markup between pictures: no comments, metadata, names of groups or superfluous digits; colors as variables."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text)
    text = re.sub(r'<g id="[\w.]+?_\d+">', "<g>", text)
    text = _FONT.sub("sans-serif", _DIGITS.sub(r"\1", text))
    return re.sub(r"\n\s*", "\n", _PAINT.sub(_variable, text))


def _variable(found: re.Match) -> str:
    name = _VARIABLES.get(found[2])
    return f"{found[1]}: var({name},{found[2]})" if name else found[0]


def picture(svg: str, *, alt: str, kind: str, shown: bool = True) -> str:
    """An ``<img>`` of an SVG, which every notebook viewer shows; the site puts the SVG itself in its place.

    Args:
        kind: its class, "tk-wide" or "tk-narrow". shown: whether it is seen where no style sheet decides.
    """
    uri = _PREFIX + base64.b64encode(svg.encode()).decode()
    look = "width:100%;height:auto;" + ("display:block" if shown else "display:none")
    return f'<img class="{kind}" src="{uri}" alt="{html.escape(alt, quote=True)}" style="{look}">'


def key_of(*texts: str) -> str:
    """A short name made from texts: the same for the same, fit for an HTML id."""
    return "tk-" + hashlib.sha256("\0".join(texts).encode()).hexdigest()[:10]
