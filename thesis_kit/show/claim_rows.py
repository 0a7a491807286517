"""What is said about a claim: verdict, measurement, source, rule and budget, as rows of text and as HTML.

The chapters' tables, the ledger and the command line are all rendered from these rows, which are computed from the
claims and the recorded results. A word and a sign carry each verdict; color only repeats them.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thesis_kit.ledger import statistics
from thesis_kit.ledger.claims import STATUSES, Chapter, catalog
from thesis_kit.ledger.judging import ContrastFinding, Judged
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.statistics import Interval, Verdict
from thesis_kit.show.interval_bar import small_bar
from thesis_kit.show.shown import html_id

SIGNS = {
    Verdict.HOLDS: "✓",
    Verdict.IN_DIRECTION: "↗",
    Verdict.FAILS: "✗",
    Verdict.SAME: "=",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NOT_RUN: "–",
}
COLORS = {
    Verdict.HOLDS: "#00694d",
    Verdict.IN_DIRECTION: "#00619a",
    Verdict.FAILS: "#a94400",
    Verdict.SAME: "#6b3fa0",
    Verdict.INCONCLUSIVE: "#7a5400",
    Verdict.NOT_RUN: "#595f66",
}
MEANINGS = {
    Verdict.HOLDS: (
        "the whole 95% interval lies at or above the threshold; of a promised probability (a certificate's): an exact "
        "binomial test of the trials does not refute it at p < 0.001, whatever lower end so few trials leave open"
    ),
    Verdict.IN_DIRECTION: "the interval of a difference lies above zero, but not wholly above the threshold",
    Verdict.FAILS: (
        "the whole interval lies below the threshold and, for a difference, not wholly above zero (where only sameness "
        "is asked: wholly outside); of a promised probability: the test refutes it"
    ),
    Verdict.SAME: "where a row asks for it: the whole interval of a difference lies within the distance it names",
    Verdict.INCONCLUSIVE: "the interval is too wide to tell, nothing differs at all, parts of the rule disagree, or a "
    "condition is not met",
    Verdict.NOT_RUN: "nothing was measured, for the reason given",
}
_SHADES = {
    Verdict.HOLDS: "good",
    Verdict.IN_DIRECTION: "blue",
    Verdict.FAILS: "bad",
    Verdict.SAME: "same",
    Verdict.INCONCLUSIVE: "open",
    Verdict.NOT_RUN: "muted",
}
_KNOBS = {"lr": "learning rates", "strength": "strengths of distillation"}
_CODE = "color:inherit;background:none"  # a notebook's own code colors are made for its page, not for a table
Row = tuple[str, list[str]]


# A row's text is light markup, **bold**, `code` and [@source], which both renderings understand.


def rows(judged: Judged) -> list[Row]:
    """What the ledger says about one claim, label by label; each line is light markup."""
    claim, parts = judged.claim, f", {judged.parts}" * bool(judged.parts)
    table: list[Row] = [("Verdict", [f"{SIGNS[judged.verdict]} **{judged.verdict.value}**{parts}: {judged.reason}"])]
    if judged.findings:
        table.append(("Measured", [_finding(finding, judged) for finding in judged.findings]))
        table.append(("To decide it", _missing(judged.findings)))
    if judged.reported:
        table.append(("Beside it", [f"{title}: {value}" for title, value in judged.reported.items()]))
    sources = ", ".join(f"[@{source}]" for source in claim.paper.sources)
    table.append(("The source says", [f"{claim.paper.text} {sources} ({STATUSES[claim.paper.status]})"]))
    rule = [f"`{text}`" for text in (*(c.text for c in claim.rule), *(c.text for c in claim.conditions))]
    table.append(("Rule", [*rule, *([judged.rule_changed] if judged.rule_changed else [])]))
    table.append(("Planned", list(claim.plan)))
    if judged.result is not None and judged.findings:
        table.append(("Budget", budget(judged)))
    return [(label, texts) for label, texts in table if texts]


def _finding(finding: ContrastFinding, judged: Judged) -> str:
    interval, unit = finding.interval, " points" if finding.contrast.points else ""
    low, high, value = (_number(x, unit) for x in (interval.low, interval.high, interval.value))
    part = f"{SIGNS[finding.verdict]} {finding.verdict.value}: " * (len(judged.findings) > 1)
    return (
        f"{part}**{_signed(value)}{unit}**, 95% interval {low} to {high}; the rule asks for "
        f"{asked(finding)}. {_levels(finding, judged)}. ({_sample(interval)}; {interval.kind})"
    )


def _missing(findings: Sequence[ContrastFinding]) -> list[str]:
    """About how many items or seeds each undecided part of a rule needs."""
    said = []
    for number, finding in enumerate(findings, start=1):
        interval, threshold = finding.interval, finding.contrast.threshold
        if finding.verdict is not Verdict.INCONCLUSIVE or threshold is None:
            continue
        part = f"part {number} of the rule: " * (len(findings) > 1)
        had, item = (interval.seeds, _model(interval)) if interval.seeds else (interval.n, interval.item)
        if needed := statistics.deciding_count(interval, threshold):
            said.append(f"{part}about {_rounded(needed)} {item}s in place of {had:,}, if the value stays as it is")
        elif interval.value == threshold:
            said.append(f"{part}no number of {item}s, if the value stays at what is asked for")
    return said


def _rounded(count: int) -> str:
    """A count to two digits, which is more than is known of it."""
    step = 10 ** max(len(str(count)) - 2, 0)
    return f"{math.ceil(count / step) * step:,}"


def _sample(interval: Interval) -> str:
    """How much was measured: "1,797 images, 10 seeds", or "128 drawings" of one network."""
    items = f"{interval.n:,} {interval.item}s" * bool(interval.n)
    models = f"{interval.seeds} {_model(interval)}s" * bool(interval.seeds)
    return ", ".join(filter(None, (items, models)))


def _model(interval: Interval) -> str:
    return "block" if interval.item == "block" else "seed"


def asked(finding: ContrastFinding) -> str:
    """What a part of a rule asks for: "at least 20", "within 5 of zero", or a probability that a test must refute."""
    contrast, unit = finding.contrast, " points" if finding.contrast.points else ""
    within = f"within {_number(contrast.within, unit)} of zero" if contrast.within else ""
    if contrast.kind == "trials":
        return f"{_number(contrast.threshold, unit)}, unless a test refutes it"
    least = "" if contrast.threshold is None else f"at least {_number(contrast.threshold, unit)}"
    return " or ".join(filter(None, (least, within)))


def _levels(finding: ContrastFinding, judged: Judged) -> str:
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
    value = round(value, 9)  # 20 points stay 20 where sums of shares miss them by a rounding
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


def anchor(judged: Judged) -> str:
    """The id of a claim's row in the ledger."""
    headline = judged.arena == judged.claim.arena
    return html_id(f"claim-{judged.claim.id}" + ("" if headline else f"-{judged.arena}"))


