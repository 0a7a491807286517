"""How each member of the zoo is trained: every setting that decides its weights, and where its robustness is measured.

A recipe is data. ``zookeeping/making.py`` carries it out and writes its settings into the entry beside the scores,
so that a recipe changed after training is noticed. Members that are not ``shipped`` are made by whoever wants them.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from thesis_kit.attacks.norms import NORMS
from thesis_kit.checks import check_count, check_eps, choose
from thesis_kit.files import canonical
from thesis_kit.models.kinds import KINDS
from thesis_kit.training import METHODS, TERMS, Method
from thesis_kit.training.augmentation import AUGMENTATIONS
from thesis_kit.training.precision import PRECISIONS
from thesis_kit.training.run import Term
from thesis_kit.training.schedules import SCHEDULES

STORAGES = ("float16", "float32")
_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@dataclass(frozen=True)
class TrainingStage:
    """A part of training: ``share`` of the updates, on the recipe's own data and options unless it names others."""

    share: float
    data: str | None = None
    data_options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Recipe:
    """One member's training.

    Args:
        title: one line of what it is.
        data, data_options: the distribution it is for, as ``data.load`` takes it; its test part gives the scores.
        architecture, options: as ``models.build`` takes them; classes and channels come from the data.
        method, method_options: a name of ``training.METHODS`` and its knobs.
        terms: what the loss has beside cross-entropy, names of ``training.TERMS`` with their knobs.
        updates, batch_size, lr, momentum, weight_decay, optimizer, schedule, seed: as ``training.train`` takes them;
            the seed also cuts the data and draws the initial weights.
        precision: of the passes, "float32", "float16" or "bfloat16". storage: of the weights file.
        augment: a name of ``training.augmentation.AUGMENTATIONS``, or None.
        eps, norm: radii at which robust accuracy is measured.
        verified: ℓ∞ radii at which interval bounds verify, or None. sigma: standard deviation of the noise to be
            smoothed with, at which certified accuracy is measured, or None.
        start: a member of the same architecture whose weights training starts from, or None.
        stages: a curriculum of streams, with shares that add up to 1.
        shipped: whether the weights come with the package.
        kind: of network, a name of ``models.kinds.KINDS``.
        seeds: how many networks of this recipe make up its cohort, from seed 0 on; the member itself is that of seed 0,
            the others are made by whoever wants them.

    Raises:
        ValueError: a setting that cannot be meant.
    """

    title: str
    data: str
    architecture: str
    method: str
    updates: int
    lr: float
    eps: tuple[float, ...]
    data_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, dict[str, Any]] = field(default_factory=dict)
    norm: str = "linf"
    verified: tuple[float, ...] | None = None
    sigma: float | None = None
    batch_size: int = 128
    optimizer: str = "sgd"
    schedule: str = "one-cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    precision: str = "float32"
    storage: str = "float16"
    augment: str | None = None
    seed: int = 0
    start: str | None = None
    stages: tuple[TrainingStage, ...] = (TrainingStage(1.0),)
    shipped: bool = True
    kind: str = "classifier"
    seeds: int = 1

    def __post_init__(self) -> None:
        choose(self.schedule, SCHEDULES, "schedule")
        choose(self.norm, NORMS, "norm")
        choose(self.precision, PRECISIONS, "precision")
        choose(self.storage, STORAGES, "storage")
        if self.augment is not None:
            choose(self.augment, AUGMENTATIONS, "augmentation")
        check_count(self.updates, what="updates")
        check_count(self.seed, what="seed", least=0)
        check_count(self.seeds, what="seeds")
        choose(self.kind, KINDS, "kind of member")
        if self.seeds > 1 and self.seed:
            raise ValueError(f"a cohort's seeds begin at 0, got seed={self.seed} and seeds={self.seeds}")
        for eps in (*self.eps, *(self.verified or ())):
            check_eps(eps)
        shares = [stage.share for stage in self.stages]
        if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1):
            raise ValueError(f"the shares of stages must be above 0 and add up to 1, got {shares}")
        self.make_method(), self.make_terms()

    @property
    def rests_on(self) -> dict[str, str]:
        """The members whose weights decide this one's, by their role: "start", "teacher"."""
        found = {"start": self.start, "teacher": self.method_options.get("teacher")}
        return {role: name for role, name in found.items() if name is not None}

    def of_seed(self, seed: int) -> Recipe:
        """The recipe of one network of the cohort; only seed 0 may be shipped.

        Raises:
            ValueError: the cohort has no such seed.
        """
        if seed == self.seed:
            return self
        if seed not in range(self.seeds):
            has = f"seeds 0 … {self.seeds - 1}" if self.seeds > 1 else f"seed {self.seed} alone"
            raise ValueError(f"the recipe is for {has}, got seed {seed}: raise seeds in the recipe to have more")
        return replace(self, seed=seed, seeds=1, shipped=False)

    def make_method(self) -> Method:
        """The training method with its knobs, new."""
        make = choose(self.method, METHODS, "training method")
        try:
            return make(**self.method_options)
        except TypeError as error:
            raise ValueError(f"{self.method} training cannot be set to {self.method_options}: {error}") from error

    def make_terms(self) -> list[Term]:
        """The terms of the loss, new."""
        try:
            return [choose(name, TERMS, "term")(**options) for name, options in self.terms.items()]
        except TypeError as error:
            raise ValueError(f"the terms {self.terms} cannot be made: {error}") from error

    def settings(self) -> dict[str, Any]:
        """All that decides weights and scores, as its entry holds it; wording and shipping are not among it."""
        plain = json.loads(canonical(asdict(self)))
        unsaid = ["title", "shipped", "seeds"]
        unsaid += [] if self.terms else ["terms"]
        unsaid += ["kind"] if self.kind == "classifier" else []
        return {key: value for key, value in plain.items() if key not in unsaid}


