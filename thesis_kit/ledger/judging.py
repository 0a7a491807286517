"""What recorded results say about a claim: contrasts with intervals, conditions, and the verdict they come
to.

The rules of claims.yml are applied to the outcomes of the same images under every arm, seed by seed; the
protocol of intervals and verdicts is in ``statistics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from thesis_kit.files import DamagedFile
from thesis_kit.ledger import statistics
from thesis_kit.ledger.claims import SCOPES, Claim, Measure, catalog
from thesis_kit.ledger.pinned import Pinned, read_pinned
from thesis_kit.ledger.results import NotRecorded, Result, available, load_result
from thesis_kit.ledger.rules import Condition, Contrast, Expression, Reported, parse_expression
from thesis_kit.ledger.statistics import Interval, Verdict


@dataclass(frozen=True)
class ContrastFinding:
    """What a contrast came to: its interval (in points where the contrast is), its verdict and the reason."""

    contrast: Contrast
    interval: Interval
    levels: Mapping[tuple[str, str], float]
    verdict: Verdict
    reason: str

    @property
    def agrees(self) -> bool:
        """Whether this part of a rule came out as the claim has it."""
        return self.verdict is (Verdict.SAME if self.contrast.threshold is None else Verdict.HOLDS)


@dataclass(frozen=True)
class Judged:
    """A claim beside its measurement in one arena: the verdict, why, and everything the page prints with it."""

    claim: Claim
    arena: str
    verdict: Verdict
    reason: str
    findings: tuple[ContrastFinding, ...] = ()
    reported: Mapping[str, str] = field(default_factory=dict)
    result: Result | None = None
    pinned: Pinned | None = None

    @property
    def rule_changed(self) -> str:
        """A sentence about a rule that is not the one that was pinned before it was measured; empty where it is."""
        if self.pinned is None or self.pinned.asks_the_same(self.claim):
            return ""
        before = ", ".join(f"`{text}`" for text in (*self.pinned.rule, *self.pinned.conditions))
        return f"changed since it was fixed on {self.pinned.date}; then it was {before}"

    @property
    def parts(self) -> str:
        """How many parts of a rule hold, where it has several and not all do: "holds in 2 of 3 parts"; else empty."""
        agreeing = sum(finding.agrees for finding in self.findings)
        several = len(self.findings) > 1 and agreeing < len(self.findings)
        return f"holds in {agreeing} of {len(self.findings)} parts" if several else ""

    @property
    def said(self) -> str:
        """The verdict's word and, where some parts of a rule do not hold, in how many it holds."""
        return ", ".join(filter(None, (self.verdict.value, self.parts)))


def judge_claim(
    claim: Claim, result: Result | None, arena: str | None = None, pinned: Pinned | None = None
) -> Judged:  # fmt: skip
    """Put a claim beside a recorded result and compute its verdict; ``result`` None means there is no recording, and
    ``pinned`` is its rule as it was before it was measured."""
    arena = arena or claim.arena
    why = _why_not_run(claim, result, arena)
    if why is not None:
        return Judged(claim, arena, Verdict.NOT_RUN, why)
    try:
        _check_scope(claim, result, arena)
        findings = tuple(measure_contrast(contrast, result) for contrast in claim.rule)
        unmet = [said for said in (_unmet(condition, result) for condition in claim.conditions) if said]
    except (NotRecorded, DamagedFile) as error:
        return Judged(claim, arena, Verdict.NOT_RUN, str(error))
    verdict = Verdict.INCONCLUSIVE if unmet else _whole(findings)
    reason = "; ".join(unmet) if unmet else _reason(findings)
    reported = {item.title: _report(item, result) for item in claim.report}
    return Judged(claim, arena, verdict, reason, findings, reported, result, pinned)


def judge_chapter(chapter: str, folder: Any = None) -> list[Judged]:
    """All claims of a chapter, each in its headline arena and in the others where it was recorded."""
    claims, recorded, judged, pinned = catalog().of(chapter), available(folder), [], read_pinned(chapter, folder)
    arenas = dict.fromkeys(arena for claim in claims for arena in (claim.arena, *claim.also))
    results = {one: load_result(f"{chapter}.{one}", folder) for one in arenas if f"{chapter}.{one}" in recorded}
    for claim in claims:
        for arena in (claim.arena, *claim.also):
            if arena in results or arena == claim.arena:
                judged.append(judge_claim(claim, results.get(arena), arena, pinned.get(claim.id)))
    return judged


def _why_not_run(claim: Claim, result: Result | None, arena: str) -> str | None:
    if claim.not_run and arena == claim.arena:
        return claim.not_run
    if result is None:
        return "nothing is recorded yet"
    try:
        return next(filter(None, (_why_not(arm, result) for arm in dict.fromkeys(arm for _, arm in claim.terms))), None)
    except DamagedFile as error:
        return str(error)


