"""What chapter 5 measures of one network: its units by site and block, its tokens by depth, and what it needs to see.

Each function takes a network and scenes and gives numbers with names, for one network; arms record them over cohorts
and the notebook shows them live. Thirds of depth are thirds of the number of blocks, rounded up to whole blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thesis_kit import evaluation, features, recording
from thesis_kit.asking import Model
from thesis_kit.data import Outlined
from thesis_kit.data.scenes import Scenes
from thesis_kit.features import frequency, masks, scores, tokens
from thesis_kit.ledger.statistics import wilson

KINDS = ("hidden", "q", "k", "v")
_FEW = 512  # images whose maps are held against masks, all units of a block at once


def corrected(accuracy: float, classes: int) -> float:
    """Accuracy without what guessing gives: (a − 1/K) / (1 − 1/K)."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)


@dataclass(frozen=True)
class Share:
    """A share with the ends of its 95% interval; as text "41% (32 to 51)"."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{max(0.0, self.value):.0%} ({100 * self.low:.0f} to {100 * self.high:.0f})"


def share(value: float, n: int, classes: int) -> Share:
    """A chance-corrected accuracy on n images, with Wilson's interval over images."""
    right = value * (1 - 1 / classes) + 1 / classes
    return Share(value, *(max(0.0, corrected(end, classes)) for end in wilson(round(right * n), n)))


@dataclass(frozen=True)
class Pictures:
    """Images (n, c, h, w) that units are asked about, and what is known of them: classes (n,), concepts (n, k) bool,
    and strata (n,), within which alone images are compared, so that what a whole stratum shares counts for nothing."""

    images: Tensor
    labels: Tensor
    concepts: Tensor
    strata: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def pictures_of_scenes(scenes: Scenes) -> Pictures:
    """Scenes with all that their tables say of the main object, the background and the tint, which makes the strata."""
    return Pictures(scenes.images, scenes.labels, concepts(scenes), scenes.table.tint)


