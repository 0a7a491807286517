"""Chapter 4's recorded runs: what classes look like to networks of several kinds, and to whom else they look so.

One cell is one arm and one seed. Every seed inverts all classes, several images each, with random numbers of its own
that its arms share, so that arms are compared image by image; arms whose first stages have one size also share their
starts. The networks are the zoo's, one of each kind: intervals speak of images and not of other networks of the kind.
Images are judged by verifiers that none of them was made with, one trained in the ordinary way and one adversarially; V
is the mean of their verdicts.

Arms, as method@network: ``pii`` and ``ce`` (cross-entropy alone, at full size, with as many steps), ``ce+jitter`` (with
the one augmentation that older methods had too); ``none``, ``color``, …, ``zoom+center``, which with ``pii`` are all
combinations of the three augmentations; ``copies=…``; ``published``, with the published steps and their rate;
``sweep`` and ``sweep+color``, weights of total variation without and with ColorShift; ``tv+l2`` and ``deep``
(DeepInversion), tuned on one network and applied to others; ``pii+tv`` and ``pii+bn``. ``real`` are real images of the
same classes and ``pii@random`` is a network that learned nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import product

import torch
from torch import Tensor

from thesis_kit.chapters.inversion.settings import INVERSION
from thesis_kit.chapters.inversion.settings import Inversion as Settings
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, load
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.evaluation.pictures import class_regions, high_frequency_share, kid_of_images, recognized
from thesis_kit.extras import needs
from thesis_kit.inversion import STAGES, combinations, invert_with_penalties, plug_in_inversion
from thesis_kit.ledger.memory import Memory, plain
from thesis_kit.ledger.runner import Experiment
from thesis_kit.ledger.thumbnails import pack_picture
from thesis_kit.models import Classifier, build, zoo
from thesis_kit.passes import Passes
from thesis_kit.randomness import mix_seed
from thesis_kit.synthesis import Synthesis

STUDIED = "resnet"  # the network on which parts of the method are taken away, and on which penalties are tuned
UNCOLORED = "resnet-plain"  # its twin that never saw other colors, light or noise in training
RANDOM = "random"
JITTERED = (STUDIED, "vit", "mixer", "robust", UNCOLORED, "vit-plain", "mixer-plain")  # each kind, and its twins
PUBLISHED = {"steps": 400, "lr": 0.01}  # of a stage
USABLE = 0.8  # of the best V: a weight of total variation that keeps so much of it can be used
_ROUNDING = 1e-9  # of a share
_INVERSION, _TRIALS, _WEIGHTS = range(40, 43)  # streams of a seed


class World:
    """Networks, real images and inversions of one seed."""

    def __init__(self, seed: int, settings: Settings, *, device: torch.device | str = "cpu"):
        self.seed, self.settings, self.device, self.memory = seed, settings, torch.device(device), Memory(__name__)

    def network(self, member: str) -> Classifier:
        """A network by its name in the zoo, or in timm with its weights; in evaluation mode."""
        return self._placed(zoo.load(member) if is_member(member) else build(member, pretrained=True))

    def _placed(self, model: Classifier) -> Classifier:
        """The model where and how it is used; with channels last convolutions take a fifth less time on a CPU."""
        return model.to(self.device, memory_format=torch.channels_last).eval()

    def inverted(self, name: str) -> Classifier:
        """The network of an arm; "random" is the studied one's architecture with weights that never were trained."""
        if name != RANDOM:
            return self.network(self.settings.members[name])
        member, seed = self.settings.members[STUDIED], mix_seed(self.seed, _WEIGHTS)
        if not is_member(member):
            return self._placed(build(member, seed=seed))
        about = zoo.entry(member)
        shape = {"n_classes": about.n_classes, "in_channels": about.image_shape[0]}
        return self._placed(build(about.architecture, seed=seed, **shape, **about.options))

    @cached_property
    def verifiers(self) -> dict[str, Classifier]:
        """The networks that judge."""
        return {name: self.network(member) for name, member in self.settings.verifiers.items()}

    @cached_property
    def _real(self) -> dict[int, Part]:
        """All real test images, class by class, and the logit of each class."""
        s = self.settings
        test = load(s.task.data, self.seed, **s.task.data_options).to(self.device).test
        return {logit: test[test.y == label] for label, logit in enumerate(s.classes)}

    def real(self, which: int) -> Tensor:
        """Real images of the inverted classes in their order, (n, c, h, w), which no other seed has: those that the
        inversions stand beside (0), and those that KID measures the distance to (1)."""
        each, chosen = self.settings.each, []
        for logit, part in self._real.items():
            first = (2 * self.seed + which) * each
            if first + each > len(part):
                raise ValueError(
                    f"seed {self.seed} needs {first + each} test images of class {logit}, and there are {len(part)}: "
                    "enlarge n_test"
                )
            chosen.append(part.x[first : first + each])
        return torch.cat(chosen)

    def wanted(self, each: int | None = None) -> list[int]:
        """The class of every image, as a logit: each class as often as the settings say."""
        s = self.settings
        return [logit for logit in s.classes for _ in range(each or s.each)]

    def plugged(self, name: str, *, color: float = 1.0, copies: int | None = None, **change: object) -> Synthesis:
        """Plug-In Inversion of an arm's network, with one thing changed or another.

        Without ColorShift the copies of an image are all alike and so are their losses and gradients, so one copy
        stands for all.
        """
        s, model = self.settings, self.inverted(name)
        knobs = {"size": s.size, "steps": s.steps, "lr": s.lr, "copies": (copies or s.copies) if color else 1, **change}
        seed = mix_seed(self.seed, _INVERSION)
        return plug_in_inversion(model, self.wanted(), color=color, seed=seed, progress=False, **knobs)

    def penalized(self, name: str, *, trial: bool = False, **knobs: float) -> Synthesis:
        """Cross-entropy and perhaps penalties at full size, with as many steps; a trial's images are others."""
        s, model = self.settings, self.inverted(name)
        return invert_with_penalties(
            model, self.wanted(s.each_trial if trial else None), size=s.size, steps=STAGES * s.steps,
            seed=mix_seed(self.seed, _TRIALS if trial else _INVERSION), progress=False, **knobs,
        )  # fmt: skip

    def votes(self, x: Tensor, each: int | None = None) -> dict[str, Tensor]:
        """Which images each verifier names the class of, as 0 and 1."""
        x, y = x.to(self.device), torch.tensor(self.wanted(each), device=self.device)
        return {name: recognized([verifier], x, y) for name, verifier in self.verifiers.items()}

    def kid(self, x: Tensor) -> float:
        """How far images are from as many real ones, to the verifier that was trained in the ordinary way."""
        y = torch.tensor(self.wanted(), device=self.device)
        return kid_of_images(self.verifiers["natural"], x, self.real(1), classes=(y, y))

    def about(self, what: Mapping[str, object], *names: str) -> dict:
        """What tells shared work apart: what it is, seed, settings, and the weights of all networks in it."""
        s = self.settings
        return {"what": dict(what), "seed": self.seed, "settings": plain(s), "weights": weights_of(s, *names)}


