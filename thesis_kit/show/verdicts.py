"""A chapter's verdicts as one table to be scanned: the claim, what its source reports, what was measured, the verdict.

Rule, budget and formula are a fold away. Where there is no HTML the table is a line a claim.
"""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from itertools import groupby

from thesis_kit.checks import choose
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import Judged, judge_chapter
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.show.claim_rows import as_html, definitions, folded_rows, measured_html, verdict_html

_COLUMNS = ("claim", "its source reports", "measured here", "verdict")
_LEFT = "text-align:left;vertical-align:top"


@dataclass(frozen=True)
class ClaimsTable:
    """A chapter's claims as a notebook shows them: a table, or lines where there is neither HTML nor Markdown."""

    judged: tuple[Judged, ...]

    def verdict_lines(self) -> list[str]:
        """One line a claim, "free-robust (digits): …", for outputs that are compared."""
        return [f"{one.claim.id} ({one.arena}): {_verdict_text(one)}" for one in self.judged]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" role="columnheader" style="{_LEFT}">{name}</th>' for name in _COLUMNS)
        bodies = "".join(_claim(list(group)) for _, group in groupby(self.judged, key=lambda one: one.claim.id))
        head = f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        return f'<table class="tk-table tk-verdicts" role="table">{head}{bodies}</table>'

    def _repr_markdown_(self) -> str:
        lines = ["| claim | arena | verdict |", "|---|---|---|"]
        lines += [f"| {one.claim.statement} | {one.arena} | {_verdict_text(one)} |" for one in self.judged]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(self.verdict_lines())


def claims_table(chapter: str, folder: str | os.PathLike | None = None) -> ClaimsTable:
    """A chapter's slice of the ledger, to be shown at the end of a notebook cell."""
    choose(chapter, catalog().chapters, "chapter")
    return ClaimsTable(tuple(judge_chapter(chapter, folder)))


def _verdict_text(judged: Judged) -> str:
    return judged.said + (f": {judged.reason}" if judged.verdict is Verdict.NOT_RUN else "")


def _claim(group: list[Judged]) -> str:
    """A claim in all its arenas: said once, then a row an arena."""
    claim = group[0].claim
    span = f' rowspan="{len(group)}"' * (len(group) > 1)
    details = "".join(
        f"<p><em>{one.arena}</em></p>" * (len(group) > 1) + definitions(folded_rows(one)) for one in group
    )
    fold = f"<details><summary>rule and budget</summary><p>{html.escape(claim.background)}</p>{details}</details>"
    said = f"<strong>{html.escape(claim.statement)}</strong>{fold}"
    sources = ", ".join(f"[@{source}]" for source in claim.paper.sources)
    first = (
        f'<th scope="rowgroup" role="rowheader"{span} style="{_LEFT};font-weight:400">{said}</th>'
        f'<td role="cell" data-label="{_COLUMNS[1]}"{span} style="{_LEFT}">'
        f"<small>{as_html(f'{claim.paper.text} {sources}')}</small></td>"
    )
    rows = "".join(
        f'<tr role="row">{first * (place == 0)}{_arena(one, named=len(group) > 1)}</tr>'
        for place, one in enumerate(group)
    )
    return f'<tbody role="rowgroup" id="verdict-{claim.id}">{rows}</tbody>'


def _arena(judged: Judged, *, named: bool) -> str:
    """The cells of one arena: what was measured there, and the verdict with its reason where nothing was."""
    where = f"<em>{judged.arena}</em>" * named
    why = f"<br><small>{html.escape(judged.reason)}</small>" if judged.verdict is Verdict.NOT_RUN else ""
    return (
        f'<td role="cell" data-label="{_COLUMNS[2]}" style="{_LEFT}">{where}{measured_html(judged)}</td>'
        f'<td role="cell" data-label="{_COLUMNS[3]}" style="{_LEFT}">{verdict_html(judged)}{why}</td>'
    )