# --- as HTML


def as_html(text: str) -> str:
    """Light markup as HTML, sources by their names."""
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"`(.+?)`", rf'<code style="{_CODE}">\1</code>', text)
    return re.sub(r"\[@(\w+)\]", lambda match: html.escape(catalog().sources[match[1]]), text)


def definitions(table: Mapping[str, Sequence[str]]) -> str:
    """Rows as an HTML list of terms."""
    entries = []
    for label, texts in table.items():
        entries.append(f'<dt style="font-weight:600;margin-top:6px">{label}</dt>')
        entries += [f'<dd style="margin:0 0 0 1em">{as_html(text)}</dd>' for text in texts]
    return f'<dl style="margin:4px 0;font-size:0.94em">{"".join(entries)}</dl>'


def verdict_html(judged: Judged) -> str:
    """A verdict's sign and word in its color, and under it how many parts of the rule hold where not all do."""
    verdict = judged.verdict
    look = f"color:var(--tk-{_SHADES[verdict]},{COLORS[verdict]});font-weight:600"
    parts = f"<br><small>{judged.parts}</small>" * bool(judged.parts)
    return f'<span style="{look}">{SIGNS[verdict]}\N{NO-BREAK SPACE}{verdict.value}</span>{parts}'


def measured_html(judged: Judged) -> str:
    """What was measured, a part of the rule at a time: in numbers, as a bar, with its sign where there are several."""
    if not judged.findings:
        return ""
    several = len(judged.findings) > 1
    return "".join(_part(finding, judged, several) for finding in judged.findings)


def _part(finding: ContrastFinding, judged: Judged, several: bool) -> str:
    interval, unit = finding.interval, " points" if finding.contrast.points else ""
    value, low, high = (_number(x, unit) for x in (interval.value, interval.low, interval.high))
    shade = f"color:var(--tk-{_SHADES[finding.verdict]},{COLORS[finding.verdict]})"
    sign = f'<span style="{shade}" title="{finding.verdict.value}">{SIGNS[finding.verdict]}</span> ' * several
    bar = small_bar(interval, finding.contrast.marks, points=finding.contrast.points)
    known = not math.isinf(interval.half_width)
    between = f' <span style="white-space:nowrap">[{low}, {high}]</span>' * known
    return (
        f'<div class="tk-part">{sign}<strong>{_signed(value)}{unit}</strong>{between}'
        f'<span style="{shade}">{bar}</span><small>asked: {asked(finding)}</small></div>'
    )


def folded_rows(judged: Judged) -> dict[str, list[str]]:
    """The rows that wait behind a fold: levels, what stands beside them, rule, plan, budget."""
    table = dict(rows(judged))
    lines = {"In numbers": table.pop("Measured", [])}
    lines |= {label: texts for label, texts in table.items() if label not in ("Verdict", "The source says")}
    return {label: texts for label, texts in lines.items() if texts}
