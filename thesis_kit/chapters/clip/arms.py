"""Chapter 6's arms: one for each question and teacher, every seed another pair of twins.

Arms, as question@teacher: ``probe`` (what can be read from features), ``units`` (what units answer to), ``order`` (does
a pair read the order of words), ``names`` (units named by text and by measurement), ``prompts`` (pictures of prompts,
read by another network), ``bias`` (the color of pictures of a prompt that names none), ``robust`` (attacks at a radius
where the label-trained twin keeps two fifths) and ``words`` (false words on pictures). ``@random`` learned nothing;
``@early-labels`` was taught by labels for half as long, to be less good at the class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thesis_kit import evaluation
from thesis_kit.chapters.clip import twin_measures
from thesis_kit.chapters.clip.readers import as_words
from thesis_kit.chapters.clip.settings import CLIP, TAUGHT, Language
from thesis_kit.chapters.clip.world import World, answers, naming_shapes
from thesis_kit.chapters.world import costs
from thesis_kit.data import Part
from thesis_kit.data.scenes import Scenes
from thesis_kit.data.scenes.captions import with_article
from thesis_kit.data.scenes.pairs import directed
from thesis_kit.data.scenes.teachers import HEADS
from thesis_kit.data.scenes.vocabulary import COLORS, RELATIONS, SHAPES
from thesis_kit.evaluation import reference_attack
from thesis_kit.language import (
    exchange_similarity,
    invert_prompts,
    reads_order,
    scene_classes,
    shortened,
    typographic,
)
from thesis_kit.ledger.arm import Arm, Experiment, pick
from thesis_kit.ledger.thumbnails import pack_picture
from thesis_kit.zookeeping.recipes import RECIPES

RANDOM, TWIN, EARLY, _READER = "random", "labels", "early-labels", "attributes"
_AIM = 0.4  # of clean-and-robust scenes that the label-trained twin is to keep where attacks are compared
_ALWAYS = ("data", "size", "images")
_TOLD = 6  # scenes with false words whose answers are kept to be shown


def recorded(world: World, how: Callable[[World], dict[str, Any]]) -> dict[str, Any]:
    """The record of a cell: which scenes the network names rightly, and what was measured."""
    scenes, found = world.scenes, how(world)
    right = evaluation.correct(world.classifier, (scenes.images, scenes.labels))
    outcomes = {"N": right.long().tolist(), **found.pop("outcomes", {})}
    return {"group": found.pop("group", world.group), "n": len(outcomes["N"]), "outcomes": outcomes, **found}


def probe(world: World) -> dict[str, Any]:
    """Probes of every attribute, and the mean over what a class does not say."""
    found = twin_measures.probes(world.tower, world.fitted, world.scenes, world.settings.penalty)
    mean = sum(found[name] for name in twin_measures.PROBED) / len(twin_measures.PROBED)
    return {"scalars": {"probe": mean} | {f"probe_{name.replace(' ', '_')}": value for name, value in found.items()}}


def units(world: World) -> dict[str, Any]:
    """What hidden units of the last third of blocks answer to, and how many of every block select a concept."""
    s, scenes = world.settings, world.scenes
    a = twin_measures.late_units(world.tower, scenes.images)
    by_block = twin_measures.selective_by_block(world.tower, scenes, s)
    return {
        "scalars": twin_measures.unit_shares(a, scenes, s),
        "curves": {"selective": [[block, share] for block, share in enumerate(by_block, start=1)]},
        "chosen": twin_measures.strongest_scenes(a, scenes) if world.seed == 0 else {},
    }


def order(world: World) -> dict[str, Any]:
    """The share of pairs whose true caption is nearer than the one with its objects exchanged, by relation too, and how
    alike both captions are to the text tower."""
    scenes = world.scenes
    right = reads_order(world.subject, scenes)
    inside = scenes.table.relation[directed(scenes.table)] == RELATIONS.index("inside")
    numbers = {"order": right, "order_inside": right[inside], "order_beside": right[~inside]}
    means = {name: rows.double().mean().item() for name, rows in numbers.items() if len(rows)}
    alike = exchange_similarity(world.subject, scenes).double().mean().item()
    return {"scalars": {**means, "wrong": 1 - means["order"], "captions_alike": alike}}


def names(world: World) -> dict[str, Any]:
    """Names by text against names by measurement."""
    a = twin_measures.late_units(world.tower, world.scenes.images)
    return {"scalars": twin_measures.names_agree(world.subject, a, world.scenes, world.settings)}


def prompts(world: World) -> dict[str, Any]:
    """Attributes of a prompt that a network taught them reads from its picture, against those of another prompt."""
    said, wanted = prompts_and_answers(world.settings)
    pictures = _drawn(world, said)
    read = _read(world, pictures)
    own = torch.stack([_share(read, want, i) for i, want in enumerate(wanted)])
    other = torch.stack([_share(read, wanted[(i + len(wanted) // 3) % len(wanted)], i) for i in range(len(wanted))])
    shown = {prompt: pack_picture(pictures[i]) for i, prompt in enumerate(said[: len(COLORS)])}
    numbers = {"own": own.mean().item(), "other": other.mean().item(), "prompts": float(len(said))}
    return {"scalars": numbers, "pictures": shown if world.seed == 0 else {}}


def prompts_and_answers(settings: object) -> tuple[list[str], list[dict[str, int]]]:
    """Prompts of two attributes, and which answer to which attribute each asks for."""
    said, wanted, s = [], [], settings
    for shape in range(s.shapes):
        for color in range(s.colors):
            said.append(with_article(f"{list(COLORS)[color]} {SHAPES[shape]}"))
            wanted.append({"shape": shape, "color": color})
        for texture in range(1, s.textures + 1):
            said.append(with_article(f"{list(twin_measures.TEXTURES.values())[texture - 1]} {SHAPES[shape]}"))
            wanted.append({"shape": shape, "texture": texture})
    return said, wanted


def _drawn(world: World, said: list[str]) -> Tensor:
    s = world.settings
    schedule = shortened("small", s.steps, copies=s.copies)
    made = invert_prompts(world.subject, said, size=s.size, schedule=schedule, seed=world.seed, progress=False)
    return made.images.to(world.device)


def _read(world: World, pictures: Tensor) -> dict[str, Tensor]:
    """What another seed's network, taught every attribute, reads: none of the blocks that drew is its own."""
    reader = World((world.seed + 1) % world.settings.readers, world.settings, device=world.device).twin(_READER)
    return answers(reader, pictures, HEADS)


