"""How good a member of the zoo is, measured on its test part, and whether it still is.

Of a classifier: clean accuracy, accuracy under the book's reference attack at the recipe's radii, and what is certified
by interval bounds or by noise, each with Wilson's 95% interval. ``MEASURES`` has what other kinds are measured by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thesis_kit.certification import certify, verified_error
from thesis_kit.checks import check_count, choose
from thesis_kit.data.parts import Part
from thesis_kit.data.scenes.teachers import HEADS
from thesis_kit.evaluation import correct, reference_attack, robust_accuracy
from thesis_kit.language import scene_classes, zero_shot
from thesis_kit.ledger.statistics import LEVEL, wilson
from thesis_kit.models import Classifier, Clip, zoo
from thesis_kit.models.zoo import Score
from thesis_kit.zookeeping.plans import SOURCES, splits_of
from thesis_kit.zookeeping.recognizers import errors
from thesis_kit.zookeeping.wording import radius_text

CLEAN = "clean"
_ATTACK_SEED = 7  # one for all members: each meets the same random starts
_CERTIFIED, _SAMPLES = 300, 1000  # images certified, and samples for each


def measure(
    name: str,
    *,
    seed: int | None = None,
    n: int | None = None,
    only: Iterable[str] | None = None,
    folder: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Score]:
    """Measure a member's scores again, from its stored weights.

    Args:
        name: the member. seed: as for ``zoo.load``. n: on the first n test images; on all unless given.
        only: names of scores, all of the entry's unless given; "clean" alone takes seconds.
        folder, device: as for ``zoo.load``.

    Returns:
        Score by name, in the order of the entry's.
    """
    about = zoo.entry(name, seed=seed, folder=folder)
    wanted = [choose(one, list(about.scores), f"score of {name}") for one in (about.scores if only is None else only)]
    if n is not None:
        check_count(n, what="n")
    model = zoo.load(name, seed=seed, device=device, folder=folder)
    options = {**about.recipe["data_options"], **SOURCES[about.recipe["data"]].to_judge}
    test = splits_of(about.recipe["data"], about.recipe["seed"], options).test[:n]
    return measure_scores(model, test.to(next(model.parameters()).device), about.recipe, wanted)


_ROUNDING = 1e-9  # of an interval's own ends: of 100% it may come out a hair below 1


def agrees(recorded: Score, again: Score) -> bool:
    """Whether a score measured again is the recorded one, up to the choice of images and another machine's rounding.

    It must lie within the interval that the recorded share has on as many images: on all of them the recorded 95% one,
    far wider than the few images that rounding turns; on fewer one of 99.9%, that an honest score hardly ever misses by
    the choice of them.
    """
    level = LEVEL if again.n == recorded.n else 0.999
    low, high = wilson(round(recorded.value * again.n), again.n, level=level)
    return low - _ROUNDING <= again.value <= high + _ROUNDING


def measure_scores(
    model: nn.Module, part: Part, settings: Mapping[str, Any], only: Iterable[str] | None = None
) -> dict[str, Score]:
    """All scores that a recipe's settings ask for, or those of these names."""
    known = MEASURES[settings.get("kind", "classifier")](model, part, settings)
    return {name: known[name]() for name in (known if only is None else only)}


def _of_classifier(model: Classifier, part: Part, settings: Mapping[str, Any]) -> dict[str, Callable[[], Score]]:
    norm, sigma = settings["norm"], settings.get("sigma")
    known = {CLEAN: partial(_clean, model, part)}
    known |= {f"robust@{radius_text(eps, norm)}": partial(_robust, model, part, eps, norm) for eps in settings["eps"]}
    radii = settings.get("verified") or ()
    known |= {f"verified@{radius_text(eps)}": partial(_verified, model, part, eps) for eps in radii}
    return known | ({f"certified@{sigma:g} l2": partial(_certified, model, part, sigma)} if sigma else {})


def _clean(model: Classifier, part: Part) -> Score:
    return _score(correct(model, part), "test images classified rightly")


def _robust(model: Classifier, part: Part, eps: float, norm: str) -> Score:
    attacks = reference_attack(eps, norm=norm)
    worst = robust_accuracy(model, part, attacks, seed=_ATTACK_SEED).worst
    return _score(worst, f"test images that stay right under {' and '.join(attacks)}, radius {radius_text(eps, norm)}")


