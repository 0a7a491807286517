"""Names and counts that a function may be given; nothing here needs tensors, so looking things up starts at once."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping
from typing import Any


class UnknownName(ValueError):
    """A name that nothing is registered under; the message offers the nearest names."""


_SHOWN, _MANY = 8, 40  # of very many names, and how many are
_LISTED_BY = {
    "claim": "`thesis-kit claims list`", "model": "`thesis-kit zoo list` and timm.list_models()",
    "zoo model": "`thesis-kit zoo list`", "zoo recipe": "`thesis-kit zoo list`", "layer": "model.named_modules()",
    "word": "clip.tokenizer.words", "image–text model": "open_clip.list_models()",
}  # fmt: skip


def choose(name: str, known: Mapping[str, Any] | Iterable[str], kind: str) -> Any:
    """Return ``known[name]`` (or ``name`` itself from a plain list), or say which names are near it."""
    if name in (names := list(known)):
        return known[name] if isinstance(known, Mapping) else name
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    raise UnknownName(f"unknown {kind} {name!r}: {_offer(near, names, kind)}")


def _offer(near: list[str], names: list[str], kind: str) -> str:
    """Names near the one asked for, else all, or the first few of very many and how to list them."""
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = kind in _LISTED_BY
    if len(names) <= (_SHOWN if listed else _MANY):
        return f"choose one of {', '.join(sorted(names))}"
    some = f"choose one of {', '.join(names[:_SHOWN])} and {len(names) - _SHOWN:,} more"
    return f"{some}: see {_LISTED_BY[kind]}" if listed else some


def check_count(value: int, *, what: str, least: int = 1) -> None:
    """Require a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, got {value!r}")
