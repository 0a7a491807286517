"""What chapter 6 measures of one twin: what can be read from its features, what its units answer to, what they say."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from thesis_kit import evaluation, recording, training
from thesis_kit.data import Part
from thesis_kit.data.scenes import Scenes
from thesis_kit.data.scenes.captions import with_article
from thesis_kit.data.scenes.teachers import HEADS, attributes
from thesis_kit.data.scenes.vocabulary import COLORS, RELATIONS, SHAPES, THEME_OF, THEMES
from thesis_kit.features.scores import best_concept, dead
from thesis_kit.language.naming import agreement, count_auroc, name_by_text, selective, strata_of, theme_auroc
from thesis_kit.language.zero_shot import scene_classes
from thesis_kit.models import Clip

PROBED = ("count", "color", "background", "other shape", "theme")  # besides the class, which says the theme
TEXTURES = {"stripes": "striped", "dots": "dotted", "checker": "checkered"}
PLACES = ("a plain background", "a sky with clouds", "waves", "bricks", "rings", "diagonals", "tiles", "hills")
_AREA_BINS = 8  # of counting: finer than of concepts, for number and area go together


def probes(tower: nn.Module, fitted: Scenes, judged: Scenes, penalty: float) -> dict[str, float]:
    """Chance-corrected accuracy of linear probes of the features that the head is given, one an attribute; of class
    too, on which twins are matched."""
    found = {}
    for name in (*PROBED, "shape"):
        place, width = list(HEADS).index(name), HEADS[name]
        parts = [_part(scenes, place) for scenes in (fitted, judged)]
        probe = training.linear_head(tower, parts[0], n_classes=width, penalty=penalty)
        found[name] = corrected(evaluation.correct(probe, parts[1]).double().mean().item(), width)
    return found


def _part(scenes: Scenes, place: int) -> Part:
    """Images that have an attribute, with its answers."""
    y = attributes(scenes.table)[:, place]
    rows = y >= 0
    return Part(scenes.images[rows], y[rows], scenes.table.ids[rows])


def corrected(accuracy: float, classes: int) -> float:
    """Accuracy without what guessing gives: (a − 1/K) / (1 − 1/K)."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)


def late_units(tower: nn.Module, x: Tensor) -> Tensor:
    """Mean activations over patches of all hidden units in the last third of blocks, (n, u)."""
    sites = _hidden(tower)
    return torch.cat(_activations(tower, x, sites[-math.ceil(len(sites) / 3) :]), dim=1)


def _hidden(tower: nn.Module) -> list[str]:
    return [site.name for site in recording.sites(tower).of_kind("hidden")]


def _activations(tower: nn.Module, x: Tensor, sites: list[str]) -> list[Tensor]:
    found = recording.stream(tower, x, sites, reduce="rows")
    return [found[name] for name in sites]


def concepts(scenes: Scenes) -> tuple[list[str], Tensor]:
    """What a scene may have beside its class: names, and (n, k) bool."""
    table, named = scenes.table, {}
    for place, color in enumerate(COLORS):
        named[color] = table.color[:, 0] == place
    for place, relation in enumerate(RELATIONS[1:6], start=1):
        named[relation] = table.relation == place
    named["many"] = table.present.sum(dim=1) > 1
    for place in table.background.unique().tolist():
        named[f"background {place}"] = table.background == place
    return list(named), torch.stack(list(named.values()), dim=1)


def area(scenes: Scenes) -> Tensor:
    """The share of each image that objects cover, (n,)."""
    return scenes.masks.sum(dim=1).clamp(0, 1).mean(dim=(1, 2))


def selective_by_block(tower: nn.Module, scenes: Scenes, settings: object) -> list[float]:
    """The share of hidden units of every block, in their order, that select a concept beside the class."""
    blocks = _activations(tower, scenes.images, _hidden(tower))
    strata = strata_of(scenes.table.shape[:, 0], area(scenes), settings.bins)
    _, has = concepts(scenes)
    found = selective(torch.cat(blocks, dim=1), has, strata, least=settings.least, shuffles=settings.shuffles)
    return [one.double().mean().item() for one in found.any(dim=1).split([a.shape[1] for a in blocks])]


def unit_shares(a: Tensor, scenes: Scenes, settings: object) -> dict[str, float]:
    """Shares of units: that select a concept beside the class, and that stand for a theme; and how units count."""
    shape = scenes.table.shape[:, 0]
    strata = strata_of(shape, area(scenes), settings.bins)
    _, has = concepts(scenes)
    found = selective(a, has, strata, least=settings.least, shuffles=settings.shuffles)
    themes = torch.tensor([list(THEMES).index(THEME_OF[one]) for one in SHAPES])
    by_theme = theme_auroc(a, shape.cpu(), themes)
    many = scenes.table.present.sum(dim=1) > 1
    counts = count_auroc(a, many, strata_of(shape, area(scenes), _AREA_BINS))
    return {
        "selective": found.any(dim=1).double().mean().item(),
        "themes": (by_theme >= settings.least_theme).any(dim=1).double().mean().item(),
        "count": torch.quantile(counts[~counts.isnan()], 0.95).item(),
        "dead": dead(a).double().mean().item(),
    }


def spoken(scenes: Scenes) -> tuple[list[str], Tensor]:
    """Words for concepts that a caption can name, and which scene has which, (n, k) bool."""
    table = scenes.table
    has = {with_article(f"{color} shape"): table.color[:, 0] == place for place, color in enumerate(COLORS)}
    has |= {name: table.shape[:, 0] == place for place, name in enumerate(scene_classes())}
    has |= {f"a {word} shape": table.texture[:, 0] == place for place, word in enumerate(TEXTURES.values(), start=1)}
    has |= {word: table.background == place for place, word in enumerate(PLACES)}
    has |= {f"{word} shapes": table.present.sum(dim=1) == count for count, word in ((2, "two"), (3, "three"))}
    return list(has), torch.stack(list(has.values()), dim=1)


def strongest_scenes(a: Tensor, scenes: Scenes, *, units: int = 24, strongest: int = 4) -> dict[str, list]:
    """Evenly spaced units, none picked: their strongest scenes, and the words that measurement finds for them with the
    AUROC of scenes that did not choose them."""
    shown = torch.linspace(0, a.shape[1] - 1, units).round().long().unique().to(a.device)
    words, has = spoken(scenes)
    concept, judged = best_concept(a[:, shown], has)
    best = a[:, shown].sort(dim=0, descending=True, stable=True).indices[:strongest]
    return {
        "units": shown.tolist(),
        "strongest": best.T.tolist(),
        "measured": [words[place] for place in concept.tolist()],
        "auroc": [None if math.isnan(value) else round(value, 3) for value in judged.tolist()],
    }


def names_agree(clip: Clip, a: Tensor, scenes: Scenes, settings: object) -> dict[str, float]:
    """How often a unit's name by text is its name by measurement, of units with an AUROC high enough; and the same with
    activations exchanged among images, as chance has it."""
    words, has = spoken(scenes)
    concept, judged = best_concept(a, has)
    chosen = judged >= settings.least
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0)).to(a.device)
    numbers = {"named": chosen.double().mean().item()}
    for what, rows in (("agree", a), ("agree_shuffled", a[order])):
        named, _ = name_by_text(clip, rows, scenes.images, words, k=settings.strongest)
        numbers[what] = agreement(named[chosen.to(named.device)], concept[chosen]) if chosen.any() else 0.0
    return numbers | {"differ_shuffled": 1 - numbers.pop("agree_shuffled")}