def is_member(name: str) -> bool:
    """Whether a network is the zoo's; one that neither the zoo nor timm knows counts as a member not yet made."""
    return name in zoo.names() or not needs("timm").is_model(name.split(".")[0])


def weights_hash(name: str) -> str:
    """The SHA-256 of a member's weights; of a network of timm its name, which its weights belong to."""
    return zoo.entry(name).sha256 if is_member(name) else name


def weights_of(s: Settings, *names: str) -> dict[str, str]:
    """The weights of some networks and of all that judge, by the names of their members."""
    return {member: weights_hash(member) for member in (*(s.members[name] for name in names), *s.verifiers.values())}


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


def run_cell(arm: str, seed: int, config: dict) -> dict:
    """Make and judge the images of one arm with one seed; returns the record of the cell."""
    started, world = time.monotonic(), World(seed, INVERSION[config["profile"]])
    what, _, name = arm.partition("@")
    measured = arms_of(world.settings)[what](world, name)
    record = measured.record if measured.images is None else {**_judged(arm, measured, world), **measured.record}
    return {"arm": arm, "seed": seed, "seconds": time.monotonic() - started, **record}


def _judged(arm: str, measured: Measured, world: World) -> dict:
    """Everything that is measured on an arm's images."""
    x = measured.images.to(world.device)
    y, votes, first = torch.tensor(world.wanted(), device=world.device), world.votes(x), world.verifiers["natural"]
    regions = class_regions(first, x, y)
    return {
        "group": _group(world),
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
        "pictures": _pictures(arm, measured, world),
    }


def _group(world: World) -> str:
    """The name of the images that a seed's arms are compared on: targets by their class and number."""
    s = world.settings
    return f"{s.task.data}/{s.size}px/{len(s.classes)} classes × {s.each}/seed {world.seed}"


def _mean(votes: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(votes.values())).mean(dim=0).cpu()


def _rounded(column: Tensor) -> list[float]:
    return [round(value, 6) for value in column.tolist()]


def _budget(passes: Passes, n: int) -> dict[str, dict[str, int]]:
    return {"inversion": {"attacked": n, **asdict(passes)}} if passes.forward else {}


