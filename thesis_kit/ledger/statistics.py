"""Intervals for contrasts between models, and the verdicts that follow from them.

A contrast is a linear combination of measurements of several models, paired on the same test images. Two
things make it uncertain: training again gives other models (seeds), and testing on other images gives other
outcomes. Each gets its own 95% interval and the wider one is reported. Shares of few seeds use Wilson's
interval (JASA 1927) and, for a difference, Newcombe's hybrid score interval (Statistics in Medicine 1998,
method 10).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

LEVEL = 0.95
N_RESAMPLES = 10_000
SMALL_MARGIN = 5.0  # points; a tolerated loss under this is granted only by an interval that could have shown it

BY_SEEDS = "Student-t over seeds"
BY_IMAGES = "bootstrap over images"
WILSON = "Wilson"
CLOPPER_PEARSON = "Clopper–Pearson"
NEWCOMBE = "Newcombe"


class Verdict(enum.Enum):
    """What a measurement says about a claim. Computed, never typed."""

    HOLDS = "holds"
    IN_DIRECTION = "holds in direction"
    FAILS = "does not hold here"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval: ``n`` distinct images (0 for a number per seed), ``seeds`` models, and
    its kind."""

    value: float
    low: float
    high: float
    n: int
    seeds: int
    kind: str

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


@lru_cache(maxsize=16)
def _resample_counts(n: int, group: int) -> np.ndarray:
    """How often each of ``n`` images is drawn in each resample, (resamples, n); the same on every call."""
    draws = np.random.default_rng([group, n]).integers(0, n, size=(N_RESAMPLES, n), dtype=np.int32)
    flat = draws + np.arange(N_RESAMPLES, dtype=np.int64)[:, None] * n
    counts = np.bincount(flat.ravel(), minlength=N_RESAMPLES * n).reshape(N_RESAMPLES, n)
    return counts.astype(np.uint8)


def bootstrap_interval(groups: Sequence[str], values: Sequence[np.ndarray]) -> tuple[float, float]:
    """95% percentile interval of the mean over seeds, when images are drawn again and the models are kept.

    Args:
        groups: for each seed, the name of its set of test images. Seeds of one group tested the same images
            in the same order; an image then moves as a whole, with the outcomes of all its seeds.
        values: for each seed, one number an image, (n,).
    """
    total = np.zeros(N_RESAMPLES)
    for number, group in enumerate(dict.fromkeys(groups)):
        cluster = np.sum([v for g, v in zip(groups, values, strict=True) if g == group], axis=0)  # (n,)
        counts = _resample_counts(len(cluster), number)
        total += counts @ (cluster / len(cluster))  # (resamples, n) @ (n,)
    low, high = np.quantile(total / len(groups), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def items_interval(groups: Sequence[str], values: Sequence[np.ndarray]) -> Interval:
    """The mean over seeds of a per-image quantity, with the wider of its two intervals (see ``bootstrap_interval``)."""
    values = [np.asarray(v, dtype=float) for v in values]
    per_seed = [float(v.mean()) for v in values]
    ends = {BY_IMAGES: bootstrap_interval(groups, values), BY_SEEDS: student_interval(per_seed)}
    kind = max(ends, key=lambda name: ends[name][1] - ends[name][0])
    n = sum(dict(zip(groups, map(len, values), strict=True)).values())
    return Interval(float(np.mean(per_seed)), *ends[kind], n=n, seeds=len(values), kind=kind)


def scalars_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean of one number a seed, with Student's t interval."""
    return Interval(float(np.mean(values)), *student_interval(values), n=0, seeds=len(values), kind=BY_SEEDS)


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share of ``successes`` in ``n``."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z2 = float(scipy.stats.norm.ppf((1 + level) / 2)) ** 2
    p = successes / n
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * p * (1 - p) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    return max(0.0, center - half), min(1.0, center + half)


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


def judge(interval: Interval, threshold: float, *, points: bool) -> tuple[Verdict, str]:
    """The verdict of one contrast against its threshold, and the reason in words.

    ``points`` says that the numbers are percentage points, for which the protocol guards small margins. A rule with a
    threshold below zero tolerates a loss, its margin, and is the one kind that can hold without any difference being
    shown; its evidence is that a loss as small as the margin would have been seen. So where the margin is under 5
    points and the interval contains zero, the rule holds only if the half-width is smaller than the margin. The guard
    stops there: an interval wholly below the threshold has failed whatever its width, and one wholly above zero shows
    more than was asked. With that, on one and the same interval, a rule that asks for less never fares worse.
    """
    if math.isinf(interval.half_width):
        return Verdict.INCONCLUSIVE, "one seed gives no interval"
    low, high = interval.low, interval.high
    if low >= threshold and (threshold != 0 or low > 0):
        if points and low <= 0 and threshold > -SMALL_MARGIN and interval.half_width >= -threshold:
            return Verdict.INCONCLUSIVE, (
                f"an interval of ±{interval.half_width:.1f} that contains zero is too wide to grant a margin of "
                f"{-threshold:g}"
            )
        return Verdict.HOLDS, "the whole interval lies at or above the threshold"
    if 0 < low < threshold:
        return Verdict.IN_DIRECTION, "the interval lies above zero but reaches below the threshold"
    if high < threshold and low <= 0:
        return Verdict.FAILS, "the whole interval lies below the threshold" + (
            " and does not lie wholly above zero" if threshold > 0 else ""
        )
    return Verdict.INCONCLUSIVE, "the interval reaches to both sides of the threshold"


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a claim with several contrasts: every one of them must hold for the claim to hold."""
    verdicts = list(verdicts)
    if all(verdict is Verdict.HOLDS for verdict in verdicts):
        return Verdict.HOLDS
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    if all(verdict in (Verdict.HOLDS, Verdict.IN_DIRECTION) for verdict in verdicts):
        return Verdict.IN_DIRECTION
    return Verdict.INCONCLUSIVE
