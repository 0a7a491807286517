"""Figures as a reader meets them: numbered, captioned, with words for who cannot see them, in two widths.

``present`` turns a matplotlib figure into HTML that looks the same in Jupyter, on Colab and on GitHub, and that the
site draws in the theme's colors, for a desktop or for a phone. Colors are Okabe and Ito's (2008), which color-blind
readers can tell apart; markers differ as well.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from thesis_kit.show import svg
from thesis_kit.show.library import Axis, Figure, Image, mpl
from thesis_kit.show.narrow import narrowed, raise_text
from thesis_kit.show.palette import COLORS, GRID, INK
from thesis_kit.show.pictures import image_uri
from thesis_kit.show.shown import Shown, require_words

__all__ = ["COLORS", "Shown", "canvas", "card", "drawn", "folded", "picture", "present", "require_words", "style"]

_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_CARD = "background:#fff;color:#1a1a1a;border-radius:6px;padding:12px;margin:1em 0;max-width:100%;box-sizing:border-box"
_LEAST = 10.0  # points of the smallest text, on a canvas of some 500
_LABEL = re.compile(r"Figure \d+(\.\d+)?")
_MARKUP = re.compile(r"\*[^*\s][^*]*\*|`[^`]+`|\$[^$]+\$|\[[^]]+\]\(")
_UNITS = {"(ε)": 1.0, "(σ)": 1.0, "(%)": 1.5}  # the least that an axis in this unit spans


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
    """The figure in dots, as a data URI, see ``pictures.image_uri``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return image_uri(Image.open(buffer).convert("RGB"))


def card(inner: str, *, label: str, caption: str) -> str:
    """HTML of a figure: what is shown, then its label ("Figure 1.2") and caption.

    Raises:
        ValueError: the label is no number of a figure, or the caption is empty or holds markup, which nothing reads.
    """
    require_words(caption=caption)
    require_plain("a caption", caption)
    if not _LABEL.fullmatch(label):
        raise ValueError(f"a figure is labeled by chapter and number, as in 'Figure 1.2', got {label!r}")
    return (
        f'<figure class="tk-figure" style="{_CARD}">{inner}<figcaption style="font-size:0.92em;margin-top:8px">'
        f"<strong>{html.escape(label)}.</strong> {html.escape(caption)}</figcaption></figure>"
    )


def folded(title: str, rows: Mapping[str, str]) -> Shown:
    """A card that opens at a click: a list of terms and what is to be said of each."""
    require_words(title=title, **rows)
    entries = "".join(
        f'<dt style="font-weight:600;margin-top:6px">{html.escape(term)}</dt>'
        f'<dd style="margin:0 0 0 1em">{html.escape(text)}</dd>'
        for term, text in rows.items()
    )
    inner = f'<summary>{html.escape(title)}</summary><dl style="margin:4px 0;font-size:0.94em">{entries}</dl>'
    text = "\n".join([f"{title}:", *(f"  {term}: {said}" for term, said in rows.items())])
    return Shown(f'<details class="tk-folded" style="{_CARD}">{inner}</details>', text)


def present(figure: Figure, *, label: str, caption: str, alt: str) -> Shown:
    """Show a plot with its label ("Figure 1.2"), caption, and a sentence for who cannot see it.

    Raises:
        ValueError: caption or alternative text is missing, a text holds markup, or an axis is not in the unit it names.
    """
    require_words(alt=alt)
    return Shown(card(two_widths(figure, key=label, alt=alt), label=label, caption=caption), f"{label}. {caption}")


def two_widths(figure: Figure, *, key: str, alt: str) -> str:
    """HTML of a plot drawn for a desktop and for a phone, of which the page shows one.

    Args:
        key: what tells it from other figures of the page.
    """
    inspect(figure)
    raise_text(figure, _LEAST)
    drawn_twice = {"tk-wide": figure, "tk-narrow": narrowed(figure)}
    return "".join(
        svg.picture(svg.render(one, key=svg.key_of(key, kind)), alt=alt, kind=kind, shown=kind == "tk-wide")
        for kind, one in drawn_twice.items()
    )


def drawn(drawing: str, *, label: str, caption: str, alt: str) -> Shown:
    """Show a diagram, an SVG of a phone's width that serves a desktop as well; see ``present``."""
    require_words(alt=alt)
    image = svg.picture(drawing, alt=alt, kind="tk-both")
    return Shown(card(image, label=label, caption=caption), f"{label}. {caption}")


def require_plain(what: str, text: str) -> None:
    """Refuse text with markup: a figure would print its asterisks."""
    if found := _MARKUP.search(text):
        raise ValueError(f"{what} shows {found[0]!r} as it stands: write it without markup")


def inspect(figure: Figure) -> None:
    """Refuse a plot whose words hold markup, or an axis that names a unit and does not count in it.

    Raises:
        ValueError: the first fault that was found.
    """
    for axes in figure.axes:
        legend = axes.get_legend()
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())):
            require_plain("a plot", text.get_text())
        for axis in (axes.xaxis, axes.yaxis):
            _require_unit(axis)


def _require_unit(axis: Axis) -> None:
    """An axis in units of ε that spans less than one ε is in pixel values; one in percent that ends at 1, in shares."""
    name = axis.label.get_text()
    low, high = axis.get_view_interval()
    for unit, least in _UNITS.items():
        if unit in name and abs(high - low) < least:
            raise ValueError(
                f"the axis {name!r} spans {abs(high - low):.3g}, too little for its unit: rescale it or rename it"
            )
