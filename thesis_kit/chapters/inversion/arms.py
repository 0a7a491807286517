"""Chapter 4's arms: what classes look like to networks of several kinds, and to whom else they look so.

The networks are the zoo's, one of each kind: intervals speak of images and not of other networks of the kind. Arms, as
method@network: ``pii`` and ``ce`` (cross-entropy alone, at full size, with as many steps), ``ce+jitter`` (with the one
augmentation that older methods had too); ``none``, ``color``, …, ``zoom+center``, which with ``pii`` are all
combinations of the three augmentations; ``copies=…``; ``published``, with the published steps and their rate;
``sweep`` and ``sweep+color``, weights of total variation without and with ColorShift; ``tv+l2`` and ``deep``
(DeepInversion), tuned on one network and applied to others; ``pii+tv`` and ``pii+bn``. ``real`` are real images of the
same classes and ``pii@random`` is a network that learned nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from thesis_kit.chapters.inversion.real_arms import real_arms
from thesis_kit.chapters.inversion.settings import INVERSION, Inversion
from thesis_kit.chapters.inversion.usable import USABLE
from thesis_kit.chapters.inversion.world import JUDGED, RANDOM, STUDIED, World
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.evaluation.synthesized import class_regions, high_frequency_share
from thesis_kit.inversion import combinations
from thesis_kit.ledger.arm import Arm, Experiment, pick
from thesis_kit.ledger.thumbnails import pack_picture
from thesis_kit.passes import Passes
from thesis_kit.synthesis import Synthesis

UNCOLORED = "resnet-plain"  # the studied network's twin that never saw other colors, light or noise in training
JITTERED = (STUDIED, "vit", "mixer", "robust", UNCOLORED, "vit-plain", "mixer-plain")  # each kind, and its twins
PUBLISHED = {"steps": 400, "lr": 0.01}  # of a stage
_ROUNDING = 1e-9  # of a share
_PLUGGED = (*JUDGED, "steps", "lr", "copies")  # what decides an inversion
NAMES = {  # of the networks
    "resnet": "ResNet",
    "vit": "ViT",
    "mixer": "MLP-Mixer",
    "convnext": "ConvNeXt",
    "deit": "distilled ViT",
    "robust": "adversarially trained ResNet",
    "resnet-plain": "ResNet trained without color augmentation",
    "vit-plain": "ViT trained without color augmentation",
    "mixer-plain": "MLP-Mixer trained without color augmentation",
}


@dataclass
class Measured:
    """What an arm came to: its images or what is known of them, and what they cost."""

    images: Tensor | None = None
    passes: Passes = field(default_factory=Passes)
    stages: list[Tensor] = field(default_factory=list)
    record: dict = field(default_factory=dict)  # beside or in place of what is measured on the images

    @classmethod
    def of(cls, found: Synthesis, **record: object) -> Measured:
        """From a synthesis."""
        return cls(found.images, found.passes, [images for _, images in found.snapshots], record)


def make_and_judge(world: World, how: Callable[[World], Measured]) -> dict:
    """Make an arm's images and judge them; returns the record of the cell."""
    measured = how(world)
    return measured.record if measured.images is None else {**_judged(measured, world), **measured.record}


def _judged(measured: Measured, world: World) -> dict:
    """Everything that is measured on an arm's images."""
    x = measured.images.to(world.device)
    y, votes, first = torch.tensor(world.wanted(), device=world.device), world.votes(x), world.verifiers["natural"]
    regions = class_regions(first, x, y)
    return {
        "group": world.group,
        "n": len(x),
        "outcomes": {
            **{f"right_{name}": right.long().tolist() for name, right in votes.items()},
            "one_place": (regions == 1).long().tolist(),
        },
        "values": {
            "recognized": _mean(votes).tolist(),
            "high_frequency": _rounded(high_frequency_share(x)),
            "regions": regions.tolist(),
        },
        "scalars": {"kid": world.kid(x)},
        "budget": _budget(measured.passes, len(x)),
        "pictures": _pictures(measured, world),
    }


def _mean(votes: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(votes.values())).mean(dim=0).cpu()


def _rounded(column: Tensor) -> list[float]:
    return [round(value, 6) for value in column.tolist()]


def _budget(passes: Passes, n: int) -> dict[str, dict[str, int]]:
    return {"inversion": {"attacked": n, **asdict(passes)}} if passes.forward else {}


def _pictures(measured: Measured, world: World) -> dict[str, str]:
    """What the arm keeps to be shown: images of some classes, and of the first of those that others show every stage
    before the last."""
    s = world.settings
    if world.seed != s.shown_seed:
        return {}
    shown = {f"class {label}": measured.images[s.each * label] for label in s.shown}
    if s.shown_stages is not None:
        stages = enumerate(measured.stages[:-1], start=1)
        shown |= {f"stage {number}": images[s.each * s.shown_stages] for number, images in stages}
    return {name: pack_picture(image) for name, image in shown.items()}


# How images are made


def real(world: World) -> Measured:
    """Real images of the same classes."""
    return Measured(world.real(0))


