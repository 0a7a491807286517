"""Intervals for contrasts between models, and the verdicts that follow from them.

A contrast is a linear combination of measurements of several models, paired on the same items. What makes it uncertain
depends on what was drawn anew. Where seeds are trainings, training again gives other networks (Student's t over seeds)
and testing on other images gives other outcomes (a bootstrap); the wider of the two intervals is reported. Where one
fixed network was asked again and again, its drawings are drawn again within their classes, and no seed is a training.
Shares have Wilson's interval (JASA 1927) and a difference of two shares Newcombe's hybrid score interval (Statistics in
Medicine 1998, method 10).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from thesis_kit.ledger.resampling import (
    LEVEL,
    blocks_interval,
    bootstrap_interval,
    crossed_interval,
    nested_interval,
)

TRAININGS = ("network", "image")  # the units of most recordings: every seed trains a network and tests it on images
KEPT = ("class",)  # units that are all there, so that no others could have been drawn

BY_SEEDS = "Student-t over seeds"
BY_IMAGES = "bootstrap over images"
BY_DRAWINGS = "bootstrap over drawings within classes"
BY_BLOCKS = "Student-t over blocks of drawings"
WILSON = "Wilson"
CLOPPER_PEARSON = "Clopper–Pearson"
NEWCOMBE = "Newcombe"


class Verdict(enum.Enum):
    """What a measurement says about a claim. Computed, never typed."""

    HOLDS = "holds"
    IN_DIRECTION = "holds in direction"
    FAILS = "does not hold here"
    SAME = "the same"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval: ``n`` distinct items (0 for a number per seed), ``seeds`` models (or blocks
    of drawings; 0 where one fixed network made all items), its kind, and what an item is.

    The value lies between the ends: where all numbers are the same, rounding may set an end to its wrong side."""

    value: float
    low: float
    high: float
    n: int
    seeds: int
    kind: str
    item: str = "image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", min(self.low, self.value))
        object.__setattr__(self, "high", max(self.high, self.value))

    @property
    def half_width(self) -> float:
        """Half the distance between the two ends."""
        return (self.high - self.low) / 2


def student_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95% interval of a mean from one value a seed; without end for a single seed, which says nothing about others."""
    values = np.asarray(values, dtype=float)  # (seeds,)
    if len(values) < 2:
        return -math.inf, math.inf
    error = values.std(ddof=1) / math.sqrt(len(values))
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * error)
    return float(values.mean()) - half, float(values.mean()) + half


def prediction_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Where one more seed falls with probability ``level`` if it is like these (normal theory, Student's t).

    Wider than the interval of the mean, for the new seed has its own luck too. Without end for a single seed; a point
    where all seeds agree.
    """
    values = np.asarray(values, dtype=float)  # (seeds,)
    if len(values) < 2:
        return -math.inf, math.inf
    spread = values.std(ddof=1) * math.sqrt(1 + 1 / len(values))
    half = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * spread)
    return float(values.mean()) - half, float(values.mean()) + half


def share_prediction(k: int, n: int, items: int, level: float = LEVEL) -> tuple[float, float]:
    """Where the share of ``items`` more falls with probability ``level`` if they are like ``n`` of which ``k`` did.

    The beta-binomial prediction from Jeffreys' prior: it has a width where ``k`` is 0 or ``n``, too.
    """
    low, high = scipy.stats.betabinom.interval(level, items, k + 0.5, n - k + 0.5)
    return float(low) / items, float(high) / items


def items_interval(
    groups: Sequence[str], values: Sequence[np.ndarray], units: Sequence[str] = TRAININGS
) -> Interval:  # fmt: skip
    """The mean over seeds of a number an item, with the interval that its units call for.

    Args:
        groups: for each seed, the name of its test set; it says how many units of a level there are where the order of
            items tells them apart ("16 classes × 2").
        values: for each seed, one number an item, (n,).
        units: what was drawn anew, from the outermost: ("network", "image") where networks were trained and tested on
            images, ("class", "drawing") where one fixed network made drawings of every class, ("network", "class",
            "drawing") for a kind of network.
    """
    values = [np.asarray(v, dtype=float) for v in values]
    if tuple(units) == TRAININGS:
        return _trained(groups, values)
    labels, item = _labels(groups, values, units), units[-1]
    value, every = float(np.mean([v.mean() for v in values])), np.concatenate(values)
    kept = [place for place, unit in enumerate(units) if unit in KEPT]
    within = "".join(f" within {_plural(units[place])}" for place in kept)
    drawn = f"bootstrap over {', then '.join(_plural(unit) for unit in units if unit not in KEPT)}{within}"
    ends = {drawn: nested_interval(every, labels, kept=kept)}
    if "network" not in units:
        return Interval(value, *ends[drawn], n=len(every), seeds=0, kind=drawn, item=item)
    ends[BY_SEEDS] = student_interval([v.mean() for v in values])
    kind = _wider(ends)
    return Interval(value, *ends[kind], n=len(every), seeds=len(values), kind=kind, item=item)