def _why_not(arm: str, result: Result) -> str:
    """What keeps a recorded arm from being judged; empty if nothing does."""
    if arm not in result.cells:
        return f"{arm} is not in the recording"
    if missing := result.missing(arm):
        planned = len(result.planned[arm].seeds)
        return f"{arm} has {planned - len(missing)} of {planned} seeds so far"
    changed = result.outdated(arm)
    return f"{arm} was recorded with something else than it has now ({changed})" if changed else ""


def _check_scope(claim: Claim, result: Result, arena: str) -> None:
    """A sentence about one network rests on what that network made, any other on networks that were trained anew."""
    for arm in dict.fromkeys(arm for contrast in claim.rule for _, arm in contrast.expression.terms):
        units = result.units(arm)
        if ("network" in units) is (claim.scope_in(arena) == "network"):
            made = "networks trained anew" if "network" in units else "one fixed network"
            raise NotRecorded(f"a claim about {SCOPES[claim.scope_in(arena)]} cannot rest on {arm}, which is of {made}")


def measure_contrast(contrast: Contrast, result: Result) -> ContrastFinding:
    """The value of a contrast with its interval, and its verdict."""
    if contrast.kind == "trials":
        return _trials(contrast, result)
    terms = contrast.expression.terms
    scale = 100 if contrast.points else 1
    if contrast.paired:
        interval = _paired(contrast.expression, result, scale)
    elif contrast.kind == "shares":
        interval = statistics.shares_interval(*_per_seed(contrast.expression, result))
    else:
        interval = _over_seeds(contrast.expression, result)
    levels = {term: scale * float(np.mean(list(result.scalars(*term).values()))) for term in terms}
    asked = {"within": contrast.within, "directed": contrast.directed}
    verdict, reason = statistics.judge(interval, contrast.threshold, **asked)
    return ContrastFinding(contrast, interval, levels, verdict, reason)


def _over_seeds(expression: Expression, result: Result) -> Interval:
    """A number a seed, over the seeds that all arms of the expression share."""
    numbers = expression(*map(np.asarray, _per_seed(expression, result)))  # terms × seeds → seeds
    return _made_again(expression, result, statistics.scalars_interval(numbers, _units(expression, result)))


def _made_again(expression: Expression, result: Result, interval: Interval) -> Interval:
    """The interval of numbers that exist for blocks of one network's drawings, where they can be made again."""
    measures = [catalog().measures.get(measure) for measure, _ in expression.terms]
    if interval.kind != statistics.BY_BLOCKS or not all(one and one.by for one in measures):
        return interval
    cells = [result.per_image(one.of, arm) for one, (_, arm) in zip(measures, expression.terms, strict=True)]
    seeds = _common_seeds(expression, cells)
    groups = [result.cells[expression.terms[0][1]][seed]["group"] for seed in seeds]
    tables, units = [[table[seed] for seed in seeds] for table in cells], _units(expression, result)

    def number(means: np.ndarray) -> np.ndarray:
        return expression(*_made(measures, means))

    if "drawing" not in units:
        return statistics.made_of_items(groups, tables, units, number, interval.value)
    (low, high), n = statistics.blocks_of_drawings(groups, tables, number)
    return replace(interval, low=low, high=high, n=n, seeds=0, kind=statistics.BY_DRAWINGS, item="drawing")


def _made(measures: list[Measure], means: np.ndarray) -> list[np.ndarray]:
    """Each term's numbers, (…), from means (terms, …, conditions); terms of one maker are handed to it together."""
    found: list[np.ndarray] = [np.empty(0)] * len(measures)
    for by in dict.fromkeys(one.by for one in measures):
        places = [place for place, one in enumerate(measures) if one.by == by]
        module, _, name = by.partition(":")
        made = getattr(import_module(module), name)(means[places])
        for place, numbers in zip(places, made, strict=True):
            found[place] = numbers
    return found


def _units(expression: Expression, result: Result) -> tuple[str, ...]:
    """The units that all arms of a contrast share."""
    found = {result.units(arm) for _, arm in expression.terms}
    if len(found) > 1:
        raise NotRecorded(f"{expression.text} cannot be paired: its arms have different units of replication")
    return found.pop()


def difference(recorded: Result, expression: str, *, points: bool = True) -> str:
    """A difference such as "R(n-fgsm) - R(free-8)", image by image over common seeds, with its interval.

    In percentage points, or, for a number an image such as a radius, as it is (``points=False``).
    """
    scale, form = (100, _in_points) if points else (1, _as_it_is)
    return form(_paired(parse_expression(expression, "the page"), recorded, scale))


def _trials(contrast: Contrast, result: Result) -> ContrastFinding:
    """One share of all images that must reach a promised probability."""
    (term,) = contrast.expression.terms
    kept = np.concatenate(list(result.per_image(*term).values()))
    interval = statistics.trials_interval(int(kept.sum()), len(kept), seeds=len(result.cells[term[1]]))
    verdict, reason = statistics.judge_trials(int(kept.sum()), len(kept), contrast.threshold)
    return ContrastFinding(contrast, interval, {term: interval.value}, verdict, reason)


