"""What units answer to, by measurement and by text: concepts within a class, themes, numbers, and the nearest words.

All functions take activations as rows (n, u), one number an image and unit, as ``recording.stream(…, reduce="rows")``
gives them, and are worth something only beside the same numbers of a network that learned nothing. Choices are made on
one half of the images and judged on the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.asking import evaluating
from thesis_kit.checks import check_count, check_labels
from thesis_kit.features.scores import auroc, dead
from thesis_kit.models.clip import Pair, as_pair, check_one_space

_BATCH = 250
_LEAST = 2  # images with a concept, and without it, that a stratum must have to say anything


def strata_of(label: Int[Tensor, " n"], area: Float[Tensor, " n"], bins: int = 3) -> Int[Tensor, " n"]:
    """One number for each class and share of area: images of one stratum are of one class and about as large.

    Args:
        label: classes. area: of what is shown, any unit. bins: equally many images by area, over all classes.

    Examples:
        >>> tk.language.strata_of(torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.9, 0.1, 0.9]), bins=2)
        tensor([0, 1, 2, 3])
    """
    check_labels(label, len(area)), check_count(bins, what="bins")
    if not torch.isfinite(area).all():
        raise ValueError("areas must be finite numbers: leave out images whose area is not known")
    edges = torch.quantile(area.double(), torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1].to(area.device))
    return label * bins + torch.bucketize(area.double(), edges)


def selective(
    a: Float[Tensor, "n u"], c: Bool[Tensor, "n k"], strata: Int[Tensor, " n"], *, least: float = 0.8,
    shuffles: int = 20, seed: int = 0,
) -> Bool[Tensor, "u k"]:  # fmt: skip
    """Which units select which concept when the stratum is known: AUROC of at least ``least`` and above chance.

    Args:
        a: activations. c: which image has which concept. strata: what is held equal, such as ``strata_of``.
        least: AUROC within strata, all pairs weighted alike.
        shuffles: chance is the 99th percentile, over all units and shuffles, of the AUROC of the concept's places
            drawn anew within strata.

    Returns:
        (u, k) bool; False for dead units and for concepts that no stratum both has and lacks.

    Examples:
        >>> concept = torch.arange(40)[:, None] % 2 == 0
        >>> tk.language.selective(concept.float(), concept, torch.arange(40) // 2 % 2, shuffles=5).tolist()
        [[True]]
    """
    check_count(shuffles, what="shuffles")
    found = auroc(a, c, strata=strata)
    by_chance = torch.stack([auroc(a, _shuffled(c, strata, seed + turn), strata=strata) for turn in range(shuffles)])
    living = ~dead(a)
    bar = torch.full((c.shape[1],), torch.inf, dtype=torch.float64)
    for place in range(c.shape[1]):
        kept = by_chance[:, living.to(by_chance.device), place].flatten()
        kept = kept[~kept.isnan()]
        bar[place] = torch.quantile(kept, 0.99) if len(kept) else torch.inf
    reached = (found >= least) & (found > bar.to(found.device)) & ~found.isnan()
    return reached & living[:, None].to(reached.device)


def _shuffled(c: Tensor, strata: Tensor, seed: int) -> Tensor:
    """Rows of concepts exchanged at random among the images of each stratum."""
    generator, new = torch.Generator().manual_seed(seed), c.clone()
    for stratum in strata.unique():
        rows = (strata == stratum).nonzero()[:, 0]
        new[rows] = c[rows[torch.randperm(len(rows), generator=generator).to(rows.device)]]
    return new


def theme_auroc(
    a: Float[Tensor, "n u"], shape: Int[Tensor, " n"], themes: Int[Tensor, " s"], *, seed: int = 0
) -> Float[Tensor, "u t"]:
    """How surely the weakest member of a theme excites a unit more than the best of all others: (u, themes).

    Which member and which other that is, is chosen on one half of the images, and their AUROC is of the other half. A
    unit that stands for the theme whatever the object has more than one half for every member.

    Args:
        shape: what is shown, a position in ``themes``. themes: the theme of every shape.

    Examples:
        >>> shape = torch.arange(80) % 4
        >>> tk.language.theme_auroc((shape < 2).float()[:, None], shape, torch.tensor([0, 0, 1, 1])).tolist()
        [[1.0, 0.0]]
    """
    check_labels(shape, len(a), len(themes))
    if themes.unique().tolist() != list(range(int(themes.max()) + 1)) or len(themes.unique()) < 2:
        raise ValueError(f"themes must be numbered from 0 without a gap, two at least, got {themes.tolist()}")
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed)).to(a.device)
    choosing, judging = (_pairs(a[half], shape[half], len(themes)) for half in (order[: len(a) // 2],
                                                                                order[len(a) // 2 :]))  # fmt: skip
    found = []
    for theme in range(int(themes.max()) + 1):
        own, others = (themes == theme).nonzero()[:, 0], (themes != theme).nonzero()[:, 0]
        among = choosing[:, own][:, :, others].flatten(1)  # (u, members · others)
        weakest = among.nan_to_num(nan=1.0).argmin(dim=1)
        found.append(judging[:, own][:, :, others].flatten(1).gather(1, weakest[:, None])[:, 0])
    return torch.stack(found, dim=1)


def _pairs(a: Tensor, shape: Tensor, n: int) -> Tensor:
    """AUROC of every shape against every other, (u, n, n); a half on the diagonal."""
    table = torch.full((a.shape[1], n, n), 0.5, dtype=torch.float64)
    for one in range(n):
        for other in range(one + 1, n):
            rows = (shape == one) | (shape == other)
            enough = min(int((shape == one).sum()), int((shape == other).sum())) >= _LEAST
            value = auroc(a[rows], (shape[rows] == one)[:, None])[:, 0].cpu() if enough else torch.nan
            table[:, one, other], table[:, other, one] = value, 1 - value
    return table


def count_auroc(a: Float[Tensor, "n u"], many: Bool[Tensor, " n"], strata: Int[Tensor, " n"]) -> Float[Tensor, " u"]:
    """The probability that two or three objects excite a unit more than one, of equal shape and area; (u,).

    Args:
        many: which images show several objects. strata: of ``strata_of`` shape and total area.

    Examples:
        >>> many = torch.arange(8) % 2 == 0
        >>> tk.language.count_auroc(many.float()[:, None], many, torch.zeros(8, dtype=torch.int64))
        tensor([1.], dtype=torch.float64)
    """
    return auroc(a, many[:, None], strata=strata)[:, 0]


def name_by_text(
    clip: Pair, a: Float[Tensor, "n u"], x: Float[Tensor, "n c h w"], words: Sequence[str], *, k: int = 20
) -> tuple[Int[Tensor, " u"], Float[Tensor, "u m"]]:
    """The words that say best what a unit's strongest images have beyond others: positions (u,) and scores (u, words).

    A word's probability in an image is the pair's softmax over all words. The score is its mean logarithm over the k
    strongest images less the logarithm of its mean over all images, so that words that fit every image name no unit.

    Args:
        clip: whose towers judge; the unit may be of another network. a: activations. x: the same images, in [0, 1].
        words: sentences, "a star", "a red shape". k: strongest images.

    Source: Oikarinen and Weng, ICLR 2023 (CLIP-Dissect), pointwise mutual information of section 3.2, with λ = 1.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> images = torch.rand(4, 3, 16, 16)
        >>> named, scores = tk.language.name_by_text(clip, torch.rand(4, 5), images, ["a star", "a heart"], k=2)
        >>> scores.shape
        torch.Size([5, 2])
    """
    clip = as_pair(clip)
    check_count(k, what="k")
    if a.ndim != 2 or not torch.isfinite(a).all():
        raise ValueError(f"activations must be finite rows (n, u), a number an image and unit, got {tuple(a.shape)}")
    if len(a) != len(x) or k > len(a):
        raise ValueError(f"there are {len(a)} rows of activations and {len(x)} images, and k is {k}: give a row an "
                         "image, and no larger k")  # fmt: skip
    with evaluating(clip), torch.no_grad():
        said = clip.encode_text(words)
        seen = torch.cat([clip.encode_image(some) for some in x.split(_BATCH)])
        check_one_space(seen, said)
        near = seen @ said.to(seen).T
        log_p = F.log_softmax(clip.scale * near, dim=1)  # (n, words)
    strongest = a.sort(dim=0, descending=True, stable=True).indices[:k]  # (k, u)
    usual = torch.logsumexp(log_p, dim=0) - torch.log(torch.tensor(float(len(x))))
    scores = log_p[strongest].mean(dim=0) - usual  # (u, words)
    return scores.argmax(dim=1), scores


def agreement(named: Int[Tensor, " u"], measured: Int[Tensor, " u"]) -> float:
    """The share of units that two ways of naming give the same name.

    Examples:
        >>> tk.language.agreement(torch.tensor([0, 3]), torch.tensor([0, 1]))
        0.5
    """
    if not len(named) or named.shape != measured.shape:
        raise ValueError(f"names must be one a unit in both, got {tuple(named.shape)} and {tuple(measured.shape)}")
    return (named == measured.to(named.device)).double().mean().item()
