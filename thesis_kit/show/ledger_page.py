"""The ledger: every claim beside what its source says and what was measured, as one table to filter and to sort.

The page is computed from the claims and the recorded results, so it can be regenerated and compared at any time. It
works without a server: ledger.js only hides and moves rows that are all there.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Mapping

from thesis_kit.ledger.claims import ORIGINS, STATUSES, catalog
from thesis_kit.ledger.judging import Judged, judge_chapter
from thesis_kit.ledger.multiplicity import contrasts, fragile
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.show.claim_rows import (
    MEANINGS,
    SIGNS,
    anchor,
    as_html,
    definitions,
    folded_rows,
    measured_html,
    verdict_html,
)

_COLUMNS = ("claim", "arena", "measured", "verdict")


def ledger_page(folder: str | os.PathLike | None = None) -> str:
    """The whole ledger as a MyST page."""
    order = sorted(catalog().chapters, key=lambda name: catalog().chapters[name].number)
    everything = [judged for name in order for judged in judge_chapter(name, folder)]
    measured_in = {judged.arena for judged in everything if judged.findings}
    arenas = {name: said for name, said in catalog().arenas.items() if name in measured_in}
    return _HEAD.format(
        table=_table(everything),
        legend=_legend(everything),
        number=_multiplicity(everything),
        arenas=_definitions(arenas),
        recorded=_recordings(everything),
        sources=",".join(dict.fromkeys(key for one in everything for key in one.claim.paper.sources)),
    )


_HEAD = """# The ledger

<!-- Written by `thesis-kit claims ledger --write` from the chapters' claims and the recorded results; do not edit. -->

