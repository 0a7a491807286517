"""Chapter 4's arms on real networks: what EfficientNet-Lite0 draws by each method, and who else reads it.

Arms are named method@network. ``pii`` is Plug-In Inversion with 40 steps a stage, ``pii=100`` and ``published`` (400)
with more; ``ce`` and ``ce+jitter`` make as many steps, ``ce+jitter=passes`` shows the network as many images; ``none``
… ``zoom+center`` take its parts away, jitter staying; ``copies=…`` change the ensemble, ``copies=1,passes`` at equal
passes; ``fourier-growing`` and ``fourier`` put its augmentations on a canvas of frequencies, in its stages and at full
size. ``tv+l2`` and ``deep`` are tuned on Lite0 and carried to Lite1. ``shown`` … are classes that everyone knows by
sight, for pictures: the surest of several drawings of each, but for ``shown-ce``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from thesis_kit.chapters.inversion.real_world import RealWorld, steps_in_all
from thesis_kit.chapters.inversion.settings import REAL, Real
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.evaluation.synthesized import class_regions, high_frequency_share
from thesis_kit.inversion import combinations, surest
from thesis_kit.ledger.arm import Arm, pick
from thesis_kit.ledger.thumbnails import pack_picture
from thesis_kit.synthesis import Synthesis

_JUDGED = ("size", "blur", "mean", "deviation", "batch")
NAMES = {"lite0": "EfficientNet-Lite0", "lite1": "EfficientNet-Lite1", "lite2": "EfficientNet-Lite2"}
STUDIED, OTHER, RANDOM = "lite0", "lite1", "untrained"


def make_and_judge(world: RealWorld, how: Callable[[RealWorld], tuple[Synthesis, dict]]) -> dict[str, Any]:
    """Make an arm's drawings and judge them; returns the record of the cell."""
    made, record = how(world)
    x, s = made.images, world.settings
    ranks, soft = world.ranks(x, s.classes), world.ranks(world.softened(x), s.classes)
    first = next(iter(world.verifiers.values()))
    regions = class_regions(first, x.to(world.device), torch.tensor(s.classes, device=world.device))
    return {
        "group": world.group,
        "n": len(x),
        "outcomes": {
            **{f"right_{name}": (rank == 1).long().tolist() for name, rank in ranks.items()},
            **{f"soft_{name}": (rank == 1).long().tolist() for name, rank in soft.items()},
            "one_place": (regions == 1).long().tolist(),
        },
        "values": {
            "recognized": _mean({name: rank == 1 for name, rank in ranks.items()}),
            "recognized_soft": _mean({name: rank == 1 for name, rank in soft.items()}),
            "log_rank": _mean({name: rank.double().log() for name, rank in ranks.items()}),
            "log_rank_soft": _mean({name: rank.double().log() for name, rank in soft.items()}),
            "high_frequency": [round(value, 6) for value in high_frequency_share(x).tolist()],
            "regions": regions.tolist(),
        },
        "budget": {"inversion": {"attacked": len(x), **asdict(made.passes)}},
        "pictures": _pictures(world, made),
        **record,
    }


def _mean(columns: dict[str, Tensor]) -> list[float]:
    """The mean over verifiers, a number a drawing."""
    return [round(value, 6) for value in torch.stack([c.double() for c in columns.values()]).mean(dim=0).tolist()]


def _pictures(world: RealWorld, made: Synthesis) -> dict[str, str]:
    """Drawings of some classes, and of the first of them every stage before the last where the arm shows stages."""
    s = world.settings
    if world.seed != s.shown_seed:
        return {}
    shown = {f"class {s.classes[place]}": made.images[place] for place in s.pictured}
    if s.stages:
        earlier = [images for _, images in made.snapshots][:-1]
        shown |= {f"stage {number}": images[s.pictured[0]] for number, images in enumerate(earlier, start=1)}
    return {name: pack_picture(image) for name, image in shown.items()}


# How drawings are made


def plugged(world: RealWorld) -> tuple[Synthesis, dict]:
    """Plug-In Inversion, perhaps with something changed."""
    s = world.settings
    return world.plugged(steps=s.steps, lr=s.lr, copies=s.copies, color=s.color, **s.change), {}


