"""Reports as a reader sees them: what attacks did, what differs from what, and a function's own lines."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from thesis_kit.evaluation import MaskingReport, RobustAccuracy
from thesis_kit.ledger.judging import difference
from thesis_kit.ledger.results import Result
from thesis_kit.show.shown import Shown
from thesis_kit.show.tables import table


def attacks_table(report: RobustAccuracy, *, caption: str = "") -> Shown:
    """What each attack left of an accuracy, with Wilson's 95% interval and its passes an image, both ways counted."""
    rows = [("no attack", *_share(report.correct), "")]
    for one in report.attacks:
        passes = (one.passes.forward_images + one.passes.backward_images) / max(one.attacked, 1)
        rows.append((one.name, f"{one.accuracy:.1%}", _between(one.interval), f"{passes:,.0f}"))
    if len(report.attacks) > 1:
        rows.append(("worst case", f"{report.robust_accuracy:.1%}", _between(report.interval), ""))
    return table(rows, ("attack", "right", "95% interval", "passes"), caption=caption, bold=len(rows) - 1)


def _share(correct: Tensor) -> tuple[str, str]:
    return f"{correct.double().mean().item():.1%}", ""


def _between(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def masking_tables(report: MaskingReport) -> Shown:
    """A diagnosis of masked gradients: its attacks, then its findings, then its conclusion."""
    words = {True: "yes", False: "no", None: "?"}
    rows = [(one.name, words[one.found], one.evidence) for one in report.findings]
    parts = [attacks_table(report.robust), table(rows, ("finding", "found", "evidence"), prose=True)]
    said = Shown(f"<p>{report.conclusion}</p>", textwrap.fill(report.conclusion, 100))
    return Shown("".join(part.html for part in (*parts, said)), "\n\n".join(part.text for part in (*parts, said)))


def differences(recorded: Result, contrasts: Mapping[str, str], *, caption: str, points: bool = True) -> Shown:
    """Recorded differences with their 95% intervals, a row each: what it is called → "R(n-fgsm) - R(free-8)"."""
    return table({name: difference(recorded, what, points=points) for name, what in contrasts.items()}, caption=caption)


@dataclass(frozen=True)
class Source:
    """A function's own lines, colored where the notebook colors code."""

    text: str

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}```\n"

    def __repr__(self) -> str:
        return self.text


def source(function: Callable) -> Source:
    """The lines of a function as the package runs them, for a cell to show."""
    return Source(textwrap.dedent(inspect.getsource(function)))
