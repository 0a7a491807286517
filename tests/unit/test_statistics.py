"""Intervals cover the truth as often as they say, and verdicts follow from them as the protocol has it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from thesis_kit.ledger import statistics
from thesis_kit.ledger.resampling import (
    blocks_interval,
    bootstrap_interval,
    crossed_interval,
    nested_interval,
    nested_mean,
    nested_weights,
)
from thesis_kit.ledger.statistics import (
    BY_BLOCKS,
    BY_IMAGES,
    BY_SEEDS,
    Interval,
    Verdict,
    combine,
    items_interval,
    judge,
    judge_trials,
    made_of_items,
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


# --- nested units: what one network drew, and networks of a kind

DRAWINGS = ("class", "drawing")
KIND = ("network", "class", "drawing")


def drawn(rng, classes, each, blocks, *, network=0.0, of_class=1.0, of_drawing=1.0, truth=10.0):
    """Numbers of drawings, block by block as seeds record them: classes differ by ``of_class`` and are the same in all
    blocks, drawings by ``of_drawing``, and every block is another network's where ``network`` is above zero."""
    levels = rng.normal(0, of_class, classes)
    levels = levels - levels.mean()  # all classes are there: the truth is of just these
    values = []
    for _ in range(blocks):
        noise = rng.normal(0, of_drawing, (classes, each))
        values.append((truth + rng.normal(0, network) * (network > 0) + levels[:, None] + noise).ravel())
    return [f"world/{classes} classes × {each}/seed {seed}" for seed in range(blocks)], values


@pytest.mark.parametrize(
    ("classes", "each", "blocks", "of_class", "of_drawing"),
    [(16, 2, 4, 1.0, 1.0), (16, 2, 4, 5.0, 0.3), (4, 1, 3, 0.0, 1.0), (16, 1, 2, 1.0, 1.0)],
)
def test_drawings_of_one_network_cover_its_truth(classes, each, blocks, of_class, of_drawing):
    """Also where there are two of a class, and classes differ far more than drawings do."""
    rng, n_worlds = np.random.default_rng(1), 500
    found = [
        items_interval(*drawn(rng, classes, each, blocks, of_class=of_class, of_drawing=of_drawing), DRAWINGS)
        for _ in range(n_worlds)
    ]
    covered = sum(one.low <= 10 <= one.high for one in found) / n_worlds
    assert 0.92 <= covered <= 0.98
    width = np.mean([one.half_width for one in found])
    error, freedom = of_drawing / math.sqrt(classes * each * blocks), classes * (each * blocks - 1)
    assert width == pytest.approx(float(t.ppf(0.975, freedom)) * error, rel=0.08)


def test_a_difference_that_is_not_there_is_seldom_found():
    """Type I errors of a rule with threshold zero: about one in forty on either side."""
    rng, n_worlds = np.random.default_rng(2), 600
    verdicts = [judge(items_interval(*drawn(rng, 16, 2, 4, truth=0.0), DRAWINGS), 0)[0] for _ in range(n_worlds)]
    assert 0.01 <= verdicts.count(Verdict.HOLDS) / n_worlds <= 0.045
    assert 0.01 <= verdicts.count(Verdict.FAILS) / n_worlds <= 0.045
    assert verdicts.count(Verdict.INCONCLUSIVE) >= 0.91 * n_worlds


@pytest.mark.parametrize(
    ("networks", "of_network", "highest"), [(6, 1.0, 0.98), (12, 1.0, 0.98), (12, 0.2, 1.0), (5, 0.0, 1.0)]
)
def test_networks_of_a_kind_cover_the_truth_of_their_kind(networks, of_network, highest):
    rng, n_worlds = np.random.default_rng(3), 400
    worlds = (drawn(rng, 4, 2, networks, network=of_network) for _ in range(n_worlds))
    covered = sum(one.low <= 10 <= one.high for one in (items_interval(*w, KIND) for w in worlds)) / n_worlds
    assert 0.925 <= covered <= highest


def test_blocks_of_drawings_are_no_networks():
    """Where networks differ, what one network drew says nothing of the others: the two scopes are not the same."""
    rng, n_worlds = np.random.default_rng(4), 200
    worlds = [drawn(rng, 4, 2, 6, network=2.0) for _ in range(n_worlds)]
    covered = [
        sum(one.low <= 10 <= one.high for one in (items_interval(*w, units) for w in worlds))
        for units in (DRAWINGS, KIND)
    ]
    assert covered[0] < 0.6 * n_worlds < 0.9 * n_worlds < covered[1]


