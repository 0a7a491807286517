"""Chapter 5's arms: one for each question and kind of network, every seed another network of the cohort.

Arms, as question@network: ``units`` (scores of all units by site), ``tokens`` (what class tokens and patches do),
``variance`` (how much patches differ within images),
``optima`` (whether optima look like what excites their units), ``leak`` and ``masks`` (pictures with a hole, without
their object, before another background) and ``frequency`` (low-passed pictures). ``units@random`` is the ViT's
architecture with weights that learned nothing. On photographs of clothes, of which only the class is known, the arms
have the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from thesis_kit import evaluation, features, recording
from thesis_kit.chapters.features import measures
from thesis_kit.chapters.features.settings import CLOTHES, FEATURES, Features
from thesis_kit.chapters.features.world import Photographs, World, plainly
from thesis_kit.features import scores
from thesis_kit.features import tokens as tokens_by_depth
from thesis_kit.ledger.arm import Arm, Experiment, pick

RANDOM = "random"
NAMES = {
    "vit": "ViT",
    "vit-plain": "ViT trained without augmentation",
    "resnet-plain": "ResNet trained without augmentation",
    "convnext-plain": "ConvNeXt trained without augmentation",
    "mixer-plain": "MLP-Mixer trained without augmentation",
    "vit-correlated": "ViT trained on backgrounds that tell of the class",
    "resnet-correlated": "ResNet trained on backgrounds that tell of the class",
}
PLAIN = ("vit-plain", "resnet-plain", "convnext-plain", "mixer-plain")
_ALWAYS = ("task", "images")


def recorded(world: World, how: Callable[[World], dict[str, Any]]) -> dict[str, Any]:
    """The record of a cell: which pictures the network names rightly, and what was measured."""
    pictures = world.pictures
    right = evaluation.correct(world.subject, (pictures.images, pictures.labels))
    found = how(world)
    return {
        "group": world.group, "n": len(pictures), "outcomes": {"N": right.long().tolist()},
        "scalars": plainly(found.pop("scalars")), **found,
    }  # fmt: skip


def units(world: World) -> dict[str, Any]:
    """Scores of all units: thirds of depth by kind of site, and blocks as curves."""
    s, pictures = world.settings, world.pictures
    by_block = measures.scores_by_block(
        world.subject, pictures, world.embedded(pictures.images), strongest=s.strongest, seed=world.seed
    )
    numbers: dict[str, float] = {}
    for kind, blocks in by_block.items():
        for what in ("monosemanticity", "purity", "log_kurtosis", "best_auroc", "dead"):
            line = [block[what] for block in blocks]
            called = f"{what}_{kind}".replace(" ", "_")
            numbers |= {f"{called}_{way}": measures.third(line, way) for way in ("first", "last")}
    lines = {kind: [block["monosemanticity"] for block in blocks] for kind, blocks in by_block.items()}
    return {"scalars": numbers, "curves": {name: _points(line) for name, line in lines.items()}}


def units_and_maps(world: World) -> dict[str, Any]:
    """Scores of all units, how far their maps follow the object, and which frequencies they prefer."""
    found = units(world)
    agrees = measures.mask_by_block(world.subject, world.scenes)
    prefers = measures.preferred_by_block(world.subject, world.settings.task.data_options["size"])
    found["scalars"] |= {
        **measures.mask_numbers(agrees),
        "octave_first": measures.third(prefers, "first"), "octave_last": measures.third(prefers, "last"),
    }  # fmt: skip
    found["curves"] |= {"follows the object": _points(agrees), "octave": _points(prefers)}
    return found


def tokens(world: World) -> dict[str, Any]:
    """What class tokens and patches do, by depth."""
    curves = measures.token_curves(world.subject, world.pictures.images, world.pictures.labels)
    lines = {name: _points(line, first=0) for name, line in curves.items()}
    return {"scalars": measures.token_numbers(curves), "curves": lines}


def variance(world: World) -> dict[str, Any]:
    """How much of the variance of patches lies within images, by depth."""
    within = tokens_by_depth.within_share(world.subject, world.pictures.images).tolist()
    return {"scalars": measures.within_numbers(within), "curves": {"within": _points(within, first=0)}}


def _points(line: list[float], first: int = 1) -> list[list[float]]:
    return [[float(place), round(value, 6)] for place, value in enumerate(line, start=first)]


def optima(world: World) -> dict[str, Any]:
    """How often an optimum is more like its unit's strongest images than like its weakest, in the last third."""
    s, model, scenes = world.settings, world.subject, world.scenes
    embedded, numbers = world.embedded(scenes.images), {}
    for kind in measures.KINDS:
        names = measures.blocks_of(model, kind)
        found = [_choice(world, name, embedded) for name in names[-(-(2 * len(names)) // 3) :]]
        numbers[f"choice_{kind}"] = sum(found) / len(found)
        numbers[f"units_{kind}"] = float(s.units_each)
    return {"scalars": numbers}


def _choice(world: World, name: str, embedded: torch.Tensor) -> float:
    """The share of right choices at one site, of units that are spread evenly over it."""
    s, model = world.settings, world.subject
    a = recording.stream(model, world.scenes.images, name, reduce="rows")[name]
    chosen = torch.linspace(0, a.shape[1] - 1, min(s.units_each, a.shape[1])).round().long()
    made = features.visualize(
        model, name, chosen, method=s.method, steps=s.steps, copies=s.copies, seed=world.seed, progress=False
    )
    order = a[:, chosen].sort(dim=0, descending=True, stable=True).indices.T  # (u, n)
    strong, weak = embedded[order[:, : s.opponents]], embedded[order[:, -s.opponents :]]
    centered = embedded.mean(dim=0)
    seen = world.embedded(made.images.to(world.device))
    return scores.two_alternative(seen - centered, strong - centered, weak - centered).mean().item()


def leak(world: World) -> dict[str, Any]:
    """Accuracies on pictures with a hole, without their object, and on the object alone."""
    return {"scalars": measures.masked_accuracies(world.subject, world.scenes)}


def background(world: World) -> dict[str, Any]:
    """The same for a network whose training tied backgrounds to classes, chance-corrected, on scenes so tied."""
    scenes = world.drawn(world.settings.correlated.data)
    found = measures.masked_accuracies(world.subject, scenes)
    return {"scalars": {k: measures.corrected(v, len(scenes.distribution.classes)) for k, v in found.items()}}


def detail(world: World) -> dict[str, Any]:
    """Accuracy by low-pass, and the area under it."""
    s, pictures = world.settings, world.pictures
    curve = measures.low_pass_curve(world.subject, pictures.images, pictures.labels, s.cutoffs, s.task.n_classes)
    line = [[float(cutoff), round(value, 6)] for cutoff, value in curve.items()]
    return {"scalars": {"area": measures.area(curve)}, "curves": {"relative": line}}


def _arm(s: Features, world: type[World], question: str, on: str, title: str, how: Callable, *names: str) -> Arm:
    """An arm that asks a question of one kind of network; ``names`` are the settings that decide the answer."""
    kind = "vit" if on == RANDOM else on
    settings = pick(s, *_ALWAYS, *names, member=s.members[kind], untrained=on == RANDOM)
    networks = (s.encoder,) if "encoder" in names else ()
    cohorts = () if on == RANDOM else (s.members[kind],)
    called = "the ViT's architecture with random weights" if on == RANDOM else NAMES[on]
    return Arm(
        f"{question}@{on}", f"{title}, {called}", world, partial(recorded, how=how), settings,
        s.seeds[kind], (s.task.data,), networks, cohorts, units=("network", "image"),
    )  # fmt: skip


_JUDGED = ("encoder", "strongest")
_MADE = ("encoder", "units_each", "method", "steps", "copies", "opponents")


def arms(s: Features) -> tuple[Arm, ...]:
    """All arms on scenes, the cheap ones first."""
    arm = partial(_arm, s, World)
    return (
        *(arm("frequency", on, "low-passed pictures", detail, "cutoffs") for on in PLAIN),
        *(arm("leak", on, "pictures with a hole", leak) for on in PLAIN),
        *(arm("masks", on, "backgrounds", background, "correlated") for on in ("vit-correlated", "resnet-correlated")),
        arm("tokens", "vit", "tokens", tokens),
        arm("variance", RANDOM, "variance within images", variance),
        *(arm("units", on, "units", units_and_maps, *_JUDGED) for on in ("vit", RANDOM)),
        arm("optima", "vit", "optima", optima, *_MADE),
    )


def arms_on_clothes(s: Features) -> tuple[Arm, ...]:
    """All arms on photographs of clothes, the cheap ones first."""
    arm = partial(_arm, s, Photographs)
    return (
        *(arm("frequency", on, "low-passed pictures", detail, "cutoffs") for on in ("vit-plain", "resnet-plain")),
        arm("tokens", "vit", "tokens", tokens),
        *(arm("units", on, "units", units, *_JUDGED) for on in ("vit", RANDOM)),
    )


EXPERIMENTS = {
    "scenes": Experiment("features", "scenes", arms(FEATURES["record"])),
    "real": Experiment("features", "real", arms_on_clothes(CLOTHES["record"])),
}