Every claim of the book, in the order of its chapters, beside what was measured here. The verdicts are computed; what
they mean stands [below the table](#how-a-verdict-is-made). Open a claim for its source, rule and budget.

```{{raw}} html
{table}
```

(how-a-verdict-is-made)=
## How a verdict is made

{legend}

A claim has a rule, one or more differences with a threshold fixed in advance, measured on the same items for every
method. Every part of a rule is judged and shown by itself, and a row says in how many of them it holds: the claim holds
where all parts do, and does not where one does not.

The 95% interval covers what the sentence is about, and its kind is named behind the number. Of a way to train: the luck
of a training run (Student's t over seeds) and the choice of test images (a bootstrap); the wider of the two counts. Of
one fixed network: which drawings it happened to make, by a bootstrap that draws them again within their classes; a
start from other noise is no training. A share of seeds has Wilson's interval and a difference of two shares Newcombe's,
which are made for small counts.

Where a rule tolerates a loss it is a test of non-inferiority, and holds where the whole interval shows no larger one. A
level, such as a share that is asked to be 90%, lies above zero by itself and has no direction. A claim that fails is a
finding, and stands here like any other.

Where a rule, or the kind of its interval, was chosen when the outcomes were known, its row says so. A promised
probability (that a certificate is right) has no threshold for its interval: an exact binomial test refutes it if so
many failures cannot be chance. Claims that nothing was measured for yet stand here with what is planned.

{number}

Verdicts are about the small worlds they were measured in, their *arenas*, and say no more than what was measured there:

{arenas}

## What it rests on

The budget counts forward and backward passes apart; together they are one pass of the chapters' text. Where runs were
measured again by later code, "bit by bit" means that every test image of these runs came out as before under every
attack, "within the prediction interval" that every number lies where one more seed would. The tests measure a run of
every recording again.

{recorded}

The sources of the claims: {{cite:p}}`{sources}`.
"""


def _legend(everything: list[Judged]) -> str:
    counts = Counter(judged.verdict for judged in everything)
    lines = ["| | verdict | meaning | claims |", "|---|---|---|---|"]
    lines += [f"| {SIGNS[v]} | **{v.value}** | {MEANINGS[v]} | {counts[v]} |" for v in Verdict]
    return "\n".join(lines)


def _multiplicity(everything: list[Judged]) -> str:
    """How many contrasts the page judges, and which rows have a part that is decided and would not be at 99%."""
    measured = contrasts(everything)
    decided = (Verdict.HOLDS, Verdict.FAILS, Verdict.SAME)
    near = [one for one, found in measured if found.verdict in decided and fragile(found)]
    named = dict.fromkeys(f'<a href="#{anchor(one)}">{one.claim.id}</a> ({one.arena})' for one in near)
    lean = f" Lean least on these rows, where an interval of 99% would reach the threshold: {', '.join(named)}."
    return (
        f"The page judges {len(measured)} contrasts, each by a 95% interval of its own, and nothing is corrected for "
        f"their number: about {len(measured) / 20:.0f} of the intervals can be expected to miss the true value."
    ) + lean * bool(named)


def _definitions(table: Mapping[str, str]) -> str:
    return "\n\n".join(f"{term}\n: {text}" for term, text in table.items())


def _recordings(everything: Iterable[Judged]) -> str:
    results = {one.result.name: one.result for one in everything if one.result is not None}
    return "\n".join(f"- {_place(name)}: {result.provenance()}." for name, result in results.items())


def _place(recording: str) -> str:
    chapter, _, arena = recording.partition(".")
    return f"Chapter {catalog().chapters[chapter].number}, {arena}"


# --- the table


def _table(everything: list[Judged]) -> str:
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in _COLUMNS)
    rows = "\n".join(_row(place, one) for place, one in enumerate(everything))
    return (
        f'<div class="tk-ledger">\n{_filters(everything)}\n'
        f'<table class="tk-table tk-claims" role="table"><caption class="visually-hidden">All claims</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody></table>\n</div>'
    )


def _filters(everything: list[Judged]) -> str:
    """The controls above the table, out of sight until the script that they need has come."""
    chapters = {str(about.number): f"{about.number} {about.title}" for about in _in_order()}
    verdicts = {verdict.name: f"{SIGNS[verdict]} {verdict.value}" for verdict in Verdict}
    origins = {key: said for key, said in ORIGINS.items() if any(one.claim.origin == key for one in everything)}
    arenas = dict.fromkeys(one.arena for one in everything)
    arenas = {arena: arena for arena in arenas}
    orders = {"place": "order of the book", "verdict": "verdict", "origin": "origin", "arena": "arena"}
    controls = [
        '<label>search <input type="text" name="words" autocomplete="off"></label>',
        _select("chapter", chapters),
        _select("verdict", verdicts),
        _select("origin", origins),
        _select("arena", arenas),
        _select("sort", orders, every=""),
    ]
    return (
        f'<form class="tk-filters" aria-label="Filter the claims" hidden>{"".join(controls)}'
        '<button type="reset">show all</button><output aria-live="polite"></output></form>'
    )


def _in_order() -> list:
    return sorted(catalog().chapters.values(), key=lambda about: about.number)


def _select(name: str, options: Mapping[str, str], *, every: str = "all") -> str:
    choices = {"": every, **options} if every else options
    said = "".join(f'<option value="{key}">{html.escape(text)}</option>' for key, text in choices.items())
    return f'<label>{name} <select name="{name}">{said}</select></label>'


def _row(place: int, judged: Judged) -> str:
    claim, about = judged.claim, catalog().chapters[judged.claim.chapter]
    data = {"place": place, "chapter": about.number, "verdict": judged.verdict.name, "origin": claim.origin}
    marks = " ".join(f'data-{key}="{value}"' for key, value in {**data, "arena": judged.arena}.items())
    title = f'<span class="tk-number">{about.number}</span> {html.escape(claim.statement)}'
    why = f"<br><small>{html.escape(judged.reason)}</small>" if judged.verdict is Verdict.NOT_RUN else ""
    cells = {
        "arena": judged.arena,
        "measured": measured_html(judged),
        "verdict": verdict_html(judged) + why,
    }
    told = "".join(f'<td role="cell" data-label="{name}">{inner}</td>' for name, inner in cells.items() if inner)
    told = told if cells["measured"] else told.replace('data-label="verdict"', 'colspan="2" data-label="verdict"')
    fold = f"<details><summary>{title}</summary>{_details(judged)}</details>"
    return f'<tr role="row" id="{anchor(judged)}" {marks}><th scope="row" role="rowheader">{fold}</th>{told}</tr>'


def _details(judged: Judged) -> str:
    claim = judged.claim
    sources = ", ".join(f"[@{source}]" for source in claim.paper.sources)
    said = {"The source says": [f"{claim.paper.text} {sources} ({STATUSES[claim.paper.status]})"]}
    about = f"<p><code>{claim.id}</code>, {html.escape(claim.background)}. {as_html(judged.reason)}</p>"
    return about + definitions({**said, **folded_rows(judged)})
