"""The ledger: every claim beside what the paper says and what was measured, as a page and as cards in a notebook.

Both are rendered from the same rows of text, computed from claims.yml and the recorded results, so the page can be
regenerated and compared at any time. A word and a sign carry each verdict; color only repeats them.
"""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thesis_kit.checks import choose
from thesis_kit.ledger.claims import STATUSES, Chapter, catalog
from thesis_kit.ledger.judging import Finding, Judged, judge_chapter
from thesis_kit.ledger.multiplicity import contrasts, fragile
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.statistics import SMALL_MARGIN, Verdict
from thesis_kit.show.interval_bar import interval_bar

SIGNS = {
    Verdict.HOLDS: "✓",
    Verdict.IN_DIRECTION: "↗",
    Verdict.FAILS: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NOT_RUN: "–",
}
COLORS = {
    Verdict.HOLDS: "#009E73",
    Verdict.IN_DIRECTION: "#56B4E9",
    Verdict.FAILS: "#D55E00",
    Verdict.INCONCLUSIVE: "#E69F00",
    Verdict.NOT_RUN: "#8A8A8A",
}
MEANINGS = {
    Verdict.HOLDS: "the whole 95% interval lies at or above the threshold (a promised probability: no test refutes it)",
    Verdict.IN_DIRECTION: "the interval lies above zero, but not wholly above the threshold",
    Verdict.FAILS: "the whole interval lies below the threshold and does not lie wholly above zero",
    Verdict.INCONCLUSIVE: "the interval is too wide to tell, or a condition of the claim is not met",
    Verdict.NOT_RUN: "nothing was measured, for the reason given",
}
_CARD = (
    "background:#fff;color:#1a1a1a;border:1px solid #d0d0d0;border-left:6px solid {color};border-radius:6px;"
    "padding:10px 14px;margin:1em 0;max-width:100%;box-sizing:border-box;overflow-wrap:anywhere"
)
_KNOBS = {"lr": "learning rates", "strength": "strengths of distillation"}
_CODE = "color:inherit;background:none"  # a theme's own code colors are made for the page, not for a white card
Row = tuple[str, list[str]]


# A row's text is light markup, **bold**, `code` and [@source], which both renderings understand.


def rows(judged: Judged) -> list[Row]:
    """What the ledger says about one claim, label by label; each line is light markup."""
    claim = judged.claim
    table: list[Row] = [("Verdict", [f"{SIGNS[judged.verdict]} **{judged.verdict.value}**: {judged.reason}"])]
    if judged.findings:
        table.append(("Measured", [_finding(finding, judged) for finding in judged.findings]))
    if judged.reported:
        table.append(("Beside it", [f"{title}: {value}" for title, value in judged.reported.items()]))
    sources = ", ".join(f"[@{source}]" for source in claim.paper.sources)
    table.append(("The source says", [f"{claim.paper.text} {sources} ({STATUSES[claim.paper.status]})"]))
    table.append(
        ("Rule", [f"`{text}`" for text in (*(c.text for c in claim.rule), *(c.text for c in claim.conditions))])
    )
    table.append(("Planned", list(claim.plan)))
    if judged.result is not None and judged.findings:
        table.append(("Budget", budget(judged)))
        table.append(("Recorded", [_recorded(judged.result)]))
    return [(label, texts) for label, texts in table if texts]


def _finding(finding: Finding, judged: Judged) -> str:
    interval, unit = finding.interval, " points" if finding.contrast.points else ""
    low, high, value = (_number(x, unit) for x in (interval.low, interval.high, interval.value))
    sample = f"{interval.n:,} images, " * bool(interval.n) + f"{interval.seeds} seeds"
    return (
        f"**{_signed(value)}{unit}**, 95% interval {low} to {high}; the rule asks for at least "
        f"{_number(finding.contrast.threshold, unit)}. {_levels(finding, judged)}. ({sample}; {interval.kind})"
    )


def _levels(finding: Finding, judged: Judged) -> str:
    """The means that enter a contrast, measure by measure: "Accuracy under PGD-20: 72.0% with Free, m = 8; …"."""
    measures, arms = catalog().measures, _chapter(judged).arms
    said: dict[str, list[str]] = {}
    for (measure, arm), level in finding.levels.items():
        text = f"{level:.1f}%" if finding.contrast.points else f"{level:.3g}"
        said.setdefault(measures[measure].title, []).append(f"{text} with {arms[arm]}")
    text = "; ".join(f"{title}: {'; '.join(levels)}" for title, levels in said.items())
    return text[0].upper() + text[1:]


def _chapter(judged: Judged) -> Chapter:
    return catalog().chapters[judged.claim.chapter]


def _number(value: float, unit: str) -> str:
    text = f"{value:.1f}" if unit and value != round(value) else f"{value:.3g}"
    return text.replace("-", "−")


