"""What a notebook cell shows: HTML, with words that stand in where there is none."""

from __future__ import annotations

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


def require_words(**texts: str) -> None:
    """Refuse an empty caption or alternative text."""
    for name, text in texts.items():
        if not text.strip():
            raise ValueError(f"a figure needs its {name}: write one sentence that says what it shows")