def _pictures(arm: str, measured: Measured, world: World) -> dict[str, str]:
    """What the first seed keeps of an arm to be shown: an image of every class of real images and of Plug-In Inversion,
    of some classes where something is different, and of the first of these every stage before the last."""
    s, what = world.settings, arm.partition("@")[0]
    if world.seed != s.seeds[0] or what not in ("real", "ce", "ce+jitter", "tv+l2", "deep", *combinations()):
        return {}
    labels = range(len(s.classes)) if what in ("real", "pii") else s.pictured
    shown = {f"class {label}": measured.images[s.each * label] for label in labels}
    if what == "pii":
        stages = enumerate(measured.stages[:-1], start=1)
        shown |= {f"stage {number}": images[s.each * s.pictured[0]] for number, images in stages}
    return {name: pack_picture(image) for name, image in shown.items()}


# Arms


def _real(world: World, name: str) -> Measured:
    """Real images of the same classes."""
    return Measured(world.real(0))


def _plugged(world: World, name: str, **change: object) -> Measured:
    """Plug-In Inversion, perhaps with something changed."""
    return Measured.of(world.plugged(name, **change))


def _bare(world: World, name: str, **knobs: float) -> Measured:
    """Cross-entropy without penalties."""
    return Measured.of(world.penalized(name, **knobs))


def _weighted(world: World, name: str, *, tv: float, color: float = 1.0) -> Measured:
    """Plug-In Inversion with total variation of one weight, from memory where it was made before.

    Its seconds are those of the making, also where a sweep has counted them before.
    """

    def compute() -> dict:
        started = time.monotonic()
        record = _judged(f"pii+tv@{name}", Measured.of(world.plugged(name, color=color, tv=tv)), world)
        return {**record, "seconds": time.monotonic() - started}

    return Measured(record=world.memory.recall(world.about({"tv": tv, "color": color}, name), compute))


def _swept(world: World, name: str, *, colored: bool) -> Measured:
    """All weights of total variation, and how many of them can be used: those that keep a share of the best V that any
    weight reaches with or without ColorShift."""
    own, other = (_sweep(world, name, colored=way) for way in (colored, not colored))
    floor = USABLE * max(own["scalars"]["best"], other["scalars"]["best"])
    own["scalars"] |= {"floor": floor, "usable": usable([v for _, v in own["curves"]["V"]], floor)}
    return Measured(record=own)


def usable(found: list[float], floor: float) -> int:
    """How many V reach the floor; none where nothing is recognized at all."""
    return sum(v >= floor - _ROUNDING for v in found) if floor > 0 else 0


def _sweep(world: World, name: str, *, colored: bool) -> dict:
    """The record of a sweep without what needs another one; every image's row stands once for every weight."""
    s = world.settings
    points = [_weighted(world, name, tv=tv, color=float(colored)).record for tv in s.tvs]
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
        "group": f"{_group(world)}/{len(s.tvs)} weights",
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


def settings_tried(kind: str, s: Settings) -> list[dict[str, float]]:
    """The trials of penalties without the method: "tv+l2" or "deep"."""
    if kind == "tv+l2":
        return [*_grid(tv=s.trial_tvs, norm=s.trial_norms, lr=s.trial_lrs)]
    return [*_grid(batchnorm=s.trial_batchnorms, tv=s.trial_few_tvs, norm=s.trial_norms[:1], lr=s.trial_lrs)]


def _grid(**values: tuple[float, ...]) -> Iterator[dict[str, float]]:
    return (dict(zip(values, point, strict=True)) for point in product(*values.values()))


def _tuned(world: World, name: str, *, kind: str) -> Measured:
    """Penalties with the setting that was best on the studied network, on images that are judged nowhere.

    All seeds share one choice: a tuned method is one method.
    """
    first = World(world.settings.seeds[0], world.settings, device=world.device)
    trials = world.memory.recall(first.about({"trials": kind}, STUDIED), lambda: _tried(first, kind))
    best = max(trials, key=lambda trial: trial["validation"])
    if best["diverged"]:
        raise NonFiniteOutput(f"{kind} diverged with every setting: add milder ones to the profile")
    chosen = {key: value for key, value in best.items() if key not in ("validation", "diverged")}
    return Measured.of(world.penalized(name, **chosen), chosen=chosen, trials=trials)


def _tried(world: World, kind: str) -> list[dict]:
    """V of the verifiers, who also judge later, on every trial's images."""
    s, trials = world.settings, []
    for setting in settings_tried(kind, s):
        try:
            images = world.penalized(STUDIED, trial=True, **setting).images
        except NonFiniteOutput:
            trials.append({**setting, "validation": -1.0, "diverged": True})
            continue
        v = float(_mean(world.votes(images, s.each_trial)).mean())
        trials.append({**setting, "validation": v, "diverged": False})
    return trials


Arm = Callable[[World, str], Measured]


