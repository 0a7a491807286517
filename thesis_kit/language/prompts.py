"""Pictures of a prompt: what an image–text pair thinks of when it is told a sentence.

After Kazemi, Chegini, Geiping, Feizi and Goldstein 2024 (*What do we learn from inverting CLIP models?*): an image is
optimized until its features point where the prompt's do, under random affine changes and total variation, while it
grows. Similarity is taken without the pair's scale, which at 100 leaves a softmax without gradients. Pictures are
given as they are; the published ones are stretched to the whole range of pixels, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.asking import evaluating, plain
from thesis_kit.checks import check_count, choose
from thesis_kit.models.clip import Pair, as_pair
from thesis_kit.synthesis import (
    LOGITS,
    Adam,
    Ensemble,
    Objective,
    Stage,
    Synthesis,
    synthesize,
    total_variation,
)
from thesis_kit.synthesis.moving import RandomAffine

FORMS = ("distance", "cosine")


@dataclass(frozen=True)
class Schedule:
    """The constants of a prompt's inversion.

    Args:
        stages: pairs of a side's share of full size and steps. copies: of every image in a pass.
        lr: of Adam, constant. tv: weight of total variation, of the released code's form.
        form: "distance", ‖v − t‖₂ of features of length 1, or "cosine", 1 − ⟨v, t⟩. moving: what copies undergo.
    """

    stages: tuple[tuple[float, int], ...]
    copies: int
    lr: float
    tv: float
    form: str = "distance"
    moving: RandomAffine = field(default_factory=RandomAffine)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tv) and self.tv >= 0):
            raise ValueError(f"tv is the weight of a penalty, 0 or more, got {self.tv}")

    def sized(self, size: int) -> list[Stage]:
        """The stages of an image that ends with sides of ``size`` pixels; each only enlarges the one before."""
        return [Stage(max(1, round(share * size)), steps) for share, steps in self.stages]


SCHEDULES = {
    "2024": Schedule(((64 / 224, 900), (128 / 224, 900), (1.0, 1600)), copies=13, lr=0.1, tv=0.005),
    "small": Schedule(((0.25, 40), (0.5, 40), (1.0, 70)), copies=4, lr=0.1, tv=0.005),  # ours, for two cores
}


def invert_prompts(
    clip: Pair,
    prompts: Sequence[str],
    *,
    size: int,
    schedule: str | Schedule = "small",
    seed: int = 0,
    ids: Sequence[int] | None = None,
    batch: int | None = None,
    precision: str = "float32",
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Synthesis:
    """One picture a prompt, whose features point where the prompt's do.

    Args:
        clip: an image–text pair whose image tower takes images of any size (``Classifier`` resizes).
        prompts: sentences; one may come several times and gives another picture each time.
        size: side of the pictures, which the image tower was trained on.
        schedule: "2024" as published, 44,200 passes a picture, which wants a GPU; "small", ours; or a ``Schedule``.
        seed, ids, batch, precision, checkpoint, progress: as in ``synthesis.synthesize``.

    Returns:
        A ``Synthesis``, its images as they are; ``losses`` hold total variation too.

    Raises:
        ValueError: an empty prompt, one longer than the context, no prompt. UnknownName: a word or schedule unknown.

    Source: Kazemi et al. 2024, section 3, and the released code: 13 copies, random affine changes, TV with 0.005, Adam
        with 0.1, 64 → 128 → 224 pixels after 900 and 1,800 of 3,400 steps, fresh moments at each size. Unlike there, TV
        is taken of what the network sees, and gradients are not clipped to length 1.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> quick = tk.language.shortened("small", [1, 1, 1], copies=1)
        >>> tk.language.invert_prompts(clip, ["a star", "a heart"], size=64, schedule=quick).images.shape
        torch.Size([2, 3, 64, 64])
    """
    chosen = schedule if isinstance(schedule, Schedule) else choose(schedule, SCHEDULES, "schedule of inversion")
    check_count(size, what="size")
    clip = as_pair(clip)
    with torch.no_grad(), evaluating(clip.text):
        wanted = clip.encode_text(prompts)
    objective = toward(wanted, form=chosen.form)
    objective = objective + chosen.tv * total_variation() if chosen.tv else objective
    return synthesize(
        clip.image, objective, stages=chosen.sized(size), augmentations=[Ensemble(chosen.copies), chosen.moving],
        optimizer=Adam(chosen.lr, (0.9, 0.999), "constant"), seed=seed, ids=ids, batch=batch, precision=precision,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def shortened(schedule: str | Schedule, steps: Sequence[int], copies: int | None = None) -> Schedule:
    """The schedule with other numbers of steps in its stages, and perhaps of copies.

    Raises:
        ValueError: not one number a stage.

    Examples:
        >>> quick = tk.language.shortened("small", [10, 10, 10], copies=2)
        >>> type(quick).__name__
        'Schedule'
    """
    whole = schedule if isinstance(schedule, Schedule) else choose(schedule, SCHEDULES, "schedule of inversion")
    if len(steps) != len(whole.stages):
        raise ValueError(f"steps must be one number for each of {len(whole.stages)} stages, got {list(steps)}")
    stages = tuple((share, count) for (share, _), count in zip(whole.stages, steps, strict=True))
    return replace(whole, stages=stages, copies=whole.copies if copies is None else copies)


def toward(features: Float[Tensor, "n d"], *, form: str = "distance") -> Objective:
    """How far a model's output points from each target's features, mean over copies.

    Args:
        features: (targets, d), finite and not zero; their length does not matter.
        form: "distance" in [0, 2], or "cosine", 1 − cosine, also in [0, 2].

    Examples:
        >>> objective = tk.language.toward(torch.ones(2, 10), form="cosine")
        >>> made = tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2))
        >>> made.images.shape
        torch.Size([2, 1, 8, 8])
    """
    choose(form, FORMS, "form of similarity")
    wanted = plain(features)
    if wanted.ndim != 2:
        raise ValueError(f"features to point toward must be rows (targets, d), got shape {tuple(wanted.shape)}")
    lengths = wanted.norm(dim=1, keepdim=True)
    if not ((lengths > 0) & torch.isfinite(lengths)).all():
        raise ValueError("features to point toward must be finite and not zero")
    wanted = wanted / lengths

    def read(seen: dict[str, Tensor], index: Tensor) -> Tensor:
        given = F.normalize(seen[LOGITS].float(), dim=2)  # (n, e, d)
        own = wanted.to(given)[index][:, None]
        if own.shape[2] != given.shape[2]:
            raise ValueError(f"the model gives {given.shape[2]} numbers an image, the features have {own.shape[2]}")
        far = (given - own).norm(dim=2) if form == "distance" else 1 - (given * own).sum(dim=2)
        return far.mean(dim=1)

    return Objective(
        [LOGITS], read, f"{form} to features", targets=len(wanted), settings=f"{form} to {wanted.tolist()}"
    )
