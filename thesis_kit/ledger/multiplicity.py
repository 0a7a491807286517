"""How many intervals the ledger judges by, and which of its decisions lie so near to a threshold that chance may have
made them.

Every interval is a 95% interval of its own and nothing is corrected for their number, so a page of many needs to say
how many there are. A decision is called fragile where the same interval at 99% would reach the threshold.
"""

from __future__ import annotations

from collections.abc import Iterable

from scipy import stats

from thesis_kit.ledger.judging import ContrastFinding, Judged
from thesis_kit.ledger.statistics import BY_BLOCKS, BY_SEEDS, LEVEL, Interval, Verdict

STRICT = 0.99


def contrasts(judged: Iterable[Judged]) -> list[tuple[Judged, ContrastFinding]]:
    """Every contrast that was measured and judged by its interval; a promised probability has a test of its own."""
    return [(one, found) for one in judged for found in one.findings if found.contrast.kind != "trials"]


def fragile(finding: ContrastFinding) -> bool:
    """Whether a decision would be none by the 99% interval: it crosses an end of what was asked that the 95% interval
    keeps to one side."""
    interval, contrast, factor = finding.interval, finding.contrast, _widening(finding.interval)
    low = interval.value - factor * (interval.value - interval.low)
    high = interval.value + factor * (interval.high - interval.value)
    same = finding.verdict is Verdict.SAME or contrast.threshold is None
    ends = (-contrast.within, contrast.within) if same else (contrast.threshold,)
    if finding.verdict is Verdict.IN_DIRECTION:
        ends = (*ends, 0.0)
    return any(low < end <= interval.low or interval.high <= end < high for end in ends)


def _widening(interval: Interval) -> float:
    """The 99% interval's width over the 95% interval's: by Student's t over seeds, by the normal law else."""
    law = stats.t(interval.seeds - 1) if interval.kind in (BY_SEEDS, BY_BLOCKS) and interval.seeds > 1 else stats.norm
    return float(law.ppf((1 + STRICT) / 2) / law.ppf((1 + LEVEL) / 2))
