"""Compare a run measured again with its record: bit by bit, number by number, in words.

Everything counts except where a run comes from and how long it took: numbers named ``seconds`` or ``…_seconds``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thesis_kit.files import canonical
from thesis_kit.ledger.results import Result, unpack
from thesis_kit.ledger.statistics import LEVEL, prediction_interval

_TIME = re.compile(r"(.*_)?seconds")
_ORIGIN = ("arm", "seed", "machine", "modules", "networks")
_NOTHING = object()


@dataclass(frozen=True)
class Difference:
    """How one entry of a run (``part`` "outcomes", ``name`` "R") is not what was recorded; ``value`` is the number it
    came to now, for outcomes their mean, where it is one."""

    arm: str
    seed: int
    part: str
    name: str
    how: str
    value: float | None = None

    @property
    def measure(self) -> str:
        """The entry as the result file has it: "outcomes R"."""
        return f"{self.part} {self.name}".strip()

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}: {self.measure} {self.how}"


def differences(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> list[Difference]:
    """Where a cell measured again departs from the recorded one, at most one difference an entry."""
    old, new = _entries(recorded), _entries(json.loads(canonical(again)))
    found = []
    for part, name in {**old, **new}:
        both = old.get((part, name), _NOTHING), new.get((part, name), _NOTHING)
        if _NOTHING in both:
            how = "was not recorded and is measured now" if both[0] is _NOTHING else "was recorded and is missing now"
        elif part == "outcomes":
            how = _images(*both, recorded["n"], again["n"])
        else:
            how = _first_difference(*both)
        if how:
            value = None if _NOTHING in both else _value(part, both[1], again["n"])
            found.append(Difference(recorded["arm"], recorded["seed"], part, name, how, value))
    return found


def _entries(cell: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """A cell's content without times and origin: (``scalars``, ``passes``) → value, (``n``, "") → value."""
    found: dict[tuple[str, str], Any] = {}
    for part, value in cell.items():
        if isinstance(value, Mapping):
            found.update({(part, name): entry for name, entry in value.items()})
        elif part not in _ORIGIN:
            found[part, ""] = value
    return {
        (part, name): value
        for (part, name), value in found.items()
        if part not in _ORIGIN and not _TIME.fullmatch(name or part)
    }


def _value(part: str, entry: Any, n: int) -> float | None:
    if part == "outcomes":
        return float(unpack(entry, n).mean())
    return float(entry) if part == "scalars" else None


def _images(recorded: str, again: str, n: int, n_again: int) -> str:
    """In how many images packed outcomes differ and in which first; empty where they are the same."""
    if n != n_again:
        return f"was recorded for {n} images, now there are {n_again}"
    old, new = unpack(recorded, n), unpack(again, n)
    where = np.flatnonzero(old != new)
    if not len(where):
        return ""
    first = int(where[0])
    return f"differs in {len(where)} of {n} images, first in image {first}: recorded {old[first]:d}, now {new[first]:d}"


def _first_difference(recorded: Any, again: Any, where: str = "") -> str:
    """The first number that differs between two values as JSON has them; empty where they are the same."""
    if isinstance(recorded, dict) and isinstance(again, dict) and recorded.keys() == again.keys():
        pairs = [(name, recorded[name], again[name]) for name in recorded if not _TIME.fullmatch(name)]
    elif isinstance(recorded, list) and isinstance(again, list) and len(recorded) == len(again):
        pairs = [(str(number), *both) for number, both in enumerate(zip(recorded, again, strict=True))]
    else:
        place = f" at {where}" if where else ""
        return "" if recorded == again else f"differs{place}: recorded {_short(recorded)}, now {_short(again)}"
    found = (_first_difference(old, new, f"{where}.{name}".lstrip(".")) for name, old, new in pairs)
    return next(filter(None, found), "")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"entries {', '.join(value) or 'none'}"
    return f"{len(value)} entries" if isinstance(value, list) else f"{value}"


def inside_prediction_interval(result: Result, measure: str, arm: str, value: float, level: float = LEVEL) -> bool:
    """Whether ``value`` lies where one more seed of an arm falls with probability ``level``, going by those recorded.

    It is the question to ask on another machine, where sums round otherwise and outcomes cannot agree bit by bit.
    ``measure`` is an outcome, whose mean over images (0 … 1) counts, or a number. A single recorded seed excludes
    nothing; where all seeds agree, only their own value lies inside.

    Raises:
        NotRecorded: the measure was not recorded.
    """
    low, high = prediction_interval(list(result.scalars(measure, arm).values()), level)
    rounding = 1e-9 * max(1.0, abs(value))  # the mean of equal numbers need not equal them in the last bit
    return low - rounding <= value <= high + rounding