def _paired(expression: Expression, result: Result, scale: float) -> Interval:
    """The contrast image by image, over the seeds that all its arms share."""
    tables = [result.per_image(measure, arm) for measure, arm in expression.terms]
    seeds = _common_seeds(expression, tables)
    for seed in seeds:
        tested = {(result.cells[arm][seed]["group"], result.cells[arm][seed]["n"]) for _, arm in expression.terms}
        if len(tested) > 1:
            raise NotRecorded(f"{expression.text} cannot be paired: seed {seed} tested different images in its arms")
    groups = [result.cells[expression.terms[0][1]][seed]["group"] for seed in seeds]
    values = [scale * expression(*(table[seed] for table in tables)) for seed in seeds]
    if not all(len(v) for v in values):
        raise NotRecorded(f"{expression.text} cannot be measured: a seed has no images to compare")
    interval = statistics.items_interval(groups, values, _units(expression, result))
    if expression.is_share and interval.value in (0, scale):  # where resampling shows nothing
        ends = statistics.wilson(round(interval.value / scale * interval.n), interval.n)
        return replace(interval, low=scale * ends[0], high=scale * ends[1], kind=statistics.WILSON)
    return interval


def _per_seed(expression: Expression, result: Result) -> list[list[float]]:
    scalars = [result.scalars(measure, arm) for measure, arm in expression.terms]
    seeds = _common_seeds(expression, scalars)
    return [[values[seed] for seed in seeds] for values in scalars]


def _common_seeds(expression: Expression, tables: list[dict[int, Any]]) -> list[int]:
    seeds = sorted(set.intersection(*(set(table) for table in tables)))
    if not seeds:
        raise NotRecorded(f"the arms of {expression.text} share no seed")
    return seeds


def _mean(expression: Expression, result: Result) -> float:
    """The expression over means, each over its arm's own seeds."""
    return float(expression(*(np.mean(list(result.scalars(*term).values())) for term in expression.terms)))


def _unmet(condition: Condition, result: Result) -> str | None:
    left, right = _mean(condition.left, result), _mean(condition.right, result)
    equal = bool(np.isclose(left, right, rtol=1e-9))
    met = {"==": equal, "<=": left < right or equal, ">=": left > right or equal}[condition.comparison]
    return None if met else f"the condition {condition.text} is not met ({left:,.4g} against {right:,.4g})"


def _report(item: Reported, result: Result) -> str:
    """A reported quantity as text; what was not recorded says so rather than hiding the verdict."""
    try:
        if item.points:
            return _in_points(_paired(item.expression, result, 100))
        if item.expression.is_share:
            level = result.mean(*item.expression.terms[0])
            return _to_three_digits(_made_again(item.expression, result, level))
        return _to_three_digits(_over_seeds(item.expression, result))
    except DamagedFile as error:
        return str(error)
    except (NotRecorded, ValueError):
        return "not recorded"


def _in_points(interval: Interval) -> str:
    ends = f"95% interval {interval.low:.1f} to {interval.high:.1f}"
    known = ends if np.isfinite(interval.half_width) else "no interval from one seed"
    return f"{interval.value:+.1f} points, {known}".replace("-", "−")


def _as_it_is(interval: Interval) -> str:
    return f"{interval.value:+.2f}, 95% interval {interval.low:.2f} to {interval.high:.2f}".replace("-", "−")


def _to_three_digits(interval: Interval) -> str:
    """The number with its interval, unless seeds do not tell: there is one, or all came to the same."""
    ends = f", 95% interval {interval.low:.3g} to {interval.high:.3g}" * bool(0 < interval.half_width < np.inf)
    return f"{interval.value:.3g}{ends}".replace("-", "−")


def _whole(findings: tuple[ContrastFinding, ...]) -> Verdict:
    """The verdict of all parts together; a part that asks for sameness and finds it stands beside others as one that
    holds."""
    verdicts = [finding.verdict for finding in findings]
    if set(verdicts) == {Verdict.SAME}:
        return Verdict.SAME
    return statistics.combine(Verdict.HOLDS if finding.agrees else finding.verdict for finding in findings)


def _reason(findings: tuple[ContrastFinding, ...]) -> str:
    """Why the claim has its verdict: every part of the rule with its own verdict and reason, like parts together."""
    if len(findings) == 1:
        return findings[0].reason
    if all(finding.verdict is Verdict.HOLDS for finding in findings) and findings[0].contrast.kind != "trials":
        return f"{'both' if len(findings) == 2 else f'all {len(findings)}'} parts of the rule hold"
    parts: dict[str, list[int]] = {}
    for number, finding in enumerate(findings, start=1):
        parts.setdefault(f"{finding.verdict.value}, for {finding.reason}", []).append(number)
    return "; ".join(f"{_spelled(numbers)} of the rule: {said}" for said, numbers in parts.items())


def _spelled(numbers: list[int]) -> str:
    """Parts by their numbers: "part 2", "parts 1, 2 and 3"."""
    *first, last = map(str, numbers)
    return f"parts {', '.join(first)} and {last}" if first else f"part {last}"