def test_nested_intervals_say_what_was_drawn():
    groups, values = drawn(np.random.default_rng(5), 4, 2, 3)
    one, kind = items_interval(groups, values, DRAWINGS), items_interval(groups, values, KIND)
    assert (one.kind, one.n, one.seeds, one.item) == ("bootstrap over drawings within classes", 24, 0, "drawing")
    assert (kind.n, kind.seeds) == (24, 3)
    assert kind.kind in (BY_SEEDS, "bootstrap over networks, then drawings within classes")
    assert one.value == kind.value == pytest.approx(np.mean(values))
    assert items_interval(groups, values, DRAWINGS) == one  # the same on every call
    words = items_interval(
        [f"3 words × 2 voices × 2/{g}" for g in groups],
        [v[:12] for v in drawn(np.random.default_rng(5), 3, 4, 3)[1]],
        ("word", "voice", "clip"),
    )
    assert words.kind == "bootstrap over words, then voices, then clips"
    with pytest.raises(ValueError, match="should say how many classes its 8 items are of"):
        items_interval(["world/seed 0"], [values[0]], DRAWINGS)


def test_a_nested_interval_against_the_exact_variance():
    """Two classes with three drawings each: the variance of the mean is known, and so is the bootstrap's."""
    values, classes = [1.0, 2.0, 6.0, 10.0, 11.0, 15.0], [0, 0, 0, 1, 1, 1]
    weights = nested_weights((tuple(classes),), 6, (0,))
    assert weights.sum(axis=1) == pytest.approx(1.0)
    exact = sum(np.var(part, ddof=1) / 3 for part in (values[:3], values[3:])) / 4
    assert np.var(weights @ np.array(values)) == pytest.approx(exact, rel=0.03)
    alike = nested_interval([3.0, 3.0, 3.0, 7.0, 7.0, 7.0], [classes], kept=[0])
    assert alike == pytest.approx((5.0, 5.0), abs=1e-12)  # classes are kept: what differs between them is no chance
    drawn_again = nested_interval([3.0, 3.0, 3.0, 7.0, 7.0, 7.0], [classes])
    assert drawn_again == pytest.approx((3.0, 7.0), abs=1e-12)


def test_one_unit_says_nothing_of_others():
    assert nested_interval([1.0, 2.0], [[0, 1]], kept=[0]) == (-math.inf, math.inf)  # one drawing a class
    assert nested_interval([1.0, 2.0], [[0, 0]]) == (-math.inf, math.inf)  # one network
    groups, values = drawn(np.random.default_rng(6), 4, 1, 1)
    verdict, reason = judge(items_interval(groups, values, DRAWINGS), 0)
    assert (verdict, reason) == (Verdict.INCONCLUSIVE, "one drawing gives no interval")


def test_units_count_alike_whatever_they_hold():
    assert nested_mean(np.array([1.0, 3.0, 10.0]), [[0, 0, 1]]) == 6.0
    weights = nested_weights(((0, 0, 0, 1, 1),), 5, (0,))
    assert weights.mean(axis=0) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4], abs=0.005)


def test_a_number_of_a_block_is_made_again_from_its_drawings():
    """The share of conditions that at least half of a block's drawings pass; its mean over blocks has a known truth."""

    def passed(means):
        return (means[0] >= 0.5).mean(axis=-1)

    rng, n_worlds, rates, covered = np.random.default_rng(7), 30, np.array([0.3, 0.5, 0.55, 0.7]), 0
    table = rng.random((1, 40_000, 4, 4, 2)) < rates[None, None, :, None, None]
    truth = passed(np.moveaxis(table.mean(axis=(-2, -1)), 2, -1)).mean()
    for _ in range(n_worlds):
        low, high = blocks_interval((rng.random((1, 6, 4, 4, 2)) < rates[:, None, None]).astype(float), passed)
        covered += low <= truth <= high
    assert covered >= 0.9 * n_worlds
    sure = np.ones((1, 3, 4, 4, 2))
    assert blocks_interval(sure, passed) == (1.0, 1.0)