def _signed(text: str) -> str:
    return text if text.startswith("−") or not float(text) else f"+{text}"


def budget(judged: Judged) -> list[str]:
    """What the arms cost to train and what their attacks cost an image, from the recorded passes."""
    names = catalog().measures
    terms = [term for finding in judged.findings for term in finding.levels]
    arms = list(dict.fromkeys(arm for _, arm in terms))
    lines = [_training(judged.result, arm, _chapter(judged).arms[arm]) for arm in arms]
    attacks = list(dict.fromkeys(attack for measure, _ in terms for attack in names[measure].attacks))
    lines += [_attack(judged.result, arms, attack) for attack in attacks]
    return [line for line in lines if line]


def _training(result: Result, arm: str, title: str) -> str:
    cells = list(result.cells[arm].values())
    passes = [cell["budget"].get("train", {}).get("backward") for cell in cells]
    if not cells or None in passes:
        return ""
    return f"{title}: {np.mean(passes):,.0f} backward passes in training{_choice(cells)}"


def _choice(cells: list[Mapping[str, Any]]) -> str:
    """A clause about how many values of a knob were tried, where there was more than one."""
    tried = max(len(cell.get("trials", [])) for cell in cells)
    if tried < 2:
        return ""
    knobs = {knob for cell in cells for knob in cell.get("chosen", {})}
    return f", the best of {tried} {_KNOBS.get(''.join(knobs), 'settings')} on validation images"


def _attack(result: Result, arms: list[str], attack: str) -> str:
    spent = [cell["budget"][attack] for arm in arms for cell in result.cells[arm].values() if attack in cell["budget"]]
    attacked = sum(cost["attacked"] for cost in spent)
    if not attacked:
        return ""
    forward, backward = (sum(cost[f"{way}_images"] for cost in spent) / attacked for way in ("forward", "backward"))
    return f"{attack}: {forward:,.0f} forward and {backward:,.0f} backward passes an image attacked"


def _recorded(result: Result) -> str:
    return f"{result.document['recorded']} on {result.document['machine']['processor']}; {result.code_status()}"


# --- the page


def ledger_page(folder: str | os.PathLike | None = None) -> str:
    """The whole ledger as a MyST page."""
    chapters = {name: judge_chapter(name, folder) for name in catalog().chapters}
    everything = [judged for part in chapters.values() for judged in part]
    legend, number = _legend(everything), _multiplicity(everything)
    parts = [_HEAD.format(margin=SMALL_MARGIN, legend=legend, number=number, arenas=_definitions(catalog().arenas))]
    parts += [chapter_page(name, judged) for name, judged in chapters.items()]
    return "\n".join(parts)


_HEAD = """# The ledger

<!-- Written by `thesis-kit claims ledger --write` from claims.yml and the recorded results; do not edit. -->

Every claim of the book, beside what its source says and what was measured here. The verdicts are computed: a claim
has a rule, one or more differences with a threshold fixed in advance, measured on the same test images for every
method. The 95% interval covers both the luck of a training run (Student's t over seeds) and the choice of test images
(a bootstrap); the wider of the two counts, and is named behind the number. A share of seeds has Wilson's interval and
a difference of two shares Newcombe's, which are made for small counts. Where a rule tolerates a loss of less than
{margin:g} points, it holds only if half the interval's width is smaller than that loss or the whole interval lies above
zero. A claim that fails is a finding, and stands here like any other.

The budget counts forward and backward passes apart; together they are one pass of the chapter's text. "The code that
measures has changed since" asks for care: the numbers are those of the older code. Where runs were then measured again,
at least one of every method, and "gave the same outcomes bit by bit", every test image of these runs came out as before
under every attack: as far as these runs can tell, the numbers are also those of the present code.

{legend}

{number}

Where a rule was written or changed when the outcomes were known, its row says so. A promised probability (that a
certificate is right) has no threshold for its interval: an exact binomial test refutes it if so many failures cannot be
chance. Claims of chapters to come stand here with what is planned.

Verdicts are about the book's own small worlds, its *arenas*, and say no more than what was measured there:

{arenas}
"""


def _legend(everything: list[Judged]) -> str:
    counts = Counter(judged.verdict for judged in everything)
    lines = ["| | verdict | meaning | claims |", "|---|---|---|---|"]
    lines += [f"| {SIGNS[v]} | **{v.value}** | {MEANINGS[v]} | {counts[v]} |" for v in Verdict]
    return "\n".join(lines)


def _multiplicity(everything: list[Judged]) -> str:
    """How many contrasts the page judges, and which decided rows would not be decided at 99%."""
    measured = contrasts(everything)
    near = [one for one, found in measured if one.verdict in (Verdict.HOLDS, Verdict.FAILS) and fragile(found)]
    named = dict.fromkeys(f"[{one.claim.id}](#{_anchor(one)}) ({one.arena})" for one in near)
    lean = f" Lean least on these rows, where an interval of 99% would reach the threshold: {', '.join(named)}."
    return (
        f"The page judges {len(measured)} contrasts, each by a 95% interval of its own, and nothing is corrected for "
        f"their number: about {len(measured) / 20:.0f} of the intervals can be expected to miss the true value."
    ) + lean * bool(named)