def _share(read: dict[str, Tensor], wanted: dict[str, int], i: int) -> Tensor:
    return torch.tensor([float(read[name][i] == value) for name, value in wanted.items()]).mean()


def bias(world: World) -> dict[str, Any]:
    """The share of pictures of a class's name alone that have the color tied to the class in biased training."""
    s = world.settings
    said = [name for name in scene_classes()[: s.shapes] for _ in range(s.each)]
    pictures = _drawn(world, said)
    read = {name: found.cpu() for name, found in _read(world, pictures).items()}
    shapes = torch.arange(s.shapes).repeat_interleave(s.each)
    numbers = {
        "leaked": (read["color"] == shapes % len(COLORS)).double().mean().item(),
        "shape_read": (read["shape"] == shapes).double().mean().item(),
    }
    return {"scalars": numbers, **(_shown(pictures, read, said, s.each) if world.seed == 0 else {})}


def _shown(pictures: Tensor, read: dict[str, Tensor], said: list[str], each: int) -> dict[str, Any]:
    """The first picture of every prompt, and what is read in it."""
    first = list(range(0, len(said), each))
    seen = as_words(read["shape"][first], read["color"][first])
    return {
        "pictures": {said[i]: pack_picture(pictures[i]) for i in first},
        "chosen": {"read": dict(zip([said[i] for i in first], seen, strict=True))},
    }


