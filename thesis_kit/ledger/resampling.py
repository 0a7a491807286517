"""Bootstrap intervals of means: what is drawn again says what a sentence is about.

Where every network tests the same images, images are drawn again and move as a whole with the outcomes of all networks.
Where units are nested in one another (networks, classes, drawings), they are drawn again level by level, from the
outermost that the sentence speaks about to the innermost; levels above are kept as they are. Weights of all resamples
are made once for a layout and kept, so that an interval is one product of a matrix and a vector, and the same always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import scipy

LEVEL = 0.95
N_RESAMPLES = 10_000
_ROWS = 100


def percentiles(means: np.ndarray, freedom: float = math.inf) -> tuple[float, float]:
    """The middle 95% of resampled means; of few units as much more as Student's t with their degrees of freedom is
    wider than the normal law (Hesterberg, The American Statistician 2015, expanded percentiles)."""
    tail = (1 - LEVEL) / 2
    if math.isfinite(freedom):
        tail = float(scipy.stats.norm.cdf(scipy.stats.t.ppf(tail, freedom)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=32)
def _image_counts(n: int, group: int) -> np.ndarray:
    """How often each of ``n`` images is drawn in each resample, (resamples, n)."""
    draws = np.random.default_rng([group, n]).integers(0, n, size=(N_RESAMPLES, n), dtype=np.int32)
    counts = np.empty((N_RESAMPLES, n), dtype=np.float32)
    rows = np.arange(_ROWS, dtype=np.int64)[:, None] * n
    for first in range(0, N_RESAMPLES, _ROWS):  # as many as a processor's cache holds at a time
        flat = (draws[first : first + _ROWS] + rows).ravel()
        counts[first : first + _ROWS] = np.bincount(flat, minlength=_ROWS * n).reshape(_ROWS, n)
    return counts


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
        counts = _image_counts(len(cluster), number)
        total += (counts @ cluster.astype(np.float32)).astype(float) / len(cluster)  # (resamples, n) @ (n,)
    return percentiles(total / len(groups))


def nested_interval(
    values: Sequence[float] | np.ndarray, levels: Sequence[Sequence[int]], *, kept: Sequence[int] = ()
) -> tuple[float, float]:  # fmt: skip
    """95% percentile interval of a mean of nested units, in which every unit of a level counts alike.

    From the k outermost units k − 1 are drawn with replacement (Rao and Wu, JASA 1988), for with k the variance of a
    mean of few would be too small by (k − 1) / k. Inside a unit that was drawn, its own are drawn again, as many as
    there are. The spread of outer units has the inner one's in it already: the interval is then a little too wide, the
    less so the more inner units there are.

    Args:
        values: one number an innermost unit, (n,).
        levels: for every level above, from the outermost, which unit each number belongs to, (n,).
        kept: places of the levels that are not drawn again, for all their units are there.

    Returns:
        The two ends; infinite where a level to be drawn again has one unit, which says nothing about others.
    """
    values = np.asarray(values, dtype=float)
    levels = tuple(tuple(level) for level in levels)
    weights = nested_weights(levels, len(values), tuple(kept))
    if weights is None:
        return -math.inf, math.inf
    first = _first_drawn(kept)
    parents = len(set(zip(*levels[:first], strict=True))) if first else 1
    units = len(set(zip(*levels[: first + 1], strict=True))) if first < len(levels) else len(values)
    return percentiles(weights @ values, units - parents)


def _first_drawn(kept: Sequence[int]) -> int:
    """The place of the outermost level that is drawn again."""
    return next(place for place in range(len(kept) + 1) if place not in kept)


def nested_mean(values: np.ndarray, levels: Sequence[Sequence[int]]) -> float:
    """The mean in which every unit of a level counts alike, whatever it holds."""
    if not levels:
        return float(np.mean(values))
    first, rest = np.asarray(levels[0]), [np.asarray(level) for level in levels[1:]]
    parts = [first == unit for unit in dict.fromkeys(first.tolist())]
    return float(np.mean([nested_mean(values[part], [level[part] for level in rest]) for part in parts]))


@lru_cache(maxsize=16)
def nested_weights(levels: tuple[tuple[int, ...], ...], n: int, kept: tuple[int, ...]) -> np.ndarray | None:
    """What each of ``n`` numbers counts in each resample, (resamples, n); None where one unit should speak for many."""
    rng, first = np.random.default_rng([n, len(levels), *kept]), _first_drawn(kept)
    weights = np.empty((N_RESAMPLES, n))
    labels = [np.asarray(level) for level in levels]

    def spread(items: np.ndarray, depth: int, times: np.ndarray, share: float) -> bool:
        """Give the items of a unit that was drawn ``times`` (resamples,) their weights; False where that is one."""
        parts = [[item] for item in items]
        if depth < len(labels):
            mine = labels[depth][items]
            parts = [items[mine == unit] for unit in dict.fromkeys(mine.tolist())]
        k = len(parts)
        if depth in kept:
            return all(spread(part, depth + 1, times, share / k) for part in parts)
        if k == 1 and depth == first:
            return False
        drawn = k - 1 if depth == first else k
        often = rng.multinomial(times * drawn, np.full(k, 1 / k))  # (resamples, k)
        if depth == len(labels):
            weights[:, items] = often * (share / drawn)
            return True
        return all(spread(part, depth + 1, often[:, place], share / drawn) for place, part in enumerate(parts))

    known = spread(np.arange(n), 0, np.ones(N_RESAMPLES, dtype=np.int64), 1.0)
    return weights if known else None


def blocks_interval(tables: np.ndarray, number: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """95% percentile interval of a number that exists only for a block of drawings, such as a count of conditions.

    Blocks are made again from the drawings of all blocks, class by class, and the number is computed for each: it is
    the mean over as many blocks as there were.

    Args:
        tables: one number a drawing, (arms, blocks, conditions, classes, drawings of a class). A drawing is the same
            start under all arms and conditions, and moves as a whole.
        number: means over the drawings of a block, (arms, …, conditions) → the number, (…).
    """
    arms, blocks, conditions, classes, each = tables.shape
    pool = tables.transpose(0, 2, 3, 1, 4).reshape(arms, conditions, classes, blocks * each)
    rng, row, means = np.random.default_rng(tables.shape), np.arange(classes)[:, None], []
    for _ in range(N_RESAMPLES // _ROWS):
        again = rng.integers(0, blocks * each, size=(_ROWS, blocks, classes, each))
        shares = pool[:, :, row, again].mean(axis=(-2, -1))  # (arms, conditions, rows, blocks)
        means.append(number(np.moveaxis(shares, 1, -1)).mean(axis=-1))
    return percentiles(np.concatenate(means))


def crossed_interval(tables: np.ndarray, number: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """95% percentile interval of a number made from means over crossed units, such as voices that all say all words.

    Units of each factor are drawn again, each factor by itself (Owen, Annals of Applied Statistics 2007), and the
    number is made of the means that come of it. Percentiles are spread as Student's t of the smaller factor asks.

    Args:
        tables: one number an item, (terms, conditions, units of a factor …), the same items under all terms.
        number: means over items, (terms, …, conditions) → the number, (…).

    Returns:
        The two ends; infinite where a factor has one unit.
    """
    terms, conditions, *sizes = tables.shape
    if min(sizes) < 2:
        return -math.inf, math.inf
    rng = np.random.default_rng(tables.shape)
    drawn = [rng.multinomial(size, np.full(size, 1 / size), N_RESAMPLES) / size for size in sizes]  # (resamples, size)
    means = tables.reshape(terms, conditions, -1, sizes[-1]) @ drawn[-1].T  # (terms, conditions, outer, resamples)
    for times, size in zip(reversed(drawn[:-1]), reversed(sizes[:-1]), strict=True):
        means = np.einsum("tcosr,rs->tcor", means.reshape(terms, conditions, -1, size, N_RESAMPLES), times)
    return percentiles(number(np.moveaxis(means[:, :, 0], 1, -1)), min(sizes) - 1)
