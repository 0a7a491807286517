"""How good a member of the zoo is, measured on its test part, and whether it still is.

Clean accuracy, and accuracy under the book's reference attack at the recipe's radii, each with Wilson's 95% interval.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from thesis_kit import data
from thesis_kit.checks import check_count, choose
from thesis_kit.data.parts import Part
from thesis_kit.evaluation import correct, reference_attack, robust_accuracy
from thesis_kit.models import Classifier, zoo
from thesis_kit.models.zoo import Score
from thesis_kit.reporting.statistics import wilson
from thesis_kit.reporting.zoo_page import radius_text

CLEAN = "clean"
_ATTACK_SEED = 7  # one for all members: each meets the same random starts


def measure(
    name: str,
    *,
    n: int | None = None,
    only: Iterable[str] | None = None,
    folder: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Score]:
    """Measure a member's scores again, from its stored weights.

    Args:
        name: the member. n: on the first n test images; on all unless given.
        only: names of scores, all of the entry's unless given; "clean" alone takes seconds.
        folder, device: as for ``zoo.load``.

    Returns:
        Score by name, in the order of the entry's.
    """
    about = zoo.entry(name, folder=folder)
    wanted = [choose(one, list(about.scores), f"score of {name}") for one in (about.scores if only is None else only)]
    if n is not None:
        check_count(n, what="n")
    model = zoo.load(name, device=device, folder=folder)
    test = data.load(about.recipe["data"], about.recipe["seed"], **about.recipe["data_options"]).test[:n]
    return measure_scores(model, test.to(next(model.parameters()).device), about.recipe, wanted)


_ROUNDING = 1e-9  # of an interval's own ends: of 100% it may come out a hair below 1


def agrees(recorded: Score, again: Score) -> bool:
    """Whether a score measured again is the recorded one, up to the choice of images and another machine's rounding.

    It must lie within the 95% interval that the recorded share has on as many images. On all of them that is the
    recorded interval, far wider than the few images that rounding turns.
    """
    low, high = wilson(round(recorded.value * again.n), again.n)
    return low - _ROUNDING <= again.value <= high + _ROUNDING


def measure_scores(
    model: Classifier, part: Part, settings: Mapping[str, Any], only: Iterable[str] | None = None
) -> dict[str, Score]:
    """Clean accuracy and robust accuracy at each radius of the settings, or those of these names."""
    norm = settings["norm"]
    radii = {f"robust@{radius_text(eps, norm)}": eps for eps in settings["eps"]}
    scores = {}
    for name in [CLEAN, *radii] if only is None else only:
        if name == CLEAN:
            scores[name] = _score(correct(model, part), "test images classified rightly")
        else:
            attacks = reference_attack(radii[name], norm=norm)
            worst = robust_accuracy(model, part, attacks, seed=_ATTACK_SEED).worst
            what = f"test images that stay right under {' and '.join(attacks)}, radius {radius_text(radii[name], norm)}"
            scores[name] = _score(worst, what)
    return scores


def _score(outcome: Tensor, what: str) -> Score:
    low, high = wilson(int(outcome.sum()), len(outcome))
    return Score(outcome.double().mean().item(), low, high, len(outcome), what)