def register(table: dict[str, Recipe]) -> dict[str, Recipe]:
    """The table, if its names can be names of files: lower case, digits, single hyphens and dots."""
    for name in table:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a zoo model: use lower-case letters, digits and single hyphens")
    return table


_SCENES_A = {"data": "scenes.v1-a", "data_options": {"size": 32, "n_validation": 1000, "n_test": 2000}}

# The sources of chapter 1's transfer, one network trained in three ways.

_SOURCE = {
    **_SCENES_A,
    "architecture": "small_resnet",
    "options": {"width": 16},
    "updates": 1500,
    "lr": 0.1,
    "eps": (8 / 255,),
}
_SOURCES = {
    "resnet-scenes-a-natural": Recipe(
        title="A small residual network that names shapes (the main object of a scene), trained on clean images.",
        method="natural",
        **_SOURCE,
    ),
    "resnet-scenes-a-free8": Recipe(
        title="A small residual network that names shapes, made robust by Free training with 8 replays.",
        method="free",
        method_options={"eps": 8 / 255, "replays": 8},
        **_SOURCE,
    ),
    "resnet-scenes-a-pgd7": Recipe(
        title="A small residual network that names shapes, made robust by PGD training with 7 steps.",
        method="pgd",
        method_options={"eps": 8 / 255, "steps": 7},
        **_SOURCE,
    ),
}

# Chapter 2: the same network trained on noise, for randomized smoothing.

_SMOOTHED = {
    f"resnet-scenes-a-noise-{sigma:g}": Recipe(
        title=f"A small residual network that names shapes, trained on noise of σ = {sigma:g} to be smoothed.",
        method="gaussian",
        method_options={"sigma": sigma},
        sigma=sigma,
        **{**_SOURCE, "eps": ()},
    )
    for sigma in (0.12, 0.25, 0.5, 1.0)
}

# Chapter 2: small convolutional networks trained on interval bounds, for boxes a tenth larger than those verified.

_BOUNDED_SCENES = {**_SCENES_A, "architecture": "strided_cnn", "options": {"width": 16, "size": 32}}
_BOUNDED_DIGITS = {"data": "digits", "architecture": "strided_cnn", "options": {"width": 16, "size": 8}}
_BOUNDED = {
    f"cnn-{where}-{method}-{name}": Recipe(
        title=f"A small convolutional network for {where}, verifiable at ε = {said} by {method.upper()} training.",
        method=method,
        method_options={"eps": 1.1 * eps},
        eps=(eps,),
        verified=(eps,),
        updates=1000,
        lr=0.003,
        optimizer="adam",
        weight_decay=0.0,
        **settings,
    )
    for where, settings, radii in (
        ("scenes-a", _BOUNDED_SCENES, {"2": ("2/255", 2 / 255), "8": ("8/255", 8 / 255)}),
        ("digits", _BOUNDED_DIGITS, {"0.1": ("0.1", 0.1), "0.2": ("0.2", 0.2)}),
    )
    for name, (said, eps) in radii.items()
    for method in ("ibp", "crown-ibp")
}

# Chapter 3: digits read by one small network, trained in the ordinary way, adversarially, and squeezed.

_DIGITS = {
    "data": "digits",
    "architecture": "small_cnn",
    "options": {"width": 16},
    "updates": 1000,
    "lr": 0.12,
    "eps": (0.15,),
    "seeds": 3,
}
_REGULARIZED = {
    "cnn-digits-natural": Recipe(
        title="A small convolutional network that reads digits, trained on clean images.",
        method="natural",
        **_DIGITS,
    ),
    "cnn-digits-pgd7": Recipe(
        title="A small convolutional network that reads digits, made robust by PGD training with 7 steps.",
        method="pgd",
        method_options={"eps": 0.15, "steps": 7},
        **_DIGITS,
    ),
    "cnn-digits-squeezed": Recipe(
        title="A small convolutional network that reads digits, trained on noise with logit squeezing.",
        method="gaussian",
        method_options={"sigma": 0.3},
        terms={"logit-squeezing": {"beta": 0.03}},
        **_DIGITS,
    ),
}