def pictures_of_photographs(images: Tensor, labels: Tensor, classes: int, *, tones: int = 5) -> Pictures:
    """Photographs of which only the class is known. Strata are equal parts of them by their mean brightness."""
    rank = images.flatten(1).mean(dim=1).argsort(stable=True).argsort(stable=True)
    return Pictures(images, labels, torch.nn.functional.one_hot(labels, classes).bool(), rank * tones // len(images))


def blocks_of(model: Model, kind: str = "hidden") -> list[str]:
    """Sites of one kind, from the first block to the last."""
    return [site.name for site in recording.sites(model).of_kind(kind)]


def pooled(model: Model, x: Tensor, kinds: Sequence[str] = KINDS) -> dict[str, list[Tensor]]:
    """Mean activations over patches (n, u) of every unit: kind → one tensor a block."""
    names = {kind: blocks_of(model, kind) for kind in kinds}
    found = recording.stream(model, x, [n for several in names.values() for n in several], reduce="rows")
    return {kind: [found[name] for name in several] for kind, several in names.items()}


def unit_scores(a: Tensor, embedded: Tensor, pictures: Pictures, strongest: int) -> dict[str, float]:
    """Means over the living units of a site: monosemanticity within strata, purity, logarithm of the kurtosis; the best
    concept's AUROC, the median over all units, of which a dead one's is one half; and how many units are dead."""
    _, best = scores.best_concept(a, pictures.concepts)
    return {
        "monosemanticity": _mean(scores.monosemanticity(a, embedded, strongest, strata=pictures.strata)),
        "purity": _mean(scores.purity(a, pictures.labels, strongest)),
        "log_kurtosis": _mean(scores.kurtosis(a).log()),
        "best_auroc": best[~best.isnan()].median().item(),
        "dead": scores.dead(a).double().mean().item(),
    }


def _mean(score: Tensor) -> float:
    """Over the living; 0 where all are dead."""
    alive = score[~score.isnan()]
    return alive.mean().item() if len(alive) else 0.0


def concepts(scenes: Scenes) -> Tensor:
    """Which scene has which shape, color, texture, background and tint: (n, concepts) bool."""
    table = scenes.table
    columns = [table.shape[:, 0], table.color[:, 0], table.texture[:, 0], table.background, table.tint]
    return torch.cat([torch.nn.functional.one_hot(column).bool() for column in columns], dim=1)


def scores_by_block(
    model: Model, pictures: Pictures, embedded: Tensor, *, strongest: int, kinds: Sequence[str] = KINDS, seed: int = 0
) -> dict[str, list[dict[str, float]]]:
    """``unit_scores`` of every block, by kind of site and by kind under "… rotated"."""
    found: dict[str, list[dict[str, float]]] = {}
    for kind, blocks in pooled(model, pictures.images, kinds).items():
        found[kind] = [unit_scores(a, embedded, pictures, strongest) for a in blocks]
        turned = [features.rotated(a, seed + block) for block, a in enumerate(blocks)]
        found[f"{kind} rotated"] = [unit_scores(a, embedded, pictures, strongest) for a in turned]
    return found


def third(numbers: Sequence[float], which: str) -> float:
    """The mean over the "first" or the "last" third of blocks."""
    size = math.ceil(len(numbers) / 3)
    part = numbers[:size] if which == "first" else numbers[-size:]
    return sum(part) / len(part)


def mask_by_block(model: Model, scenes: Scenes | Outlined) -> list[float]:
    """Centered correlation of hidden units' maps with the object's mask, mean over units, of every block."""
    x, mask = scenes.images[:_FEW], scenes.masks[:_FEW].sum(dim=1).clamp(0, 1)
    sites = {site.name: site for site in recording.sites(model).of_kind("hidden")}
    parts = [recording.record(model, some, list(sites)) for some in x.split(64)]
    return [
        _mean(masks.mask_correlation(torch.cat([site.maps(part[name]) for part in parts]), mask))
        for name, site in sites.items()
    ]


def preferred_by_block(model: Model, size: int) -> list[float]:
    """The mean logarithm (base 2) of the frequency that hidden units prefer, of every block."""
    octaves = range(int(math.log2(size / 2)))  # as recorded: of 28 pixels without the highest
    shown = frequency.gratings(size, [2.0**k for k in octaves])
    return [
        _mean(frequency.preferred_frequency(a, shown).log2())
        for a in pooled(model, shown.images.to(_device(model)), ("hidden",))["hidden"]
    ]


def _device(model: Model) -> torch.device:
    return next(model.parameters()).device


def token_curves(model: Model, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Chance-corrected accuracies by the number of blocks, 0 to L, and how alike patches are there.

    "isolated" and "held": the class token kept apart in so many blocks, alone or at its mean; "alone": patches dropped
    after so many; "read": the head on the class token after so many, "patches": on single patches; "cosine", "within".
    """
    depth = range(len(tokens.stack(model)) + 1)
    means = tokens.class_means(model, x)

    def accuracy(logits: Tensor) -> float:
        labels = y if logits.ndim == 2 else y[:, None]
        return corrected((logits.argmax(dim=-1) == labels).double().mean().item(), logits.shape[-1])

    return {
        "isolated": [accuracy(tokens.isolate_cls(model, x, k)) for k in depth],
        "held": [accuracy(tokens.isolate_cls(model, x, k, hold="mean", means=means)) for k in depth],
        "alone": [accuracy(tokens.drop_patches(model, x, k)) for k in depth],
        "read": [accuracy(tokens.class_logits(model, x, k)) for k in depth],
        "patches": [accuracy(tokens.patch_logits(model, x, k)) for k in depth],
        "cosine": tokens.similarity(model, x).tolist(),
        "within": tokens.within_share(model, x).tolist(),
    }


def token_numbers(curves: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """What rules ask of ``token_curves``: single depths, and the gain in cosine of the last block and of another."""
    depth = len(curves["alone"]) - 1
    gains = [b - a for a, b in zip(curves["cosine"], curves["cosine"][1:], strict=False)]
    return {
        "natural": curves["alone"][-1],
        "isolated": curves["isolated"][-2],
        "held": curves["held"][-2],
        "alone_half": curves["alone"][depth // 2],
        "alone_two_thirds": curves["alone"][depth - -(-depth // 3)],
        "patches_last": curves["patches"][-1],
        "patches_before": curves["patches"][-2],
        "cosine_gain_last": gains[-1],
        "cosine_gain_other": max(gains[:-1], default=0.0),
        **within_numbers(curves["within"]),
    }


def within_numbers(within: Sequence[float]) -> dict[str, float]:
    """The share of variance within images behind the last block and behind the one before it."""
    return {"within_last": within[-1], "within_before": within[-2]}


def mask_numbers(follows: Sequence[float]) -> dict[str, float]:
    """The mean of ``mask_by_block`` over blocks L/2 … L − 1, counted from 1, and the last block's."""
    before = follows[len(follows) // 2 - 1 : -1]
    return {"mask_before": sum(before) / len(before), "mask_last": follows[-1]}


def masked_accuracies(model: Model, scenes: Scenes) -> dict[str, float]:
    """Accuracy on scenes as they are, with the object's exact silhouette or its box blacked out, drawn without the
    object, before another background, and with the object alone on black or gray."""
    x, y, mask = scenes.images, scenes.labels, scenes.masks.sum(dim=1).clamp(0, 1)
    pictures = {
        "whole": x,
        "hole": masks.hole(x, mask),
        "box": masks.hole(x, mask, form="box"),
        "removed": masks.without_object(scenes),
        "swapped": masks.swapped(scenes),
        "object_on_black": masks.cut_out(x, mask),
        "object_on_mean": masks.cut_out(x, mask, fill="mean"),
    }
    return {name: evaluation.correct(model, (seen, y)).double().mean().item() for name, seen in pictures.items()}


def token_rows(model: Model, x: Tensor, site: str) -> Tensor:
    """What stands at every patch of some images at a site, (n, patches, u)."""
    place = recording.sites(model)[site]
    parts = [place.patches(recording.record(model, some, site)[site]) for some in x.split(64)]
    return torch.cat(parts)


def codes_beside_units(
    model: Model, train: Tensor, scenes: Scenes, embedded: Tensor, site: str, *, learned: Sequence[str], strongest: int,
    fires: int, seed: int = 0, **effort: int,
) -> dict[str, dict[str, object]]:  # fmt: skip
    """Monosemanticity of a site's units, of as many random directions, and of sparse codes learned on other images.

    Of codes count those that are above 0 in at least ``fires`` images, for the strongest of others are no images of
    theirs. Kinds of ``learned``: "drawn" (not trained), "learned".

    Returns:
        kind → ``alike`` (an ``Estimate`` over images), ``count`` of directions, ``seldom`` (fire in fewer images),
        ``dead`` (never fire), ``explained`` share of the held-out tokens' variance, where there are codes.
    """
    seen = token_rows(model, scenes.images, site)
    pooled = seen.mean(dim=1)
    found = {name: _rows(a, embedded, scenes, strongest) for name, a in
             (("units", pooled), ("random directions", features.rotated(pooled, seed)))}  # fmt: skip
    given = token_rows(model, train, site).flatten(0, 1)
    for kind in learned:
        steps = {"steps": 0} if kind == "drawn" else {}
        codes = features.codes.learn(given, seed=seed, **{**effort, **steps})
        fired = codes.encode(seen)  # (n, patches, m)
        images = (fired > 0).any(dim=1).sum(dim=0)
        often = images >= fires
        found[f"codes, {kind}"] = {
            **_rows(fired.mean(dim=1)[:, often], embedded, scenes, strongest),
            "count": len(often), "seldom": int((~often).sum()), "dead": int((images == 0).sum()),
            "explained": codes.explained(seen.flatten(0, 1)),
        }  # fmt: skip
    return found


def _rows(a: Tensor, embedded: Tensor, scenes: Scenes, strongest: int) -> dict[str, object]:
    def alike(chosen: Tensor) -> float:
        score = scores.monosemanticity(a[chosen], embedded[chosen], strongest, strata=scenes.table.tint[chosen])
        return score.nanmean().item()

    alive = {"count": a.shape[1], "seldom": 0, "dead": int(scores.dead(a).sum())}
    return {"alike": features.over_images(alike, len(a)), **alive}


def low_pass_curve(model: Model, x: Tensor, y: Tensor, cutoffs: Sequence[float], classes: int) -> dict[float, float]:
    """Chance-corrected accuracy on low-passed images over that on whole ones, by cut-off."""

    def accuracy(seen: Tensor) -> float:
        return corrected(evaluation.correct(model, (seen, y)).double().mean().item(), classes)

    whole = accuracy(x)
    return {cutoff: accuracy(frequency.low_pass(x, cutoff)) / whole for cutoff in cutoffs}


def area(curve: Mapping[float, float]) -> float:
    """The mean of a curve over its cut-offs."""
    return sum(curve.values()) / len(curve)
