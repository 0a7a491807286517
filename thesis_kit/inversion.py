"""Class inversion: what a class looks like to a network, by Plug-In Inversion and by what came before it.

Plug-In Inversion (Ghiasi, Kazemi, Reich, Zhu, Goldblum and Goldstein, ICML 2022) minimizes the cross-entropy of a class
and nothing else. What keeps the images from being noise is what happens to them before the network: they grow from a
quarter of the side to full size (zoom) with fresh noise around (centering), and every step sees copies of them, rolled
(jitter) and with other colors (ColorShift). The same settings are meant for any network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import Model, as_module, ask, device_of, evaluating
from thesis_kit.checks import check_count, check_images, choose
from thesis_kit.synthesis import (
    Adam,
    Blur,
    ColorShift,
    Ensemble,
    Fourier,
    Jitter,
    Objective,
    Pixels,
    Stage,
    Synthesis,
    batchnorm_statistics,
    cross_entropy,
    l2,
    preview,
    synthesize,
    total_variation,
)

STAGES = 7  # published: sizes 2/8, 3/8, … 8/8 of the network's
BLUR = 0.006  # of the side, before drawings are compared
LEAST = 16  # pixels of a side, so that an eighth is two
FACTORS = ("color", "zoom", "center")  # the three augmentations that the paper takes apart
QUALITIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(  # what the names of a quality stand for
    {
        "published": {"steps": 400, "copies": 16, "optimizer": Adam(0.01), "parametrization": Pixels()},
        "sketch": {
            "steps": 40,
            "copies": 4,
            "optimizer": Adam(0.05, (0.9, 0.999), "constant"),
            "parametrization": Fourier(),
        },
    }
)


def plug_in_inversion(
    model: Model,
    classes: Sequence[int],
    *,
    size: int,
    channels: int = 3,
    quality: str = "published",
    steps: int | None = None,
    copies: int | None = None,
    lr: float | None = None,
    color: float = 1.0,
    jitter: int | None = None,
    zoom: bool = True,
    center: bool = True,
    tv: float = 0.0,
    batchnorm: float = 0.0,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    batch: int | None = None,
    precision: str = "float32",
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Synthesis:
    """Images that the model takes for given classes, one a class, by Plug-In Inversion.

    The defaults are published, but for ``copies``: 44,800 passes an image, which wants a GPU. ``quality="sketch"`` is
    ours and takes a fortieth of the passes: the same stages and augmentations draw on a canvas of frequencies and
    decorrelated colors, which leaves no noise to be worn down by many steps.

    Args:
        model: pixels in [0, 1] to logits. A network of fixed input size must resize by itself (``tk.Classifier``).
        classes: what to invert; a class may come several times and gives another image each time.
        size: side of the images, which the network was trained on. channels: 3, or 1 for gray.
        quality: "published" or "sketch", which decide what is optimized (pixels; frequencies), by which optimizer, and
            the next three arguments where they are not given.
        steps: in each of seven stages, 400 published, 40 in a sketch.
        copies: of every image in a pass, over which the loss is averaged. The paper takes as many as fit into memory, 1
            to 157, which differs from network to network; 16, and 4 in a sketch, are ours.
        lr: of Adam; published 0.01 with betas (0.5, 0.99) and cosine to 0 in every stage, in a sketch a constant 0.05.
        color: α = β of ColorShift; 0 leaves it out.
        jitter: largest roll, in pixels; 32 at 224, in proportion, unless given.
        zoom: enlarge from stage to stage. center: add fresh noise around from stage to stage. With both, half of each
            stage's growth is one and half the other; with neither, all steps are made at full size.
        tv: weight of total variation, of the released code's form. batchnorm: weight of BatchNorm statistics. Both are
            0 in the method and there for comparisons.
        seed, ids, batch, precision, checkpoint, progress: as in ``synthesis.synthesize``.

    Returns:
        A ``Synthesis``; ``snapshots`` has the images at the end of every stage.

    Raises:
        ValueError: a class that the model does not have, images that it cannot take, settings that cannot be meant.
        UnknownName: a quality that there is not.

    Source: Ghiasi et al., ICML 2022, Algorithm 1, and the released code: stage sizes are (k + 1)/8 of the network's,
        and half of each stage's growth is border. Ours is that the first stage starts from fresh noise of its own size,
        where the released code shrinks noise of full size.

    Examples:
        >>> resnet = tk.zoo.load("resnet-scenes-a-natural")
        >>> made = tk.inversion.plug_in_inversion(resnet, [0, 3], size=16, steps=1, copies=2)
        >>> made.images.shape
        torch.Size([2, 3, 16, 16])
    """
    chosen = choose(quality, QUALITIES, "quality of an inversion")
    steps, copies = (chosen[name] if own is None else own for name, own in (("steps", steps), ("copies", copies)))
    optimizer = chosen["optimizer"] if lr is None else replace(chosen["optimizer"], lr=lr)
    stages = growing(size, steps, zoom=zoom, center=center, even=quality == "sketch")
    objective = _objective(model, classes, tv, 0.0, batchnorm)
    colors = [ColorShift(color, color)] if color else []
    rolled = Jitter.for_size(size) if jitter is None else Jitter(jitter)
    return synthesize(
        model, objective, stages=stages, channels=channels, parametrization=chosen["parametrization"],
        augmentations=[rolled, Ensemble(copies), *colors], optimizer=optimizer, seed=seed, ids=ids, batch=batch,
        precision=precision, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def log_odds(
    model: Model, images: Float[Tensor, "n c h w"], classes: Sequence[int], *, blur: float = BLUR, batch_size: int = 64
) -> Float[Tensor, " n"]:
    """How sure the model is of each image's class after a blur: log p − log(1 − p), also where p is next to 1.

    A shape survives the blur, and a pattern of single pixels, which fools the model that drew it, does not.

    Args:
        model: pixels in [0, 1] to logits. images: in [0, 1]. classes: one an image.
        blur: standard deviation of a Gaussian, as a share of the side; 0 leaves the images as they are.
        batch_size: images that the model is asked about together.

    Source: ours.

    Examples:
        >>> resnet = tk.zoo.load("resnet-scenes-a-natural")
        >>> made = tk.inversion.plug_in_inversion(resnet, [0, 3], size=16, steps=1, copies=2)
        >>> tk.inversion.log_odds(resnet, made.images, [0, 3]).shape
        torch.Size([2])
    """
    check_images(images)
    if len(classes) != len(images):
        raise ValueError(f"there are {len(images)} images, but {len(classes)} classes")
    found, model, device = [], as_module(model), device_of(model) or images.device
    with evaluating(model), torch.no_grad():
        for some, own in zip(images.split(batch_size), torch.tensor(classes).split(batch_size), strict=True):
            soft = preview(some, [Blur(blur * some.shape[-1])])[:, 0] if blur else some
            logits = ask(model, soft.to(device)).double().cpu()
            right = logits.gather(1, own[:, None])
            rest = logits.scatter(1, own[:, None], -math.inf).logsumexp(dim=1)
            found.append(right[:, 0] - rest)
    return torch.cat(found)


def surest(model: Model, drawn: Synthesis, classes: Sequence[int], *, blur: float = BLUR) -> Synthesis:
    """Of several drawings of each class, the one that the model is surest of after a blur (see ``log_odds``).

    What a drawing shows hangs on the noise it began with. No other network is asked, so this chooses as anybody could
    who has the model alone.

    Args:
        model: what was inverted. drawn: rounds of drawings of all ``classes`` in their order.
        classes: what was drawn. blur: see ``log_odds``.

    Returns:
        One drawing of each, in the order of ``classes``; the cost is that of all.

    Source: ours.

    Examples:
        >>> resnet = tk.zoo.load("resnet-scenes-a-natural")
        >>> drawn = tk.inversion.plug_in_inversion(resnet, [0, 3] * 2, size=16, steps=1, copies=2)  # two rounds
        >>> len(tk.inversion.surest(resnet, drawn, [0, 3]).images)
        2
    """
    n, rounds = len(classes), len(drawn.images) // max(1, len(classes))
    if n == 0 or rounds * n != len(drawn.images):
        raise ValueError(f"{len(drawn.images)} drawings are no whole number of rounds of {n} classes")
    odds = log_odds(model, drawn.images, [*classes] * rounds, blur=blur)
    return drawn[odds.view(rounds, n).argmax(dim=0) * n + torch.arange(n)]


def growing(
    size: int, steps: int, *, zoom: bool = True, center: bool = True, even: bool = False
) -> list[Stage]:  # fmt: skip
    """The seven stages of Plug-In Inversion: sizes 2/8 to 8/8, each step of growth split between zoom and border.

    Where 8 does not divide the size, the first is larger by what remains, so that every growth is the same.

    With one of the two alone all growth is of that kind. With neither, seven stages of full size that go on from one
    another, so that the number of steps is the same. ``even`` makes every growth an even number of pixels, so that the
    sides of an even size are even, as frequencies need it.

    Raises:
        ValueError: the size is below 16, so that an eighth is less than two pixels.

    Examples:
        >>> [stage.size for stage in tk.inversion.growing(64, steps=10)]
        [16, 24, 32, 40, 48, 56, 64]
    """
    check_count(size, what="size", least=LEAST)
    eighth = size // 16 * 2 if even else size // 8
    if not (zoom or center):
        return [Stage(size, steps) for _ in range(STAGES)]
    border = {(True, True): eighth // 2, (True, False): 0, (False, True): eighth}[zoom, center]
    sizes = [size - eighth * (STAGES - k) for k in range(1, STAGES + 1)]
    return [Stage(side, steps, 0 if k == 0 else border) for k, side in enumerate(sizes)]


def combinations() -> dict[str, dict[str, bool]]:
    """All eight ways to use ColorShift, zoom and centering, from none to all: a name, and which of them are in use.

    Names are "none", "color", "zoom", …, "zoom+center", and "pii" for all three, which is the method.

    Examples:
        >>> list(tk.inversion.combinations())
        ['none', 'center', 'zoom', 'color', 'zoom+center', 'color+center', 'color+zoom', 'pii']
    """
    every = [dict(zip(FACTORS, point, strict=True)) for point in product((False, True), repeat=len(FACTORS))]
    every.sort(key=lambda on: sum(on.values()))
    special = {"": "none", "+".join(FACTORS): "pii"}
    names = ("+".join(factor for factor in FACTORS if on[factor]) for on in every)
    return {special.get(name, name): on for name, on in zip(names, every, strict=True)}


def invert_with_penalties(
    model: Model,
    classes: Sequence[int],
    *,
    size: int,
    channels: int = 3,
    steps: int = 2000,
    tv: float = 0.0,
    norm: float = 0.0,
    batchnorm: float = 0.0,
    jitter: int | None = None,
    lr: float = 0.2,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    batch: int | None = None,
    precision: str = "float32",
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Synthesis:
    """Class inversion as it was before: cross-entropy and penalties, at full size, one copy an image.

    With every weight 0 it is cross-entropy alone. ``tv`` and ``norm`` make it the inversion of DeepDream's kind, and
    ``batchnorm`` one of DeepInversion's, with its jitter (30 at 224) and its Adam (0.2, betas (0.5, 0.9)). The released
    weights, 1e-4, 1e-5 and 0.05, belong to other units than ours (see below): choose weights by trial.

    Args:
        tv: weight of total variation. norm: weight of the images' ℓ₂ norm. batchnorm: weight of BatchNorm statistics,
            of a target's own image.
        jitter: largest roll in pixels; 30 at 224, in proportion, unless given.
        model, classes, size, channels, steps, lr, seed, ids, batch, precision, checkpoint, progress: as in
            ``plug_in_inversion``.

    Raises:
        ValueError: as ``plug_in_inversion``; BatchNorm statistics asked of a model without BatchNorm.

    Source: Yin et al., CVPR 2020, with differences. There, statistics are of a whole batch of images; here of each
        target's own, so that targets stay apart. There, images are optimized in normalized space from normal noise,
        flipped at random, with a warm-up of 100 steps, and total variation is the unscaled norm over the batch; here,
        pixels in [0, 1] from uniform noise, no flips, no warm-up, and total variation of ``synthesis.total_variation``.
        All steps are made at full size.

    Examples:
        >>> resnet = tk.zoo.load("resnet-scenes-a-natural")
        >>> made = tk.inversion.invert_with_penalties(resnet, [0, 3], size=16, steps=2, tv=0.1)
        >>> made.images.shape
        torch.Size([2, 3, 16, 16])
    """
    check_count(size, what="size")
    objective = _objective(model, classes, tv, norm, batchnorm)
    rolled = Jitter(round(30 * size / 224) if jitter is None else jitter)
    return synthesize(
        model, objective, stages=[Stage(size, steps)], channels=channels, augmentations=[rolled],
        optimizer=Adam(lr, betas=(0.5, 0.9)), seed=seed, ids=ids, batch=batch, precision=precision,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def _objective(model: Model, classes: Sequence[int], tv: float, norm: float, batchnorm: float) -> Objective:
    """The cross-entropy of classes, and penalties where their weights are not 0."""
    objective = cross_entropy(classes)
    penalties = {
        "total variation": (tv, total_variation),
        "the ℓ₂ norm": (norm, l2),
        "BatchNorm statistics": (batchnorm, lambda: batchnorm_statistics(model)),
    }
    for name, (weight, penalty) in penalties.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of {name} must be a finite number of at least 0, got {weight}")
        if weight:
            objective = objective + weight * penalty()
    return objective
