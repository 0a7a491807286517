"""What a unit is worth, as numbers over all units: how pure, how selective, how sparse, how well it names a concept.

Activations are pooled rows (n, u), one number an image and unit, as ``recording.stream(…, reduce="rows")`` gives them.
Every score means something only beside the same score of a rotated basis and of random weights (``controls``): a
network that learned nothing names some concept perfectly. A dead unit, which is the same on all images, has an AUROC of
one half and no other score (NaN), and ``dead`` tells how many there are.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thesis_kit.checks import check_count, check_finite, check_labels

_ROUNDING = 1e-6  # of the largest activation: what a unit that never changes may vary by
_CHUNK = 1 << 24  # numbers of pairs of images that are held at a time


def dead(a: Float[Tensor, "n u"]) -> Bool[Tensor, " u"]:
    """Which units are the same on all images, up to rounding.

    Examples:
        >>> tk.features.scores.dead(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
        tensor([ True, False])
    """
    _check_rows(a)
    return a.amax(dim=0) - a.amin(dim=0) <= _ROUNDING * a.abs().amax(dim=0)


def within(a: Float[Tensor, "n d"], strata: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Rows minus the mean of their stratum: what is left when the stratum is known.

    Examples:
        >>> tk.features.scores.within(torch.tensor([[1.0], [3.0], [10.0]]), torch.tensor([0, 0, 1]))
        tensor([[-1.],
                [ 1.],
                [ 0.]])
    """
    _check_rows(a), check_labels(strata, len(a), what="strata")
    places = strata.unique(return_inverse=True)[1]
    sums = torch.zeros(int(places.max()) + 1, a.shape[1], dtype=a.dtype, device=a.device).index_add_(0, places, a)
    return a - (sums / places.bincount().to(a)[:, None])[places]


def auroc(
    a: Float[Tensor, "n u"], c: Bool[Tensor, "n k"], *, strata: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "u k"]:
    """The probability that an image with a concept excites a unit more than one without; ties count one half.

    Args:
        a: activations. c: which image has which concept.
        strata: compare images of the same stratum alone, such as of one tint, all pairs weighted alike.

    Returns:
        float64 in [0, 1]; NaN where no pair can be compared.

    Source: Mann and Whitney 1947, by midranks.

    Examples:
        >>> a = torch.tensor([[0.1], [0.2], [0.8], [0.9]])
        >>> tk.features.scores.auroc(a, torch.tensor([[False], [False], [True], [True]]))
        tensor([[1.]], dtype=torch.float64)
    """
    _check_rows(a), _check_concepts(c, len(a))
    if strata is not None:
        check_labels(strata, len(a), what="strata")
    places = torch.zeros(len(a), dtype=torch.int64) if strata is None else strata.cpu().unique(return_inverse=True)[1]
    wins = pairs = torch.zeros((), dtype=torch.float64)
    for stratum in range(int(places.max()) + 1):
        chosen = (places == stratum).to(a.device)
        some, there = a[chosen], c[chosen].double()
        positive = there.sum(dim=0)
        wins = wins + _midranks(some) @ there - positive * (positive + 1) / 2
        pairs = pairs + positive * (len(some) - positive)
    return torch.where(pairs > 0, wins / pairs, torch.nan)


def _midranks(a: Tensor) -> Tensor:
    """Ranks from 1 of every column, equal values sharing their mean: (n, u) -> (u, n)."""
    columns = a.T.contiguous()
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    upto = torch.searchsorted(ordered, columns, right=True)
    return (below + upto + 1).double() / 2


def best_concept(
    a: Float[Tensor, "n u"], c: Bool[Tensor, "n k"], *, strata: Int[Tensor, " n"] | None = None, seed: int = 0
) -> tuple[Int[Tensor, " u"], Float[Tensor, " u"]]:
    """The concept that names each unit best, and its AUROC on other images than it was chosen on.

    Half of the images, drawn by the seed, choose; the other half says how well the choice does. So the best of many
    concepts has no head start.

    Examples:
        >>> a = torch.arange(20.0)[:, None]
        >>> concept, auroc = tk.features.scores.best_concept(a, a > torch.tensor([4.5, 9.5]))
        >>> auroc
        tensor([1.], dtype=torch.float64)
    """
    _check_rows(a), _check_concepts(c, len(a))
    if len(a) < 4:
        raise ValueError(f"one half of the images chooses and the other judges, at least two each: got {len(a)} images")
    if strata is not None:
        check_labels(strata, len(a), what="strata")
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed)).to(a.device)
    choosing, judging = order[: len(a) // 2], order[len(a) // 2 :]
    chosen, judged = (
        auroc(a[half], c[half], strata=None if strata is None else strata[half]) for half in (choosing, judging)
    )
    concept = chosen.nan_to_num(nan=-1.0).argmax(dim=1)
    return concept, judged.gather(1, concept[:, None])[:, 0]


def purity(a: Float[Tensor, "n u"], labels: Int[Tensor, " n"], k: int = 20) -> Float[Tensor, " u"]:
    """The share of the most frequent class among each unit's k strongest images; above chance also for noise.

    Raises:
        ValueError: fewer images than k.

    Examples:
        >>> tk.features.scores.purity(torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([7, 7, 0]), k=2)
        tensor([1.], dtype=torch.float64)
    """
    _check_rows(a), check_labels(labels, len(a))
    strongest = labels[_strongest(a, k)]  # (k, u)
    most = (strongest == strongest.mode(dim=0).values).sum(dim=0)
    return _of_the_living(most / k, a)


def selectivity(a: Float[Tensor, "n u"], labels: Int[Tensor, " n"]) -> Float[Tensor, " u"]:
    """(largest class mean − mean of the others) / their sum, of activations from their least upwards.

    1 for a unit that fires for one class alone, 0 for one that is the same for all.

    Source: Morcos et al., ICLR 2018; there activations are those behind a ReLU, whose least is 0.

    Examples:
        >>> tk.features.scores.selectivity(torch.tensor([[3.0], [0.0], [1.0]]), torch.tensor([0, 1, 2]))
        tensor([0.7143], dtype=torch.float64)
    """
    _check_rows(a), check_labels(labels, len(a))
    from_zero = a.double() - a.double().amin(dim=0)
    means = torch.stack([from_zero[labels == label].mean(dim=0) for label in labels.unique()])  # (classes, u)
    if len(means) < 2:
        raise ValueError("selectivity compares classes, and all images are of one: give images of several")
    largest = means.amax(dim=0)
    others = (means.sum(dim=0) - largest) / (len(means) - 1)
    return _of_the_living((largest - others) / (largest + others), a)


def kurtosis(a: Float[Tensor, "n u"]) -> Float[Tensor, " u"]:
    """Fourth central moment over the squared variance: 3 for normal numbers, large for units that fire seldom.

    Examples:
        >>> tk.features.scores.kurtosis(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
        tensor([1.], dtype=torch.float64)
    """
    _check_rows(a)
    centered = a.double() - a.double().mean(dim=0)
    return _of_the_living(centered.pow(4).mean(dim=0) / centered.square().mean(dim=0).square(), a)


def monosemanticity(
    a: Float[Tensor, "n u"], e: Float[Tensor, "n d"], k: int | None = 20, *, strata: Int[Tensor, " n"] | None = None
) -> Float[Tensor, " u"]:
    """How alike an independent encoder finds the images that excite a unit: mean cosine over pairs of them.

    Args:
        a: activations. e: embeddings of the same images by a network that has nothing to do with the unit's; they are
            centered over the images, so that 0 is chance.
        k: pairs among the k strongest images count alike; None weights all pairs by the product of their activations,
            brought to [0, 1] for every unit, as published.
        strata: activations and embeddings are taken within strata first (``within``), so that seeing the stratum alone,
            such as a tint, is worth nothing.

    Source: Pach et al. 2025 (arXiv 2504.02821), with k=None but for the centering; the k strongest are ours.

    Examples:
        >>> a, e = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        >>> tk.features.scores.monosemanticity(a, e, k=2)
        tensor([1.], dtype=torch.float64)
    """
    _check_rows(a), check_finite(e, "(n, d)", what="embeddings")
    if len(e) != len(a):
        raise ValueError(f"embeddings must have one row an image, ({len(a)}, d), got {tuple(e.shape)}")
    alive = a
    if strata is not None:
        a, e = within(a, strata), within(e, strata)
    e = torch.nn.functional.normalize(e - e.mean(dim=0), dim=1)
    if k is not None:
        check_count(k, what="k", least=2)
        sums = _summed(e, _strongest(a, k))
        return _of_the_living((sums.square().sum(dim=1) - k) / (k * (k - 1)), alive)
    a, e = a.double(), e.double()
    low, high = a.amin(dim=0), a.amax(dim=0)
    weights = (a - low) / (high - low).clamp_min(torch.finfo(a.dtype).tiny)  # (n, u)
    along, own = weights.T @ e, weights.square().sum(dim=0)
    pairs = weights.sum(dim=0).square() - own
    return _of_the_living((along.square().sum(dim=1) - own) / pairs, alive)


def _summed(e: Tensor, rows: Tensor) -> Tensor:
    """Embeddings summed over each unit's images: (n, d), (k, u) -> (u, d), some units at a time."""
    at_once = max(1, _CHUNK // (rows.shape[0] * e.shape[1]))
    return torch.cat([e[some].sum(dim=0) for some in rows.split(at_once, dim=1)])


def two_alternative(
    optima: Float[Tensor, "u d"], strong: Float[Tensor, "u m d"], weak: Float[Tensor, "u l d"]
) -> Float[Tensor, " u"]:
    """How often each unit's optimum is more like a strong image than like a weak one to an encoder; chance is one half.

    Args:
        optima: embeddings of the optima. strong, weak: of the images that excite a unit most and least; every strong
            one is set against every weak one, by cosine, and ties count one half.

    Source: Borowski et al., ICLR 2021, with an encoder in a person's place as in Zimmermann et al. 2024.

    Examples:
        >>> like, unlike = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
        >>> tk.features.scores.two_alternative(torch.tensor([[1.0, 0.1]]), like, unlike)
        tensor([1.], dtype=torch.float64)
    """
    check_finite(optima, "(u, d)", what="embeddings of optima")
    for images, what in ((strong, "strong"), (weak, "weak")):
        check_finite(images, "(u, m, d)", what=f"embeddings of {what} images")
        if (len(images), images.shape[2]) != tuple(optima.shape) or images.shape[1] == 0:
            raise ValueError(
                f"embeddings of {what} images must be of the same units as the optima, at least one image each, "
                f"({optima.shape[0]}, m, {optima.shape[1]}), got {tuple(images.shape)}"
            )
    ways = [torch.cosine_similarity(optima[:, None], images, dim=2) for images in (strong, weak)]
    gap = ways[0][:, :, None] - ways[1][:, None, :]
    return ((gap > 0).double() + 0.5 * (gap == 0).double()).mean(dim=(1, 2))


def _strongest(a: Tensor, k: int) -> Tensor:
    """The k strongest images of every unit, (k, u); of equal ones the earlier."""
    _check_rows(a), check_count(k, what="k")
    if k > len(a):
        raise ValueError(f"there are {len(a)} images and k is {k}: ask for at most as many")
    return a.sort(dim=0, descending=True, stable=True).indices[:k]


def _of_the_living(score: Tensor, a: Tensor) -> Tensor:
    return torch.where(dead(a), torch.nan, score.double())


def _check_rows(a: Tensor) -> None:
    """Require finite rows (n, u) of at least two images."""
    check_finite(a, "(n, u)", what="activations")
    if len(a) < 2:
        raise ValueError(f"activations must be rows (n, u) of at least two images, got shape {tuple(a.shape)}")


def _check_concepts(c: Tensor, n: int) -> None:
    """Require which of n images has which concept, (n, k)."""
    if not isinstance(c, Tensor) or c.dtype != torch.bool:
        seen = c.dtype if isinstance(c, Tensor) else type(c).__name__
        raise TypeError(f"concepts must be a tensor of bool (n, k), got {seen}: compare, as in numbers > 0.5")
    if c.ndim != 2 or len(c) != n:
        raise ValueError(f"concepts must have one row an image, ({n}, k), got {tuple(c.shape)}")