def _definitions(table: Mapping[str, str]) -> str:
    return "\n\n".join(f"{term}\n: {text}" for term, text in table.items())


def chapter_page(chapter: str, judged: list[Judged]) -> str:
    """One chapter's part of the ledger as MyST: a table to find one's way, then each claim in full."""
    about = catalog().chapters[chapter]
    lines = [f"## Chapter {about.number}: {about.title}", "", "| claim | arena | verdict |", "|---|---|---|"]
    for one in judged:
        sign = f"{SIGNS[one.verdict]}\N{NO-BREAK SPACE}{one.verdict.value}"  # the sign never stands alone on a line
        lines.append(f"| [{one.claim.statement}](#{_anchor(one)}) | {one.arena} | {sign} |")
    results = {one.result.name: one.result for one in judged if one.result is not None}
    lines += ["", *(f"{result.provenance()}." for result in results.values()), ""]
    return "\n".join([*lines, *(_claim_page(one) for one in judged)])


def _anchor(judged: Judged) -> str:
    headline = judged.arena == judged.claim.arena
    return f"claim-{judged.claim.id}" + ("" if headline else f"-{judged.arena}")


def _claim_page(judged: Judged) -> str:
    claim = judged.claim
    lines = [f"({_anchor(judged)})=", f"### {claim.id}", ""]
    lines += [f"{claim.statement} *({claim.background}; arena {judged.arena})*", ""]
    lines += [*(f"{bar}\n" for bar in _bars(judged))]
    for label, texts in rows(judged):
        lines += [label, *(f": {_myst(text)}" for text in texts), ""]
    return "\n".join(lines)


def _myst(text: str) -> str:
    return re.sub(r"\[@(\w+)\]", r"{cite:p}`\1`", text)


def _bars(judged: Judged) -> list[str]:
    """Each contrast's interval as a drawing under the contrast's own text."""
    bars = []
    for finding in judged.findings:
        bar = interval_bar(finding.interval, finding.contrast.threshold, points=finding.contrast.points)
        left = html.escape(finding.contrast.expression.text)
        bars.append(f'<div style="margin:6px 0"><small><code style="{_CODE}">{left}</code></small>{bar}</div>')
    return bars


# --- the notebook


@dataclass(frozen=True)
class ClaimsTable:
    """A chapter's claims as a notebook shows them: cards where there is HTML, a table or lines where there is none."""

    judged: tuple[Judged, ...]

    def verdict_lines(self) -> list[str]:
        """One line a claim, "free-robust (digits): …", for outputs that are compared."""
        return [f"{one.claim.id} ({one.arena}): {_verdict_text(one)}" for one in self.judged]

    def _repr_html_(self) -> str:
        return "\n".join(_html_card(one) for one in self.judged)

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
    return judged.verdict.value + (f": {judged.reason}" if judged.verdict is Verdict.NOT_RUN else "")


def _html_card(judged: Judged) -> str:
    """One claim as a card: verdict, statement and measurement in sight, the rest folded."""
    claim, table = judged.claim, dict(rows(judged))
    style = _CARD.format(color=COLORS[judged.verdict])
    shown = [label for label in ("Measured", "Beside it", "The source says") if label in table]
    folded = [label for label in table if label not in (*shown, "Verdict")]
    return (
        f'<section class="tk-claim" style="{style}"><p style="margin:0 0 4px">{_html(table["Verdict"][0])}</p>'
        f'<p style="margin:0 0 6px"><strong>{html.escape(claim.statement)}</strong> '
        f"<small>({claim.background}; {_html(f'`{claim.id}`')}, arena {judged.arena})</small></p>"
        f"{''.join(_bars(judged))}{_html_list(table, shown)}"
        f"<details><summary>{', '.join(folded).capitalize()}</summary>{_html_list(table, folded)}</details></section>"
    )


def _html_list(table: Mapping[str, list[str]], labels: list[str]) -> str:
    entries: list[Any] = []
    for label in labels:
        entries.append(f'<dt style="font-weight:600;margin-top:6px">{label}</dt>')
        entries += [f'<dd style="margin:0 0 0 1em">{_html(text)}</dd>' for text in table[label]]
    return f'<dl style="margin:4px 0;font-size:0.94em">{"".join(entries)}</dl>'


def _html(text: str) -> str:
    """Light markup as HTML, sources by their names."""
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"`(.+?)`", rf'<code style="{_CODE}">\1</code>', text)
    return re.sub(r"\[@(\w+)\]", lambda match: html.escape(catalog().sources[match[1]]), text)