def surest_plugged(world: RealWorld) -> tuple[Synthesis, dict]:
    """Plug-In Inversion, of several drawings of a class the one that the network is surest of."""
    s = world.settings
    drawn = world.plugged(steps=s.steps, lr=s.lr, copies=s.copies, color=s.color, rounds=s.draws)
    return surest(world.subject, drawn, s.classes), {}


def bare(world: RealWorld) -> tuple[Synthesis, dict]:
    """Cross-entropy without penalties."""
    return world.penalized(steps=world.settings.steps, **world.settings.change), {}


def in_frequencies(world: RealWorld) -> tuple[Synthesis, dict]:
    """The method's augmentations on a canvas of frequencies."""
    s = world.settings
    return world.in_frequencies(steps=s.steps, lr=s.lr, copies=s.copies, grows=s.grows, color=s.color), {}


def surest_in_frequencies(world: RealWorld) -> tuple[Synthesis, dict]:
    """The same, of several drawings of a class the one that the network is surest of."""
    s = world.settings
    knobs = {"steps": s.steps, "lr": s.lr, "copies": s.copies, "grows": True, "color": s.color}
    return surest(world.subject, world.in_frequencies(rounds=s.draws, **knobs), s.classes), {}


def tuned(world: RealWorld) -> tuple[Synthesis, dict]:
    """Penalties with the setting that was best on the network they are tuned on; all seeds share one choice."""
    s = world.settings
    own = {"member": s.studied, "verifiers": s.studied_verifiers}
    first = RealWorld(s.tuning_seed, pick(s, *(name for name in s if name not in own), **own), device=world.device)
    about = world.about("trials", "size", "batch", "steps", "trial_classes", "grid", "studied", "weights")
    trials = world.memory.recall({**about, "seed": s.tuning_seed}, lambda: _tried(first))
    best = min(trials, key=lambda trial: trial["log_rank"])
    chosen = {key: value for key, value in best.items() if key != "log_rank"}
    return world.penalized(steps=s.steps, **chosen), {"chosen": chosen, "trials": trials}


def _tried(world: RealWorld) -> list[dict]:
    """The mean logarithm of the rank of every trial's drawings; of one that diverged that of the last place."""
    s, trials = world.settings, []
    for setting in s.grid:
        try:
            drawn = world.tried(s.trial_classes, steps=s.steps, **setting).images
            ranks = world.ranks(drawn, s.trial_classes).values()
            found = float(torch.stack([rank.double().log() for rank in ranks]).mean())
        except NonFiniteOutput:
            found = 10.0  # of a thousand places the last has 6.9
        trials.append({**setting, "log_rank": found})
    return trials


def grids(s: Real) -> dict[str, list[dict[str, float]]]:
    """The trials of penalties without the method, equally many of each kind."""
    kinds = {"tv+l2": {"tv": s.trial_tvs, "norm": s.trial_norms, "lr": s.trial_lrs},
             "deep": {"batchnorm": s.trial_batchnorms, "tv": s.trial_tvs, "lr": s.trial_lrs}}  # fmt: skip
    return {
        kind: [dict(zip(knobs, point, strict=True)) for point in product(*knobs.values())]
        for kind, knobs in kinds.items()
    }


# Arms