def test_an_image_tested_twice_moves_as_one():
    values = np.random.default_rng(0).normal(size=200)
    once = bootstrap_interval(["a"], [values])
    twice = bootstrap_interval(["a", "a"], [values, values])
    apart = bootstrap_interval(["a", "b"], [values, values])
    assert twice == pytest.approx(once, abs=1e-6)
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


def test_a_number_of_a_block_is_not_one_of_a_training():
    trained, blocks = scalars_interval([1, 2, 3]), scalars_interval([1, 2, 3], DRAWINGS)
    assert (trained.kind, trained.item, blocks.kind, blocks.item) == (BY_SEEDS, "image", BY_BLOCKS, "block")
    assert (trained.low, trained.high) == (blocks.low, blocks.high)


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.integers(1, 4), st.integers(1, 40), st.sampled_from([("network", "image"), ("image",)]))
def test_the_value_lies_between_the_ends_though_all_numbers_are_the_same(number, seeds, n, units):
    """Figures draw whiskers from value to end, which must not be negative."""
    found = items_interval(["images"] * seeds, [np.full(n, number)] * seeds, units)
    assert found.low <= found.value <= found.high
    assert Interval(number, number + 1e-9, number - 1e-9, n, seeds, BY_SEEDS).half_width == 0


def test_one_seed_has_no_interval():
    assert student_interval([0.7]) == (-math.inf, math.inf)
    assert judge(scalars_interval([0.7]), 0.1)[0] is Verdict.INCONCLUSIVE


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
    assert judge(interval(low, high), threshold)[0] is verdict


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-2.9, 3.1, 3, Verdict.HOLDS),  # around zero, and no loss of 3 is left open, however wide it is
        (-2.9, 17, 3, Verdict.HOLDS),
        (-3, 3, 3, Verdict.HOLDS),
        (-2.9, -0.1, 3, Verdict.HOLDS),  # a loss is shown, and a smaller one than is tolerated
        (10, 40, 3, Verdict.HOLDS),
        (-1.3, 4.3, 2, Verdict.HOLDS),
        (-3.1, 5, 3, Verdict.INCONCLUSIVE),
        (-20, -3, 3, Verdict.INCONCLUSIVE),
        (-4, -3.1, 3, Verdict.FAILS),
    ],
)
def test_non_inferiority_asks_that_no_larger_loss_is_left_open(low, high, margin, verdict):
    assert judge(interval(low, high), -margin)[0] is verdict


@pytest.mark.parametrize(
    ("low", "high", "threshold", "verdict"),
    [
        (82, 90, 80, Verdict.HOLDS),
        (70, 85, 80, Verdict.INCONCLUSIVE),  # above zero, as every accuracy is
        (33, 59, 80, Verdict.FAILS),
        (0, 5, 80, Verdict.FAILS),
    ],
)
def test_a_level_has_no_direction(low, high, threshold, verdict):
    assert judge(interval(low, high), threshold, directed=False)[0] is verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-2.9, 3.5, Verdict.SAME),
        (-5, 5, Verdict.SAME),
        (1, 4, Verdict.SAME),  # a difference, and none that counts
        (-5.1, 3, Verdict.INCONCLUSIVE),
        (1, 9, Verdict.INCONCLUSIVE),
        (5.1, 9, Verdict.FAILS),
        (-9, -5.1, Verdict.FAILS),
    ],
)
def test_the_same_within_a_distance(low, high, verdict):
    assert judge(interval(low, high), None, within=5)[0] is verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-2.9, 3.5, Verdict.SAME),  # no sign is shown, and whatever it is, it is small
        (0.5, 3, Verdict.HOLDS),  # a sign is shown: that is what was asked first
        (-3, -0.5, Verdict.FAILS),
        (-9, 3, Verdict.INCONCLUSIVE),
    ],
)
def test_sameness_beside_a_threshold_answers_only_what_is_left_open(low, high, verdict):
    found, reason = judge(interval(low, high), 0, within=5)
    assert found is verdict
    assert ("within 5 of zero" in reason) is (verdict is Verdict.SAME)


ORDER = [Verdict.FAILS, Verdict.INCONCLUSIVE, Verdict.IN_DIRECTION, Verdict.HOLDS]