def plugged(world: World) -> Measured:
    """Plug-In Inversion, perhaps with something changed."""
    s = world.settings
    return Measured.of(world.plugged(color=s.color, copies=s.copies, **s.change))


def bare(world: World) -> Measured:
    """Cross-entropy without penalties."""
    return Measured.of(world.penalized(world.subject, **world.settings.change))


def weighted(world: World) -> Measured:
    """Plug-In Inversion with total variation of one weight."""
    return Measured(record=_weighted(world, world.settings.tv, 1.0))


def _weighted(world: World, tv: float, color: float) -> dict:
    """The record of one weight, from memory where it was made before.

    Its seconds are those of the making, also where a sweep has counted them before.
    """

    def compute() -> dict:
        started = time.monotonic()
        made = Measured.of(world.plugged(color=color, copies=world.settings.copies, tv=tv))
        return {**_judged(made, world), "seconds": time.monotonic() - started}

    return world.memory.recall(world.about_images("weighted", *_PLUGGED[len(JUDGED) :], tv=tv, color=color), compute)


def swept(world: World) -> Measured:
    """All weights of total variation, and how many of them can be used: those that keep a share of the best V that any
    weight reaches with or without ColorShift."""
    colored = world.settings.colored
    own, other = (_sweep(world, colored=way) for way in (colored, not colored))
    floor = USABLE * max(own["scalars"]["best"], other["scalars"]["best"])
    own["scalars"] |= {"floor": floor, "usable": usable([v for _, v in own["curves"]["V"]], floor)}
    return Measured(record=own)


def usable(found: list[float], floor: float) -> int:
    """How many V reach the floor; none where nothing is recognized at all."""
    return sum(v >= floor - _ROUNDING for v in found) if floor > 0 else 0


def _sweep(world: World, *, colored: bool) -> dict:
    """The record of a sweep without what needs another one; every image's row stands once for every weight."""
    s = world.settings
    points = [_weighted(world, tv, float(colored)) for tv in s.tvs]
    measured = {
        "V": [_share(point["values"]["recognized"]) for point in points],
        "kid": [point["scalars"]["kid"] for point in points],
        "high_frequency": [_share(point["values"]["high_frequency"]) for point in points],
    }
    n, passes = sum(point["n"] for point in points), Passes()
    for point in points:
        spent = point["budget"]["inversion"]
        passes += Passes(**{key: count for key, count in spent.items() if key != "attacked"})
    return {
        "group": f"{world.group}/{len(s.tvs)} weights",
        "n": n,
        "outcomes": {f"right_{verifier}": _joined(points, "outcomes", f"right_{verifier}") for verifier in s.verifiers},
        "values": {"recognized": _joined(points, "values", "recognized")},
        "scalars": {"best": max(measured["V"])},
        "curves": {what: [list(pair) for pair in zip(s.tvs, values, strict=True)] for what, values in measured.items()},
        "budget": _budget(passes, n),
        "seconds": sum(point["seconds"] for point in points),
    }


def _share(column: list[float]) -> float:
    return sum(column) / len(column)


def _joined(points: list[dict], part: str, name: str) -> list:
    return [value for point in points for value in point[part][name]]


def tuned(world: World) -> Measured:
    """Penalties with the setting that was best on the studied network, on images that are judged nowhere.

    All seeds share one choice: a tuned method is one method.
    """
    s = world.settings
    settings = pick(s, *JUDGED, "steps", "each_trial", "grid", member=s.studied, untrained=False)
    first = World(s.tuning_seed, settings, device=world.device)
    about = first.about_images("trials", "steps", "each_trial", "grid")
    trials = world.memory.recall(about, lambda: _tried(first))
    best = max(trials, key=lambda trial: trial["validation"])
    if best["diverged"]:
        raise NonFiniteOutput(f"training diverged with all of {len(trials)} settings: add milder ones to the table")
    chosen = {key: value for key, value in best.items() if key not in ("validation", "diverged")}
    return Measured.of(world.penalized(world.subject, **chosen), chosen=chosen, trials=trials)


def _tried(world: World) -> list[dict]:
    """V of the verifiers, who also judge later, on every trial's images."""
    s, model, trials = world.settings, world.subject, []
    for setting in s.grid:
        try:
            images = world.tried(model, **setting).images
        except NonFiniteOutput:
            trials.append({**setting, "validation": -1.0, "diverged": True})
            continue
        v = float(_mean(world.votes(images, s.each_trial)).mean())
        trials.append({**setting, "validation": v, "diverged": False})
    return trials


def grids(s: Inversion) -> dict[str, list[dict[str, float]]]:
    """The trials of penalties without the method."""
    return {
        "tv+l2": [*_grid(tv=s.trial_tvs, norm=s.trial_norms, lr=s.trial_lrs)],
        "deep": [*_grid(batchnorm=s.trial_batchnorms, tv=s.trial_few_tvs, norm=s.trial_norms[:1], lr=s.trial_lrs)],
    }


def _grid(**knobs: tuple[float, ...]) -> Iterator[dict[str, float]]:
    return (dict(zip(knobs, point, strict=True)) for point in product(*knobs.values()))