def _verified(model: Classifier, part: Part, eps: float) -> Score:
    verified = verified_error(model, part.x, part.y, eps, bound="ibp").verified
    return _score(verified, f"test images verified by interval bounds at ε = {radius_text(eps)}")


def _certified(model: Classifier, part: Part, sigma: float) -> Score:
    part = part[:_CERTIFIED]
    found = certify(model, part.x, sigma=sigma, n=_SAMPLES, ids=part.ids)
    right = (found.labels == part.y.cpu()) & (found.radii >= sigma)
    return _score(right, f"test images with a right certificate of ℓ₂ radius {sigma:g} or more ({found.budget})")


def _score(outcome: Tensor, what: str) -> Score:
    low, high = wilson(int(outcome.sum()), len(outcome))
    return Score(outcome.double().mean().item(), low, high, len(outcome), what)


_BATCH = 250  # images or texts that are asked about together


def _of_pair(model: Clip, part: Part, settings: Mapping[str, Any]) -> dict[str, Callable[[], Score]]:
    return {
        "captions": lambda: _score(matched(model, part)[0], "test images whose nearest caption says what theirs does"),
        "images": lambda: _score(matched(model, part)[1], "captions whose nearest image shows what they say"),
        CLEAN: lambda: _score(_named(model, part, settings), "test images classified rightly by the names of classes"),
    }


@torch.no_grad()
def matched(clip: Clip, part: Part) -> tuple[Tensor, Tensor]:
    """Which images have a caption that says the same as theirs nearest, and which captions such an image, (n,) bool."""
    seen = torch.cat([clip.encode_image(x) for x in part.x.split(_BATCH)])
    said = torch.cat([clip.encode_tokens(tokens) for tokens in part.y.tokens.split(_BATCH)])
    near, meaning = seen @ said.T, part.y.meaning
    return meaning[near.argmax(dim=1)] == meaning, meaning[near.argmax(dim=0)] == meaning


def _named(clip: Clip, part: Part, settings: Mapping[str, Any]) -> Tensor:
    """Zero-shot classification of the same scenes by their main object's shape."""
    options = {**settings["data_options"], "teacher": "classes", "n_test": len(part)}
    labels = splits_of(settings["data"], settings["seed"], options).test.y.to(part.x.device)
    return correct(zero_shot(clip, scene_classes()), (part.x, labels))


def _of_attributes(model: Classifier, part: Part, settings: Mapping[str, Any]) -> dict[str, Callable[[], Score]]:
    return {
        CLEAN: lambda: _score(_answered(model, part)[:, 0] > 0, "test images whose shape is read rightly"),
        "attributes": lambda: _score(_known(_answered(model, part)), "attributes of test images read rightly"),
    }


@torch.no_grad()
def _answered(model: Classifier, part: Part) -> Tensor:
    """Which attributes are read rightly, (n, 10): 1, 0, and −1 where a scene does not have one."""
    logits = torch.cat([model(x) for x in part.x.split(_BATCH)])
    read = torch.stack([one.argmax(dim=1) for one in logits.split(list(HEADS.values()), dim=1)], dim=1)
    return torch.where(part.y >= 0, (read == part.y).long(), -1)


def _known(answered: Tensor) -> Tensor:
    return answered[answered >= 0] > 0


def _of_recognizer(model: nn.Module, part: Part, settings: Mapping[str, Any]) -> dict[str, Callable[[], Score]]:
    return {"words": partial(_words, model, part)}


def _words(model: nn.Module, part: Part) -> Score:
    """Words said, less those put in, left out or taken for others."""
    found = errors(model, part)
    right = torch.arange(found.words) < found.words - found.errors
    return _score(right, "words of test clips heard rightly")


# Kind of member → what measures a network of that kind on its test part by a recipe's settings, name by name.
MEASURES: dict[str, Callable[[nn.Module, Part, Mapping[str, Any]], dict[str, Callable[[], Score]]]] = {
    "classifier": _of_classifier,
    "attribute reader": _of_attributes,
    "image-text pair": _of_pair,
    "speech recognizer": _of_recognizer,
}