@pytest.mark.parametrize(
    ("value", "low", "high", "n", "seeds", "threshold", "needed"),
    [
        (1.0, -1.0, 3.0, 64, 0, 0.0, 256),  # half the width at four times as many
        (-1.0, -2.0, 3.0, 64, 0, 0.0, 1024),  # the end toward the threshold counts
        (1.0, -1.0, 3.0, 1000, 5, 0.0, 20),  # seeds are what was drawn
        (21.0, 20.5, 22.0, 64, 0, 20.0, 64),  # already decided
        (20.0, 10.0, 30.0, 64, 0, 20.0, 0),
        (1.0, -math.inf, math.inf, 64, 1, 0.0, 0),
    ],
)
def test_how_many_would_decide(value, low, high, n, seeds, threshold, needed):
    interval = statistics.Interval(value, low, high, n, seeds, statistics.BY_DRAWINGS)
    assert statistics.deciding_count(interval, threshold) == needed


def test_as_many_as_were_said_bring_the_end_to_the_threshold():
    few = np.random.default_rng(0).normal(0.1, 1.0, 100)
    low, high = statistics.student_interval(few)
    assert low < 0 < few.mean()
    said = statistics.deciding_count(statistics.Interval(few.mean(), low, high, 0, 100, "seeds"), 0.0)
    again = np.resize(few, said // 100 * 100)  # the same value and spread, by more
    assert abs(statistics.student_interval(again)[0]) < 0.1 * few.mean()


@given(st.integers(-60, 60), st.integers(0, 60), st.lists(st.integers(-40, 40), min_size=2, max_size=8))
def test_a_rule_that_asks_for_less_never_fares_worse(low, width, thresholds):
    """In quarters of a point, so that ends and thresholds meet exactly."""
    measured = interval(low / 4, (low + width) / 4)
    ranks = [ORDER.index(judge(measured, one / 4)[0]) for one in sorted(thresholds, reverse=True)]
    assert ranks == sorted(ranks)


H, D, F, X = Verdict.HOLDS, Verdict.IN_DIRECTION, Verdict.FAILS, Verdict.INCONCLUSIVE
S = Verdict.SAME


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([H], H),
        ([H, H], H),
        ([H, D], D),
        ([D, D], D),
        ([H, X], X),
        ([D, X], X),
        ([H, F], F),
        ([X, F], F),
        ([D, F], F),
        ([S], S),
        ([S, S], S),
        ([S, F], F),
        ([S, H], X),
        ([S, X], X),
    ],
)
def test_verdict_of_several_contrasts(parts, whole):
    assert combine(parts) is whole


def test_the_six_words():
    assert [verdict.value for verdict in statistics.Verdict] == [
        "holds",
        "holds in direction",
        "does not hold here",
        "the same",
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


def test_voices_and_words_that_were_drawn_cover_the_truth_of_others():
    """A number made from means by layer, the largest before the last third minus the last, of voices crossed with words
    whose truth is known: coverage is what is promised or somewhat more."""
    rng, n_worlds, covered = np.random.default_rng(8), 200, 0
    curve = np.array([0.5, 0.9, 0.1])

    def number(means):
        return means[0][..., :2].max(axis=-1) - means[0][..., 2]

    for _ in range(n_worlds):
        voices, words = rng.normal(0, 0.2, (3, 12, 1)), rng.normal(0, 0.2, (3, 1, 16))
        table = curve[:, None, None] + voices + words + rng.normal(0, 0.2, (3, 12, 16))
        low, high = crossed_interval(table[None], number)
        covered += low <= 0.8 <= high
    assert 0.9 * n_worlds <= covered <= n_worlds
    assert crossed_interval(np.ones((1, 3, 1, 5)), number) == (-math.inf, math.inf)
    alone = crossed_interval(np.random.default_rng(9).normal(size=(1, 3, 30)), number)
    assert alone[0] < alone[1]


def test_a_number_made_of_items_says_what_they_were():
    groups, tables = ["speech/3 voices/4 words"], [[row] for row in np.random.default_rng(10).normal(size=(2, 24))]
    found = made_of_items(groups, tables, ("voice", "word"), lambda means: means[0, ..., 0] - means[1, ..., 1], 0.5)
    assert (found.n, found.seeds, found.item, found.value) == (12, 0, "voice–word pair", 0.5)
    assert found.kind == "bootstrap over voices and words"
    one = made_of_items(["x/24 clips"], tables, ("clip",), lambda means: means[0, ..., 0], 0.0)
    assert (one.n, one.item, one.kind) == (24, "clip", "bootstrap over clips")
