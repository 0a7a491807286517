"""Whether the zoo's members are still what their recipes make, and still score what their entries say."""

from __future__ import annotations

import os
from collections.abc import Callable

from thesis_kit.files import DamagedFile
from thesis_kit.models import zoo
from thesis_kit.models.entries import command
from thesis_kit.models.zoo import Entry, MissingWeights, UnfitWeights
from thesis_kit.zookeeping.member_scores import agrees, measure
from thesis_kit.zookeeping.plans import data_hashes_of, file_of, home_of
from thesis_kit.zookeeping.recipe import Recipe
from thesis_kit.zookeeping.recipes import RECIPES
from thesis_kit.zookeeping.wording import score_text


def problems(name: str, *, folder: str | os.PathLike | None = None) -> list[str]:
    """What keeps a member from being what its recipe makes, a sentence each; no sentence if nothing does.

    Absent weights of a member that is not shipped are no problem; what their entry says may be one.
    """
    try:
        about = zoo.entry(name, folder=folder)
        _load_what_is_here(about, folder)
    except (DamagedFile, MissingWeights, UnfitWeights) as error:
        return [str(error)]
    if about.package is not None:
        return []
    if name not in RECIPES:
        return [f"{name} has no recipe any more: give it one, or remove weights and entry"]
    again = f"train it again with {command(name)}"
    return [f"{name} {what}: {again}" for what in _outdated(about, RECIPES[name], folder)]


def _load_what_is_here(about: Entry, folder: str | os.PathLike | None) -> None:
    """Load a member and those of its siblings whose weights are there."""
    for one in [about, *(zoo.entry(about.name, seed=int(seed), folder=folder) for seed in about.siblings)]:
        if one.shipped or zoo.is_here(one, folder=folder):
            zoo.load(about.name, seed=one.recipe.get("seed"), folder=folder)


def is_current(name: str, recipe: Recipe, folder: str | os.PathLike) -> bool:
    """Whether a network, of a cohort that of the recipe's seed, is there and is what the recipe makes."""
    if name not in zoo.names(folder=folder):
        return False
    try:
        about = zoo.entry(name, seed=recipe.seed, folder=folder)
        zoo.load(name, seed=recipe.seed, folder=folder)
    except (DamagedFile, MissingWeights, UnfitWeights):
        return False
    return not _outdated(about, recipe, folder)


def audit(
    name: str,
    *,
    n: int | None = None,
    folder: str | os.PathLike | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[str]:
    """The member's ``problems``, and if there are none, its scores that no longer hold when measured on n test images.

    ``progress`` is called with a sentence for every score; None is silent.
    """
    say = progress or (lambda sentence: None)
    if faults := problems(name, folder=folder):
        return faults
    about = zoo.entry(name, folder=folder)
    if not zoo.is_here(about, folder=folder):
        say(f"{name}: {'its package is not installed' if about.package else 'not shipped, and not made here'}")
        return []
    if about.package is not None:
        say(f"{name}: its package's file is the one that was entered, and it answers as it did")
        return []
    for seed in [about.recipe["seed"], *map(int, about.siblings)]:
        one = zoo.entry(name, seed=seed, folder=folder)
        if zoo.is_here(one, folder=folder):
            faults += _drifted(one, n, folder, say)
    return faults


def _drifted(about: Entry, n: int | None, folder: str | os.PathLike | None, say: Callable[[str], None]) -> list[str]:
    """Scores of one network that no longer hold."""
    faults, seed = [], about.recipe["seed"]
    name = about.name if ".seed" not in about.file else f"{about.name}, seed {seed}"
    for score, again in measure(about.name, seed=seed, n=n, folder=folder).items():
        said = f"{name}: {score} {score_text(again)}; recorded {score_text(about.scores[score])}"
        say(said)
        faults += [] if agrees(about.scores[score], again) else [said]
    return faults


def _outdated(about: Entry, recipe: Recipe, folder: str | os.PathLike | None) -> list[str]:
    settings = recipe.settings()
    changed = [key for key in {**settings, **about.recipe} if settings.get(key) != about.recipe.get(key)]
    found = {
        f"was trained by another recipe ({', '.join(changed)} changed)": bool(changed),
        "was trained on other data": not changed and data_hashes_of(recipe) != about.data_hashes,
        "has its weights in the wrong place": about.file != file_of(about.name, recipe),
    }
    for role, name in recipe.rests_on.items():
        place = home_of(name, folder)
        same = name in zoo.names(folder=place) and zoo.entry(name, folder=place).sha256 == about.training.get(role)
        found[f"was trained with other weights of its {role} {name}"] = not changed and not same
    return [what for what, is_so in found.items() if is_so]