def _trained(groups: Sequence[str], values: Sequence[np.ndarray]) -> Interval:
    """Networks of one way to train, which meet the same images: training again, or testing on others."""
    per_seed = [float(v.mean()) for v in values]
    ends = {BY_IMAGES: bootstrap_interval(groups, values), BY_SEEDS: student_interval(per_seed)}
    kind = _wider(ends)
    n = sum(dict(zip(groups, map(len, values), strict=True)).values())
    return Interval(float(np.mean(per_seed)), *ends[kind], n=n, seeds=len(values), kind=kind)


def _labels(groups: Sequence[str], values: Sequence[np.ndarray], units: Sequence[str]) -> list[list[int]]:
    """For every unit but the innermost, which one each item belongs to; items of a seed stand unit by unit."""
    columns: dict[str, list[int]] = {unit: [] for unit in units[:-1]}
    for seed, (group, numbers) in enumerate(zip(groups, values, strict=True)):
        inner = len(numbers)
        for unit, column in columns.items():
            count = 1 if unit == "network" else how_many(unit, group, inner)
            inner //= count
            column += [seed if unit == "network" else place // inner % count for place in range(len(numbers))]
    return [*columns.values()]


def how_many(unit: str, group: str, n: int) -> int:
    """How many units of a kind the ``n`` items of a test set are of, in equal parts, by its name ("16 classes × 2")."""
    found = re.search(rf"\b(\d+) {_plural(unit)}\b", group)
    if not found or n % int(found[1]):
        raise ValueError(
            f"the test set {group!r} should say how many {_plural(unit)} its {n} items are of, in equal parts: name it "
            f"like '16 {_plural(unit)} × 2'"
        )
    return int(found[1])


def _wider(ends: dict[str, tuple[float, float]]) -> str:
    return max(ends, key=lambda name: ends[name][1] - ends[name][0])


def _plural(unit: str) -> str:
    return unit + ("es" if unit.endswith("s") else "s")


def scalars_interval(values: Sequence[float] | np.ndarray, units: Sequence[str] = TRAININGS) -> Interval:
    """The mean of one number a seed, with Student's t interval; a seed of one fixed network is a block of drawings."""
    kind, item = (BY_SEEDS, units[-1]) if "network" in units else (BY_BLOCKS, "block")
    return Interval(float(np.mean(values)), *student_interval(values), n=0, seeds=len(values), kind=kind, item=item)


def blocks_of_drawings(
    groups: Sequence[str], tables: Sequence[Sequence[np.ndarray]], number: Callable[[np.ndarray], np.ndarray]
) -> tuple[tuple[float, float], int]:  # fmt: skip
    """95% interval of a number of one network that exists only for a block, and how many drawings it rests on.

    Args:
        groups: for each block, the name of its test set, as in "16 classes × 2 …".
        tables: for each arm and block, one number a drawing, under one condition after the other.
        number: as ``resampling.blocks_interval`` has it.
    """
    sizes = {re.search(r"\b(\d+) classes × (\d+)", group).groups() for group in groups}
    classes, each = map(int, sizes.pop())
    drawings = np.asarray(tables, dtype=float).reshape(len(tables), len(groups), -1, classes, each)
    return blocks_interval(drawings, number), len(groups) * classes * each


def made_of_items(
    groups: Sequence[str], tables: Sequence[Sequence[np.ndarray]], units: Sequence[str],
    number: Callable[[np.ndarray], np.ndarray], value: float,
) -> Interval:  # fmt: skip
    """A number of one fixed network that is made from means over items, with an interval for other such items.

    Args:
        groups: for each seed, the name of its items, which says how many units of a kind they are of ("18 voices").
        tables: for each term and seed, one number an item under one condition after the other; all seeds and terms ask
            about the same items, and seeds are averaged.
        units: of the items, crossed: ("voice", "word") where every voice says every word.
        number: as ``resampling.crossed_interval`` has it. value: what it is for the items as they are.
    """
    stacked = np.asarray(tables, dtype=float).mean(axis=1)  # (terms, n)
    sizes = [how_many(unit, groups[0], stacked.shape[1]) for unit in units]
    low, high = crossed_interval(stacked.reshape(len(tables), -1, *sizes), number)
    drawn = f"bootstrap over {' and '.join(_plural(unit) for unit in units)}"
    item = units[0] if len(units) == 1 else f"{'–'.join(units)} pair"
    return Interval(value, low, high, n=math.prod(sizes), seeds=0, kind=drawn, item=item)


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share of ``successes`` in ``n``."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    found = scipy.stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def newcombe(successes_1: int, n_1: int, successes_2: int, n_2: int, level: float = LEVEL) -> tuple[float, float]:
    """Newcombe's hybrid score interval for the difference of two shares, the first minus the second."""
    p1, p2 = successes_1 / n_1, successes_2 / n_2
    low_1, high_1 = wilson(successes_1, n_1, level)
    low_2, high_2 = wilson(successes_2, n_2, level)
    low = p1 - p2 - math.hypot(p1 - low_1, high_2 - p2)
    high = p1 - p2 + math.hypot(high_1 - p1, p2 - low_2)
    return low, high


def shares_interval(first: Sequence[float], second: Sequence[float] | None = None) -> Interval:
    """The share of seeds with a 1, or the difference of two such shares, from one 0 or 1 a seed."""
    if not set(first) | set(second or ()) <= {0, 1}:
        raise ValueError("a share of seeds needs one 0 or 1 a seed: record the indicator, not its cause")
    a, n = int(sum(first)), len(first)
    if second is None:
        return Interval(a / n, *wilson(a, n), n=0, seeds=n, kind=WILSON)
    b, m = int(sum(second)), len(second)
    return Interval(a / n - b / m, *newcombe(a, n, b, m), n=0, seeds=min(n, m), kind=NEWCOMBE)


REJECTED = 1e-3  # an exact test that gives less than this refutes a promised probability


def trials_interval(successes: int, n: int, *, seeds: int) -> Interval:
    """The share of trials that kept a promise, with the exact 95% interval of Clopper and Pearson."""
    found = scipy.stats.binomtest(successes, n).proportion_ci(LEVEL, method="exact")
    return Interval(successes / n, float(found.low), float(found.high), n=n, seeds=seeds, kind=CLOPPER_PEARSON)


def judge_trials(successes: int, n: int, promised: float) -> tuple[Verdict, str]:
    """Whether trials agree with a promised probability of success: refuted only by an exact one-sided test."""
    p = float(scipy.stats.binomtest(n - successes, n, 1 - promised, alternative="greater").pvalue)
    failed, allowed = f"{n - successes} of {n:,} trials failed", f"{100 * (1 - promised):.3g}% may"
    verdict = Verdict.FAILS if p < REJECTED else Verdict.HOLDS
    return verdict, f"{failed} where {allowed}; exact binomial test, p = {p:.2g}"


def judge(
    interval: Interval, threshold: float | None, *, within: float | None = None, directed: bool = True
) -> tuple[Verdict, str]:  # fmt: skip
    """The verdict of one contrast, and the reason in words.

    Args:
        threshold: what the contrast must reach. Below zero it is the margin of a test of non-inferiority: the loss that
            is tolerated, shown to be no larger where the lower end reaches it. None where only ``within`` is asked.
        within: how far from zero counts as no difference; the contrast is "the same" where its interval lies inside.
        directed: whether zero means that there is no difference. A level, such as an accuracy, is above zero by itself,
            and has no direction.
    """
    if math.isinf(interval.half_width):
        return Verdict.INCONCLUSIVE, f"one {'seed' if interval.seeds else interval.item} gives no interval"
    inside = within is not None and -within <= interval.low and interval.high <= within
    alike = Verdict.SAME, f"the whole interval lies within {within:g} of zero" if inside else ""
    if threshold is None:
        return alike if inside else _unlike(interval, within)
    verdict, reason = _reached(interval, threshold, directed)
    return alike if inside and verdict is Verdict.INCONCLUSIVE else (verdict, reason)


def deciding_count(interval: Interval, threshold: float) -> int:
    """How many items, or seeds where there are several, would bring an end of the interval to the threshold.

    By normal theory, for independent ones from the same population and a value that stays where it is: widths fall with
    the root of the number. 0 where the value is the threshold, which no number tells apart, or there is no interval.
    """
    distance = interval.value - threshold
    reach = interval.value - interval.low if distance > 0 else interval.high - interval.value
    if distance == 0 or not math.isfinite(reach):
        return 0
    return math.ceil((interval.seeds or interval.n) * max((reach / distance) ** 2, 1))


def _unlike(interval: Interval, within: float) -> tuple[Verdict, str]:
    if interval.low > within or interval.high < -within:
        return Verdict.FAILS, f"the whole interval lies farther than {within:g} from zero"
    return Verdict.INCONCLUSIVE, f"the interval reaches farther than {within:g} from zero"


def _reached(interval: Interval, threshold: float, directed: bool) -> tuple[Verdict, str]:
    low, high = interval.low, interval.high
    if low >= threshold and (threshold != 0 or low > 0):
        return Verdict.HOLDS, "the whole interval lies at or above the threshold"
    if directed and 0 < low < threshold:
        return Verdict.IN_DIRECTION, "the interval lies above zero but reaches below the threshold"
    if high < threshold:
        return Verdict.FAILS, "the whole interval lies below the threshold" + (
            " and does not lie wholly above zero" if threshold > 0 and directed else ""
        )
    if low == high:
        return Verdict.INCONCLUSIVE, "all came to exactly the threshold, so that nothing tells them apart"
    return Verdict.INCONCLUSIVE, "the interval reaches to both sides of the threshold"


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a claim with several contrasts: every one of them must hold for the claim to hold."""
    verdicts = list(verdicts)
    for all_alike in (Verdict.HOLDS, Verdict.SAME):
        if all(verdict is all_alike for verdict in verdicts):
            return all_alike
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    if all(verdict in (Verdict.HOLDS, Verdict.IN_DIRECTION) for verdict in verdicts):
        return Verdict.IN_DIRECTION
    return Verdict.INCONCLUSIVE
