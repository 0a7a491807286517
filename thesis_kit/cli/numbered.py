"""Units as they are named on the command line."""

from __future__ import annotations

_MOST = 1_000_000  # units that can be named


def numbers(text: str) -> list[int]:
    """Units from numbers and ranges."""
    found: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"units are numbers or ranges such as 0,3,8-11, got {text!r}")
        count = int(last or first) - int(first) + 1
        if count < 1:
            raise ValueError(f"the range {word.strip()} runs backwards: give it as {int(last)}-{int(first)}")
        if count > _MOST:
            raise ValueError(f"{word.strip()} are {count:,} units, and no layer has as many: name fewer")
        found += range(int(first), int(first) + count)
    if not found or len(set(found)) != len(found):
        raise ValueError(f"units are given once each, at least one, got {text!r}")
    return found
