"""Intervals cover the truth as often as they say, and verdicts follow from them as the protocol has it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thesis_kit.ledger import statistics
from thesis_kit.ledger.statistics import (
    BY_IMAGES,
    BY_SEEDS,
    Interval,
    Verdict,
    bootstrap_interval,
    combine,
    items_interval,
    judge,
    judge_trials,
    newcombe,
    scalars_interval,
    shares_interval,
    student_interval,
    trials_interval,
    wilson,
)


def two_arms(rng, seeds, folds, n, item, seed):
    """Outcomes of two models a seed, in points: images differ by ±item, training runs by ±seed; the truth is 10."""
    easy = rng.uniform(-item, item, (2, folds, n))
    groups, values = [], []
    for run in range(seeds):
        a, b = (level + easy[arm][run % folds] + rng.uniform(-seed, seed) for arm, level in enumerate((0.6, 0.5)))
        values.append(100.0 * (rng.random(n) < a) - 100.0 * (rng.random(n) < b))
        groups.append(f"fold{run % folds}")
    return groups, values


def gaussian(rng, seeds, folds, n, item, seed):
    """The hardest mixture for two separate intervals: images and seeds weigh about alike; the truth is 10."""
    images = rng.normal(0, item, (folds, n))
    values = [10 + rng.normal(0, seed) + images[run % folds] for run in range(seeds)]
    return [f"fold{run % folds}" for run in range(seeds)], values


@pytest.mark.parametrize(
    ("world", "layout"),
    [
        (two_arms, (10, 5, 100, 0.35, 0.05)),  # the arena digits: five folds, each tested by two seeds
        (two_arms, (10, 5, 100, 0.0, 0.1)),  # only training runs differ
        (two_arms, (10, 5, 100, 0.35, 0.0)),  # only images differ
        (two_arms, (3, 1, 300, 0.3, 0.05)),  # the arena scenes: three seeds on the same images
        (gaussian, (10, 5, 100, 1.0, 0.1)),
    ],
)
def test_the_interval_covers_the_truth(world, layout):
    rng, n_worlds = np.random.default_rng(0), 300
    intervals = [items_interval(*world(rng, *layout)) for _ in range(n_worlds)]
    covered = sum(interval.low <= 10 <= interval.high for interval in intervals) / n_worlds
    assert covered >= 0.93


def test_the_wider_interval_is_reported_and_named():
    rng = np.random.default_rng(0)
    same_seeds = items_interval(*gaussian(rng, 6, 2, 50, item=1.0, seed=0.0))
    same_images = items_interval(*gaussian(rng, 6, 2, 50, item=0.0, seed=1.0))
    assert same_seeds.kind == BY_IMAGES
    assert same_images.kind == BY_SEEDS
    assert (same_images.low, same_images.high) == student_interval(_means(gaussian, 6, 2, 50))
    assert (same_seeds.n, same_seeds.seeds) == (100, 6)


def _means(world, *layout):
    rng = np.random.default_rng(0)
    world(rng, *layout, item=1.0, seed=0.0)
    return [value.mean() for value in world(rng, *layout, item=0.0, seed=1.0)[1]]


def test_an_image_tested_twice_moves_as_one():
    values = np.random.default_rng(0).normal(size=200)
    once = bootstrap_interval(["a"], [values])
    twice = bootstrap_interval(["a", "a"], [values, values])
    apart = bootstrap_interval(["a", "b"], [values, values])
    assert twice == pytest.approx(once, abs=1e-12)
    assert apart[1] - apart[0] == pytest.approx((once[1] - once[0]) / math.sqrt(2), rel=0.05)


def test_the_bootstrap_agrees_with_the_plain_one():
    values = np.random.default_rng(1).normal(size=80)
    rng = np.random.default_rng(2)
    plain = np.quantile([rng.choice(values, 80).mean() for _ in range(20_000)], [0.025, 0.975])
    assert bootstrap_interval(["a"], [values]) == pytest.approx(tuple(plain), abs=0.01)


def test_intervals_repeat_exactly():
    groups, values = two_arms(np.random.default_rng(3), 4, 2, 50, 0.3, 0.05)
    assert items_interval(groups, values) == items_interval(groups, values)


def test_student_against_a_worked_example():
    # Five values with mean 3 and standard deviation 1.5811: 3 ± 2.7764 · 1.5811 / √5.
    interval = scalars_interval([1, 2, 3, 4, 5])
    assert (interval.low, interval.high) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)
    assert interval.seeds == 5


def test_one_seed_has_no_interval():
    assert student_interval([0.7]) == (-math.inf, math.inf)
    assert judge(scalars_interval([0.7]), 0.1, points=False)[0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_against_published_examples(successes, n, expected):
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 873, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_newcombe_against_published_examples(shares, expected):
    assert newcombe(*shares) == pytest.approx(expected, abs=1e-4)


def test_shares_of_seeds():
    one = shares_interval([1, 1, 0, 1])
    assert (one.value, one.low, one.high) == (0.75, *wilson(3, 4))
    two = shares_interval([1] * 5, [0] * 5)
    assert (two.value, two.low, two.high) == (1.0, *newcombe(5, 5, 0, 5))
    with pytest.raises(ValueError, match="one 0 or 1 a seed"):
        shares_interval([0.3, 1])
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def interval(low, high):
    return Interval((low + high) / 2, low, high, n=100, seeds=5, kind=BY_SEEDS)


@pytest.mark.parametrize(
    ("low", "high", "threshold", "verdict"),
    [
        (21, 30, 20, Verdict.HOLDS),
        (20, 30, 20, Verdict.HOLDS),
        (19, 30, 20, Verdict.IN_DIRECTION),
        (1, 5, 20, Verdict.IN_DIRECTION),
        (0, 5, 20, Verdict.FAILS),
        (-9, 5, 20, Verdict.FAILS),
        (-9, -5, 20, Verdict.FAILS),
        (-9, 25, 20, Verdict.INCONCLUSIVE),
        (0, 25, 20, Verdict.INCONCLUSIVE),
        (0.1, 3, 0, Verdict.HOLDS),
        (0, 3, 0, Verdict.INCONCLUSIVE),
        (-1, 3, 0, Verdict.INCONCLUSIVE),
        (-3, -1, 0, Verdict.FAILS),
        (-2, 1, -3, Verdict.HOLDS),
        (-3, -1, -3, Verdict.HOLDS),
        (-4, 0.5, -3, Verdict.INCONCLUSIVE),
        (-6, -4, -3, Verdict.FAILS),
    ],
)
def test_verdict_of_one_contrast(low, high, threshold, verdict):
    assert judge(interval(low, high), threshold, points=True)[0] is verdict


@pytest.mark.parametrize(
    ("low", "high", "threshold", "points", "verdict"),
    [
        # a small margin, the interval wide and around zero: it could not have shown a loss of 3
        (-2.9, 3.1, -3, True, Verdict.INCONCLUSIVE),  # half-width 3.0 is not under the margin
        (-2.9, 17, -3, True, Verdict.INCONCLUSIVE),
        (-3, 3, -3, True, Verdict.INCONCLUSIVE),
        (0, 6, -3, True, Verdict.INCONCLUSIVE),  # zero itself belongs to the interval
        (-0.5, 0.5, -0.5, True, Verdict.INCONCLUSIVE),
        # narrow enough, around zero or beside it
        (-2.9, 3.0, -3, True, Verdict.HOLDS),
        (-2.9, -0.1, -3, True, Verdict.HOLDS),
        (-3, 2.9, -3, True, Verdict.HOLDS),
        (0, 5.9, -3, True, Verdict.HOLDS),
        # wholly above zero, where even a margin of zero would be granted
        (0.1, 9, -3, True, Verdict.HOLDS),
        (10, 40, -3, True, Verdict.HOLDS),
        # wholly below the threshold
        (-20, -10, -3, True, Verdict.FAILS),
        (-4, -3.1, -3, True, Verdict.FAILS),
        (-10, 1, 2, True, Verdict.FAILS),
        # across the threshold, at any width
        (-3.1, -2.9, -3, True, Verdict.INCONCLUSIVE),
        (-20, 10, -3, True, Verdict.INCONCLUSIVE),
        (-20, -3, -3, True, Verdict.INCONCLUSIVE),
        # no small margin: a tolerated loss of 5, a threshold of zero, a gain that is asked for
        (-5, 30, -5, True, Verdict.HOLDS),
        (-4.9, 30, -4.9, True, Verdict.INCONCLUSIVE),
        (0.1, 9, 0, True, Verdict.HOLDS),
        (2, 9, 2, True, Verdict.HOLDS),
        (0.5, 7, 2, True, Verdict.IN_DIRECTION),
        # nor are numbers a seed points
        (-0.3, 1.5, -0.3, False, Verdict.HOLDS),
    ],
)
def test_a_small_tolerated_loss_asks_for_a_narrow_interval(low, high, threshold, points, verdict):
    assert judge(interval(low, high), threshold, points=points)[0] is verdict


def test_the_guard_gives_its_reason():
    wide, across = (judge(interval(*ends), -3, points=True)[1] for ends in ((-2, 10), (-4, 10)))
    assert wide == "an interval of ±6.0 that contains zero is too wide to grant a margin of 3"
    assert across == "the interval reaches to both sides of the threshold"


ORDER = [Verdict.FAILS, Verdict.INCONCLUSIVE, Verdict.IN_DIRECTION, Verdict.HOLDS]


@given(st.integers(-60, 60), st.integers(0, 60), st.lists(st.integers(-40, 40), min_size=2, max_size=8))
def test_a_rule_that_asks_for_less_never_fares_worse(low, width, thresholds):
    """In quarters of a point, so that ends and thresholds meet exactly."""
    measured = interval(low / 4, (low + width) / 4)
    ranks = [ORDER.index(judge(measured, t / 4, points=True)[0]) for t in sorted(thresholds, reverse=True)]
    assert ranks == sorted(ranks)


H, D, F, X = Verdict.HOLDS, Verdict.IN_DIRECTION, Verdict.FAILS, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("parts", "whole"),
    [([H], H), ([H, H], H), ([H, D], D), ([D, D], D), ([H, X], X), ([D, X], X), ([H, F], F), ([X, F], F), ([D, F], F)],
)
def test_verdict_of_several_contrasts(parts, whole):
    assert combine(parts) is whole


def test_the_five_words():
    assert [verdict.value for verdict in statistics.Verdict] == [
        "holds",
        "holds in direction",
        "does not hold here",
        "inconclusive",
        "not run",
    ]


def test_a_promised_probability_is_refuted_only_by_an_exact_test():
    assert judge_trials(120, 120, 0.999)[0] is Verdict.HOLDS  # no interval of 120 trials could lie above 0.999
    assert judge_trials(119, 120, 0.999)[0] is Verdict.HOLDS
    verdict, reason = judge_trials(117, 120, 0.999)
    assert verdict is Verdict.FAILS
    assert reason.startswith("3 of 120 trials failed where 0.1% may")
    assert sum(math.comb(120, k) * 0.001**k * 0.999 ** (120 - k) for k in range(3, 121)) < 1e-3
    interval = trials_interval(120, 120, seeds=3)
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low == pytest.approx(0.025 ** (1 / 120))
