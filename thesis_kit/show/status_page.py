"""The status page: what is measured, when, on what and at what cost, and what the chapters' claims came to."""

from __future__ import annotations

import os
from collections import Counter

from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_chapter
from thesis_kit.ledger.results import Result, available, load_result
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.show.claim_rows import SIGNS
from thesis_kit.show.tables import table

_PAGE = """# Status

<!-- Written by `thesis-kit claims status --write` from the claims and the recorded results; do not edit. -->

What the claims of each chapter came to in the worlds they were measured in, and how many wait for a measurement.
[The ledger](ledger.md) has them one by one.

```{{raw}} html
{verdicts}
```

## Recordings

Every recorded number of the book comes from one of these files. A run is one way to train, attack or invert with one
seed; hours are those of one processor core.{unnamed}

```{{raw}} html
{recordings}
```

`thesis-kit claims run --arena ARENA` measures what is missing; `thesis-kit claims verify` measures recorded runs again
and says whether they come out the same.
"""


def status_page(folder: str | os.PathLike | None = None) -> str:
    """The page in MyST, from the results in ``folder`` (the package's own unless given)."""
    parts = {"verdicts": _verdicts(folder), "recordings": _recordings(folder), "unnamed": _unnamed(folder)}
    return _PAGE.format(**parts)


def _verdicts(folder: str | os.PathLike | None) -> str:
    """A row a chapter: how many of its claims came to which verdict, a claim counted in every arena."""
    rows = []
    for name, about in sorted(catalog().chapters.items(), key=lambda item: item[1].number):
        counts = Counter(judged.verdict for judged in judge_chapter(name, folder))
        rows.append((f"{about.number} {about.title}", *(counts[verdict] or "" for verdict in Verdict)))
    return table(rows, ("chapter", *(f"{SIGNS[verdict]} {verdict.value}" for verdict in Verdict))).html


def _recordings(folder: str | os.PathLike | None) -> str:
    """A row a result file."""
    names = ("chapter and arena", "recorded", "reproduced", "on", "torch", "runs", "seeds", "core-hours")
    rows = [_recording(load_result(name, folder)) for name in sorted(available(folder), key=_place)]
    return table(rows or [("nothing yet", *[""] * (len(names) - 1))], names).html


def _unnamed(folder: str | os.PathLike | None) -> str:
    """A sentence on runs that do not know which commit made them; nothing where there are none."""
    commits = [cell.get("commit") for name in available(folder) for cell in load_result(name, folder).every_cell]
    unnamed = sum(commit is None for commit in commits)
    if not unnamed:
        return ""
    return (
        f" A run names the commit that made it, but for {unnamed:,} of {len(commits):,}, which were carried over from "
        "files that did not keep it."
    )


def _place(name: str) -> tuple[int, str]:
    chapter, arena = name.split(".")
    return catalog().chapters[chapter].number, arena


def _recording(result: Result) -> tuple[str, ...]:
    cells = result.every_cell
    chapter, arena = result.name.split(".")
    machines = dict.fromkeys(f"{c['machine']['processor']}, {c['machine']['device']}" for c in cells)
    days, again = sorted({cell["recorded"] for cell in cells}), result.measured_again
    return (
        f"{catalog().chapters[chapter].title}, {arena}",
        _span(days),
        f"{len(again)} runs, {_span(sorted({one.date for one in again}))}" if again else "not yet",
        " and ".join(machines),
        " and ".join(dict.fromkeys(cell["machine"]["torch"] for cell in cells)),
        str(len(cells)),
        str(len({cell["seed"] for cell in cells})),
        f"{sum(cell['seconds'] for cell in cells) / 3600:.1f}",
    )


def _span(days: list[str]) -> str:
    """The first and the last of some days, or the one."""
    return " to ".join(dict.fromkeys([days[0], days[-1]]))