def arms(s: Real) -> tuple[Arm, ...]:
    """All arms, in an order in which few decide the first claims."""
    every, some = tuple(range(len(s.classes))), s.pictured
    total = steps_in_all(s.steps)

    def arm(
        name: str, title: str, how: Callable, *, on: str = STUDIED, classes: tuple[int, ...] | None = None,
        pictured: tuple[int, ...] = some, stages: bool = False, size: int | None = None, asks_batchnorm: bool = False,
        **own: Any,
    ) -> Arm:  # fmt: skip
        inverted = STUDIED if on == RANDOM else on
        verifiers = {name: member for name, member in s.networks.items() if name != inverted}
        members = [s.networks[inverted], *verifiers.values()]
        settings = pick(
            s, *(one for one in _JUDGED if one != "size"), size=size or s.size, classes=classes or s.classes,
            member=s.networks[inverted], untrained=on == RANDOM, verifiers=verifiers,
            weights={member: s.weights[member] for member in members}, pictured=pictured, stages=stages,
            shown_seed=s.seeds[0], asks_batchnorm=asks_batchnorm, **own,
        )  # fmt: skip
        full = f"{name}@{on}"
        return Arm(
            full, title, RealWorld, partial(make_and_judge, how=how), settings, s.seeds[: s.few_seeds.get(full)],
            units=("class", "drawing"),
        )  # fmt: skip

    def plug(name: str, title: str, *, steps: int = s.steps, lr: float = s.lr, copies: int = s.copies,
             color: float = 1.0, change: dict | None = None, **more: Any) -> Arm:  # fmt: skip
        own = {"steps": steps, "lr": lr, "copies": copies, "color": color, "change": change or {}}
        return arm(name, title, plugged, **own, **more)

    def show(name: str, title: str, how: Callable, steps: int, lr: float) -> Arm:
        own = {"steps": steps, "lr": lr, "copies": s.copies, "color": 1.0, "draws": s.draws}
        return arm(name, title, how, stages=True, **own, **known)

    def part(name: str, title: str) -> Arm:
        how = combinations()[name]
        change = {"zoom": how["zoom"], "center": how["center"]}
        return plug(name, title, color=float(how["color"]), change=change)

    def fourier(name: str, title: str, *, grows: bool, **more: Any) -> Arm:
        own = {"steps": s.steps if grows else s.fourier_steps, "lr": s.fourier_lr, "copies": s.copies, "color": 1.0}
        return arm(name, title, in_frequencies, grows=grows, **own, **more)

    def tune(kind: str, title: str, on: str) -> Arm:
        own = {"grid": grids(s)[kind], "trial_classes": s.trial_classes, "steps": total, "tuning_seed": s.seeds[0]}
        judges = {name: member for name, member in s.networks.items() if name != STUDIED}
        known = {"studied": s.networks[STUDIED], "studied_verifiers": judges}
        return arm(kind, title, tuned, on=on, asks_batchnorm=kind == "deep", **own, **known)

    long, published = ({"steps": steps, "lr": lr} for steps, lr in (s.long, s.published))
    known = {"classes": s.shown, "pictured": tuple(range(len(s.shown)))}
    four = {"classes": tuple(s.classes[place] for place in some), "pictured": tuple(range(len(some)))}
    return (
        show("shown", "known classes by Plug-In Inversion", surest_plugged, *s.long),
        arm("shown-ce", "known classes by cross-entropy alone", bare, steps=total, change={"jitter": 0}, **known),
        show("shown-fourier", "known classes on a Fourier canvas", surest_in_frequencies, s.steps, s.fourier_lr),
        plug("pii", "Plug-In Inversion", pictured=every),
        arm("ce", "cross-entropy alone", bare, steps=total, change={"jitter": 0}),
        arm("ce+jitter", "cross-entropy with jitter", bare, steps=total, change={}),
        arm("ce+jitter=passes", "cross-entropy with jitter, as many passes", bare, steps=total * s.copies, change={}),
        part("color", "ColorShift alone"),
        part("none", "jitter alone, by the optimizer of Plug-In Inversion"),
        part("zoom", "zoom alone"),
        part("center", "centering alone"),
        part("zoom+center", "zoom and centering"),
        part("color+zoom", "ColorShift and zoom"),
        part("color+center", "ColorShift and centering"),
        fourier("fourier-growing", "Plug-In Inversion on a Fourier canvas", grows=True, pictured=every),
        fourier("fourier", "its augmentations on a Fourier canvas at full size", grows=False),
        plug("pii=100", "Plug-In Inversion with 100 steps a stage", **long, pictured=every),
        plug("pii", "Plug-In Inversion of random weights", on=RANDOM),
        plug("copies=1", "one copy", copies=1),
        plug("copies=1,passes", "one copy, as many passes", copies=1, steps=s.steps * s.copies, lr=s.lr / s.copies),
        plug("pii", "Plug-In Inversion of Lite1", on=OTHER),
        tune("tv+l2", "TV + ℓ₂ on the network it is tuned on", STUDIED),
        tune("tv+l2", "TV + ℓ₂ applied to Lite1", OTHER),
        tune("deep", "DeepInversion on the network it is tuned on", STUDIED),
        tune("deep", "DeepInversion applied to Lite1", OTHER),
        plug("copies=16", "16 copies", copies=s.many),
        plug("pii=224", "Plug-In Inversion at 224 pixels", size=s.large),
        plug("published", "Plug-In Inversion with the published steps, four classes", **published, **four),
    )  # fmt: skip


def real_arms() -> tuple[Arm, ...]:
    """The recorded arms."""
    return arms(REAL["record"])