def robust(world: World) -> dict[str, Any]:
    """Attacks at the radius where the label-trained twin of the seed keeps nearest to two fifths of other scenes."""
    s, twin = world.settings, naming_shapes(world.twin(TWIN))
    kept = {eps: _kept(world, twin, world.chosen, eps).worst.double().mean().item() for eps in s.radii}
    eps = min(s.radii, key=lambda radius: (abs(kept[radius] - _AIM), radius))
    test = world.scenes[slice(0, s.attacked)]
    found = _kept(world, world.classifier, test, eps)
    return {
        "group": f"{world.group}/{len(test)}",
        "outcomes": {"N": found.correct.long().tolist(), "R": found.worst.long().tolist()},
        "scalars": {"eps": eps},
        "curves": {"kept": [[radius, share] for radius, share in kept.items()]},
        "budget": costs(found),
    }


def _kept(world: World, model: torch.nn.Module, scenes: Scenes, eps: float) -> evaluation.RobustAccuracy:
    part = Part(scenes.images, scenes.labels, scenes.table.ids)
    return world.attacked(model, part, reference_attack(eps))


def words(world: World) -> dict[str, Any]:
    """The shares of scenes whose right answer a false word on the picture turns into its class, or any wrong one."""
    found = typographic(world.classifier, world.scenes.table, world.settings.size)
    right = (found.plain == found.label).double().mean().item()
    numbers = {"flips": found.flipped, "harmed": found.harmed}
    answers_of = ("label", "word", "plain", "written")
    told = {name: [SHAPES[i] for i in getattr(found, name)[:_TOLD].tolist()] for name in answers_of}
    return {
        "scalars": {"right": right, **{name: rows.double().mean().item() for name, rows in numbers.items()}},
        "chosen": {"first": told} if world.seed == 0 else {},
    }


def arms(s: Language) -> tuple[Arm, ...]:
    """All arms, the cheap ones first."""

    def arm(question: str, on: str, title: str, how: Callable, *more: str, seeds: tuple[int, ...] = ()) -> Arm:
        teacher = "captions" if on == RANDOM else on
        member, said = TAUGHT[teacher]
        beside = {prompts: _READER, bias: _READER, robust: TWIN}.get(how, teacher)  # whom it asks too
        networks = tuple(dict.fromkeys((member, TAUGHT[beside][0])))
        own = {"teacher": teacher, "untrained": on == RANDOM, "data": RECIPES[member].data}
        if how in (prompts, bias):
            own["readers"] = len(s.seeds["attributes"])
        if on == "biased":
            own["data"] = s.data
        settings = pick(s, *(name for name in (*_ALWAYS, *more) if name not in own), **own)
        called = "weights that learned nothing" if on == RANDOM else said
        return Arm(
            f"{question}@{on}", f"{title}, {called}", World, partial(recorded, how=how), settings,
            seeds or s.seeds[teacher], (own["data"],), networks, units=("network", "image"),
        )  # fmt: skip

    four = ("labels", "class-captions", "captions", "attributes")
    named = ("least", "least_theme", "bins", "shuffles")
    drawn = ("steps", "copies", "shapes")
    return (
        *(arm("order", on, "order of words", order) for on in ("captions", "exchanged")),
        *(arm("words", on, "false words", words) for on in ("named-captions", "named-labels")),
        *(arm("probe", on, "probes", probe, "fitted", "penalty") for on in (*four, EARLY, RANDOM)),
        *(arm("units", on, "units", units, *named) for on in (*four, EARLY, RANDOM)),
        arm("names", "captions", "names by text", names, "least", "strongest"),
        *(arm("robust", on, "attacks", robust, "radii", "attacked", "tried")
          for on in ("labels", "class-captions", "captions")),
        *(arm("bias", on, "neutral prompts", bias, *drawn, "each", seeds=s.seeds["biased"])
          for on in ("captions", "biased")),
        arm("prompts", "captions", "prompts", prompts, *drawn, "colors", "textures"),
    )  # fmt: skip


EXPERIMENTS = {"scenes": Experiment("clip", "scenes", arms(CLIP["record"]))}