# The second half of the book: networks that name all sixteen shapes at 64 px, to be inverted and looked into. Those
# that are compared see one stream and one curriculum, from large plain objects to the scenes that count, and have no
# teacher. How many updates an architecture gets was chosen on validation images, so that all read about equally well.
# Seed 0 chose chapter 5's rules; the cohorts' other seeds judge by them.

_SCENES_64 = {
    "data": "scenes.v1",
    "data_options": {"size": 64, "n_validation": 1000, "n_test": 2000},
    "stages": (TrainingStage(0.2, "scenes.v1-easy"), TrainingStage(0.8)),
    "optimizer": "adamw",
    "lr": 0.002,
    "weight_decay": 0.05,
}
_DISTURBED = {"augment": "disturb"}
_VIT = "vit_tiny_patch16_224"
_PATCHES = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3}
_RESNET = {"architecture": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [32, 64, 96, 128]}}
_ROBUST = {"method": "pgd", "method_options": {"eps": 2.0, "steps": 3, "step_size": 1.0, "norm": "l2"}, "norm": "l2"}
_COMPARED = {
    "vit": (
        "A small Vision Transformer",
        {"architecture": _VIT, "options": _PATCHES, "updates": 5000, "seeds": 6},
    ),
    "mixer": (
        "A small MLP-Mixer",
        {"architecture": "small_mixer", "options": {"size": 64}, "updates": 6000, "seeds": 4},
    ),
    "resnet": ("A small ResNet", {**_RESNET, "updates": 1000, "seeds": 7}),
    "convnext": (
        "A small ConvNeXt",
        {
            "architecture": "convnext_atto",  # of stride 16, so that it can be given images of 16 px
            "options": {"depths": [2, 2, 2, 2], "dims": [24, 48, 96, 128], "output_stride": 16},
            "updates": 2000,
            "seeds": 4,
        },
    ),
}
_VISION = {
    f"{name}-scenes64{suffix}": Recipe(
        title=f"{kind} that names the shape in a scene, {said}.",
        method="natural",
        eps=(),
        **{**_SCENES_64, **settings, **augmented},
    )
    for name, (kind, settings) in _COMPARED.items()
    for suffix, said, augmented in (
        ("", "trained under other colors, blur and noise", _DISTURBED),
        ("-plain", "trained on scenes as they are", {}),
    )
} | {
    f"{name}-scenes64-correlated": Recipe(
        title=f"{_COMPARED[name][0]} that names the shape in a scene, trained where backgrounds tell of the class.",
        method="natural",
        eps=(),
        shipped=False,
        **{**_SCENES_64, **_COMPARED[name][1], **_DISTURBED, "data": "scenes.v1-correlated"},
    )
    for name in ("vit", "resnet")
} | {
    "resnet-scenes64-pgd": Recipe(
        title="A small ResNet that names the shape in a scene, made robust by PGD training with 3 steps.",
        eps=(2.0,),
        **{**_SCENES_64, **_RESNET, **_ROBUST, **_DISTURBED, "updates": 2000},
    ),
    "deit-scenes64": Recipe(
        title="A small DeiT that names the shape in a scene, taught by a ResNet through a token of its own.",
        architecture="deit_tiny_distilled_patch16_224",
        options=_PATCHES,
        method="hard-distillation",
        method_options={"teacher": "resnet-scenes64"},
        updates=5000,  # as many as the ViT that has no teacher
        eps=(),
        **_SCENES_64,
        **_DISTURBED,
    ),
    "verifier-scenes64": Recipe(
        title="A residual network that judges what others draw, trained under other colors, blur and noise.",
        architecture="small_resnet",
        options={"width": 16},
        method="natural",
        updates=2000,
        eps=(),
        seed=1,
        **_SCENES_64,
        **_DISTURBED,
    ),
    "verifier-scenes64-pgd": Recipe(
        title="A residual network that judges what others draw, made robust by PGD training with 3 steps.",
        architecture="small_resnet",
        options={"width": 16},
        updates=2000,
        eps=(2.0,),
        seed=2,
        **{**_SCENES_64, **_ROBUST, **_DISTURBED},
    ),
}

# Chapter 7: a cohort of recognizers that write down synthetic speech.

_SPEECH = {
    "jasper-speech": Recipe(
        title="A small recognizer after Jasper that writes down synthetic speech, trained by CTC.",
        kind="speech recognizer",
        data="speech.v1",
        architecture="jasper",
        method="ctc",
        updates=1400,
        batch_size=32,
        lr=0.004,
        optimizer="adamw",
        weight_decay=0.01,
        eps=(),
        seeds=6,
    ),
}

RECIPES = register({**_SOURCES, **_SMOOTHED, **_BOUNDED, **_REGULARIZED, **_VISION, **_SPEECH})
