"""Figures as a reader meets them: numbered, captioned, with alternative text, on one white card in every theme.

``present`` turns a matplotlib figure into HTML that looks the same in Jupyter, on Colab, on GitHub and in the rendered
book. Colors are Okabe and Ito's (2008), which color-blind readers can tell apart; markers differ as well.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "gray": "#6B6B6B",
}
_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.color": "#1A1A1A",
}
_CARD = "background:#fff;color:#1a1a1a;border-radius:6px;padding:12px;margin:1em 0;max-width:100%;box-sizing:border-box"


@contextmanager
def style() -> Iterator[None]:
    """The book's matplotlib settings inside the block; the caller's come back after it."""
    with mpl.rc_context(_STYLE):
        yield


def canvas(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (7, 4), **options: object):
    """A figure outside pyplot's registry and its axes, to be drawn inside ``style()``."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def picture(figure: Figure, *, dpi: int = 150) -> str:
    """The figure as a data URI, see ``image_uri``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return image_uri(Image.open(buffer).convert("RGB"))


def image_uri(image: Image.Image, *, lossless: int = 60_000, quality: int = 80) -> str:
    """An image as a data URI: WebP, without loss where that is small (a plot), else of high quality (photographs).

    Args:
        lossless: bytes up to which it is kept without loss. quality: of what is larger, 0 … 100.
    """
    data = _webp(image, lossless=True)
    if len(data) > lossless:
        data = _webp(image, quality=quality)
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _webp(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=6, **options)
    return buffer.getvalue()


def card(inner: str, *, label: str, caption: str) -> str:
    """HTML of a white card: what is shown, then its label and caption."""
    return (
        f'<figure class="tk-figure" style="{_CARD}">{inner}<figcaption style="font-size:0.92em;margin-top:8px">'
        f"<strong>{html.escape(label)}.</strong> {html.escape(caption)}</figcaption></figure>"
    )


def folded(title: str, rows: Mapping[str, str]) -> Shown:
    """A white card that opens at a click: a list of terms and what is to be said of each."""
    require_words(title=title, **rows)
    entries = "".join(
        f'<dt style="font-weight:600;margin-top:6px">{html.escape(term)}</dt>'
        f'<dd style="margin:0 0 0 1em">{html.escape(text)}</dd>'
        for term, text in rows.items()
    )
    inner = f'<summary>{html.escape(title)}</summary><dl style="margin:4px 0;font-size:0.94em">{entries}</dl>'
    text = "\n".join([f"{title}:", *(f"  {term}: {said}" for term, said in rows.items())])
    return Shown(f'<details class="tk-folded" style="{_CARD}">{inner}</details>', text)


@dataclass(frozen=True)
class Shown:
    """HTML that a notebook displays; ``text`` stands in where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def present(figure: Figure, *, label: str, caption: str, alt: str) -> Shown:
    """Show a figure with its label ("Figure 1.2"), caption, and a sentence for who cannot see it.

    Raises:
        ValueError: caption or alternative text is missing.
    """
    require_words(caption=caption, alt=alt)
    image = f'<img src="{picture(figure)}" alt="{html.escape(alt, quote=True)}" style="max-width:100%;height:auto">'
    return Shown(card(image, label=label, caption=caption), f"{label}. {caption}")


def require_words(**texts: str) -> None:
    """Refuse an empty caption or alternative text."""
    for name, text in texts.items():
        if not text.strip():
            raise ValueError(f"a figure needs its {name}: write one sentence that says what it shows")