def arms(s: Inversion) -> tuple[Arm, ...]:
    """All arms, in an order in which two cells at a time seldom wait for each other's shared work."""

    def arm(
        name: str, title: str, how: Callable, *names: str, on: str | None = STUDIED, show: tuple[int, ...] = (),
        stages: bool = False, seeds: int | None = None, **own: Any,
    ) -> Arm:  # fmt: skip
        member = {} if on is None else {"member": s.members[STUDIED if on == RANDOM else on], "untrained": on == RANDOM}
        shown = {"shown": show, "shown_stages": s.pictured[0] if stages else None, "shown_seed": s.seeds[0]}
        settings = pick(s, *(n for n in dict.fromkeys((*JUDGED, *names)) if n not in own), **member, **shown, **own)
        weights = [own.get("studied"), None if on in (None, RANDOM) else member["member"], *s.verifiers.values()]
        networks = tuple(dict.fromkeys(filter(None, weights)))
        full, place = (name, title) if on is None else (f"{name}@{on}", title)
        return Arm(
            full, place, World, partial(make_and_judge, how=how), settings, s.seeds[:seeds], (s.task.data,), networks,
            units=("class", "drawing"),
        )  # fmt: skip

    def plug(name: str, title: str, on: str = STUDIED, *, color: float = 1.0, change: Any = None, **own: Any) -> Arm:
        return arm(name, title, plugged, *_PLUGGED, on=on, color=color, change=change or {}, **own)

    def pii(on: str, called: str) -> Arm:
        every = tuple(range(len(s.classes)))
        all_three = {"zoom": True, "center": True}
        return plug("pii", f"Plug-In Inversion, {called}", on, change=all_three, show=every, stages=True)

    def part(name: str, title: str, on: str = STUDIED) -> Arm:
        how = combinations()[name]
        change = {"zoom": how["zoom"], "center": how["center"]}
        return plug(name, title, on, color=float(how["color"]), change=change, show=s.pictured)

    def alone(name: str, title: str, on: str, **change: float) -> Arm:
        title = f"{title}, {NAMES[on]}"
        return arm(name, title, bare, "steps", on=on, change=change, show=s.pictured)

    def sweep(on: str, *, colored: bool) -> Arm:
        title = f"weights of TV {'with' if colored else 'without'} ColorShift"
        title += "" if on == STUDIED else f", {NAMES[on]}"
        return arm("sweep+color" if colored else "sweep", title, swept, *_PLUGGED, "tvs", on=on, colored=colored)

    def tune(kind: str, title: str, on: str = STUDIED) -> Arm:
        own = {"grid": grids(s)[kind], "studied": s.members[STUDIED], "tuning_seed": s.seeds[0]}
        return arm(kind, title, tuned, "steps", "each_trial", on=on, show=s.pictured, **own)

    members = {name: NAMES[name] for name in s.members}
    return (
        arm("real", "real images", real, on=None, show=tuple(range(len(s.classes)))),
        *(pii(name, called) for name, called in members.items()),
        *(alone("ce", "cross-entropy alone", name, jitter=0) for name in s.members),
        *(alone("ce+jitter", "cross-entropy with jitter", name) for name in JITTERED if name in s.members),
        part("none", "jitter alone, by the optimizer of Plug-In Inversion, ViT", "vit"),
        part("none", "jitter alone, by the optimizer of Plug-In Inversion, MLP-Mixer", "mixer"),
        pii(RANDOM, "ResNet with random weights"),
        part("none", "jitter alone, by the optimizer of Plug-In Inversion"),
        part("color", "ColorShift alone"),
        part("zoom", "zoom alone"),
        part("center", "centering alone"),
        part("color+zoom", "ColorShift and zoom"),
        part("color+center", "ColorShift and centering"),
        part("zoom+center", "zoom and centering"),
        *(
            plug(f"copies={n}", "one copy" if n == 1 else f"{n} copies", copies=n, seeds=s.few_seeds.get(f"copies={n}"))
            for n in s.ensembles if n != s.copies  # that many are ``pii``
        ),
        plug("published", "the published number of steps", seeds=s.few_seeds.get("published"), **PUBLISHED),
        plug("pii+bn", "Plug-In Inversion with BatchNorm statistics", change={"batchnorm": s.added_batchnorm}),
        tune("tv+l2", "TV + ℓ₂ on the network it is tuned on"),
        tune("deep", "DeepInversion on the network it is tuned on"),
        sweep(STUDIED, colored=False),
        sweep(UNCOLORED, colored=False),
        tune("tv+l2", "TV + ℓ₂ applied to a ViT", "vit"),
        tune("tv+l2", "TV + ℓ₂ applied to an MLP-Mixer", "mixer"),
        tune("deep", "DeepInversion applied to another ResNet", UNCOLORED),
        sweep(STUDIED, colored=True),
        sweep(UNCOLORED, colored=True),
        arm("pii+tv", "Plug-In Inversion with total variation", weighted, *_PLUGGED, tv=s.added_tv),
    )  # fmt: skip


EXPERIMENTS = {
    "scenes": Experiment("inversion", "scenes", arms(INVERSION["record"])),
    "real": Experiment("inversion", "real", real_arms()),
}
