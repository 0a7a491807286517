"""What a notebook cell shows: HTML, with words that stand in where there is none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Shown:
    """HTML that a notebook displays; ``text`` stands in where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def display_with_widget(html: str, live: Callable[[], object]) -> None:
    """Display HTML, and what ``live`` makes under it where a kernel runs and ipywidgets is there.

    While the book's own notebooks are executed (``TK_STATIC=1``) no widget is made, whose state nobody could use.
    """
    from IPython.display import HTML, display

    display(HTML(html))
    if os.environ.get("TK_STATIC") != "1" and find_spec("ipywidgets") is not None:
        display(live())


def html_id(name: str) -> str:
    """A name as the id of an element, spelled as docutils spells the ids of a page: "radius-0.12" is "radius-0-12"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def require_words(**texts: str) -> None:
    """Refuse an empty caption or alternative text."""
    for name, text in texts.items():
        if not text.strip():
            raise ValueError(f"a figure needs its {name}: write one sentence that says what it shows")
