"""What a notebook cell shows: HTML, with words that stand in where there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """HTML that a notebook displays; ``text`` stands in where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def html_id(name: str) -> str:
    """A name as the id of an element, spelled as docutils spells the ids of a page: "radius-0.12" is "radius-0-12"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def require_words(**texts: str) -> None:
    """Refuse an empty caption or alternative text."""
    for name, text in texts.items():
        if not text.strip():
            raise ValueError(f"a figure needs its {name}: write one sentence that says what it shows")