def arms_of(s: Settings) -> dict[str, Arm]:
    """Every method of making images, by the name that arms have before the @."""
    return {
        "real": _real,
        "ce": partial(_bare, jitter=0),
        "ce+jitter": _bare,
        **{
            name: partial(_plugged, color=float(on["color"]), zoom=on["zoom"], center=on["center"])
            for name, on in combinations().items()
        },
        **{f"copies={copies}": partial(_plugged, copies=copies) for copies in s.ensembles},
        "published": partial(_plugged, **PUBLISHED),
        "sweep": partial(_swept, colored=False),
        "sweep+color": partial(_swept, colored=True),
        "tv+l2": partial(_tuned, kind="tv+l2"),
        "deep": partial(_tuned, kind="deep"),
        "pii+tv": partial(_weighted, tv=s.added_tv),
        "pii+bn": partial(_plugged, batchnorm=s.added_batchnorm),
    }


def arms(s: Settings) -> tuple[str, ...]:
    """All arms, in an order in which two cells at a time seldom wait for each other's shared work."""
    studied = [name for name in combinations() if name != "pii"]
    studied += [f"copies={copies}" for copies in s.ensembles if copies != s.copies]  # that many are ``pii``
    studied += ["published", "pii+bn", "tv+l2", "deep", "sweep"]
    return (
        "real",
        *(f"{method}@{name}" for method in ("pii", "ce") for name in s.members),
        *(f"ce+jitter@{name}" for name in JITTERED),
        *(f"none@{name}" for name in ("vit", "mixer")),  # jitter with the optimizer of the method
        f"pii@{RANDOM}",
        *(f"{method}@{STUDIED}" for method in studied),
        f"sweep@{UNCOLORED}",
        *(f"tv+l2@{name}" for name in ("vit", "mixer")),
        f"deep@{UNCOLORED}",
        *(f"sweep+color@{name}" for name in (STUDIED, UNCOLORED)),
        f"pii+tv@{STUDIED}",
    )


def seeds_of(arm: str, s: Settings) -> tuple[int, ...]:
    """The seeds that an arm is run with: all, but for those that cost much and only stand beside others."""
    return s.seeds[: s.few_seeds.get(arm.partition("@")[0], len(s.seeds))]


def rests_on(arm: str, s: Settings) -> dict[str, str]:
    """The weights that an arm rests on: of the network that is inverted, of the one it was tuned on, of all that judge.

    A network that learned nothing has none.
    """
    what, _, name = arm.partition("@")
    tuned = (STUDIED,) if what in ("tv+l2", "deep") else ()
    return weights_of(s, *(name for name in (name, *tuned) if name in s.members))


def _experiment() -> Experiment:
    s = INVERSION["record"]
    return Experiment(
        name="inversion",
        arena="scenes",
        config={"profile": "record", **plain(s)},
        data_hashes=lambda: {s.task.data: DISTRIBUTIONS[s.task.data].data_hash()},
        cells=tuple((arm, seed) for arm in arms(s) for seed in seeds_of(arm, s)),
        run=run_cell,
        expected_seconds=partial(_expected_seconds, s),
        networks=partial(rests_on, s=s),
    )


TUNING = (f"tv+l2@{STUDIED}", f"deep@{STUDIED}")  # the arms that usually make the trials
_SECONDS = {"vit": 9.3, "deit": 9.3, "mixer": 5.5, "convnext": 2.7}  # an image of ``pii``
_RESNET_SECONDS, _JUDGING_SECONDS = 2.7, 5.0


def _expected_seconds(s: Settings, arm: str) -> float:
    """On one core, roughly, in units of an image of ``pii``; one copy of it costs more than its share of eight."""
    what, _, name = arm.partition("@")
    kind = name.removesuffix("-plain")
    one = 0.13 if kind in _SECONDS else 0.25
    known = {
        "real": 0.0, "ce": one, "ce+jitter": one, "none": one, "zoom": one, "center": one, "zoom+center": one,
        "tv+l2": one, "deep": 1.5 * one, "color": 2.2, "pii+bn": 1.4, "sweep": len(s.tvs) * one,
        "sweep+color": len(s.tvs), "pii+tv": 0.0, "published": PUBLISHED["steps"] / s.steps,
        **{f"copies={copies}": max(copies / s.copies, one) for copies in s.ensembles},
    }  # fmt: skip
    units = known.get(what, 1.0)
    if arm in TUNING:
        units *= 1 + len(settings_tried(what, s)) * s.each_trial / s.each / len(s.seeds)
    return _JUDGING_SECONDS + len(s.classes) * s.each * units * _SECONDS.get(kind, _RESNET_SECONDS)


EXPERIMENTS = {"scenes": _experiment()}
